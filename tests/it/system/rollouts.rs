//! `muster rollout` of the example over hosts that serve traffic.

use tests::harness::condition::{SOON, eventually};
use tests::harness::example::Example;
use tests::harness::real;
use tests::harness::traffic::Traffic;

use super::production::Production;

#[test]
fn a_release_goes_out_under_traffic_a_broken_one_comes_back_and_says_why_for_good() {
    let Some(_turn) = real::turn() else { return };
    let mut production = Production::released(3);
    production.all_run(1);
    let hosts: Vec<_> = production.hosts.iter().collect();
    let traffic = Traffic::start(&production.cluster, &hosts);
    hosts.iter().for_each(|host| traffic.at_least(&host.name, "1", 100));
    production.rollout("v2", &["--reason", "history fix"]).ok();
    hosts.iter().for_each(|host| traffic.at_least(&host.name, "2", 100));

    // A broken one stops at the first host and comes back; the client sees nothing of it.
    production.rollout("v3", &["--reason", "sessions in a table"]).code(6);
    let seen = hosts.iter().map(|host| traffic.so_far()["hosts"][&host.name]["requests"].as_u64().unwrap_or(0)).max();
    hosts.iter().for_each(|host| traffic.at_least(&host.name, "2", seen.unwrap_or(0)));
    let (report, failed) = traffic.stop();
    assert_eq!(failed, 0, "{report}");
    production.all_run(2);
    let touched: Vec<_> = production.newest()["steps"]
        .as_array()
        .expect("steps")
        .iter()
        .filter(|step| step["touched"] == true)
        .map(|step| step["member"].clone())
        .collect();
    assert_eq!(touched, ["web-1"], "the canary alone was touched");

    // The reason is kept over a crash of the coordinator: host, gate, answers, the app's own lines.
    let before = production.why();
    production.cluster.crash();
    let after = production.why().says("web-1").says("health").says("500").says("session_v2").says("bot.web");
    assert_eq!(before.stdout, after.stdout);

    // A revert locks the target.
    production.rollout("v2", &[]).code(4).says("E_TARGET_LOCKED");
    // A good build with a bad setting comes back in the same way.
    production.cluster.muster(&["config", "set", "bot/production", "HISTORY_LIMIT=many"]).by("jenkins").ok();
    production.rollout("v2", &["--unlock"]).code(6);
    production.why().says("HISTORY_LIMIT");
    production.all_run(2);
    production.no_leftovers(2);
    production.fleet.scheduler_never_doubled(2);
}

#[test]
fn a_plan_changes_nothing_and_names_what_is_missing() {
    let Some(_turn) = real::turn() else { return };
    let production = Production::start(1);
    let commit = Example::get().commit("v1");
    production.cluster.muster(&["rollout", "plan", "bot/production", commit]).by("asha").ok().says("web-1");
    let list = production.cluster.muster(&["rollout", "list"]).json();
    assert_eq!(list["rollouts"].as_array().map_or(0, Vec::len), 0);
    assert_eq!(production.hosts[0].running(), Vec::<String>::new());
    let unknown = "0123456789abcdef0123456789abcdef01234567";
    let start = ["rollout", "start", "bot/production", unknown];
    production.cluster.muster(&start).by("jenkins").code(3);
    production.cluster.muster(&["rollout", "start", "bot/nowhere", commit]).by("jenkins").code(3);
    production.cluster.muster(&["rollout", "start", "bot/production", commit]).by("asha").code(5);
    let list = production.cluster.muster(&["rollout", "list"]).json();
    assert_eq!(list["rollouts"].as_array().map_or(0, Vec::len), 0);
}

#[test]
fn of_two_rollouts_started_at_once_one_is_active() {
    let Some(_turn) = real::turn() else { return };
    let production = Production::start(2);
    let one = production.rollout("v1", &["--detach"]).begin();
    let two = production.rollout("v2", &["--detach"]).begin();
    let codes = [one.finish().code, two.finish().code];
    assert!(codes.contains(&0), "{codes:?}");
    let waiting = ["ROLLOUT_STATE_QUEUED", "ROLLOUT_STATE_SUPERSEDED"];
    let list = |production: &Production| {
        production.cluster.muster(&["rollout", "list", "bot/production"]).json()["rollouts"]
            .as_array()
            .cloned()
            .unwrap_or_default()
    };
    eventually(SOON + SOON, "both have ended, one after the other", || {
        let all = list(&production);
        let active = all
            .iter()
            .filter(|rollout| rollout["finished_at"] == 0 && !waiting.iter().any(|state| rollout["state"] == *state));
        let active = active.count();
        assert!(active <= 1, "{all:?}");
        if all.iter().all(|rollout| rollout["finished_at"] != 0) { Ok(()) } else { Err(format!("{all:?}")) }
    });
    let succeeded = list(&production).iter().filter(|rollout| rollout["state"] == "ROLLOUT_STATE_SUCCEEDED").count();
    assert_eq!(succeeded, codes.iter().filter(|code| **code == 0).count(), "{:?}", list(&production));
    production.no_leftovers(production.newest()["release"].as_u64().unwrap_or(0));
}

#[test]
fn a_repeated_start_with_the_same_key_is_the_same_rollout() {
    let Some(_turn) = real::turn() else { return };
    let production = Production::start(1);
    let first = production.rollout("v1", &["--idempotency-key", "build-7", "--detach"]).json();
    let second = production.rollout("v1", &["--idempotency-key", "build-7"]).json();
    assert_eq!(first["id"], second["id"]);
    assert_eq!(second["state"], "ROLLOUT_STATE_SUCCEEDED");
    production.rollout("v2", &["--idempotency-key", "build-7"]).code(4).says("E_IDEMPOTENCY_KEY_REUSED");
    assert_eq!(production.cluster.muster(&["rollout", "list"]).json()["rollouts"].as_array().map(Vec::len), Some(1));
}

#[test]
fn a_rollout_is_paused_cancelled_and_reverted_on_demand() {
    let Some(_turn) = real::turn() else { return };
    let production = Production::released(2);
    let mut waiting = production.rollout("v2", &["--set", "min_healthy_time=3s"]).begin();
    production.wait_step("web-1", "CHECKING");
    production.cluster.muster(&["rollout", "pause", "bot/production"]).by("jenkins").ok();
    production.wait_step("web-1", "HEALTHY");
    eventually(SOON, "it is paused", || {
        let rollout = production.newest();
        if rollout["state"] == "ROLLOUT_STATE_PAUSED" { Ok(()) } else { Err(rollout.to_string()) }
    });
    production.why().says("waiting for");
    assert!(waiting.runs(), "the client waits: {}", waiting.so_far());
    production.cluster.muster(&["rollout", "cancel", "bot/production"]).by("jenkins").ok();
    waiting.finish().with_code(1);
    production.all_run(1);

    production.rollout("v2", &[]).ok();
    production.all_run(2);
    // A finished rollout is reverted by a new one.
    production.cluster.muster(&["rollout", "revert", "bot/production"]).by("jenkins").ok();
    production.all_run(1);
    production.fleet.scheduler_never_doubled(2);
}
