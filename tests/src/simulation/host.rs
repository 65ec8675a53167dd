//! A made-up host: engine, relay, disk and clock; on it the shipping step machine and fence rules.

use std::collections::BTreeMap;
use std::time::Duration;

use domain::hello::Fenced;
use domain::ids::{HostId, ReleaseId};
use domain::name::Name;
use domain::step::event::Instance;
use domain::step::journal::{BootId, BootTime, Slot};
use domain::step::machine::Machine;
use domain::step::report::Report;

use super::Micros;
use super::scenario::id;

/// A container as the engine has it.
#[derive(Clone, Copy, Debug)]
pub struct Container {
    /// Which run of it; counts on.
    pub instance: Instance,
    /// It runs.
    pub running: bool,
    /// When it was started last.
    pub started: Micros,
    /// When its port opens.
    pub opens: Micros,
}

/// A running agent.
#[derive(Debug)]
pub struct Agent {
    /// The machine of the one target.
    pub machine: Machine,
    /// Its open session.
    pub session: Option<u64>,
    /// When the coordinator was heard last.
    pub heard: Micros,
    /// A report that was not acknowledged.
    pub unacked: Option<Box<Report>>,
    /// Dials so far without an answer.
    pub dials: u32,
    /// Number of the last wake-up asked for.
    pub wake: u64,
    /// Dies after so many more actions.
    pub dies_after: Option<u64>,
}

/// A host.
#[derive(Debug)]
pub struct SimHost {
    /// Its id.
    pub id: HostId,
    /// For the trace.
    pub name: String,
    /// Never heard from again.
    pub dead: bool,
    /// Not reachable until then.
    pub silent_until: Micros,
    /// Confirmations to it are lost until then.
    pub deaf_until: Micros,
    /// Its probes fail now and then until then.
    pub flapping_until: Micros,
    /// The next staging is refused.
    pub refuses_stage: bool,
    /// Boots so far.
    pub boot: u64,
    /// When the last one was.
    pub booted: Micros,
    /// On disk.
    pub slot: Slot,
    /// On disk.
    pub fenced: Fenced,
    /// On disk: starts of the agent.
    pub run: u64,
    /// The process, if it runs.
    pub agent: Option<Agent>,
    /// The engine's containers.
    pub containers: BTreeMap<(ReleaseId, Name), Container>,
    /// The relay's entry.
    pub route: Option<ReleaseId>,
    /// The boot in which it was confirmed.
    pub route_boot: u64,
    /// Runs of containers so far.
    pub instances: u64,
}

impl SimHost {
    /// A host that runs nothing and whose agent is not started.
    #[must_use]
    pub fn new(host: &domain::host::Host) -> Self {
        Self {
            id: host.id,
            name: host.name.to_string(),
            dead: false,
            silent_until: 0,
            deaf_until: 0,
            flapping_until: 0,
            refuses_stage: false,
            boot: 1,
            booted: 0,
            slot: Slot::default(),
            fenced: Fenced::default(),
            run: 0,
            agent: None,
            containers: BTreeMap::new(),
            route: None,
            route_boot: 1,
            instances: 0,
        }
    }

    /// The boot clock.
    #[must_use]
    pub fn clock(&self, now: Micros) -> BootTime {
        BootTime {
            boot: BootId(id(8, self.boot * 1000 + self.id.uuid().as_u64_pair().1 % 1000)),
            at: Duration::from_micros(now.saturating_sub(self.booted)),
        }
    }

    /// The coordinator and it cannot hear each other.
    #[must_use]
    pub const fn cut(&self, now: Micros) -> bool {
        self.dead || now < self.silent_until
    }

    /// The relay's entry, if it was confirmed since the boot.
    #[must_use]
    pub const fn confirmed_route(&self) -> Option<ReleaseId> {
        if self.route_boot == self.boot { self.route } else { None }
    }

    /// Starts a container: a new run unless it runs already.
    pub fn start(&mut self, release: ReleaseId, process: &Name, now: Micros, opens_after: Micros) -> (Instance, bool) {
        let old = self.containers.get(&(release, process.clone())).filter(|old| old.running);
        if let Some(old) = old {
            return (old.instance, false);
        }
        self.instances += 1;
        let container = Container { instance: self.instances, running: true, started: now, opens: now + opens_after };
        self.containers.insert((release, process.clone()), container);
        (self.instances, true)
    }

    /// What runs now.
    pub fn running(&self) -> impl Iterator<Item = &(ReleaseId, Name)> {
        self.containers.iter().filter(|(_, container)| container.running).map(|(key, _)| key)
    }
}
