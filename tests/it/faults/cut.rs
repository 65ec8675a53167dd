//! A host is cut off both ways in the middle of a step, silently.

use std::time::Duration;

use tests::harness::cluster::{Cluster, Options};
use tests::harness::condition::{SOON, eventually};
use tests::harness::example::Example;
use tests::harness::fleet::Fleet;
use tests::harness::host::Host;
use tests::harness::namespace::Namespace;
use tests::harness::real;

use crate::system::production::health;

/// The release that the bot on this host serves, asked on the host itself, past the cut.
fn serves(namespace: &Namespace, host: &Host) -> Result<String, String> {
    let mut words = namespace.prefix();
    words.extend(
        ["curl", "-fsS", "--max-time", "3", &format!("http://{}:8080/health", host.address)].map(str::to_owned),
    );
    let out = std::process::Command::new(&words[0]).args(&words[1..]).output().map_err(|why| why.to_string())?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let health: serde_json::Value = serde_json::from_str(&text).map_err(|why| format!("{why}: {text}"))?;
    health["release"].as_str().map(str::to_owned).ok_or(text)
}

#[test]
fn cut_off_while_it_is_checked_a_host_undoes_by_itself_and_is_brought_forward_when_it_is_back() {
    let Some(_turn) = real::aside() else { return };
    let namespace = Namespace::up("muster-it-cut", 231);
    let port = u16::try_from(17_000 + std::process::id() % 1000).expect("a port");
    let cluster = Cluster::with(&Options { example: true, everywhere: Some(port), ..Options::default() });
    let engine = tests::harness::docker::Engine::at(&namespace.engine);
    let fleet = Fleet::on(&cluster, engine);
    let host = cluster.host("edge-1").member(fleet.network(), true).inside(&namespace).join();
    let rollout = |version: &str| {
        let settings =
            ["min_healthy_time=3s", "bake_time=0s", "final_bake_time=0s", "confirm_deadline=5s", "drain_timeout=2s"];
        let mut arguments = vec!["rollout", "start", "bot/production", Example::get().commit(version)];
        settings.iter().for_each(|setting| arguments.extend(["--set", setting]));
        cluster.muster(&arguments).by("jenkins")
    };
    rollout("v1").ok();
    assert_eq!(health(&host).expect("it serves")["release"], "1");

    let mut waiting = rollout("v2").begin();
    eventually(SOON, "the step is checked", || {
        let shown = cluster.muster(&["rollout", "status", "bot/production"]).json();
        if shown["steps"][0]["state"] == "STEP_STATE_CHECKING" { Ok(()) } else { Err(shown.to_string()) }
    });
    namespace.cut();
    // Its verdict reaches nobody: after the confirm deadline it goes back by itself, with nobody's help.
    eventually(Duration::from_secs(40), "it serves the old release again", || {
        let release = serves(&namespace, &host)?;
        if release == "1" { Ok(()) } else { Err(format!("release {release}")) }
    });
    cluster.wait_host("edge-1", "UNREACHABLE", Duration::from_secs(60));
    assert!(waiting.runs(), "the client waits: {}", waiting.so_far());
    cluster.muster(&["rollout", "status", "--why", "bot/production"]).ok().says("waiting for").says("edge-1");

    namespace.heal();
    waiting.finish().with_code(0);
    assert_eq!(health(&host).expect("it serves")["release"], "2");
    let shown = cluster.muster(&["rollout", "status", "bot/production"]).json();
    assert_eq!(shown["steps"][0]["attempt"], 2, "one attempt was undone, the second held: {shown}");
    eventually(SOON, "nothing runs twice", || {
        let running = host.running();
        if running.len() == 2 && running.iter().all(|name| name.ends_with("-r2")) {
            Ok(())
        } else {
            Err(format!("{running:?}"))
        }
    });
    fleet.scheduler_never_doubled(2);
}

#[test]
fn cut_off_one_way_only_a_host_is_unreachable_and_comes_back() {
    let Some(_turn) = real::aside() else { return };
    let namespace = Namespace::bare("muster-it-one-way", 234);
    let port = u16::try_from(16_000 + std::process::id() % 1000).expect("a port");
    let cluster = Cluster::with(&Options { everywhere: Some(port), ..Options::default() });
    let host = cluster.host("edge-1").inside(&namespace).join();
    for way in ["in", "out"] {
        namespace.cut_one_way(way);
        cluster.wait_host(&host.name, "UNREACHABLE", Duration::from_secs(60));
        namespace.heal();
        cluster.wait_host(&host.name, "READY", Duration::from_secs(60));
    }
}
