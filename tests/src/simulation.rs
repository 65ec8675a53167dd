//! Rollouts by the shipping code in a made-up world: transport, clocks, engines and disks are simulated, nothing else.
//!
//! One seed makes everything: hosts, policy, releases and their bugs, people's asks, and the faults. After every event
//! the invariants of [`check`] must hold; then injection ends, what can heal heals, and everything must come to an end.
//! A failure names the invariant and the seed; `simulate --seed N --trace` replays it line by line.

pub mod brain;
pub mod check;
pub mod faults;
pub mod host;
pub mod rng;
pub mod scenario;
pub mod stats;
#[cfg(test)]
mod tests;
pub mod world;

pub use stats::Stats;
pub use world::{Broken, run};

/// The simulator's time: microseconds since the start of the scenario.
pub type Micros = u64;

/// One second.
pub const SECOND: Micros = 1_000_000;
