//! What both sides conclude from a Hello: who may order, whose word is newer, what the coordinator adopts.

use uuid::Uuid;

use crate::ids::{Fence, Generation, ReleaseId};
use crate::step::report::Report;

/// What an agent keeps of who orders: durable, written before anything is done under it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Fenced {
    /// The highest fence taken; the default (incarnation 0) takes any.
    pub fence: Fence,
    /// The highest committed `ledger.seq` heard of in that incarnation.
    pub ledger_seq: u64,
}

/// Why an agent does not listen to a coordinator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FenceRefusal {
    /// An older incarnation of the cluster.
    #[error("incarnation {given} is older than {held}, which this host already follows")]
    OldIncarnation {
        /// What came.
        given: u64,
        /// What is held.
        held: u64,
    },
    /// Two clusters were restored apart.
    #[error("incarnation {number} has another id than the one this host follows: two clusters were restored apart")]
    OtherIncarnation {
        /// The number both have.
        number: u64,
    },
    /// A coordinator that was replaced.
    #[error("epoch {given} is older than {held}: this coordinator was replaced")]
    OldEpoch {
        /// What came.
        given: u64,
        /// What is held.
        held: u64,
    },
}

impl FenceRefusal {
    /// The stable reason code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::OldIncarnation { .. } => "E_INCARNATION_OLD",
            Self::OtherIncarnation { .. } => "E_INCARNATION_OTHER",
            Self::OldEpoch { .. } => "E_EPOCH_OLD",
        }
    }
}

impl Fenced {
    /// Checks who orders, at the moment the order is acted on, not only when it came. The answer is what is held from
    /// now on; write it before acting if it differs.
    ///
    /// # Errors
    /// Somebody newer was heard before.
    pub fn admit(self, fence: Fence, ledger_seq: u64) -> Result<Self, FenceRefusal> {
        let held = self.fence;
        if fence.incarnation < held.incarnation {
            return Err(FenceRefusal::OldIncarnation { given: fence.incarnation, held: held.incarnation });
        }
        if fence.incarnation > held.incarnation {
            return Ok(Self { fence, ledger_seq });
        }
        if fence.incarnation_id != held.incarnation_id && held.incarnation_id != Uuid::nil() {
            return Err(FenceRefusal::OtherIncarnation { number: held.incarnation });
        }
        if fence.epoch < held.epoch {
            return Err(FenceRefusal::OldEpoch { given: fence.epoch, held: held.epoch });
        }
        Ok(Self { fence, ledger_seq: self.ledger_seq.max(ledger_seq) })
    }
}

/// What a coordinator concludes about itself from what an agent has heard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// Nobody newer is known to this agent.
    Current,
    /// A newer coordinator exists: this one must stop ordering at once.
    Replaced {
        /// Its epoch.
        epoch: u64,
    },
    /// The agent has heard of commits that this store does not have: a stale backup, or another cluster. Order
    /// nothing until `muster restore`.
    Stale {
        /// The agent's highest `ledger.seq`.
        theirs: u64,
        /// Ours.
        ours: u64,
    },
    /// The agent follows a newer or another incarnation. Order nothing.
    OtherIncarnation {
        /// Its number.
        theirs: u64,
        /// Ours.
        ours: u64,
    },
}

/// Compares what an agent says in Hello with this coordinator's own fence and last committed `ledger.seq`.
#[must_use]
pub fn standing(own: Fence, ledger_seq: u64, agent: Fenced) -> Standing {
    let theirs = agent.fence;
    let other_id = theirs.incarnation_id != own.incarnation_id && theirs.incarnation_id != Uuid::nil();
    if theirs.incarnation > own.incarnation || (theirs.incarnation == own.incarnation && other_id) {
        return Standing::OtherIncarnation { theirs: theirs.incarnation, ours: own.incarnation };
    }
    if theirs.incarnation < own.incarnation {
        return Standing::Current;
    }
    if theirs.epoch > own.epoch {
        return Standing::Replaced { epoch: theirs.epoch };
    }
    if agent.ledger_seq > ledger_seq {
        return Standing::Stale { theirs: agent.ledger_seq, ours: ledger_seq };
    }
    Standing::Current
}

/// Whether a report replaces the stored one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Merge {
    /// Store it.
    Newer,
    /// The same report came before; acknowledge it, change nothing.
    Duplicate,
    /// A newer one is stored; acknowledge it, change nothing.
    Older,
}

/// Orders two reports of one agent about one target. Lost agent state starts the count anew with a higher `run`,
/// because runs are counted from the wall clock's seconds when the count is lost; so a plain comparison is enough.
#[must_use]
pub fn merge(stored: Option<&Report>, incoming: &Report) -> Merge {
    match stored.map(|stored| incoming.stamp.cmp(&stored.stamp)) {
        None | Some(std::cmp::Ordering::Greater) => Merge::Newer,
        Some(std::cmp::Ordering::Equal) => Merge::Duplicate,
        Some(std::cmp::Ordering::Less) => Merge::Older,
    }
}

/// What the store knows of one (target, host).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Known {
    /// The highest generation ordered.
    pub generation: Generation,
    /// The release the host last settled on.
    pub release: Option<ReleaseId>,
}

/// What to do about one target of one host after its Hello.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Conclusion {
    /// Both agree, or the host is behind with an order that will be sent again anyway.
    Agree,
    /// The host has orders this store does not know (a restored backup): take its generation and release as they are.
    Adopt(Known),
    /// The host knows nothing of a target it is a member of: it lost its state. Order again, under a new generation.
    Lost,
    /// The store knows nothing of the target: kept and reported, never removed.
    Foreign,
}

/// Compares what is stored with what a host says, for every target that either of them knows.
#[must_use]
pub fn conclude(stored: Option<Known>, reported: Option<&Report>) -> Conclusion {
    match (stored, reported) {
        (None, _) => Conclusion::Foreign,
        (Some(known), None) if known.release.is_some() || known.generation > Generation(0) => Conclusion::Lost,
        (Some(_), None) => Conclusion::Agree,
        (Some(known), Some(report)) if report.generation > known.generation => {
            Conclusion::Adopt(Known { generation: report.generation, release: report.current })
        }
        (Some(_), Some(_)) => Conclusion::Agree,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::step::report::{HealthNow, Stamp};

    fn fence(incarnation: u64, id: u128, epoch: u64) -> Fence {
        Fence { incarnation, incarnation_id: Uuid::from_u128(id), epoch }
    }

    fn report(run: u64, number: u64, generation: u64) -> Report {
        Report {
            stamp: Stamp { run, number },
            generation: Generation(generation),
            current: None,
            routed: None,
            stage: None,
            step: None,
            health: HealthNow::Unknown,
            serving: true,
            quiet: true,
        }
    }

    #[test]
    fn an_older_epoch_is_refused_and_a_newer_one_is_kept() {
        let held = Fenced { fence: fence(1, 7, 3), ledger_seq: 10 };
        assert_eq!(held.admit(fence(1, 7, 2), 99), Err(FenceRefusal::OldEpoch { given: 2, held: 3 }));
        assert_eq!(held.admit(fence(1, 7, 3), 5), Ok(held));
        assert_eq!(held.admit(fence(1, 7, 4), 12), Ok(Fenced { fence: fence(1, 7, 4), ledger_seq: 12 }));
    }

    #[test]
    fn the_same_incarnation_with_another_id_is_refused_and_a_higher_one_is_followed_from_any_epoch() {
        let held = Fenced { fence: fence(1, 7, 300), ledger_seq: 10 };
        assert_eq!(held.admit(fence(1, 8, 301), 11), Err(FenceRefusal::OtherIncarnation { number: 1 }));
        assert_eq!(held.admit(fence(0, 8, 301), 11), Err(FenceRefusal::OldIncarnation { given: 0, held: 1 }));
        assert_eq!(held.admit(fence(2, 8, 1), 3), Ok(Fenced { fence: fence(2, 8, 1), ledger_seq: 3 }));
    }

    #[test]
    fn a_coordinator_with_a_stale_backup_or_a_successor_knows_it() {
        let own = fence(2, 7, 5);
        let says = |fence, ledger_seq| standing(own, 100, Fenced { fence, ledger_seq });
        assert_eq!(says(fence(2, 7, 5), 100), Standing::Current);
        assert_eq!(says(fence(2, 7, 5), 101), Standing::Stale { theirs: 101, ours: 100 });
        assert_eq!(says(fence(2, 7, 6), 1), Standing::Replaced { epoch: 6 });
        assert_eq!(says(fence(2, 8, 1), 1), Standing::OtherIncarnation { theirs: 2, ours: 2 });
        assert_eq!(says(fence(1, 9, 900), 9000), Standing::Current);
        assert_eq!(says(Fence::default(), 0), Standing::Current);
    }

    #[test]
    fn a_delayed_report_never_replaces_a_newer_one() {
        let stored = report(2, 1, 0);
        assert_eq!(merge(Some(&stored), &report(1, 50, 0)), Merge::Older);
        assert_eq!(merge(Some(&stored), &report(2, 1, 0)), Merge::Duplicate);
        assert_eq!(merge(Some(&stored), &report(2, 2, 0)), Merge::Newer);
        assert_eq!(merge(None, &report(1, 1, 0)), Merge::Newer);
    }

    #[test]
    fn a_restored_store_adopts_what_hosts_have_gone_on_to() {
        let known = Known { generation: Generation(4), release: None };
        let adopted = Known { generation: Generation(6), release: None };
        assert_eq!(conclude(Some(known), Some(&report(1, 1, 6))), Conclusion::Adopt(adopted));
        assert_eq!(conclude(Some(known), Some(&report(1, 1, 3))), Conclusion::Agree);
        assert_eq!(conclude(Some(known), None), Conclusion::Lost);
        assert_eq!(conclude(None, Some(&report(1, 1, 6))), Conclusion::Foreign);
    }
}
