//! The kinds of faults, and which of them a scenario has.

use super::rng::Rng;

/// Something that goes wrong.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Fault {
    /// A message never arrives.
    MessageLost,
    /// A message arrives twice.
    MessageDoubled,
    /// A message arrives much later, after others.
    MessageDelayed,
    /// A confirmation never arrives.
    ConfirmLost,
    /// A host is not heard from for a while; it goes on.
    HostSilent,
    /// A host is never heard from again.
    HostDead,
    /// A host starts anew.
    HostReboot,
    /// An agent dies between two actions.
    AgentCrash,
    /// The coordinator dies; the next one has a higher epoch.
    CoordinatorCrash,
    /// A commit is not made.
    CommitAborted,
    /// A commit is made and its answer is lost.
    CommitAnswerLost,
    /// A commit is made and the coordinator dies.
    CrashAfterCommit,
    /// The coordinator's clock jumps, either way.
    ClockJump,
    /// A release whose processes end at start.
    ReleaseCrashes,
    /// A release whose health check fails.
    ReleaseFailing,
    /// A release that never opens its port.
    ReleaseSilent,
    /// A release that turns bad a while after it was healthy.
    ReleaseTurnsBad,
    /// A host on which probes fail now and then.
    HealthFlapping,
    /// A process that ends once.
    ProcessExit,
    /// A host that cannot stage.
    StageRefused,
    /// The engine does not start a container.
    EngineError,
    /// The relay does not switch.
    RelayError,
    /// A person pauses.
    Pause,
    /// A person cancels.
    Cancel,
    /// A newer rollout takes over.
    Supersede,
}

impl Fault {
    /// Every kind.
    pub const ALL: [Self; 25] = [
        Self::MessageLost,
        Self::MessageDoubled,
        Self::MessageDelayed,
        Self::ConfirmLost,
        Self::HostSilent,
        Self::HostDead,
        Self::HostReboot,
        Self::AgentCrash,
        Self::CoordinatorCrash,
        Self::CommitAborted,
        Self::CommitAnswerLost,
        Self::CrashAfterCommit,
        Self::ClockJump,
        Self::ReleaseCrashes,
        Self::ReleaseFailing,
        Self::ReleaseSilent,
        Self::ReleaseTurnsBad,
        Self::HealthFlapping,
        Self::ProcessExit,
        Self::StageRefused,
        Self::EngineError,
        Self::RelayError,
        Self::Pause,
        Self::Cancel,
        Self::Supersede,
    ];
}

/// How often each kind happens in one scenario: a random part of them at random rates.
#[derive(Clone, Debug, Default)]
pub struct Rates {
    /// Messages lost, doubled, delayed; in a thousand.
    pub lost: u64,
    /// See `lost`.
    pub doubled: u64,
    /// See `lost`.
    pub delayed: u64,
    /// Confirmations lost, in a thousand; more often than other messages, because one is easily repeated.
    pub confirm_lost: u64,
    /// Commits aborted, in ten thousand.
    pub aborted: u64,
    /// Answers of commits lost, in ten thousand.
    pub answer_lost: u64,
    /// Crashes after a commit, in ten thousand.
    pub crash_after: u64,
    /// Engine starts that fail, in a thousand.
    pub engine: u64,
    /// Relay switches that fail, in a thousand.
    pub relay: u64,
    /// Probes that fail on a flapping host, in a thousand.
    pub flapping: u64,
}

impl Rates {
    /// Draws a random part of the kinds at random rates.
    #[must_use]
    pub fn draw(rng: &mut Rng) -> Self {
        let mut maybe = |most: u64| if rng.permille(500) { rng.between(1, most) } else { 0 };
        Self {
            lost: maybe(60),
            doubled: maybe(60),
            delayed: maybe(80),
            confirm_lost: maybe(600),
            aborted: maybe(200),
            answer_lost: maybe(200),
            crash_after: maybe(40),
            engine: maybe(80),
            relay: maybe(80),
            flapping: maybe(300),
        }
    }
}
