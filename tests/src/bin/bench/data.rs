//! A developer's database with real-sized data: from `env up` to the first query answered, against copying the same
//! data and against restoring its dump.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::Value;
use tests::harness::cluster::Cluster;
use tests::harness::docker;
use tests::harness::host::Host;

use super::report::{Samples, figure, section};

const ROUNDS: usize = 10;
/// Alternatives take longer and vary less.
const SLOW_ROUNDS: usize = 2;

const STACK: &str = "
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
const FILL: &str = "psql -X -q -U shop -d shop -c \"CREATE TABLE big AS SELECT g AS id, md5(g::text) || md5((g + 1)::text) \
|| md5((g + 2)::text) AS text FROM generate_series(1, 13000000) g\" -c 'CREATE INDEX ON big (id)'\n";
const QUERY: &str = "SELECT text FROM big WHERE id = 4711";

struct Place {
    cluster: Cluster,
    host: Host,
    folder: PathBuf,
}

impl Place {
    fn muster(&self, words: &[&str]) -> tests::harness::call::Call {
        self.cluster.muster(words).by("asha").within(&self.folder).env("MUSTER_AGENT_SOCKET", self.host.socket())
    }

    fn url(&self) -> String {
        let shown: Value = self.muster(&["env", "show", "big"]).json();
        shown["services"][0]["variables"]["POSTGRES_URL"].as_str().expect("a URL").to_owned()
    }
}

/// Milliseconds until the query is answered; again and again until it is.
fn answered(url: &str, begun: Instant) -> f64 {
    let ask = || {
        let mut psql = Command::new("psql");
        psql.args([url, "-XAtc", QUERY]).stdout(Stdio::null()).stderr(Stdio::null());
        psql.status().is_ok_and(|status| status.success())
    };
    while !ask() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    begun.elapsed().as_secs_f64() * 1000.0
}

pub fn measure() -> String {
    let cluster = Cluster::start();
    let host = cluster.host("box-asha").label("owner", "asha").pool("auto").join();
    let folder = cluster.folder().join("big");
    std::fs::create_dir(&folder).expect("a folder");
    std::fs::write(folder.join("compose.yaml"), STACK).expect("compose.yaml");
    std::fs::write(folder.join("fill.sh"), FILL).expect("fill.sh");
    let mut place = Place { cluster, host, folder };
    let begun = Instant::now();
    place.muster(&["seed", "import", "big", "postgres=fill.sh"]).ok();
    let imported = begun.elapsed().as_secs_f64();

    let (mut up, mut own, mut reset, mut second) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        place.muster(&["env", "up", "--from", "big", "--name", "big"]).ok();
        let url = place.url();
        up.push(answered(&url, begun));
        second.push(answered(&url, Instant::now()));
        own.push(own_bytes(&place));
        let begun = Instant::now();
        place.muster(&["env", "reset", "big"]).ok();
        reset.push(answered(&url, begun));
        place.muster(&["env", "down", "big"]).ok();
    }
    let (copied, restored, bytes) = alternatives(&place);
    place.host.end_pool();
    section(
        "A seeded database",
        &["", "median (least–largest)", "goal"],
        &[
            vec!["`muster env up --from` → first query answered".to_owned(), ms(up), "800 ms".to_owned()],
            vec!["one more query, with its connection and psql's start".to_owned(), ms(second), String::new()],
            vec!["`muster env reset` → first query answered".to_owned(), ms(reset), "1000 ms".to_owned()],
            vec![
                "own disk of an untouched environment".to_owned(),
                format!("{} MB", Samples::of(own).shown()),
                "1 MB".to_owned(),
            ],
            vec!["copying the same files, then `docker run`".to_owned(), ms(copied), String::new()],
            vec!["`docker run` and restoring the dump (pg_restore, 2 jobs)".to_owned(), ms(restored), String::new()],
        ],
        &format!(
            "PostgreSQL 15 with {} GB of data files, on the pool that the agent makes by itself ({}). The command's own start, the agent's \
             work, `docker run` and psql are included. Ours {ROUNDS} times, the alternatives {SLOW_ROUNDS}. The seed itself was made in {} s.",
            figure(bytes / 1e9),
            pool_of(&place),
            figure(imported)
        ),
    )
}

fn ms(samples: Vec<f64>) -> String {
    format!("{} ms", Samples::of(samples).shown())
}

fn pool_of(place: &Place) -> String {
    let shown = place.cluster.muster(&["host", "show", "box-asha"]).json();
    shown["facts"]["pool_backend"].as_str().unwrap_or("unknown").to_owned()
}

/// Megabytes that only this environment has, as the file system counts them.
fn own_bytes(place: &Place) -> f64 {
    let environments = place.host.folder().join("state/pool/environments");
    let out = Command::new("du").args(["-s", "--block-size=1"]).arg(&environments).output().expect("du runs");
    let all: f64 = String::from_utf8_lossy(&out.stdout)
        .split_whitespace()
        .next()
        .and_then(|text| text.parse().ok())
        .unwrap_or(0.0);
    (all - shared(&environments)).max(0.0) / 1e6
}

/// Bytes of extents that the kernel says are shared (`filefrag -v`).
fn shared(folder: &Path) -> f64 {
    let script = "find \"$1\" -type f -size +0 -print0 | xargs -0 filefrag -v 2>/dev/null | awk '/shared/ { gsub(/[.:]/, \" \"); sum += $6 } END { print sum * 4096 }'";
    let out = Command::new("sh").args(["-c", script, "sh"]).arg(folder).output().expect("sh runs");
    String::from_utf8_lossy(&out.stdout).trim().parse().unwrap_or(0.0)
}

/// Milliseconds by copying, by restoring, and the bytes of the data.
fn alternatives(place: &Place) -> (Vec<f64>, Vec<f64>, f64) {
    let engine = docker::Engine::default();
    let seeds = place.host.folder().join("state/pool/seeds");
    let seed = std::fs::read_dir(&seeds).expect("seeds").flatten().next().expect("one").path().join("volumes/db");
    let out =
        Command::new("du").args(["-s", "--block-size=1", "--apparent-size"]).arg(&seed).output().expect("du runs");
    let bytes: f64 = String::from_utf8_lossy(&out.stdout)
        .split_whitespace()
        .next()
        .and_then(|text| text.parse().ok())
        .unwrap_or(0.0);
    let name = format!("{}-by-hand", place.cluster.name());
    let run = |data: &Path| {
        let mount = format!("{}:/var/lib/postgresql/data", data.display());
        let label = format!("{}={}", tests::harness::clean::LABEL, place.cluster.name());
        engine.run(&[
            "run",
            "-d",
            "--name",
            &name,
            "--label",
            &label,
            "-p",
            "127.0.0.1:25999:5432",
            "-v",
            &mount,
            "-e",
            "POSTGRES_USER=shop",
            "-e",
            "POSTGRES_PASSWORD=shop",
            "-e",
            "POSTGRES_DB=shop",
            "-e",
            "POSTGRES_HOST_AUTH_METHOD=trust",
            "postgres:15",
        ]);
    };
    let url = "postgresql://shop:shop@127.0.0.1:25999/shop";
    let (mut copied, mut restored) = (Vec::new(), Vec::new());
    let data = place.folder.join("copy");
    let dump = place.folder.join("big.dump");
    for _ in 0..SLOW_ROUNDS {
        let begun = Instant::now();
        let done = Command::new("cp").args(["-a", "--reflink=never"]).args([&seed, &data]).status().expect("cp runs");
        assert!(done.success());
        // The seed's own file asks for the seed's password.
        std::fs::write(data.join("pg_hba.conf"), "local all all trust\nhost all all all trust\n").expect("pg_hba.conf");
        run(&data);
        copied.push(answered(url, begun));
        if !dump.exists() {
            let file = std::fs::File::create(&dump).expect("a file");
            let argv = ["exec", &name, "pg_dump", "-U", "shop", "-Fc", "shop"];
            let done = Command::new("docker").args(argv).stdout(file).status().expect("docker runs");
            assert!(done.success());
        }
        engine.run(&["rm", "-f", &name]);
        std::fs::remove_dir_all(&data).expect("removed");

        let begun = Instant::now();
        std::fs::create_dir(&data).expect("a folder");
        run(&data);
        let script = "until pg_isready -q -U shop -h 127.0.0.1; do sleep 0.05; done; cat >/tmp/dump; exec pg_restore -U shop -d shop --jobs 2 /tmp/dump";
        let file = std::fs::File::open(&dump).expect("the dump");
        let done = Command::new("docker")
            .args(["exec", "-i", &name, "sh", "-c", script])
            .stdin(file)
            .status()
            .expect("docker runs");
        assert!(done.success());
        restored.push(answered(url, begun));
        engine.run(&["rm", "-f", &name]);
        std::fs::remove_dir_all(&data).expect("removed");
    }
    (copied, restored, bytes)
}
