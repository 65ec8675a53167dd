//! `processes:` of `muster.yaml`.

use std::collections::BTreeMap;

use domain::app::Process;
use domain::label::Selector;

use super::{argv, health};
use crate::problem::Code;
use crate::reader::{Keys, Reader, cut, shown};
use crate::yaml::Node;

/// Most ports of a process.
const MAX_PORTS: usize = 64;
/// Longest value of a variable, in bytes.
const MAX_VALUE: usize = 32 * 1024;

pub(super) const KEYS: Keys = Keys {
    known: &["command", "ports", "health", "overlap", "on", "environment"],
    absent: &[
        ("secrets", "give settings with `muster config set`"),
        ("hooks", "run migrations before the rollout, in your pipeline"),
    ],
};

pub(super) fn read(r: &mut Reader, node: &Node, place: &str) -> Option<Process> {
    let fields = r.fields(node, place, &KEYS)?;
    let command = fields.get("command").map(|node| argv(r, node, &format!("command of {place}")));
    let ports = fields.get("ports").map(|node| ports(r, node, place)).unwrap_or_default();
    let health = fields.get("health").map(|node| health::read(r, node, place, !ports.is_empty()));
    let overlap = fields.get("overlap").map(|node| r.boolean(node, &format!("overlap of {place}")));
    let on = fields.get("on").map(|node| selector(r, node, &format!("on of {place}")));
    let environment = fields.get("environment").map(|node| environment(r, node, place)).unwrap_or_default();
    Some(Process {
        command: command.unwrap_or_else(|| Some(Vec::new()))?,
        ports,
        health: health.map_or(Some(None), |health| health.map(Some))?,
        overlap: overlap.unwrap_or(Some(true))?,
        on: on.map_or(Some(None), |on| on.map(Some))?,
        environment,
    })
}

fn ports(r: &mut Reader, node: &Node, place: &str) -> Vec<u16> {
    let place = format!("ports of {place}");
    let mut ports = Vec::new();
    for item in r.list(node, &place).unwrap_or_default() {
        let Some(port) = r.port(item, &place) else { continue };
        if ports.contains(&port) {
            r.problem(Code::ManifestConflict, item.pos, format!("port {port} stands twice in {place}"), "");
        } else {
            ports.push(port);
        }
    }
    if ports.len() > MAX_PORTS {
        r.problem(
            Code::ManifestRange,
            node.pos,
            format!("{place} are {}", ports.len()),
            format!("at most {MAX_PORTS}"),
        );
        ports.truncate(MAX_PORTS);
    }
    ports
}

/// A selector such as `app=bot,env=production`.
pub(super) fn selector(r: &mut Reader, node: &Node, place: &str) -> Option<Selector> {
    match Selector::parse(r.text(node, place)?) {
        Ok(selector) => Some(selector),
        Err(error) => {
            r.problem(Code::ManifestSelector, node.pos, format!("{place} is {}: {error}", shown(node)), "");
            None
        }
    }
}

fn environment(r: &mut Reader, node: &Node, place: &str) -> BTreeMap<String, String> {
    let place = format!("environment of {place}");
    let mut variables = BTreeMap::new();
    for entry in r.entries(node, &place).unwrap_or_default() {
        if !is_variable(&entry.key) {
            let message = format!("{:?} in {place} is not the name of a variable", cut(&entry.key));
            r.problem(
                Code::ManifestName,
                entry.pos,
                message,
                "use letters, digits and '_', not beginning with a digit",
            );
            continue;
        }
        let Some(text) = r.text(&entry.value, &format!("{} in {place}", entry.key)) else { continue };
        if text.len() > MAX_VALUE {
            let message = format!("{} in {place} has {} bytes", entry.key, text.len());
            r.problem(Code::ManifestRange, entry.value.pos, message, format!("at most {MAX_VALUE}"));
            continue;
        }
        variables.insert(entry.key.clone(), text.to_owned());
    }
    variables
}

fn is_variable(name: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    (1..=255).contains(&name.len()) && name.bytes().all(inner) && !name.as_bytes()[0].is_ascii_digit()
}
