//! `x-muster:`, at the top and of a service.

use std::time::Duration;

use domain::stack::{Credentials, Durability, Idle, Quota, SeedRef, Settings, Ttl};

use super::limits;
use crate::problem::Code;
use crate::reader::{Fields, Keys, Reader, shown};
use crate::yaml::{Node, Value};

pub(super) const TOP: Keys =
    Keys { known: &["seed", "durability", "idle", "ttl", "quota", "credentials"], absent: &[] };
pub(super) const SERVICE: Keys = Keys {
    known: &["kind", "egress"],
    absent: &[(
        "seed",
        "one seed has the data of all stores: name it in `x-muster` of the file, and import it with what this service is to begin with",
    )],
};
pub(super) const IDLE: Keys = Keys { known: &["freeze", "stop"], absent: &[] };
pub(super) const QUOTA: Keys = Keys { known: &["cpu", "memory", "disk"], absent: &[] };

/// Shortest time until sleep: for those who try it out.
const SOON: Duration = Duration::from_millis(100);
/// Shortest and longest of all times here.
const TIMES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(365 * 86_400));

/// `x-muster` of the file.
pub(super) fn top(r: &mut Reader, node: &Node) -> Settings {
    let Some(fields) = r.fields(node, "x-muster", &TOP) else { return Settings::default() };
    Settings {
        seed: fields.get("seed").and_then(|node| seed(r, node, "seed in x-muster")).flatten(),
        durability: fields.get("durability").and_then(|node| durability(r, node)).unwrap_or_default(),
        idle: fields.get("idle").map(|node| idle(r, node)).unwrap_or_default(),
        ttl: fields
            .get("ttl")
            .and_then(|node| r.duration(node, "ttl in x-muster", TIMES.0, TIMES.1))
            .map(Ttl)
            .unwrap_or_default(),
        quota: fields.get("quota").map(|node| quota(r, node)).unwrap_or_default(),
        credentials: fields.get("credentials").and_then(|node| credentials(r, node)).unwrap_or_default(),
    }
}

/// Whether a service has a way out.
pub(super) fn egress(r: &mut Reader, fields: Fields<'_>, place: &str) -> bool {
    // Its keys are checked by whoever reads the kind.
    let node = fields.get("x-muster").and_then(|node| node.get("egress")).filter(|node| !node.is_null());
    node.and_then(|node| r.boolean(node, &format!("egress in x-muster of {place}"))).unwrap_or(false)
}

/// The inner none: `none`, begin empty.
fn seed(r: &mut Reader, node: &Node, place: &str) -> Option<Option<SeedRef>> {
    let text = r.text(node, place)?;
    if text == "none" {
        return Some(None);
    }
    let seed = SeedRef::parse(text);
    if seed.is_none() {
        r.value(node, format!("{place} is {}", shown(node)), "write NAME, NAME@VERSION or none");
    }
    seed.map(Some)
}

fn durability(r: &mut Reader, node: &Node) -> Option<Durability> {
    match r.text(node, "durability in x-muster")? {
        "dev" => Some(Durability::Dev),
        "strict" => Some(Durability::Strict),
        "throwaway" => Some(Durability::Throwaway),
        _ => wrong(r, node, "durability", "use dev, strict or throwaway"),
    }
}

fn credentials(r: &mut Reader, node: &Node) -> Option<Credentials> {
    match r.text(node, "credentials in x-muster")? {
        "random" => Some(Credentials::Random),
        "keep" => Some(Credentials::Keep),
        _ => wrong(r, node, "credentials", "use random or keep"),
    }
}

fn wrong<T>(r: &mut Reader, node: &Node, key: &str, hint: &str) -> Option<T> {
    r.value(node, format!("{key} in x-muster is {}", shown(node)), hint);
    None
}

/// `never`, or both times.
fn idle(r: &mut Reader, node: &Node) -> Idle {
    if is_never(node) {
        return Idle { freeze: None, stop: None };
    }
    let default = Idle::default();
    let Some(fields) = r.fields(node, "idle in x-muster", &IDLE) else { return default };
    let mut time = |key: &str, default: Option<Duration>| match fields.get(key) {
        None => default,
        Some(node) if is_never(node) => None,
        Some(node) => r.duration(node, &format!("{key} in idle"), SOON, TIMES.1).or(default),
    };
    let idle = Idle { freeze: time("freeze", default.freeze), stop: time("stop", default.stop) };
    // A time that was left out gives way to the one that was written.
    match (idle.freeze, idle.stop, fields.get("freeze"), fields.get("stop")) {
        (Some(freeze), Some(stop), Some(_), Some(node)) if stop < freeze => {
            let message = format!("stop in idle is {}, sooner than freeze", shown(node));
            r.problem(Code::StackConflict, node.pos, message, "frozen comes before stopped; or write freeze: never");
            idle
        }
        (Some(freeze), Some(stop), Some(_), None) if stop < freeze => Idle { stop: Some(freeze), ..idle },
        (Some(freeze), Some(stop), None, Some(_)) if stop < freeze => Idle { freeze: Some(stop), ..idle },
        _ => idle,
    }
}

fn is_never(node: &Node) -> bool {
    matches!(&node.value, Value::Scalar(scalar) if scalar.text == "never")
}

fn quota(r: &mut Reader, node: &Node) -> Quota {
    let Some(fields) = r.fields(node, "quota in x-muster", &QUOTA) else { return Quota::default() };
    Quota {
        milli_cpus: fields.get("cpu").and_then(|node| limits::cpus(r, node, "cpu in quota")),
        memory: fields.get("memory").and_then(|node| limits::memory(r, node, "memory in quota")),
        disk: fields.get("disk").and_then(|node| limits::bytes(r, node, "disk in quota")).filter(|bytes| *bytes > 0),
    }
}
