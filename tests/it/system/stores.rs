//! Seeds and snapshots of MariaDB, Redis and plain data folders, on real ones.

use std::fmt::Write as _;
use std::process::Command;

use tests::harness::condition::{SOON, eventually};
use tests::harness::real;
use tests::harness::sql::query;

use super::stand::Stand;

const MARIADB: &str = "
name: shop
x-muster: { seed: staging }
services:
  db:
    image: mariadb:10.11
    command: [--innodb-buffer-pool-size=32M]
    environment: { MARIADB_ROOT_PASSWORD: boss, MARIADB_USER: shop, MARIADB_PASSWORD: shop, MARIADB_DATABASE: shop }
    ports: [\"3306:3306\"]
    volumes: [\"db:/var/lib/mysql\"]
volumes: { db: }
";
const PEOPLE: u32 = 300;

/// Asks the database as a user with a password, over its port.
fn ask(stand: &Stand, environment: &str, login: (&str, &str), sql: &str) -> Result<String, String> {
    let (user, password) = (format!("-u{}", login.0), format!("-p{}", login.1));
    let words = ["mariadb", "-h127.0.0.1", &user, &password, "-N", "-B", "shop", "-e", sql];
    let done = stand.exec(environment, "db", &words);
    if done.code == 0 { Ok(done.stdout.trim().to_owned()) } else { Err(done.all()) }
}

fn with_mariadb() -> Stand {
    let stand = Stand::open(MARIADB);
    let mut dump =
        String::from("CREATE TABLE people (id int PRIMARY KEY, email varchar(80), KEY (email)) ENGINE=InnoDB;\n");
    for id in 1..=PEOPLE {
        writeln!(dump, "INSERT INTO people VALUES ({id}, 'person{id}@customer.example');").expect("a string");
    }
    dump.push_str("CREATE USER other@'%' IDENTIFIED BY 'other';\nGRANT ALL ON shop.* TO other@'%';\n");
    stand.file("dump.sql", dump);
    stand.file("mask.sql", "UPDATE people SET email = CONCAT('user', id, '@test');\n");
    stand.file("canaries.txt", "person77@customer.example\nperson299@customer.example\n");
    stand
}

const IMPORT: [&str; 8] =
    ["seed", "import", "staging", "db=dump.sql", "--mask", "db=mask.sql", "--canaries", "canaries.txt"];

#[test]
fn a_masked_mariadb_is_cloned_with_passwords_of_its_own_and_reset() {
    let Some(_turn) = real::turn() else { return };
    let stand = with_mariadb();
    let refused = stand.muster(&["seed", "import", "staging", "db=dump.sql", "--canaries", "canaries.txt"]).run();
    let said = refused.with_code(1).says("E_SEED_CANARY");
    assert!(!said.all().contains("person77"), "{}", said.all());
    stand.file("broken.sql", "CREATE TABLE t (id int);\nINSERT INTO nowhere VALUES (1);\n");
    let refused = stand.muster(&["seed", "import", "staging", "db=broken.sql"]).run();
    refused.with_code(1).says("E_SEED_INPUT").says("nowhere");
    stand.muster(&IMPORT).ok();
    // Pages lay there as they were before they were masked.
    let seeds = std::fs::read_dir(stand.host.folder().join("state/pool/seeds")).expect("seeds");
    let seed = seeds.map(|entry| entry.expect("an entry").path()).next().expect("one");
    let space = std::fs::read(seed.join("volumes/db/ibdata1")).expect("the system tablespace");
    assert!(space[64 << 14..192 << 14].iter().all(|byte| *byte == 0), "the doublewrite buffer is empty");

    for name in ["one", "two"] {
        let printed = stand.muster(&["env", "up", "--name", name]).ok();
        assert!(printed.all().contains("cloned"), "{}", printed.all());
    }
    let password = |name: &str| stand.variable(name, "db", "DB_PASSWORD");
    let (one, two) = (password("one"), password("two"));
    assert!(one != two && one != "shop");
    let count = "SELECT COUNT(*), SUM(email = CONCAT('user', id, '@test')) FROM people";
    assert_eq!(ask(&stand, "one", ("shop", &one), count), Ok(format!("{PEOPLE}\t{PEOPLE}")));
    assert_eq!(ask(&stand, "two", ("shop", &two), count), Ok(format!("{PEOPLE}\t{PEOPLE}")));
    for login in [("shop", "shop"), ("root", "boss"), ("other", "other"), ("shop", two.as_str())] {
        let refused = ask(&stand, "one", login, "SELECT 1").expect_err("a foreign password");
        assert!(refused.contains("denied") || refused.contains("locked"), "{refused}");
    }

    // Reset and its undo keep address and password.
    ask(&stand, "one", ("shop", &one), "DELETE FROM people WHERE id > 10").expect("deleted");
    let address = stand.variable("one", "db", "DB_PORT");
    stand.muster(&["env", "reset", "one"]).ok();
    assert_eq!((password("one"), stand.variable("one", "db", "DB_PORT")), (one.clone(), address));
    assert_eq!(ask(&stand, "one", ("shop", &one), "SELECT COUNT(*) FROM people"), Ok(PEOPLE.to_string()));
    stand.muster(&["env", "undo", "one"]).ok();
    assert_eq!(ask(&stand, "one", ("shop", &one), "SELECT COUNT(*) FROM people"), Ok("10".to_owned()));
    assert_eq!(ask(&stand, "two", ("shop", &two), "SELECT COUNT(*) FROM people"), Ok(PEOPLE.to_string()));
}

#[test]
fn a_snapshot_of_mariadb_under_writes_has_no_hole_and_passes_its_own_check() {
    let Some(_turn) = real::turn() else { return };
    let stand = with_mariadb();
    stand.muster(&IMPORT).ok();
    stand.muster(&["env", "up", "--name", "one"]).ok();
    let password = stand.variable("one", "db", "DB_PASSWORD");
    let sql = |environment: &str, password: &str, sql: &str| ask(&stand, environment, ("shop", password), sql);
    sql("one", &password, "CREATE TABLE writes (n int PRIMARY KEY, pad varchar(500), KEY (pad)) ENGINE=InnoDB")
        .expect("made");
    let script = "n=0; while [ ! -e /tmp/stop ]; do n=$((n+1)); echo \"INSERT INTO writes VALUES ($n, REPEAT(MD5($n), 12));\"; done \
                  | mariadb -ushop shop";
    let mut writer = Command::new("docker")
        .args(["exec", "-e", "MYSQL_PWD", &stand.container("one", "db"), "sh", "-c", script])
        .env("MYSQL_PWD", &password)
        .spawn()
        .expect("a writer");
    let written = || sql("one", &password, "SELECT COUNT(*) FROM writes").map(|text| text.parse().unwrap_or(0_u32));
    eventually(SOON, "it writes", || written().and_then(|n| if n > 200 { Ok(()) } else { Err(n.to_string()) }));
    stand.muster(&["env", "snapshot", "bug", "one"]).ok();
    let then = written().expect("counted");
    eventually(SOON, "it goes on writing", || {
        written().and_then(|n| if n > then { Ok(()) } else { Err(n.to_string()) })
    });
    assert_eq!(stand.exec("one", "db", &["touch", "/tmp/stop"]).code, 0);
    writer.wait().expect("it ends");

    stand.muster(&["env", "up", "--from", "asha/bug", "--name", "copy"]).ok();
    let own = stand.variable("copy", "db", "DB_PASSWORD");
    assert_ne!(own, password);
    let rows = sql("copy", &own, "SELECT COUNT(*), MAX(n) FROM writes").expect("read");
    let (count, last) = rows.split_once('\t').expect("two");
    assert_eq!(count, last, "no hole");
    assert!(count.parse::<u32>().expect("a number") >= 200, "{rows}");
    let checked = sql("copy", &own, "CHECK TABLE writes, people EXTENDED").expect("checked");
    assert!(checked.lines().count() >= 2 && checked.lines().all(|line| line.ends_with("\tOK")), "{checked}");
}

#[test]
fn an_open_transaction_in_mariadb_keeps_it_awake_until_it_ends() {
    let Some(_turn) = real::turn() else { return };
    let stack = MARIADB.replace("{ seed: staging }", "{ idle: { freeze: 500ms, stop: never } }");
    let stand = Stand::open(&stack);
    stand.muster(&["env", "up", "--name", "one"]).ok();
    stand.reaches("one", "FROZEN");
    let container = stand.container("one", "db");
    let docker = |words: &[&str]| Command::new("docker").args(words).status().expect("docker runs").success();
    // By this use it is awake, and when the use ends the transaction is open.
    let script = "{ echo 'CREATE TABLE t (n int); START TRANSACTION; SELECT COUNT(*) FROM t;'; \
                  while [ ! -e /tmp/stop ]; do sleep 0.1; done; } \
                  | mariadb -n -ushop -p\"$MARIADB_PASSWORD\" shop >/tmp/counted 2>&1 & \
                  while [ ! -s /tmp/counted ]; do sleep 0.1; done; cat /tmp/counted";
    let counted = stand.exec("one", "db", &["sh", "-c", script]);
    assert_eq!(counted.stdout, "COUNT(*)\n0\n", "{}", counted.all());
    let why = || stand.show("one")["why"].as_str().unwrap_or_default().to_owned();
    eventually(SOON, "it is awake for the transaction", || {
        let why = why();
        if why.contains("a transaction in db (shop from localhost)") { Ok(()) } else { Err(why) }
    });
    assert!(docker(&["exec", &container, "touch", "/tmp/stop"]));
    stand.reaches("one", "FROZEN");
}

const FOLDERS: &str = "
name: things
services:
  redis:
    image: redis:7
    command: [redis-server, --requirepass, things]
    ports: [\"6379\"]
  postgres:
    image: postgres:15
    environment: { POSTGRES_USER: things, POSTGRES_PASSWORD: things, POSTGRES_DB: things }
    ports: [\"5432\"]
    volumes: [\"db:/var/lib/postgresql/data\"]
volumes: { db: }
";

fn redis(stand: &Stand, environment: &str, words: &[&str]) -> String {
    let password = stand.variable(environment, "redis", "REDIS_PASSWORD");
    let words = [&["redis-cli", "--no-auth-warning", "-a", &password], words].concat();
    let done = stand.exec(environment, "redis", &words);
    assert_eq!(done.code, 0, "{}", done.all());
    done.stdout.trim().to_owned()
}

/// Runs a command in a container of the image until it succeeds, stops it, and takes a path out of it as a tar.
fn by_hand(stand: &Stand, image: &str, command: &[&str], path: &str, archive: &str) {
    let engine = &stand.host.engine;
    let name = format!("{}-{}", stand.cluster.name(), archive.replace('.', "-"));
    let label = format!("{}={}", tests::harness::clean::LABEL, stand.cluster.name());
    let settings = ["POSTGRES_USER=things", "POSTGRES_DB=things", "POSTGRES_PASSWORD=foreign"];
    let mut words = vec!["run", "-d", "--name", &name, "--label", &label];
    words.extend(settings.iter().flat_map(|setting| ["-e", setting]));
    words.push(image);
    engine.run(&words);
    let exec = [&["exec", name.as_str()], command].concat();
    eventually(SOON, "the command succeeds", || engine.try_run(&exec));
    engine.run(&["stop", &name]);
    let file = std::fs::File::create(stand.folder.join(archive)).expect("a file");
    let argv = ["cp", &format!("{name}:{path}"), "-"];
    assert!(Command::new("docker").args(argv).stdout(file).status().expect("docker runs").success());
    engine.run(&["rm", "-fv", &name]);
}

#[test]
fn a_dump_of_redis_and_the_folder_of_a_stopped_postgres_become_a_seed() {
    let Some(_turn) = real::turn() else { return };
    let stand = Stand::open(FOLDERS);
    let url = "postgresql://things:foreign@127.0.0.1/things";
    let made = "CREATE TABLE kept AS SELECT generate_series(1, 1000) AS n";
    by_hand(&stand, "redis:7", &["redis-cli", "set", "greeting", "hello"], "/data/dump.rdb", "dump.rdb.tar");
    by_hand(&stand, "postgres:15", &["psql", "-q", url, "-c", made], "/var/lib/postgresql/data", "data.tar");
    let unpacked = Command::new("tar").args(["-xf", "dump.rdb.tar"]).current_dir(&stand.folder).status().expect("tar");
    assert!(unpacked.success());

    stand.muster(&["seed", "import", "files", "redis=dump.rdb", "postgres=data.tar"]).ok();
    stand.muster(&["env", "up", "--from", "files", "--name", "copy"]).ok();
    assert_eq!(redis(&stand, "copy", &["get", "greeting"]), "hello");
    let url = stand.variable("copy", "postgres", "POSTGRES_URL");
    assert_eq!(query(&url, "SELECT count(*), max(n) FROM kept"), Ok("1000|1000".to_owned()));
    let address = url.rsplit_once('@').expect("an address").1;
    let refused = query(&format!("postgresql://things:foreign@{address}"), "SELECT 1").expect_err("a foreign password");
    assert!(refused.contains("password authentication failed"), "{refused}");
}
