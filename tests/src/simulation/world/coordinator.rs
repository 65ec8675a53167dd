//! The coordinator in the world: sessions, commits that fail, turns, deliveries.

use domain::hello::{Fenced, Standing};
use domain::rollout::decision::Decision;
use domain::rollout::progress::Progress;
use domain::step::order::{Envelope, Order, OrderKind};
use domain::step::report::Report;

use super::{Down, Ev, Up, World};
use crate::simulation::brain::Session;
use crate::simulation::check::{Commit, Verdicts, Violation};
use crate::simulation::faults::Fault;
use crate::simulation::{Micros, SECOND};

const TICK: Micros = 2 * SECOND;
const RESEND: Micros = 4 * SECOND;

/// What became of a commit.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Done {
    Yes,
    No,
    /// Made, and the coordinator does not know.
    Unknown,
    /// Made, and the coordinator is dead.
    Dead,
}

impl World {
    pub(super) fn brain_start(&mut self) -> Verdicts {
        if self.brain.up {
            return Ok(());
        }
        self.brain.up = true;
        self.brain.rows.epoch += 1;
        self.brain.started = self.wall();
        self.brain.sessions.clear();
        self.brain.sent.clear();
        self.brain.wake = None;
        let epoch = self.brain.rows.epoch;
        self.say(|| format!("   coordinator starts, epoch {epoch}"));
        self.after(SECOND / 10, Ev::BrainTick { epoch });
        Ok(())
    }

    pub(super) fn brain_dies(&mut self) {
        if !self.brain.up {
            return;
        }
        self.brain.up = false;
        self.say(|| "   coordinator dies".to_owned());
        // Its connections break; agents notice soon.
        for host in 0..self.hosts.len() {
            let run = self.hosts[host].run;
            if let Some(agent) = &mut self.hosts[host].agent
                && agent.session.take().is_some()
            {
                let wait = self.rng.between(1000, 800_000);
                self.after(wait, Ev::AgentDial { host, run });
            }
        }
        let wait = self.rng.between(300_000, 4 * SECOND);
        self.after(wait, Ev::BrainStart);
    }

    /// Draws what becomes of a commit that is about to be made.
    fn fate(&mut self) -> Done {
        if self.healing {
            return Done::Yes;
        }
        let rates = &self.scenario.rates;
        let draw = self.rng.between(0, 9999);
        let (aborted, lost) = (rates.aborted, rates.aborted + rates.answer_lost);
        let dead = lost + rates.crash_after;
        if draw < aborted {
            self.stats.fault(Fault::CommitAborted);
            Done::No
        } else if draw < lost {
            self.stats.fault(Fault::CommitAnswerLost);
            Done::Unknown
        } else if draw < dead {
            self.stats.fault(Fault::CrashAfterCommit);
            Done::Dead
        } else {
            Done::Yes
        }
    }

    pub(super) fn brain_hears(&mut self, host: usize, session: u64, message: Up) -> Verdicts {
        if !self.brain.up || self.hosts[host].cut(self.now) {
            return Ok(());
        }
        let wall = self.wall();
        match message {
            Up::Hello(fenced, report) => return self.hello(host, session, fenced, &report),
            Up::Beat | Up::Report(_) => {}
        }
        match self.brain.sessions.get_mut(&host) {
            Some(open) if open.id == session => open.heard = wall,
            _ => {
                self.to_agent(host, session, Down::Unknown);
                return Ok(());
            }
        }
        if let Up::Report(report) = message { self.store_report(host, session, &report) } else {
            self.to_agent(host, session, Down::Heard);
            Ok(())
        }
    }

    fn hello(&mut self, host: usize, session: u64, fenced: Fenced, report: &Report) -> Verdicts {
        let newer = self.brain.sessions.get(&host).is_some_and(|open| open.id > session);
        if newer {
            return Ok(());
        }
        match self.brain.standing(fenced) {
            Standing::Current => {}
            other => {
                return Err(Violation { invariant: "S3", text: format!("a coordinator that leads is told {other:?}") });
            }
        }
        let heard = self.wall();
        self.brain.sessions.insert(host, Session { id: session, heard, synced: false });
        self.to_agent(host, session, Down::Welcome(self.brain.fence(), self.brain.rows.seq));
        self.store_report(host, session, report)
    }

    fn store_report(&mut self, host: usize, session: u64, report: &Report) -> Verdicts {
        let fate = self.fate();
        if fate == Done::No {
            return Ok(());
        }
        self.brain.take_report(host, report);
        self.brain.rows.seq += 1;
        match fate {
            Done::Dead => {
                self.brain_dies();
                return Ok(());
            }
            Done::Unknown => return Ok(()),
            _ => {}
        }
        if let Some(open) = self.brain.sessions.get_mut(&host) {
            open.synced = true;
        }
        self.to_agent(host, session, Down::Ack(report.stamp));
        self.see_liveness(host);
        self.turns()
    }

    fn see_liveness(&mut self, host: usize) -> bool {
        let now = self.wall();
        let Some(new) = self.brain.liveness_change(host, now) else { return false };
        self.say(|| format!("{host:>2} is {new:?}"));
        let row = &mut self.brain.rows.hosts[host];
        row.liveness = Some(new);
        row.changed = now;
        if new == domain::host::Liveness::Unreachable {
            // Whoever comes back says Hello first.
            self.brain.sessions.remove(&host);
        }
        true
    }

    pub(super) fn brain_tick(&mut self, epoch: u64) -> Verdicts {
        if !self.brain.up || self.brain.rows.epoch != epoch {
            return Ok(());
        }
        for host in 0..self.hosts.len() {
            self.see_liveness(host);
        }
        self.turns()?;
        if self.brain.up {
            self.after(TICK, Ev::BrainTick { epoch });
        }
        Ok(())
    }

    pub(super) fn brain_wake(&mut self, epoch: u64, at: Micros) -> Verdicts {
        if !self.brain.up || self.brain.rows.epoch != epoch || self.brain.wake != Some(at) {
            return Ok(());
        }
        self.brain.wake = None;
        self.turns()
    }

    /// A turn of every rollout that needs one, until none changes.
    pub(super) fn turns(&mut self) -> Verdicts {
        for _ in 0..4 {
            let mut changed = false;
            for index in 0..self.brain.rows.rollouts.len() {
                if self.brain.up && self.brain.rows.rollouts[index].progress.needs_turns() {
                    changed |= self.turn(index)?;
                }
            }
            if !changed {
                break;
            }
        }
        Ok(())
    }

    fn turn(&mut self, index: usize) -> Result<bool, Violation> {
        let decision = self.brain.decide(index, self.wall());
        *self.stats.waiting.entry(decision.waiting.name()).or_default() += 1;
        let changes = decision.next != self.brain.rows.rollouts[index].progress;
        if changes {
            let fate = self.fate();
            if fate == Done::No {
                return Ok(false);
            }
            self.commit(index, &decision)?;
            match fate {
                Done::Dead => {
                    self.brain_dies();
                    return Ok(true);
                }
                Done::Unknown => return Ok(true),
                _ => {}
            }
        }
        self.deliver(index, &decision)?;
        self.wake_at(&decision);
        Ok(changes)
    }

    fn commit(&mut self, index: usize, decision: &Decision) -> Verdicts {
        let before = self.brain.rows.rollouts[index].progress.clone();
        self.trace_turn(index, &before, decision);
        for (old, new) in before.steps.iter().zip(&decision.next.steps) {
            if old.converging && !new.converging {
                self.stats.converged += 1;
            }
        }
        self.brain.apply(index, decision);
        let row = &self.brain.rows.rollouts[index];
        let commit =
            Commit { plan: &row.plan, before: &before, after: &row.progress, notes: &decision.notes, hosts: &row.hosts };
        self.check.commit(&commit, &self.brain, &self.hosts)?;
        self.check.together(&self.brain)
    }

    fn trace_turn(&mut self, index: usize, before: &Progress, decision: &Decision) {
        if self.trace.is_none() {
            return;
        }
        let waiting = decision.waiting.to_string();
        self.say(|| format!("   rollout {index} {} -> {}: {waiting}", before.state.name(), decision.next.state.name()));
        for (ordinal, (old, new)) in before.steps.iter().zip(&decision.next.steps).enumerate() {
            if old.state != new.state || old.ordered != new.ordered {
                let line = format!(
                    "     {ordinal:>2} {} -> {} ({:?}, generation {}) {:?}",
                    old.state.name(),
                    new.state.name(),
                    new.ordered,
                    new.generation.0,
                    new.failure.as_ref().map(ToString::to_string)
                );
                self.say(|| line);
            }
        }
    }

    fn deliver(&mut self, index: usize, decision: &Decision) -> Verdicts {
        for order in &decision.commands {
            let row = &self.brain.rows.rollouts[index];
            let Some(ordinal) = row.plan.members.iter().position(|member| member.member == order.member) else { continue };
            let host = row.hosts[ordinal];
            self.send(host, order)?;
        }
        Ok(())
    }

    fn send(&mut self, host: usize, order: &Order) -> Verdicts {
        let Some(session) = self.brain.sessions.get(&host).map(|session| session.id) else {
            return Ok(());
        };
        if let Some((last, at, in_session)) = self.brain.sent.get(&host)
            && last == order
            && *in_session == session
            && self.now < at + RESEND
        {
            return Ok(());
        }
        let mutating = !matches!(order.kind, OrderKind::Stage { .. });
        self.check.sent(&self.hosts[host].name, self.brain.presence(host), mutating)?;
        let work = order.kind.release().map(|release| self.work(release, host));
        let envelope =
            Envelope { fence: self.brain.fence(), ledger_seq: self.brain.rows.seq, order: order.clone(), work };
        self.brain.sent.insert(host, (order.clone(), self.now, session));
        self.to_agent(host, session, Down::Order(Box::new(envelope)));
        Ok(())
    }

    fn wake_at(&mut self, decision: &Decision) {
        let Some(at) = decision.wake_at else { return };
        let wait = u64::try_from(at.0 - self.wall().0).unwrap_or(0).max(1000);
        let when = self.now + wait;
        if self.brain.wake.is_none_or(|stands| stands <= self.now || when < stands) {
            self.brain.wake = Some(when);
            let epoch = self.brain.rows.epoch;
            self.at(when, Ev::BrainWake { epoch, at: when });
        }
    }
}
