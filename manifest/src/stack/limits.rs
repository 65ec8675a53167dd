//! Memory and CPU: `mem_limit`, `cpus`, `deploy`.

use crate::bytes as size;
use crate::duration::scaled;
use crate::problem::Code;
use crate::reader::{Fields, Keys, Reader, shown};
use crate::yaml::{Node, Value};

/// What the engine accepts as the least memory of a container, in bytes.
const MIN_MEMORY: u64 = 6 << 20;
/// Most bytes: 1 PiB.
const MAX_BYTES: u64 = 1 << 50;
/// Most thousandths of a CPU.
const MAX_MILLI_CPUS: u64 = 1_024_000;

const DEPLOY: Keys = Keys {
    known: &[
        "resources",
        "replicas",
        "restart_policy",
        "labels",
        "update_config",
        "rollback_config",
        "endpoint_mode",
        "mode",
        "placement",
    ],
    absent: &[],
};
const RESOURCES: Keys = Keys { known: &["limits", "reservations"], absent: &[] };
const LIMITS: Keys = Keys { known: &["cpus", "memory", "pids"], absent: &[] };

/// Limits of a service.
#[derive(Default)]
pub(super) struct Limits {
    pub(super) memory: Option<u64>,
    pub(super) milli_cpus: Option<u64>,
    pub(super) pids: Option<u32>,
}

/// The short keys and those of `deploy`, which must not contradict each other.
pub(super) fn read(r: &mut Reader, fields: Fields<'_>, place: &str) -> Limits {
    let deployed = fields.get("deploy").and_then(|node| deploy(r, node, place)).unwrap_or_default();
    let memory = fields.get("mem_limit").and_then(|node| memory(r, node, &format!("mem_limit of {place}")));
    let cpus = fields.get("cpus").and_then(|node| cpus(r, node, &format!("cpus of {place}")));
    let pids = fields.get("pids_limit").and_then(|node| pids(r, node, &format!("pids_limit of {place}")));
    let both = [
        ("mem_limit", memory, deployed.memory),
        ("cpus", cpus, deployed.milli_cpus),
        ("pids_limit", pids.map(u64::from), deployed.pids.map(u64::from)),
    ];
    for (key, short, long) in both {
        if let (Some(short), Some(long), Some(node)) = (short, long, fields.get(key))
            && short != long
        {
            let message = format!("{key} of {place} is {}, but deploy.resources.limits says otherwise", shown(node));
            r.problem(Code::StackConflict, node.pos, message, "write one of them");
        }
    }
    Limits {
        memory: memory.or(deployed.memory),
        milli_cpus: cpus.or(deployed.milli_cpus),
        pids: pids.or(deployed.pids),
    }
}

/// One container runs per service; none is not what a service is for.
pub(super) fn replicas(r: &mut Reader, node: &Node, place: &str) {
    match r.number(node, place, 0, 10_000) {
        Some(0) => r.unsupported(node.pos, &format!("0 for {place}"), "give the service a profile"),
        Some(1) | None => {}
        Some(_) => r.notice(node.pos, format!("{place} is {}; one container runs per service", shown(node))),
    }
}

fn deploy(r: &mut Reader, node: &Node, place: &str) -> Option<Limits> {
    let place = format!("deploy of {place}");
    let fields = r.fields(node, &place, &DEPLOY)?;
    for key in ["restart_policy", "labels", "update_config", "rollback_config", "endpoint_mode", "mode", "placement"] {
        if let Some(entry) = fields.entry(key) {
            r.notice(entry.pos, format!("{key:?} in {place} is not used"));
        }
    }
    if let Some(node) = fields.get("replicas") {
        replicas(r, node, &format!("replicas in {place}"));
    }
    let resources = r.fields(fields.get("resources")?, &format!("resources in {place}"), &RESOURCES)?;
    if let Some(entry) = resources.entry("reservations") {
        r.notice(entry.pos, format!("reservations in {place} are not used: only limits are set"));
    }
    let limits = r.fields(resources.get("limits")?, &format!("limits in {place}"), &LIMITS)?;
    Some(Limits {
        memory: limits.get("memory").and_then(|node| memory(r, node, &format!("memory in {place}"))),
        milli_cpus: limits.get("cpus").and_then(|node| cpus(r, node, &format!("cpus in {place}"))),
        pids: limits.get("pids").and_then(|node| pids(r, node, &format!("pids in {place}"))),
    })
}

/// 0 and -1 mean no limit, as in Compose.
fn pids(r: &mut Reader, node: &Node, place: &str) -> Option<u32> {
    if matches!(&node.value, Value::Scalar(scalar) if scalar.text == "-1") {
        return None;
    }
    let number = r.number(node, place, 0, 4_194_304)?;
    u32::try_from(number).ok().filter(|number| *number > 0)
}

/// A size in bytes.
pub(super) fn bytes(r: &mut Reader, node: &Node, place: &str) -> Option<u64> {
    let Some(bytes) = size::parse(r.text(node, place)?) else {
        r.value(node, format!("{place} is {}", shown(node)), "write a size, for example 512m or 2g");
        return None;
    };
    if bytes <= MAX_BYTES {
        return Some(bytes);
    }
    r.problem(Code::StackRange, node.pos, format!("{place} is {}", shown(node)), "it must be at most 1024t");
    None
}

/// 0 means no limit, as in Compose.
pub(super) fn memory(r: &mut Reader, node: &Node, place: &str) -> Option<u64> {
    let bytes = bytes(r, node, place).filter(|bytes| *bytes > 0)?;
    if bytes >= MIN_MEMORY {
        return Some(bytes);
    }
    r.problem(Code::StackRange, node.pos, format!("{place} is {}", shown(node)), "it must be at least 6m");
    None
}

/// 0 means no limit, as in Compose.
pub(super) fn cpus(r: &mut Reader, node: &Node, place: &str) -> Option<u64> {
    let Some(milli) = scaled(r.text(node, place)?, 1000) else {
        r.value(node, format!("{place} is {}", shown(node)), "write a number of CPUs, for example 0.5 or 2");
        return None;
    };
    if milli > MAX_MILLI_CPUS {
        r.problem(Code::StackRange, node.pos, format!("{place} is {}", shown(node)), "it must be at most 1024");
        return None;
    }
    (milli > 0).then_some(milli)
}
