//! What people ask, and what the world does to hosts and coordinator at drawn instants.

use coordinator::app::idempotency::Key;
use coordinator::app::rollouts;
use domain::release::Digest;
use domain::rollout::progress::RolloutState;

use super::{Ev, World};
use crate::simulation::SECOND;
use crate::simulation::brain::now;
use crate::simulation::check::{Verdicts, Violation};
use crate::simulation::faults::Fault;
use crate::simulation::scenario::Ask;

impl World {
    pub(super) fn ask(&mut self, ask: Ask) -> Verdicts {
        match ask {
            Ask::World(fault) => {
                self.strike(fault);
                Ok(())
            }
            _ if !self.brain.up() => {
                // A client tries again.
                self.after(SECOND, Ev::Do(ask));
                Ok(())
            }
            Ask::Start { release, unlock } => {
                self.starts.push(None);
                self.start_rollout(self.starts.len() - 1, release, unlock)
            }
            Ask::StartAgain { start, release, unlock } => self.start_rollout(start, release, unlock),
            Ask::Pause | Ask::Resume | Ask::Cancel => self.person(ask),
        }
    }

    /// A start has a key of its own: asked again after a lost answer, it is the same rollout (S20).
    fn start_rollout(&mut self, start: usize, release: usize, unlock: bool) -> Verdicts {
        let Some(ctx) = self.brain.ctx() else { return Ok(()) };
        let number = self.scenario.releases[release].release.number;
        let request = self.brain.start_request(number, unlock);
        let body = Digest::parse(&format!("{start:064x}")).unwrap_or_else(|error| unreachable!("64 digits: {error}"));
        let key = Key::with_body("start", &format!("job-{start}"), body).ok().flatten();
        let superseding = self.brain.rollouts().filter(|(_, progress)| progress.supersede_asked).count();
        let answer = now(rollouts::start(&ctx, self.brain.principal(), &request, key.as_ref()));
        self.settle()?;
        self.notice_commits()?;
        let again = Ask::StartAgain { start, release, unlock };
        match answer {
            Ok(view) => {
                let id = view.row.plan.rollout;
                if self.starts[start].is_some_and(|first| first != id) {
                    return Err(Violation {
                        invariant: "S20",
                        text: format!("one key started {id} and another rollout"),
                    });
                }
                self.starts[start] = Some(id);
                let after = self.brain.rollouts().filter(|(_, progress)| progress.supersede_asked).count();
                for _ in superseding..after {
                    self.stats.fault(Fault::Supersede);
                }
                if self.rng.permille(100) {
                    // A client that did not see the answer.
                    self.after(SECOND, Ev::Do(again));
                }
                self.look_soon();
            }
            Err(error) => {
                self.say(|| format!("   start refused: {error}"));
                let wait = match error.reason() {
                    "E_STORE_UNAVAILABLE" => SECOND,
                    "E_HOST_UNREACHABLE" if !self.healing => 20 * SECOND,
                    _ => return self.created(),
                };
                self.after(wait, Ev::Do(again));
            }
        }
        self.created()
    }

    /// S20: never more rollouts than keys.
    fn created(&self) -> Verdicts {
        let (created, keys) = (self.brain.rows.len(), self.starts.len());
        if created > keys {
            return Err(Violation { invariant: "S20", text: format!("{created} rollouts by {keys} keys") });
        }
        Ok(())
    }

    fn person(&mut self, ask: Ask) -> Verdicts {
        let Some(ctx) = self.brain.ctx() else { return Ok(()) };
        self.notice_commits()?;
        let active = self.brain.rows.iter().find(|row| row.progress.state.is_active());
        let Some(row) = active.or_else(|| self.brain.rows.iter().find(|row| !row.progress.state.is_terminal())) else {
            return Ok(());
        };
        let id = row.plan.rollout;
        let (asked, fault) = match ask {
            Ask::Pause => (rollouts::Ask::Pause, Some(Fault::Pause)),
            Ask::Cancel => (rollouts::Ask::Cancel, Some(Fault::Cancel)),
            _ => (rollouts::Ask::Resume, None),
        };
        let answer = now(rollouts::change(&ctx, self.brain.principal(), &id.to_string(), asked, ""));
        self.settle()?;
        self.notice_commits()?;
        self.say(|| {
            format!("   {ask:?} of {}: {:?}", id.short(), answer.as_ref().map(|view| view.row.progress.state.name()))
        });
        match (answer, fault) {
            (Ok(_), Some(fault)) => {
                self.stats.fault(fault);
                self.check.halted(id, true);
            }
            (Ok(_), None) => self.check.halted(id, false),
            // Whether it was done is not known: a resume may have been.
            (Err(error), None) if error.reason() == "E_STORE_UNAVAILABLE" => self.check.halted(id, false),
            (Err(_), _) => {}
        }
        self.look_soon();
        Ok(())
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
        self.brain.calm(true);
        self.say(|| "   healing".to_owned());
        for host in &mut self.hosts {
            host.silent_until = 0;
            host.flapping_until = 0;
            host.refuses_stage = false;
            if let Some(agent) = &mut host.agent {
                agent.dies_after = None;
            }
        }
        let until = self.now + 45 * SECOND;
        let mut at = self.now + 5 * SECOND;
        let paused = self.brain.rows.iter().any(|row| row.progress.state == RolloutState::Paused);
        while at < until {
            let ask = *self.rng.pick(&[Ask::Resume, Ask::Resume, Ask::Cancel]);
            if self.rng.permille(300) || paused && self.rng.permille(400) {
                self.at(at, Ev::Do(ask));
            }
            at += 13 * SECOND;
        }
        Ok(())
    }
}
