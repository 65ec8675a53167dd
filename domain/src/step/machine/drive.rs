//! A step that is not settled: start beside, become warm, switch, check, decide, wait.

use super::{Machine, deadline_text};
use crate::ids::ReleaseId;
use crate::name::Name;
use crate::step::event::Action;
use crate::step::evidence::Failure;
use crate::step::journal::{BootTime, StepPhase, StepRecord, Verdict};
use crate::step::order::Work;

impl Machine {
    pub(super) fn drive(&mut self, now: BootTime) {
        let Some(step) = self.open_step().cloned() else { return };
        if step.verdict.is_none()
            && let Some(failure) = self.failed(&step, now)
        {
            return self.decide(Verdict::Failed(Box::new(failure)), now);
        }
        match step.phase {
            StepPhase::Starting => self.start_beside(&step, now),
            StepPhase::Switching => self.switch(&step, now),
            StepPhase::Checking => self.check(&step, now),
            StepPhase::Decided | StepPhase::Settled => self.hold(&step, now),
        }
    }

    /// A failed verdict, a crash loop, or the end of `healthy_deadline`.
    fn failed(&self, step: &StepRecord, now: BootTime) -> Option<Failure> {
        let to = &step.to;
        for process in &to.processes {
            if let Some(failure) = self.seen(to.release, &process.name).and_then(|seen| seen.failure()) {
                return Some(failure.clone());
            }
        }
        if now.since(step.begun)? < step.pace.healthy_deadline {
            return None;
        }
        let (cause, text) = deadline_text(step);
        let lacking = to
            .processes
            .iter()
            .find(|process| !self.seen(to.release, &process.name).is_some_and(crate::step::process::Process::passing));
        let seen = lacking.and_then(|process| Some((process, self.seen(to.release, &process.name)?)));
        Some(match seen {
            Some((process, seen)) => seen.evidence(cause, &process.name, text, now),
            None => Failure::bare(cause, text),
        })
    }

    /// The old goes on as it is; the new starts beside it, but for what must never be beside its successor.
    fn start_beside(&mut self, step: &StepRecord, now: BootTime) {
        self.keep_current_beside(step, now);
        let beside: Vec<Name> = self.names(&step.to, |machine, name| !machine.exclusive(name));
        for name in &beside {
            self.want(step.to.release, name, now);
        }
        let warm = beside.iter().all(|name| self.passed(step.to.release, name));
        if warm && let Some(step) = self.slot.step.as_mut() {
            step.phase = StepPhase::Switching;
            step.durations.warm = now.since(step.begun);
            // From here on an undo has something to do: it must be on disk before the first arrow.
            self.persist();
        }
    }

    /// Stop what may not be beside its successor, start its successor, then lead traffic over.
    fn switch(&mut self, step: &StepRecord, now: BootTime) {
        let release = step.to.release;
        for name in self.names(&step.to, |_, _| true) {
            if self.exclusive(&name) {
                self.stop_others(release, &name, &step.pace, now);
            }
            self.want(release, &name, now);
        }
        // A process that the new release does not have any more, and that bears no other beside it.
        let gone: Vec<Name> =
            self.exclusive_names().into_iter().filter(|name| step.to.process(name).is_none()).collect();
        for name in gone {
            self.stop_others(release, &name, &step.pace, now);
        }
        self.keep_others_warm(step, now);
        let all_passed = step.to.processes.iter().all(|process| self.passed(release, &process.name));
        if all_passed && self.route(route_of(&step.to), now) {
            self.switched(now);
        }
    }

    fn switched(&mut self, now: BootTime) {
        let Some(step) = self.slot.step.as_mut() else { return };
        step.phase = StepPhase::Checking;
        step.switched = Some(now);
        let warm_at = step.durations.warm.map(|warm| BootTime { at: step.begun.at + warm, ..step.begun });
        step.durations.switched = warm_at.and_then(|at| now.since(at));
        let to = step.to.clone();
        self.persist();
        for process in &to.processes {
            self.process(to.release, &process.name).begin_checking();
            self.out.push(Action::ProbeNow { release: to.release, process: process.name.clone() });
        }
    }

    /// Every answer since the switch healthy for `min_healthy_time`, from the first to the last.
    fn check(&mut self, step: &StepRecord, now: BootTime) {
        for name in self.names(&step.to, |_, _| true) {
            self.want(step.to.release, &name, now);
        }
        self.keep_others_warm(step, now);
        let needed = step.pace.min_healthy_time;
        let spans = |name: &Name| self.seen(step.to.release, name).and_then(|seen| seen.healthy_span());
        if step.to.processes.iter().all(|process| spans(&process.name).is_some_and(|span| span >= needed)) {
            return self.decide(Verdict::Healthy, now);
        }
        self.ask_when_due(step, now);
    }

    /// The last answer of the window must be as old as the window is long: ask exactly then.
    fn ask_when_due(&mut self, step: &StepRecord, now: BootTime) {
        let Some(due) = self.due(step) else { return };
        if now.at < due || self.asked_at.is_some_and(|asked| asked.boot == now.boot && asked.at >= due) {
            return;
        }
        self.asked_at = Some(now);
        for process in &step.to.processes {
            self.out.push(Action::ProbeNow { release: step.to.release, process: process.name.clone() });
        }
    }

    /// When the windows of all processes are long enough; none while one of them has no window.
    pub(super) fn due(&self, step: &StepRecord) -> Option<std::time::Duration> {
        let mut due = std::time::Duration::ZERO;
        for process in &step.to.processes {
            let since = self.seen(step.to.release, &process.name)?.healthy_since()?;
            due = due.max(since.at + step.pace.min_healthy_time);
        }
        Some(due)
    }

    /// The verdict is given. Whatever comes next needs both sides as they are.
    fn hold(&mut self, step: &StepRecord, now: BootTime) {
        if step.switched.is_some() {
            for name in self.names(&step.to, |_, _| true) {
                self.want(step.to.release, &name, now);
            }
            self.keep_others_warm(step, now);
            if self.routed.is_none() {
                self.route(route_of(&step.to), now);
            }
        } else {
            self.keep_current_beside(step, now);
        }
    }

    /// Before the switch: all of the settled release runs and has the traffic.
    fn keep_current_beside(&mut self, step: &StepRecord, now: BootTime) {
        let Some(current) = self.slot.current.clone() else { return };
        for name in self.names(&current, |_, _| true) {
            self.want(current.release, &name, now);
        }
        let ready = self.names(&current, |machine, name| {
            machine.seen(current.release, name).is_none_or(|seen| seen.running().is_none())
        });
        // Only after a reboot the relay leads nowhere; traffic that is elsewhere stays there until the switch.
        if self.routed.is_none() && ready.is_empty() && current.release != step.to.release {
            self.route(route_of(&current), now);
        }
    }

    /// After the switch: what may run beside stays, so that going back takes no start.
    fn keep_others_warm(&mut self, step: &StepRecord, now: BootTime) {
        let Some(current) = self.slot.current.clone().filter(|current| current.release != step.to.release) else {
            return;
        };
        for name in self.names(&current, |machine, name| !machine.exclusive(name)) {
            self.want(current.release, &name, now);
        }
    }

    pub(super) fn names(&self, work: &Work, wanted: impl Fn(&Self, &Name) -> bool) -> Vec<Name> {
        work.processes
            .iter()
            .filter(|process| wanted(self, &process.name))
            .map(|process| process.name.clone())
            .collect()
    }

    fn passed(&self, release: ReleaseId, name: &Name) -> bool {
        self.seen(release, name).is_some_and(crate::step::process::Process::passed)
    }
}

/// Where the relay leads for a release: nowhere if nothing of it is published.
pub(super) fn route_of(work: &Work) -> Option<ReleaseId> {
    work.processes.iter().any(|process| process.exposed).then_some(work.release)
}
