//! One service of an environment while the agent runs.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use domain::environment::diff::{Known, Seen};
use tokio::task::AbortHandle;

use super::failure::Failure;
use crate::engine::ContainerSpec;

/// First and longest pause before a service that ended is started again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));
/// A service that ran for so long has its ends forgiven.
const STABLE: Duration = Duration::from_secs(60);

/// One service of an environment.
#[derive(Debug)]
pub struct Part {
    /// What is known of its container.
    pub known: Known,
    /// What its container is made from; none: not prepared yet.
    pub spec: Option<ContainerSpec>,
    /// Counts its starts, so that news of an earlier one are told apart.
    pub instance: u64,
    /// The engine's id of its container.
    pub container: Option<String>,
    /// Its address.
    pub address: Option<IpAddr>,
    /// When its start began.
    pub started: Option<Instant>,
    /// From then until it was ready.
    pub ready_after: Option<Duration>,
    /// It was ready at some time of this order: what it cannot do now may pass.
    pub was_ready: bool,
    /// One line for people.
    pub detail: String,
    /// Its last log lines when it ended.
    pub last_lines: Vec<String>,
    /// Why it could not be prepared or started.
    pub failure: Option<Failure>,
    tasks: Vec<AbortHandle>,
}

impl Part {
    /// One of which nothing was done yet by this pass.
    pub fn new(was_ready: bool) -> Self {
        Self {
            known: Known::NEW,
            spec: None,
            instance: 0,
            container: None,
            address: None,
            started: None,
            ready_after: None,
            was_ready,
            detail: String::new(),
            last_lines: Vec::new(),
            failure: None,
            tasks: Vec::new(),
        }
    }

    /// A task that watches the present container; ends with it.
    pub fn watched_by(&mut self, task: AbortHandle) {
        self.tasks.push(task);
    }

    fn unwatch(&mut self) {
        for task in self.tasks.drain(..) {
            task.abort();
        }
    }

    /// Its start begins.
    pub fn starting(&mut self) {
        self.unwatch();
        self.instance += 1;
        self.known.seen = Seen::Starting;
        self.started = Some(Instant::now());
        self.ready_after = None;
        self.failure = None;
        "starting".clone_into(&mut self.detail);
    }

    /// It runs.
    pub fn running(&mut self, container: String, address: Option<IpAddr>) {
        self.known.seen = Seen::Running { ready: false };
        self.container = Some(container);
        self.address = address;
    }

    /// Its check passes, or does not (any more).
    pub fn health(&mut self, healthy: bool, text: String) {
        if !matches!(self.known.seen, Seen::Running { .. }) {
            return;
        }
        self.known.seen = Seen::Running { ready: healthy };
        self.detail = text;
        if healthy {
            self.was_ready = true;
            self.ready_after = self.ready_after.or(self.started.map(|at| at.elapsed()));
            self.last_lines.clear();
        }
    }

    /// It ended. Answers the pause before another start. What may have ended `with_engine` is not held against it.
    pub fn ended(&mut self, code: i32, lines: Vec<String>, out_of_memory: bool, with_engine: bool) -> Duration {
        let ran = self.started.map(|at| at.elapsed()).unwrap_or_default();
        self.unwatch();
        let before = if ran >= STABLE { 0 } else { self.known.restarts };
        self.known.restarts = before + u32::from(!with_engine);
        self.known.seen = Seen::Ended { code: Some(code), was_ready: self.was_ready, pause_over: false };
        self.address = None;
        self.last_lines = lines;
        let memory = if out_of_memory { " (out of memory)" } else { "" };
        self.detail = if code == 0 {
            "exit 0".to_owned()
        } else {
            format!("exited {code}{memory} after {:.1} s", ran.as_secs_f64())
        };
        self.pause()
    }

    /// It could not be prepared or started. Answers the pause before another attempt.
    pub fn failed(&mut self, failure: Failure) -> Duration {
        self.unwatch();
        self.detail.clone_from(&failure.text);
        self.known.restarts += 1;
        self.known.seen = if failure.passes {
            Seen::Preparing
        } else {
            Seen::Ended { code: None, was_ready: self.was_ready, pause_over: false }
        };
        self.failure = Some(failure);
        self.pause()
    }

    fn pause(&self) -> Duration {
        PAUSES.0.saturating_mul(1 << self.known.restarts.saturating_sub(1).min(10)).min(PAUSES.1)
    }

    /// The pause is over.
    pub fn may_start_again(&mut self) {
        if let Seen::Ended { pause_over, .. } = &mut self.known.seen {
            *pause_over = true;
        }
    }

    /// Its container vanished: somebody removed it, and maybe more of it. It has to be prepared again.
    pub fn vanished(&mut self) {
        self.unwatch();
        self.known.seen = Seen::Preparing;
        self.container = None;
        self.address = None;
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.unwatch();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_ends_again_and_again_waits_longer_and_who_ended_with_its_engine_does_not() {
        let mut part = Part::new(false);
        let mut end = |with_engine| {
            part.starting();
            part.ended(1, Vec::new(), false, with_engine)
        };
        let by_itself: Vec<Duration> = (0..3).map(|_| end(false)).collect();
        assert_eq!(by_itself, [PAUSES.0, PAUSES.0 * 2, PAUSES.0 * 4]);
        assert_eq!([end(true), end(true)], [PAUSES.0 * 4; 2]);
        assert_eq!(end(false), PAUSES.0 * 8);
        let mut part = Part::new(false);
        for _ in 0..10 {
            part.starting();
            assert_eq!(part.ended(0, Vec::new(), false, true), PAUSES.0);
        }
        assert_eq!(part.known.restarts, 0);
    }
}
