//! `volumes:` and `tmpfs:` of a service.

use domain::stack::{Mount, MountSource};

use super::Scope;
use super::service::{absolute, outside};
use crate::distance::nearest;
use crate::path::{self, PathError};
use crate::problem::Code;
use crate::reader::{Fields, Keys, Reader, shown};
use crate::yaml::{Node, Value};

/// Most mounts of a service.
const MAX_MOUNTS: usize = 100;

const LONG: Keys = Keys {
    known: &["type", "source", "target", "read_only", "consistency", "bind", "volume", "tmpfs"],
    absent: &[("image", "build the files into an image")],
};
const BIND: Keys = Keys {
    known: &["create_host_path", "selinux"],
    absent: &[("propagation", "mounts are private"), ("recursive", "leave it out")],
};
const VOLUME: Keys = Keys {
    known: &[],
    absent: &[
        ("nocopy", "an empty volume is filled from the image"),
        ("subpath", "mount the whole volume"),
        ("labels", "leave it out"),
    ],
};
const TMPFS: Keys = Keys { known: &["size", "mode"], absent: &[] };

pub(super) fn read(r: &mut Reader, fields: Fields<'_>, place: &str, scope: &Scope<'_>) -> Vec<Mount> {
    let mut mounts: Vec<Mount> = Vec::new();
    if let Some(node) = fields.get("volumes") {
        let place = format!("volumes of {place}");
        for item in r.list(node, &place).unwrap_or_default() {
            if is_clock(item) {
                r.notice(
                    item.pos,
                    format!("{place}: {} is left out: containers keep their own time zone; set TZ", source(item)),
                );
                continue;
            }
            let mount = match &item.value {
                Value::Map(_) => long(r, item, &place, scope),
                _ => short(r, item, &place, scope),
            };
            push(r, item, &place, mount, &mut mounts);
        }
    }
    if let Some(node) = fields.get("tmpfs") {
        let place = format!("tmpfs of {place}");
        match &node.value {
            Value::List(items) => {
                for item in items {
                    let mount = tmpfs(r, item, &place);
                    push(r, item, &place, mount, &mut mounts);
                }
            }
            _ => {
                let mount = tmpfs(r, node, &place);
                push(r, node, &place, mount, &mut mounts);
            }
        }
    }
    mounts
}

/// Where a mount's files come from, as it stands there; empty for none.
fn source(item: &Node) -> &str {
    match (&item.value, item.get("source").map(|node| &node.value)) {
        (Value::Scalar(scalar), _) if scalar.raw.is_none() => scalar.text.split(':').next().unwrap_or_default(),
        (_, Some(Value::Scalar(scalar))) if scalar.raw.is_none() => &scalar.text,
        _ => "",
    }
}

/// The host's time zone, which many files mount: the one path of the host that says nothing of it.
fn is_clock(item: &Node) -> bool {
    matches!(source(item), "/etc/localtime" | "/etc/timezone" | "/usr/share/zoneinfo")
}

fn push(r: &mut Reader, node: &Node, place: &str, mount: Option<Mount>, mounts: &mut Vec<Mount>) {
    let Some(mount) = mount else { return };
    if mounts.len() >= MAX_MOUNTS {
        r.problem(
            Code::StackRange,
            node.pos,
            format!("{place} has more than {MAX_MOUNTS} mounts"),
            "mount a folder instead of its parts",
        );
        return;
    }
    if mounts.iter().any(|other| other.target == mount.target) {
        let message = format!("{place} has the target of {} twice", shown(node));
        r.problem(Code::StackConflict, node.pos, message, "mount one thing at each place");
        return;
    }
    mounts.push(mount);
}

/// `[SOURCE:]TARGET[:MODE]`.
fn short(r: &mut Reader, node: &Node, place: &str, scope: &Scope<'_>) -> Option<Mount> {
    let text = r.text(node, place)?;
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, mode) = match parts.as_slice() {
        [target] => (None, *target, ""),
        [source, target] => (Some(*source), *target, ""),
        [source, target, mode] => (Some(*source), *target, *mode),
        _ => {
            r.value(node, format!("{place} has {}", shown(node)), "write [SOURCE:]TARGET[:ro]");
            return None;
        }
    };
    let target = target_path(r, node, place, target);
    let source = match source {
        None => Some(MountSource::Anonymous),
        Some(source) if is_path(source) => folder(r, node, place, source),
        Some(source) => named(r, node, place, source, scope),
    };
    let read_only = modes(r, node, place, mode)?;
    Some(Mount { source: source?, target: target?, read_only })
}

fn is_path(source: &str) -> bool {
    source.starts_with(['.', '/', '~', '\\'])
}

fn modes(r: &mut Reader, node: &Node, place: &str, mode: &str) -> Option<bool> {
    let mut read_only = false;
    for word in mode.split(',').filter(|word| !word.is_empty()) {
        match word {
            "ro" => read_only = true,
            "rw" | "z" | "Z" | "cached" | "delegated" | "consistent" => {}
            _ => {
                r.unsupported(node.pos, &format!("a mode in {place} {}", shown(node)), "use ro or rw");
                return None;
            }
        }
    }
    Some(read_only)
}

fn target_path(r: &mut Reader, node: &Node, place: &str, target: &str) -> Option<String> {
    let good = target.starts_with('/')
        && target.len() <= 1024
        && !target.chars().any(char::is_control)
        && !target.split('/').any(|part| part == "..");
    let trimmed = target.trim_end_matches('/');
    if good && !trimmed.is_empty() {
        return Some(trimmed.to_owned());
    }
    r.value(
        node,
        format!("the target in {place} {} is no path to mount at", shown(node)),
        "write an absolute path in the container, without \"..\"",
    );
    None
}

/// A folder or file beside the stack file.
fn folder(r: &mut Reader, node: &Node, place: &str, source: &str) -> Option<MountSource> {
    match path::below(r.base(node.pos), source) {
        Ok(path) => Some(MountSource::Folder(path)),
        Err(_) if source.ends_with("docker.sock") => {
            let message = format!("{place} mounts the engine's socket ({})", shown(node));
            r.problem(Code::StackRefused, node.pos, message, "it would give the container the whole host; remove it");
            None
        }
        Err(error @ (PathError::Absolute | PathError::Home)) => {
            let message = format!("{place} mounts {}, {error} of the host", shown(node));
            r.problem(
                Code::StackRefused,
                node.pos,
                message,
                "copy the files into the stack file's folder, and mount ./FOLDER",
            );
            None
        }
        Err(error) => {
            outside(r, node, place, &error.to_string());
            None
        }
    }
}

fn named(r: &mut Reader, node: &Node, place: &str, name: &str, scope: &Scope<'_>) -> Option<MountSource> {
    if scope.volumes.contains(name) {
        return Some(MountSource::Volume(name.to_owned()));
    }
    let hint = match nearest(name, scope.volumes.iter().map(String::as_str)) {
        Some(meant) => format!("did you mean {meant:?}?"),
        None if name.contains('/') => "a folder begins with ./".to_owned(),
        None => "declare it under the top-level volumes, or write ./NAME for a folder".to_owned(),
    };
    r.problem(
        Code::StackReference,
        node.pos,
        format!("{place} names a volume that is not declared: {}", shown(node)),
        hint,
    );
    None
}

fn long(r: &mut Reader, node: &Node, place: &str, scope: &Scope<'_>) -> Option<Mount> {
    let fields = r.fields(node, place, &LONG)?;
    for (key, keys) in [("bind", &BIND), ("volume", &VOLUME), ("tmpfs", &TMPFS)] {
        if let Some(node) = fields.get(key) {
            r.fields(node, &format!("{key} in {place}"), keys);
        }
    }
    let Some(target) = fields.get("target") else {
        r.missing(node.pos, "target", place, "write a path in the container");
        return None;
    };
    let target =
        absolute(r, target, &format!("target in {place}")).and_then(|text| target_path(r, target, place, &text));
    let read_only =
        fields.get("read_only").map_or(Some(false), |node| r.boolean(node, &format!("read_only in {place}")));
    let source = long_source(r, fields, place, scope);
    Some(Mount { source: source?, target: target?, read_only: read_only? })
}

fn long_source(r: &mut Reader, fields: Fields<'_>, place: &str, scope: &Scope<'_>) -> Option<MountSource> {
    let Some(kind) = fields.get("type") else {
        r.missing(fields.pos, "type", place, "use volume, bind or tmpfs");
        return None;
    };
    let source = match fields.get("source") {
        Some(node) => Some((node, r.text(node, &format!("source in {place}"))?)),
        None => None,
    };
    match (r.text(kind, &format!("type in {place}"))?, source) {
        ("volume", None) => Some(MountSource::Anonymous),
        ("volume", Some((node, name))) => named(r, node, place, name, scope),
        ("bind", Some((node, path))) => folder(r, node, place, path),
        ("bind", None) => {
            r.missing(fields.pos, "source", place, "write a folder beside the stack file");
            None
        }
        ("tmpfs", _) => {
            if let Some(node) = fields.get("tmpfs") {
                r.notice(
                    node.pos,
                    format!("the options of a tmpfs in {place} are not used: the service's memory limit holds"),
                );
            }
            Some(MountSource::Tmpfs)
        }
        (_, _) => {
            r.problem(
                Code::StackUnsupported,
                kind.pos,
                format!("type in {place} is {}", shown(kind)),
                "use volume, bind or tmpfs",
            );
            None
        }
    }
}

fn tmpfs(r: &mut Reader, node: &Node, place: &str) -> Option<Mount> {
    let text = r.text(node, place)?;
    let (target, options) = text.split_once(':').map_or((text, ""), |(target, options)| (target, options));
    if !options.is_empty() {
        r.notice(node.pos, format!("the options of a tmpfs in {place} are not used: the service's memory limit holds"));
    }
    Some(Mount { source: MountSource::Tmpfs, target: target_path(r, node, place, target)?, read_only: false })
}
