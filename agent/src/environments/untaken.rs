//! Orders that could not be taken for a reason that passes: the disk of the agent's state was full.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use proto::v1;

use crate::session::hello::MAX_ENVIRONMENTS;

/// How often they are taken again.
pub const AGAIN: Duration = Duration::from_secs(2);

/// The newest of each environment.
#[derive(Debug, Default)]
pub struct Untaken {
    orders: Mutex<BTreeMap<String, v1::EnvironmentOrder>>,
}

impl Untaken {
    fn orders(&self) -> MutexGuard<'_, BTreeMap<String, v1::EnvironmentOrder>> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps an order, unless a newer one is kept or there are too many; whether it will be taken again.
    pub fn keep(&self, order: v1::EnvironmentOrder) -> bool {
        let mut orders = self.orders();
        let older = orders.get(&order.id).map(|held| held.generation <= order.generation);
        if !older.unwrap_or(orders.len() < MAX_ENVIRONMENTS) {
            return false;
        }
        orders.insert(order.id.clone(), order);
        true
    }

    /// An order of this generation was taken: older ones need not be any more.
    pub fn forget(&self, id: &str, generation: u64) {
        self.orders().retain(|known, order| known != id || order.generation > generation);
    }

    /// All of them.
    pub fn all(&self) -> Vec<v1::EnvironmentOrder> {
        self.orders().values().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(id: &str, generation: u64) -> v1::EnvironmentOrder {
        v1::EnvironmentOrder { id: id.to_owned(), generation, ..Default::default() }
    }

    #[test]
    fn the_newest_order_of_each_environment_is_kept_until_it_is_taken() {
        let untaken = Untaken::default();
        assert!(untaken.keep(order("a", 2)) && untaken.keep(order("b", 1)));
        assert!(!untaken.keep(order("a", 1)), "it is older");
        untaken.forget("a", 1);
        assert_eq!(untaken.all(), [order("a", 2), order("b", 1)]);
        untaken.forget("a", 2);
        assert_eq!(untaken.all(), [order("b", 1)]);
    }
}
