//! Elasticsearch with a seed, until the first search is answered, against the bare node's own start on the same data.

use std::fmt::Write as _;
use std::process::Command;
use std::time::Instant;

use super::place::{Place, fetched, rounds, since, small};
use super::report::{Samples, section};

const JAVA: &str = "-Xms512m -Xmx512m -XX:TieredStopAtLevel=1";
pub const SEARCH: &str = "/docs/_search?size=1&q=town:pune";

pub fn stack() -> String {
    format!(
        "
name: big
services:
  search:
    image: elasticsearch:6.8.23
    environment: {{ discovery.type: single-node, ES_JAVA_OPTS: {JAVA} }}
    ports: [\"9200\"]
    volumes: [\"data:/usr/share/elasticsearch/data\"]
volumes: {{ data: }}
x-muster: {{ idle: {{ freeze: 1s, stop: never }} }}
"
    )
}

fn documents() -> u32 {
    if small() { 2_000 } else { 100_000 }
}

/// The documents as bulk lines.
pub fn bulk() -> String {
    let mut bulk = String::new();
    for id in 0..documents() {
        let town = if id % 2 == 0 { "Pune" } else { "Goa" };
        let text = "the quick brown fox jumps over the lazy dog ".repeat(4);
        let _ = writeln!(
            bulk,
            "{{\"index\":{{\"_index\":\"docs\",\"_type\":\"_doc\",\"_id\":\"{id}\"}}}}\n{{\"town\":\"{town}\",\"number\":{id},\"text\":\"{text}\"}}"
        );
    }
    bulk
}

pub fn measure() -> String {
    let place = Place::open(&stack());
    place.file("docs.ndjson", &bulk());
    place.muster(&["seed", "import", "big", "search=docs.ndjson"]).ok();
    let bare = Bare::new(&place);
    let (mut cold, mut alone, mut over, mut frozen) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds() {
        let begun = Instant::now();
        place.muster(&["env", "up", "--from", "big", "--name", "big"]).ok();
        let url = place.url("big", "search");
        let address = url.trim_start_matches("http://").to_owned();
        let took = fetched(&address, SEARCH, "\"Pune\"", begun);
        cold.push(took);
        place.reaches("big", "FROZEN");
        frozen.push(fetched(&address, SEARCH, "\"Pune\"", Instant::now()));
        place.muster(&["env", "down", "big"]).ok();
        let own = bare.start();
        alone.push(own);
        over.push(took - own);
    }
    let row = |what: &str, samples: Vec<f64>, goal: &str| {
        vec![what.to_owned(), format!("{} ms", Samples::of(samples).shown()), goal.to_owned()]
    };
    section(
        "Elasticsearch with a seed",
        &["", "median (least–largest)", "goal"],
        &[
            row("`muster env up --from` → first search answered", cold, ""),
            row("`docker run` of the bare node on a copy that lies there → first search answered", alone, ""),
            row("**the one less the other, of the same round**", over, "300 ms"),
            row("frozen → first search answered", frozen, "300 ms (from the warm pool)"),
        ],
        &format!(
            "Elasticsearch 6.8.23 with {} documents and a heap of 512 MB, {} times in turns. The command's own start is included.",
            documents(),
            rounds()
        ),
    )
}

/// The same node without us.
struct Bare<'a> {
    place: &'a Place,
    data: String,
    name: String,
}

impl<'a> Bare<'a> {
    fn new(place: &'a Place) -> Self {
        let seeds = place.host.folder().join("state/pool/seeds");
        let seed = std::fs::read_dir(&seeds).expect("seeds").flatten().next().expect("one").path().join("volumes/data");
        let data = place.folder.join("copy");
        assert!(Command::new("cp").arg("-a").args([&seed, &data]).status().expect("cp runs").success());
        Self { place, data: data.to_string_lossy().into_owned(), name: format!("{}-bare", place.cluster.name()) }
    }

    fn start(&self) -> f64 {
        let engine = &self.place.host.engine;
        let (mount, java) = (format!("{}:/usr/share/elasticsearch/data", self.data), format!("ES_JAVA_OPTS={JAVA}"));
        let begun = Instant::now();
        engine.run(&[
            "run",
            "-d",
            "--name",
            &self.name,
            "--label",
            &self.place.label(),
            "-p",
            "127.0.0.1:25998:9200",
            "-v",
            &mount,
            "-e",
            "discovery.type=single-node",
            "-e",
            &java,
            "elasticsearch:6.8.23",
        ]);
        fetched("127.0.0.1:25998", SEARCH, "\"Pune\"", begun);
        let took = since(begun);
        engine.run(&["stop", &self.name]);
        engine.run(&["rm", "-f", &self.name]);
        took
    }
}
