//! Seeds, resets and snapshots: `muster seed`, `muster env up`, `reset`, `undo`, `snapshot` on real stores.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tests::harness::cluster::Cluster;
use tests::harness::host::Host;
use tests::harness::real;
use tests::harness::sql::query;

const STACK: &str = "
name: shop
x-muster: { seed: staging }
services:
  postgres:
    image: postgres:15
    environment: { POSTGRES_USER: shop, POSTGRES_PASSWORD: shop, POSTGRES_DB: shop, STAND_IN_COPIES: 1 }
    ports: [\"5432:5432\"]
    volumes: [\"db:/var/lib/postgresql/data\"]
  redis:
    image: redis:7
    command: [redis-server, --requirepass, shop]
    ports: [\"6379:6379\"]
volumes: { db: }
";
const PEOPLE: u32 = 500;

/// A stack with stores, and what a seed of it is made from.
pub(super) struct Shop {
    pub(super) cluster: Cluster,
    pub(super) host: Host,
    pub(super) folder: PathBuf,
}

impl Shop {
    fn open() -> Self {
        Self::on("copy")
    }

    /// With this pool on its host.
    pub(super) fn on(pool: &str) -> Self {
        Self::with(pool, 0)
    }

    /// With a slot of each hot stack kept ready.
    pub(super) fn warm(pool: &str) -> Self {
        Self::with(pool, 1)
    }

    fn with(pool: &str, slots: u32) -> Self {
        let cluster = Cluster::start();
        let host = cluster.host("box-asha").label("owner", "asha").label("env", "dev").pool(pool).warm(slots).join();
        let folder = cluster.folder().join("shop");
        std::fs::create_dir(&folder).expect("a folder");
        std::fs::write(folder.join("compose.yaml"), STACK).expect("compose.yaml");
        let mut dump = String::from(
            "CREATE TABLE people (id int PRIMARY KEY, email text);\nCREATE ROLE other LOGIN PASSWORD 'other';\n",
        );
        for id in 1..=PEOPLE {
            writeln!(dump, "INSERT INTO people VALUES ({id}, 'person{id}@customer.example');").expect("a string");
        }
        std::fs::write(folder.join("dump.sql"), dump).expect("dump.sql");
        std::fs::write(folder.join("mask.sql"), "UPDATE people SET email = 'user' || id || '@test';")
            .expect("mask.sql");
        std::fs::write(folder.join("canaries.txt"), "person77@customer.example\nperson499@customer.example\n")
            .expect("canaries");
        Self { cluster, host, folder }
    }

    pub(super) fn muster(&self, words: &[&str]) -> tests::harness::call::Call {
        self.cluster.muster(words).by("asha").within(&self.folder).env("MUSTER_AGENT_SOCKET", self.host.socket())
    }

    pub(super) fn import(&self) {
        let words = [
            "seed",
            "import",
            "staging",
            "postgres=dump.sql",
            "--mask",
            "postgres=mask.sql",
            "--canaries",
            "canaries.txt",
        ];
        self.muster(&words).ok();
    }

    pub(super) fn url(&self, name: &str) -> String {
        let shown = self.muster(&["env", "show", name]).json();
        variable(&shown, "postgres", "POSTGRES_URL")
    }
}

struct Redis {
    host: String,
    port: String,
    password: String,
}

impl Redis {
    fn of(shown: &Value) -> Self {
        let get = |name: &str| variable(shown, "redis", name);
        Self { host: get("REDIS_HOST"), port: get("REDIS_PORT"), password: get("REDIS_PASSWORD") }
    }
}

fn variable(shown: &Value, service: &str, name: &str) -> String {
    let services = shown["services"].as_array().expect("services");
    let service = services.iter().find(|one| one["name"] == service).expect("that service");
    service["variables"][name].as_str().expect("that variable").to_owned()
}

fn files_with(folder: &Path, needle: &[u8]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files_with(&path, needle));
        } else if std::fs::read(&path).is_ok_and(|bytes| bytes.windows(needle.len()).any(|window| window == needle)) {
            found.push(path);
        }
    }
    found
}

#[test]
fn a_masked_seed_is_cloned_reset_and_nothing_of_the_customers_is_left_in_it() {
    let Some(_turn) = real::turn() else { return };
    let shop = Shop::open();
    let refused = shop.muster(&["seed", "import", "staging", "postgres=dump.sql", "--canaries", "canaries.txt"]).run();
    let said = refused.with_code(1).says("E_SEED_CANARY");
    assert!(!said.all().contains("person77"), "{}", said.all());
    shop.import();
    let pool = shop.host.folder().join("state/pool/seeds");
    assert_eq!(files_with(&pool, b"@customer.example"), Vec::<PathBuf>::new());

    // Two environments, each with data, address and password of its own.
    for name in ["one", "two"] {
        let printed = shop.muster(&["env", "up", "--name", name]).ok();
        assert!(printed.all().contains("cloned"), "{}", printed.all());
    }
    let (one, two) = (shop.url("one"), shop.url("two"));
    assert_ne!(one, two);
    let sealed = shop.muster(&["seed", "show", "staging"]).json();
    let (version, server) = (&sealed["parts"][0]["version"], query(&one, "SHOW server_version"));
    let of_the_server = |version: &str| server.as_ref().is_ok_and(|server| server.split(' ').next() == Some(version));
    assert!(version.as_str().is_some_and(of_the_server), "{server:?}: {sealed}");
    for url in [&one, &two] {
        assert_eq!(
            query(url, "SELECT count(*), count(*) FILTER (WHERE email = 'user' || id || '@test') FROM people"),
            Ok(format!("{PEOPLE}|{PEOPLE}"))
        );
    }
    query(&one, "DELETE FROM people WHERE id > 10").expect("deleted");
    assert_eq!(query(&two, "SELECT count(*) FROM people"), Ok(PEOPLE.to_string()));
    let shown = shop.muster(&["env", "show", "one"]).json();
    let address = one.rsplit_once('@').expect("an address").1;
    for login in ["shop:shop", "other:other"] {
        let refused =
            query(&format!("postgresql://{login}@{address}"), "SELECT 1").expect_err("the seed's own password");
        assert!(refused.contains("password authentication failed"), "{refused}");
    }
    assert_eq!(shown["seed"].as_str().map(|seed| seed.starts_with("staging@")), Some(true), "{shown}");

    // Reset and its undo keep address and password.
    shop.muster(&["env", "reset", "one"]).ok();
    assert_eq!(shop.url("one"), one);
    assert_eq!(query(&one, "SELECT count(*) FROM people"), Ok(PEOPLE.to_string()));
    shop.muster(&["env", "undo", "one"]).ok();
    assert_eq!(query(&one, "SELECT count(*) FROM people"), Ok("10".to_owned()));

    // What was made from it keeps a seed; then it goes, and its bytes with it.
    shop.muster(&["seed", "rm", "staging"]).run().with_code(4).says("E_SEED_IN_USE");
    for name in ["one", "two"] {
        shop.muster(&["env", "down", name]).ok();
    }
    shop.muster(&["seed", "rm", "staging"]).ok();
    assert_eq!(std::fs::read_dir(&pool).map(|entries| entries.count()).unwrap_or(0), 0);
    shop.muster(&["env", "up"]).run().with_code(3).says("E_SEED_UNKNOWN");
}

#[test]
fn a_snapshot_under_writes_is_one_instant_of_all_stores_and_a_colleague_begins_with_it() {
    let Some(_turn) = real::turn() else { return };
    let shop = Shop::open();
    shop.import();
    shop.muster(&["env", "up", "--name", "one"]).ok();
    let shown = shop.muster(&["env", "show", "one"]).json();
    let (url, redis) = (variable(&shown, "postgres", "POSTGRES_URL"), Redis::of(&shown));
    query(&url, "CREATE TABLE writes (number int PRIMARY KEY)").expect("made");
    // First PostgreSQL, then Redis: at any instant Redis is at most as far.
    let script = format!(
        "n=0; while [ ! -e stop ]; do n=$((n+1)); psql -XAtqc \"INSERT INTO writes VALUES ($n)\" '{url}' && redis-cli -h {} -p {} set writes $n >/dev/null; done",
        redis.host, redis.port
    );
    let mut writer = Command::new("sh")
        .arg("-c")
        .arg(script)
        .current_dir(&shop.folder)
        .env("REDISCLI_AUTH", &redis.password)
        .spawn()
        .expect("a writer");
    tests::harness::condition::eventually(tests::harness::condition::SOON, "it writes", || {
        let count = query(&url, "SELECT count(*) FROM writes")?;
        if count.parse::<u32>().unwrap_or(0) > 5 { Ok(()) } else { Err(count) }
    });
    let printed = shop.muster(&["env", "snapshot", "bug-4711", "one"]).ok();
    std::fs::write(shop.folder.join("stop"), "").expect("stop");
    writer.wait().expect("it ends");
    assert!(printed.all().contains("bug-4711"), "{}", printed.all());
    let seeds = shop.muster(&["seed", "list", "--snapshots"]).json();
    let seeds = seeds["seeds"].as_array().cloned().unwrap_or_default();
    let snapshot = seeds.iter().find(|seed| seed["name"] == "bug-4711").expect("the snapshot");
    let freeze: u64 = snapshot["freeze_micros"]
        .as_str()
        .and_then(|text| text.parse().ok())
        .or(snapshot["freeze_micros"].as_u64())
        .expect("a time");
    assert!((1..2_000_000).contains(&freeze), "{freeze} µs");

    shop.muster(&["env", "up", "--from", "asha/bug-4711", "--name", "copy"]).ok();
    let shown = shop.muster(&["env", "show", "copy"]).json();
    let (url, redis) = (variable(&shown, "postgres", "POSTGRES_URL"), Redis::of(&shown));
    let postgres: u32 = query(&url, "SELECT max(number) FROM writes").expect("read").parse().expect("a number");
    let done = Command::new("redis-cli")
        .args(["-h", &redis.host, "-p", &redis.port, "get", "writes"])
        .env("REDISCLI_AUTH", &redis.password)
        .output()
        .expect("redis-cli");
    let redis: u32 = String::from_utf8_lossy(&done.stdout).trim().parse().expect("a number");
    assert_eq!(query(&url, "SELECT count(*) FROM writes"), Ok(postgres.to_string()), "no hole");
    // PostgreSQL's own check of every table and index, also against each other.
    let words = ["pg_amcheck", "-U", "shop", "-d", "shop", "--install-missing", "--heapallindexed"];
    shop.muster(&[&["env", "exec", "-e", "copy", "postgres", "--"], words.as_slice()].concat()).ok();
    assert!(postgres > 5 && (redis == postgres || redis + 1 == postgres), "PostgreSQL {postgres}, Redis {redis}");
}

#[test]
fn a_command_that_comes_while_a_snapshot_is_taken_waits_until_nothing_stands_still() {
    let Some(_turn) = real::turn() else { return };
    let shop = Shop::on("copy");
    shop.import();
    shop.muster(&["env", "up", "--from", "staging", "--name", "busy"]).ok();
    let mut whole = 0;
    for round in 0..20 {
        let name = format!("s{round}");
        let mut taken = shop.muster(&["env", "snapshot", &name, "busy"]).begin();
        let mut entered = 0;
        while taken.runs() {
            shop.muster(&["env", "exec", "-e", "busy", "postgres", "--", "true"]).ok();
            entered += 1;
        }
        let taken = taken.finish();
        assert!(entered > 0);
        // Nothing stands still for longer than 2 s, also where copying takes longer.
        if taken.code != 0 {
            taken.says("E_SNAPSHOT_SLOW");
            continue;
        }
        shop.muster(&["seed", "rm", &format!("asha/{name}")]).ok();
        whole += 1;
        if whole == 3 {
            return;
        }
    }
    panic!("only {whole} of 20 were taken");
}
