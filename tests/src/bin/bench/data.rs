//! A developer's database with real-sized data: from `env up` to the first query answered, against copying the same
//! data and against restoring its dump.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use serde_json::Value;
use tests::harness::docker;

use super::place::{Place, bytes, queried, rounds, since, small};
use super::report::{Samples, figure, section};

pub const STACK: &str = "
name: big
services:
  postgres:
    image: postgres:15
    environment: { POSTGRES_USER: shop, POSTGRES_PASSWORD: shop, POSTGRES_DB: shop }
    ports: [\"5432\"]
    volumes: [\"db:/var/lib/postgresql/data\"]
volumes: { db: }
";
/// About 2 GB of rows and an index.
const ROWS: u32 = 13_000_000;
pub const QUERY: &str = "SELECT text FROM big WHERE id = 4711";

pub fn fill() -> String {
    let rows = if small() { ROWS / 100 } else { ROWS };
    format!(
        "psql -X -q -U shop -d shop -c \"CREATE TABLE big AS SELECT g AS id, md5(g::text) || md5((g + 1)::text) \
         || md5((g + 2)::text) AS text FROM generate_series(1, {rows}) g\" -c 'CREATE INDEX ON big (id)'\n"
    )
}

pub fn measure() -> String {
    let place = Place::open(STACK);
    place.file("fill.sh", &fill());
    let begun = Instant::now();
    place.muster(&["seed", "import", "big", "postgres=fill.sh"]).ok();
    let imported = begun.elapsed().as_secs_f64();

    let (mut up, mut own, mut reset) = (Vec::new(), Vec::new(), Vec::new());
    let (mut hot, mut beyond, mut warm) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds() {
        let begun = Instant::now();
        let printed = place.muster(&["env", "up", "--from", "big", "--name", "big"]).ok();
        let url = place.url("big", "postgres");
        let first = Instant::now();
        let took = queried(&url, QUERY, begun);
        let first = since(first);
        // One that was taken from the pool of started ones is another figure.
        if printed.all().contains("warm") {
            warm.push(took)
        } else {
            up.push(took)
        }
        let again = queried(&url, QUERY, Instant::now());
        hot.push(again);
        beyond.push(first - again);
        own.push(own_bytes(&place));
        let begun = Instant::now();
        place.muster(&["env", "reset", "big"]).ok();
        reset.push(queried(&url, QUERY, begun));
        place.muster(&["env", "down", "big"]).ok();
    }
    let freeze = frozen(&place);
    let by_hand = by_hand(&place);
    let row = |what: &str, shown: String, goal: &str| vec![what.to_owned(), shown, goal.to_owned()];
    let mut rows = vec![
        row("`muster env up --from` → first query answered", ms(up), "800 ms"),
        row(
            "`cp` that shares the same files, `docker network create`, `docker run` → first query answered",
            ms(by_hand.shared),
            "",
        ),
        row("copying the same files, then `docker run` → first query answered", ms(by_hand.copied), ""),
        row(
            "`docker run` and restoring the dump (pg_restore, 2 jobs) → first query answered",
            ms(by_hand.restored),
            "",
        ),
        row("the first query, beyond the same one again", ms(beyond), "50 ms"),
        row("the same one again, with its connection and psql's start", ms(hot), ""),
        row("`muster env reset` → first query answered", ms(reset), "1000 ms"),
        row("own disk of an untouched environment", format!("{} MB", Samples::of(own).shown()), "1 MB"),
        row("standing still for a snapshot while it is written to", ms(freeze), "200 ms"),
    ];
    if !warm.is_empty() {
        let what = "`muster env up --from`, taken from the warm pool → first query answered";
        rows.insert(1, row(what, ms(warm), "150 ms"));
    }
    section(
        "A seeded database",
        &["", "median (least–largest)", "goal"],
        &rows,
        &format!(
            "PostgreSQL 15 with {} GB of data files, on the pool that the agent makes by itself ({}), {} times each. The command's own start, the agent's \
             work, `docker run` and psql are included. The snapshots are taken under 4 clients of pgbench that each \
             change rows and commit without a pause. The seed itself was made in {} s.",
            figure(by_hand.bytes / 1e9),
            place.pool(),
            rounds(),
            figure(imported)
        ),
    )
}

/// Milliseconds for which a database that is written to stands still while it is taken.
fn frozen(place: &Place) -> Vec<f64> {
    place.muster(&["env", "up", "--from", "big", "--name", "big"]).ok();
    let mut writer = writer(place);
    let mut all = Vec::new();
    for round in 0..rounds() {
        let name = format!("s{round}");
        place.muster(&["env", "snapshot", &name, "big"]).ok();
        let list: Value = place.muster(&["seed", "list", "--snapshots"]).json();
        let found = list["seeds"].as_array().and_then(|seeds| seeds.iter().find(|seed| seed["name"] == name.as_str()));
        let micros = &found.expect("the snapshot")["freeze_micros"];
        let micros = micros.as_str().and_then(|text| text.parse().ok()).or(micros.as_f64()).unwrap_or(0.0);
        all.push(micros / 1000.0);
        place.muster(&["seed", "rm", &format!("asha/{name}")]).ok();
    }
    if let Some(ended) = writer.try_wait().expect("it is ours") {
        let name = container(place);
        let logs = Command::new("docker").args(["logs", "--tail", "30", &name]).output().expect("docker runs");
        let state =
            Command::new("docker").args(["inspect", "-f", "{{json .State}}", &name]).output().expect("docker runs");
        panic!(
            "the load ended before the last snapshot ({ended}); froze for {all:?} ms; {}; {}",
            String::from_utf8_lossy(&state.stdout).trim(),
            String::from_utf8_lossy(&logs.stderr)
        );
    }
    place.muster(&["env", "down", "big"]).ok();
    writer.wait().expect("it ends with its server");
    all
}

/// The name of the database's container.
fn container(place: &Place) -> String {
    let id: String = place.show("big")["id"].as_str().unwrap_or_default().chars().filter(|c| *c != '-').collect();
    format!("muster-{}-postgres", id.get(id.len() - 12..).unwrap_or_default())
}

/// Writes until its server goes.
fn writer(place: &Place) -> Child {
    let name = container(place);
    let script = "cat >/tmp/load.sql && exec pgbench -n -U shop -c 4 -T 3600 -f /tmp/load.sql shop";
    let load = "\\set n random(1, 100000)\nUPDATE big SET text = md5(random()::text) WHERE id = :n;\n";
    let mut child = Command::new("docker")
        .args(["exec", "-i", &name, "sh", "-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("docker runs");
    let mut input = child.stdin.take().expect("its input");
    std::io::Write::write_all(&mut input, load.as_bytes()).expect("written");
    drop(input);
    // A container that stands still lets nobody in, so the first snapshot waits until its clients are there.
    let there = "SELECT 1 / count(*) FROM pg_stat_activity WHERE application_name = 'pgbench'";
    queried(&place.url("big", "postgres"), there, Instant::now());
    child
}

fn ms(samples: Vec<f64>) -> String {
    format!("{} ms", Samples::of(samples).shown())
}

/// Megabytes that only this environment has, as the file system counts them.
fn own_bytes(place: &Place) -> f64 {
    let environments = place.host.folder().join("state/pool/environments");
    let all = bytes(&environments, false);
    (all - shared(&environments)).max(0.0) / 1e6
}

/// Bytes of extents that the kernel says are shared (`filefrag -v`).
fn shared(folder: &Path) -> f64 {
    let script = "find \"$1\" -type f -size +0 -print0 | xargs -0 filefrag -v 2>/dev/null | awk '/shared/ { gsub(/[.:]/, \" \"); sum += $6 } END { print sum * 4096 }'";
    let out = Command::new("sh").args(["-c", script, "sh"]).arg(folder).output().expect("sh runs");
    String::from_utf8_lossy(&out.stdout).trim().parse().unwrap_or(0.0)
}

/// What the same takes by hand, in milliseconds, and the bytes of the data.
struct ByHand {
    shared: Vec<f64>,
    copied: Vec<f64>,
    restored: Vec<f64>,
    bytes: f64,
}

/// A database of ours with its data in `data`.
struct Server {
    engine: docker::Engine,
    name: String,
    label: String,
}

impl Server {
    const URL: &str = "postgresql://shop:shop@127.0.0.1:25999/shop";

    fn run(&self, data: &Path, network: &str) {
        let mount = format!("{}:/var/lib/postgresql/data", data.display());
        let given = ["run", "-d", "--name", &self.name, "--label", &self.label, "--network", network, "-v", &mount];
        let port = ["-p", "127.0.0.1:25999:5432"];
        let variables = ["-e", "POSTGRES_USER=shop", "-e", "POSTGRES_PASSWORD=shop", "-e", "POSTGRES_DB=shop"];
        let image = ["-e", "POSTGRES_HOST_AUTH_METHOD=trust", "postgres:15"];
        self.engine.run(&[&given[..], &port, &variables, &image].concat());
    }

    fn remove(&self, data: &Path) {
        self.engine.run(&["rm", "-f", &self.name]);
        std::fs::remove_dir_all(data).expect("removed");
    }
}

fn copy(seed: &Path, data: &Path, reflink: &str) {
    let done = Command::new("cp").args(["-a", reflink]).args([seed, data]).status().expect("cp runs");
    assert!(done.success());
    // The seed's own file asks for the seed's password.
    std::fs::write(data.join("pg_hba.conf"), "local all all trust\nhost all all all trust\n").expect("pg_hba.conf");
}

fn by_hand(place: &Place) -> ByHand {
    let seeds = place.host.folder().join("state/pool/seeds");
    let seed = std::fs::read_dir(&seeds).expect("seeds").flatten().next().expect("one").path().join("volumes/db");
    let name = format!("{}-by-hand", place.cluster.name());
    let server = Server { engine: docker::Engine::default(), name, label: place.label() };
    let (mut shared, mut copied, mut restored) = (Vec::new(), Vec::new(), Vec::new());
    let (data, dump) = (place.folder.join("copy"), place.folder.join("big.dump"));
    let beside = seeds.with_file_name("by-hand");
    for _ in 0..rounds() {
        let begun = Instant::now();
        copy(&seed, &beside, "--reflink=auto");
        server.engine.run(&["network", "create", "--label", &server.label, &server.name]);
        server.run(&beside, &server.name);
        shared.push(queried(Server::URL, QUERY, begun));
        server.remove(&beside);
        server.engine.run(&["network", "rm", &server.name]);

        let begun = Instant::now();
        copy(&seed, &data, "--reflink=never");
        server.run(&data, "bridge");
        copied.push(queried(Server::URL, QUERY, begun));
        if !dump.exists() {
            let file = std::fs::File::create(&dump).expect("a file");
            let argv = ["exec", &server.name, "pg_dump", "-U", "shop", "-Fc", "shop"];
            let done = Command::new("docker").args(argv).stdout(file).status().expect("docker runs");
            assert!(done.success());
        }
        server.remove(&data);

        let begun = Instant::now();
        std::fs::create_dir(&data).expect("a folder");
        server.run(&data, "bridge");
        let script = "until pg_isready -q -U shop -h 127.0.0.1; do sleep 0.05; done; cat >/tmp/dump; exec pg_restore -U shop -d shop --jobs 2 /tmp/dump";
        let file = std::fs::File::open(&dump).expect("the dump");
        let argv = ["exec", "-i", &server.name, "sh", "-c", script];
        let done = Command::new("docker").args(argv).stdin(file).status().expect("docker runs");
        assert!(done.success());
        restored.push(queried(Server::URL, QUERY, begun));
        server.remove(&data);
    }
    ByHand { shared, copied, restored, bytes: bytes(&seed, true) }
}
