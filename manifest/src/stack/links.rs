//! `links:`: what Compose had before networks. A service waits for those that it links to, and finds them by name.

use std::collections::{BTreeMap, BTreeSet};

use super::Scope;
use super::dependencies::{Waits, known};
use super::rights::is_host;
use crate::reader::{Fields, Reader, shown};
use crate::yaml::{Entry, Value};

/// The services that this one is linked to.
pub(super) fn read(
    r: &mut Reader,
    fields: Fields<'_>,
    place: &str,
    scope: &Scope<'_>,
    waits: &mut Waits,
    name: &str,
) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let Some(node) = fields.get("links") else { return found };
    let place = format!("links of {place}");
    for item in r.list(node, &place).unwrap_or_default() {
        let Some(text) = r.text(item, &place) else { continue };
        let (other, alias) = text.split_once(':').map_or((text, None), |(other, alias)| (other, Some(alias)));
        if alias.is_some_and(|alias| !is_host(alias)) {
            r.value(item, format!("{place} has {}", shown(item)), "write SERVICE or SERVICE:NAME");
        } else if known(r, item.pos, other, &shown(item), &place, scope) {
            r.notice(item.pos, format!("{place}: every service of the stack finds this one by that name"));
            waits.add(name, other, item.pos);
            found.insert(other.to_owned());
        }
    }
    found
}

/// The names that links give to services, by service.
pub(super) fn aliases(services: &[Entry]) -> BTreeMap<String, BTreeSet<String>> {
    let mut names: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for entry in services {
        let Some(Value::List(items)) = entry.value.get("links").map(|node| &node.value) else { continue };
        for item in items.iter().take(100) {
            let Value::Scalar(scalar) = &item.value else { continue };
            if let Some((other, alias)) = scalar.text.split_once(':').filter(|(_, alias)| is_host(alias)) {
                names.entry(other.to_owned()).or_default().insert(alias.to_owned());
            }
        }
    }
    names
}
