//! What people ask, and what the world does to hosts and coordinator at drawn instants.

use domain::host::{Host, Liveness};
use domain::policy::OnNewer;
use domain::rollout::ask;
use domain::rollout::plan::{Kind, Request, plan};
use domain::rollout::progress::{Progress, RolloutState};

use super::{Ev, World};
use crate::simulation::SECOND;
use crate::simulation::brain::Row;
use crate::simulation::check::Verdicts;
use crate::simulation::faults::Fault;
use crate::simulation::scenario::{Ask, rollout_id};

impl World {
    pub(super) fn ask(&mut self, ask: Ask) -> Verdicts {
        match ask {
            Ask::World(fault) => {
                self.strike(fault);
                return Ok(());
            }
            _ if !self.brain.up => {
                // A client tries again.
                self.after(SECOND, Ev::Do(ask));
                return Ok(());
            }
            Ask::Start { release, unlock } => self.start_rollout(release, unlock),
            Ask::Pause | Ask::Resume | Ask::Cancel => self.person(ask),
        }
        self.turns()
    }

    fn start_rollout(&mut self, release: usize, unlock: bool) {
        let hosts: Vec<Host> = self
            .scenario
            .hosts
            .iter()
            .enumerate()
            .map(|(index, host)| Host {
                liveness: self.brain.rows.hosts[index].liveness.unwrap_or(Liveness::Joined),
                ..host.clone()
            })
            .collect();
        let number = self.started + 1;
        let request = Request {
            rollout: rollout_id(number),
            kind: Kind::Forward,
            release: &self.scenario.releases[release].release,
            members: &self.scenario.members,
            policy: &self.scenario.policy,
            hosts: &hosts,
        };
        let plan = match plan(request) {
            Ok(plan) => plan,
            Err(error) => {
                self.say(|| format!("   start refused: {error}"));
                if error.code() == "E_HOST_UNREACHABLE" && !self.healing {
                    self.after(20 * SECOND, Ev::Do(Ask::Start { release, unlock }));
                }
                return;
            }
        };
        let locked = self.brain.rows.lock.as_ref().is_some_and(|lock| lock.until > self.wall());
        if locked && !unlock {
            self.say(|| "   start refused: locked".to_owned());
            return;
        }
        self.started = number;
        self.stats.rollouts += 1;
        let index = |member: &domain::rollout::plan::Member| {
            self.scenario.hosts.iter().position(|host| host.id == member.member).unwrap_or(0)
        };
        let indices: Vec<usize> = plan.members.iter().map(index).collect();
        let progress = Progress::queued(plan.members.len());
        if plan.policy.on_newer == OnNewer::Supersede {
            self.supersede_older(&plan.rollout.to_string());
        }
        self.brain.rows.rollouts.push(Row { plan, hosts: indices, progress, unlocked: unlock, began: false });
        self.say(|| format!("   rollout {} asked for", number - 1));
    }

    fn supersede_older(&mut self, by: &str) {
        let now = self.wall();
        let mut taken = 0;
        for row in &mut self.brain.rows.rollouts {
            if ask::supersede(&row.plan, &mut row.progress, by, now).is_ok() {
                taken += 1;
            }
        }
        for _ in 0..taken {
            self.stats.fault(Fault::Supersede);
        }
    }

    fn person(&mut self, ask: Ask) {
        let now = self.wall();
        let found = self.brain.rows.rollouts.iter().position(|row| row.progress.state.is_active());
        let Some(index) = found.or_else(|| self.brain.rows.rollouts.iter().position(|row| !row.progress.state.is_terminal()))
        else {
            return;
        };
        let row = &mut self.brain.rows.rollouts[index];
        let id = row.plan.rollout;
        match ask {
            Ask::Pause => {
                if ask::pause(&mut row.progress, "asha", now).is_ok() {
                    self.stats.fault(Fault::Pause);
                    self.check.halted(id, true);
                }
            }
            Ask::Cancel => {
                if ask::cancel(&row.plan, &mut row.progress, "asha", now).is_ok() {
                    self.stats.fault(Fault::Cancel);
                    self.check.halted(id, true);
                }
            }
            _ => {
                if ask::resume(&row.plan, &mut row.progress, "asha", now).is_ok() {
                    self.check.halted(id, false);
                }
            }
        }
        let state = self.brain.rows.rollouts[index].progress.state;
        self.say(|| format!("   {ask:?} of rollout {index}: {}", state.name()));
    }

    fn strike(&mut self, fault: Fault) {
        if self.healing {
            return;
        }
        let host = usize::try_from(self.rng.next() % self.hosts.len() as u64).unwrap_or(0);
        let until = self.now + self.rng.between(2, 45) * SECOND;
        match fault {
            Fault::HostSilent => {
                self.stats.fault(fault);
                self.hosts[host].silent_until = until;
                self.say(|| format!("{host:>2} is silent"));
            }
            Fault::HostDead => {
                self.stats.fault(fault);
                self.hosts[host].dead = true;
                self.say(|| format!("{host:>2} is dead"));
            }
            Fault::HostReboot => {
                self.reboot(host);
                if self.rng.permille(300) {
                    // Soon again: within the same step.
                    let after = self.rng.between(8, 30) * SECOND;
                    self.after(after, Ev::Do(Ask::World(Fault::HostReboot)));
                }
            }
            Fault::AgentCrash => {
                let actions = self.rng.between(0, 6);
                if let Some(agent) = &mut self.hosts[host].agent {
                    agent.dies_after = Some(actions);
                }
                if actions == 0 {
                    self.agent_dies(host);
                }
            }
            Fault::CoordinatorCrash => {
                self.stats.fault(fault);
                self.brain_dies();
            }
            Fault::ClockJump => {
                self.stats.fault(fault);
                let jump = i64::try_from(self.rng.between(1, 120) * SECOND).unwrap_or(0);
                self.clock_offset += if self.rng.permille(500) { jump } else { -jump };
            }
            Fault::HealthFlapping => self.hosts[host].flapping_until = until,
            Fault::ProcessExit => self.end_a_process(host),
            Fault::StageRefused => self.hosts[host].refuses_stage = true,
            _ => {}
        }
    }

    fn end_a_process(&mut self, host: usize) {
        let running: Vec<_> = self.hosts[host]
            .containers
            .iter()
            .filter(|(_, container)| container.running)
            .map(|((release, process), container)| (*release, process.clone(), container.instance))
            .collect();
        if running.is_empty() {
            return;
        }
        self.stats.fault(Fault::ProcessExit);
        let (release, process, instance) = self.rng.pick(&running).clone();
        let boot = self.hosts[host].boot;
        self.after(0, Ev::Exit { host, boot, release, process, instance });
    }

    /// Injection ends. People come back to what they left paused; some of it stays paused.
    pub(super) fn heal(&mut self) -> Verdicts {
        self.healing = true;
        self.say(|| "   healing".to_owned());
        for host in &mut self.hosts {
            host.silent_until = 0;
            host.flapping_until = 0;
            host.refuses_stage = false;
            if let Some(agent) = &mut host.agent {
                agent.dies_after = None;
            }
        }
        let until = self.now + 100 * SECOND;
        let mut at = self.now + 10 * SECOND;
        while at < until {
            let ask = *self.rng.pick(&[Ask::Resume, Ask::Resume, Ask::Cancel]);
            let paused = |world: &Self| world.brain.rows.rollouts.iter().any(|row| row.progress.state == RolloutState::Paused);
            if self.rng.permille(300) || paused(self) && self.rng.permille(400) {
                self.at(at, Ev::Do(ask));
            }
            at += 30 * SECOND;
        }
        Ok(())
    }
}
