//! `build:`.

use domain::stack::Build;

use super::environment;
use super::service::outside;
use crate::path;
use crate::problem::Code;
use crate::reader::{Fields, Keys, Reader, shown};
use crate::yaml::{Node, Value};

const UNUSED: [&str; 9] =
    ["cache_from", "cache_to", "no_cache", "pull", "tags", "labels", "provenance", "sbom", "platforms"];
const REFUSED: [&str; 4] = ["privileged", "entitlements", "network", "isolation"];

const KEYS: Keys = Keys {
    known: &[
        "context",
        "dockerfile",
        "target",
        "args", // UNUSED
        "cache_from",
        "cache_to",
        "no_cache",
        "pull",
        "tags",
        "labels",
        "provenance",
        "sbom",
        "platforms", // REFUSED
        "privileged",
        "entitlements",
        "network",
        "isolation",
    ],
    absent: &[
        ("dockerfile_inline", "write a Dockerfile"),
        ("ssh", "fetch sources before the build"),
        ("secrets", "fetch what needs secrets before the build"),
        ("additional_contexts", "copy what is needed into the context"),
        ("extra_hosts", "leave it out"),
        ("shm_size", "leave it out"),
        ("ulimits", "leave it out"),
    ],
};

pub(super) fn read(r: &mut Reader, node: &Node, place: &str) -> Option<Build> {
    let place = format!("build of {place}");
    if let Value::Scalar(_) = &node.value {
        let context = context(r, node, &place)?;
        return Some(Build { context, dockerfile: None, target: None, args: std::collections::BTreeMap::new() });
    }
    let fields = r.fields(node, &place, &KEYS)?;
    check(r, fields, &place);
    let context = match fields.get("context") {
        Some(node) => context(r, node, &format!("context in {place}")),
        None => {
            r.missing(fields.pos, "context", &place, "write context: .");
            None
        }
    };
    let dockerfile = fields.get("dockerfile").map(|node| dockerfile(r, node, &place, context.as_deref()));
    let target = fields.get("target").and_then(|node| r.text(node, &format!("target in {place}")).map(str::to_owned));
    let args =
        fields.get("args").map(|node| environment::pairs(r, node, &format!("args in {place}"))).unwrap_or_default();
    Some(Build { context: context?, dockerfile: dockerfile.map_or(Some(None), |path| path.map(Some))?, target, args })
}

fn check(r: &mut Reader, fields: Fields<'_>, place: &str) {
    for key in REFUSED {
        if let Some(node) = fields.get(key).filter(|node| !matches!(&node.value, Value::Scalar(s) if s.text == "false"))
        {
            let message = format!("{key:?} in {place} is refused: a build has no more rights than a container");
            r.problem(Code::StackRefused, node.pos, message, "remove it");
        }
    }
    for key in UNUSED {
        if let Some(entry) = fields.entry(key) {
            r.notice(entry.pos, format!("{key:?} in {place} is not used"));
        }
    }
}

fn context(r: &mut Reader, node: &Node, place: &str) -> Option<String> {
    let text = r.text(node, place)?;
    if text.contains("://") || text.starts_with("git@") || text.starts_with("github.com/") {
        r.unsupported(node.pos, &format!("{place} from a URL"), "name a folder beside the stack file");
        return None;
    }
    match path::below(r.base(node.pos), text) {
        Ok(path) => Some(path),
        Err(error) => {
            outside(r, node, place, &error.to_string());
            None
        }
    }
}

fn dockerfile(r: &mut Reader, node: &Node, place: &str, context: Option<&str>) -> Option<String> {
    let place = format!("dockerfile in {place}");
    let text = r.text(node, &place)?;
    // It may leave the context, but not the stack file's folder.
    let whole = format!("{}/{text}", context.unwrap_or("."));
    let checked = if text.starts_with(['/', '~']) { path::inside(text) } else { path::inside(&whole) };
    match checked {
        Ok(_) if !text.is_empty() => Some(text.to_owned()),
        Ok(_) => {
            r.value(node, format!("{place} is {}", shown(node)), "write a path, or leave it out");
            None
        }
        Err(error) => {
            outside(r, node, &place, &error.to_string());
            None
        }
    }
}
