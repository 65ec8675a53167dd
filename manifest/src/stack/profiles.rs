//! `profiles:`: services that are part of the stack only when asked for.

use std::collections::{BTreeMap, BTreeSet};

use crate::problem::Code;
use crate::reader::{Reader, Variables, cut, shown};
use crate::yaml::{Entry, Value};

/// The variable with the active profiles, separated by commas; `*` stands for all.
const VARIABLE: &str = "COMPOSE_PROFILES";

/// The active profiles.
pub(super) struct Profiles(BTreeSet<String>);

impl Profiles {
    pub(super) fn active(r: &mut Reader, variables: &Variables) -> Self {
        r.names.insert(VARIABLE.to_owned());
        let given = variables.get(VARIABLE).map(String::as_str).unwrap_or_default();
        Self(given.split(',').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect())
    }

    /// Services that are left out, with their profiles.
    pub(super) fn left_out(&self, r: &mut Reader, services: &[Entry]) -> BTreeMap<String, String> {
        let mut out = BTreeMap::new();
        for entry in services {
            let Some(node) = entry.value.get("profiles").filter(|node| !node.is_null()) else { continue };
            let place = format!("profiles of service {}", cut(&entry.key));
            let items = match &node.value {
                Value::List(items) => items.as_slice(),
                _ => std::slice::from_ref(node),
            };
            let mut names = Vec::new();
            for item in items {
                let Some(name) = r.text(item, &place) else { continue };
                if is_name(name) {
                    names.push(name.to_owned());
                } else {
                    let hint = "use letters, digits, '-', '_' and '.'";
                    r.problem(Code::StackName, item.pos, format!("{place} has {}", shown(item)), hint);
                }
            }
            let active = self.0.contains("*") || names.iter().any(|name| self.0.contains(name));
            if !names.is_empty() && !active {
                out.insert(entry.key.clone(), names.join(", "));
            }
        }
        out
    }
}

fn is_name(name: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    (1..=63).contains(&name.len()) && name.bytes().all(inner) && name.as_bytes()[0].is_ascii_alphanumeric()
}
