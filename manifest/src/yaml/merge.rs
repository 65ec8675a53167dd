//! `<<`: the keys of another map, under the map's own.

use std::collections::BTreeSet;

use super::{Entry, Node, Value};
use crate::problem::Pos;

/// Puts the merged maps' keys behind the map's own; of several maps the first wins.
///
/// # Errors
/// The place of a `<<` with something else than maps.
pub(super) fn resolve(entries: Vec<Entry>) -> Result<Vec<Entry>, Pos> {
    if !entries.iter().any(|entry| entry.merge) {
        return Ok(entries);
    }
    let (merges, mut own): (Vec<Entry>, Vec<Entry>) = entries.into_iter().partition(|entry| entry.merge);
    let mut seen: BTreeSet<String> = own.iter().map(|entry| entry.key.clone()).collect();
    for merge in &merges {
        for entry in sources(&merge.value)? {
            if seen.insert(entry.key.clone()) {
                own.push(entry.clone());
            }
        }
    }
    Ok(own)
}

fn sources(node: &Node) -> Result<Vec<&Entry>, Pos> {
    match &node.value {
        Value::Map(entries) => Ok(entries.iter().collect()),
        Value::List(items) => {
            let mut all = Vec::new();
            for item in items {
                match &item.value {
                    Value::Map(entries) => all.extend(entries),
                    _ => return Err(item.pos),
                }
            }
            Ok(all)
        }
        Value::Scalar(_) => Err(node.pos),
    }
}
