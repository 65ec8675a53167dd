//! Hosts for tests of `decide`: they do at once what they are told, unless a test says otherwise.

use std::time::Duration;

use uuid::Uuid;

use super::super::*;
use crate::ids::{HostId, ReleaseId, RolloutId};
use crate::name::{Name, TargetRef};
use crate::policy::Policy;
use crate::rollout::plan::Member;
use crate::rollout::reports::TargetView;
use crate::step::evidence::Cause;
use crate::step::journal::{Settled, StepPhase, Verdict};
use crate::step::report::{Durations, HealthNow, Report, StageOutcome, StageReport, Stamp, StepReport};

pub(super) const OLD: u128 = 41;
pub(super) const NEW: u128 = 42;

pub(super) fn release(number: u128) -> ReleaseId {
    ReleaseId::new(Uuid::from_u128(number))
}

pub(super) fn host(number: usize) -> HostId {
    HostId::new(Uuid::from_u128(number as u128))
}

pub(super) fn quick() -> Policy {
    Policy { bake_time: Duration::ZERO, final_bake_time: Duration::ZERO, ..Policy::default() }
}

/// A rollout over hosts that do at once what they are told, unless a test says otherwise.
pub(super) struct Fleet {
    pub(super) plan: Plan,
    pub(super) progress: Progress,
    pub(super) reports: Reports,
    pub(super) now: Timestamp,
    /// How the new release does on a host: healthy unless noted.
    pub(super) failing: Vec<usize>,
    /// Takes orders and does nothing.
    pub(super) slow: Vec<usize>,
    /// Confirmations are lost.
    pub(super) deaf: bool,
    pub(super) waiting: String,
    pub(super) notes: Vec<Note>,
    pub(super) lock: Option<Lock>,
    /// Every order with an effect, as it was first seen.
    pub(super) orders: Vec<(usize, Order)>,
}

impl Fleet {
    /// Release 41 runs on every host; 42 is asked for.
    pub(super) fn new(waves: &[u32], policy: Policy) -> Self {
        let member = |(ordinal, wave): (usize, &u32)| Member {
            ordinal: u32::try_from(ordinal).expect("few"),
            member: host(ordinal),
            executor: host(ordinal),
            name: Name::new("host", &format!("web-{}", ordinal + 1)).expect("a name"),
            wave: *wave,
            processes: vec![Name::new("process", "web").expect("a name")],
        };
        let plan = Plan {
            rollout: RolloutId::new(Uuid::from_u128(7)),
            target: TargetRef::parse("bot/production").expect("a target"),
            kind: Kind::Forward,
            release: release(NEW),
            number: 42,
            policy,
            members: waves.iter().enumerate().map(member).collect(),
        };
        let hosts = (0..waves.len()).map(|ordinal| (host(ordinal), view(Some(release(OLD)))));
        Self {
            progress: Progress::queued(waves.len()),
            reports: Reports { hosts: hosts.collect(), target: TargetView::default() },
            plan,
            now: Timestamp(1_000_000_000),
            failing: Vec::new(),
            slow: Vec::new(),
            deaf: false,
            waiting: String::new(),
            notes: Vec::new(),
            lock: None,
            orders: Vec::new(),
        }
    }

    pub(super) fn turn(&mut self) -> Vec<Order> {
        let decision = decide(&self.plan, &self.progress, &self.reports, self.now);
        self.progress = decision.next;
        self.waiting = decision.waiting.to_string();
        self.notes.extend(decision.notes);
        self.lock = decision.lock.or(self.lock.take());
        decision.commands
    }

    /// One turn, and the hosts do what it ordered.
    pub(super) fn step(&mut self) {
        for order in self.turn() {
            let index = self.plan.members.iter().position(|member| member.member == order.member).expect("a member");
            let known = self.orders.iter().any(|(_, old)| *old == order);
            if !known && !matches!(order.kind, OrderKind::Stage { .. }) {
                self.orders.push((index, order.clone()));
            }
            if !self.slow.contains(&index) {
                self.obey(index, &order);
            }
        }
    }

    pub(super) fn report(&mut self, index: usize) -> &mut Report {
        self.reports.hosts.get_mut(&host(index)).and_then(|view| view.report.as_mut()).expect("a report")
    }

    pub(super) fn obey(&mut self, index: usize, order: &Order) {
        let (fails, deaf) = (self.failing.contains(&index), self.deaf);
        let report = self.report(index);
        report.generation = order.generation;
        match &order.kind {
            OrderKind::Stage { release } => {
                let outcome = Some(StageOutcome::Ready);
                report.stage =
                    Some(StageReport { generation: order.generation, release: *release, outcome, took: None });
            }
            OrderKind::Go(go) => {
                let failed = fails && go.release == release(NEW);
                let failure = Box::new(Failure::bare(Cause::HealthFailing, "HTTP 500"));
                let verdict = if failed { Verdict::Failed(failure) } else { Verdict::Healthy };
                let settles = !failed && !go.undo;
                report.step = Some(StepReport {
                    generation: order.generation,
                    to: go.release,
                    phase: if settles { StepPhase::Settled } else { StepPhase::Decided },
                    warm: true,
                    verdict: Some(verdict),
                    settled: settles.then_some(Settled::Confirmed),
                    healthy_for: None,
                    durations: Durations::default(),
                });
                if settles {
                    report.current = Some(go.release);
                }
            }
            OrderKind::Confirm if deaf => {}
            OrderKind::Confirm => self.settle(index, Settled::Confirmed),
            OrderKind::Remove => report.current = None,
        }
    }

    pub(super) fn settle(&mut self, index: usize, how: Settled) {
        let report = self.report(index);
        let step = report.step.as_mut().expect("a step");
        step.settled.get_or_insert(how);
        if step.settled == Some(Settled::Confirmed) {
            report.current = Some(step.to);
        }
    }

    pub(super) fn steps(&mut self, count: usize) {
        for _ in 0..count {
            self.step();
        }
    }

    /// Turns until a member is in a state.
    pub(super) fn until(&mut self, index: usize, state: StepState) {
        for _ in 0..20 {
            if self.states()[index] == state {
                return;
            }
            self.step();
        }
        panic!("{:?}", self.states());
    }

    pub(super) fn pass(&mut self, seconds: u64) {
        self.now = self.now.plus(Duration::from_secs(seconds));
    }

    pub(super) fn away(&mut self, index: usize) {
        let view = self.reports.hosts.get_mut(&host(index)).expect("a host");
        view.presence = Presence::Away { since: self.now };
    }

    pub(super) fn back(&mut self, index: usize) {
        self.reports.hosts.get_mut(&host(index)).expect("a host").presence = Presence::Ready;
    }

    pub(super) fn states(&self) -> Vec<StepState> {
        self.progress.steps.iter().map(|step| step.state).collect()
    }

    pub(super) fn touched(&self) -> Vec<usize> {
        (0..self.progress.steps.len()).filter(|index| self.progress.steps[*index].touched()).collect()
    }

    pub(super) fn runs(&mut self, index: usize) -> Option<ReleaseId> {
        self.report(index).current
    }
}

pub(super) fn view(current: Option<ReleaseId>) -> HostView {
    let report = Report {
        stamp: Stamp::default(),
        generation: Generation(3),
        current,
        routed: current,
        stage: None,
        step: None,
        health: if current.is_some() { HealthNow::Passing } else { HealthNow::Unknown },
        serving: true,
        quiet: true,
    };
    HostView { presence: Presence::Ready, generation: Generation(3), report: Some(report) }
}

impl Fleet {
    /// A slow host stages all the same.
    pub(super) fn obey_stage(&mut self, index: usize) {
        for order in self.turn() {
            if order.member == host(index) {
                self.obey(index, &order);
            }
        }
    }
}
