//! From `run start` to the first line of the tests.

use serde_json::Value;
use tests::harness::cluster::Cluster;
use tests::harness::example::Example;

use super::report::{Samples, section};

const ROUNDS: usize = 7;

pub fn measure() -> String {
    let cluster = Cluster::with_example();
    let host = cluster.host("test-1").label("role", "test").join();
    let commit = Example::get().commit("v1");
    let (mut first, mut whole) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        cluster.muster(&["run", "start", "unit", "--app", "bot", "--commit", commit, "--wait"]).by("asha").ok();
        let list = cluster.muster(&["run", "list", "--app", "bot"]).json();
        let run = &list["runs"][0];
        let seconds = |value: &Value| (value.as_f64().unwrap_or(0.0) - run["created_at"].as_f64().unwrap_or(0.0)) / 1e6;
        first.push(seconds(&run["first_line_at"]));
        whole.push(seconds(&run["finished_at"]));
    }
    drop(host);
    section(
        "A test run",
        &["from `run start`", "s: median (least–largest)"],
        &[
            vec!["to the first line of the log".to_owned(), Samples::of(first).shown()],
            vec!["to the verdict".to_owned(), Samples::of(whole).shown()],
        ],
        &format!(
            "The example's own tests at a commit: fetch, checkout, a fresh environment with PostgreSQL and Redis, pytest; \
             {ROUNDS} times, images and mirror cached."
        ),
    )
}
