//! What a person asks of a rollout: pure changes of its progress, stored by the caller before it answers.

use super::plan::Plan;
use super::progress::{Deadline, Holder, Progress, RolloutState, StepState};
use super::reason::{Reason, ReasonCode};
use crate::time::Timestamp;

/// Why an ask changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// It ended.
    #[error("the rollout ended: it is {}", .0.name())]
    Ended(RolloutState),
    /// Going back is not paused.
    #[error("the rollout is going back, which cannot be paused")]
    Reverting,
    /// There is nothing to resume.
    #[error("the rollout is not paused")]
    NotPaused,
    /// Only the hosts can.
    #[error(
        "the rollout goes on by itself when its members are back; to go on without them start it again with --max-unreachable"
    )]
    WaitsForHosts,
}

impl AskError {
    /// The stable reason code.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Ended(_) => "E_ROLLOUT_ENDED",
            Self::Reverting => "E_ROLLOUT_REVERTING",
            Self::NotPaused => "E_ROLLOUT_NOT_PAUSED",
            Self::WaitsForHosts => "E_HOST_UNREACHABLE",
        }
    }
}

/// Nothing new starts from now on; steps in flight may finish. Asked twice it changes nothing.
///
/// # Errors
/// It ended, or is going back.
pub fn pause(progress: &mut Progress, by: &str, now: Timestamp) -> Result<(), AskError> {
    not_ended(progress)?;
    if progress.base() == RolloutState::Reverting {
        return Err(AskError::Reverting);
    }
    if progress.state == RolloutState::Queued {
        // It holds nothing; it waits where it is.
        return Err(AskError::NotPaused);
    }
    by.clone_into(&mut progress.asked_by);
    let reason = Reason::new(ReasonCode::PausedByUser, format!("paused by {by}"));
    hold(progress, Holder::User, reason, now);
    Ok(())
}

/// Goes on: promotes a canary, tries failed members again.
///
/// # Errors
/// It is not paused, or only its hosts can end the pause.
pub fn resume(plan: &Plan, progress: &mut Progress, by: &str, now: Timestamp) -> Result<(), AskError> {
    not_ended(progress)?;
    if progress.state != RolloutState::Paused {
        return Err(AskError::NotPaused);
    }
    if progress.holders.iter().all(|holder| *holder == Holder::Unreachable) {
        return Err(AskError::WaitsForHosts);
    }
    by.clone_into(&mut progress.asked_by);
    if progress.holders.contains(&Holder::Failed) || progress.holders.contains(&Holder::NoPrevious) {
        try_again(plan, progress, now);
    }
    for holder in [Holder::User, Holder::Failed, Holder::NoPrevious, Holder::Canary] {
        release(progress, holder, now);
    }
    Ok(())
}

/// Touched members go back, then it ends. Members without a release to go back to are removed only when this is
/// asked of a rollout that is paused for exactly that.
///
/// # Errors
/// It ended.
pub fn cancel(plan: &Plan, progress: &mut Progress, by: &str, now: Timestamp) -> Result<(), AskError> {
    not_ended(progress)?;
    by.clone_into(&mut progress.asked_by);
    let removes = progress.holders.contains(&Holder::NoPrevious);
    if progress.base() == RolloutState::Reverting && !removes {
        return Ok(());
    }
    progress.cancel_asked = true;
    if removes {
        progress.holders.clear();
        progress.interrupted = None;
        progress.state = RolloutState::Reverting;
        progress.bake_until = None;
        progress.progress_by = Deadline::At(now.plus(plan.policy.progress_deadline));
        progress.reason = Some(cancelled(by));
    }
    Ok(())
}

/// A newer rollout takes over: steps in flight settle, nothing new starts, then it ends.
///
/// # Errors
/// It ended.
pub fn supersede(plan: &Plan, progress: &mut Progress, by: &str, now: Timestamp) -> Result<(), AskError> {
    not_ended(progress)?;
    by.clone_into(&mut progress.asked_by);
    progress.supersede_asked = true;
    if progress.state == RolloutState::Paused {
        // A pause would hold the newer one as well, and its deadline would stand still for ever.
        progress.holders.clear();
        progress.state = progress.interrupted.take().unwrap_or(RolloutState::Running);
        progress.progress_by = Deadline::At(now.plus(plan.policy.progress_deadline));
    }
    Ok(())
}

pub(super) fn cancelled(by: &str) -> Reason {
    Reason::new(ReasonCode::CancelledByUser, format!("cancelled by {by}"))
}

fn not_ended(progress: &Progress) -> Result<(), AskError> {
    if progress.state.is_terminal() { Err(AskError::Ended(progress.state)) } else { Ok(()) }
}

/// Pauses, or adds a holder to a pause. Deadlines stand still.
pub(super) fn hold(progress: &mut Progress, holder: Holder, reason: Reason, now: Timestamp) -> bool {
    let new = progress.holders.insert(holder);
    if progress.state != RolloutState::Paused {
        progress.interrupted = Some(progress.state);
        progress.state = RolloutState::Paused;
        if let Deadline::At(at) = progress.progress_by {
            progress.progress_by = Deadline::Left(at.since(now));
        }
    }
    if new {
        progress.reason = Some(reason);
    }
    new
}

/// Takes a holder away; the last one ends the pause.
pub(super) fn release(progress: &mut Progress, holder: Holder, now: Timestamp) -> bool {
    let held = progress.holders.remove(&holder);
    if held && progress.holders.is_empty() && progress.state == RolloutState::Paused {
        progress.state = progress.interrupted.take().unwrap_or(RolloutState::Running);
        progress.reason = None;
        if let Deadline::Left(left) = progress.progress_by {
            progress.progress_by = Deadline::At(now.plus(left));
        }
    }
    held
}

/// Failed members, and those that went back because of them, start again from the first wave that is not done.
fn try_again(plan: &Plan, progress: &mut Progress, now: Timestamp) {
    for step in &mut progress.steps {
        if matches!(step.state, StepState::Failed | StepState::Reverted) {
            step.state = StepState::Pending;
            step.since = now;
            step.failed = false;
            step.undone = 0;
            step.ordered = super::progress::Ordered::Nothing;
        }
    }
    let undone = |state: StepState| !matches!(state, StepState::Healthy | StepState::Parked);
    let open = plan.members.iter().zip(&progress.steps).filter(|(_, step)| undone(step.state));
    // Never on: a wave whose bake was interrupted still has its gate before it.
    progress.wave = open.map(|(member, _)| member.wave).min().map_or(progress.wave, |wave| wave.min(progress.wave));
    progress.bake_until = None;
    progress.interrupted = Some(RolloutState::Running);
    progress.progress_by = Deadline::Left(plan.policy.progress_deadline);
}
