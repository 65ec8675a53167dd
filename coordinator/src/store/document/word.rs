//! Stored words of values without data. Never change one: databases are full of them.

use domain::app::{Driver, Mode};
use domain::authorize::Role;
use domain::environment::{EnvironmentState, ServiceState, Wanted};
use domain::host::Liveness;
use domain::policy::OnNewer;
use domain::rollout::progress::{Holder, RolloutState, StepState};
use domain::rollout::reason::ReasonCode;
use domain::run::{CaseOutcome, RunState, Verdict};
use domain::step::evidence::Cause;
use domain::step::journal::{Settled, StepPhase};
use domain::step::report::StageCheck;

use super::{Word, word_document, words};

words!(Mode { Tcp = "tcp", Http = "http", });
words!(Driver { Container = "container", });
words!(OnNewer { Queue = "queue", Supersede = "supersede", });
words!(Wanted { Up = "up", Down = "down", });
words!(Settled { Confirmed = "confirmed", Undone = "undone", });

words!(Liveness {
    Joined = "joined",
    Syncing = "syncing",
    Ready = "ready",
    Unreachable = "unreachable",
});

words!(EnvironmentState {
    Pending = "pending",
    Starting = "starting",
    Ready = "ready",
    Failed = "failed",
    Stopping = "stopping",
    Gone = "gone",
    Frozen = "frozen",
    Asleep = "asleep",
});

words!(ServiceState {
    Waiting = "waiting",
    Pulling = "pulling",
    Starting = "starting",
    Ready = "ready",
    Done = "done",
    Exited = "exited",
    CrashLoop = "crash-loop",
});

words!(RunState {
    Queued = "queued",
    Assigned = "assigned",
    Preparing = "preparing",
    Running = "running",
    Finished = "finished",
});

words!(Verdict {
    Passed = "passed",
    Failed = "failed",
    Errored = "errored",
    TimedOut = "timed-out",
    Cancelled = "cancelled",
    Interrupted = "interrupted",
});

words!(CaseOutcome {
    Passed = "passed",
    Failed = "failed",
    Errored = "errored",
    Skipped = "skipped",
});

words!(StepPhase {
    Starting = "starting",
    Switching = "switching",
    Checking = "checking",
    Decided = "decided",
    Settled = "settled",
});

/// The domain gives these their words.
macro_rules! named {
    ($($domain:ty: $name:ident, $from:ident;)*) => {$(
        impl Word for $domain {
            fn word(self) -> &'static str {
                self.$name()
            }

            fn from_word(word: &str) -> Option<Self> {
                Self::$from(word)
            }
        }

        word_document!($domain);
    )*};
}

named! {
    RolloutState: name, from_name;
    StepState: name, from_name;
    Holder: name, from_name;
    ReasonCode: code, from_code;
    Cause: code, from_code;
    StageCheck: code, from_code;
    Role: as_str, parse;
}
