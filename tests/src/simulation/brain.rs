//! The coordinator's part: store, sessions, turns.

use std::collections::BTreeMap;

use domain::hello::{self, Fenced, Merge, Standing};
use domain::host::{Liveness, SessionSeen, liveness};
use domain::ids::{Fence, Generation, HostId, RolloutId};
use domain::rollout::decide::decide;
use domain::rollout::decision::Decision;
use domain::rollout::plan::Plan;
use domain::rollout::progress::Progress;
use domain::rollout::reports::{HostView, Lock, Presence, Reports, TargetView};
use domain::step::order::Order;
use domain::step::report::Report;
use domain::time::Timestamp;

use super::Micros;
use super::scenario::id;

/// A session as the coordinator holds it.
#[derive(Clone, Copy, Debug)]
pub struct Session {
    /// Its number.
    pub id: u64,
    /// When a message came last.
    pub heard: Timestamp,
    /// A report of this session was stored.
    pub synced: bool,
}

/// A host's row.
#[derive(Clone, Debug, Default)]
pub struct HostRow {
    /// Highest generation stored.
    pub generation: Generation,
    /// Last report.
    pub report: Option<Report>,
    /// As stored.
    pub liveness: Option<Liveness>,
    /// Of the last change of liveness.
    pub changed: Timestamp,
}

/// A rollout's row.
#[derive(Clone, Debug)]
pub struct Row {
    /// Frozen.
    pub plan: Plan,
    /// The plan's members as indices of the world.
    pub hosts: Vec<usize>,
    /// Moves.
    pub progress: Progress,
    /// Started over the lock.
    pub unlocked: bool,
    /// It left the queue.
    pub began: bool,
}

/// Everything that survives a crash.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    /// By order of creation.
    pub rollouts: Vec<Row>,
    /// By index of the world.
    pub hosts: Vec<HostRow>,
    /// The target's lock.
    pub lock: Option<Lock>,
    /// Of the last start.
    pub epoch: u64,
    /// Counts commits.
    pub seq: u64,
    /// Idempotency keys.
    pub keys: BTreeMap<u64, RolloutId>,
}

/// The coordinator.
#[derive(Debug, Default)]
pub struct Brain {
    /// On disk.
    pub rows: Rows,
    /// It runs.
    pub up: bool,
    /// Since.
    pub started: Timestamp,
    /// Open sessions by host.
    pub sessions: BTreeMap<usize, Session>,
    /// Last sent, when, in which session.
    pub sent: BTreeMap<usize, (Order, Micros, u64)>,
    /// Earliest wake-up that stands.
    pub wake: Option<Micros>,
}

impl Brain {
    /// Who orders.
    #[must_use]
    pub fn fence(&self) -> Fence {
        Fence { incarnation: 1, incarnation_id: id(9, 1), epoch: self.rows.epoch }
    }

    /// A row of a rollout.
    pub fn rollouts(&self) -> impl Iterator<Item = (&Plan, &Progress)> {
        self.rows.rollouts.iter().map(|row| (&row.plan, &row.progress))
    }

    /// A host's last stored report.
    #[must_use]
    pub fn report(&self, host: usize) -> Option<&Report> {
        self.rows.hosts[host].report.as_ref()
    }

    /// A report of the open session was stored by this coordinator.
    #[must_use]
    pub fn observed(&self, host: usize) -> bool {
        self.sessions.get(&host).is_some_and(|session| session.synced)
    }

    /// Whether a host's word counts.
    #[must_use]
    pub fn presence(&self, host: usize) -> Presence {
        let row = &self.rows.hosts[host];
        match row.liveness {
            Some(Liveness::Unreachable) => Presence::Away { since: row.changed },
            Some(Liveness::Ready) if self.observed(host) => Presence::Ready,
            _ => Presence::Syncing,
        }
    }

    /// What liveness should be stored now, if it is another.
    #[must_use]
    pub fn liveness_change(&self, host: usize, now: Timestamp) -> Option<Liveness> {
        let row = &self.rows.hosts[host];
        let stored = row.liveness.unwrap_or(Liveness::Joined);
        let session = self.sessions.get(&host).map(|session| SessionSeen { heard_at: session.heard, synced: session.synced });
        let new = liveness(stored, session, row.liveness.map(|_| row.changed), self.started, now);
        (new != stored).then_some(new)
    }

    /// One turn of one rollout.
    #[must_use]
    pub fn decide(&self, index: usize, now: Timestamp) -> Decision {
        let row = &self.rows.rollouts[index];
        let reports = Reports { hosts: self.views(row), target: self.target(index, now) };
        decide(&row.plan, &row.progress, &reports, now)
    }

    fn views(&self, row: &Row) -> BTreeMap<HostId, HostView> {
        let view = |host: usize| HostView {
            presence: self.presence(host),
            generation: self.rows.hosts[host].generation,
            report: self.rows.hosts[host].report.clone(),
        };
        row.plan.members.iter().zip(&row.hosts).map(|(member, host)| (member.member, view(*host))).collect()
    }

    fn target(&self, index: usize, now: Timestamp) -> TargetView {
        let mine = &self.rows.rollouts[index];
        let before = self
            .rows
            .rollouts
            .iter()
            .enumerate()
            .find(|(other, row)| {
                *other != index && (row.progress.state.is_active() || (*other < index && !row.progress.state.is_terminal()))
            })
            .map(|(_, row)| row.plan.rollout);
        let locked = self.rows.lock.clone().filter(|lock| lock.until > now && !mine.unlocked);
        let newer_started = self.rows.rollouts[index + 1..].iter().any(|row| row.began);
        TargetView { before, locked, newer_started }
    }

    /// Stores a report if it is newer.
    pub fn take_report(&mut self, host: usize, report: &Report) {
        if hello::merge(self.rows.hosts[host].report.as_ref(), report) == Merge::Newer {
            self.rows.hosts[host].report = Some(report.clone());
        }
    }

    /// Whether this coordinator may order a host that says this.
    #[must_use]
    pub fn standing(&self, fenced: Fenced) -> Standing {
        hello::standing(self.fence(), self.rows.seq, fenced)
    }

    /// Stores a turn.
    pub fn apply(&mut self, index: usize, decision: &Decision) {
        self.rows.seq += 1;
        let row = &mut self.rows.rollouts[index];
        row.progress = decision.next.clone();
        row.began |= row.progress.state.is_active();
        for (ordinal, step) in row.progress.steps.iter().enumerate() {
            let host = &mut self.rows.hosts[row.hosts[ordinal]];
            host.generation = host.generation.max(step.generation);
        }
        if let Some(lock) = &decision.lock {
            self.rows.lock = Some(lock.clone());
        }
    }
}
