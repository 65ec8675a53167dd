//! Many environments after their host came back.

use std::time::{Duration, Instant};

use tests::harness::condition::eventually;

use super::place::{Place, small};
use super::report::{figure, section};

const STACK: &str = "
name: big
services:
  postgres:
    image: postgres:15
    environment: { POSTGRES_PASSWORD: shop }
    ports: [\"5432\"]
    volumes: [\"db:/var/lib/postgresql/data\"]
  redis:
    image: redis:7
    ports: [\"6379\"]
    depends_on: { postgres: { condition: service_healthy } }
volumes: { db: }
x-muster: { idle: never }
";
const LIMIT: Duration = Duration::from_secs(300);

pub fn measure() -> String {
    let environments = if small() { 3 } else { 20 };
    let mut place = Place::open(STACK);
    place.muster(&["seed", "import", "big"]).ok();
    let names: Vec<String> = (1..=environments).map(|number| format!("e{number}")).collect();
    for name in &names {
        place.muster(&["env", "up", "--from", "big", "--name", name]).ok();
    }
    place.host.power_off();
    let begun = Instant::now();
    place.host.power_on();
    let shown = eventually(LIMIT, "all are ready", || {
        let list = place.muster(&["env", "list"]).json();
        let all = list["environments"].as_array().cloned().unwrap_or_default();
        let ready = all.iter().filter(|one| one["state"] == "ENVIRONMENT_STATE_READY" && one["stale"] != true).count();
        // What the coordinator knew before counts only once everything runs again.
        let running = place.host.running().len();
        if ready == names.len() && running == 2 * names.len() { Ok(ready) } else { Err(format!("{ready}, {running}")) }
    });
    let took = begun.elapsed().as_secs_f64();
    for name in &names {
        place.muster(&["env", "down", name]).ok();
    }
    section(
        "After a reboot of the host",
        &["", "s", "goal"],
        &[vec![
            format!("{shown} environments ready again, in the order of their dependencies"),
            figure(took),
            "30".to_owned(),
        ]],
        "PostgreSQL 15 and Redis 7 each. The agent, its relay and all containers were killed at once; the time runs from the agent's start, which \
         here includes no start of the engine. Once.",
    )
}
