//! The table: what is stored, and the rules of a change.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::protocol::{Code, Confirmation, Confirmed, MAX_NAME_BYTES, Refusal, RouteSpec};

/// Most routes, and most automatic ports, of one relay.
pub(super) const MAX_ROUTES: usize = 4096;
/// Most removed ports whose generation is remembered.
const MAX_REMOVED: usize = 4096;

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
        Ok(if stored.bind == spec.bind { Change::Switch } else { Change::Rebind })
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
    Refusal::new(Code::StaleGeneration, format!("generation {given} of port {port} is older than the stored {stored}"))
}

pub(super) fn full(what: &str) -> Refusal {
    Refusal::new(Code::Limit, format!("the relay has {MAX_ROUTES} {what}; remove some"))
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
