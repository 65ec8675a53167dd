//! Releases, as agents need them.

use std::collections::BTreeMap;

use domain::app::{Expose, Mode, Process};
use domain::health::{HealthCheck, Probe};
use domain::label::Selector;
use domain::name::{Name, TargetRef};
use domain::release::{Commit, Digest, Image, Release};
use domain::time::Timestamp;

use super::{Error, duration, id, micros, optional, port};
use crate::v1::{self, health_check};

impl From<&Image> for v1::BuildImage {
    fn from(image: &Image) -> Self {
        let hex = |digest: &Option<Digest>| digest.as_ref().map(|d| d.hex().to_owned()).unwrap_or_default();
        Self {
            reference: image.reference.clone().unwrap_or_default(),
            archive: hex(&image.archive),
            archive_bytes: image.archive_bytes,
            config_digest: hex(&image.config_digest),
            platform: image.platform.clone(),
        }
    }
}

impl TryFrom<v1::BuildImage> for Image {
    type Error = Error;

    fn try_from(image: v1::BuildImage) -> Result<Self, Error> {
        let digest = |field, text: &str| -> Result<Option<Digest>, Error> {
            optional(text).map(|hex| Digest::parse(&hex).map_err(|why| Error::invalid(field, why))).transpose()
        };
        Ok(Self {
            reference: optional(&image.reference),
            archive: digest("image.archive", &image.archive)?,
            archive_bytes: image.archive_bytes,
            config_digest: digest("image.config_digest", &image.config_digest)?,
            platform: image.platform,
        })
    }
}

impl From<&HealthCheck> for v1::HealthCheck {
    fn from(check: &HealthCheck) -> Self {
        let tcp = |port: u16| v1::TcpProbe { port: port.into() };
        let probe = match &check.probe {
            Probe::Http { path, port } => {
                health_check::Probe::Http(v1::HttpProbe { path: path.clone(), port: port.unwrap_or(0).into() })
            }
            Probe::Tcp { port } => health_check::Probe::Tcp(tcp(port.unwrap_or(0))),
            Probe::Postgres { port } => health_check::Probe::Postgres(tcp(*port)),
            Probe::Redis { port } => health_check::Probe::Redis(tcp(*port)),
            Probe::Container => health_check::Probe::Container(v1::ContainerProbe {}),
            Probe::Command { argv } => health_check::Probe::Command(v1::CommandProbe { argv: argv.clone() }),
        };
        Self {
            probe: Some(probe),
            interval_micros: micros(check.interval),
            timeout_micros: micros(check.timeout),
            failures: check.failures,
            start_period_micros: micros(check.start_period),
        }
    }
}

impl TryFrom<v1::HealthCheck> for HealthCheck {
    type Error = Error;

    fn try_from(check: v1::HealthCheck) -> Result<Self, Error> {
        let maybe = |number: u32| -> Result<Option<u16>, Error> {
            port("health.port", number).map(|port| (port != 0).then_some(port))
        };
        let probe = match check.probe.ok_or(Error::Missing("health.probe"))? {
            health_check::Probe::Http(http) => Probe::Http { path: http.path, port: maybe(http.port)? },
            health_check::Probe::Tcp(tcp) => Probe::Tcp { port: maybe(tcp.port)? },
            health_check::Probe::Postgres(tcp) => Probe::Postgres { port: port("health.port", tcp.port)? },
            health_check::Probe::Redis(tcp) => Probe::Redis { port: port("health.port", tcp.port)? },
            health_check::Probe::Container(_) => Probe::Container,
            health_check::Probe::Command(command) => Probe::Command { argv: command.argv },
        };
        Ok(Self {
            probe,
            interval: duration(check.interval_micros),
            timeout: duration(check.timeout_micros),
            failures: check.failures.max(1),
            start_period: duration(check.start_period_micros),
        })
    }
}

impl From<&Process> for v1::Process {
    fn from(process: &Process) -> Self {
        Self {
            command: process.command.clone(),
            ports: process.ports.iter().map(|port| u32::from(*port)).collect(),
            health: process.health.as_ref().map(Into::into),
            overlap: process.overlap,
            on: process.on.as_ref().map(ToString::to_string).unwrap_or_default(),
            environment: process.environment.clone().into_iter().collect(),
        }
    }
}

impl TryFrom<v1::Process> for Process {
    type Error = Error;

    fn try_from(process: v1::Process) -> Result<Self, Error> {
        let on = optional(&process.on)
            .map(|text| Selector::parse(&text).map_err(|why| Error::invalid("process.on", why)))
            .transpose()?;
        Ok(Self {
            command: process.command,
            ports: process.ports.into_iter().map(|n| port("process.ports", n)).collect::<Result<_, _>>()?,
            health: process.health.map(TryInto::try_into).transpose()?,
            overlap: process.overlap,
            on,
            environment: process.environment.into_iter().collect(),
        })
    }
}

impl From<&Expose> for v1::Expose {
    fn from(expose: &Expose) -> Self {
        let mode = match expose.mode {
            Mode::Tcp => v1::Mode::Tcp,
            Mode::Http => v1::Mode::Http,
        };
        Self {
            process: expose.process.to_string(),
            port: expose.port.into(),
            mode: mode.into(),
            address: expose.address.clone().unwrap_or_default(),
        }
    }
}

impl TryFrom<v1::Expose> for Expose {
    type Error = Error;

    fn try_from(expose: v1::Expose) -> Result<Self, Error> {
        let mode = match expose.mode() {
            v1::Mode::Tcp => Mode::Tcp,
            v1::Mode::Http => Mode::Http,
            v1::Mode::Unspecified => return Err(Error::Missing("expose.mode")),
        };
        Ok(Self {
            process: Name::new("process", &expose.process).map_err(|why| Error::invalid("expose.process", why))?,
            port: port("expose.port", expose.port)?,
            mode,
            address: optional(&expose.address),
        })
    }
}

impl From<&Release> for v1::ReleaseSpec {
    fn from(release: &Release) -> Self {
        Self {
            id: release.id.to_string(),
            target: release.target.to_string(),
            number: release.number,
            build: release.build.to_string(),
            commit: release.commit.to_string(),
            image: Some((&release.image).into()),
            processes: release.processes.iter().map(|(name, process)| (name.to_string(), process.into())).collect(),
            expose: release.expose.iter().map(Into::into).collect(),
            config_revision: release.config_revision,
            config: release.config.clone().into_iter().collect(),
            digest: release.digest.hex().to_owned(),
            created_at: release.created_at.0,
        }
    }
}

impl TryFrom<v1::ReleaseSpec> for Release {
    type Error = Error;

    fn try_from(spec: v1::ReleaseSpec) -> Result<Self, Error> {
        let mut processes = BTreeMap::new();
        for (name, process) in spec.processes {
            let name = Name::new("process", &name).map_err(|why| Error::invalid("release.processes", why))?;
            processes.insert(name, process.try_into()?);
        }
        Ok(Self {
            id: id("release.id", &spec.id)?,
            target: TargetRef::parse(&spec.target).map_err(|why| Error::invalid("release.target", why))?,
            number: spec.number,
            build: id("release.build", &spec.build)?,
            commit: Commit::parse(&spec.commit).map_err(|why| Error::invalid("release.commit", why))?,
            image: spec.image.ok_or(Error::Missing("release.image"))?.try_into()?,
            processes,
            expose: spec.expose.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            config_revision: spec.config_revision,
            config: spec.config.into_iter().collect(),
            digest: Digest::parse(&spec.digest).map_err(|why| Error::invalid("release.digest", why))?,
            created_at: Timestamp(spec.created_at),
        })
    }
}
