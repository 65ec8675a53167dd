//! A table with an undo log.

use std::collections::BTreeMap;
use std::ops::RangeBounds;

/// Rows by key, and what the open transaction replaced.
pub(crate) struct Table<K, V> {
    rows: BTreeMap<K, V>,
    before: Vec<(K, Option<V>)>,
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Self { rows: BTreeMap::new(), before: Vec::new() }
    }
}

impl<K: Ord + Clone, V> Table<K, V> {
    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.rows.get(key)
    }

    pub(crate) fn rows(&self) -> impl DoubleEndedIterator<Item = &V> {
        self.rows.values()
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = (&K, &V)> {
        self.rows.iter()
    }

    pub(crate) fn range(&self, range: impl RangeBounds<K>) -> impl DoubleEndedIterator<Item = (&K, &V)> {
        self.rows.range(range)
    }

    pub(crate) fn put(&mut self, key: K, row: V) {
        let before = self.rows.insert(key.clone(), row);
        self.before.push((key, before));
    }

    /// Whether there was such a row.
    pub(crate) fn delete(&mut self, key: &K) -> bool {
        let before = self.rows.remove(key);
        let there = before.is_some();
        if there {
            self.before.push((key.clone(), before));
        }
        there
    }

    pub(crate) fn changed(&self) -> bool {
        !self.before.is_empty()
    }

    pub(crate) fn keep(&mut self) {
        self.before.clear();
    }

    pub(crate) fn undo(&mut self) {
        while let Some((key, before)) = self.before.pop() {
            match before {
                Some(row) => self.rows.insert(key, row),
                None => self.rows.remove(&key),
            };
        }
    }
}
