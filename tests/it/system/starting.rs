//! A coordinator starts, people log in, hosts join.

use std::time::Duration;

use tests::harness::cluster::Cluster;
use tests::harness::condition::SOON;
use tests::harness::real;

#[test]
fn hosts_join_once_and_are_known_after_a_crash_of_either_side() {
    let Some(_turn) = real::turn() else { return };
    let mut cluster = Cluster::start();
    let mut host = cluster.host("web-1").label("app", "bot").join();
    let shown = cluster.muster(&["host", "show", "web-1"]).json();
    assert_eq!(shown["labels"]["app"], "bot");
    assert_eq!(shown["id"], host.id());

    cluster.crash();
    cluster.wait_host("web-1", "READY", SOON);
    host.crash(&cluster);
    let again = cluster.muster(&["host", "show", "web-1"]).json();
    assert_eq!(again["id"], shown["id"], "a joined host keeps its id");
    assert_eq!(cluster.muster(&["host", "list"]).json()["hosts"].as_array().map(Vec::len), Some(1));
}

#[test]
fn a_join_token_serves_one_host_only() {
    let Some(_turn) = real::turn() else { return };
    let cluster = Cluster::start();
    let first = cluster.host("web-1").join();
    let second = cluster.host("web-2");
    // The second host comes with the first one's token.
    let used = std::fs::read_to_string(first.folder().join("join-token"));
    let mut second = second.start();
    second.agent.kill();
    if let Ok(used) = used {
        let _ = std::fs::remove_dir_all(second.folder().join("state"));
        std::fs::write(second.folder().join("join-token"), used).expect("its token");
        second.agent.start();
        let ended = second.agent.ended(SOON);
        assert!(!ended.success(), "{}", second.agent.printed());
        assert!(second.agent.printed().contains("E_JOIN_TOKEN"), "{}", second.agent.printed());
    }
}

#[test]
fn a_silent_host_is_unreachable_and_comes_back() {
    let Some(_turn) = real::turn() else { return };
    let cluster = Cluster::start();
    let mut host = cluster.host("web-1").join();
    host.agent.kill();
    // 15 s in steady state; a coordinator that just started waits for up to 30 s.
    cluster.wait_host("web-1", "UNREACHABLE", Duration::from_secs(50));
    host.agent.start();
    cluster.wait_host("web-1", "READY", SOON);
}

#[test]
fn whoever_has_no_token_or_too_small_a_role_is_told_so() {
    let Some(_turn) = real::turn() else { return };
    let cluster = Cluster::start();
    cluster.muster(&["join-token", "create", "web-9"]).by("asha").code(5).says("E_PERMISSION_DENIED");
    cluster.muster(&["host", "list"]).by("admin").env("MUSTER_TOKEN", "mt_000000000000_wrong").code(5);
    cluster.muster(&["host", "list"]).by("nobody").code(2);
    cluster.muster(&["host", "list"]).by("admin").env("MUSTER_SERVER", "127.0.0.1:1").code(69);
}

#[test]
fn a_coordinator_stops_gracefully_and_a_second_one_does_not_start_beside_it() {
    let Some(_turn) = real::turn() else { return };
    let mut cluster = Cluster::start();
    let config = cluster.folder().join("coordinator.toml");
    let second = cluster
        .muster(&["serve", "--config", &config.to_string_lossy()])
        .env("MUSTER_LISTEN", "127.0.0.1:0")
        .env("MUSTER_HTTP_LISTEN", "127.0.0.1:0")
        .run();
    assert_ne!(second.code, 0);
    assert!(second.all().contains("E_STATE_LOCKED"), "{}", second.all());
    let ended = cluster.coordinator.stop().expect("it ran");
    assert_eq!(ended.code(), Some(0), "{}", cluster.coordinator.printed());
    cluster.restart();
}
