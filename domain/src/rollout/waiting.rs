//! What a rollout waits for: the line `rollout status --why` prints.

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
