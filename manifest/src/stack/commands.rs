//! `command:`, `entrypoint:`.

use crate::reader::{Reader, shown};
use crate::words;
use crate::yaml::{Node, Value};

/// A list, or a text that is split into words as Compose does; empty: nothing instead of the image's own.
pub(super) fn read(r: &mut Reader, node: &Node, place: &str) -> Option<Vec<String>> {
    match &node.value {
        Value::List(_) => r.texts(node, place),
        _ => {
            let text = r.text(node, place)?;
            match words::split(text) {
                Ok(words) => Some(words),
                Err(error) => {
                    r.value(
                        node,
                        format!("{place} is {}: {error}", shown(node)),
                        "quote it, or write [/bin/sh, -c, \"…\"] if a shell is meant",
                    );
                    None
                }
            }
        }
    }
}
