//! One service.

use std::time::Duration;

use domain::stack::{Condition, Service, StoreKind};

use super::dependencies::Waits;
use super::{
    Scope, build, commands, develop, environment, given, health, keys, limits, links, mounts, muster, networks, ports,
    rights, store,
};
use crate::image_ref::{self, ImageRefError};
use crate::problem::Code;
use crate::reader::{Fields, Reader, shown};
use crate::yaml::Node;

pub(super) fn read(
    r: &mut Reader,
    node: &Node,
    place: &str,
    name: &str,
    scope: &Scope<'_>,
    waits: &mut Waits,
) -> Option<Service> {
    let fields = r.fields(node, place, &keys::SERVICE)?;
    keys::check(r, fields, place);
    let image = fields.get("image").and_then(|node| image(r, node, place));
    let build = fields.get("build").and_then(|node| build::read(r, node, place));
    if fields.get("image").is_none() && fields.get("build").is_none() {
        r.missing(fields.pos, "image", place, "write image: NAME:TAG, or build: FOLDER");
    }
    let limits = limits::read(r, fields, place);
    if let Some(node) = fields.get("scale") {
        limits::replicas(r, node, &format!("scale of {place}"));
    }
    let store = store::read(r, fields, place, image.as_deref());
    let mut environment = environment::read(r, fields, place, scope);
    if store == Some(StoreKind::Elasticsearch) {
        store::single_node(r, fields, place, limits.memory, &mut environment);
    }
    let mounts = mounts::read(r, fields, place, scope);
    let mut depends_on =
        fields.get("depends_on").map(|node| waits.read(r, node, name, place, scope)).unwrap_or_default();
    for other in links::read(r, fields, place, scope, waits, name) {
        depends_on.entry(other).or_insert(Condition::Started);
    }
    Some(Service {
        store,
        egress: muster::egress(r, fields, place),
        watch: develop::read(r, fields, place),
        aliases: networks::aliases(r, fields, place, scope),
        files: given::read(r, fields, place, &mounts, scope),
        cap_add: rights::cap_add(r, fields, place),
        cap_drop: rights::cap_drop(r, fields, place),
        ulimits: rights::ulimits(r, fields, place),
        extra_hosts: rights::extra_hosts(r, fields, place),
        group_add: rights::group_add(r, fields, place),
        sysctls: rights::sysctls(r, fields, place),
        no_new_privileges: rights::no_new_privileges(r, fields, place),
        pids_limit: limits.pids,
        image,
        build,
        command: fields.get("command").and_then(|node| commands::read(r, node, &format!("command of {place}"))),
        entrypoint: fields
            .get("entrypoint")
            .and_then(|node| commands::read(r, node, &format!("entrypoint of {place}"))),
        environment,
        ports: fields.get("ports").map(|node| ports::published(r, node, place)).unwrap_or_default(),
        expose: fields.get("expose").map(|node| ports::exposed(r, node, place)).unwrap_or_default(),
        mounts,
        depends_on,
        healthcheck: fields.get("healthcheck").and_then(|node| health::read(r, node, place)),
        working_dir: fields.get("working_dir").and_then(|node| absolute(r, node, &format!("working_dir of {place}"))),
        user: fields.get("user").and_then(|node| user(r, node, place)),
        restart: fields.get("restart").is_some_and(|node| restart(r, node, place)),
        stop_signal: fields.get("stop_signal").and_then(|node| stop_signal(r, node, place)),
        stop_grace_period: stop_grace_period(r, fields, place),
        memory: limits.memory,
        milli_cpus: limits.milli_cpus,
        init: flag(r, fields, "init", place),
        read_only: flag(r, fields, "read_only", place),
        shm_bytes: fields.get("shm_size").and_then(|node| limits::bytes(r, node, &format!("shm_size of {place}"))),
    })
}

fn image(r: &mut Reader, node: &Node, place: &str) -> Option<String> {
    match image_ref::parse(r.text(node, &format!("image of {place}"))?) {
        Ok(image) => Some(image.to_string()),
        Err(error) => {
            let why = match &error {
                ImageRefError::Grammar { why, .. } => why,
                ImageRefError::NotPinned { .. } => "it names no digest",
            };
            r.problem(
                error.code(),
                node.pos,
                format!("image of {place} is {}: {why}", shown(node)),
                "write NAME:TAG or NAME@sha256:DIGEST",
            );
            None
        }
    }
}

/// An absolute path in the container.
pub(super) fn absolute(r: &mut Reader, node: &Node, place: &str) -> Option<String> {
    let text = r.text(node, place)?;
    let good = text.starts_with('/')
        && text.len() <= 1024
        && !text.chars().any(char::is_control)
        && !text.split('/').any(|part| part == "..");
    if good {
        return Some(text.to_owned());
    }
    r.value(node, format!("{place} is {}", shown(node)), "write an absolute path in the container, without \"..\"");
    None
}

fn user(r: &mut Reader, node: &Node, place: &str) -> Option<String> {
    let text = r.text(node, &format!("user of {place}"))?;
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    let part = |part: &str| (1..=64).contains(&part.len()) && part.bytes().all(inner) && !part.starts_with('-');
    let (name, group) = text.split_once(':').map_or((text, None), |(name, group)| (name, Some(group)));
    if part(name) && group.is_none_or(part) {
        return Some(text.to_owned());
    }
    r.value(node, format!("user of {place} is {}", shown(node)), "write USER or USER:GROUP, as names or numbers");
    None
}

fn restart(r: &mut Reader, node: &Node, place: &str) -> bool {
    let Some(text) = r.text(node, &format!("restart of {place}")) else { return false };
    match text {
        "no" | "false" => false,
        "always" | "unless-stopped" | "on-failure" => {
            r.notice(node.pos, format!("restart of {place}: Muster restarts it itself, with growing pauses"));
            true
        }
        _ if text.strip_prefix("on-failure:").is_some_and(|n| n.parse::<u32>().is_ok()) => {
            r.notice(
                node.pos,
                format!("restart of {place}: Muster restarts it itself, with growing pauses; restarts are not limited"),
            );
            true
        }
        _ => {
            r.value(
                node,
                format!("restart of {place} is {}", shown(node)),
                "use no, always, on-failure or unless-stopped",
            );
            false
        }
    }
}

fn stop_signal(r: &mut Reader, node: &Node, place: &str) -> Option<String> {
    const NAMES: [&str; 12] =
        ["HUP", "INT", "QUIT", "ABRT", "KILL", "USR1", "USR2", "ALRM", "TERM", "STOP", "WINCH", "PWR"];
    let text = r.text(node, &format!("stop_signal of {place}"))?;
    let bare = text.strip_prefix("SIG").unwrap_or(text);
    let number = text.parse::<u8>().is_ok_and(|n| (1..=64).contains(&n));
    let realtime = bare.starts_with("RTMIN") || bare.starts_with("RTMAX");
    if NAMES.contains(&bare) || number || (realtime && bare.len() <= 8 && bare.is_ascii()) {
        return Some(if number { text.to_owned() } else { format!("SIG{bare}") });
    }
    r.value(node, format!("stop_signal of {place} is {}", shown(node)), "write a signal, for example SIGINT");
    None
}

fn stop_grace_period(r: &mut Reader, fields: Fields<'_>, place: &str) -> Option<Duration> {
    let node = fields.get("stop_grace_period")?;
    r.duration(node, &format!("stop_grace_period of {place}"), Duration::ZERO, Duration::from_secs(3600))
}

fn flag(r: &mut Reader, fields: Fields<'_>, key: &str, place: &str) -> bool {
    fields.get(key).and_then(|node| r.boolean(node, &format!("{key} of {place}"))).unwrap_or(false)
}

/// Tells that a path leaves the stack file's folder.
pub(super) fn outside(r: &mut Reader, node: &Node, what: &str, why: &str) {
    let hint = "only what lies in the folder of the stack file can be used";
    r.problem(Code::StackOutsideFolder, node.pos, format!("{what} is {}: {why}", shown(node)), hint);
}
