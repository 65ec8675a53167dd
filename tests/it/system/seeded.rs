//! What begins with a seed while the seed itself is changed or removed, and what does so without a developer: test runs.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use tests::harness::cluster::{Cluster, Options};
use tests::harness::condition::{SOON, eventually};
use tests::harness::example::Example;
use tests::harness::real;
use tests::harness::sql::query;

use super::runs::no_traces;
use super::seeds::Shop;
use super::stand::POSTGRES;

const SEED_TEST: &str = r#"import asyncio

import asyncpg

from bot import config


def test_the_seed_is_there():
    async def run():
        connection = await asyncpg.connect(config.load().database_url)
        try:
            return await connection.fetchval("SELECT word FROM seeded WHERE id = 1")
        finally:
            await connection.close()

    assert asyncio.run(run()) == "from the seed"
"#;

#[test]
fn a_run_begins_with_the_seed_of_its_stack_which_is_brought_to_its_host() {
    let Some(_turn) = real::turn() else { return };
    let cluster = Cluster::with(&Options { example: true, ..Options::default() });
    let host = cluster.host("test-1").label("role", "test").join();
    let _box = cluster.host("box-asha").label("owner", "asha").join();
    let stack = std::fs::read_to_string(Example::get().repository.join("compose.yaml")).expect("compose.yaml");
    let stack = format!("{stack}\nx-muster: {{ seed: staging }}\n");
    let files = [("tests/test_seed.py", SEED_TEST), ("compose.yaml", stack.as_str())];
    let (repository, commit) = Example::get().variant(cluster.folder(), &files);
    let origin = repository.to_string_lossy();
    cluster.muster(&["app", "apply", "--repository", &origin]).within(&repository).by("jenkins").ok();
    let start = ["run", "start", "unit", "--commit", commit.as_str(), "--wait"];
    let run = || cluster.muster(&start).within(&repository).by("asha");
    run().code(1).says("E_SEED_UNKNOWN");
    no_traces(&host);

    let dump =
        "CREATE TABLE seeded (id int PRIMARY KEY, word text);\nINSERT INTO seeded VALUES (1, 'from the seed');\n";
    std::fs::write(repository.join("seed.sql"), dump).expect("seed.sql");
    cluster.muster(&["seed", "import", "staging", "postgres=seed.sql"]).within(&repository).by("asha").ok();
    run().ok().says("passed: ");
    let made = cluster.muster(&["run", "list", "--app", "bot"]).json()["runs"][0].clone();
    let began = made["seed"].as_str().unwrap_or_default().to_owned();
    assert!(began.starts_with("staging@"), "{made}");
    cluster.muster(&["run", "show", made["id"].as_str().unwrap_or_default()]).by("asha").ok().says(&began);
    no_traces(&host);
    // It was made elsewhere, and nothing needs it any more.
    let seed = cluster.muster(&["seed", "show", &began]).by("asha").json();
    assert_eq!(seed["hosts"], serde_json::json!(["box-asha", "test-1"]), "{seed}");
    cluster.muster(&["seed", "rm", &began]).by("asha").ok();
}

fn environments(shop: &Shop) -> Vec<Value> {
    shop.muster(&["env", "list"]).json()["environments"].as_array().cloned().unwrap_or_default()
}

#[test]
fn two_commands_at_once_make_one_environment_and_its_seed_stays_meanwhile() {
    let Some(_turn) = real::turn() else { return };
    let shop = Shop::on("copy");
    shop.import();
    let calls: Vec<_> = (0..2).map(|_| shop.muster(&["env", "up", "--name", "one"]).begin()).collect();
    eventually(SOON, "the environment is known", || {
        if environments(&shop).is_empty() { Err(String::new()) } else { Ok(()) }
    });
    // Whatever its host has laid by now.
    shop.muster(&["seed", "rm", "staging"]).run().with_code(4).says("E_SEED_IN_USE").says("asha/one");
    for call in calls {
        call.finish().with_code(0).says("ready in");
    }
    assert_eq!(environments(&shop).len(), 1);
    assert_eq!(shop.host.running().len(), 2, "{:?}", shop.host.running());
    assert_eq!(query(&shop.url("one"), "SELECT count(*) FROM people").as_deref(), Ok("500"));

    // A snapshot of it has data of its own: that what it began with goes is nothing to it.
    shop.muster(&["env", "snapshot", "kept", "one"]).ok();
    shop.muster(&["env", "down", "one"]).ok();
    shop.muster(&["seed", "rm", "staging"]).ok();
    shop.muster(&["env", "up", "--from", "asha/kept", "--name", "two"]).ok();
    assert_eq!(query(&shop.url("two"), "SELECT count(*) FROM people").as_deref(), Ok("500"));
    shop.muster(&["seed", "rm", "asha/kept"]).run().with_code(4).says("E_SEED_IN_USE").says("asha/two");
    shop.muster(&["env", "down", "two"]).ok();
    shop.muster(&["seed", "rm", "asha/kept"]).ok();
    let pool = shop.host.folder().join("state/pool/seeds");
    assert_eq!(std::fs::read_dir(&pool).map(|entries| entries.count()).unwrap_or(0), 0, "nothing of either is left");
}

#[test]
fn what_begins_while_its_seed_is_refreshed_has_one_whole_version() {
    let Some(_turn) = real::turn() else { return };
    let shop = Shop::on("copy");
    shop.import();
    let mut dump = "CREATE TABLE people (id int PRIMARY KEY, email text);\n".to_owned();
    for id in 1..=700 {
        writeln!(dump, "INSERT INTO people VALUES ({id}, 'second{id}@test');").expect("a string");
    }
    std::fs::write(shop.folder.join("second.sql"), dump).expect("second.sql");
    let version = |name: &str| {
        let shown = shop.muster(&["env", "show", name]).json();
        shown["seed"].as_str().unwrap_or_default().to_owned()
    };
    let holds = |name: &str| {
        query(&shop.url(name), "SELECT count(*), count(*) FILTER (WHERE email LIKE 'second%') FROM people")
    };
    let (first_data, second_data) = (Ok("500|0".to_owned()), Ok("700|700".to_owned()));

    let mut import = shop.muster(&["seed", "import", "staging", "postgres=second.sql"]).begin();
    shop.muster(&["env", "up", "--name", "e0"]).ok();
    let first = version("e0");
    let mut names = vec!["e0".to_owned()];
    while import.runs() && names.len() < 6 {
        let name = format!("e{}", names.len());
        // By turns a new one, and a clone of one that runs.
        match names.len() % 2 {
            0 => shop.muster(&["env", "clone", "e0", &name]).ok(),
            _ => shop.muster(&["env", "up", "--from", "staging", "--name", &name]).ok(),
        };
        names.push(name);
    }
    import.finish().with_code(0);
    shop.muster(&["env", "up", "--from", "staging", "--name", "last"]).ok();
    let second = version("last");
    assert!(first != second && second.starts_with("staging@"), "{first} {second}");
    assert_eq!(holds("last"), second_data);
    for name in &names {
        let began = version(name);
        let expected = if began == second { &second_data } else { &first_data };
        assert_eq!(&holds(name), expected, "{name} began with {began}");
    }
    // A reset brings back what each began with, not what is the newest by now.
    shop.muster(&["env", "reset", "e0"]).ok();
    assert_eq!(holds("e0"), first_data);
}

const SHORT_LIFE: &str = "x-muster: { ttl: 20s, idle: { freeze: never, stop: 1s } }\n";

#[test]
fn at_its_ttl_a_stopped_environment_becomes_a_snapshot_without_being_started() {
    let Some(_turn) = real::turn() else { return };
    let cluster = Cluster::start();
    let host = cluster.host("box-asha").label("owner", "asha").label("env", "dev").join();
    let folder: PathBuf = cluster.folder().join("short");
    std::fs::create_dir(&folder).expect("a folder");
    std::fs::write(folder.join("compose.yaml"), format!("{POSTGRES}{SHORT_LIFE}")).expect("a file");
    let muster =
        |words: &[&str]| cluster.muster(words).by("asha").within(&folder).env("MUSTER_AGENT_SOCKET", host.socket());
    let url = |name: &str| {
        let shown = muster(&["env", "show", name]).json();
        let services = shown["services"].as_array().expect("services");
        services[0]["variables"]["POSTGRES_URL"].as_str().expect("a URL").to_owned()
    };
    muster(&["env", "up", "--name", "short"]).ok();
    query(&url("short"), "CREATE TABLE kept AS SELECT 7 AS n").expect("written");
    let events = || cluster.muster(&["events", "--since", "10m"]).ok().stdout;
    let log = eventually(Duration::from_secs(120), "its end", || {
        let log = events();
        if log.contains("environment.expired") { Ok(log) } else { Err(log) }
    });
    assert!(log.contains("env up --from asha/short"), "{log}");
    let (before, after) = log.rsplit_once("environment.expiring").unwrap_or_else(|| panic!("no warning: {log}"));
    assert!(before.rfind("environment.asleep") > before.rfind("environment.ready"), "it was awake: {log}");
    assert!(!after.contains("environment.ready"), "it was started for it: {log}");
    eventually(SOON, "nothing of it is left", || {
        let left = host.objects();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });

    // The stack comes with it.
    let elsewhere = cluster.folder().join("elsewhere");
    std::fs::create_dir(&elsewhere).expect("a folder");
    let words = ["env", "up", "--from", "asha/short", "--name", "back"];
    cluster.muster(&words).by("asha").within(&elsewhere).ok();
    assert_eq!(query(&url("back"), "SELECT n FROM kept").as_deref(), Ok("7"));
}
