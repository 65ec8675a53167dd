//! PostgreSQL, Redis and MariaDB together, until all are healthy.

use std::process::Command;
use std::time::Instant;

use tests::harness::condition::{SOON, eventually};

use super::place::{Place, rounds, since};
use super::report::{Samples, section};

const STACK: &str = "
services:
  postgres:
    image: postgres:15
    environment: { POSTGRES_PASSWORD: shop }
    ports: [\"25997:5432\"]
    volumes: [\"pg:/var/lib/postgresql/data\"]
    healthcheck: { test: [CMD, pg_isready, -U, postgres], interval: 1s, retries: 60 }
  redis:
    image: redis:7
    ports: [\"25996:6379\"]
    volumes: [\"kv:/data\"]
    healthcheck: { test: [CMD, redis-cli, ping], interval: 1s, retries: 60 }
  mariadb:
    image: mariadb:10.11
    environment: { MARIADB_ROOT_PASSWORD: shop }
    ports: [\"25995:3306\"]
    volumes: [\"my:/var/lib/mysql\"]
    healthcheck: { test: [CMD, mariadb-admin, ping, -pshop], interval: 1s, retries: 60 }
volumes: { pg: , kv: , my: }
";

pub fn measure() -> String {
    let place = Place::open(STACK);
    place.muster(&["seed", "import", "big"]).ok();
    let (mut seeded, mut empty, mut theirs, mut theirs_empty) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds() {
        for (words, samples) in
            [(["--from", "big"].as_slice(), &mut seeded), (&[], &mut empty)] as [(&[&str], &mut Vec<f64>); 2]
        {
            let begun = Instant::now();
            place.muster(&[&["env", "up", "--name", "big"], words].concat()).ok();
            samples.push(since(begun));
            place.muster(&["env", "down", "big"]).ok();
        }
        compose(&place, &["down", "-v"]);
        for samples in [&mut theirs_empty, &mut theirs] {
            let begun = Instant::now();
            compose(&place, &["up", "-d"]);
            healthy(&place);
            samples.push(since(begun));
            compose(&place, &["down"]);
        }
    }
    compose(&place, &["down", "-v"]);
    let row = |what: &str, samples: Vec<f64>, goal: &str| {
        vec![what.to_owned(), format!("{} ms", Samples::of(samples).shown()), goal.to_owned()]
    };
    section(
        "Three stores, all healthy",
        &["", "median (least–largest)", "goal"],
        &[
            row("`muster env up --from`", seeded, "1500 ms"),
            row("`docker-compose up -d` on volumes that are filled already", theirs, ""),
            row("`muster env up`, empty: the images set their data up", empty, ""),
            row("`docker-compose up -d`, empty", theirs_empty, ""),
        ],
        &format!(
            "PostgreSQL 15, Redis 7 and MariaDB 10.11, {} times in turns. `env up` is done when all are healthy; with docker-compose it is waited \
             for all three health checks, which run every second.",
            rounds()
        ),
    )
}

fn compose(place: &Place, arguments: &[&str]) -> String {
    let out = Command::new("docker-compose")
        .args(["-p", &place.cluster.name()])
        .args(arguments)
        .current_dir(&place.folder)
        .output()
        .expect("docker-compose runs");
    assert!(out.status.success(), "docker-compose {arguments:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

fn healthy(place: &Place) {
    let ids = compose(place, &["ps", "-q"]);
    let ids: Vec<&str> = ids.split_whitespace().collect();
    eventually(SOON, "all are healthy", || {
        let words = [&["inspect", "--format", "{{.State.Health.Status}}"], ids.as_slice()].concat();
        let told = place.host.engine.try_run(&words)?;
        if told.lines().count() == 3 && told.lines().all(|line| line == "healthy") { Ok(()) } else { Err(told) }
    });
}
