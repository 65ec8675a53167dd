//! The coordinator is killed.

use tests::harness::cluster::{Cluster, Options};
use tests::harness::condition::SOON;
use tests::harness::example::Example;
use tests::harness::real;

use crate::system::production::Production;
use crate::system::stand::{POSTGRES, Stand};

#[test]
fn killed_around_an_order_and_before_a_confirmation_the_rollout_ends_well_and_its_client_learns_so() {
    let Some(_turn) = real::turn() else { return };
    let mut production = Production::released(2);
    let (mut release, mut other) = (1, 2);
    for point in ["rollout.order.stored", "rollout.order.sent", "rollout.verdict.stored"] {
        production.cluster.coordinator.stop();
        production.cluster.coordinator.set("MUSTER_FAILPOINTS", &format!("{point}=abort"));
        production.cluster.restart();
        for host in &production.hosts {
            production.cluster.wait_host(&host.name, "READY", SOON);
        }
        std::mem::swap(&mut release, &mut other);
        let call = if release == 2 { production.rollout("v2", &[]) } else { production.back_to(release) };
        let mut waiting = call.begin();
        production.cluster.coordinator.killed_itself(SOON);
        assert!(waiting.runs(), "{point}: the client waits: {}", waiting.so_far());
        production.cluster.restart();
        waiting.finish().with_code(0);
        production.all_run(release);
    }
    production.no_leftovers(release);
    assert_eq!(production.cluster.muster(&["rollout", "list"]).json()["rollouts"].as_array().map(Vec::len), Some(4));
    production.fleet.scheduler_never_doubled(4);
}

#[test]
fn killed_after_a_run_was_assigned_the_run_happens_once_and_its_client_gets_the_verdict() {
    let Some(_turn) = real::turn() else { return };
    let options = Options { example: true, failpoints: "run.assigned=abort", ..Options::default() };
    let mut cluster = Cluster::with(&options);
    let host = cluster.host("test-1").label("role", "test").join();
    let start = ["run", "start", "unit", "--app", "bot", "--commit", Example::get().commit("v1"), "--wait"];
    let waiting = cluster.muster(&start).by("asha").begin();
    cluster.coordinator.killed_itself(SOON);
    cluster.restart();
    waiting.finish().with_code(0).says("passed: ");
    let runs = cluster.muster(&["run", "list", "--app", "bot"]).json();
    assert_eq!(runs["runs"].as_array().map(Vec::len), Some(1), "{runs}");
    drop(host);
}

#[test]
fn killed_while_an_agent_fetches_a_seeds_input_the_rest_is_fetched_and_the_seed_is_made() {
    let Some(_turn) = real::turn() else { return };
    let cluster = Cluster::with(&Options { failpoints: "fetch.queued=abort", ..Options::default() });
    let mut stand = Stand::within(cluster, &format!("x-muster: {{ seed: init }}\n{POSTGRES}"));
    let filler = format!("-- {}\n", "so that it travels in parts ".repeat(40)).repeat(4000);
    stand.file("init.sql", format!("{filler}CREATE TABLE things AS SELECT generate_series(1, 7) AS number;\n"));
    let waiting = stand.muster(&["seed", "import", "init", "postgres=init.sql"]).begin();
    stand.cluster.coordinator.killed_itself(SOON);
    stand.cluster.restart();
    waiting.finish().with_code(0);
    let log = stand.host.agent.printed();
    assert!(log.contains("a fetch was interrupted and goes on"), "{log}");
    stand.muster(&["env", "up", "--name", "one"]).ok();
    assert_eq!(stand.query("one", "SELECT count(*) FROM things").as_deref(), Ok("7"));
}
