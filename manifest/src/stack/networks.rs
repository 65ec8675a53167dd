//! `networks:`, at the top and of a service: an environment has networks of its own instead.

use std::collections::BTreeSet;

use super::Scope;
use super::rights::is_host;
use super::volumes::refuse_external;
use crate::distance::nearest;
use crate::problem::{Code, Pos};
use crate::reader::{Fields, Keys, Reader, cut, shown};
use crate::yaml::{Node, Value};

/// Most further names of a service.
const MAX_ALIASES: usize = 50;

const TOP: Keys = Keys {
    known: &[
        "driver",
        "external",
        "name",
        "labels",
        "internal",
        "attachable",
        "enable_ipv4",
        "enable_ipv6",
        "ipam",
        "driver_opts",
    ],
    absent: &[],
};

const SERVICE: Keys = Keys {
    known: &["aliases", "priority", "gw_priority", "interface_name"],
    absent: &[
        ("ipv4_address", "use the service's name instead of a fixed address"),
        ("ipv6_address", "use the service's name instead of a fixed address"),
        ("link_local_ips", "use the service's name"),
        ("mac_address", "leave it out"),
        ("driver_opts", "leave it out"),
    ],
};

/// The declared names, `default` among them.
pub(super) fn read(r: &mut Reader, node: &Node) -> BTreeSet<String> {
    let entries = r.entries(node, "networks").unwrap_or_default();
    for entry in entries {
        let place = format!("network {}", cut(&entry.key));
        if !entry.value.is_null()
            && let Some(fields) = r.fields(&entry.value, &place, &TOP)
        {
            check_top(r, fields, &place);
        }
    }
    if !entries.is_empty() {
        r.notice(
            node.pos,
            "the networks are not made: all services of an environment reach each other on networks of its own",
        );
    }
    entries.iter().map(|entry| entry.key.clone()).collect()
}

fn check_top(r: &mut Reader, fields: Fields<'_>, place: &str) {
    refuse_external(r, fields, place, "a network that others use too");
    if let Some(node) = fields
        .get("driver")
        .filter(|node| !matches!(r.text(node, &format!("driver of {place}")), Some("bridge" | "default") | None))
    {
        r.problem(
            Code::StackRefused,
            node.pos,
            format!("driver of {place} is {}", shown(node)),
            "an environment has bridges of its own; remove it",
        );
    }
}

/// The further names of a service. Tells undeclared networks, and settings that would be lost.
pub(super) fn aliases(r: &mut Reader, fields: Fields<'_>, place: &str, scope: &Scope<'_>) -> Vec<String> {
    let mut names = Vec::new();
    let Some(node) = fields.get("networks") else { return names };
    let place = format!("networks of {place}");
    match &node.value {
        Value::List(items) => {
            for item in items {
                if let Some(name) = r.text(item, &place) {
                    declared(r, item.pos, name, &shown(item), &place, scope);
                }
            }
        }
        _ => {
            for entry in r.entries(node, &place).unwrap_or_default() {
                declared(r, entry.pos, &entry.key, &format!("{:?}", cut(&entry.key)), &place, scope);
                if !entry.value.is_null()
                    && let Some(fields) = r.fields(&entry.value, &place, &SERVICE)
                    && let Some(node) = fields.get("aliases")
                {
                    alias_list(r, node, &format!("aliases in {place}"), &mut names);
                }
            }
        }
    }
    names
}

fn alias_list(r: &mut Reader, node: &Node, place: &str, names: &mut Vec<String>) {
    for item in r.list(node, place).unwrap_or_default() {
        let Some(name) = r.text(item, place) else { continue };
        if !is_host(name) {
            r.problem(Code::StackName, item.pos, format!("{place} has {}", shown(item)), "write the name of a host");
        } else if names.len() >= MAX_ALIASES {
            r.problem(Code::StackRange, item.pos, format!("{place} are more than {MAX_ALIASES}"), "write fewer");
            return;
        } else if !names.iter().any(|other| other == name) {
            names.push(name.to_owned());
        }
    }
}

/// `shown`: the name as it stands in the file, which may be a variable's.
fn declared(r: &mut Reader, pos: Pos, name: &str, shown: &str, place: &str, scope: &Scope<'_>) {
    if name == "default" || scope.networks.contains(name) {
        return;
    }
    let hint = match nearest(name, scope.networks.iter().map(String::as_str)) {
        Some(meant) => format!("did you mean {meant:?}?"),
        None => "declare it under the top-level networks, or remove it".to_owned(),
    };
    r.problem(Code::StackReference, pos, format!("{place} names {shown}, which is not declared"), hint);
}
