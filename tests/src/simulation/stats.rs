//! Counts over many scenarios: a kind of fault, an end or a reason for waiting that never happened was not tested.

use std::collections::BTreeMap;
use std::fmt;

use domain::rollout::progress::{Holder, RolloutState};

use super::faults::Fault;

/// Every kind of [`domain::rollout::waiting::Waiting`] that must be seen.
pub const WAITING: [&str; 15] = [
    "turn",
    "staging",
    "syncing",
    "step",
    "min_healthy_time",
    "confirmation",
    "unknown",
    "bake",
    "minimum_healthy_hosts",
    "unhealthy",
    "paused",
    "revert",
    "supersede",
    "parked",
    "ended",
];

/// Counts over many scenarios.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// Scenarios.
    pub scenarios: u64,
    /// Rollouts started.
    pub rollouts: u64,
    /// Events handled.
    pub events: u64,
    /// Hosts, summed.
    pub hosts: u64,
    /// Scenarios by their number of hosts.
    pub sizes: BTreeMap<usize, u64>,
    /// Faults injected, by kind.
    pub faults: BTreeMap<Fault, u64>,
    /// Rollouts by the state they were left in.
    pub ends: BTreeMap<&'static str, u64>,
    /// Rollouts left paused, by holder.
    pub held: BTreeMap<&'static str, u64>,
    /// Turns by what they waited for.
    pub waiting: BTreeMap<&'static str, u64>,
    /// Steps the hosts undid by themselves.
    pub undone: u64,
    /// Members that came back after their rollout had ended.
    pub converged: u64,
}

impl Stats {
    /// Counts a fault.
    pub fn fault(&mut self, fault: Fault) {
        *self.faults.entry(fault).or_default() += 1;
    }

    /// Adds another's counts.
    pub fn add(&mut self, other: &Self) {
        self.scenarios += other.scenarios;
        self.rollouts += other.rollouts;
        self.events += other.events;
        self.hosts += other.hosts;
        self.undone += other.undone;
        self.converged += other.converged;
        merge(&mut self.sizes, &other.sizes);
        merge(&mut self.faults, &other.faults);
        merge(&mut self.ends, &other.ends);
        merge(&mut self.held, &other.held);
        merge(&mut self.waiting, &other.waiting);
    }

    /// Everything that must have happened in a run of many scenarios and did not.
    #[must_use]
    pub fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        for fault in Fault::ALL {
            if !self.faults.contains_key(&fault) {
                missing.push(format!("fault {fault:?}"));
            }
        }
        for state in RolloutState::ALL.into_iter().filter(|state| state.is_terminal() || *state == RolloutState::Paused)
        {
            if !self.ends.contains_key(state.name()) {
                missing.push(format!("end {}", state.name()));
            }
        }
        for holder in Holder::ALL {
            if !self.held.contains_key(holder.name()) {
                missing.push(format!("holder {}", holder.name()));
            }
        }
        for name in WAITING {
            if !self.waiting.contains_key(name) {
                missing.push(format!("waiting {name}"));
            }
        }
        missing.extend((1..=30).filter(|size| !self.sizes.contains_key(size)).map(|size| format!("{size} hosts")));
        if self.undone == 0 {
            missing.push("a step undone by its host".to_owned());
        }
        if self.converged == 0 {
            missing.push("a member converged after the end".to_owned());
        }
        missing
    }

    /// Injected faults per rollout.
    #[must_use]
    pub fn faults_per_rollout(&self) -> f64 {
        let faults: u64 = self.faults.values().sum();
        #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
        let mean = faults as f64 / self.rollouts.max(1) as f64;
        mean
    }
}

fn merge<K: Ord + Clone>(into: &mut BTreeMap<K, u64>, from: &BTreeMap<K, u64>) {
    for (key, count) in from {
        *into.entry(key.clone()).or_default() += count;
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} rollouts in {} scenarios, {} hosts, {} events",
            self.rollouts, self.scenarios, self.hosts, self.events
        )?;
        writeln!(f, "faults ({:.1} per rollout)", self.faults_per_rollout())?;
        for (fault, count) in &self.faults {
            writeln!(f, "  {:<22} {count}", format!("{fault:?}"))?;
        }
        writeln!(f, "  {:<22} {}", "undone by the host", self.undone)?;
        writeln!(f, "  {:<22} {}", "converged later", self.converged)?;
        writeln!(f, "ends")?;
        for (end, count) in &self.ends {
            writeln!(f, "  {end:<22} {count}")?;
        }
        writeln!(f, "pauses by holder")?;
        for (holder, count) in &self.held {
            writeln!(f, "  {holder:<22} {count}")?;
        }
        writeln!(f, "turns by what they waited for")?;
        for (waiting, count) in &self.waiting {
            writeln!(f, "  {waiting:<22} {count}")?;
        }
        Ok(())
    }
}
