//! Nothing is being changed: the settled release runs, has the traffic, and nothing else is left.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Machine;
use super::drive::route_of;
use crate::ids::ReleaseId;
use crate::name::Name;
use crate::step::event::Action;
use crate::step::journal::BootTime;
use crate::step::order::Pace;
use crate::step::process::State;

/// For stops when no order ever told a pace.
const DEFAULT_PACE: Pace = Pace {
    min_healthy_time: Duration::ZERO,
    healthy_deadline: Duration::from_secs(300),
    confirm_deadline: Duration::from_secs(120),
    drain_timeout: Duration::from_secs(30),
    kill_timeout: Duration::from_secs(10),
};

impl Machine {
    pub(super) fn keep(&mut self, now: BootTime) {
        let pace = self.slot.step.as_ref().map_or(DEFAULT_PACE, |step| step.pace);
        let current = self.slot.current.clone();
        if let Some(current) = &current {
            for name in self.names(current, |_, _| true) {
                if self.exclusive(&name) {
                    self.stop_others(current.release, &name, &pace, now);
                }
                self.want(current.release, &name, now);
            }
        }
        let nothing_known = current.is_none() && self.slot.leftovers.is_empty() && self.slot.order.is_none();
        if nothing_known {
            // A lost journal: what is found stays until an order says what is wanted.
            return;
        }
        let goal = current.as_ref().and_then(route_of);
        let there = if self.exposed_run() { self.route(goal, now) } else { self.routed == goal };
        if !there || self.routing.is_some() {
            return;
        }
        self.stop_leftovers(&pace, now);
    }

    /// Every published process of the settled release runs; true when nothing is settled.
    fn exposed_run(&self) -> bool {
        self.slot.current.as_ref().is_none_or(|current| {
            let runs = |name: &Name| self.seen(current.release, name).is_some_and(|seen| seen.running().is_some());
            current.processes.iter().filter(|process| process.exposed).all(|process| runs(&process.name))
        })
    }

    fn stop_leftovers(&mut self, pace: &Pace, now: BootTime) {
        let unwanted: BTreeSet<ReleaseId> = self.slot.leftovers.iter().map(|work| work.release).collect();
        let others: Vec<(ReleaseId, Name)> =
            self.processes.keys().filter(|(release, _)| unwanted.contains(release)).cloned().collect();
        for (release, name) in others {
            self.stop(release, &name, pace.drain_timeout, pace.kill_timeout, now);
        }
        self.processes.retain(|(release, _), process| !unwanted.contains(release) || process.state != State::Absent);
        let left: BTreeSet<ReleaseId> = self.processes.keys().map(|(release, _)| *release).collect();
        let before = self.slot.leftovers.len();
        self.slot.leftovers.retain(|work| left.contains(&work.release));
        if self.slot.leftovers.len() != before {
            self.persist();
        }
    }

    /// Starts a process unless it runs, is about to, must wait, or may not be beside one that still runs.
    pub(super) fn want(&mut self, release: ReleaseId, name: &Name, now: BootTime) {
        if self.exclusive(name) && self.others_alive(release, name) {
            return;
        }
        let process = self.process(release, name);
        if process.at_rest() && process.may_act(now) {
            process.state = State::Starting;
            self.out.push(Action::Start { release, process: name.clone() });
        }
    }

    pub(super) fn stop_others(&mut self, release: ReleaseId, name: &Name, pace: &Pace, now: BootTime) {
        let others: Vec<ReleaseId> = self
            .processes
            .keys()
            .filter(|(other, theirs)| *other != release && theirs == name && self.work(*other).is_some())
            .map(|(other, _)| *other)
            .collect();
        for other in others {
            // Never beside each other: there is nothing to drain towards.
            self.stop(other, name, Duration::ZERO, pace.kill_timeout, now);
        }
    }

    fn stop(&mut self, release: ReleaseId, name: &Name, drain: Duration, kill: Duration, now: BootTime) {
        let process = self.process(release, name);
        // One that ended by itself is still to be removed; one that is starting is stopped once that is known.
        let stoppable = matches!(process.state, State::Running { .. } | State::Ended);
        let retry = process.state == State::Ended || process.may_act(now);
        if stoppable && retry {
            process.state = State::Stopping;
            self.out.push(Action::Stop { release, process: name.clone(), drain, kill });
        }
    }

    fn others_alive(&self, release: ReleaseId, name: &Name) -> bool {
        self.processes
            .iter()
            .any(|((other, theirs), process)| *other != release && theirs == name && !process.at_rest())
    }

    /// Declared `overlap: false` by any release that is around.
    pub(super) fn exclusive(&self, name: &Name) -> bool {
        self.works().any(|work| work.process(name).is_some_and(|process| !process.overlap))
    }

    pub(super) fn exclusive_names(&self) -> BTreeSet<Name> {
        let names = self.works().flat_map(|work| &work.processes);
        names.filter(|process| !process.overlap).map(|process| process.name.clone()).collect()
    }

    /// Leads traffic there; true once it is there.
    pub(super) fn route(&mut self, goal: Option<ReleaseId>, now: BootTime) -> bool {
        if self.routing.is_some() {
            return false;
        }
        if self.routed == goal {
            return true;
        }
        let waits = self.route_not_before.is_some_and(|at| at.boot == now.boot && now.at < at.at);
        if !waits {
            self.routing = Some(goal);
            self.out.push(Action::Route { release: goal, generation: self.slot.generation });
        }
        false
    }
}
