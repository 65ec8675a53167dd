//! What must be true when nothing goes wrong any more.

use std::collections::BTreeSet;

use domain::ids::ReleaseId;
use domain::name::Name;
use domain::rollout::plan::Plan;
use domain::rollout::progress::{Holder, Previous, Progress, RolloutState, Step, StepState};
use domain::step::journal::Settled;

use super::World;
use crate::simulation::SECOND;
use crate::simulation::check::{Verdicts, Violation};

fn broken(invariant: &'static str, text: String) -> Verdicts {
    Err(Violation { invariant, text })
}

impl World {
    /// Everything ended or is paused for somebody, and every host does what its journal says.
    pub(super) fn finished(&self) -> bool {
        self.now > self.scenario.heal_at + 60 * SECOND
            && self.rollouts_rest().is_ok()
            && self.hosts_rest().is_ok()
            && self.outcome().is_ok()
    }

    pub(super) fn finish(&mut self) -> Verdicts {
        for row in &self.brain.rows {
            *self.stats.ends.entry(row.progress.state.name()).or_default() += 1;
            for holder in &row.progress.holders {
                *self.stats.held.entry(holder.name()).or_default() += 1;
            }
        }
        self.rollouts_rest()?;
        self.hosts_rest()?;
        self.outcome()
    }

    /// L1: it ended, is paused with a reason, or waits behind one that is. L6: a dead host is no exception.
    fn rollouts_rest(&self) -> Verdicts {
        let mut behind_pause = false;
        for row in &self.brain.rows {
            let progress = &row.progress;
            let rests = match progress.state {
                RolloutState::Paused => {
                    behind_pause = true;
                    !progress.holders.is_empty() && progress.reason.is_some()
                }
                RolloutState::Queued => behind_pause,
                state => state.is_terminal(),
            };
            if !rests {
                let dead = self.hosts.iter().any(|host| host.dead);
                let invariant = if dead { "L6" } else { "L1" };
                return broken(invariant, format!("rollout {} is still {}", row.plan.rollout, progress.state.name()));
            }
            if progress.holders.contains(&Holder::Unreachable) && !self.hosts.iter().any(|host| host.dead) {
                return broken("L1", format!("rollout {} waits for hosts that are back", row.plan.rollout));
            }
        }
        Ok(())
    }

    /// L2: a host runs what its journal settled on, all of it, and nothing else.
    fn hosts_rest(&self) -> Verdicts {
        for host in &self.hosts {
            if host.agent.is_none() {
                return broken("L2", format!("the agent of {} does not run", host.name));
            }
            let open = host.slot.step.as_ref().is_some_and(|step| step.settled.is_none());
            if open {
                // Held for a person (no undo) or for a coordinator that will never be heard.
                continue;
            }
            let current = host.slot.current.as_ref();
            let wanted: BTreeSet<(ReleaseId, Name)> = current
                .iter()
                .flat_map(|work| work.processes.iter().map(|process| (work.release, process.name.clone())))
                .collect();
            let running: BTreeSet<(ReleaseId, Name)> = host.running().cloned().collect();
            let crashing = current.is_some_and(|work| self.hosts_crash(host.id, work.release));
            if running != wanted && !crashing {
                return broken("L2", format!("{} runs {running:?} and shall run {wanted:?}", host.name));
            }
            if host.confirmed_route() != current.map(|work| work.release) && !crashing {
                return broken("L2", format!("{} leads traffic to {:?}", host.name, host.confirmed_route()));
            }
        }
        Ok(())
    }

    fn hosts_crash(&self, host: domain::ids::HostId, release: ReleaseId) -> bool {
        let index = self.hosts.iter().position(|other| other.id == host).unwrap_or(0);
        matches!(self.scenario.behaviour(release, index), crate::simulation::scenario::Behaviour::Crashes(_))
    }

    /// The reachable members are all new, all old, or the rollout is paused with a reason. The last rollout of the
    /// target that touched it says which.
    fn outcome(&self) -> Verdicts {
        let began = |row: &&crate::simulation::brain::Row| {
            row.progress.state.is_active() || row.progress.steps.iter().any(|step| step.generation.0 > 0)
        };
        let Some(row) = self.brain.rows.iter().rfind(began) else { return Ok(()) };
        if matches!(row.progress.state, RolloutState::Paused | RolloutState::Superseded)
            || !row.progress.state.is_terminal()
        {
            return Ok(());
        }
        for (ordinal, step) in row.progress.steps.iter().enumerate() {
            let host = row.hosts[ordinal];
            if self.hosts[host].dead {
                continue;
            }
            self.member(&row.plan, &row.progress, step, ordinal, host)?;
        }
        Ok(())
    }

    /// With hosts gone for ever, `minimum_healthy_hosts` may leave no room for a way back; it is kept all the same.
    fn cannot_be_spared(&self, plan: &Plan) -> bool {
        let Some(minimum) = plan.policy.minimum_healthy_hosts.map(|amount| amount.of(plan.size())) else {
            return false;
        };
        let passes = |report: &domain::step::report::Report| report.health == domain::step::report::HealthNow::Passing;
        let well = (0..self.hosts.len())
            .filter(|host| !self.hosts[*host].dead && self.brain.report(*host).is_some_and(passes));
        well.count() <= minimum as usize + 1
    }

    fn member(&self, plan: &Plan, progress: &Progress, step: &Step, ordinal: usize, host: usize) -> Verdicts {
        let name = &plan.members[ordinal].name;
        let state = progress.state;
        if step.state == StepState::Parked && self.cannot_be_spared(plan) {
            return Ok(());
        }
        if step.state == StepState::Parked || step.converging {
            return broken("L2", format!("{name} is back and was not brought to what its rollout ended on"));
        }
        if step.state == StepState::Failed {
            // It could not go back, and says so.
            return if step.failure.is_some() {
                Ok(())
            } else {
                broken("L2", format!("{name} failed without a reason"))
            };
        }
        let runs = self.hosts[host].slot.current.as_ref().map(|work| work.release);
        let old = match step.previous {
            Previous::Untouched => return Ok(()),
            Previous::Nothing => None,
            Previous::Release(release) => Some(release),
        };
        let wanted =
            if state == RolloutState::Succeeded && step.state == StepState::Healthy { Some(plan.release) } else { old };
        if runs != wanted {
            return broken("L2", format!("{name} runs {runs:?}; rollout {} and {wanted:?} expected", state.name()));
        }
        let undone = self.hosts[host].slot.step.as_ref().is_some_and(|last| last.settled == Some(Settled::Undone));
        if undone && step.state == StepState::Healthy {
            return broken("C1", format!("{name} is healthy in the store and undone on the host"));
        }
        Ok(())
    }
}
