//! A connection to an environment that sleeps, until its query is answered.

use std::time::Instant;

use super::place::{Place, queried, rounds};
use super::report::{Samples, section};

const STACK: &str = "
name: big
services:
  postgres:
    image: postgres:15
    environment: { POSTGRES_PASSWORD: shop }
    ports: [\"5432\"]
    volumes: [\"db:/var/lib/postgresql/data\"]
volumes: { db: }
";

pub fn measure() -> String {
    let (frozen, _) = woken("{ freeze: 500ms, stop: never }", "FROZEN");
    let (stopped, awake) = woken("{ freeze: never, stop: 1s }", "ASLEEP");
    let row = |what: &str, samples: Vec<f64>, goal: &str| {
        vec![what.to_owned(), format!("{} ms", Samples::of(samples).shown()), goal.to_owned()]
    };
    section(
        "Wake on connect",
        &["", "median (least–largest)", "goal"],
        &[
            row("frozen → query answered", frozen, "150 ms"),
            row("stopped → query answered", stopped, "600 ms"),
            row("awake: the same query", awake, ""),
        ],
        &format!("PostgreSQL 15, {} times each; psql's own start and login are included.", rounds()),
    )
}

/// Milliseconds of queries that wake it, and of the same ones after.
fn woken(idle: &str, state: &str) -> (Vec<f64>, Vec<f64>) {
    let place = Place::open(&format!("{STACK}x-muster: {{ idle: {idle} }}\n"));
    place.muster(&["env", "up", "--name", "big"]).ok();
    let url = place.url("big", "postgres");
    let (mut asleep, mut awake) = (Vec::new(), Vec::new());
    for _ in 0..rounds() {
        place.reaches("big", state);
        asleep.push(queried(&url, "SELECT 1", Instant::now()));
        awake.push(queried(&url, "SELECT 1", Instant::now()));
    }
    place.muster(&["env", "down", "big"]).ok();
    (asleep, awake)
}
