//! Two ordered streams of rows, walked through together: what is in one and not in the other, and what differs.

use std::cmp::Ordering;
use std::fmt;

use futures::stream::{BoxStream, StreamExt as _};
use proto::v1;

/// Longest key that is shown, in characters.
const SHOWN: usize = 200;

/// One column of a key. Both sides order by the same expression, and so does this type.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Cell {
    /// A whole number, ordered as such.
    Number(i128),
    /// Anything else, ordered by its bytes.
    Bytes(Vec<u8>),
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Bytes(bytes) => {
                let text = String::from_utf8_lossy(bytes);
                let shown: String = text.chars().filter(|c| !c.is_control()).take(SHOWN).collect();
                f.write_str(&shown)
            }
        }
    }
}

/// A row, as far as it is needed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Row {
    /// Its primary key; without one, its hash.
    pub key: Vec<Cell>,
    /// Hash of its values.
    pub hash: String,
    /// How often it is there; more than once only without a primary key.
    pub count: u64,
}

/// Rows in the order of their keys.
pub(super) type Rows<'a> = BoxStream<'a, Result<Row, String>>;

/// What differs between two tables.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Tally {
    /// Only in the environment.
    pub added: u64,
    /// Only in the seed.
    pub removed: u64,
    /// Under the same key, with other values.
    pub changed: u64,
    /// The first keys of each kind.
    pub examples: Vec<(v1::DiffChange, Vec<Cell>)>,
}

impl Tally {
    /// Notes `count` rows, and the key as an example unless there are `most` of its kind.
    pub fn note(&mut self, change: v1::DiffChange, key: Vec<Cell>, count: u64, most: usize) {
        match change {
            v1::DiffChange::Added => self.added += count,
            v1::DiffChange::Removed => self.removed += count,
            _ => self.changed += count,
        }
        if self.examples.iter().filter(|(kind, _)| *kind == change).count() < most {
            self.examples.push((change, key));
        }
    }

    /// Nothing differs.
    pub fn is_empty(&self) -> bool {
        self.added == 0 && self.removed == 0 && self.changed == 0
    }
}

/// Walks through both, keeping one row of each in memory and `most` keys of each kind of change.
///
/// # Errors
/// What a side says, or that it is not in order.
pub(super) async fn merge(mut seed: Rows<'_>, mut own: Rows<'_>, most: usize) -> Result<Tally, String> {
    let mut tally = Tally::default();
    let (mut before, mut after) = (next(&mut seed, None).await?, next(&mut own, None).await?);
    loop {
        let order = match (&before, &after) {
            (None, None) => return Ok(tally),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(before), Some(after)) => before.key.cmp(&after.key),
        };
        if let (Some(old), Ordering::Less) = (&before, order) {
            tally.note(v1::DiffChange::Removed, old.key.clone(), old.count, most);
        }
        if let (Some(new), Ordering::Greater) = (&after, order) {
            tally.note(v1::DiffChange::Added, new.key.clone(), new.count, most);
        }
        if let (Some(old), Some(new), Ordering::Equal) = (&before, &after, order) {
            if old.hash != new.hash {
                tally.note(v1::DiffChange::Changed, new.key.clone(), 1, most);
            }
            let (more, less) = (new.count.saturating_sub(old.count), old.count.saturating_sub(new.count));
            if more > 0 {
                tally.note(v1::DiffChange::Added, new.key.clone(), more, most);
            }
            if less > 0 {
                tally.note(v1::DiffChange::Removed, old.key.clone(), less, most);
            }
        }
        if order != Ordering::Greater {
            before = next(&mut seed, before).await?;
        }
        if order != Ordering::Less {
            after = next(&mut own, after).await?;
        }
    }
}

async fn next(rows: &mut Rows<'_>, last: Option<Row>) -> Result<Option<Row>, String> {
    let next = rows.next().await.transpose()?;
    match (&last, &next) {
        // Without order the numbers would be made up.
        (Some(last), Some(next)) if next.key <= last.key => {
            Err("its rows do not come in the order of their keys".to_owned())
        }
        _ => Ok(next),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::stream;

    fn rows(of: &[(i128, &str, u64)]) -> Rows<'static> {
        let rows: Vec<Result<Row, String>> = of
            .iter()
            .map(|(key, hash, count)| {
                Ok(Row { key: vec![Cell::Number(*key)], hash: (*hash).to_owned(), count: *count })
            })
            .collect();
        stream::iter(rows).boxed()
    }

    #[tokio::test]
    async fn rows_are_told_apart_by_their_keys() {
        let seed = rows(&[(1, "a", 1), (2, "b", 1), (3, "c", 1), (9, "z", 1)]);
        let own = rows(&[(0, "n", 1), (1, "a", 1), (3, "x", 1), (4, "d", 1), (10, "e", 1)]);
        let tally = merge(seed, own, 2).await.expect("in order");
        assert_eq!((tally.added, tally.removed, tally.changed), (3, 2, 1));
        let keys = |wanted| {
            let of = tally.examples.iter().filter(move |(kind, _)| *kind == wanted);
            of.map(|(_, key)| key[0].to_string()).collect::<Vec<_>>()
        };
        assert_eq!(keys(v1::DiffChange::Added), ["0", "4"], "no more examples than asked for");
        assert_eq!(keys(v1::DiffChange::Removed), ["2", "9"]);
        assert_eq!(keys(v1::DiffChange::Changed), ["3"]);
    }

    #[tokio::test]
    async fn equal_rows_without_a_key_are_counted() {
        let tally = merge(rows(&[(1, "", 3), (2, "", 1)]), rows(&[(1, "", 1), (2, "", 4)]), 0).await.expect("in order");
        assert_eq!((tally.added, tally.removed, tally.changed), (3, 2, 0));
        assert!(merge(rows(&[(1, "a", 1)]), rows(&[(1, "a", 1)]), 5).await.expect("in order").is_empty());
    }

    #[tokio::test]
    async fn a_side_out_of_order_is_no_basis_for_numbers() {
        assert!(merge(rows(&[(2, "a", 1), (1, "b", 1)]), rows(&[(5, "a", 1)]), 1).await.is_err());
    }

    #[test]
    fn whole_numbers_are_ordered_as_numbers_and_shown_keys_hold_no_control_characters() {
        assert!(Cell::Number(9) < Cell::Number(10) && Cell::Bytes(b"10".to_vec()) < Cell::Bytes(b"9".to_vec()));
        assert_eq!(Cell::Bytes(b"a\x1b[2Jb".to_vec()).to_string(), "a[2Jb");
    }
}
