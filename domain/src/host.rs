//! A machine with an agent, and whether it is heard from.

use std::time::Duration;

use crate::ids::HostId;
use crate::label::Labels;
use crate::name::Name;
use crate::time::Timestamp;

/// A machine with an agent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Host {
    /// Its id.
    pub id: HostId,
    /// Unique in the project.
    pub name: Name,
    /// Given by the coordinator.
    pub labels: Labels,
    /// No new environments, runs or members are placed here.
    pub draining: bool,
    /// What the agent told last.
    pub facts: Facts,
    /// When it joined.
    pub joined_at: Timestamp,
    /// When its session was last seen alive, as last written to the store (status changes only).
    pub seen_at: Option<Timestamp>,
    /// Liveness as last written to the store.
    pub liveness: Liveness,
}

/// What an agent tells about its machine.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Facts {
    /// The agent's version.
    pub agent_version: String,
    /// Changes at every boot.
    pub boot_id: String,
    /// For example `linux/amd64`.
    pub platform: String,
    /// Operating system's name and version.
    pub os: String,
    /// Number of CPUs.
    pub cpus: u32,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Bytes of memory that are free or can be freed.
    pub memory_available_bytes: u64,
    /// Bytes of the disk under the agent's state.
    pub disk_bytes: u64,
    /// Free bytes of it.
    pub disk_available_bytes: u64,
    /// The container engine's version; empty when it does not answer.
    pub engine_version: String,
    /// The address at which this host's published ports are reached by others.
    pub address: String,
    /// How data is cloned: `reflink`, `btrfs`, `copy`; empty from agents that do not tell.
    pub pool_backend: String,
    /// Why so, for people.
    pub pool_why: String,
    /// Bytes of the pool of data.
    pub pool_total_bytes: u64,
    /// Bytes that can still be written to it.
    pub pool_available_bytes: u64,
    /// Bytes in it that one environment, seed or snapshot holds alone.
    pub pool_own_bytes: u64,
    /// Bytes that several of them hold, counted once for each.
    pub pool_shared_bytes: u64,
    /// Environments that its policy allows at once; 0: as many as come.
    pub max_environments: u32,
    /// Bytes of memory that its policy allows them in all; 0: what there is.
    pub max_environment_bytes: u64,
}

/// Whether a host is heard from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
pub enum Liveness {
    /// Joined, and never had a session yet.
    Joined,
    /// A session is open, and results from before are still coming in: no orders, no verdicts.
    Syncing,
    /// A session is open and heard from within the limit.
    Ready,
    /// Not heard from for longer than the limit; what it runs is Unknown and goes on.
    Unreachable,
}

/// Heartbeats come this often.
pub const HEARTBEAT: Duration = Duration::from_secs(5);
/// A host not heard from for this long is `Unreachable`.
pub const UNREACHABLE_AFTER: Duration = Duration::from_secs(15);
/// After a start or take-over of the coordinator, `Unreachable` is delayed by this long, and nothing else is.
pub const START_GRACE: Duration = Duration::from_secs(30);

/// Decides liveness from what the coordinator saw. `started_at` is when this coordinator began to listen.
#[must_use]
pub fn liveness(
    stored: Liveness,
    session: Option<SessionSeen>,
    last_seen: Option<Timestamp>,
    started_at: Timestamp,
    now: Timestamp,
) -> Liveness {
    if let Some(seen) = session
        && now.since(seen.heard_at) < UNREACHABLE_AFTER
    {
        return if seen.synced { Liveness::Ready } else { Liveness::Syncing };
    }
    let Some(last_seen) = last_seen else { return stored };
    let heard = session.map_or(last_seen, |seen| seen.heard_at.max(last_seen));
    let silent = now.since(heard) >= UNREACHABLE_AFTER;
    let in_grace = session.is_none() && now.since(started_at) < START_GRACE;
    if silent && !in_grace { Liveness::Unreachable } else { stored }
}

/// What the coordinator holds of a host's open session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SessionSeen {
    /// When a message came last.
    pub heard_at: Timestamp,
    /// All unacknowledged results from before have been stored.
    pub synced: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: i64 = 1_000_000;

    #[test]
    fn a_silent_host_becomes_unreachable_after_15_seconds() {
        let seen = Some(SessionSeen { heard_at: Timestamp(100 * S), synced: true });
        let at = |t: i64| liveness(Liveness::Ready, seen, Some(Timestamp(100 * S)), Timestamp(0), Timestamp(t));
        assert_eq!(at(114 * S), Liveness::Ready);
        assert_eq!(at(115 * S), Liveness::Unreachable);
    }

    #[test]
    fn a_restart_of_the_coordinator_delays_unreachable_and_nothing_else() {
        let at = |t: i64| liveness(Liveness::Ready, None, Some(Timestamp(50 * S)), Timestamp(100 * S), Timestamp(t));
        assert_eq!(at(129 * S), Liveness::Ready);
        assert_eq!(at(130 * S), Liveness::Unreachable);
    }

    #[test]
    fn a_host_whose_results_are_still_coming_in_is_syncing() {
        let seen = Some(SessionSeen { heard_at: Timestamp(S), synced: false });
        assert_eq!(liveness(Liveness::Joined, seen, None, Timestamp(0), Timestamp(2 * S)), Liveness::Syncing);
    }
}
