//! The made-up container engine, relay and probes of a host.

use std::time::Duration;

use domain::ids::ReleaseId;
use domain::name::Name;
use domain::step::event::{Event, Found, Instance, Outcome, Sample};
use domain::step::report::{StageCheck, StageOutcome, StageRefusal};

use super::{Ev, Op, World};
use crate::simulation::check::{Verdicts, Violation};
use crate::simulation::faults::Fault;
use crate::simulation::scenario::Behaviour;
use crate::simulation::{Micros, SECOND};

impl World {
    pub(super) fn engine_done(&mut self, host: usize, boot: u64, run: u64, op: Op) -> Verdicts {
        if self.hosts[host].boot != boot || self.hosts[host].run != run || self.hosts[host].agent.is_none() {
            return Ok(());
        }
        let event = self.effect(host, op)?;
        self.tell(host, event)
    }

    /// Calls that were under way when the agent died: the engine finished them, or never got them.
    pub(super) fn finish_engine_calls(&mut self, host: usize) {
        let (boot, run) = (self.hosts[host].boot, self.hosts[host].run);
        let mine = |event: &Ev| matches!(event, Ev::Engine { host: h, boot: b, run: r, .. } if (*h, *b, *r) == (host, boot, run));
        let keys: Vec<(Micros, u64)> =
            self.queue.iter().filter(|(_, event)| mine(event)).map(|(key, _)| *key).collect();
        for key in keys {
            if let Some(Ev::Engine { op, .. }) = self.queue.remove(&key)
                && self.rng.permille(500)
                && !matches!(op, Op::Inspect | Op::Logs { .. } | Op::Stage { .. })
            {
                let _answer_lost = self.effect(host, op);
            }
        }
    }

    fn effect(&mut self, host: usize, op: Op) -> Result<Event, Violation> {
        Ok(match op {
            Op::Inspect => self.inspect(host),
            Op::Stage { generation } => self.stage(host, generation),
            Op::Start { release, process } => return self.start(host, release, process),
            Op::Stop { release, process } => {
                self.hosts[host].containers.remove(&(release, process.clone()));
                self.say(|| format!("{host:>2} stopped {process} of {}", release.short()));
                Event::Stopped { release, process }
            }
            Op::Route { release } => self.route(host, release),
            Op::Logs { release, process } => {
                Event::Logs { release, process, lines: vec!["no such table: session_v2".to_owned()] }
            }
        })
    }

    fn inspect(&self, host: usize) -> Event {
        let place = &self.hosts[host];
        let containers = place.containers.iter().map(|((release, process), container)| Found {
            release: *release,
            process: process.clone(),
            running: container.running.then_some(container.instance),
        });
        Event::Inspected { containers: containers.collect(), routed: place.confirmed_route() }
    }

    fn stage(&mut self, host: usize, generation: domain::ids::Generation) -> Event {
        let refuses = std::mem::take(&mut self.hosts[host].refuses_stage);
        let outcome = if refuses {
            self.stats.fault(Fault::StageRefused);
            StageOutcome::Refused(StageRefusal {
                check: StageCheck::Disk,
                text: "12 MB free, 400 MB needed".to_owned(),
            })
        } else {
            StageOutcome::Ready
        };
        Event::Staged { generation, outcome, took: Duration::from_millis(400) }
    }

    fn start(&mut self, host: usize, release: ReleaseId, process: Name) -> Result<Event, Violation> {
        if !self.healing && self.rng.permille(self.scenario.rates.engine) {
            self.stats.fault(Fault::EngineError);
            return Ok(Event::StartFailed { release, process, text: "no space left on device".to_owned() });
        }
        let opens_after = self.rng.between(50_000, 1_500_000);
        let (instance, new) = self.hosts[host].start(release, &process, self.now, opens_after);
        let (run, boot) = (self.hosts[host].run, self.hosts[host].boot);
        self.say(|| format!("{host:>2} started {process} of {} as {instance}", release.short()));
        self.overlaps(host, &process)?;
        if new {
            self.misbehave(host, boot, release, &process, instance);
        }
        self.after(1000, Ev::Probe { host, run, release, process: process.clone(), instance, again: true });
        Ok(Event::Started { release, process, instance })
    }

    /// A start of a release with a bug, on a host where it shows.
    fn misbehave(&mut self, host: usize, boot: u64, release: ReleaseId, process: &Name, instance: Instance) {
        let fault = match self.behaviour(release, host, process) {
            Behaviour::Good => return,
            Behaviour::Failing => Fault::ReleaseFailing,
            Behaviour::Silent => Fault::ReleaseSilent,
            Behaviour::TurnsBad(_) => Fault::ReleaseTurnsBad,
            Behaviour::Crashes(after) => {
                self.after(after, Ev::Exit { host, boot, release, process: process.clone(), instance });
                Fault::ReleaseCrashes
            }
        };
        self.stats.fault(fault);
    }

    /// Only the web process of a release has its bugs.
    fn behaviour(&self, release: ReleaseId, host: usize, process: &Name) -> Behaviour {
        if process.as_str() == "web" { self.scenario.behaviour(release, host) } else { Behaviour::Good }
    }

    /// `overlap: false`: never two of them, whoever started them.
    fn overlaps(&self, host: usize, process: &Name) -> Verdicts {
        let exclusive =
            self.scenario.releases[0].release.processes.get(process).is_some_and(|process| !process.overlap);
        let beside = self.hosts[host].running().filter(|(_, running)| running == process).count();
        if exclusive && beside > 1 {
            return Err(Violation {
                invariant: "O1",
                text: format!("{beside} {process} run beside each other on {}", self.hosts[host].name),
            });
        }
        Ok(())
    }

    fn route(&mut self, host: usize, release: Option<ReleaseId>) -> Event {
        if !self.healing && self.rng.permille(self.scenario.rates.relay) {
            self.stats.fault(Fault::RelayError);
            return Event::RouteFailed { text: "the relay does not answer".to_owned() };
        }
        let place = &mut self.hosts[host];
        place.route = release;
        place.route_boot = place.boot;
        self.say(|| format!("{host:>2} routed to {:?}", release.map(ReleaseId::short)));
        Event::Routed { release }
    }

    pub(super) fn process_exit(
        &mut self,
        host: usize,
        boot: u64,
        release: ReleaseId,
        process: Name,
        instance: Instance,
    ) -> Verdicts {
        if self.hosts[host].boot != boot {
            return Ok(());
        }
        let Some(container) = self.hosts[host].containers.get_mut(&(release, process.clone())) else { return Ok(()) };
        if container.instance != instance || !container.running {
            return Ok(());
        }
        container.running = false;
        self.say(|| format!("{host:>2} {process} of {} ended", release.short()));
        let log = vec!["Traceback: ImportError".to_owned()];
        self.tell(host, Event::Exited { release, process, instance, code: Some(1), log })
    }

    pub(super) fn probe(
        &mut self,
        host: usize,
        run: u64,
        release: ReleaseId,
        process: Name,
        instance: Instance,
        again: bool,
    ) {
        let place = &self.hosts[host];
        let Some(container) = place.containers.get(&(release, process.clone())).copied() else { return };
        if place.run != run || place.agent.is_none() || container.instance != instance || !container.running {
            return;
        }
        let (outcome, text) = self.answer(host, release, &process, container.started, container.opens);
        let sample = Sample {
            release,
            process: process.clone(),
            instance,
            taken: self.hosts[host].clock(self.now),
            outcome,
            text: text.to_owned(),
        };
        // An answer may take its time; the agent may have switched meanwhile.
        let took =
            if self.rng.permille(40) { self.rng.between(SECOND / 10, SECOND) } else { self.rng.between(500, 20_000) };
        let taken = self.now;
        self.after(took, Ev::Sampled { host, run, sample: Box::new(sample), taken });
        if again {
            let wait = self.cadence(host, &release, outcome);
            self.after(wait, Ev::Probe { host, run, release, process, instance, again: true });
        }
    }

    fn answer(
        &mut self,
        host: usize,
        release: ReleaseId,
        process: &Name,
        started: Micros,
        opens: Micros,
    ) -> (Outcome, &'static str) {
        let age = self.now.saturating_sub(started);
        let flaps = !self.healing && self.now < self.hosts[host].flapping_until;
        match self.behaviour(release, host, process) {
            Behaviour::Silent => (Outcome::Refused, "connection refused"),
            _ if self.now < opens => (Outcome::Refused, "connection refused"),
            Behaviour::Failing => (Outcome::Fail, "HTTP 500"),
            Behaviour::TurnsBad(after) if age >= after => (Outcome::Fail, "HTTP 503"),
            _ if flaps && self.rng.permille(self.scenario.rates.flapping) => {
                self.stats.fault(Fault::HealthFlapping);
                (Outcome::Fail, "no answer within 1 s")
            }
            _ => (Outcome::Pass, "HTTP 200"),
        }
    }

    /// Fast until the first pass, `interval` while a step is open, slow when nothing changes.
    fn cadence(&self, host: usize, release: &ReleaseId, outcome: Outcome) -> Micros {
        let step = self.hosts[host].slot.step.as_ref().filter(|step| step.settled.is_none());
        let health = self.scenario.releases[0].release.processes.values().find_map(|process| process.health.as_ref());
        let interval = health.map_or(SECOND, |health| u64::try_from(health.interval.as_micros()).unwrap_or(SECOND));
        match (outcome, step) {
            (Outcome::Refused, _) => 200_000,
            (_, Some(step)) if step.to.release == *release => interval,
            (Outcome::Fail, _) => interval,
            (Outcome::Pass, _) => 8 * interval,
        }
    }

    pub(super) fn sampled(&mut self, host: usize, run: u64, sample: Sample, taken: Micros) -> Verdicts {
        if self.hosts[host].run != run || self.hosts[host].agent.is_none() {
            return Ok(());
        }
        self.check.sampled(host, &sample, taken);
        self.tell(host, Event::Sample(sample))
    }

    pub(super) fn reboot(&mut self, host: usize) {
        self.stats.fault(Fault::HostReboot);
        self.say(|| format!("{host:>2} reboots"));
        let place = &mut self.hosts[host];
        place.agent = None;
        place.boot += 1;
        for container in place.containers.values_mut() {
            container.running = false;
        }
        self.check.rebooted(host);
        let up = self.rng.between(2, 20) * SECOND;
        self.hosts[host].booted = self.now + up / 2;
        let boot = self.hosts[host].boot;
        self.after(up, Ev::AgentStart { host, boot });
    }
}
