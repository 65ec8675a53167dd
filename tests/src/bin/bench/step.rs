//! What Muster adds to a rollout's step, beyond the same engine calls made by hand and the app's own start.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::harness::clean::LABEL;
use tests::harness::cluster::Cluster;
use tests::harness::condition::closely;
use tests::harness::docker;

use super::engine::Engine;
use super::report::{Samples, section};

const ROUNDS: u32 = 30;
const HOSTS: u32 = 3;

/// An app that starts in a few milliseconds, so that its own time does not hide ours.
const APP: &str = "app: echo
processes:
  web: { command: [redis-server, --port, '8000', --protected-mode, 'no', --save, ''], ports: [8000], health: { tcp: true, interval: 50ms } }
targets:
  production:
    members: bench=yes
    expose: { web: 8080, mode: tcp }
    rollout: { max_parallel: 1, canary: 1, waves: [100%], min_healthy_time: 0s, bake_time: 0s, final_bake_time: 0s, drain_timeout: 0s }
";

/// Ends a container as a release's old one is ended: after the step, while the next one is under way.
fn end(id: String) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let mut engine = Engine::connect();
        engine.call("POST", &format!("/containers/{id}/stop?t=10"), &Value::Null);
        engine.call("DELETE", &format!("/containers/{id}?force=true"), &Value::Null);
    })
}

/// Milliseconds of one step made by hand: create, start, ask for the address, connect until the app answers.
fn by_hand(engine: &mut Engine, network: &str, label: &str, round: u32) -> (f64, String) {
    let begun = Instant::now();
    let name = format!("{network}-by-hand-{round}");
    let spec = json!({
        "Image": "redis:7", "Cmd": ["redis-server", "--port", "8000", "--protected-mode", "no", "--save", ""],
        "Labels": { LABEL: label }, "HostConfig": { "NetworkMode": network },
    });
    let made = engine.call("POST", &format!("/containers/create?name={name}"), &spec);
    let id = made["Id"].as_str().expect("an id").to_owned();
    engine.call("POST", &format!("/containers/{id}/start"), &Value::Null);
    let shown = engine.call("GET", &format!("/containers/{id}/json"), &Value::Null);
    let address = shown["NetworkSettings"]["Networks"][network]["IPAddress"].as_str().expect("an address").to_owned();
    let target = format!("{address}:8000").parse().expect("an address");
    closely("a connection", || TcpStream::connect_timeout(&target, Duration::from_secs(1)).is_ok());
    (begun.elapsed().as_secs_f64() * 1000.0, id)
}

pub fn measure() -> String {
    let cluster = Cluster::start();
    let hosts: Vec<_> = (1..=HOSTS).map(|n| cluster.host(&format!("web-{n}")).label("bench", "yes").join()).collect();
    let folder = cluster.folder().join("echo");
    std::fs::create_dir(&folder).expect("a folder");
    std::fs::write(folder.join("muster.yaml"), APP).expect("muster.yaml");
    cluster.muster(&["app", "apply"]).within(&folder).ok();
    let archive = folder.join("echo.tar").to_string_lossy().into_owned();
    docker::Engine::default().run(&["save", "-o", &archive, "redis:7"]);
    let commit = "0123456789abcdef0123456789abcdef01234567";
    let register = ["build", "register", "echo", commit, "--muster-yaml", "muster.yaml", "--archive", &archive];
    cluster.muster(&register).within(&folder).ok();
    cluster.muster(&["rollout", "start", "echo/production", commit]).ok();

    let label = cluster.name();
    let network = format!("{label}-bench");
    docker::Engine::default().run(&[
        "network",
        "create",
        "--internal",
        "--label",
        &format!("{LABEL}={label}"),
        &network,
    ]);
    let mut engine = Engine::connect();
    let (mut ours, mut hand, mut over) = (Vec::new(), Vec::new(), Vec::new());
    let mut parts: Vec<(&str, Vec<f64>)> =
        ["staged", "warm", "switched", "checked", "confirmed"].iter().map(|name| (*name, Vec::new())).collect();
    for round in 0..ROUNDS {
        let mut ending = Vec::new();
        for n in 0..HOSTS {
            let (took, id) = by_hand(&mut engine, &network, &label, round * HOSTS + n);
            hand.push(took);
            ending.push(end(id));
        }
        ending.into_iter().for_each(|ended| ended.join().expect("it is ended"));
        cluster.muster(&["config", "set", "echo/production", &format!("ROUND={round}")]).ok();
        cluster.muster(&["rollout", "start", "echo/production", commit]).ok();
        let rollout = cluster.muster(&["rollout", "status", "echo/production"]).json();
        let micros = |value: &Value| value.as_f64().expect("a time");
        let step = (micros(&rollout["finished_at"]) - micros(&rollout["created_at"])) / 1000.0 / f64::from(HOSTS);
        let same_round = hand.iter().rev().take(HOSTS as usize).sum::<f64>() / f64::from(HOSTS);
        over.push(step - same_round);
        ours.push(step);
        for step in rollout["steps"].as_array().expect("steps") {
            for (name, values) in &mut parts {
                values.push(step[format!("{name}_micros")].as_f64().unwrap_or(0.0) / 1000.0);
            }
        }
    }
    drop(hosts);
    let (ours, hand, over) = (Samples::of(ours), Samples::of(hand), Samples::of(over));
    let mut rows = vec![
        vec!["rollout, per step".to_owned(), ours.shown()],
        vec!["the same engine calls by hand, and the app's start".to_owned(), hand.shown()],
        vec!["**overhead per step**".to_owned(), format!("**{}** (goal 25)", over.shown())],
    ];
    rows.extend(
        parts.into_iter().map(|(name, values)| vec![format!("of a step: {name}"), Samples::of(values).shown()]),
    );
    section(
        "Overhead per step of a rollout",
        &["", "ms: median (least–largest)"],
        &rows,
        &format!(
            "{ROUNDS} rollouts of redis-server over {HOSTS} hosts one by one, from the call to its end, preflight and all \
             stores (fsync) included, divided by the steps; `min_healthy_time` and bakes are 0. By hand: create, start, inspect, \
             connect until it answers, over the engine's socket, {} times, in turns with the rollouts; the old one is ended beside the \
             next step, here and there. The overhead is a round's step less the same round's by hand.",
            hand.count()
        ),
    )
}
