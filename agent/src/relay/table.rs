//! The table: what is stored, the rules of a change, and the file.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::protocol::{Code, Confirmation, Confirmed, MAX_NAME_BYTES, Refusal, RouteSpec};

/// Most routes, and most automatic ports, of one relay.
pub(super) const MAX_ROUTES: usize = 4096;
/// Most removed ports whose generation is remembered.
const MAX_REMOVED: usize = 4096;
const MAX_FILE_BYTES: u64 = 32 << 20;
const FORMAT: &str = "muster-relay-table";
const VERSION: u32 = 1;

/// A stored route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub route: RouteSpec,
    /// The boot in which the endpoint was known to be right.
    pub boot_id: String,
}

/// What a removed route leaves behind, so that an order older than the removal is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Removed {
    key: String,
    generation: u64,
    /// Position among all removals; the lowest is forgotten first.
    order: u64,
}

/// All that survives a restart.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Table {
    /// How often a relay was started on this table.
    pub starts: u64,
    pub entries: BTreeMap<u16, Entry>,
    /// Automatic ports by owner.
    pub reservations: BTreeMap<String, u16>,
    removed: BTreeMap<u16, Removed>,
}

/// What a `SetRoute` means for the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// Already stored and in force.
    None,
    /// A port that is not listened on yet.
    New,
    /// Another address to listen on.
    Rebind,
    /// The same listener, leading elsewhere.
    Switch,
}

impl Table {
    /// Says what setting `spec` would change, or why it may not be set.
    pub fn check_set(&self, spec: &RouteSpec, boot_id: &str) -> Result<Change, Refusal> {
        check_spec(spec)?;
        if let Some(owner) = self.reserved_by(spec.port)
            && owner != spec.key
        {
            return Err(taken(spec.port, owner));
        }
        let Some(entry) = self.entries.get(&spec.port) else {
            return self.check_new(spec);
        };
        let stored = &entry.route;
        if stored.key != spec.key {
            return Err(taken(spec.port, &stored.key));
        }
        if spec.generation < stored.generation {
            return Err(stale(spec.port, spec.generation, stored.generation));
        }
        if spec.generation == stored.generation {
            if stored != spec {
                return Err(Refusal::new(
                    Code::GenerationConflict,
                    format!(
                        "generation {} of port {} is stored with other content; send a higher generation",
                        spec.generation, spec.port
                    ),
                ));
            }
            if entry.boot_id == boot_id {
                return Ok(Change::None);
            }
        }
        Ok(if stored.bind == spec.bind {
            Change::Switch
        } else {
            Change::Rebind
        })
    }

    fn check_new(&self, spec: &RouteSpec) -> Result<Change, Refusal> {
        if let Some(removed) = self.removed.get(&spec.port)
            && removed.key == spec.key
            && spec.generation <= removed.generation
        {
            return Err(stale(spec.port, spec.generation, removed.generation));
        }
        if self.entries.len() >= MAX_ROUTES {
            return Err(full("routes"));
        }
        Ok(Change::New)
    }

    /// Stores `spec`; it was checked.
    pub fn set(&mut self, spec: RouteSpec, boot_id: &str) {
        self.removed.remove(&spec.port);
        let boot_id = boot_id.to_owned();
        self.entries.insert(spec.port, Entry { route: spec, boot_id });
    }

    /// Says whether there is something to remove, or why it may not be removed.
    pub fn check_remove(&self, port: u16, key: &str, generation: u64) -> Result<bool, Refusal> {
        let Some(entry) = self.entries.get(&port) else {
            return Ok(false);
        };
        if entry.route.key != key {
            return Err(taken(port, &entry.route.key));
        }
        if generation < entry.route.generation {
            return Err(stale(port, generation, entry.route.generation));
        }
        Ok(true)
    }

    /// Forgets a route but not its generation; it was checked.
    pub fn remove(&mut self, port: u16, key: &str, generation: u64) {
        self.entries.remove(&port);
        let order = self.removed.values().map(|gone| gone.order).max().map_or(0, |last| last + 1);
        let key = key.to_owned();
        self.removed.insert(port, Removed { key, generation, order });
        while self.removed.len() > MAX_REMOVED {
            let oldest = self.removed.iter().min_by_key(|(_, gone)| gone.order).map(|(port, _)| *port);
            if let Some(port) = oldest {
                self.removed.remove(&port);
            }
        }
    }

    /// Applies one confirmation; `Done` when the entry leads to the confirmed address afterwards.
    ///
    /// # Errors
    /// When the address cannot be led to.
    pub fn confirm(&mut self, confirmation: &Confirmation, boot_id: &str) -> Result<Confirmed, Refusal> {
        let Some(entry) = self.entries.get_mut(&confirmation.port) else {
            return Ok(Confirmed::Unknown);
        };
        if entry.route.key != confirmation.key {
            return Ok(Confirmed::Unknown);
        }
        if entry.route.generation != confirmation.generation {
            return Ok(Confirmed::OtherGeneration);
        }
        let confirmed = RouteSpec { endpoint: Some(confirmation.endpoint), ..entry.route.clone() };
        check_spec(&confirmed)?;
        entry.route = confirmed;
        boot_id.clone_into(&mut entry.boot_id);
        Ok(Confirmed::Done)
    }

    /// Who has `port` as its automatic one.
    pub fn reserved_by(&self, port: u16) -> Option<&str> {
        self.reservations.iter().find(|(_, reserved)| **reserved == port).map(|(key, _)| key.as_str())
    }
}

/// Checks an owner, release or boot id: not empty, not long, no control characters.
pub(super) fn check_name(what: &str, name: &str) -> Result<(), Refusal> {
    if name.is_empty() || name.len() > MAX_NAME_BYTES || name.chars().any(char::is_control) {
        return Err(Refusal::new(
            Code::Invalid,
            format!("{what} must be 1 to {MAX_NAME_BYTES} bytes without control characters"),
        ));
    }
    Ok(())
}

fn check_spec(spec: &RouteSpec) -> Result<(), Refusal> {
    check_name("key", &spec.key)?;
    check_name("release", &spec.release)?;
    let invalid = |text: &str| Err(Refusal::new(Code::Invalid, text));
    if spec.port == 0 {
        return invalid("port must be at least 1");
    }
    match spec.endpoint {
        None if !spec.held => invalid("a route that is not held needs an endpoint"),
        Some(endpoint) if endpoint.port() == 0 || endpoint.ip().is_unspecified() => {
            invalid("endpoint must be one address with a port")
        }
        Some(endpoint) if leads_to_itself(spec, endpoint) => {
            invalid("endpoint is the relay's own port; name the address of the container")
        }
        _ => Ok(()),
    }
}

/// A route to itself would multiply each connection until descriptors run out.
fn leads_to_itself(spec: &RouteSpec, endpoint: SocketAddr) -> bool {
    let own = endpoint.ip() == spec.bind || (spec.bind.is_unspecified() && endpoint.ip().is_loopback());
    endpoint.port() == spec.port && own
}

fn taken(port: u16, owner: &str) -> Refusal {
    Refusal::new(
        Code::PortTaken,
        format!("port {port} belongs to `{owner}`; choose another port or remove that one first"),
    )
}

fn stale(port: u16, given: u64, stored: u64) -> Refusal {
    Refusal::new(
        Code::StaleGeneration,
        format!("generation {given} of port {port} is older than the stored {stored}"),
    )
}

pub(super) fn full(what: &str) -> Refusal {
    Refusal::new(Code::Limit, format!("the relay has {MAX_ROUTES} {what}; remove some"))
}

#[derive(Serialize, Deserialize)]
struct Header {
    format: String,
    version: u32,
    sha256: String,
}

/// The table together with its file.
#[derive(Debug)]
pub(super) struct Store {
    path: PathBuf,
    pub table: Table,
    /// Why the stored table could not be used at this start, and where it lies now.
    pub lost: Option<String>,
}

impl Store {
    /// Reads the table of `dir`; one that cannot be understood is moved aside and reported in `lost`.
    ///
    /// # Errors
    /// When the file can neither be read nor moved.
    pub fn open(dir: &Path) -> io::Result<Self> {
        let path = dir.join("table.json");
        let (table, lost) = match read(&path) {
            Ok(table) => (table, None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => (Table::default(), None),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                let aside = free_name(dir)?;
                fs::rename(&path, &aside)?;
                (Table::default(), Some(format!("{error}; it was moved to {}", aside.display())))
            }
            Err(error) => return Err(error),
        };
        Ok(Self { path, table, lost })
    }

    /// Stores `next` durably, then makes it the table.
    ///
    /// # Errors
    /// When it could not be made durable; the table in memory is unchanged then.
    pub async fn replace(&mut self, next: Table) -> Result<(), Refusal> {
        let path = self.path.clone();
        let written = tokio::task::spawn_blocking(move || write(&path, &next).map(|()| next)).await;
        let failed = |error: &dyn std::fmt::Display| {
            Refusal::new(Code::TableWrite, format!("the relay's table could not be stored: {error}; nothing was changed"))
        };
        match written {
            Ok(Ok(table)) => {
                self.table = table;
                Ok(())
            }
            Ok(Err(error)) => Err(failed(&error)),
            Err(error) => Err(failed(&error)),
        }
    }
}

fn corrupt(text: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text.into())
}

fn read(path: &Path) -> io::Result<Table> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > MAX_FILE_BYTES {
        return Err(corrupt("the table is too large"));
    }
    let end = bytes.iter().position(|byte| *byte == b'\n').ok_or_else(|| corrupt("the table has no header"))?;
    let (head, body) = (&bytes[..end], &bytes[end + 1..]);
    let header: Header =
        serde_json::from_slice(head).map_err(|error| corrupt(format!("the table's header is not readable: {error}")))?;
    if header.format != FORMAT || header.version != VERSION {
        return Err(corrupt(format!("the table has format {} {}, not {FORMAT} {VERSION}", header.format, header.version)));
    }
    if header.sha256 != checksum(body) {
        return Err(corrupt("the table's checksum does not fit"));
    }
    serde_json::from_slice(body).map_err(|error| corrupt(format!("the table is not readable: {error}")))
}

/// Writes beside, syncs, renames, syncs the folder: after a crash the file is the old or the new one.
fn write(path: &Path, table: &Table) -> io::Result<()> {
    let body = serde_json::to_vec(table)?;
    let header = Header {
        format: FORMAT.to_owned(),
        version: VERSION,
        sha256: checksum(&body),
    };
    let mut bytes = serde_json::to_vec(&header)?;
    bytes.push(b'\n');
    bytes.extend_from_slice(&body);
    let beside = path.with_extension("json.new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    drop(file);
    fs::rename(&beside, path)?;
    match path.parent() {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}

fn checksum(body: &[u8]) -> String {
    hex::encode(Sha256::digest(body))
}

fn free_name(dir: &Path) -> io::Result<PathBuf> {
    (1..1000)
        .map(|number| dir.join(format!("table.json.unreadable-{number}")))
        .find(|path| !path.exists())
        .ok_or_else(|| corrupt("too many unreadable tables were moved aside"))
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
