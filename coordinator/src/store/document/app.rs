//! Stored shapes of what `muster.yaml` describes.

use std::collections::BTreeMap;
use std::time::Duration;

use domain::app::{App, Driver, Expose, Gate, Mode, Process, TargetSpec, TestSpec};
use domain::health::{HealthCheck, Probe};
use domain::label::Selector;
use domain::name::Name;
use domain::policy::{Amount, OnNewer, Policy};
use serde::{Deserialize, Serialize};

use super::{Document, document};

document!(App => AppShape {
    name: Name,
    processes: BTreeMap<Name, Process>,
    stack: Option<String>,
    tests: BTreeMap<Name, TestSpec>,
    targets: BTreeMap<Name, TargetSpec>,
});

document!(Process => ProcessShape {
    command: Vec<String>,
    ports: Vec<u16>,
    health: Option<HealthCheck>,
    overlap: bool,
    on: Option<Selector>,
    environment: BTreeMap<String, String>,
});

document!(TestSpec => TestSpecShape {
    command: Vec<String>,
    service: Option<Name>,
    junit: Option<String>,
    timeout: Duration,
    no_output: Duration,
});

document!(Expose => ExposeShape {
    process: Name,
    port: u16,
    mode: Mode,
    address: Option<String>,
});

document!(TargetSpec => TargetSpecShape {
    members: Selector,
    driver: Driver,
    expose: Vec<Expose>,
    policy: Policy,
    gates: Vec<Gate>,
});

document!(Policy => PolicyShape {
    max_parallel: Amount,
    canary: Amount,
    auto_promote: bool,
    waves: Vec<Amount>,
    min_healthy_time: Duration,
    healthy_deadline: Duration,
    confirm_deadline: Duration,
    progress_deadline: Duration,
    bake_time: Duration,
    final_bake_time: Duration,
    auto_revert: bool,
    minimum_healthy_hosts: Option<Amount>,
    max_fail: Amount,
    max_unreachable: Amount,
    on_newer: OnNewer,
    retain_releases: u32,
    drain_timeout: Duration,
    kill_timeout: Duration,
});

document!(HealthCheck => HealthCheckShape {
    probe: Probe,
    interval: Duration,
    timeout: Duration,
    failures: u32,
    start_period: Duration,
});

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum AmountShape {
    Count(u32),
    Percent(u32),
}

impl Document for Amount {
    type Stored = AmountShape;

    fn to_stored(&self) -> AmountShape {
        match *self {
            Self::Count(count) => AmountShape::Count(count),
            Self::Percent(percent) => AmountShape::Percent(percent),
        }
    }

    fn from_stored(stored: AmountShape) -> Result<Self, String> {
        Ok(match stored {
            AmountShape::Count(count) => Self::Count(count),
            AmountShape::Percent(percent) => Self::Percent(percent),
        })
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ProbeShape {
    Http { path: String, port: Option<u16> },
    Tcp { port: Option<u16> },
    Postgres { port: u16 },
    Redis { port: u16 },
    Container,
    Command { argv: Vec<String> },
}

impl Document for Probe {
    type Stored = ProbeShape;

    fn to_stored(&self) -> ProbeShape {
        match self {
            Self::Http { path, port } => ProbeShape::Http { path: path.clone(), port: *port },
            Self::Tcp { port } => ProbeShape::Tcp { port: *port },
            Self::Postgres { port } => ProbeShape::Postgres { port: *port },
            Self::Redis { port } => ProbeShape::Redis { port: *port },
            Self::Container => ProbeShape::Container,
            Self::Command { argv } => ProbeShape::Command { argv: argv.clone() },
        }
    }

    fn from_stored(stored: ProbeShape) -> Result<Self, String> {
        Ok(match stored {
            ProbeShape::Http { path, port } => Self::Http { path, port },
            ProbeShape::Tcp { port } => Self::Tcp { port },
            ProbeShape::Postgres { port } => Self::Postgres { port },
            ProbeShape::Redis { port } => Self::Redis { port },
            ProbeShape::Container => Self::Container,
            ProbeShape::Command { argv } => Self::Command { argv },
        })
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum GateShape {
    Health,
}

impl Document for Gate {
    type Stored = GateShape;

    fn to_stored(&self) -> GateShape {
        match self {
            Self::Health => GateShape::Health,
        }
    }

    fn from_stored(stored: GateShape) -> Result<Self, String> {
        Ok(match stored {
            GateShape::Health => Self::Health,
        })
    }
}
