//! Seeds that travel: the environment of one host begins with data that was made on another.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use tests::harness::call::Call;
use tests::harness::condition::SOON;
use tests::harness::host::Host;
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
volumes: { db: }
";

/// Asha's stand, and a box of ben's.
struct World {
    stand: Stand,
    ben: Host,
}

impl World {
    fn ben(&self, words: &[&str]) -> Call {
        let call = self.stand.cluster.muster(words).by("ben").within(&self.stand.folder);
        call.env("MUSTER_AGENT_SOCKET", self.ben.socket())
    }

    fn count(&self, name: &str) -> String {
        let shown = self.ben(&["env", "show", name]).json();
        let url = shown["services"][0]["variables"]["POSTGRES_URL"].as_str().expect("a variable").to_owned();
        let words = [url.as_str(), "-XAtc", "SELECT count(*), sum(number) FROM things"];
        let done = Command::new("psql").args(words).output().expect("psql");
        String::from_utf8_lossy(&done.stdout).trim().to_owned()
    }

    /// Bytes that went over the network for a copy.
    fn moved(&self, seed: &str, host: &str) -> u64 {
        let shown = self.ben(&["seed", "show", seed]).json();
        let copies = shown["copies"].as_array().cloned().unwrap_or_default();
        let copy = copies.iter().find(|copy| copy["host"].as_str().unwrap_or_default() == host).expect("a copy");
        let bytes = &copy["moved_bytes"];
        bytes.as_u64().or_else(|| bytes.as_str().and_then(|text| text.parse().ok())).unwrap_or(0)
    }

    /// The object in the coordinator's store that came last.
    fn newest_segment(&self) -> PathBuf {
        let folder = self.stand.cluster.folder().join("coordinator/artifacts/chunks");
        let entries = std::fs::read_dir(&folder).unwrap_or_else(|why| panic!("{}: {why}", folder.display()));
        // Their names are in the order of their making.
        entries.flatten().map(|entry| entry.path()).max().expect("a segment")
    }
}

fn sql() -> String {
    let mut dump = String::from("CREATE TABLE things (number int PRIMARY KEY, text text);\n");
    for number in 1..=300 {
        writeln!(dump, "INSERT INTO things VALUES ({number}, md5('{number}'));").expect("a string");
    }
    dump
}

#[test]
fn a_seed_travels_by_itself_a_snapshot_moves_only_its_changes_and_damage_is_refused() {
    let Some(_turn) = real::turn() else { return };
    let stand = Stand::open(STACK);
    stand.file("dump.sql", sql());
    stand.muster(&["seed", "import", "staging", "postgres=dump.sql"]).ok();
    let ben = stand.cluster.host("box-ben").label("owner", "ben").failpoints("seed.pull.half=abort").join();
    let mut world = World { stand, ben };

    // Ben's agent dies when half of it has come, and goes on where it was.
    let waiting = world.ben(&["env", "up", "--name", "mine"]).begin();
    world.ben.agent.killed_itself(SOON);
    world.ben.agent.start();
    let printed = waiting.finish().with_code(0);
    assert!(printed.all().contains("on box-ben"), "{}", printed.all());
    assert_eq!(world.count("mine"), "300|45150");
    let (pushed, pulled) = (world.moved("staging", ""), world.moved("staging", "box-ben"));
    assert!(pushed > 1_000_000 && pulled < pushed * 9 / 10, "{pushed} bytes pushed, {pulled} pulled after the kill");
    let left = std::fs::read_dir(world.ben.folder().join("state/pool/snapshots")).expect("the pool").count();
    assert_eq!(left, 0, "nothing half is left");

    // A snapshot of an environment that began with it brings only what is new.
    world.stand.muster(&["env", "up", "--name", "one"]).ok();
    let insert = "INSERT INTO things SELECT n, md5(n::text) FROM generate_series(301, 310) n";
    let words = ["psql", "-U", "shop", "-d", "shop", "-c", insert];
    world.stand.exec("one", "postgres", &words).with_code(0);
    world.stand.muster(&["env", "snapshot", "small", "one"]).ok();
    world.ben(&["env", "up", "--from", "asha/small", "--name", "copy"]).ok();
    assert_eq!(world.count("copy"), "310|48205");
    let (more, came) = (world.moved("asha/small", ""), world.moved("asha/small", "box-ben"));
    assert!(more < pushed / 4 && came < pushed / 4, "{pushed} bytes at first, then {more} pushed and {came} pulled");

    // A flipped byte in the coordinator's store is refused; the next attempt sends it anew.
    world.stand.muster(&["env", "snapshot", "other", "one"]).ok();
    let shown: Value = world.stand.muster(&["seed", "push", "asha/other"]).json();
    assert_eq!(shown["copies"][0]["state"], "SEED_STATE_READY", "{shown}");
    let segment = world.newest_segment();
    let mut bytes = std::fs::read(&segment).expect("read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&segment, bytes).expect("written");
    world.ben(&["seed", "pull", "asha/other"]).run().with_code(1).says("E_SEED_CHUNK");
    world.ben(&["seed", "pull", "asha/other"]).ok().says("in box-ben");

    // It goes everywhere.
    world.stand.muster(&["seed", "rm", "asha/other"]).ok();
    let seeds = || std::fs::read_dir(world.ben.folder().join("state/pool/seeds")).map_or(0, Iterator::count);
    tests::harness::condition::eventually(SOON, "box-ben removes it", || match seeds() {
        2 => Ok(()),
        other => Err(format!("{other} seeds")),
    });
}
