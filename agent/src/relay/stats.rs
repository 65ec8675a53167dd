//! Counters: lock-free where traffic passes, copied out for the agent.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// Upper bounds of the latency buckets in microseconds; one more bucket holds what is slower.
pub const LATENCY_BOUNDS_US: [u64; 18] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000, 10_000_000, 30_000_000, 60_000_000,
];

/// Milliseconds since 1970.
pub(super) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Counters of one release on one port.
#[derive(Debug, Default)]
pub(super) struct ReleaseCounters {
    pub requests: AtomicU64,
    pub classes: [AtomicU64; 5],
    pub upstream_errors: AtomicU64,
    pub in_flight: AtomicU64,
    pub upgrades: AtomicU64,
    pub upgrades_open: AtomicU64,
    pub connections: AtomicU64,
    pub connections_open: AtomicU64,
    pub bytes_in: AtomicU64,
    pub bytes_out: AtomicU64,
    /// Milliseconds since 1970; decides whose counters are forgotten first.
    pub last_used_ms: AtomicU64,
    latency: [AtomicU64; LATENCY_BOUNDS_US.len() + 1],
    latency_sum_us: AtomicU64,
}

impl ReleaseCounters {
    /// Counts an answered request: its class and the time from its head to the answer's head.
    pub fn answered(&self, status: u16, took: Duration) {
        if let Some(class) = self.classes.get(usize::from(status / 100).wrapping_sub(1)) {
            class.fetch_add(1, Relaxed);
        }
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = LATENCY_BOUNDS_US.partition_point(|bound| *bound < us);
        self.latency[bucket].fetch_add(1, Relaxed);
        self.latency_sum_us.fetch_add(us, Relaxed);
    }

    pub fn view(&self) -> ReleaseStats {
        let class = |index: usize| self.classes[index].load(Relaxed);
        ReleaseStats {
            requests: self.requests.load(Relaxed),
            responses_1xx: class(0),
            responses_2xx: class(1),
            responses_3xx: class(2),
            responses_4xx: class(3),
            responses_5xx: class(4),
            upstream_errors: self.upstream_errors.load(Relaxed),
            in_flight: self.in_flight.load(Relaxed),
            upgrades: self.upgrades.load(Relaxed),
            upgrades_open: self.upgrades_open.load(Relaxed),
            connections: self.connections.load(Relaxed),
            connections_open: self.connections_open.load(Relaxed),
            bytes_in: self.bytes_in.load(Relaxed),
            bytes_out: self.bytes_out.load(Relaxed),
            latency_buckets: self.latency.iter().map(|bucket| bucket.load(Relaxed)).collect(),
            latency_sum_us: self.latency_sum_us.load(Relaxed),
        }
    }
}

/// Counters of one port, whatever the release.
#[derive(Debug, Default)]
pub(super) struct PortCounters {
    pub accepted: AtomicU64,
    pub open: AtomicU64,
    pub refused: AtomicU64,
    pub held: AtomicU64,
    pub held_now: AtomicU64,
    pub held_too_long: AtomicU64,
    pub bad_requests: AtomicU64,
    pub last_activity_ms: AtomicU64,
}

impl PortCounters {
    pub fn touch(&self) {
        self.last_activity_ms.store(now_ms(), Relaxed);
    }
}

/// What one release on one port has done since the relay started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseStats {
    /// Requests whose head arrived (`http`).
    pub requests: u64,
    /// Answers by class, the relay's own 502 and 503 included (`http`).
    pub responses_1xx: u64,
    /// See `responses_1xx`.
    pub responses_2xx: u64,
    /// See `responses_1xx`.
    pub responses_3xx: u64,
    /// See `responses_1xx`.
    pub responses_4xx: u64,
    /// See `responses_1xx`.
    pub responses_5xx: u64,
    /// Endpoint not reached, or gone before its answer was complete.
    pub upstream_errors: u64,
    /// Requests between head and end of answer, upgrades not included.
    pub in_flight: u64,
    /// Upgraded connections ever.
    pub upgrades: u64,
    /// Upgraded connections open.
    pub upgrades_open: u64,
    /// Connections ever (`tcp`).
    pub connections: u64,
    /// Connections open (`tcp`).
    pub connections_open: u64,
    /// Body or connection bytes towards the endpoint.
    pub bytes_in: u64,
    /// Body or connection bytes towards clients.
    pub bytes_out: u64,
    /// Requests per bucket of [`LATENCY_BOUNDS_US`], from request head to answer head; the last bucket is open.
    pub latency_buckets: Vec<u64>,
    /// Sum of the same, in microseconds.
    pub latency_sum_us: u64,
}

/// What one port has done since the relay started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortStats {
    /// The owner.
    pub key: String,
    /// The release new traffic goes to.
    pub release: String,
    /// Its generation.
    pub generation: u64,
    /// Connections accepted.
    pub accepted: u64,
    /// Connections open.
    pub open: u64,
    /// Connections closed at once because the port had too many.
    pub refused: u64,
    /// Connections or requests ever held.
    pub held: u64,
    /// Connections or requests held now.
    pub held_now: u64,
    /// Held longer than the limit, or beyond the cap.
    pub held_too_long: u64,
    /// Requests refused for their form.
    pub bad_requests: u64,
    /// Last byte or request, in milliseconds since 1970; 0 when none.
    pub last_activity_ms: u64,
    /// By release; only the last few without traffic are kept.
    pub releases: BTreeMap<String, ReleaseStats>,
}

/// All counters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatsView {
    /// By port.
    pub ports: BTreeMap<u16, PortStats>,
    /// When the relay started, in milliseconds since 1970: counters began at zero then.
    pub started_at_ms: u64,
    /// The boot it runs in.
    pub boot_id: String,
    /// How often it was started on its table, this start included.
    pub starts: u64,
    /// Upper bounds of the latency buckets in microseconds.
    pub latency_bounds_us: Vec<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_lands_in_its_class_and_bucket() {
        let counters = ReleaseCounters::default();
        counters.answered(204, Duration::from_micros(100));
        counters.answered(404, Duration::from_micros(101));
        counters.answered(502, Duration::from_secs(120));
        let view = counters.view();
        assert_eq!((view.responses_2xx, view.responses_4xx, view.responses_5xx), (1, 1, 1));
        assert_eq!((view.latency_buckets[0], view.latency_buckets[1]), (1, 1));
        assert_eq!(view.latency_buckets.last(), Some(&1));
        assert_eq!(view.latency_sum_us, 120_000_201);
    }

    #[test]
    fn an_unknown_status_class_counts_nowhere() {
        let counters = ReleaseCounters::default();
        counters.answered(999, Duration::ZERO);
        counters.answered(0, Duration::ZERO);
        let view = counters.view();
        assert_eq!(view.responses_1xx + view.responses_5xx, 0);
    }
}
