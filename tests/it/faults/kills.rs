//! The agent is killed before each thing that a command of an environment changes. Which things these are is not
//! written here: one pass of the command lists them.
//!
//! `MUSTER_TEST_KILLS=all` tries all of them; without it, a few of each command.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use tests::harness::cluster::Cluster;
use tests::harness::condition::{SOON, eventually};
use tests::harness::host::Host;
use tests::harness::real;

const STACK: &str = r#"services:
  postgres:
    image: postgres:15
    environment: { POSTGRES_PASSWORD: "${PG:-x}" }
    ports: ["5432:5432"]
    volumes: ["data:/var/lib/postgresql/data"]
  redis:
    image: redis:7
    ports: ["6379:6379"]
    depends_on: { postgres: { condition: service_healthy } }
volumes: { data: }
"#;

struct Box {
    cluster: Cluster,
    host: Host,
    folder: PathBuf,
}

impl Box {
    fn open(idle: &str) -> Self {
        let cluster = Cluster::start();
        let host = cluster.host("box-asha").label("owner", "asha").label("env", "dev").pool("auto").join();
        let folder = cluster.folder().join("shop");
        std::fs::create_dir(&folder).expect("a folder");
        std::fs::write(folder.join("compose.yaml"), format!("{STACK}x-muster: {{ idle: {idle} }}\n")).expect("a file");
        let place = Self { cluster, host, folder };
        place.muster(&["env", "up", "main"]).ok();
        place
    }

    fn muster(&self, words: &[&str]) -> tests::harness::call::Call {
        self.cluster.muster(words).by("asha").within(&self.folder).env("MUSTER_AGENT_SOCKET", self.host.socket())
    }

    fn show(&self, name: &str) -> Value {
        self.muster(&["env", "show", name]).json()
    }

    fn query(&self, name: &str, sql: &str) -> Result<String, String> {
        let shown = self.show(name);
        let services = shown["services"].as_array().ok_or("no services")?;
        let postgres = services.iter().find(|service| service["name"] == "postgres").ok_or("no postgres")?;
        let url = postgres["variables"]["POSTGRES_URL"].as_str().ok_or("no URL")?;
        let done = Command::new("psql").args([url, "-XAtqc", sql]).output().map_err(|why| why.to_string())?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if done.status.success() { Ok(text(&done.stdout)) } else { Err(text(&done.stderr)) }
    }

    fn reaches(&self, name: &str, state: &str) {
        let wanted = format!("ENVIRONMENT_STATE_{state}");
        eventually(SOON, &format!("{name} is {state}"), || {
            let shown = self.show(name);
            if shown["state"] == wanted { Ok(()) } else { Err(shown.to_string()) }
        });
    }

    fn state(&self, file: &str) -> PathBuf {
        self.host.folder().join("state").join(file)
    }

    /// What `act` changes, in order.
    fn effects(&self, act: impl FnOnce(&Self)) -> Vec<String> {
        std::fs::write(self.state("effects.log"), "").expect("written");
        act(self);
        let log = std::fs::read_to_string(self.state("effects.log")).expect("read");
        std::fs::remove_file(self.state("effects.log")).expect("removed");
        log.lines().map(str::to_owned).collect()
    }

    /// The agent dies before the `number`-th effect from now on, and is started again; false: there were fewer.
    fn killed(&mut self, number: usize, ended: &mut dyn FnMut(&Self) -> bool) -> bool {
        let mut dead = false;
        eventually(SOON, "the agent's death, or the end of what it was asked", || {
            dead = !self.host.agent.runs();
            if dead || ended(self) { Ok(()) } else { Err("neither".to_owned()) }
        });
        if dead {
            self.host.agent.killed_itself(SOON);
            self.host.agent.start();
            self.cluster.wait_host(&self.host.name, "READY", SOON);
        } else {
            // Other work may take this kill later: it is taken back.
            let _ = std::fs::remove_file(self.state("effects.kill"));
            self.host.crash(&self.cluster);
        }
        println!("{number}: {}", if dead { "killed" } else { "there were fewer" });
        dead
    }

    fn arm(&self, number: usize) {
        let path = self.state("effects.kill");
        std::fs::write(path.with_extension("new"), number.to_string()).expect("written");
        std::fs::rename(path.with_extension("new"), path).expect("renamed");
    }

    /// Runs a command with a kill before each chosen effect; it ends well, and `after` is so.
    fn survives(&mut self, words: &[&str], before: impl Fn(&Self), after: impl Fn(&Self)) {
        before(self);
        let effects = self.effects(|place| {
            place.muster(words).ok();
        });
        after(self);
        println!("{words:?} changes {effects:?}");
        assert!(!effects.is_empty());
        for number in chosen(effects.len()) {
            before(self);
            self.arm(number);
            let mut call = self.muster(words).begin();
            self.killed(number, &mut |_| !call.runs());
            call.finish().with_code(0);
            after(self);
        }
    }

    /// Everything goes, and nothing is left.
    fn ends(self) {
        for environment in self.muster(&["env", "list"]).json()["environments"].as_array().into_iter().flatten() {
            self.muster(&["env", "down", environment["name"].as_str().unwrap_or_default()]).ok();
        }
        for seed in self.muster(&["seed", "list", "--snapshots"]).json()["seeds"].as_array().into_iter().flatten() {
            self.muster(&["seed", "rm", seed["id"].as_str().unwrap_or_default()]).ok();
        }
        assert_eq!(self.host.objects(), Vec::<String>::new());
        let pool = self.state("pool");
        eventually(SOON, "an empty pool", || {
            let left: Vec<_> = ["environments", "seeds", "snapshots", "trash"]
                .iter()
                .flat_map(|folder| std::fs::read_dir(pool.join(folder)).into_iter().flatten().flatten())
                .map(|entry| entry.path())
                .collect();
            if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
        });
    }
}

/// Which effects out of so many.
fn chosen(count: usize) -> Vec<usize> {
    if std::env::var("MUSTER_TEST_KILLS").is_ok_and(|value| value == "all") {
        return (1..=count).collect();
    }
    let mut few = vec![1, count / 3 + 1, count * 2 / 3 + 1, count];
    few.dedup();
    few
}

#[test]
fn an_agent_killed_at_any_step_of_up_snapshot_reset_and_down_finishes_it() {
    let Some(_turn) = real::turn() else { return };
    let mut place = Box::open("{ freeze: never, stop: never }");
    place.query("main", "create table kept (n int); insert into kept select generate_series(1, 100)").expect("written");
    place.muster(&["env", "snapshot", "base", "main"]).ok();
    let count = |place: &Box, name: &str| place.query(name, "select count(*) from kept");
    let down = |place: &Box| {
        place.muster(&["env", "down", "one"]).run();
        let gone = place.muster(&["env", "show", "one"]).run();
        assert_ne!(gone.code, 0, "{}", gone.all());
    };
    let up = ["env", "up", "--from", "asha/base", "--name", "one"];
    place.survives(&up, down, |place| assert_eq!(count(place, "one"), Ok("100".to_owned())));

    let less = |place: &Box| {
        place.query("one", "delete from kept where n > 10").expect("deleted");
    };
    place.survives(&["env", "reset", "one"], less, |place| assert_eq!(count(place, "one"), Ok("100".to_owned())));
    // What it was before the reset comes back, and what it was before that again.
    less(&place);
    place.muster(&["env", "reset", "one"]).ok();
    let full = |place: &Box| {
        if count(place, "one").as_deref() == Ok("10") {
            place.muster(&["env", "undo", "one"]).ok();
        }
        assert_eq!(count(place, "one"), Ok("100".to_owned()));
    };
    place.survives(&["env", "undo", "one"], full, |place| assert_eq!(count(place, "one"), Ok("10".to_owned())));

    let without = |place: &Box| {
        place.muster(&["env", "down", "copy"]).run();
        place.muster(&["seed", "rm", "asha/now"]).run();
    };
    place.survives(&["env", "snapshot", "now", "one"], without, |place| {
        assert_eq!(count(place, "one"), Ok("10".to_owned()), "it was thawed");
        place.muster(&["env", "up", "--from", "asha/now", "--name", "copy"]).ok();
        assert_eq!(count(place, "copy"), Ok("10".to_owned()));
    });

    let there = |place: &Box| {
        place.muster(&["env", "up", "--from", "asha/base", "--name", "two"]).ok();
    };
    place.survives(&["env", "down", "two"], there, |place| {
        let listed = place.muster(&["env", "list"]).ok();
        assert!(!listed.stdout.contains("two"), "{}", listed.stdout);
    });
    place.ends();
}

#[test]
fn an_agent_killed_at_any_step_of_falling_asleep_and_waking_loses_nothing() {
    let Some(_turn) = real::turn() else { return };
    let mut place = Box::open("{ freeze: 400ms, stop: 1s }");
    let ask = |place: &Box| place.query("main", "select n from kept");
    place.query("main", "create table kept (n int); insert into kept values (7)").expect("written");
    let sleeping = place.effects(|place| place.reaches("main", "ASLEEP"));
    let waking = place.effects(|place| assert_eq!(ask(place), Ok("7".to_owned())));
    println!("falling asleep changes {sleeping:?}, waking {waking:?}");
    assert!(!sleeping.is_empty() && !waking.is_empty());
    for number in chosen(sleeping.len()) {
        // From awake on.
        assert_eq!(ask(&place), Ok("7".to_owned()));
        place.arm(number);
        place.killed(number, &mut |place| place.show("main")["state"] == "ENVIRONMENT_STATE_ASLEEP");
        place.reaches("main", "ASLEEP");
    }
    for number in chosen(waking.len()) {
        place.reaches("main", "ASLEEP");
        place.arm(number);
        let url_of = place.show("main");
        assert!(url_of["services"].is_array());
        // It waits in the relay, which lives on; the restarted agent wakes the environment for it.
        let asked = std::thread::scope(|scope| {
            let services = url_of["services"].as_array().cloned().unwrap_or_default();
            let postgres = services.iter().find(|service| service["name"] == "postgres").cloned();
            let asking = scope.spawn(move || {
                let postgres = postgres.expect("postgres");
                let url = postgres["variables"]["POSTGRES_URL"].as_str().expect("a URL");
                Command::new("psql").args([url, "-XAtqc", "select n from kept"]).output().expect("psql runs")
            });
            place.killed(number, &mut |_| asking.is_finished());
            asking.join().expect("no panic")
        });
        assert_eq!(String::from_utf8_lossy(&asked.stdout).trim(), "7", "{}", String::from_utf8_lossy(&asked.stderr));
    }
    place.ends();
}
