//! The coordinator in the world: its start and death, its sessions' messages, its turns, and what it sends.

use coordinator::tasks::rollouts as task;
use domain::hello::Fenced;
use domain::ids::RolloutId;
use domain::rollout::progress::Progress;
use domain::step::order::{Envelope, OrderKind};
use domain::step::report::Report;
use proto::convert::step::Ordered;

use super::{Down, Ev, Up, World};
use crate::simulation::brain::now;
use crate::simulation::check::{Commit, Verdicts, Violation};
use crate::simulation::{Micros, SECOND};

/// The loops look by themselves, less often than the real ones: what only they would see is seen late.
const TICK: Micros = 5 * SECOND;
const RESEND: Micros = 5 * SECOND;

impl World {
    pub(super) fn brain_start(&mut self) -> Verdicts {
        if self.brain.up() {
            return Ok(());
        }
        self.brain.start();
        self.sent.clear();
        self.wake = None;
        self.looking = false;
        let epoch = self.brain.epoch();
        self.say(|| format!("   coordinator starts, epoch {epoch}"));
        self.after(SECOND / 10, Ev::BrainTick { epoch });
        Ok(())
    }

    pub(super) fn brain_dies(&mut self) {
        if !self.brain.up() {
            return;
        }
        self.brain.stop();
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

    /// After every call of the coordinator: what was committed is checked, and a death in a commit is carried out.
    pub(super) fn settle(&mut self) -> Verdicts {
        for (fault, count) in self.brain.take_faults() {
            for _ in 0..count {
                self.stats.fault(fault);
            }
        }
        if self.brain.take_crash() {
            self.notice_commits()?;
            self.brain_dies();
        }
        Ok(())
    }

    pub(super) fn brain_hears(&mut self, host: usize, session: u64, message: Up) -> Verdicts {
        if !self.brain.up() || self.hosts[host].cut(self.now) {
            return Ok(());
        }
        let message = match message {
            Up::Hello(fenced, report) => return self.hello(host, session, fenced, &report),
            other => other,
        };
        if self.brain.session(host) != Some(session) {
            self.send_down(host, session, Down::Unknown);
            return Ok(());
        }
        self.brain.heard(host, self.now);
        if let Up::Report(report) = message {
            self.store_report(host, session, &report)
        } else {
            self.send_down(host, session, Down::Heard);
            Ok(())
        }
    }

    fn hello(&mut self, host: usize, session: u64, fenced: Fenced, report: &Report) -> Verdicts {
        if self.brain.session(host).is_some_and(|open| open >= session) {
            return Ok(());
        }
        let taken = self.brain.hello(host, session, fenced, self.now);
        self.settle()?;
        match taken {
            Ok(None) => {}
            Ok(Some(stale)) => {
                return Err(Violation {
                    invariant: "S3",
                    text: format!("a coordinator that leads is told: {}", stale.why),
                });
            }
            Err(_) => {
                self.end_session(host, session);
                return Ok(());
            }
        }
        let (fence, seq) = self.brain.fence();
        self.send_down(host, session, Down::Welcome(fence, seq));
        self.store_report(host, session, report)
    }

    fn end_session(&mut self, host: usize, session: u64) {
        self.brain.hang_up(host);
        self.send_down(host, session, Down::Unknown);
    }

    fn store_report(&mut self, host: usize, session: u64, report: &Report) -> Verdicts {
        let stored = self.brain.report_came(host, report);
        self.settle()?;
        if !self.brain.up() {
            return Ok(());
        }
        self.brain.look_at_report(host);
        let Ok(news) = stored else {
            // As in the session's task: an error ends the session, and the agent says it all again.
            self.end_session(host, session);
            return self.settle();
        };
        self.send_down(host, session, Down::Ack(report.stamp));
        let first = !self.brain.observed(host);
        if first && self.brain.synced(host).is_err() {
            self.end_session(host, session);
        }
        self.settle()?;
        if news || first {
            self.look_soon();
        }
        Ok(())
    }

    /// The loop of rollouts is woken; wakes in between are one.
    pub(super) fn look_soon(&mut self) {
        if self.looking || !self.brain.up() {
            return;
        }
        self.looking = true;
        let epoch = self.brain.epoch();
        let wait = self.rng.between(500, 25_000);
        self.after(wait, Ev::BrainLook { epoch });
    }

    pub(super) fn brain_tick(&mut self, epoch: u64) -> Verdicts {
        let Some(ctx) = self.brain.ctx().filter(|_| self.brain.epoch() == epoch) else { return Ok(()) };
        self.end_silent_sessions();
        // As the task does: an error is logged, and the next tick looks again.
        let changed = now(coordinator::app::reports::liveness(&ctx));
        self.settle()?;
        self.ticked = true;
        self.ticks += 1;
        if changed.unwrap_or(true) || self.ticks.is_multiple_of(2) {
            self.look_soon();
        }
        if self.brain.up() {
            self.after(TICK, Ev::BrainTick { epoch });
        }
        Ok(())
    }

    pub(super) fn brain_wake(&mut self, epoch: u64, at: Micros) -> Verdicts {
        if self.brain.epoch() == epoch && self.wake == Some(at) {
            self.wake = None;
            self.look_soon();
        }
        Ok(())
    }

    /// Each session's own timer, looked at before anything that could use the session.
    fn end_silent_sessions(&mut self) {
        for host in self.brain.silent(self.now) {
            self.brain.hang_up(host);
        }
    }

    /// One look of the task at all rollouts, as `tasks/rollouts.rs` does it.
    pub(super) fn brain_look(&mut self, epoch: u64) -> Verdicts {
        if self.brain.epoch() != epoch || !self.brain.up() {
            return Ok(());
        }
        self.looking = false;
        self.end_silent_sessions();
        self.settle()?;
        for _ in 0..8 {
            if !self.turns()? {
                break;
            }
        }
        Ok(())
    }

    fn turns(&mut self) -> Result<bool, Violation> {
        let Some(ctx) = self.brain.ctx() else { return Ok(false) };
        let Ok(open) = now(task::turning(&ctx)) else { return Ok(false) };
        let mut changed = false;
        for id in open {
            let expected = self.rng.between(0, 1) == 0;
            let turn = now(task::turn(&ctx, id, expected));
            if turn.as_ref().map_or(true, |turn| turn.as_ref().is_none_or(|turn| turn.changed)) {
                self.notice_commits()?;
            }
            self.settle()?;
            if !self.brain.up() {
                return Ok(false);
            }
            // An error: it may have been committed or not; nothing is sent, the next look sees.
            let Ok(Some(turn)) = turn else {
                self.look_soon();
                continue;
            };
            changed |= turn.changed && turn.state.is_terminal();
            for ordered in &turn.orders {
                self.send(ordered)?;
            }
            if let Some(at) = turn.wake_at {
                self.wake_at(at);
            }
            self.count_waiting(id, turn.waiting.name());
        }
        Ok(changed)
    }

    fn count_waiting(&mut self, id: RolloutId, waiting: &'static str) {
        *self.stats.waiting.entry(waiting).or_default() += 1;
        if self.trace.is_some() && self.waited.insert(id, waiting) != Some(waiting) {
            self.say(|| format!("   rollout {} waits: {waiting}", id.short()));
        }
    }

    /// What the store has now against what it had: every difference is a commit, and is checked.
    pub(super) fn notice_commits(&mut self) -> Verdicts {
        for (index, before) in self.brain.look_at_rollouts(&self.hosts) {
            let Some(before) = before else {
                self.stats.rollouts += 1;
                self.say(|| format!("   rollout {index} is in the store"));
                continue;
            };
            self.trace_turn(index, &before);
            let row = &self.brain.rows[index];
            for (old, new) in before.steps.iter().zip(&row.progress.steps) {
                if old.converging && !new.converging {
                    self.stats.converged += 1;
                }
            }
            let commit =
                Commit { plan: &row.plan, before: &before, after: &row.progress, hosts: &row.hosts, at: self.now };
            self.check.commit(&commit, &self.brain, &self.hosts)?;
            self.check.together(&self.brain)?;
        }
        Ok(())
    }

    fn trace_turn(&mut self, index: usize, before: &Progress) {
        if self.trace.is_none() {
            return;
        }
        let after = self.brain.rows[index].progress.clone();
        let reason = after.reason.as_ref().map(ToString::to_string).unwrap_or_default();
        self.say(|| format!("   rollout {index} {} -> {} {reason}", before.state.name(), after.state.name()));
        for (ordinal, (old, new)) in before.steps.iter().zip(&after.steps).enumerate() {
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

    fn send(&mut self, ordered: &Ordered) -> Verdicts {
        let order = &ordered.order;
        let Some(host) = self.hosts.iter().position(|host| host.id == order.executor) else { return Ok(()) };
        let Some(session) = self.brain.session(host).filter(|_| self.brain.observed(host)) else { return Ok(()) };
        let confirm = order.kind == OrderKind::Confirm;
        if let Some((generation, was_confirm, at, in_session)) = self.sent.get(&host)
            && (*generation, *was_confirm, *in_session) == (order.generation, confirm, session)
            && self.now < at + RESEND
        {
            return Ok(());
        }
        let mutating = !matches!(order.kind, OrderKind::Stage { .. });
        self.check.sent(&self.hosts[host].name, self.brain.known(host, self.now), mutating)?;
        let (fence, ledger_seq) = self.brain.fence();
        let work = ordered.work.as_ref().map(proto::convert::step::OrderedRelease::work);
        self.sent.insert(host, (order.generation, confirm, self.now, session));
        self.send_down(
            host,
            session,
            Down::Order(Box::new(Envelope { fence, ledger_seq, order: order.clone(), work })),
        );
        Ok(())
    }

    fn wake_at(&mut self, at: domain::time::Timestamp) {
        let wait = u64::try_from(at.0 - self.wall().0).unwrap_or(0).max(1000);
        let when = self.now + wait;
        if self.wake.is_none_or(|stands| stands <= self.now || when < stands) {
            self.wake = Some(when);
            let epoch = self.brain.epoch();
            self.at(when, Ev::BrainWake { epoch, at: when });
        }
    }
}
