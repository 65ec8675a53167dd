//! What "healthy" means for a process or a service.

use std::time::Duration;

/// How health is asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Probe {
    /// `GET path`; any 2xx or 3xx answer is healthy.
    Http {
        /// Begins with `/`.
        path: String,
        /// Container port; the process's first port if none.
        port: Option<u16>,
    },
    /// A TCP connect.
    Tcp {
        /// Container port; the process's first port if none.
        port: Option<u16>,
    },
    /// A PostgreSQL start-up packet is answered by something other than "starting up".
    Postgres {
        /// Container port.
        port: u16,
    },
    /// `PING` is answered (`+PONG` or `-NOAUTH`).
    Redis {
        /// Container port.
        port: u16,
    },
    /// Running without a restart.
    Container,
    /// A declared command in the container: a Compose health check, run by the agent.
    Command {
        /// The argument vector.
        argv: Vec<String>,
    },
}

/// A probe with its cadence.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HealthCheck {
    /// How health is asked.
    pub probe: Probe,
    /// Once healthy: time between probes (50 ms – 5 min).
    pub interval: Duration,
    /// One probe's limit (10 ms – 1 min).
    pub timeout: Duration,
    /// So many failing answers in a row, an interval apart, are a failed verdict (1–100).
    pub failures: u32,
    /// Failing answers so soon after the start do not count (0 – 10 min). Compose's word.
    pub start_period: Duration,
}

impl HealthCheck {
    /// The probe with the cadence of DESIGN §3: 1 s, 1 s, 3 failures, no start period.
    #[must_use]
    pub fn new(probe: Probe) -> Self {
        Self {
            probe,
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            failures: 3,
            start_period: Duration::ZERO,
        }
    }
}
