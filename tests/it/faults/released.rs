//! The engine of a host that serves a release is killed, restarted, or loses its networks.

use serde_json::Value;
use tests::harness::call::Call;
use tests::harness::cluster::{Cluster, Options};
use tests::harness::condition::{SOON, eventually};
use tests::harness::docker::Engine;
use tests::harness::example::Example;
use tests::harness::fleet::Fleet;
use tests::harness::host::Host;
use tests::harness::namespace::Namespace;
use tests::harness::real;

use crate::system::production::health;

struct Edge {
    namespace: Namespace,
    fleet: Fleet,
    host: Host,
    cluster: Cluster,
}

impl Edge {
    fn up(name: &str, index: u8) -> Self {
        let namespace = Namespace::up(name, index);
        namespace.load(&["postgres:15", "redis:7", "bot:v1", "bot:v2"]);
        let port = u16::try_from(10_000 + 1000 * (u32::from(index) % 2) + std::process::id() % 1000).expect("a port");
        let cluster = Cluster::with(&Options { example: true, everywhere: Some(port), ..Options::default() });
        let fleet = Fleet::on(&cluster, Engine::at(&namespace.engine));
        let host = cluster.host("edge-1").member(&fleet.network, true).inside(&namespace).join();
        Self { namespace, fleet, host, cluster }
    }

    fn rollout(&self, version: &str, more: &[&str]) -> Call {
        let mut words = vec!["rollout", "start", "bot/production", Example::get().commit(version)];
        words.extend(more);
        for short in ["min_healthy_time=2s", "bake_time=0s", "final_bake_time=0s", "drain_timeout=2s"] {
            words.extend(["--set", short]);
        }
        self.cluster.muster(&words).by("jenkins")
    }

    fn newest(&self) -> Value {
        self.cluster.muster(&["rollout", "status", "bot/production"]).json()
    }

    /// It serves this release, with both of its processes once each, and nothing else runs.
    fn serves(&self, release: u64) {
        eventually(SOON, &format!("it serves release {release}"), || {
            let told = health(&self.host)?;
            if told["release"] == release.to_string().as_str() { Ok(()) } else { Err(told.to_string()) }
        });
        let end = format!("-r{release}");
        eventually(SOON, "both of its processes run, and nothing else", || {
            let running = self.host.running();
            let right = running.len() == 2 && running.iter().all(|name| name.ends_with(&end));
            if right { Ok(()) } else { Err(format!("{running:?}")) }
        });
    }
}

#[test]
fn what_was_released_comes_back_with_its_engine_also_without_its_networks() {
    let Some(_turn) = real::turn() else { return };
    let edge = Edge::up("muster-it-released", 239);
    edge.rollout("v1", &[]).ok();
    edge.serves(1);
    edge.namespace.crash_engine();
    edge.serves(1);
    edge.namespace.restart_engine();
    edge.serves(1);
    // The way out of moby#45057.
    edge.namespace.kill_engine();
    edge.namespace.forget_networks();
    edge.namespace.start_engine();
    edge.fleet.mend();
    edge.serves(1);
    assert!(edge.fleet.scheduler_never_doubled() >= 4);
}

#[test]
fn a_release_whose_engine_is_killed_while_it_is_checked_holds_or_goes_back_and_is_not_blamed() {
    let Some(_turn) = real::turn() else { return };
    let edge = Edge::up("muster-it-checked", 240);
    edge.rollout("v1", &[]).ok();
    let waiting = edge.rollout("v2", &[]).begin();
    eventually(SOON, "the step is checked", || {
        let shown = edge.newest();
        if shown["steps"][0]["state"] == "STEP_STATE_CHECKING" { Ok(()) } else { Err(shown.to_string()) }
    });
    edge.namespace.crash_engine();
    let ended = waiting.finish();
    // It goes on where the engine is back before too many answers failed.
    if ended.code != 0 {
        ended.with_code(6).says("the container engine was away meanwhile");
        edge.serves(1);
        edge.rollout("v2", &["--unlock"]).ok();
    }
    edge.serves(2);
    assert!(edge.fleet.scheduler_never_doubled() >= 2);
}
