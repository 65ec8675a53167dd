//! The coordinator's store is a PostgreSQL.

use coordinator::store::testing::PostgresServer;
use tests::harness::cluster::{Cluster, Options};
use tests::harness::condition::SOON;
use tests::harness::example::Example;
use tests::harness::real;

use super::production::Production;

#[test]
fn on_postgresql_runs_releases_and_reverts_go_as_on_sqlite_also_when_the_coordinator_is_killed() {
    let Some(_turn) = real::turn() else { return };
    let server = PostgresServer::start().expect("a server");
    let url = server.database("muster").expect("a database");
    let options = Options { example: true, database: Some(&url), ..Options::default() };
    let mut production = Production::within(Cluster::with(&options), 1);
    production.rollout("v1", &[]).ok();

    production.cluster.coordinator.stop();
    production.cluster.coordinator.set("MUSTER_FAILPOINTS", "rollout.order.sent=abort");
    production.cluster.restart();
    production.cluster.wait_host("web-1", "READY", SOON);
    let waiting = production.rollout("v2", &[]).begin();
    production.cluster.coordinator.killed_itself(SOON);
    // The lease of the killed one has to end first.
    production.cluster.restart();
    waiting.finish().with_code(0);
    production.all_run(2);

    production.rollout("v3", &[]).code(6);
    production.all_run(2);
    production.why().says("web-1");

    let commit = Example::get().commit("v1");
    let run = ["run", "start", "unit", "--app", "bot", "--commit", commit, "--wait"];
    production.cluster.muster(&run).by("asha").ok().says("passed: ");

    assert!(!production.cluster.folder().join("coordinator/muster.db").exists(), "nothing is kept in SQLite");
    let kept = "SELECT (SELECT count(*) FROM rollouts), (SELECT count(*) FROM runs)";
    assert_eq!(server.sql("muster", kept).as_deref(), Ok("3|1"));
}
