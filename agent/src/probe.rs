//! The agent's own questions about health: asked of a container's address, never inside the container.
//!
//! Only answers are made here; counting them into a verdict is the domain's.

mod http;
mod mysql;
mod postgres;
mod redis;
mod watch;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use domain::health::Probe;
use domain::stack::StoreKind;
use tokio::net::TcpStream;
use tokio::time::Instant;

pub use watch::{Prober, Watch};

/// Characters of an answer that are kept for people.
const KEEP: usize = 200;

/// A question with its port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ask {
    /// `GET path`: healthy on 2xx and 3xx; redirects are not followed.
    Http {
        /// Begins with `/`.
        path: String,
        /// Container port.
        port: u16,
    },
    /// A TCP connect.
    Tcp {
        /// Container port.
        port: u16,
    },
    /// A start-up packet: ready unless refused with SQLSTATE 57P03.
    Postgres {
        /// Container port.
        port: u16,
    },
    /// `PING`: ready on `+PONG` and `-NOAUTH`.
    Redis {
        /// Container port.
        port: u16,
    },
    /// The server's greeting.
    Mysql {
        /// Container port.
        port: u16,
    },
    /// `GET /_cluster/health`: ready unless red; a demand for a login is ready too.
    Elasticsearch {
        /// Container port.
        port: u16,
    },
}

impl Ask {
    /// The question of a declared probe; `first_port` is the process's first port.
    ///
    /// `None` for probes that only the engine can answer (`container`, `command`) and for one that has no port at all.
    #[must_use]
    pub fn of(probe: &Probe, first_port: Option<u16>) -> Option<Self> {
        match probe {
            Probe::Http { path, port } => Some(Self::Http { path: path.clone(), port: port.or(first_port)? }),
            Probe::Tcp { port } => Some(Self::Tcp { port: port.or(first_port)? }),
            Probe::Postgres { port } => Some(Self::Postgres { port: *port }),
            Probe::Redis { port } => Some(Self::Redis { port: *port }),
            Probe::Container | Probe::Command { .. } => None,
        }
    }

    /// The question that a recognised database is asked when its stack declares none.
    #[must_use]
    pub fn store(kind: StoreKind) -> Self {
        match kind {
            StoreKind::Postgres => Self::Postgres { port: 5432 },
            StoreKind::Mysql => Self::Mysql { port: 3306 },
            StoreKind::Redis => Self::Redis { port: 6379 },
            StoreKind::Elasticsearch => Self::Elasticsearch { port: 9200 },
        }
    }

    /// The container port it goes to.
    #[must_use]
    pub fn port(&self) -> u16 {
        match self {
            Self::Http { port, .. }
            | Self::Tcp { port }
            | Self::Postgres { port }
            | Self::Redis { port }
            | Self::Mysql { port }
            | Self::Elasticsearch { port } => *port,
        }
    }
}

/// What kind of answer came.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
pub enum Kind {
    /// Nobody listens, or the address is not reachable.
    Refused,
    /// The protocol's answer, good or bad.
    Answered,
    /// The server waited for what it was asked to wait for, and it did not come: it may be asked again at once.
    Waited,
    /// No full answer within the timeout.
    TimedOut,
    /// The connection broke, or the answer was not of the protocol.
    Broken,
}

/// The answer to one question.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// Whether it counts as healthy.
    pub healthy: bool,
    /// HTTP status, if there was one.
    pub status: Option<u16>,
    /// For people: at most 200 characters of what was said, or what went wrong; no control characters.
    pub text: String,
    /// What kind of answer came.
    pub kind: Kind,
    /// How long it took.
    pub took: Duration,
    /// When it came: microseconds of CLOCK_BOOTTIME.
    pub at_micros: u64,
}

/// What a protocol says, before it is timed.
struct Said {
    healthy: bool,
    status: Option<u16>,
    text: String,
    kind: Kind,
}

impl Said {
    fn answered(healthy: bool, text: impl Into<String>) -> Self {
        Self { healthy, status: None, text: text.into(), kind: Kind::Answered }
    }

    fn broken(text: impl Into<String>) -> Self {
        Self { healthy: false, status: None, text: text.into(), kind: Kind::Broken }
    }

    fn connect(error: &io::Error) -> Self {
        Self { healthy: false, status: None, text: plain(error), kind: Kind::Refused }
    }

    fn late(timeout: Duration) -> Self {
        let text = format!("no answer within {timeout:?}");
        Self { healthy: false, status: None, text, kind: Kind::TimedOut }
    }

    fn timed(self, began: Instant) -> Answer {
        Answer {
            healthy: self.healthy,
            status: self.status,
            text: clean(&self.text),
            kind: self.kind,
            took: began.elapsed(),
            at_micros: boottime_micros(),
        }
    }
}

/// Asks once; ends within `timeout`.
pub async fn once(ask: &Ask, address: IpAddr, timeout: Duration) -> Answer {
    let began = Instant::now();
    let said = tokio::time::timeout(timeout, say(ask, SocketAddr::new(address, ask.port()), timeout)).await;
    said.unwrap_or_else(|_| Said::late(timeout)).timed(began)
}

/// Whether the port can be connected to; ends within `timeout`.
pub async fn open(address: SocketAddr, timeout: Duration) -> Answer {
    let began = Instant::now();
    let said = tokio::time::timeout(timeout, tcp(address)).await;
    said.unwrap_or_else(|_| Said::late(timeout)).timed(began)
}

async fn say(ask: &Ask, address: SocketAddr, timeout: Duration) -> Said {
    if let Ask::Tcp { .. } = ask {
        return tcp(address).await;
    }
    let stream = match TcpStream::connect(address).await {
        Ok(stream) => stream,
        Err(error) => return Said::connect(&error),
    };
    let said = match ask {
        Ask::Http { path, .. } => http::get(stream, address, path).await,
        Ask::Elasticsearch { .. } => http::elasticsearch(stream, address, timeout).await,
        Ask::Postgres { .. } => postgres::ask(stream).await,
        Ask::Redis { .. } => redis::ask(stream).await,
        Ask::Mysql { .. } => mysql::ask(stream).await,
        Ask::Tcp { .. } => Ok(Said::answered(true, "connected")),
    };
    said.unwrap_or_else(|error| Said::broken(plain(&error)))
}

async fn tcp(address: SocketAddr) -> Said {
    match TcpStream::connect(address).await {
        Ok(_) => Said::answered(true, "connected"),
        Err(error) => Said::connect(&error),
    }
}

/// The error's kind in words: its operating system number helps nobody.
fn plain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::ConnectionReset => "connection reset".to_owned(),
        io::ErrorKind::UnexpectedEof => "the connection ended before an answer".to_owned(),
        _ => error.to_string(),
    }
}

/// At most 200 characters without control characters: an answer ends up on terminals and in the ledger.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(KEEP).collect::<String>().trim().to_owned()
}

/// Microseconds of CLOCK_BOOTTIME, which goes on while the machine sleeps.
#[must_use]
pub fn boottime_micros() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(now.tv_nsec).unwrap_or(0);
    seconds * 1_000_000 + nanos / 1_000
}

#[cfg(test)]
mod tests;
