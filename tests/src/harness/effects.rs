//! What an agent changes outside itself, counted: listed, and each a place to kill the agent at, or to have it wait at.

use std::path::PathBuf;

use super::host::Host;

/// The effects of one agent: `agent/src/failpoints.rs` says what its files mean.
#[derive(Debug)]
pub struct Effects {
    folder: PathBuf,
}

impl Effects {
    /// Those of this host's agent.
    #[must_use]
    pub fn of(host: &Host) -> Self {
        Self { folder: host.folder().join("state") }
    }

    fn write(&self, name: &str, number: usize) {
        let (path, new) = (self.folder.join(name), self.folder.join("effects.new"));
        // Whole or not there.
        std::fs::write(&new, number.to_string()).expect("written");
        std::fs::rename(new, path).expect("renamed");
    }

    fn remove(&self, name: &str) {
        // What was reached is gone already.
        let _ = std::fs::remove_file(self.folder.join(name));
    }

    /// What `act` changes, in order.
    ///
    /// # Panics
    /// The state folder cannot be written.
    pub fn during(&self, act: impl FnOnce()) -> Vec<String> {
        let log = self.folder.join("effects.log");
        std::fs::write(&log, "").expect("written");
        act();
        let text = std::fs::read_to_string(&log).expect("read");
        std::fs::remove_file(log).expect("removed");
        text.lines().map(str::to_owned).collect()
    }

    /// The agent dies before the `number`-th effect from now on.
    ///
    /// # Panics
    /// The state folder cannot be written.
    pub fn kill_at(&self, number: usize) {
        self.write("effects.kill", number);
    }

    /// It does not: other work would take the kill later.
    pub fn spare(&self) {
        self.remove("effects.kill");
    }

    /// The agent waits before the `number`-th effect from now on.
    ///
    /// # Panics
    /// The state folder cannot be written.
    pub fn hold_at(&self, number: usize) {
        self.write("effects.hold", number);
    }

    /// The effect before which it waits.
    #[must_use]
    pub fn waits_at(&self) -> Option<String> {
        std::fs::read_to_string(self.folder.join("effects.here")).ok().filter(|name| !name.is_empty())
    }

    /// It waits no longer.
    pub fn release(&self) {
        self.remove("effects.here");
        self.remove("effects.hold");
    }
}

/// Which effects out of so many are tried: one in their middle, so many evenly spread with `MUSTER_TEST_KILLS=N`, or `all`.
///
/// # Panics
/// The variable says something else.
#[must_use]
pub fn chosen(count: usize) -> Vec<usize> {
    match std::env::var("MUSTER_TEST_KILLS").as_deref() {
        Ok("all") => (1..=count).collect(),
        Ok(few) => spread(count, few.parse().expect("MUSTER_TEST_KILLS is a number or `all`")),
        Err(_) => spread(count, 1),
    }
}

fn spread(count: usize, few: usize) -> Vec<usize> {
    let mut some: Vec<usize> = (0..few).map(|index| ((2 * index + 1) * count / (2 * few) + 1).min(count)).collect();
    some.dedup();
    some
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_are_spread_over_all_and_within_them() {
        assert_eq!(spread(10, 4), [2, 4, 7, 9]);
        assert_eq!(spread(2, 4), [1, 2]);
        assert_eq!(spread(1, 3), [1]);
        assert_eq!(spread(9, 1), [5]);
    }
}
