//! The top-level `volumes:`.

use std::collections::BTreeSet;

use crate::problem::Code;
use crate::reader::{Keys, Reader, cut, shown};
use crate::yaml::Node;

const KEYS: Keys = Keys { known: &["driver", "driver_opts", "external", "name", "labels"], absent: &[] };

/// The names; also of volumes with a problem, so that it is told once.
pub(super) fn read(r: &mut Reader, node: &Node) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for entry in r.entries(node, "volumes").unwrap_or_default() {
        if !is_name(&entry.key) {
            let hint = "use 1 to 200 letters, digits, '-', '_' and '.', beginning with a letter or digit";
            r.problem(Code::StackName, entry.pos, format!("{:?} is not the name of a volume", cut(&entry.key)), hint);
        }
        names.insert(entry.key.clone());
        if !entry.value.is_null() {
            check(r, &entry.value, &format!("volume {}", cut(&entry.key)));
        }
    }
    names
}

fn is_name(name: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    (1..=200).contains(&name.len()) && name.bytes().all(inner) && name.as_bytes()[0].is_ascii_alphanumeric()
}

fn check(r: &mut Reader, node: &Node, place: &str) {
    let Some(fields) = r.fields(node, place, &KEYS) else { return };
    refuse_external(r, fields, place, "a volume that others use too");
    if let Some(node) =
        fields.get("driver").filter(|node| !matches!(r.text(node, &format!("driver of {place}")), Some("local") | None))
    {
        r.problem(
            Code::StackRefused,
            node.pos,
            format!("driver of {place} is {}", shown(node)),
            "volumes lie in Muster's pool; remove it",
        );
    }
    if let Some(node) =
        fields.get("driver_opts").filter(|node| !matches!(&node.value, crate::yaml::Value::Map(e) if e.is_empty()))
    {
        let message = format!("\"driver_opts\" of {place} is refused: it could mount any folder of the host");
        r.problem(Code::StackRefused, node.pos, message, "remove it");
    }
    for key in ["name", "labels"] {
        if let Some(entry) = fields.entry(key) {
            r.notice(entry.pos, format!("{key:?} of {place} is not used: each environment has a volume of its own"));
        }
    }
}

/// `external: true`, and the old form with a map.
pub(super) fn refuse_external(r: &mut Reader, fields: crate::reader::Fields<'_>, place: &str, what: &str) {
    let external = fields
        .get("external")
        .filter(|node| !matches!(&node.value, crate::yaml::Value::Scalar(s) if s.text == "false"));
    if let Some(node) = external {
        r.problem(
            Code::StackRefused,
            node.pos,
            format!("{place} is external: {what} cannot belong to an environment"),
            "remove external",
        );
    }
}
