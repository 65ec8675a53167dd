//! An agent is killed.

use tests::harness::cluster::Cluster;
use tests::harness::condition::SOON;
use tests::harness::example::Example;
use tests::harness::real;

use crate::system::production::Production;

#[test]
fn killed_while_a_container_starts_or_is_checked_the_step_is_finished_and_nothing_runs_twice() {
    let Some(_turn) = real::turn() else { return };
    let mut production = Production::released(2);
    let (mut release, mut other) = (1, 2);
    for (host, point) in [(0, "container.starting"), (1, "step.warm"), (0, "step.checking")] {
        production.hosts[host].agent.kill();
        production.hosts[host].agent.set("MUSTER_FAILPOINTS", &format!("{point}=abort"));
        production.hosts[host].agent.start();
        production.cluster.wait_host(&production.hosts[host].name, "READY", SOON);
        std::mem::swap(&mut release, &mut other);
        let call = if release == 2 { production.rollout("v2", &[]) } else { production.back_to(release) };
        let waiting = call.begin();
        production.hosts[host].agent.killed_itself(SOON);
        production.hosts[host].agent.start();
        waiting.finish().with_code(0);
        production.all_run(release);
    }
    production.no_leftovers(release);
    production.fleet.scheduler_never_doubled(4);
}

#[test]
fn killed_during_a_test_run_it_still_reports_the_true_verdict() {
    let Some(_turn) = real::turn() else { return };
    let cluster = Cluster::with_example();
    let mut host = cluster.host("test-1").label("role", "test").failpoints("run.command.started=abort").join();
    let broken = "def test_that_fails():\n    assert False, 'as it should'\n";
    let (repository, commit) = Example::get().variant(cluster.folder(), &[("tests/test_broken.py", broken)]);
    cluster
        .muster(&["app", "apply", "--repository", &repository.to_string_lossy()])
        .within(&repository)
        .by("jenkins")
        .ok();
    let start = ["run", "start", "unit", "--commit", commit.as_str(), "--wait"];
    let waiting = cluster.muster(&start).within(&repository).by("asha").begin();
    host.agent.killed_itself(SOON);
    host.agent.start();
    waiting.finish().with_code(1).says("failed: 1 of").says("as it should");
    let runs = cluster.muster(&["run", "list", "--app", "bot"]).json();
    assert_eq!(runs["runs"].as_array().map(Vec::len), Some(1), "{runs}");
    assert_eq!(runs["runs"][0]["verdict"], "VERDICT_FAILED");
    crate::system::no_traces(&host);
}
