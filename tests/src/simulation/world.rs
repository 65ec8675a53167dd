//! The world of one scenario: one queue of events, one clock, everything else hangs on them.

mod agents;
mod asks;
mod coordinator;
mod engine;
mod finish;
mod network;

use std::collections::BTreeMap;

use domain::hello::Fenced;
use domain::ids::{Fence, Generation, ReleaseId, RolloutId};
use domain::name::Name;
use domain::step::event::{Event, Instance, Sample};
use domain::step::order::{Envelope, Work};
use domain::step::report::{Report, Stamp};
use domain::time::Timestamp;

use super::brain::Brain;
use super::check::{Check, Verdicts, Violation};
use super::host::SimHost;
use super::rng::Rng;
use super::scenario::{Ask, Scenario};
use super::stats::Stats;
use super::{Micros, SECOND};

/// An invariant was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Replays it.
    pub seed: u64,
    /// When, in simulated seconds.
    pub at: Micros,
    /// What.
    pub violation: Violation,
    /// What happened, line by line, if asked for.
    pub trace: Vec<String>,
}

/// To an agent.
#[derive(Clone, Debug)]
pub(super) enum Down {
    Welcome(Fence, u64),
    Order(Box<Envelope>),
    Ack(Stamp),
    Heard,
    Unknown,
}

/// To the coordinator.
#[derive(Clone, Debug)]
pub(super) enum Up {
    Hello(Fenced, Box<Report>),
    Report(Box<Report>),
    Beat,
}

#[derive(Clone, Debug)]
pub(super) enum Op {
    Inspect,
    Stage { generation: Generation },
    Start { release: ReleaseId, process: Name },
    Stop { release: ReleaseId, process: Name },
    Route { release: Option<ReleaseId> },
    Logs { release: ReleaseId, process: Name },
}

#[derive(Clone, Debug)]
pub(super) enum Ev {
    ToAgent { host: usize, session: u64, message: Down },
    ToBrain { host: usize, session: u64, message: Up },
    AgentStart { host: usize, boot: u64 },
    AgentDial { host: usize, run: u64 },
    AgentBeat { host: usize, run: u64 },
    AgentWake { host: usize, run: u64, number: u64 },
    Engine { host: usize, boot: u64, run: u64, op: Op },
    Exit { host: usize, boot: u64, release: ReleaseId, process: Name, instance: Instance },
    Probe { host: usize, run: u64, release: ReleaseId, process: Name, instance: Instance, again: bool },
    Sampled { host: usize, run: u64, sample: Box<Sample>, taken: Micros },
    BrainStart,
    BrainTick { epoch: u64 },
    BrainLook { epoch: u64 },
    BrainWake { epoch: u64, at: Micros },
    Do(Ask),
    Heal,
}

/// One scenario under way.
#[derive(Debug)]
pub struct World {
    now: Micros,
    order: u64,
    queue: BTreeMap<(Micros, u64), Ev>,
    rng: Rng,
    scenario: Scenario,
    hosts: Vec<SimHost>,
    brain: Brain,
    check: Check,
    stats: Stats,
    clock_offset: i64,
    sessions: u64,
    healing: bool,
    /// Starts asked for: each has an idempotency key of its own, and the rollout that answered it.
    starts: Vec<Option<RolloutId>>,
    /// Last sent to each host: generation, whether a confirmation, when, in which session.
    sent: BTreeMap<usize, (Generation, bool, Micros, u64)>,
    /// The earliest wake-up that stands.
    wake: Option<Micros>,
    /// A look at the rollouts is due.
    looking: bool,
    /// The coordinator's slow loops have looked since the world was last asked whether it has come to rest.
    ticked: bool,
    ticks: u64,
    waited: BTreeMap<RolloutId, &'static str>,
    trace: Option<Vec<String>>,
    works: BTreeMap<(ReleaseId, usize), Work>,
}

/// Runs one seed to its end.
///
/// # Errors
/// The first invariant that does not hold.
pub fn run(seed: u64, trace: bool) -> Result<(Stats, Vec<String>), Box<Broken>> {
    let mut world = World::new(Scenario::draw(seed), trace);
    let result = world.play();
    let trace = world.trace.take().unwrap_or_default();
    match result {
        Ok(()) => Ok((world.stats, trace)),
        Err(violation) => Err(Box::new(Broken { seed, at: world.now, violation, trace })),
    }
}

impl World {
    fn new(scenario: Scenario, trace: bool) -> Self {
        let hosts: Vec<SimHost> = scenario.hosts.iter().map(SimHost::new).collect();
        let brain = Brain::new(&scenario);
        let rng = Rng::new(scenario.seed.wrapping_mul(31).wrapping_add(7));
        let mut world = Self {
            now: 0,
            order: 0,
            queue: BTreeMap::new(),
            rng,
            hosts,
            brain,
            check: Check::default(),
            stats: Stats::default(),
            clock_offset: 0,
            sessions: 0,
            healing: false,
            starts: Vec::new(),
            sent: BTreeMap::new(),
            wake: None,
            looking: false,
            ticked: false,
            ticks: 0,
            waited: BTreeMap::new(),
            trace: trace.then(Vec::new),
            works: BTreeMap::new(),
            scenario,
        };
        world.stats.scenarios = 1;
        world.stats.hosts = world.hosts.len() as u64;
        *world.stats.sizes.entry(world.hosts.len()).or_default() += 1;
        world.furnish();
        world
    }

    /// Release 0 runs where it is settled, the coordinator starts, then the agents.
    fn furnish(&mut self) {
        let first = self.scenario.releases[0].release.id;
        for host in 0..self.hosts.len() {
            if self.scenario.settled[host] {
                let work = self.work(first, host);
                for process in &work.processes {
                    self.hosts[host].start(first, &process.name, 0, 0);
                }
                self.hosts[host].route = Some(first);
                self.hosts[host].slot.current = Some(work);
                self.check.settled_at_start(host, first);
            }
            let after = self.rng.between(0, SECOND);
            self.at(after, Ev::AgentStart { host, boot: 1 });
        }
        self.at(0, Ev::BrainStart);
        self.brain.calm(false);
        for (at, ask) in self.scenario.asks.clone() {
            self.at(at, Ev::Do(ask));
        }
        self.at(self.scenario.heal_at, Ev::Heal);
    }

    fn play(&mut self) -> Verdicts {
        while let Some(((at, _), event)) = self.queue.pop_first() {
            self.now = at;
            self.brain.set_clock(self.wall());
            if at > self.scenario.end_at {
                break;
            }
            self.stats.events += 1;
            self.handle(event)?;
            if self.healing && std::mem::take(&mut self.ticked) && self.finished() {
                break;
            }
        }
        self.notice_commits()?;
        self.finish()
    }

    fn handle(&mut self, event: Ev) -> Verdicts {
        match event {
            Ev::ToAgent { host, session, message } => self.agent_hears(host, session, message),
            Ev::ToBrain { host, session, message } => self.brain_hears(host, session, message),
            Ev::AgentStart { host, boot } => self.agent_start(host, boot),
            Ev::AgentDial { host, run } => self.agent_dial(host, run),
            Ev::AgentBeat { host, run } => self.agent_beat(host, run),
            Ev::AgentWake { host, run, number } => self.agent_wake(host, run, number),
            Ev::Engine { host, boot, run, op } => self.engine_done(host, boot, run, op),
            Ev::Exit { host, boot, release, process, instance } => {
                self.process_exit(host, boot, release, process, instance)
            }
            Ev::Probe { host, run, release, process, instance, again } => {
                self.probe(host, run, release, process, instance, again);
                Ok(())
            }
            Ev::Sampled { host, run, sample, taken } => self.sampled(host, run, *sample, taken),
            Ev::BrainStart => self.brain_start(),
            Ev::BrainTick { epoch } => self.brain_tick(epoch),
            Ev::BrainLook { epoch } => self.brain_look(epoch),
            Ev::BrainWake { epoch, at } => self.brain_wake(epoch, at),
            Ev::Do(ask) => self.ask(ask),
            Ev::Heal => self.heal(),
        }
    }

    fn at(&mut self, at: Micros, event: Ev) {
        self.order += 1;
        self.queue.insert((at.max(self.now), self.order), event);
    }

    fn after(&mut self, delay: Micros, event: Ev) {
        self.at(self.now + delay, event);
    }

    fn say(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            let seconds = self.now / SECOND;
            let millis = self.now % SECOND / 1000;
            trace.push(format!("{seconds:>5}.{millis:03} {}", line()));
        }
    }

    /// The coordinator's wall clock, which faults move.
    fn wall(&self) -> Timestamp {
        let now = i64::try_from(self.now).unwrap_or(i64::MAX);
        Timestamp(1_700_000_000_000_000 + now + self.clock_offset)
    }

    /// What a release runs on a host.
    fn work(&mut self, release: ReleaseId, host: usize) -> Work {
        if let Some(work) = self.works.get(&(release, host)) {
            return work.clone();
        }
        let labels = &self.scenario.hosts[host].labels;
        let Some(found) = self.scenario.release(release) else { unreachable!("only drawn releases are ordered") };
        let exposed = |name: &Name| found.expose.iter().any(|expose| expose.process == *name);
        let here =
            found.processes.iter().filter(|(_, process)| process.on.as_ref().is_none_or(|on| on.matches(labels)));
        let container = domain::health::HealthCheck::new(domain::health::Probe::Container);
        let processes = here
            .map(|(name, process)| domain::step::order::ProcessWork {
                name: name.clone(),
                overlap: process.overlap,
                exposed: exposed(name),
                health: process.health.clone().unwrap_or_else(|| container.clone()),
            })
            .collect();
        let work = Work { release, number: found.number, processes };
        self.works.insert((release, host), work.clone());
        work
    }

    fn tell(&mut self, host: usize, event: Event) -> Verdicts {
        let clock = self.hosts[host].clock(self.now);
        let Some(agent) = &mut self.hosts[host].agent else { return Ok(()) };
        let actions = agent.machine.handle(event, clock);
        self.perform(host, actions)
    }
}
