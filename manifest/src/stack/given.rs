//! `secrets:` and `configs:`, at the top and of a service: files that a container finds, not writable.

use std::collections::BTreeMap;
use std::rc::Rc;

use domain::stack::{Content, GivenFile, Mount};

use super::Scope;
use super::service::outside;
use super::volumes::refuse_external;
use crate::distance::nearest;
use crate::path;
use crate::problem::Code;
use crate::reader::{Fields, Keys, Reader, cut, shown};
use crate::yaml::{Node, Value};

/// Largest content, in bytes.
const MAX_CONTENT: usize = 512 << 10;
/// Most files of a service.
const MAX_FILES: usize = 50;

const SECRET: Keys = Keys {
    known: &["file", "environment", "external", "name", "labels"],
    absent: &[
        ("content", "write it into a file, or give it as a variable"),
        ("driver", "name a file or a variable"),
        ("driver_opts", "name a file or a variable"),
        ("template_driver", "write the file as it is to be"),
    ],
};
const CONFIG: Keys = Keys {
    known: &["file", "environment", "content", "external", "name", "labels"],
    absent: &[("template_driver", "write the file as it is to be")],
};
const USE: Keys = Keys { known: &["source", "target", "uid", "gid", "mode"], absent: &[] };

/// Secrets or configs.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Secret,
    Config,
}

impl Kind {
    fn key(self) -> &'static str {
        match self {
            Self::Secret => "secrets",
            Self::Config => "configs",
        }
    }

    fn noun(self) -> &'static str {
        match self {
            Self::Secret => "secret",
            Self::Config => "config",
        }
    }

    /// Where a file stands that names no place, or only a name.
    fn default_target(self, name: &str) -> String {
        match self {
            Self::Secret => format!("/run/secrets/{name}"),
            Self::Config => format!("/{name}"),
        }
    }
}

/// What the top level declares, by name.
pub(super) type Declared = BTreeMap<String, Rc<Node>>;

/// Reads the names; contents are read when a service asks for them.
pub(super) fn declared(r: &mut Reader, node: &Node, kind: Kind) -> Declared {
    let mut found = Declared::new();
    for entry in r.entries(node, kind.key()).unwrap_or_default() {
        if !is_name(&entry.key) {
            let hint = "use 1 to 200 letters, digits, '-', '_' and '.', beginning with a letter or digit";
            let message = format!("{:?} is not the name of a {}", cut(&entry.key), kind.noun());
            r.problem(Code::StackName, entry.pos, message, hint);
        }
        found.insert(entry.key.clone(), Rc::clone(&entry.value));
        let place = format!("{} {}", kind.noun(), cut(&entry.key));
        let keys = match kind {
            Kind::Secret => &SECRET,
            Kind::Config => &CONFIG,
        };
        let Some(fields) = r.fields(&entry.value, &place, keys) else { continue };
        refuse_external(r, fields, &place, &format!("a {} that others use too", kind.noun()));
        let sources = ["file", "environment", "content"].into_iter().filter(|key| fields.get(key).is_some());
        match sources.count() {
            1 => {}
            0 if fields.get("external").is_some() => {}
            0 => r.missing(entry.pos, "file", &place, "write file: PATH or environment: VARIABLE"),
            _ => r.problem(Code::StackConflict, entry.pos, format!("{place} has two sources"), "keep one of them"),
        }
    }
    found
}

fn is_name(name: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    (1..=200).contains(&name.len()) && name.bytes().all(inner) && name.as_bytes()[0].is_ascii_alphanumeric()
}

/// The files of a service, with their contents.
pub(super) fn read(
    r: &mut Reader,
    fields: Fields<'_>,
    place: &str,
    mounts: &[Mount],
    scope: &Scope<'_>,
) -> Vec<GivenFile> {
    let mut files: Vec<GivenFile> = Vec::new();
    for kind in [Kind::Secret, Kind::Config] {
        let Some(node) = fields.get(kind.key()) else { continue };
        let place = format!("{} of {place}", kind.key());
        for item in r.list(node, &place).unwrap_or_default() {
            let Some(file) = one(r, item, &place, kind, scope) else { continue };
            let taken = files.iter().any(|other| other.target == file.target)
                || mounts.iter().any(|mount| mount.target == file.target);
            if taken {
                let message = format!("{place} has {}, whose place in the container is taken", shown(item));
                r.problem(Code::StackConflict, item.pos, message, "give one of them another target");
            } else if files.len() >= MAX_FILES {
                let message = format!("{place} are more than {MAX_FILES}");
                r.problem(Code::StackRange, item.pos, message, "mount a folder instead");
                return files;
            } else {
                files.push(file);
            }
        }
    }
    files
}

fn one(r: &mut Reader, item: &Node, place: &str, kind: Kind, scope: &Scope<'_>) -> Option<GivenFile> {
    let (source, options) = match &item.value {
        Value::Map(_) => {
            let fields = r.fields(item, place, &USE)?;
            let Some(source) = fields.get("source") else {
                r.missing(item.pos, "source", place, "write source: NAME");
                return None;
            };
            (source.as_ref(), Some(fields))
        }
        _ => (item, None),
    };
    let name = r.text(source, place)?.to_owned();
    let target = match options.and_then(|fields| fields.get("target")) {
        Some(node) => target(r, node, place, kind)?,
        None => kind.default_target(&name),
    };
    let id = |r: &mut Reader, key: &str| {
        let node = options?.get(key)?;
        let id = r.number(node, &format!("{key} in {place}"), 0, u64::from(u32::MAX - 1))?;
        u32::try_from(id).ok()
    };
    let (uid, gid) = (id(r, "uid"), id(r, "gid"));
    let mode = match options.and_then(|fields| fields.get("mode")) {
        Some(node) => mode(r, node, place)?,
        None => 0o444,
    };
    let content = content(r, source, &name, place, kind, scope)?;
    Some(GivenFile { name, target, mode, uid, gid, content: Content(content) })
}

fn target(r: &mut Reader, node: &Node, place: &str, kind: Kind) -> Option<String> {
    let text = r.text(node, &format!("target in {place}"))?;
    let whole = if text.starts_with('/') { text.to_owned() } else { kind.default_target(text) };
    let good = whole.len() <= 1024
        && !whole.chars().any(char::is_control)
        && !whole.ends_with('/')
        && !whole.split('/').any(|part| part == "..");
    if good {
        return Some(whole);
    }
    r.value(node, format!("target in {place} is {}", shown(node)), "write a name, or an absolute path without \"..\"");
    None
}

/// Octal as people write it (`0440`), quoted or not; a number that begins otherwise is decimal, as in YAML.
fn mode(r: &mut Reader, node: &Node, place: &str) -> Option<u32> {
    let scalar = r.scalar(node, &format!("mode in {place}"))?;
    let octal =
        scalar.text.strip_prefix("0o").or_else(|| scalar.text.strip_prefix('0').filter(|rest| !rest.is_empty()));
    let parsed = match octal {
        Some(digits) => u32::from_str_radix(digits, 8),
        None if scalar.plain => scalar.text.parse(),
        None => u32::from_str_radix(&scalar.text, 8),
    };
    if let Some(mode) = parsed.ok().filter(|mode| *mode <= 0o777) {
        return Some(mode);
    }
    r.value(node, format!("mode in {place} is {}", shown(node)), "write permission bits, for example 0440");
    None
}

fn content(r: &mut Reader, source: &Node, name: &str, place: &str, kind: Kind, scope: &Scope<'_>) -> Option<String> {
    let declared = match kind {
        Kind::Secret => &scope.secrets,
        Kind::Config => &scope.configs,
    };
    let Some(node) = declared.get(name) else {
        let hint = match nearest(name, declared.keys().map(String::as_str)) {
            Some(meant) => format!("did you mean {meant:?}?"),
            None => format!("declare it under the top-level {}", kind.key()),
        };
        let message = format!("{place} names {}, which is not declared", shown(source));
        r.problem(Code::StackReference, source.pos, message, hint);
        return None;
    };
    let place = format!("{} {}", kind.noun(), cut(name));
    // What is wrong with the declaration was told where it stands.
    let (key, node) = ["file", "environment", "content"]
        .iter()
        .find_map(|key| node.get(key).filter(|node| !node.is_null()).map(|node| (*key, node)))?;
    let text = r.text(node, &format!("{key} of {place}"))?.to_owned();
    let content = match key {
        "file" => file(r, node, &text, &place, scope)?,
        "environment" => variable(r, node, &text, &place)?,
        _ => text,
    };
    if content.len() <= MAX_CONTENT {
        return Some(content);
    }
    r.problem(Code::StackRange, node.pos, format!("{place} is larger than 512 KiB"), "mount the file instead");
    None
}

fn file(r: &mut Reader, node: &Node, text: &str, place: &str, scope: &Scope<'_>) -> Option<String> {
    let place = format!("file of {place}");
    let path = match path::below(r.base(node.pos), text) {
        Ok(path) => path,
        Err(error) => {
            outside(r, node, &place, &error.to_string());
            return None;
        }
    };
    let found = (scope.files)(&path);
    if found.is_none() {
        let message = format!("{place}, {}, does not exist or is no text", shown(node));
        r.problem(Code::StackFile, node.pos, message, "make it; files of other bytes than UTF-8 can be mounted");
    }
    found
}

fn variable(r: &mut Reader, node: &Node, name: &str, place: &str) -> Option<String> {
    r.names.insert(name.to_owned());
    let value = r.variables(node.pos).get(name).cloned();
    if value.is_none() {
        let message = format!("{place} is the variable {}, which is not set", shown(node));
        r.problem(Code::StackVariable, node.pos, message, "set it in the environment of the command, or in .env");
    }
    value
}
