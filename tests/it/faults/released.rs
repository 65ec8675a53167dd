//! The engine of a host that serves a release is killed, restarted, or loses its networks.

use tests::harness::call::{Call, Output, Running};
use tests::harness::cluster::{Cluster, Options};
use tests::harness::condition::{SOON, eventually};
use tests::harness::docker::Engine;
use tests::harness::effects::{Effects, chosen};
use tests::harness::example::Example;
use tests::harness::fleet::Fleet;
use tests::harness::host::Host;
use tests::harness::namespace::Namespace;
use tests::harness::real;

use super::engine::killed;
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
        let port = u16::try_from(10_000 + 1000 * (u32::from(index) % 2) + std::process::id() % 1000).expect("a port");
        let cluster = Cluster::with(&Options { example: true, everywhere: Some(port), ..Options::default() });
        let fleet = Fleet::on(&cluster, Engine::at(&namespace.engine));
        let host = cluster.host("edge-1").member(fleet.network(), true).inside(&namespace).join();
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

    fn shows(&self, what: &str) {
        eventually(SOON, &format!("`host show` says {what:?}"), || {
            let shown = self.cluster.muster(&["host", "show", &self.host.name]).ok().stdout;
            if shown.contains(what) { Ok(()) } else { Err(shown) }
        });
    }

    /// Release 1 or 2.
    fn to(&self, release: usize) -> Call {
        self.rollout(["v1", "v2"][release - 1], &["--unlock"])
    }

    /// The release that is to be served after this.
    fn outcome(&self, ended: Output, before: usize) -> usize {
        if ended.code == 0 {
            return 3 - before;
        }
        println!("{}", ended.all());
        // Not the release is to blame, whether it went back or nothing was touched.
        let untouched = ended.all().contains("nothing was touched");
        ended.with_code(if untouched { 1 } else { 6 }).says("engine");
        before
    }

    /// The agent dies at the effect that it was told, or there were fewer; it is started again.
    fn agent_killed(&mut self, number: usize, call: &mut Running) {
        eventually(SOON, "the agent's death, or the end of what it was asked", || {
            if !self.host.agent.runs() || !call.runs() { Ok(()) } else { Err("neither".to_owned()) }
        });
        Effects::of(&self.host).spare();
        let died = !self.host.agent.runs();
        println!("{number}: the agent {}", if died { "died" } else { "did less" });
        if died {
            self.host.agent.killed_itself(SOON);
            self.host.agent.start();
        }
    }

    /// It serves this release, with both of its processes once each, and nothing else runs.
    fn serves(&self, release: usize) {
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
    edge.fleet.scheduler_begins(1);
    edge.namespace.crash_engine();
    edge.serves(1);
    edge.fleet.scheduler_begins(2);
    edge.namespace.restart_engine();
    edge.serves(1);
    edge.fleet.scheduler_begins(3);
    // The way out of moby#45057.
    edge.namespace.kill_engine();
    edge.namespace.forget_networks();
    edge.namespace.start_engine();
    edge.shows("failing");
    edge.cluster.muster(&["host", "list"]).ok().says("bot/production 1 (failing)");
    edge.fleet.mend();
    edge.serves(1);
    let healed = || edge.cluster.muster(&["events", "--since", "1h", "--scope", "bot/production"]).ok().stdout;
    eventually(SOON, "the ledger tells that it is over", || {
        let told = healed();
        if told.contains("release 1 passes its checks again") { Ok(()) } else { Err(told) }
    });
    println!("{}", healed());
    assert!(healed().contains("release.failing"));
    edge.shows("releases  bot/production 1\n");
    edge.fleet.scheduler_never_doubled(4);
}

#[test]
fn whenever_the_engine_or_the_agent_is_killed_in_a_rollout_its_outcome_is_what_the_host_serves() {
    let Some(_turn) = real::turn() else { return };
    let mut edge = Edge::up("muster-it-checked", 240);
    edge.rollout("v1", &[]).ok();
    let all = Effects::of(&edge.host).during(|| drop(edge.rollout("v2", &[]).ok()));
    println!("a rollout changes {all:?}");
    // The same build with the same settings is the same release.
    let mut release = 2;
    for number in chosen(all.len()) {
        edge.serves(release);
        let effects = Effects::of(&edge.host);
        effects.hold_at(number);
        let mut call = edge.to(3 - release).begin();
        if killed(&edge.namespace, &effects, number, || !call.runs()).is_none() {
            return;
        }
        release = edge.outcome(call.finish(), release);

        edge.serves(release);
        Effects::of(&edge.host).kill_at(number);
        let mut call = edge.to(3 - release).begin();
        edge.agent_killed(number, &mut call);
        release = edge.outcome(call.finish(), release);
    }
    edge.serves(release);
    edge.fleet.scheduler_never_doubled(2);
}
