//! What a seed stands for: hosts, releases and their bugs, policy, people's asks.

use std::collections::BTreeMap;
use std::time::Duration;

use domain::health::{HealthCheck, Probe};
use domain::host::{Facts, Host, Liveness};
use domain::ids::{BuildId, HostId, ReleaseId};
use domain::label::{Labels, Selector};
use domain::name::{Name, TargetRef};
use domain::policy::{Amount, OnNewer, Policy};
use domain::release::{Commit, Digest, Image, Release};
use domain::time::Timestamp;
use uuid::Uuid;

use super::faults::{Fault, Rates};
use super::rng::Rng;
use super::{Micros, SECOND};

/// What a release does when it runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Behaviour {
    /// It becomes healthy.
    Good,
    /// It ends so long after each start.
    Crashes(Micros),
    /// It answers, and not well.
    Failing,
    /// It never opens its port.
    Silent,
    /// Healthy for so long after each start, then failing for good.
    TurnsBad(Micros),
}

/// A release and on which hosts it misbehaves.
#[derive(Clone, Debug)]
pub struct Planned {
    /// The release.
    pub release: Release,
    /// What it does on hosts where `bad_on` says so; elsewhere it is good.
    pub behaviour: Behaviour,
    /// One in so many hosts; 1: all.
    pub bad_on: u64,
}

/// Something that a person or the world does at an instant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ask {
    /// Start the rollout of this release (index), taking over or not.
    Start {
        /// Index of the release.
        release: usize,
        /// Unlock the target.
        unlock: bool,
    },
    /// The same start again: a client that had no answer.
    StartAgain {
        /// Which start.
        start: usize,
        /// Index of the release.
        release: usize,
        /// Unlock the target.
        unlock: bool,
    },
    /// Pause whatever is active.
    Pause,
    /// Resume whatever is paused.
    Resume,
    /// Cancel whatever is active, or the last queued.
    Cancel,
    /// A fault of the world.
    World(Fault),
}

/// A scenario.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Its seed.
    pub seed: u64,
    /// The hosts.
    pub hosts: Vec<Host>,
    /// The release that hosts with `settled` run at first, and those rolled out.
    pub releases: Vec<Planned>,
    /// Whether each host runs release 0 at first.
    pub settled: Vec<bool>,
    /// The target's policy.
    pub policy: Policy,
    /// The target's members.
    pub members: Selector,
    /// What happens when, before healing.
    pub asks: Vec<(Micros, Ask)>,
    /// Rates of the faults that happen by chance.
    pub rates: Rates,
    /// Injection ends, healing begins.
    pub heal_at: Micros,
    /// Everything must have come to its end.
    pub end_at: Micros,
}

/// A deterministic id.
#[must_use]
pub fn id(kind: u64, number: u64) -> Uuid {
    Uuid::from_u64_pair(0x0190_0000_0000_7000 | kind, 0x8000_0000_0000_0000 | number)
}

fn name(text: &str) -> Name {
    Name::new("name", text).unwrap_or_else(|error| unreachable!("a fixed name: {error}"))
}

impl Scenario {
    /// Draws everything.
    #[must_use]
    pub fn draw(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let size = rng.between(1, 30);
        let mut hosts = Vec::new();
        let scheduler = rng.permille(400).then(|| rng.between(1, size));
        for number in 1..=size {
            hosts.push(host(number, scheduler == Some(number)));
        }
        let web_overlap = rng.permille(850);
        let health = draw_health(&mut rng);
        let policy = draw_policy(&mut rng, size);
        let count = rng.between(1, 4);
        let mut releases = vec![planned(0, scheduler.is_some(), web_overlap, &health, Behaviour::Good, 1)];
        for number in 1..=count {
            let behaviour = draw_behaviour(&mut rng);
            let bad_on = *rng.pick(&[1, 1, 2, 4, 8]);
            releases.push(planned(number, scheduler.is_some(), web_overlap, &health, behaviour, bad_on));
        }
        let first_ever = rng.permille(120);
        let settled = (0..size).map(|_| !first_ever && !rng.permille(20)).collect();
        let mut scenario = Self {
            seed,
            hosts,
            releases,
            settled,
            policy,
            members: Selector::parse("app=bot").unwrap_or_else(|error| unreachable!("a fixed selector: {error}")),
            asks: Vec::new(),
            rates: Rates::draw(&mut rng),
            heal_at: 0,
            end_at: 0,
        };
        scenario.draw_asks(&mut rng, count);
        scenario
    }

    fn draw_asks(&mut self, rng: &mut Rng, rollouts: u64) {
        let size = self.hosts.len() as u64;
        let estimate = (20 + 6 * size) * SECOND;
        let mut at = 8 * SECOND;
        for number in 1..=rollouts {
            let unlock = rng.permille(500);
            self.asks.push((at, Ask::Start { release: usize::try_from(number).unwrap_or(1), unlock }));
            at += rng.between(1, estimate / SECOND) * SECOND;
        }
        self.heal_at = at + rng.between(10, 40) * SECOND;
        let span = self.heal_at;
        let mut many = |rng: &mut Rng, chance: u64, most: u64, ask: Ask| {
            if rng.permille(chance) {
                for _ in 0..rng.between(1, most) {
                    let when = rng.between(5 * SECOND, span);
                    self.asks.push((when, ask));
                }
            }
        };
        many(rng, 250, 2, Ask::Pause);
        many(rng, 300, 3, Ask::Resume);
        many(rng, 200, 2, Ask::Cancel);
        for (fault, chance, most) in [
            (Fault::HostSilent, 450, 3),
            (Fault::HostDead, 250, 1 + size / 10),
            (Fault::HostReboot, 400, 3),
            (Fault::AgentCrash, 500, 5),
            (Fault::CoordinatorCrash, 500, 4),
            (Fault::ClockJump, 300, 2),
            (Fault::HealthFlapping, 400, 3),
            (Fault::ProcessExit, 400, 4),
            (Fault::StageRefused, 120, 1),
        ] {
            many(rng, chance, most, Ask::World(fault));
        }
        self.asks.sort_by_key(|(at, _)| *at);
        // Every step may take healthy_deadline, confirm_deadline and a drain, forward and back, for each rollout in turn.
        let policy = &self.policy;
        let step = policy.healthy_deadline + policy.confirm_deadline + policy.progress_deadline + policy.drain_timeout;
        let bound = (step * 3 * u32::try_from((size + 2) * rollouts).unwrap_or(100)).as_micros();
        self.end_at = self.heal_at + u64::try_from(bound).unwrap_or(u64::MAX / 4) + 600 * SECOND;
    }

    /// What a release does on a host.
    #[must_use]
    pub fn behaviour(&self, release: ReleaseId, host: usize) -> Behaviour {
        let found = self.releases.iter().find(|planned| planned.release.id == release);
        match found {
            Some(planned) if (host as u64 + planned.release.number).is_multiple_of(planned.bad_on) => planned.behaviour,
            _ => Behaviour::Good,
        }
    }

    /// The release of that id.
    #[must_use]
    pub fn release(&self, id: ReleaseId) -> Option<&Release> {
        self.releases.iter().map(|planned| &planned.release).find(|release| release.id == id)
    }

    /// The target.
    #[must_use]
    pub fn target(&self) -> TargetRef {
        TargetRef { app: name("bot"), target: name("production") }
    }
}

fn host(number: u64, scheduler: bool) -> Host {
    let mut labels = Labels::from([("app".to_owned(), "bot".to_owned())]);
    if scheduler {
        labels.insert("scheduler".to_owned(), "yes".to_owned());
    }
    Host {
        id: HostId::new(id(1, number)),
        name: name(&format!("web-{number:02}")),
        labels,
        draining: false,
        facts: Facts::default(),
        joined_at: Timestamp(0),
        seen_at: None,
        liveness: Liveness::Ready,
    }
}

fn planned(
    number: u64,
    scheduler: bool,
    overlap: bool,
    health: &HealthCheck,
    behaviour: Behaviour,
    bad_on: u64,
) -> Planned {
    let web = domain::app::Process {
        command: Vec::new(),
        ports: vec![8000],
        health: Some(health.clone()),
        overlap,
        on: None,
        environment: BTreeMap::new(),
    };
    let mut processes = BTreeMap::from([(name("web"), web.clone())]);
    if scheduler {
        let on = Selector::parse("scheduler=yes").ok();
        processes.insert(
            name("scheduler"),
            domain::app::Process { ports: Vec::new(), health: None, overlap: false, on, ..web },
        );
    }
    let digest = |text: String| Digest::parse(&text).unwrap_or_else(|error| unreachable!("64 digits: {error}"));
    let commit = Commit::parse(&format!("{number:040x}")).unwrap_or_else(|error| unreachable!("40 digits: {error}"));
    let release = Release {
        id: ReleaseId::new(id(2, number)),
        target: TargetRef { app: name("bot"), target: name("production") },
        number: number + 1,
        build: BuildId::new(id(3, number)),
        commit,
        image: Image {
            reference: None,
            archive: None,
            archive_bytes: 0,
            config_digest: None,
            platform: "linux/amd64".to_owned(),
        },
        processes,
        expose: vec![domain::app::Expose {
            process: name("web"),
            port: 8080,
            mode: domain::app::Mode::Http,
            address: None,
        }],
        config_revision: 1,
        config: BTreeMap::new(),
        digest: digest(format!("{number:064x}")),
        created_at: Timestamp(0),
    };
    Planned { release, behaviour, bad_on }
}

fn draw_health(rng: &mut Rng) -> HealthCheck {
    HealthCheck {
        interval: Duration::from_millis(rng.between(500, 2000)),
        timeout: Duration::from_secs(1),
        failures: u32::try_from(rng.between(1, 4)).unwrap_or(3),
        start_period: Duration::from_millis(*rng.pick(&[0, 0, 500, 2000])),
        probe: Probe::Http { path: "/health".to_owned(), port: None },
    }
}

fn draw_behaviour(rng: &mut Rng) -> Behaviour {
    match rng.between(0, 99) {
        0..=64 => Behaviour::Good,
        65..=73 => Behaviour::Crashes(rng.between(10, 3000) * 1000),
        74..=82 => Behaviour::Failing,
        83..=88 => Behaviour::Silent,
        _ => Behaviour::TurnsBad(rng.between(1, 40) * SECOND),
    }
}

fn draw_policy(rng: &mut Rng, size: u64) -> Policy {
    let seconds = Duration::from_secs;
    let amount = |rng: &mut Rng, most: u64| -> Amount {
        if rng.permille(500) {
            Amount::Count(u32::try_from(rng.between(1, most.max(1))).unwrap_or(1))
        } else {
            Amount::Percent(u32::try_from(rng.between(1, 100)).unwrap_or(100))
        }
    };
    let small = |rng: &mut Rng| *rng.pick(&[0, 0, 0, 1, 2]);
    let healthy_deadline = seconds(rng.between(12, 30));
    Policy {
        max_parallel: amount(rng, 5),
        canary: amount(rng, 2),
        auto_promote: rng.permille(900),
        waves: (0..rng.between(0, 3)).map(|_| amount(rng, 8)).collect(),
        min_healthy_time: Duration::from_millis(rng.between(0, 5000)),
        healthy_deadline,
        confirm_deadline: seconds(rng.between(4, 20)),
        progress_deadline: healthy_deadline + seconds(rng.between(5, 60)),
        bake_time: seconds(rng.between(0, 5)),
        final_bake_time: seconds(rng.between(0, 10)),
        auto_revert: rng.permille(850),
        minimum_healthy_hosts: (size > 2 && rng.permille(250))
            .then(|| Amount::Count(u32::try_from(rng.between(0, size - 2)).unwrap_or(0))),
        max_fail: Amount::Count(small(rng)),
        max_unreachable: Amount::Count(small(rng)),
        on_newer: if rng.permille(500) { OnNewer::Queue } else { OnNewer::Supersede },
        retain_releases: 5,
        drain_timeout: seconds(rng.between(0, 5)),
        kill_timeout: seconds(2),
    }
}
