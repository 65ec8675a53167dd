//! `muster env up` against `docker-compose up` of the same file.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use tests::harness::cluster::{Cluster, get};
use tests::harness::condition::{SOON, eventually};
use tests::harness::example::Example;

use super::report::{Samples, section};

const ROUNDS: usize = 5;

fn healthy(address: &str) {
    eventually(SOON, "the app is healthy", || {
        let (status, body) = get(address, "/health")?;
        if status == 200 { Ok(()) } else { Err(body) }
    });
}

fn compose(folder: &Path, arguments: &[&str]) {
    let out = Command::new("docker-compose").args(arguments).current_dir(folder).output().expect("docker-compose runs");
    assert!(out.status.success(), "docker-compose {arguments:?}: {}", String::from_utf8_lossy(&out.stderr));
}

pub fn measure() -> String {
    let cluster = Cluster::start();
    let host = cluster.host("box-asha").label("owner", "asha").join();
    let folder = Example::get().checkout("v1", cluster.folder());
    let (mut ours, mut theirs, mut again) = (Vec::new(), Vec::new(), Vec::new());
    let up =
        || cluster.muster(&["env", "up"]).by("asha").within(&folder).env("MUSTER_AGENT_SOCKET", host.socket()).ok();
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        up();
        let shown = cluster.muster(&["env", "show"]).by("asha").within(&folder).json();
        let services = shown["services"].as_array().cloned().unwrap_or_default();
        let web = services.iter().find(|service| service["name"] == "web").expect("web");
        healthy(web["addresses"]["8000"].as_str().expect("an address"));
        ours.push(begun.elapsed().as_secs_f64());
        let begun = Instant::now();
        up();
        again.push(begun.elapsed().as_secs_f64());
        cluster.muster(&["env", "down"]).by("asha").within(&folder).ok();

        let begun = Instant::now();
        compose(&folder, &["up", "-d"]);
        healthy("127.0.0.1:8000");
        theirs.push(begun.elapsed().as_secs_f64());
        compose(&folder, &["down", "-v"]);
    }
    let version = Command::new("docker-compose").args(["version", "--short"]).output().expect("docker-compose runs");
    section(
        "`env up`",
        &["", "s: median (least–largest)"],
        &[
            vec!["`muster env up`".to_owned(), Samples::of(ours).shown()],
            vec!["`docker-compose up -d`".to_owned(), Samples::of(theirs).shown()],
            vec!["`muster env up` of what is up already".to_owned(), Samples::of(again).shown()],
        ],
        &format!(
            "The example's unchanged compose.yaml (PostgreSQL, Redis, the app), images cached, no volumes, until the app's \
             `/health` answers 200 through its published port; {ROUNDS} times in turns. docker-compose {}.",
            String::from_utf8_lossy(&version.stdout).trim()
        ),
    )
}
