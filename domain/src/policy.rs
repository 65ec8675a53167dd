//! Pace, deadlines and budgets of a rollout; names and defaults as in the design's table.

use std::fmt;
use std::time::Duration;

/// A number of members, or a share of the frozen list.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
pub enum Amount {
    /// So many.
    Count(u32),
    /// So many per cent (0–100) of the frozen list, rounded down.
    Percent(u32),
}

impl Amount {
    /// Of `total` members: a percentage is rounded down; the caller adds "at least 1" where that holds.
    #[must_use]
    pub fn of(self, total: u32) -> u32 {
        match self {
            Self::Count(count) => count,
            Self::Percent(percent) => {
                let share = u64::from(total) * u64::from(percent) / 100;
                u32::try_from(share).unwrap_or(u32::MAX)
            }
        }
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => write!(f, "{count}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

/// What happens to a rollout that is started while another of its target runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
pub enum OnNewer {
    /// It waits its turn.
    Queue,
    /// The running one stops where it is, and the newer one goes on from there.
    Supersede,
}

/// The settings of one rollout, frozen at its start.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Policy {
    /// Members changing at once, rounded down, at least 1.
    pub max_parallel: Amount,
    /// Size of the first wave.
    pub canary: Amount,
    /// Go on by itself when the canary is healthy.
    pub auto_promote: bool,
    /// Sizes of the following waves; the last value repeats.
    pub waves: Vec<Amount>,
    /// Healthy without a failed verdict or a restart for so long.
    pub min_healthy_time: Duration,
    /// Per step, from its first effect.
    pub healthy_deadline: Duration,
    /// How long a host waits for the coordinator after its own verdict before it undoes by itself.
    pub confirm_deadline: Duration,
    /// Whole rollout; reset by each member that turns healthy; frozen while paused.
    pub progress_deadline: Duration,
    /// Gates stay armed so long after a wave.
    pub bake_time: Duration,
    /// Gates stay armed so long after the last wave.
    pub final_bake_time: Duration,
    /// Go back to the release recorded per member when it was touched.
    pub auto_revert: bool,
    /// Never go to or below it, reverts included.
    pub minimum_healthy_hosts: Option<Amount>,
    /// Exceeded: stop and revert. Percentages of the frozen list.
    pub max_fail: Amount,
    /// Members allowed to be away, in preflight and forward.
    pub max_unreachable: Amount,
    /// What a newer rollout does to this one's target.
    pub on_newer: OnNewer,
    /// Releases kept on a host for instant return.
    pub retain_releases: u32,
    /// Old connections may end for so long after the switch is confirmed.
    pub drain_timeout: Duration,
    /// Between TERM and KILL.
    pub kill_timeout: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            max_parallel: Amount::Count(1),
            canary: Amount::Count(1),
            auto_promote: true,
            waves: vec![Amount::Percent(25), Amount::Percent(100)],
            min_healthy_time: seconds(10),
            healthy_deadline: seconds(300),
            confirm_deadline: seconds(120),
            progress_deadline: seconds(600),
            bake_time: seconds(60),
            final_bake_time: seconds(300),
            auto_revert: true,
            minimum_healthy_hosts: None,
            max_fail: Amount::Count(0),
            max_unreachable: Amount::Count(0),
            on_newer: OnNewer::Queue,
            retain_releases: 5,
            drain_timeout: seconds(30),
            kill_timeout: seconds(10),
        }
    }
}
