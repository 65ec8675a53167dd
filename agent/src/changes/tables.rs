//! Comparing stores that have tables (or what can be taken for tables), whatever their language is.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use proto::v1;

use super::tally::{Cell, Rows, Tally, merge};
use super::teller::Teller;

/// Longest values of an example, in bytes.
const MOST_VALUES: usize = 4 << 10;

/// A table of one side.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Table {
    /// As it stands in the store's language.
    pub from: String,
    /// Types of its columns.
    pub columns: BTreeMap<String, String>,
    /// Its primary key; empty: none.
    pub key: Vec<String>,
}

/// What is read of a table on both sides alike.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Shape {
    /// As it stands in the store's language.
    pub from: String,
    /// The columns that both sides have, with their types here.
    pub columns: BTreeMap<String, String>,
    /// The primary key, if both sides have the same one; otherwise rows are told apart by what is in them.
    pub key: Vec<String>,
}

/// How many rows there are, and sums over their hashes: equal on both sides, so are the rows.
pub(super) type Total = (u64, String);

/// One side of a comparison. Reads only, as of one instant.
#[async_trait]
pub(super) trait Side: Send {
    /// All tables by the name that people know them by.
    async fn tables(&mut self) -> Result<BTreeMap<String, Table>, String>;
    /// Counts the rows, and sums up their hashes on the server. None: the store cannot.
    async fn total(&mut self, shape: &Shape) -> Result<Option<Total>, String>;
    /// How many rows there are.
    async fn count(&mut self, table: &Table) -> Result<u64, String>;
    /// The rows in the order of their keys.
    fn rows<'a>(&'a mut self, shape: &'a Shape) -> Rows<'a>;
    /// The row of that key as a JSON object.
    async fn row(&mut self, shape: &Shape, key: &[Cell]) -> Result<Option<String>, String>;
    /// Lets go of what the last table held up, so that nobody waits for the rest of the comparison.
    async fn let_go(&mut self) -> Result<(), String>;
}

/// What a table's columns became.
pub(super) fn columns(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> Vec<String> {
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    names
        .into_iter()
        .filter_map(|name| match (before.get(name), after.get(name)) {
            (None, Some(new)) => Some(format!("+ {name} {new}")),
            (Some(old), None) => Some(format!("- {name} {old}")),
            (Some(old), Some(new)) if old != new => Some(format!("~ {name} {old} -> {new}")),
            _ => None,
        })
        .collect()
}

/// What both sides can be asked alike: the seed's shape and the environment's.
fn shapes(before: &Table, after: &Table) -> (Shape, Shape) {
    let common = |one: &Table, other: &Table| -> BTreeMap<String, String> {
        let both = one.columns.iter().filter(|(name, _)| other.columns.contains_key(*name));
        both.map(|(name, kind)| (name.clone(), kind.clone())).collect()
    };
    // A key column of another type is ordered in another way.
    let same = |name: &String| before.columns.get(name) == after.columns.get(name);
    let key = if before.key == after.key && before.key.iter().all(same) { before.key.clone() } else { Vec::new() };
    (
        Shape { from: before.from.clone(), columns: common(before, after), key: key.clone() },
        Shape { from: after.from.clone(), columns: common(after, before), key },
    )
}

/// Compares all tables of two sides and tells what differs. False: its time is over, and neither side can be used again.
pub(super) async fn compare(seed: &mut dyn Side, own: &mut dyn Side, prefix: &str, teller: &mut Teller) -> bool {
    let listed = async { tokio::try_join!(seed.tables(), own.tables()) };
    let (before, after) = match tokio::time::timeout_at(teller.deadline, listed).await {
        Ok(Ok(listed)) => listed,
        Ok(Err(why)) => {
            teller.left_out(prefix, &why).await;
            return true;
        }
        Err(_) => {
            teller.left_out(prefix, LATE).await;
            return false;
        }
    };
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let mut usable = true;
    for name in names {
        let shown = format!("{prefix}{name}");
        if !usable || teller.late() {
            usable = false;
            teller.left_out(&shown, LATE).await;
            continue;
        }
        teller.progress(format!("comparing {}: {shown}", teller.service)).await;
        let (most, values) = (teller.rows, teller.values);
        let both = One { seed, own, most, values };
        match tokio::time::timeout_at(teller.deadline, both.compare(before.get(name), after.get(name))).await {
            Ok(Ok(None)) => teller.same(),
            Ok(Ok(Some(object))) => teller.found(v1::ObjectDiff { name: shown, ..object }).await,
            Ok(Err(why)) => teller.left_out(&shown, &why).await,
            Err(_) => {
                usable = false;
                teller.left_out(&shown, LATE).await;
                continue;
            }
        }
        let let_go = async { tokio::try_join!(seed.let_go(), own.let_go()) };
        usable = matches!(tokio::time::timeout_at(teller.deadline, let_go).await, Ok(Ok(_)));
    }
    usable
}

/// Why something was left out when the time is over.
pub(super) const LATE: &str = "no time was left; give more with --within";

struct One<'a> {
    seed: &'a mut dyn Side,
    own: &'a mut dyn Side,
    most: usize,
    values: bool,
}

impl One<'_> {
    async fn compare(self, before: Option<&Table>, after: Option<&Table>) -> Result<Option<v1::ObjectDiff>, String> {
        match (before, after) {
            (None, None) => Ok(None),
            (None, Some(new)) => Ok(Some(v1::ObjectDiff {
                presence: v1::ObjectPresence::New.into(),
                added: self.own.count(new).await?,
                ..v1::ObjectDiff::default()
            })),
            (Some(old), None) => Ok(Some(v1::ObjectDiff {
                presence: v1::ObjectPresence::Gone.into(),
                removed: self.seed.count(old).await?,
                ..v1::ObjectDiff::default()
            })),
            (Some(old), Some(new)) => self.both(old, new).await,
        }
    }

    async fn both(self, old: &Table, new: &Table) -> Result<Option<v1::ObjectDiff>, String> {
        let columns = columns(&old.columns, &new.columns);
        let (before, after) = shapes(old, new);
        let totals = tokio::try_join!(self.seed.total(&before), self.own.total(&after))?;
        let same = matches!(&totals, (Some(old), Some(new)) if old == new);
        let tally = if same {
            Tally::default()
        } else {
            merge(self.seed.rows(&before), self.own.rows(&after), self.most).await?
        };
        if tally.is_empty() && columns.is_empty() {
            return Ok(None);
        }
        let mut examples = Vec::new();
        // Without a key there is nothing to name a row by.
        for (change, key) in tally.examples.iter().filter(|_| !after.key.is_empty()) {
            let named: Vec<String> = after.key.iter().zip(key).map(|(name, cell)| format!("{name}={cell}")).collect();
            let mut example = v1::DiffExample { change: (*change).into(), key: named.join(" "), ..Default::default() };
            if self.values {
                let (old, new) = tokio::try_join!(self.seed.row(&before, key), self.own.row(&after, key))?;
                (example.before, example.after) = values(old.unwrap_or_default(), new.unwrap_or_default());
            }
            examples.push(example);
        }
        Ok(Some(v1::ObjectDiff {
            presence: v1::ObjectPresence::Both.into(),
            added: tally.added,
            removed: tally.removed,
            changed: tally.changed,
            columns,
            examples,
            ..v1::ObjectDiff::default()
        }))
    }
}

/// Of two rows, what differs; a single one as it is. Cut where it is long.
pub(super) fn values(before: String, after: String) -> (String, String) {
    let read = |text: &str| serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(text).ok();
    let cut = |mut text: String| {
        if text.len() > MOST_VALUES {
            let end = (0..=MOST_VALUES).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
            text.truncate(end);
            text.push('…');
        }
        text
    };
    if let (Some(mut old), Some(mut new)) = (read(&before), read(&after)) {
        let both = old.clone();
        old.retain(|name, value| new.get(name) != Some(value));
        new.retain(|name, value| both.get(name) != Some(value));
        let text = |map| serde_json::Value::Object(map).to_string();
        return (cut(text(old)), cut(text(new)));
    }
    (cut(before), cut(after))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(columns: &[(&str, &str)], key: &[&str]) -> Table {
        Table {
            from: "t".to_owned(),
            columns: columns.iter().map(|(name, kind)| ((*name).to_owned(), (*kind).to_owned())).collect(),
            key: key.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    #[test]
    fn what_became_of_columns_is_told() {
        let before = table(&[("id", "integer"), ("age", "integer"), ("old", "text")], &[]);
        let after = table(&[("id", "integer"), ("age", "bigint"), ("email", "text")], &[]);
        assert_eq!(columns(&before.columns, &after.columns), ["~ age integer -> bigint", "+ email text", "- old text"]);
    }

    #[test]
    fn rows_are_compared_by_what_both_sides_have() {
        let before = table(&[("id", "integer"), ("old", "text")], &["id"]);
        let after = table(&[("id", "integer"), ("new", "text")], &["id"]);
        let (seed, own) = shapes(&before, &after);
        assert_eq!(seed.columns.keys().collect::<Vec<_>>(), ["id"]);
        assert_eq!((seed.columns == own.columns, seed.key), (true, vec!["id".to_owned()]));
        // Numbers and texts are ordered in different ways.
        let other = table(&[("id", "text")], &["id"]);
        assert!(shapes(&before, &other).0.key.is_empty());
        assert!(shapes(&before, &table(&[("id", "integer")], &[])).1.key.is_empty());
    }

    #[test]
    fn of_a_changed_row_only_the_difference_is_shown() {
        let (before, after) = values(r#"{"id":1,"a":"x","b":2}"#.to_owned(), r#"{"id":1,"a":"y","b":2}"#.to_owned());
        assert_eq!((before.as_str(), after.as_str()), (r#"{"a":"x"}"#, r#"{"a":"y"}"#));
        let (before, after) = values(String::new(), format!("{{\"a\":\"{}\"}}", "ü".repeat(5000)));
        assert!(before.is_empty() && after.len() <= MOST_VALUES + 4 && after.ends_with('…'));
    }
}
