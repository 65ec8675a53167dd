//! Simulated rollouts per second, by the simulator itself.

use std::process::Command;
use std::time::Instant;

use tests::harness::binaries;

use super::report::{figure, section};

const ROLLOUTS: u32 = 20_000;

pub fn measure() -> String {
    let begun = Instant::now();
    let out = Command::new(binaries::folder().join("simulate"))
        .args(["--rollouts", &ROLLOUTS.to_string()])
        .output()
        .expect("the simulator runs");
    let took = begun.elapsed().as_secs_f64();
    let printed = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success(), "{printed}{}", String::from_utf8_lossy(&out.stderr));
    let last: Vec<&str> = printed.trim().lines().rev().take(1).collect();
    section(
        "Simulated rollouts",
        &["", ""],
        &[
            vec!["rollouts with random faults".to_owned(), ROLLOUTS.to_string()],
            vec!["seconds".to_owned(), figure(took)],
            vec!["rollouts per second".to_owned(), figure(f64::from(ROLLOUTS) / took)],
        ],
        &format!("The shipping decisions, all invariants checked after every step. `{}`", last.concat().trim()),
    )
}
