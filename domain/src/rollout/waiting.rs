//! What a rollout waits for: the line `rollout status --why` prints.

use std::fmt;
use std::time::Duration;

use super::progress::{Holder, RolloutState};
use crate::ids::RolloutId;
use crate::name::Name;

/// What a rollout waits for, or why it ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Waiting {
    /// Another rollout of the target.
    Turn {
        /// The one before it.
        before: RolloutId,
    },
    /// Members that stage the release.
    Staging {
        /// Who, in the plan's order.
        members: Vec<Name>,
        /// How many are ready.
        ready: u32,
        /// Of so many.
        of: u32,
    },
    /// Hosts whose last results are still coming in.
    Syncing {
        /// Who.
        members: Vec<Name>,
    },
    /// A member to become warm, to switch or to report.
    Step {
        /// Who.
        member: Name,
        /// Where it is.
        state: super::progress::StepState,
        /// So many others are changing as well.
        others: u32,
        /// Until the progress deadline.
        deadline: Duration,
        /// What comes then.
        then: Then,
    },
    /// A member to stay healthy.
    MinHealthy {
        /// Who.
        member: Name,
        /// For so much longer.
        left: Duration,
        /// Until the progress deadline.
        deadline: Duration,
        /// What comes then.
        then: Then,
    },
    /// A confirmation to arrive.
    Confirmation {
        /// Who.
        member: Name,
        /// Until the progress deadline.
        deadline: Duration,
    },
    /// Touched members that are not heard from: unknown counts as unavailable and is never a verdict.
    Unknown {
        /// Who.
        members: Vec<Name>,
        /// Until the progress deadline.
        deadline: Duration,
    },
    /// The bake after a wave.
    Bake {
        /// The wave, from 0.
        wave: u32,
        /// For so much longer.
        left: Duration,
        /// What comes then.
        then: Then,
    },
    /// `minimum_healthy_hosts` leaves no room.
    MinimumHealthy {
        /// Available now.
        available: u32,
        /// Must stay above.
        minimum: u32,
    },
    /// Members that went bad on their own after the bake's end or before the next step.
    Unhealthy {
        /// Who.
        members: Vec<Name>,
    },
    /// Somebody.
    Paused {
        /// Who holds it.
        holders: Vec<Holder>,
        /// Why, in words.
        why: String,
        /// What to do.
        todo: String,
    },
    /// Members that go back.
    Revert {
        /// Who.
        members: Vec<Name>,
        /// How many are back.
        back: u32,
        /// Of so many.
        of: u32,
        /// Those not heard from.
        away: Vec<Name>,
    },
    /// The in-flight members, then the newer rollout.
    Supersede {
        /// Who.
        members: Vec<Name>,
    },
    /// Parked members of an ended rollout that are not back yet, or on their way.
    Parked {
        /// How it ended.
        state: RolloutState,
        /// Why it ended so.
        why: String,
        /// Who.
        members: Vec<Name>,
    },
    /// Nothing: it ended.
    Ended {
        /// How.
        state: RolloutState,
        /// Why.
        why: String,
    },
}

/// What comes after the thing waited for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Then {
    /// More members of this wave.
    Members(Vec<Name>),
    /// The next wave.
    Wave {
        /// Its number, from 0.
        wave: u32,
        /// Its members.
        members: Vec<Name>,
    },
    /// The final bake, then the end.
    FinalBake,
    /// The end.
    End,
}

impl Waiting {
    /// A stable name per kind, for counts and JSON.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Turn { .. } => "turn",
            Self::Staging { .. } => "staging",
            Self::Syncing { .. } => "syncing",
            Self::Step { .. } => "step",
            Self::MinHealthy { .. } => "min_healthy_time",
            Self::Confirmation { .. } => "confirmation",
            Self::Unknown { .. } => "unknown",
            Self::Bake { .. } => "bake",
            Self::MinimumHealthy { .. } => "minimum_healthy_hosts",
            Self::Unhealthy { .. } => "unhealthy",
            Self::Paused { .. } => "paused",
            Self::Revert { .. } => "revert",
            Self::Supersede { .. } => "supersede",
            Self::Parked { .. } => "parked",
            Self::Ended { .. } => "ended",
        }
    }
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Turn { before } => write!(f, "waiting for: rollout {before}, which has the target"),
            Self::Staging { members, ready, of } => {
                write!(
                    f,
                    "waiting for: {} to stage the release ({ready} of {of} ready; nothing is touched before)",
                    list(members)
                )
            }
            Self::Syncing { members } if members.is_empty() => f.write_str("waiting for: the next turn"),
            Self::Syncing { members } => write!(f, "waiting for: {} to connect and send what it has", list(members)),
            Self::Step { member, state, others, deadline, then } => {
                write!(f, "waiting for: {member} ({}", state.name())?;
                if *others > 0 {
                    write!(f, ", with {others} more")?;
                }
                write!(f, "; deadline in {}); then {then}", time(*deadline))
            }
            Self::MinHealthy { member, left, deadline, then } => write!(
                f,
                "waiting for: {member} to stay healthy for another {} (deadline in {}); then {then}",
                tenths(*left),
                time(*deadline)
            ),
            Self::Confirmation { member, deadline } => {
                write!(f, "waiting for: {member} to take the confirmation (deadline in {})", time(*deadline))
            }
            Self::Unknown { members, deadline } => write!(
                f,
                "waiting for: {}, changed and not heard from; what runs there goes on (deadline in {})",
                list(members),
                time(*deadline)
            ),
            Self::Bake { wave, left, then } => {
                write!(f, "waiting for: another {} of bake after wave {}; then {then}", tenths(*left), wave + 1)
            }
            Self::MinimumHealthy { available, minimum } => write!(
                f,
                "waiting for: another member to become available ({available} are, and more than minimum_healthy_hosts {minimum} must stay so)"
            ),
            Self::Unhealthy { members } => write!(f, "waiting for: {} to be seen healthy again", list(members)),
            Self::Paused { why, todo, .. } => write!(f, "waiting for: somebody: {why}; {todo}"),
            Self::Revert { members, back, of, away } => {
                write!(f, "waiting for: {} to go back ({back} of {of} are)", list(members))?;
                if !away.is_empty() {
                    write!(f, "; {} not heard from", list(away))?;
                }
                Ok(())
            }
            Self::Supersede { members } => {
                write!(f, "waiting for: {} to settle; then the newer rollout goes on", list(members))
            }
            Self::Parked { state, why, members } => {
                write!(
                    f,
                    "{}{}; waiting for: {} to be back and spared, and get what it ended on",
                    state.name(),
                    after(why),
                    list(members)
                )
            }
            Self::Ended { state, why } => write!(f, "{}{}", state.name(), after(why)),
        }
    }
}

impl fmt::Display for Then {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Members(members) => f.write_str(&list(members)),
            Self::Wave { wave, members } => write!(f, "wave {}: {}", wave + 1, list(members)),
            Self::FinalBake => f.write_str("the final bake"),
            Self::End => f.write_str("it is done"),
        }
    }
}

fn after(why: &str) -> String {
    if why.is_empty() { String::new() } else { format!(": {why}") }
}

/// At most eight names, then how many more.
fn list(names: &[Name]) -> String {
    let shown: Vec<&str> = names.iter().take(8).map(Name::as_str).collect();
    let more = names.len().saturating_sub(8);
    if names.is_empty() {
        return "nobody".to_owned();
    }
    if more == 0 { shown.join(" ") } else { format!("{} and {more} more", shown.join(" ")) }
}

fn tenths(duration: Duration) -> String {
    if duration < Duration::from_secs(60) { format!("{:.1} s", duration.as_secs_f64()) } else { time(duration) }
}

fn time(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..=59 => format!("{seconds} s"),
        60..=3599 => format!("{} m {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} m", seconds / 3600, seconds % 3600 / 60),
    }
}
