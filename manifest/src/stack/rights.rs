//! What a service's processes may do: capabilities, `ulimits`, `group_add`, `security_opt`, `extra_hosts`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;

use domain::stack::Ulimit;

use crate::problem::Code;
use crate::reader::{Fields, Keys, Reader, cut, shown};
use crate::yaml::{Node, Value};

/// Most items of each list.
const MAX_ITEMS: usize = 100;

/// Capabilities that a container may have: the engine's usual ones, and one that only holds memory.
const ALLOWED: [&str; 15] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

const ULIMITS: [&str; 15] = [
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];
const ULIMIT: Keys = Keys { known: &["soft", "hard"], absent: &[] };

/// Items of a list that is not too long.
fn items<'n>(r: &mut Reader, node: &'n Node, place: &str) -> &'n [Rc<Node>] {
    let items = r.list(node, place).unwrap_or_default();
    if items.len() > MAX_ITEMS {
        r.problem(Code::StackRange, node.pos, format!("{place} has more than {MAX_ITEMS} items"), "write fewer");
        return &[];
    }
    items
}

fn capability(r: &mut Reader, node: &Node, place: &str) -> Option<String> {
    let upper = r.text(node, place)?.to_ascii_uppercase();
    let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
    let good = (2..=40).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
    if !good {
        r.value(node, format!("{place} has {}", shown(node)), "write the name of a capability, for example NET_RAW");
        return None;
    }
    Some(name.to_owned())
}

/// `cap_add`: what a container has anyway, so that it can be asked back after `cap_drop: [ALL]`.
pub(super) fn cap_add(r: &mut Reader, fields: Fields<'_>, place: &str) -> Vec<String> {
    let Some(node) = fields.get("cap_add") else { return Vec::new() };
    let place = format!("cap_add of {place}");
    let mut names = Vec::new();
    for item in items(r, node, &place) {
        let Some(name) = capability(r, item, &place) else { continue };
        if ALLOWED.contains(&name.as_str()) {
            names.push(name);
        } else {
            let message =
                format!("{} in {place} is refused: it would give the container power over the host", shown(item));
            r.problem(Code::StackRefused, item.pos, message, format!("remove it; allowed: {}", ALLOWED.join(", ")));
        }
    }
    names
}

/// `cap_drop`.
pub(super) fn cap_drop(r: &mut Reader, fields: Fields<'_>, place: &str) -> Vec<String> {
    let Some(node) = fields.get("cap_drop") else { return Vec::new() };
    let place = format!("cap_drop of {place}");
    items(r, node, &place).iter().filter_map(|item| capability(r, item, &place)).collect()
}

/// `security_opt`: only what takes rights away.
pub(super) fn no_new_privileges(r: &mut Reader, fields: Fields<'_>, place: &str) -> bool {
    let Some(node) = fields.get("security_opt") else { return false };
    let place = format!("security_opt of {place}");
    let mut set = false;
    for item in items(r, node, &place) {
        match r.text(item, &place) {
            Some("no-new-privileges" | "no-new-privileges:true" | "no-new-privileges=true") => set = true,
            Some("no-new-privileges:false" | "no-new-privileges=false") | None => {}
            Some(_) => {
                let message =
                    format!("{} in {place} is refused: it would weaken the isolation from the host", shown(item));
                r.problem(Code::StackRefused, item.pos, message, "remove it; no-new-privileges:true is fine");
            }
        }
    }
    set
}

/// `ulimits`.
pub(super) fn ulimits(r: &mut Reader, fields: Fields<'_>, place: &str) -> BTreeMap<String, Ulimit> {
    let Some(node) = fields.get("ulimits") else { return BTreeMap::new() };
    let place = format!("ulimits of {place}");
    let mut found = BTreeMap::new();
    for entry in r.entries(node, &place).unwrap_or_default() {
        let name = entry.key.as_str();
        if !ULIMITS.contains(&name) {
            let hint = match crate::distance::nearest(name, ULIMITS) {
                Some(meant) => format!("did you mean {meant:?}?"),
                None => format!("known: {}", ULIMITS.join(", ")),
            };
            r.problem(Code::StackUnknownKey, entry.pos, format!("unknown limit {:?} in {place}", cut(name)), hint);
            continue;
        }
        if let Some(limit) = ulimit(r, &entry.value, &format!("{name} in {place}")) {
            found.insert(name.to_owned(), limit);
        }
    }
    found
}

fn ulimit(r: &mut Reader, node: &Node, place: &str) -> Option<Ulimit> {
    let limit = if let Value::Map(_) = &node.value {
        let fields = r.fields(node, place, &ULIMIT)?;
        let mut side = |key: &str| match fields.get(key) {
            Some(node) => amount(r, node, &format!("{key} of {place}")),
            None => {
                r.missing(node.pos, key, place, "write soft and hard, or one number for both");
                None
            }
        };
        let (soft, hard) = (side("soft"), side("hard"));
        Ulimit { soft: soft?, hard: hard? }
    } else {
        let both = amount(r, node, place)?;
        Ulimit { soft: both, hard: both }
    };
    if limit.hard >= 0 && (limit.soft < 0 || limit.soft > limit.hard) {
        r.problem(
            Code::StackConflict,
            node.pos,
            format!("soft of {place} is above hard"),
            "write hard at least as high",
        );
        return None;
    }
    Some(limit)
}

/// -1 for no limit.
fn amount(r: &mut Reader, node: &Node, place: &str) -> Option<i64> {
    let number = r.text(node, place)?.parse::<i64>().ok().filter(|number| *number >= -1);
    if number.is_none() {
        r.value(node, format!("{place} is {}", shown(node)), "write a whole number, or -1 for no limit");
    }
    number
}

/// `group_add`.
pub(super) fn group_add(r: &mut Reader, fields: Fields<'_>, place: &str) -> Vec<String> {
    let Some(node) = fields.get("group_add") else { return Vec::new() };
    let place = format!("group_add of {place}");
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    let mut groups = Vec::new();
    for item in items(r, node, &place) {
        let Some(name) = r.text(item, &place) else { continue };
        if (1..=64).contains(&name.len()) && name.bytes().all(inner) && !name.starts_with('-') {
            groups.push(name.to_owned());
        } else {
            r.value(item, format!("{place} has {}", shown(item)), "write groups as names or numbers");
        }
    }
    groups
}

/// `extra_hosts`: a list of `NAME:ADDRESS` or `NAME=ADDRESS`, or a map.
pub(super) fn extra_hosts(r: &mut Reader, fields: Fields<'_>, place: &str) -> Vec<(String, String)> {
    let Some(node) = fields.get("extra_hosts") else { return Vec::new() };
    let place = format!("extra_hosts of {place}");
    let mut hosts = Vec::new();
    if let Value::Map(entries) = &node.value {
        for entry in entries.iter().take(MAX_ITEMS) {
            let addresses = match &entry.value.value {
                Value::List(items) => items.as_slice(),
                _ => std::slice::from_ref(&entry.value),
            };
            for item in addresses {
                let Some(address) = r.text(item, &place) else { continue };
                hosts.extend(host(r, item, &place, &entry.key, address));
            }
        }
        return hosts;
    }
    for item in items(r, node, &place) {
        let Some(text) = r.text(item, &place) else { continue };
        match text.split_once('=').or_else(|| text.split_once(':')) {
            Some((name, address)) => hosts.extend(host(r, item, &place, name, address)),
            None => r.value(item, format!("{place} has {}", shown(item)), "write NAME:ADDRESS"),
        }
    }
    hosts
}

fn host(r: &mut Reader, node: &Node, place: &str, name: &str, address: &str) -> Option<(String, String)> {
    if address == "host-gateway" {
        let message = format!("{place}: {} is left out: an environment does not reach its host", shown(node));
        r.notice(node.pos, message);
        return None;
    }
    let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
    match bare.parse::<IpAddr>() {
        Ok(address) if is_host(name) => Some((name.to_owned(), address.to_string())),
        _ => {
            r.value(node, format!("{place} has {}", shown(node)), "write NAME:ADDRESS with an IP address");
            None
        }
    }
}

/// `sysctls`: only those that a container has of its own.
pub(super) fn sysctls(r: &mut Reader, fields: Fields<'_>, place: &str) -> BTreeMap<String, String> {
    let Some(node) = fields.get("sysctls") else { return BTreeMap::new() };
    let place = format!("sysctls of {place}");
    let mut found = BTreeMap::new();
    let mut one = |r: &mut Reader, at: &Node, name: &str, value: &str| {
        if !is_own_sysctl(name) {
            let message =
                format!("{:?} in {place} is refused: it would change the settings of the whole host", cut(name));
            r.problem(
                Code::StackRefused,
                at.pos,
                message,
                "remove it; net.*, kernel.msg*, kernel.sem, kernel.shm* and fs.mqueue.* are fine",
            );
        } else if value.len() > 200 || value.chars().any(char::is_control) {
            r.value(at, format!("{:?} in {place} is no setting", cut(name)), "write NAME: VALUE");
        } else {
            found.insert(name.to_owned(), value.to_owned());
        }
    };
    match &node.value {
        Value::Map(entries) => {
            for entry in entries.iter().take(MAX_ITEMS) {
                if let Some(value) = r.text(&entry.value, &place).map(str::to_owned) {
                    one(r, &entry.value, &entry.key, &value);
                }
            }
        }
        _ => {
            for item in items(r, node, &place) {
                let Some(text) = r.text(item, &place) else { continue };
                match text.split_once('=') {
                    Some((name, value)) => one(r, item, name, value),
                    None => r.value(item, format!("{place} has {}", shown(item)), "write NAME=VALUE"),
                }
            }
        }
    }
    found
}

/// Settings that the kernel keeps apart for each container.
fn is_own_sysctl(name: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    let own = ["net.", "fs.mqueue.", "kernel.msg", "kernel.shm"].iter().any(|start| name.starts_with(start));
    name.len() <= 100 && name.bytes().all(inner) && (own || name == "kernel.sem")
}

/// A name by which a host is found.
pub(super) fn is_host(name: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    (1..=253).contains(&name.len()) && name.bytes().all(inner) && name.as_bytes()[0].is_ascii_alphanumeric()
}
