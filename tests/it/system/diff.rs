//! `muster env diff --data` on real stores.

use std::process::Command;

use tests::harness::condition::{SOON, eventually};
use tests::harness::real;

use super::stand::Stand;

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
    ports: [\"6379:6379\"]
volumes: { db: }
";
const DUMP: &str = "
CREATE TABLE people (id int PRIMARY KEY, email text, note text);
INSERT INTO people SELECT n, 'user' || n, repeat('x', n % 50) FROM generate_series(1, 2000) n;
CREATE TABLE words (word text, place text, PRIMARY KEY (word, place));
INSERT INTO words SELECT CASE n % 3 WHEN 0 THEN 'ä' WHEN 1 THEN 'Z' ELSE 'a' END || n, 'b' FROM generate_series(1, 99) n;
CREATE TABLE visits (at timestamptz, who int);
INSERT INTO visits SELECT '2026-01-01', n % 10 FROM generate_series(1, 100) n;
CREATE TABLE untouched AS SELECT n AS id FROM generate_series(1, 5000) n;
CREATE TABLE dropped (id int);
INSERT INTO dropped VALUES (1), (2);
";
const KEYS: &str = "
redis-cli mset one 1 two 2 three 3
redis-cli eval \"for i=1,1000 do redis.call('sadd','members',i) redis.call('hset','prices',i,i) end\" 0
redis-cli eval \"for i=1,600 do redis.call('rpush','queue',i) redis.call('zadd','ranks',i,i) end\" 0
";

fn psql(url: &str, sql: &str) {
    let done = Command::new("psql").args([url, "-XAtqc", sql]).output().expect("psql runs");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

/// Lines without the spaces around them and the figures of time.
fn shown(text: &str) -> Vec<String> {
    let lines = text.lines().map(|line| line.split(" (").next().unwrap_or_default());
    lines.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

#[test]
fn what_changed_since_the_seed_is_told_by_table_and_key_and_nothing_is_left_behind() {
    let Some(_turn) = real::turn() else { return };
    let shop = Stand::open(STACK);
    shop.file("dump.sql", DUMP);
    shop.file("keys.sh", KEYS);
    shop.muster(&["seed", "import", "staging", "--version", "1", "postgres=dump.sql", "redis=keys.sh"]).ok();
    shop.muster(&["env", "up", "--name", "one"]).ok();
    let before = shop.host.objects();

    let same = shop.muster(&["env", "diff", "--data", "one"]).ok();
    assert_eq!(shown(&same.stdout), ["one against staging@1", "0 differ, 6 are the same"]);

    psql(
        &shop.variable("one", "postgres", "POSTGRES_URL"),
        "INSERT INTO people VALUES (0, 'new'), (2001, 'new'), (2002, 'new'); DELETE FROM people WHERE id = 7; \
         UPDATE people SET email = 'changed' WHERE id BETWEEN 100 AND 111; \
         ALTER TABLE people ADD COLUMN age int; ALTER TABLE people DROP COLUMN note; \
         DELETE FROM words WHERE word LIKE 'ä9%'; INSERT INTO words VALUES ('ö', 'c'); \
         INSERT INTO visits VALUES ('2026-01-01', 3), ('2027-01-01', 3); DROP TABLE dropped; \
         CREATE TABLE audit AS SELECT n FROM generate_series(1, 40) n;",
    );
    psql(&shop.variable("one", "postgres", "POSTGRES_URL"), "CREATE DATABASE more");
    let redis = |words: &[&str]| {
        let (host, port) = (shop.variable("one", "redis", "REDIS_HOST"), shop.variable("one", "redis", "REDIS_PORT"));
        let done = Command::new("redis-cli").args(["-h", &host, "-p", &port]).args(words).output().expect("redis-cli");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    redis(&["set", "four", "4"]);
    redis(&["del", "one"]);
    redis(&["set", "two", "22"]);
    // When a key ends is no content; a change and its opposite are none either.
    redis(&["expire", "three", "100000"]);
    redis(&["srem", "members", "500"]);
    redis(&["sadd", "members", "500"]);
    redis(&["hset", "prices", "7", "8"]);

    let told = shop.muster(&["env", "diff", "--data", "one"]).ok();
    assert_eq!(
        shown(&told.stdout),
        [
            "one against staging@1",
            "postgres",
            "database more new",
            "audit new, 40 rows",
            "dropped gone, with 2 rows",
            "people +3 -1 ~12",
            "column + age integer",
            "column - note text",
            "visits +2",
            "words +1 -5",
            "redis",
            "db0 +1 -1 ~2",
            "7 differ, 1 are the same",
        ]
    );
    let told = shop.muster(&["env", "diff", "--data", "one", "--rows", "1", "--values"]).ok();
    let told = shown(&told.stdout);
    for line in [
        "+ id=0 {\"id\":0,\"email\":\"new\",\"age\":null}",
        "~ id=100 {\"email\":\"user100\",\"note\":\"\"} -> {\"age\":null,\"email\":\"changed\"}",
        "+ word=ö place=c {\"word\":\"ö\",\"place\":\"c\"}",
        "+ four \"4\"",
        "- one \"1\"",
    ] {
        assert!(told.iter().any(|one| one == line), "{line}: {told:#?}");
    }
    let json = shop.muster(&["--output", "json", "env", "diff", "--data", "one"]).ok();
    assert_eq!(json.json()["end"]["differing"], 7, "{}", json.stdout);

    eventually(SOON, "the copy of the seed is gone", || {
        let now = shop.host.objects();
        if now == before { Ok(()) } else { Err(format!("{now:?}, and before {before:?}")) }
    });
    shop.muster(&["env", "diff", "one"]).run().with_code(2).says("E_DIFF_DATA");
    std::fs::write(shop.folder.join("compose.yaml"), STACK.replace("x-muster: { seed: staging }", ""))
        .expect("written");
    shop.muster(&["env", "up", "--name", "two", "--detach"]).ok();
    eventually(SOON, "it has begun", || {
        let told = shop.muster(&["env", "diff", "--data", "two"]).run();
        if told.all().contains("E_DIFF_NO_SEED") { Ok(()) } else { Err(told.all()) }
    });
}

const MARIADB: &str = "
name: shop
x-muster: { seed: staging }
services:
  db:
    image: mariadb:10.11
    command: [--innodb-buffer-pool-size=32M]
    environment: { MARIADB_ROOT_PASSWORD: boss, MARIADB_DATABASE: shop }
    ports: [\"3306:3306\"]
    volumes: [\"db:/var/lib/mysql\"]
volumes: { db: }
";
const MARIADB_DUMP: &str = "\
CREATE TABLE people (id bigint unsigned PRIMARY KEY, email varchar(80) CHARACTER SET latin1, size float, photo blob);
INSERT INTO people VALUES (1, 'ä', 1.1, X'00ff'), (2, 'b', 2.2, NULL), (18446744073709551615, 'c', 3.3, '');
CREATE TABLE words (word varchar(20), PRIMARY KEY (word)) COLLATE utf8mb4_general_ci;
INSERT INTO words VALUES ('a'), ('Z'), ('ö\\''), ('b');
CREATE TABLE visits (at datetime, about json);
INSERT INTO visits VALUES ('2026-01-01', '{}'), ('2026-01-01', '{}'), ('2026-01-02', NULL);
CREATE TABLE same AS SELECT 1 AS n;
";

#[test]
fn rows_of_mariadb_are_compared_whatever_their_types_are() {
    let Some(_turn) = real::turn() else { return };
    let shop = Stand::open(MARIADB);
    shop.file("dump.sql", MARIADB_DUMP);
    shop.muster(&["seed", "import", "staging", "--version", "1", "db=dump.sql"]).ok();
    shop.muster(&["env", "up", "--name", "one"]).ok();
    let same = shop.muster(&["env", "diff", "--data", "one"]).ok();
    assert_eq!(shown(&same.stdout), ["one against staging@1", "0 differ, 4 are the same"]);

    let password = shop.variable("one", "db", "DB_PASSWORD");
    let sql = "UPDATE people SET photo = X'00fe' WHERE id = 1; DELETE FROM people WHERE id > 2; \
               INSERT INTO people VALUES (3, 'd', 0, NULL); UPDATE people SET size = 2.2000003 WHERE id = 2; \
               DELETE FROM words WHERE word = 'Z'; INSERT INTO words VALUES ('y'), ('x'); \
               DELETE FROM visits LIMIT 1; ALTER TABLE same ADD COLUMN m int";
    shop.exec("one", "db", &["mariadb", "-uroot", &format!("-p{password}"), "shop", "-e", sql]).with_code(0);
    let told = shop.muster(&["env", "diff", "--data", "one", "--rows", "2"]).ok();
    assert_eq!(
        shown(&told.stdout),
        [
            "one against staging@1",
            "db",
            "people +1 -1 ~2",
            "~ id=1",
            "~ id=2",
            "+ id=3",
            "- id=18446744073709551615",
            "same the same rows",
            "column + m int(11)",
            "visits -1",
            "words +2 -1",
            "- word=Z",
            "+ word=x",
            "+ word=y",
            "4 differ, 0 are the same",
        ]
    );
    let told = shop.muster(&["env", "diff", "--data", "one", "--rows", "1", "--values"]).ok();
    let photo = "~ id=1 {\"photo\":\"00FF\"} -> {\"photo\":\"00FE\"}";
    assert!(shown(&told.stdout).iter().any(|line| line == photo), "{}", told.stdout);
}
