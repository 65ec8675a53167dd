//! One process of one release as the machine last saw it: volatile, rebuilt by an inspection.

use std::time::Duration;

use super::event::{Instance, Outcome, Sample};
use super::evidence::{ANSWERS, Answer, Cause, Failure, LINE_CHARS, bounded_log};
use super::journal::BootTime;
use crate::health::HealthCheck;
use crate::name::Name;

/// A process that ended so often within a step is a crash loop.
pub(super) const EXITS: u32 = 3;
/// A process that ran for so long has its exits forgiven, outside of steps.
const STABLE: Duration = Duration::from_secs(60);
const BACKOFF_FIRST: Duration = Duration::from_millis(250);
const BACKOFF_MOST: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum State {
    #[default]
    Absent,
    Starting,
    Running {
        instance: Instance,
        since: BootTime,
    },
    Ended,
    Stopping,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Process {
    pub(super) state: State,
    /// Not before this instant: the next start, or the next stop after a failed one.
    pub(super) not_before: Option<BootTime>,
    exits: u32,
    start_failed: bool,
    opened: bool,
    fails: u32,
    last_fail: Option<BootTime>,
    /// The latest question that was not answered well.
    last_bad: Option<BootTime>,
    /// First pass of the unbroken window.
    healthy_since: Option<BootTime>,
    last_pass: Option<BootTime>,
    answers: Vec<(BootTime, Outcome, String)>,
    exit_code: Option<i32>,
    log: Vec<String>,
    /// A failed verdict that stands.
    failure: Option<Box<Failure>>,
    /// A failed verdict that waits for the log it is told with: once told, the container may go at once.
    held: Option<Box<Failure>>,
}

impl Process {
    /// Neither runs nor is about to.
    pub(super) fn at_rest(&self) -> bool {
        matches!(self.state, State::Absent | State::Ended)
    }

    pub(super) fn running(&self) -> Option<Instance> {
        if let State::Running { instance, .. } = self.state { Some(instance) } else { None }
    }

    /// Passed at least once in this run of it.
    pub(super) fn passed(&self) -> bool {
        self.running().is_some() && self.last_pass.is_some()
    }

    pub(super) fn passing(&self) -> bool {
        self.running().is_some() && self.healthy_since.is_some()
    }

    pub(super) fn failure(&self) -> Option<&Failure> {
        self.failure.as_deref()
    }

    pub(super) fn may_act(&self, now: BootTime) -> bool {
        self.not_before.is_none_or(|at| at.boot != now.boot || now.at >= at.at)
    }

    pub(super) fn healthy_since(&self) -> Option<BootTime> {
        self.healthy_since
    }

    /// Span of the unbroken window from first to last passing answer.
    pub(super) fn healthy_span(&self) -> Option<Duration> {
        self.last_pass?.since(self.healthy_since?)
    }

    pub(super) fn started(&mut self, instance: Instance, now: BootTime) {
        self.state = State::Running { instance, since: now };
        self.forget_answers();
    }

    /// Exits and failed verdicts of before do not count in a new step.
    pub(super) fn begin_step(&mut self) {
        self.exits = 0;
        self.fails = 0;
        self.failure = None;
        self.held = None;
        self.not_before = None;
    }

    /// Only answers to questions sent after the switch count from here on.
    pub(super) fn begin_checking(&mut self) {
        self.healthy_since = None;
        self.last_pass = None;
    }

    fn forget_answers(&mut self) {
        self.opened = false;
        self.fails = 0;
        self.held = None;
        self.last_fail = None;
        self.last_bad = None;
        self.healthy_since = None;
        self.last_pass = None;
    }

    /// It ended by itself (`code`), or did not start (`text`).
    pub(super) fn ended(
        &mut self,
        name: &Name,
        code: Option<i32>,
        log: &[String],
        start_error: Option<&str>,
        now: BootTime,
    ) {
        if let State::Running { since, .. } = self.state
            && now.since(since).is_some_and(|ran| ran >= STABLE)
        {
            self.exits = 0;
        }
        self.exits += 1;
        self.state = State::Ended;
        self.start_failed = start_error.is_some();
        self.exit_code = code;
        if !log.is_empty() {
            self.log = bounded_log(log);
        }
        self.forget_answers();
        let wait = backoff(self.exits);
        self.not_before = Some(BootTime { boot: now.boot, at: now.at + wait });
        if self.exits >= EXITS {
            let (cause, text) = match start_error {
                Some(text) => {
                    (Cause::StartFailed, format!("the engine did not start it {} times: {}", self.exits, cut(text)))
                }
                None => (Cause::CrashLoop, format!("it ended {} times", self.exits)),
            };
            self.failure = Some(Box::new(self.evidence(cause, name, text, now)));
        }
    }

    /// Takes an answer of the current run. True: it made a failed verdict, which stands once its log is there.
    pub(super) fn sample(&mut self, name: &Name, check: &HealthCheck, sample: &Sample, now: BootTime) -> bool {
        let State::Running { since, .. } = self.state else { return false };
        if self.answers.len() >= ANSWERS {
            self.answers.remove(0);
        }
        self.answers.push((sample.taken, sample.outcome, cut(&sample.text)));
        match sample.outcome {
            // Answers may overtake each other: a pass that was asked for before a failure does not mend it.
            Outcome::Pass if self.last_bad.is_some_and(|bad| sample.taken.at < bad.at) => false,
            Outcome::Pass => {
                self.opened = true;
                self.fails = 0;
                self.last_fail = None;
                self.failure = None;
                self.held = None;
                self.healthy_since.get_or_insert(sample.taken);
                let last = self.last_pass.filter(|last| last.at > sample.taken.at);
                self.last_pass = Some(last.unwrap_or(sample.taken));
                false
            }
            Outcome::Refused if !self.opened => false,
            Outcome::Fail | Outcome::Refused => {
                self.opened = true;
                let last = self.last_bad.filter(|last| last.at > sample.taken.at);
                self.last_bad = Some(last.unwrap_or(sample.taken));
                // One failing answer breaks the window; only `failures` of them are a failed verdict.
                if self.healthy_since.is_some_and(|since| since.at <= sample.taken.at) {
                    self.healthy_since = None;
                }
                self.failing_answer(name, check, sample, since, now)
            }
        }
    }

    fn failing_answer(
        &mut self,
        name: &Name,
        check: &HealthCheck,
        sample: &Sample,
        since: BootTime,
        now: BootTime,
    ) -> bool {
        if sample.taken.since(since).is_none_or(|age| age < check.start_period) {
            return false;
        }
        // The cadence before the first pass is faster than `interval`: answers closer together count once.
        let apart = check.interval * 9 / 10;
        let counts = self.last_fail.is_none_or(|last| sample.taken.since(last).is_some_and(|gap| gap >= apart));
        if !counts {
            return false;
        }
        self.fails += 1;
        self.last_fail = Some(sample.taken);
        if self.fails < check.failures || self.failure.is_some() {
            return false;
        }
        let text = format!("{} failing answers in a row, the last: {}", self.fails, cut(&sample.text));
        let failure = Some(Box::new(self.evidence(Cause::HealthFailing, name, text, now)));
        if self.held.is_some() {
            // The log did not come within an interval; the verdict does not wait for it twice.
            self.held = None;
            self.failure = failure;
        } else {
            self.held = failure;
        }
        true
    }

    /// Everything known of this process, as evidence.
    pub(super) fn evidence(&self, cause: Cause, name: &Name, text: String, now: BootTime) -> Failure {
        let answer = |(at, outcome, text): &(BootTime, Outcome, String)| Answer {
            before: now.since(*at).unwrap_or_default(),
            ok: *outcome == Outcome::Pass,
            text: text.clone(),
        };
        Failure {
            cause,
            process: Some(name.clone()),
            text,
            answers: self.answers.iter().map(answer).collect(),
            exit_code: self.exit_code,
            restarts: self.exits,
            log: self.log.clone(),
        }
    }

    /// Log lines that were asked for after a failed verdict.
    pub(super) fn logs(&mut self, lines: &[String]) {
        self.log = bounded_log(lines);
        if let Some(mut held) = self.held.take() {
            held.log.clone_from(&self.log);
            self.failure = Some(held);
        }
        if let Some(failure) = &mut self.failure
            && failure.log.is_empty()
        {
            failure.log.clone_from(&self.log);
        }
    }
}

fn backoff(exits: u32) -> Duration {
    BACKOFF_FIRST.saturating_mul(1 << exits.saturating_sub(1).min(10)).min(BACKOFF_MOST)
}

fn cut(text: &str) -> String {
    text.chars().take(LINE_CHARS).collect()
}
