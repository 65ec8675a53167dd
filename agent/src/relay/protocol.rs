//! What the agent and the relay say to each other: one JSON object per line.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::stats::StatsView;

/// Largest request line in bytes; a longer one ends the connection.
pub const MAX_REQUEST_BYTES: usize = 1 << 20;
/// Largest answer line in bytes that a client accepts.
pub const MAX_ANSWER_BYTES: usize = 32 << 20;
/// Longest key, release or boot id in bytes.
pub const MAX_NAME_BYTES: usize = 512;
/// Longest time a drain may wait: one day, in milliseconds.
pub const MAX_DRAIN_MS: u64 = 86_400_000;
/// Longest time a question for wakes may wait, in milliseconds.
pub const MAX_WAKES_MS: u64 = 60_000;
/// Peers of a port that are told.
pub const MAX_PEERS: usize = 4;

/// How a route moves traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Bytes, per connection.
    Tcp,
    /// HTTP/1.1 requests: each goes to where the route points when its head arrives.
    Http,
}

/// An inclusive range of ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRange {
    /// First port, at least 1.
    pub first: u16,
    /// Last port, not below `first`.
    pub last: u16,
}

impl PortRange {
    /// Where automatic ports come from when nothing else is configured.
    pub const DEFAULT: Self = Self { first: 20_000, last: 29_999 };

    /// Whether the range has at least one usable port.
    #[must_use]
    pub fn is_valid(self) -> bool {
        self.first > 0 && self.first <= self.last
    }

    /// Whether `port` lies in the range.
    #[must_use]
    pub fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }
}

impl std::str::FromStr for PortRange {
    type Err = String;

    /// Reads `FIRST-LAST`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || format!("port range `{text}` is not FIRST-LAST, for example 20000-29999");
        let (first, last) = text.split_once('-').ok_or_else(bad)?;
        let range =
            Self { first: first.trim().parse().map_err(|_| bad())?, last: last.trim().parse().map_err(|_| bad())? };
        if range.is_valid() { Ok(range) } else { Err(bad()) }
    }
}

/// Where a published port leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteSpec {
    /// The published port, at least 1.
    pub port: u16,
    /// The address the relay listens on.
    #[serde(default = "loopback")]
    pub bind: IpAddr,
    /// How traffic is moved.
    pub mode: Mode,
    /// Who owns the port, for example `target:bot/production:web` or `env:<id>:postgres`.
    pub key: String,
    /// The release behind the endpoint; counters are kept by it. Opaque.
    pub release: String,
    /// Orders changes of one key: a lower one than the stored one is refused.
    pub generation: u64,
    /// Where traffic goes; may be absent only while `held`.
    pub endpoint: Option<SocketAddr>,
    /// Accept and hold new connections and requests instead of forwarding them.
    #[serde(default)]
    pub held: bool,
}

fn loopback() -> IpAddr {
    IpAddr::from([127, 0, 0, 1])
}

/// One entry the agent vouches for in this boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirmation {
    /// The published port.
    pub port: u16,
    /// Its owner.
    pub key: String,
    /// The generation the agent knows.
    pub generation: u64,
    /// Where that generation is reached now; replaces the stored address.
    pub endpoint: SocketAddr,
}

/// A request of the agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "do")]
pub enum Request {
    /// Stores and then switches one route.
    SetRoute(RouteSpec),
    /// Forgets a route, closes its listener and every connection through it.
    RemoveRoute {
        /// The published port.
        port: u16,
        /// Its owner.
        key: String,
        /// Not below the stored generation.
        generation: u64,
    },
    /// Gives `key` an automatic port; the same key always gets the same one back.
    AllocatePort {
        /// Who asks.
        key: String,
        /// The address the port will listen on.
        #[serde(default = "loopback")]
        bind: IpAddr,
        /// Where to look; the relay's configured range when absent.
        #[serde(default)]
        range: Option<PortRange>,
    },
    /// Gives an automatic port back.
    ReleasePort {
        /// The port.
        port: u16,
        /// Its owner.
        key: String,
    },
    /// Vouches for entries in this boot.
    Confirm {
        /// The kernel's boot id as the agent reads it.
        boot_id: String,
        /// What the agent checked.
        entries: Vec<Confirmation>,
    },
    /// Waits until nothing of an old release is open, at most `deadline_ms`, then closes what is left.
    Drain {
        /// The published port.
        port: u16,
        /// The old release.
        release: String,
        /// Milliseconds from now, at most [`MAX_DRAIN_MS`].
        deadline_ms: u64,
    },
    /// Waits until somebody wants something of a held route, and answers which ones, or none after `wait_ms`.
    Wakes {
        /// The number of the answer before; what was asked since is told. 0: everything that is held and was asked for.
        seen: u64,
        /// Milliseconds from now, at most [`MAX_WAKES_MS`].
        wait_ms: u64,
    },
    /// Closes what is held on a port: what it waits for will not come.
    RefuseHeld {
        /// The published port.
        port: u16,
        /// Its owner.
        key: String,
    },
    /// Asks for all entries.
    Table,
    /// Asks for all counters.
    Stats,
    /// Asks whether the relay answers.
    Ping,
}

/// What became of one confirmation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Confirmed {
    /// The entry leads to the given address now.
    Done,
    /// No such port, or another owner's.
    Unknown,
    /// The entry has another generation.
    OtherGeneration,
}

/// One entry as the relay sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryView {
    /// What was set.
    pub route: RouteSpec,
    /// Whether connections are held until the agent confirms, because the machine was rebooted since.
    pub unconfirmed: bool,
    /// The boot in which the entry was set or confirmed last.
    pub boot_id: String,
    /// Why the port is not listened on, if so; the relay keeps trying.
    pub listen_error: Option<String>,
    /// Connections open to the port now, upgraded ones included.
    pub connections_open: u64,
    /// Connections or requests held now.
    pub held_now: u64,
    /// Last byte or request seen, in milliseconds since 1970; 0 when none.
    pub last_activity_ms: u64,
    /// Some of those who are connected, at most [`MAX_PEERS`].
    #[serde(default)]
    pub peers: Vec<SocketAddr>,
}

/// What somebody wants.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WakesView {
    /// To be given as `seen` with the next question; it rises also over restarts of the relay.
    pub number: u64,
    /// Keys of the held routes that were asked for.
    pub keys: Vec<String>,
}

/// An automatic port and its owner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReservationView {
    /// The port.
    pub port: u16,
    /// Its owner.
    pub key: String,
}

/// All the relay knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableView {
    /// All routes by port.
    pub entries: Vec<EntryView>,
    /// All automatic ports by port.
    pub reservations: Vec<ReservationView>,
    /// The relay's process id.
    pub pid: u32,
    /// The boot it runs in.
    pub boot_id: String,
    /// When it started, in milliseconds since 1970.
    pub started_at_ms: u64,
    /// How often it was started on this table, this start included.
    pub starts: u64,
    /// Set when the stored table could not be read at this start: why, and where it lies now.
    pub table_lost: Option<String>,
}

/// How a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drained {
    /// Connections and requests of the release open when the drain began.
    pub open: u64,
    /// How many of them had to be closed at the deadline.
    pub closed: u64,
}

/// The relay's answer to one request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "is", content = "with")]
pub enum Answer {
    /// Stored and in force.
    Done,
    /// The automatic port.
    Port(u16),
    /// One result per confirmation, in the order of the request.
    Confirmed(Vec<Confirmed>),
    /// How the drain ended.
    Drained(Drained),
    /// What is wanted of held routes.
    Wakes(WakesView),
    /// All entries.
    Table(TableView),
    /// All counters.
    Stats(StatsView),
}

/// Why a request was refused; stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Code {
    /// A newer generation is stored.
    #[serde(rename = "E_STALE_GENERATION")]
    StaleGeneration,
    /// The same generation is stored with other content.
    #[serde(rename = "E_GENERATION_CONFLICT")]
    GenerationConflict,
    /// The port belongs to another key or another process.
    #[serde(rename = "E_PORT_TAKEN")]
    PortTaken,
    /// The port cannot be listened on for another reason.
    #[serde(rename = "E_LISTEN")]
    Listen,
    /// Every port of the range is taken.
    #[serde(rename = "E_NO_FREE_PORT")]
    NoFreePort,
    /// No such route.
    #[serde(rename = "E_ROUTE_UNKNOWN")]
    RouteUnknown,
    /// New traffic still goes to the release that should be drained.
    #[serde(rename = "E_RELEASE_CURRENT")]
    ReleaseCurrent,
    /// The agent speaks of another boot.
    #[serde(rename = "E_BOOT_ID")]
    BootId,
    /// A field is outside its limits.
    #[serde(rename = "E_INVALID")]
    Invalid,
    /// The relay has as many routes as it may.
    #[serde(rename = "E_LIMIT")]
    Limit,
    /// The table could not be stored; nothing was changed.
    #[serde(rename = "E_TABLE_WRITE")]
    TableWrite,
    /// The relay is ending.
    #[serde(rename = "E_STOPPING")]
    Stopping,
}

impl Code {
    /// The code as users see it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::StaleGeneration => "E_STALE_GENERATION",
            Self::GenerationConflict => "E_GENERATION_CONFLICT",
            Self::PortTaken => "E_PORT_TAKEN",
            Self::Listen => "E_LISTEN",
            Self::NoFreePort => "E_NO_FREE_PORT",
            Self::RouteUnknown => "E_ROUTE_UNKNOWN",
            Self::ReleaseCurrent => "E_RELEASE_CURRENT",
            Self::BootId => "E_BOOT_ID",
            Self::Invalid => "E_INVALID",
            Self::Limit => "E_LIMIT",
            Self::TableWrite => "E_TABLE_WRITE",
            Self::Stopping => "E_STOPPING",
        }
    }
}

/// A refused request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{}: {message}", .code.as_str())]
pub struct Refusal {
    /// The stable reason.
    pub code: Code,
    /// What, where and what to do.
    pub message: String,
}

impl Refusal {
    /// A refusal with its reason and text.
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// One line from the relay.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// The request was done.
    Ok(Answer),
    /// The request was refused and changed nothing.
    Refused(Refusal),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_range_reads_first_and_last_and_refuses_the_rest() {
        assert_eq!("20000-29999".parse::<PortRange>(), Ok(PortRange::DEFAULT));
        for bad in ["", "1", "0-5", "9-8", "1-70000", "a-b", "1-2-3"] {
            assert!(bad.parse::<PortRange>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_code_is_written_as_users_see_it() {
        for code in [Code::StaleGeneration, Code::PortTaken, Code::NoFreePort, Code::Stopping] {
            let text = serde_json::to_string(&code).expect("a unit variant");
            assert_eq!(text, format!("\"{}\"", code.as_str()));
        }
    }

    #[test]
    fn a_route_without_bind_listens_on_loopback() {
        let text = r#"{"do":"set_route","port":1,"mode":"tcp","key":"k","release":"r","generation":1,"endpoint":"127.0.0.1:9"}"#;
        let Ok(Request::SetRoute(route)) = serde_json::from_str(text) else {
            panic!("a valid request was refused");
        };
        assert_eq!(route.bind, loopback());
        assert!(!route.held);
    }
}
