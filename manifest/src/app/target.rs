//! `targets:` of `muster.yaml`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use domain::app::{Driver, Expose, Gate, Mode, Process, TargetSpec};
use domain::name::Name;
use domain::policy::Policy;

use super::process::selector;
use super::{required, rollout};
use crate::distance::nearest;
use crate::problem::Code;
use crate::reader::{Keys, Reader, cut, shown};
use crate::yaml::{Entry, Node, Value};

pub(super) const KEYS: Keys = Keys {
    known: &["members", "driver", "expose", "rollout", "gates"],
    absent: &[
        ("hooks", "run migrations before the rollout, in your pipeline"),
        ("secrets", "give settings with `muster config set`"),
        ("config", "give settings with `muster config set`"),
        ("notify", "watch `muster events --follow`"),
    ],
};

pub(super) fn read(
    r: &mut Reader,
    node: &Node,
    place: &str,
    processes: &BTreeMap<Name, Process>,
) -> Option<TargetSpec> {
    let fields = r.fields(node, place, &KEYS)?;
    let members = required(r, fields, "members", place, "write a selector: members: app=bot,env=production");
    let members = members.and_then(|node| selector(r, node, &format!("members of {place}")));
    let driver = fields.get("driver").map(|node| driver(r, node, place));
    let expose = fields.get("expose").map(|node| exposes(r, node, place, processes)).unwrap_or_default();
    let policy = fields.get("rollout").map(|node| rollout::read(r, node));
    let gates = fields.get("gates").map(|node| gates(r, node, place));
    Some(TargetSpec {
        members: members?,
        driver: driver.unwrap_or(Some(Driver::Container))?,
        expose,
        policy: policy.unwrap_or_else(|| Some(Policy::default()))?,
        gates: gates.unwrap_or_else(|| vec![Gate::Health]),
    })
}

fn driver(r: &mut Reader, node: &Node, place: &str) -> Option<Driver> {
    match r.text(node, &format!("driver of {place}"))? {
        "container" => Some(Driver::Container),
        text @ ("archive" | "static" | "ansible" | "ecs" | "bucket") => {
            r.unsupported(node.pos, &format!("the driver {text:?}"), "use container");
            None
        }
        _ => {
            r.value(node, format!("driver of {place} is {}", shown(node)), "use container");
            None
        }
    }
}

/// One map, or a list of them where processes differ in mode or address.
fn exposes(r: &mut Reader, node: &Node, place: &str, processes: &BTreeMap<Name, Process>) -> Vec<Expose> {
    let place = format!("expose of {place}");
    let mut all: Vec<Expose> = Vec::new();
    match &node.value {
        Value::List(items) => {
            for item in items {
                expose(r, item, &place, processes, &mut all);
            }
        }
        _ => expose(r, node, &place, processes, &mut all),
    }
    all
}

fn expose(r: &mut Reader, node: &Node, place: &str, processes: &BTreeMap<Name, Process>, all: &mut Vec<Expose>) {
    let Some(entries) = r.entries(node, place) else { return };
    let (settings, published): (Vec<&Entry>, Vec<&Entry>) =
        entries.iter().partition(|e| e.key == "mode" || e.key == "address");
    let mode = settings.iter().find(|e| e.key == "mode").map_or(Some(Mode::Tcp), |e| mode(r, &e.value, place));
    let address = settings.iter().find(|e| e.key == "address").and_then(|e| address(r, &e.value, place));
    if published.is_empty() {
        r.problem(
            Code::ManifestMissingKey,
            node.pos,
            format!("{place} names no process"),
            "write { PROCESS: PORT, mode: http }",
        );
    }
    for entry in published {
        let process = exposed(r, entry, place, processes);
        let port = r.port(&entry.value, &format!("{} in {place}", cut(&entry.key)));
        let (Some(process), Some(port), Some(mode)) = (process, port, mode) else { continue };
        if let Some(other) = all.iter().find(|other| other.port == port) {
            let message = format!("port {port} in {place} is taken by {}", other.process);
            r.problem(Code::ManifestConflict, entry.value.pos, message, "give each process its own port");
            continue;
        }
        all.push(Expose { process, port, mode, address: address.clone() });
    }
}

fn exposed(r: &mut Reader, entry: &Entry, place: &str, processes: &BTreeMap<Name, Process>) -> Option<Name> {
    let Some((name, process)) = processes.iter().find(|(name, _)| name.as_str() == entry.key) else {
        let known = || processes.keys().map(Name::as_str);
        let hint = match nearest(&entry.key, known().chain(["mode", "address"])) {
            Some(meant) => format!("did you mean {meant:?}?"),
            None => format!("processes: {}", known().collect::<Vec<_>>().join(", ")),
        };
        r.problem(
            Code::ManifestReference,
            entry.pos,
            format!("{place} names {:?}, which is no process", cut(&entry.key)),
            hint,
        );
        return None;
    };
    if process.ports.is_empty() {
        let message = format!("{place} names {name}, which has no ports");
        r.problem(Code::ManifestConflict, entry.pos, message, "add ports: [PORT] to the process");
        return None;
    }
    Some(name.clone())
}

fn mode(r: &mut Reader, node: &Node, place: &str) -> Option<Mode> {
    match r.text(node, &format!("mode in {place}"))? {
        "tcp" => Some(Mode::Tcp),
        "http" => Some(Mode::Http),
        _ => {
            r.value(node, format!("mode in {place} is {}", shown(node)), "use tcp or http");
            None
        }
    }
}

fn address(r: &mut Reader, node: &Node, place: &str) -> Option<String> {
    let text = r.text(node, &format!("address in {place}"))?;
    match text.parse::<IpAddr>() {
        Ok(address) => Some(address.to_string()),
        Err(_) => {
            r.value(
                node,
                format!("address in {place} is {}", shown(node)),
                "write an IP address, for example 127.0.0.1 or 0.0.0.0",
            );
            None
        }
    }
}

fn gates(r: &mut Reader, node: &Node, place: &str) -> Vec<Gate> {
    let place = format!("gates of {place}");
    let mut gates = Vec::new();
    for item in r.list(node, &place).unwrap_or_default() {
        match gate_name(item) {
            Some("health") if gates.is_empty() => gates.push(Gate::Health),
            Some("health") => {
                r.problem(Code::ManifestConflict, item.pos, format!("health stands twice in {place}"), "")
            }
            Some(name @ ("error_rate" | "log_lines" | "new_log_lines" | "run" | "command")) => {
                r.unsupported(item.pos, &format!("the gate {name:?}"), "only health is asked");
            }
            Some(name) => {
                let hint = nearest(name, ["health"])
                    .map_or_else(|| "only health is asked".to_owned(), |meant| format!("did you mean {meant:?}?"));
                r.value(item, format!("{:?} in {place} is no gate", cut(name)), hint);
            }
            None => {
                r.wrong_type::<()>(item, &place, "the name of a gate");
            }
        }
    }
    // Health always counts, also where the list is empty.
    if gates.is_empty() { vec![Gate::Health] } else { gates }
}

fn gate_name(node: &Node) -> Option<&str> {
    match &node.value {
        Value::Scalar(scalar) if !node.is_null() => Some(&scalar.text),
        Value::Map(entries) => entries.first().map(|entry| entry.key.as_str()),
        _ => None,
    }
}
