//! `muster run` of the example's own tests.

use std::path::{Path, PathBuf};

use tests::harness::cluster::{Cluster, Options};
use tests::harness::condition::{SOON, eventually};
use tests::harness::example::Example;
use tests::harness::host::Host;
use tests::harness::real;

fn with_test_host() -> (Host, Cluster) {
    let cluster = Cluster::with(&Options { example: true, ..Options::default() });
    let host = cluster.host("test-1").label("role", "test").join();
    (host, cluster)
}

/// Nothing of any run is left on the host but the record that it was.
pub fn no_traces(host: &Host) {
    eventually(SOON, "nothing of the run is left", || {
        let objects = host.objects();
        let jobs = host.processes("job");
        let left = entries(&host.folder().join("state/runs")).iter().flat_map(|run| entries(run)).collect::<Vec<_>>();
        let left: Vec<_> = left.into_iter().filter(|path| !path.ends_with("run.json")).collect();
        if objects.is_empty() && left.is_empty() && jobs.is_empty() {
            Ok(())
        } else {
            Err(format!("{objects:?} {left:?} {jobs:?}"))
        }
    });
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

#[test]
fn tests_at_a_commit_pass_with_a_live_log_and_leave_nothing() {
    let Some(_turn) = real::turn() else { return };
    let (host, cluster) = with_test_host();
    let commit = Example::get().commit("v1");
    let passed =
        cluster.muster(&["run", "start", "unit", "--app", "bot", "--commit", commit, "--wait"]).by("asha").ok();
    let passed = passed.says("passed: ").says("[100%]");
    let list = cluster.muster(&["run", "list", "--app", "bot"]).json();
    let run = &list["runs"][0];
    assert_eq!(run["commit"], commit);
    assert_eq!(run["verdict"], "VERDICT_PASSED");
    assert!(run["report"]["total"].as_u64() > Some(5), "{run}");
    assert_eq!(run["report"]["skipped"], 0, "tests that need stores ran: {run}");

    // The log can be read afterwards, whole.
    let id = run["id"].as_str().unwrap_or_default();
    let log = cluster.muster(&["run", "logs", id]).by("asha").ok();
    assert!(passed.stdout.contains(log.stdout.trim()), "{}\n----\n{}", passed.stdout, log.stdout);
    no_traces(&host);
}

#[test]
fn a_failing_test_is_named_and_exits_1() {
    let Some(_turn) = real::turn() else { return };
    let (host, cluster) = with_test_host();
    let broken = "def test_that_fails():\n    assert [3, 1, 2] == [1, 2, 3], 'order is not kept'\n";
    let (repository, commit) = Example::get().variant(cluster.folder(), &[("tests/test_broken.py", broken)]);
    cluster
        .muster(&["app", "apply", "--repository", &repository.to_string_lossy()])
        .within(&repository)
        .by("jenkins")
        .ok();
    let start = ["run", "start", "unit", "--commit", commit.as_str(), "--wait"];
    cluster
        .muster(&start)
        .within(&repository)
        .by("asha")
        .code(1)
        .says("failed: 1 of")
        .says("test_that_fails")
        .says("order is not kept");
    no_traces(&host);
}

#[test]
fn an_unknown_commit_is_an_error_and_no_verdict_on_the_code() {
    let Some(_turn) = real::turn() else { return };
    let (host, cluster) = with_test_host();
    let commit = "0123456789abcdef0123456789abcdef01234567";
    let start = ["run", "start", "unit", "--app", "bot", "--commit", commit, "--wait"];
    cluster.muster(&start).by("asha").code(1).says("E_GIT_COMMIT_MISSING");
    let run = cluster.muster(&["run", "list", "--app", "bot"]).json()["runs"][0].clone();
    assert_eq!(run["verdict"], "VERDICT_ERRORED", "{run}");
    no_traces(&host);
}

#[test]
fn a_cancelled_run_ends_and_leaves_nothing() {
    let Some(_turn) = real::turn() else { return };
    let (host, cluster) = with_test_host();
    let sleeping =
        "import time\n\ndef test_that_takes_long():\n    print('it sleeps', flush=True)\n    time.sleep(300)\n";
    let manifest = std::fs::read_to_string(Example::get().repository.join("muster.yaml")).expect("muster.yaml");
    let manifest = manifest.replace("[pytest, -q,", "[pytest, -q, -s, tests/test_long.py,");
    let files = [("tests/test_long.py", sleeping), ("muster.yaml", manifest.as_str())];
    let (repository, commit) = Example::get().variant(cluster.folder(), &files);
    cluster
        .muster(&["app", "apply", "--repository", &repository.to_string_lossy()])
        .within(&repository)
        .by("jenkins")
        .ok();
    let start = ["run", "start", "unit", "--commit", commit.as_str(), "--wait"];
    let mut waiting = cluster.muster(&start).within(&repository).by("asha").begin();
    waiting.printed("it sleeps");
    let run = cluster.muster(&["run", "list", "--app", "bot"]).json()["runs"][0].clone();
    cluster.muster(&["run", "cancel", run["id"].as_str().unwrap_or_default()]).by("asha").ok();
    waiting.finish().with_code(1).says("cancelled");
    no_traces(&host);
}

#[test]
fn the_same_idempotency_key_finds_the_same_run() {
    let Some(_turn) = real::turn() else { return };
    let cluster = Cluster::with_example();
    let commit = Example::get().commit("v1");
    let start = ["run", "start", "unit", "--app", "bot", "--commit", commit, "--idempotency-key", "build-812"];
    let first = cluster.muster(&start).by("asha").json();
    let second = cluster.muster(&start).by("asha").json();
    assert_eq!(first["id"], second["id"]);
    let other = Example::get().commit("v2");
    let start = ["run", "start", "unit", "--app", "bot", "--commit", other, "--idempotency-key", "build-812"];
    cluster.muster(&start).by("asha").code(4).says("E_IDEMPOTENCY_KEY_REUSED");
    assert_eq!(cluster.muster(&["run", "list", "--app", "bot"]).json()["runs"].as_array().map_or(0, Vec::len), 1);
}
