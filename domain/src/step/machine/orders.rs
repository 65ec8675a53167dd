//! Which orders are taken, and what taking one writes to the journal.

use super::Machine;
use crate::ids::Generation;
use crate::step::event::Action;
use crate::step::journal::{BootTime, Settled, StageRecord, StepPhase, StepRecord, Verdict};
use crate::step::order::{Go, Order, OrderKind, Work};
use crate::step::report::{Durations, Refusal};

impl Machine {
    /// A higher generation is taken, the same is answered, a lower is refused.
    pub(super) fn order(&mut self, order: Order, work: Option<Work>, now: BootTime) {
        self.report_anyway = true;
        let held = self.slot.generation;
        if order.generation < held {
            return self.refuse(Refusal::Stale { held });
        }
        if order.kind == OrderKind::Confirm {
            return self.confirm(order.generation, now);
        }
        if order.generation == held {
            if self.slot.order.as_ref() != Some(&order.kind) {
                self.refuse(Refusal::Conflict);
            }
            return;
        }
        let needs = order.kind.release();
        let work = work.filter(|work| Some(work.release) == needs);
        if needs.is_some() && work.is_none() {
            return self.refuse(Refusal::NoWork);
        }
        self.slot.generation = order.generation;
        self.slot.rollout = Some(order.rollout);
        self.slot.order = Some(order.kind.clone());
        match (order.kind, work) {
            (OrderKind::Stage { .. }, Some(work)) => self.stage(order.generation, work),
            (OrderKind::Go(go), Some(work)) => self.begin(order.generation, &go, work, now),
            _ => self.remove(),
        }
        self.asked_at = None;
    }

    fn confirm(&mut self, generation: Generation, now: BootTime) {
        let Some(step) = self.slot.step.as_ref().filter(|step| step.generation == generation) else {
            return self.refuse(Refusal::NeverTaken);
        };
        // After a reboot the verdict is withdrawn until it is given again; the coordinator asks again.
        if step.settled.is_none() && step.verdict == Some(Verdict::Healthy) {
            self.settle(Settled::Confirmed, now);
        }
    }

    fn stage(&mut self, generation: Generation, work: Work) {
        self.slot.stage = Some(StageRecord { generation, work: work.clone(), outcome: None, took: None });
        self.persist();
        self.out.push(Action::Stage { generation, work });
    }

    fn begin(&mut self, generation: Generation, go: &Go, work: Work, now: BootTime) {
        if let Some(old) = self.slot.step.take()
            && old.to.release != work.release
        {
            self.leave_over(old.to);
        }
        self.slot.leftovers.retain(|other| other.release != work.release);
        let staged = self.slot.stage.as_ref().filter(|stage| stage.work.release == work.release);
        let durations = Durations { staged: staged.and_then(|stage| stage.took), ..Durations::default() };
        for process in &work.processes {
            self.process(work.release, &process.name).begin_step();
        }
        self.slot.step = Some(StepRecord {
            generation,
            purpose: go.purpose,
            to: work,
            from: self.slot.current.as_ref().map(|current| current.release),
            undo: go.undo && self.slot.current.is_some(),
            pace: go.pace,
            phase: StepPhase::Starting,
            begun: now,
            switched: None,
            verdict: None,
            decided: None,
            settled: None,
            reboots: 0,
            durations,
        });
        self.persist();
    }

    fn remove(&mut self) {
        let step = self.slot.step.take().map(|step| step.to);
        let current = self.slot.current.take();
        for work in step.into_iter().chain(current) {
            self.leave_over(work);
        }
        self.persist();
    }
}
