//! `health:` of a process.

use std::time::Duration;

use domain::health::{HealthCheck, Probe};

use super::argv;
use crate::problem::Code;
use crate::reader::{Fields, Keys, Reader, shown};
use crate::yaml::{Node, Value};

const PROBES: [&str; 6] = ["http", "tcp", "command", "container", "postgres", "redis"];

pub(super) const KEYS: Keys = Keys {
    known: &[
        "http",
        "tcp",
        "command",
        "container",
        "postgres",
        "redis",
        "port",
        "interval",
        "timeout",
        "failures",
        "start_period",
    ],
    absent: &[("mysql", "use tcp or command"), ("elasticsearch", "use http"), ("grpc", "use tcp or command")],
};

/// `has_ports`: the process has a first port, which probes without a port of their own ask.
pub(super) fn read(r: &mut Reader, node: &Node, place: &str, has_ports: bool) -> Option<HealthCheck> {
    let place = format!("health of {place}");
    if let Value::Scalar(scalar) = &node.value
        && scalar.text == "container"
    {
        return Some(HealthCheck::new(Probe::Container));
    }
    let fields = r.fields(node, &place, &KEYS)?;
    let probe = probe(r, fields, &place, has_ports);
    let mut check = HealthCheck::new(probe?);
    cadence(r, fields, &place, &mut check)?;
    Some(check)
}

fn cadence(r: &mut Reader, fields: Fields<'_>, place: &str, check: &mut HealthCheck) -> Option<()> {
    let (millis, seconds) = (Duration::from_millis, Duration::from_secs);
    let mut duration = |key: &str, low, high, default| match fields.get(key) {
        Some(node) => r.duration(node, &format!("{key} in {place}"), low, high),
        None => Some(default),
    };
    let interval = duration("interval", millis(50), seconds(300), check.interval);
    let timeout = duration("timeout", millis(10), seconds(60), check.timeout);
    let start_period = duration("start_period", Duration::ZERO, seconds(600), check.start_period);
    let failures = match fields.get("failures") {
        Some(node) => r.number(node, &format!("failures in {place}"), 1, 100).and_then(|n| u32::try_from(n).ok()),
        None => Some(check.failures),
    };
    check.interval = interval?;
    check.timeout = timeout?;
    check.start_period = start_period?;
    check.failures = failures?;
    Some(())
}

fn probe(r: &mut Reader, fields: Fields<'_>, place: &str, has_ports: bool) -> Option<Probe> {
    let given: Vec<&str> = PROBES.into_iter().filter(|key| fields.entry(key).is_some()).collect();
    let [kind] = given.as_slice() else {
        let hint = format!("give exactly one of {}", PROBES.join(", "));
        let (code, message) = match given.as_slice() {
            [] => (Code::ManifestMissingKey, format!("{place} says not how it is asked")),
            several => (Code::ManifestConflict, format!("{place} has {}", several.join(" and "))),
        };
        r.problem(code, fields.pos, message, hint);
        return None;
    };
    let node = &fields.entry(kind)?.value;
    if let Some(port) = fields.get("port").filter(|_| *kind != "http") {
        r.problem(
            Code::ManifestConflict,
            port.pos,
            format!("port in {place} goes with http only"),
            format!("write {kind}: PORT"),
        );
    }
    let probe = match *kind {
        "http" => Probe::Http { path: http_path(r, node, place)?, port: http_port(r, fields, place)? },
        "tcp" => Probe::Tcp { port: own_port(r, node, &format!("tcp in {place}"))? },
        "postgres" => Probe::Postgres { port: own_port(r, node, &format!("postgres in {place}"))?.unwrap_or(5432) },
        "redis" => Probe::Redis { port: own_port(r, node, &format!("redis in {place}"))?.unwrap_or(6379) },
        "command" => Probe::Command { argv: argv(r, node, &format!("command in {place}"))? },
        _ => container(r, node, place)?,
    };
    let first_port = matches!(probe, Probe::Http { port: None, .. } | Probe::Tcp { port: None });
    if first_port && !has_ports {
        let message = format!("{place} asks the process's first port, but it has none");
        r.problem(Code::ManifestConflict, node.pos, message, "add ports: [PORT] to the process");
        return None;
    }
    Some(probe)
}

fn http_path(r: &mut Reader, node: &Node, place: &str) -> Option<String> {
    let text = r.text(node, &format!("http in {place}"))?;
    let good = text.starts_with('/') && text.len() <= 1024 && text.bytes().all(|b| b.is_ascii_graphic());
    if good {
        return Some(text.to_owned());
    }
    r.value(node, format!("http in {place} is {}", shown(node)), "write a path that begins with '/', without blanks");
    None
}

fn http_port(r: &mut Reader, fields: Fields<'_>, place: &str) -> Option<Option<u16>> {
    match fields.get("port") {
        Some(node) => r.port(node, &format!("port in {place}")).map(Some),
        None => Some(None),
    }
}

/// `true` or nothing: the usual port; a number: that one.
fn own_port(r: &mut Reader, node: &Node, place: &str) -> Option<Option<u16>> {
    if node.is_null() || matches!(&node.value, Value::Scalar(scalar) if scalar.text == "true") {
        return Some(None);
    }
    r.port(node, place).map(Some)
}

fn container(r: &mut Reader, node: &Node, place: &str) -> Option<Probe> {
    if node.is_null() || r.boolean(node, &format!("container in {place}"))? {
        return Some(Probe::Container);
    }
    r.value(node, format!("container in {place} is false"), "name another way of asking, or leave health out");
    None
}
