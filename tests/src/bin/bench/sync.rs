//! A folder of 10 000 files brought into an environment from a machine without an agent, and kept in step.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use tests::harness::call::{Call, Running};

use super::place::{Place, fetched, rounds, since, small};
use super::report::{Samples, section};

const STACK: &str = "
name: big
services:
  web:
    image: python:3.11-slim
    command: [python, -m, http.server, \"8000\", --directory, /srv]
    stop_grace_period: 0s
    volumes: [\"./src:/srv\"]
    ports: [\"8000\"]
";
/// Bytes of one file.
const SIZE: usize = 4096;

/// A call from a machine without an agent.
fn laptop(place: &Place, words: &[&str]) -> Call {
    place.muster(words).env("MUSTER_AGENT_SOCKET", "/nowhere")
}

fn files() -> usize {
    if small() { 200 } else { 10_000 }
}

/// 100 files a folder, no two alike.
fn fill(src: &Path) {
    for number in 0..files() {
        let folder = src.join((number / 100).to_string());
        std::fs::create_dir_all(&folder).expect("a folder");
        std::fs::write(folder.join(format!("{number}.txt")), format!("{number:08}\n").repeat(SIZE / 9))
            .expect("written");
    }
}

fn rsync(from: &Path, to: &Path) -> f64 {
    let begun = Instant::now();
    let mut rsync = Command::new("rsync");
    let done = rsync.args(["-a", "--delete"]).arg(from.join("")).arg(to).status().expect("rsync runs");
    assert!(done.success(), "rsync: {done}");
    since(begun)
}

/// Milliseconds until a written file is served; `follow` brings it there.
fn edited(place: &Place, address: &str, round: usize, follow: impl FnOnce()) -> f64 {
    let text = format!("round {round}\n");
    let begun = Instant::now();
    place.file("src/0/0.txt", &text);
    follow();
    fetched(address, "/0/0.txt", &text, begun)
}

pub fn measure() -> String {
    let place = Place::open(STACK);
    let src = place.folder.join("src");
    fill(&src);
    let rival = place.cluster.folder().join("rsync");
    let theirs = rsync(&src, &rival);
    let (mut first, mut nothing, mut rivals, mut once, mut kept) = (vec![], vec![], vec![], vec![], vec![]);
    for round in 0..rounds().min(3) {
        if round > 0 {
            place.muster(&["env", "down", "big"]).ok();
        }
        let begun = Instant::now();
        laptop(&place, &["env", "up", "--sync", "--name", "big"]).ok();
        first.push(since(begun));
    }
    let url = place.url("big", "web");
    let address = url.trim_start_matches("http://").trim_end_matches('/');
    for round in 0..rounds() {
        let begun = Instant::now();
        laptop(&place, &["env", "sync", "big", "--once"]).ok();
        nothing.push(since(begun));
        rivals.push(rsync(&src, &rival));
        once.push(edited(&place, address, round, || {
            laptop(&place, &["env", "sync", "big", "--once"]).ok();
        }));
    }
    let mut watching: Running = laptop(&place, &["env", "sync", "big"]).begin();
    watching.printed("watching");
    for round in rounds()..2 * rounds() {
        kept.push(edited(&place, address, round, || {}));
    }
    watching.kill();
    place.muster(&["env", "down", "big"]).ok();
    let row = |what: &str, samples: Vec<f64>| vec![what.to_owned(), format!("{} ms", Samples::of(samples).shown())];
    section(
        "A folder kept in step",
        &["", "median (least–largest)"],
        &[
            row("`muster env up --sync`, all files sent, until ready", first),
            row("`rsync -a` of the same files into an empty folder of this machine, once", vec![theirs]),
            row("`muster env sync --once`, nothing changed", nothing),
            row("`rsync -a --delete`, nothing changed", rivals),
            row("one file changed, `muster env sync --once` → served by the environment", once),
            row("one file changed while `muster env sync` runs → served by the environment", kept),
        ],
        &format!(
            "{} files of {SIZE} bytes through the coordinator to a host, all on one machine; rsync copies without any connection. \
             What runs waits 60 ms after a change for further ones. {} times each, the first three times at most.",
            files(),
            rounds()
        ),
    )
}
