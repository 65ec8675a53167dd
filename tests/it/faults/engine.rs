//! The container engine is restarted or killed, with and without `live-restore`, at rest and at any step of a command.

use std::time::Duration;

use tests::harness::call::Call;
use tests::harness::cluster::{Cluster, Options};
use tests::harness::condition::{SOON, eventually, within};
use tests::harness::effects::{Effects, chosen};
use tests::harness::namespace::Namespace;
use tests::harness::real;
use tests::harness::sql::query_on;

use crate::system::stand::{KEPT, POSTGRES, POSTGRES_AND_REDIS, Stand};

const AWAKE: &str = "x-muster: { idle: { freeze: never, stop: never } }\n";
const DROWSY: &str = "x-muster: { idle: { freeze: 1s, stop: 2500ms } }\n";

struct Edge {
    namespace: Namespace,
    stand: Stand,
}

impl Edge {
    fn on(namespace: Namespace, port: u16, stack: &str) -> Self {
        let cluster = Cluster::with(&Options { everywhere: Some(port), ..Options::default() });
        let host = cluster.host("box-asha").label("owner", "asha").label("env", "dev").inside(&namespace).join();
        Self { namespace, stand: Stand::of(stack, cluster, host) }
    }

    fn muster(&self, words: &[&str]) -> Call {
        self.stand.muster(words)
    }

    fn url(&self, name: &str) -> String {
        self.stand.variable(name, "postgres", "POSTGRES_URL")
    }

    fn query(&self, url: &str, sql: &str) -> Result<String, String> {
        query_on(&self.stand.host, url, sql)
    }

    /// Waits until the coordinator knows of its engine again: nothing is placed on a host without one.
    fn has_an_engine(&self) {
        eventually(SOON, "the coordinator knows its engine", || {
            let shown = self.stand.cluster.muster(&["host", "show", &self.stand.host.name]).json();
            let version = shown["facts"]["engine_version"].as_str().unwrap_or_default();
            if version.is_empty() { Err(shown.to_string()) } else { Ok(()) }
        });
    }

    fn comes_back(&self, name: &str, url: &str, rows: &str) {
        self.stand.reaches(name, "READY");
        self.has(name, rows);
        assert_eq!(self.url(name), url, "port and credentials stay");
        assert_eq!(self.stand.host.running().len(), 2, "{:?}", self.stand.host.running());
    }

    /// What ran when the engine was killed is started again: its rows are there once it is.
    fn has(&self, name: &str, rows: &str) {
        self.has_rows(&self.url(name), rows);
    }

    fn begins_with_a_row(&self, url: &str) {
        eventually(SOON, "it takes a row", || self.query(url, KEPT));
    }

    fn has_rows(&self, url: &str, rows: &str) {
        let mut last = String::new();
        let counted = within(SOON, Duration::from_millis(20), || {
            last = self.query(url, "select count(*) from kept").unwrap_or_else(|why| why);
            (last == rows).then_some(())
        });
        assert!(counted.is_some(), "not within {SOON:?}: it has its data; last: {}", self.how_it_stands(&last));
    }

    /// With what a failed wait is explained.
    fn how_it_stands(&self, why: &str) -> String {
        let told = |words: &[&str]| self.stand.host.command(words).unwrap_or_else(|why| why);
        let containers = told(&["docker", "ps", "-a", "--no-trunc"]);
        format!("{why}\n{containers}\n{}", self.muster(&["env", "list", "--output", "json"]).run().all())
    }

    fn without(&self, name: &str) {
        self.muster(&["env", "down", name]).run();
        let gone = self.muster(&["env", "show", name]).run();
        assert_ne!(gone.code, 0, "{}", gone.all());
    }

    fn killed(&self, number: usize, ended: impl FnMut() -> bool) -> Option<()> {
        killed(&self.namespace, &self.stand.effects(), number, ended)
    }

    /// Runs a command with its engine killed at each chosen effect; it ends well, and `after` is so.
    fn survives(&self, words: &[&str], before: impl Fn(&Self), after: impl Fn(&Self)) -> Option<()> {
        before(self);
        let effects = self.stand.changed_by(words);
        after(self);
        for number in chosen(effects.len()) {
            before(self);
            self.stand.effects().hold_at(number);
            let mut call = self.muster(words).begin();
            self.killed(number, || !call.runs())?;
            call.finish().with_code(0);
            self.has_an_engine();
            after(self);
        }
        Some(())
    }
}

/// The engine is killed while the agent waits at the effect that it was told, or at the end of what it does. None: it does
/// not start again by a bug of its own, and nothing more is to be seen here.
pub(super) fn killed(
    namespace: &Namespace,
    effects: &Effects,
    number: usize,
    mut ended: impl FnMut() -> bool,
) -> Option<()> {
    let at = eventually(SOON, "the agent waits, or the end of what it was asked", || match effects.waits_at() {
        Some(name) => Ok(name),
        None if ended() => Ok("the end, there were fewer".to_owned()),
        None => Err("neither".to_owned()),
    });
    namespace.kill_engine();
    // It goes on with an engine that is away.
    effects.release();
    println!("{number}: killed at {at}");
    let starts = namespace.starts_again();
    if !starts {
        println!("left out from here on: the engine does not start again, see moby#45057");
    }
    starts.then_some(())
}

fn port(offset: u32) -> u16 {
    u16::try_from(19_000 + offset * 1000 + std::process::id() % 1000).expect("a port")
}

#[test]
fn environments_come_back_after_their_engine_was_killed_or_restarted() {
    let Some(_turn) = real::turn() else { return };
    let edge = Edge::on(Namespace::up("muster-it-engine", 232), port(0), &format!("{POSTGRES_AND_REDIS}{AWAKE}"));
    edge.muster(&["env", "up", "main"]).ok();
    let url = edge.url("main");
    edge.query(&url, "create table kept (n int); insert into kept values (7)").expect("written");
    edge.namespace.crash_engine();
    edge.comes_back("main", &url, "1");
    edge.query(&url, "insert into kept values (8)").expect("written");
    edge.namespace.restart_engine();
    edge.comes_back("main", &url, "2");
    edge.muster(&["env", "down", "main"]).ok();
    assert_eq!(edge.stand.host.objects(), Vec::<String>::new());
}

#[test]
fn with_live_restore_the_containers_run_on_and_nothing_is_started_again() {
    let Some(_turn) = real::turn() else { return };
    let edge =
        Edge::on(Namespace::restoring("muster-it-restore", 233), port(1), &format!("{POSTGRES_AND_REDIS}{AWAKE}"));
    edge.muster(&["env", "up", "main"]).ok();
    let url = edge.url("main");
    edge.query(&url, "create table kept (n int); insert into kept values (7)").expect("written");
    let started = edge.query(&url, "select pg_postmaster_start_time()").expect("asked");
    edge.namespace.crash_engine();
    edge.comes_back("main", &url, "1");
    edge.namespace.restart_engine();
    edge.comes_back("main", &url, "1");
    assert_eq!(edge.query(&url, "select pg_postmaster_start_time()"), Ok(started));
    edge.muster(&["env", "down", "main"]).ok();
    assert_eq!(edge.stand.host.objects(), Vec::<String>::new());
}

#[test]
fn an_engine_killed_while_it_starts_a_container_leaves_nothing_that_keeps_it_from_starting() {
    let Some(_turn) = real::turn() else { return };
    let edge = Edge::on(Namespace::up("muster-it-left", 237), port(4), &format!("{POSTGRES}{DROWSY}"));
    edge.muster(&["env", "up", "one"]).ok();
    let url = edge.url("one");
    edge.begins_with_a_row(&url);
    for _ in 0..3 {
        edge.stand.reaches("one", "ASLEEP");
        let id = container(&edge, "-aq");
        eventually(SOON, "no process of it", || if shims(&id) == 0 { Ok(()) } else { Err(String::new()) });
        std::thread::scope(|scope| {
            scope.spawn(|| edge.query(&url, "select n from kept"));
            // Somewhere between the order to containerd and the container's first process.
            eventually(SOON, "it is being started", || if shims(&id) > 0 { Ok(()) } else { Err(String::new()) });
            edge.namespace.kill_engine();
            edge.namespace.start_engine();
        });
        edge.has_rows(&url, "1");
        let runs = container(&edge, "-q");
        assert_eq!(container(&edge, "-aq"), runs, "the only one");
        // Where containerd cannot be rid of what was left, it is another one.
        assert_eq!((shims(&runs), runs == id || shims(&id) == 0), (1, true), "of {runs}, was {id}");
    }
    let id = container(&edge, "-aq");
    // What a runc leaves whose shim was ended.
    edge.stand.reaches("one", "ASLEEP");
    eventually(SOON, "no process of it", || if shims(&id) == 0 { Ok(()) } else { Err(String::new()) });
    std::fs::create_dir_all(edge.namespace.runtime(&id)).expect("a folder of runc's");
    edge.has_rows(&url, "1");
    assert_eq!(container(&edge, "-q"), id, "the same one runs");
    edge.without("one");
    eventually(SOON, "nothing of it is left", || if shims(&id) == 0 { Ok(()) } else { Err(String::new()) });
    edge.stand.ends();
}

#[test]
fn what_is_removed_behind_the_agents_back_is_made_anew_with_its_data() {
    let Some(_turn) = real::turn() else { return };
    let edge = Edge::on(Namespace::up("muster-it-prune", 238), port(5), &format!("{POSTGRES}{DROWSY}"));
    let docker = |words: &[&str]| edge.stand.host.command(&[&["docker"], words].concat()).expect("done");
    edge.muster(&["env", "up", "one"]).ok();
    let url = edge.url("one");
    edge.begins_with_a_row(&url);
    // All that is not used right now.
    edge.stand.reaches("one", "ASLEEP");
    for what in ["container", "network", "volume"] {
        docker(&[what, "prune", "-f"]);
    }
    edge.has_rows(&url, "1");
    // Of what sleeps: a stopped container keeps no network.
    edge.stand.reaches("one", "ASLEEP");
    docker(&["network", "prune", "-f"]);
    edge.has_rows(&url, "1");
    // Of what runs. Some other pass of its actor than the one that made its volume is none.
    docker(&["rm", "-f", &container(&edge, "-q")]);
    docker(&["volume", "prune", "-f"]);
    edge.has_rows(&url, "1");
    // The way out of moby#45057.
    edge.namespace.kill_engine();
    edge.namespace.forget_networks();
    edge.namespace.start_engine();
    edge.has_rows(&url, "1");
    edge.without("one");
    edge.stand.ends();
    assert_eq!(edge.stand.host.objects(), Vec::<String>::new());
}

/// The whole id of the one container.
fn container(edge: &Edge, which: &str) -> String {
    edge.stand.host.command(&["docker", "ps", "--no-trunc", which]).expect("its engine answers").trim().to_owned()
}

/// containerd's processes for a container.
fn shims(id: &str) -> usize {
    let entries = std::fs::read_dir("/proc").expect("processes").flatten();
    let lines = entries.map(|entry| std::fs::read(entry.path().join("cmdline")).unwrap_or_default());
    let is_one = |line: &Vec<u8>| {
        let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
        words[0].ends_with(b"containerd-shim-runc-v2") && words.contains(&id.as_bytes())
    };
    lines.filter(is_one).count()
}

#[test]
fn commands_end_well_although_the_engine_was_killed_at_any_step_of_them() {
    let Some(_turn) = real::turn() else { return };
    let edge = Edge::on(Namespace::up("muster-it-steps", 235), port(2), &format!("{POSTGRES}{AWAKE}"));
    edge.muster(&["env", "up", "one"]).ok();
    edge.query(&edge.url("one"), "create table kept (n int); insert into kept select generate_series(1, 100)")
        .expect("written");

    if each_command(&edge).is_some() {
        edge.stand.ends();
    }
}

fn each_command(edge: &Edge) -> Option<()> {
    edge.survives(
        &["env", "snapshot", "base", "one"],
        |edge| {
            edge.muster(&["seed", "rm", "asha/base"]).run();
            edge.stand.reaches("one", "READY");
        },
        |edge| edge.has("one", "100"),
    )?;
    let up = ["env", "up", "--from", "asha/base", "--name", "two"];
    edge.survives(&up, |edge| edge.without("two"), |edge| edge.has("two", "100"))?;

    let less = |edge: &Edge| {
        edge.query(&edge.url("two"), "delete from kept where n > 10").expect("deleted");
    };
    edge.survives(&["env", "reset", "two"], less, |edge| edge.has("two", "100"))?;
    edge.without("two");
    edge.survives(
        &["env", "clone", "one", "copy"],
        |edge| {
            edge.without("copy");
            // It was started again with the engine, and may have been on its way up.
            edge.stand.reaches("one", "READY");
        },
        |edge| {
            edge.has("copy", "100");
            edge.has("one", "100");
        },
    )?;
    edge.without("copy");
    let there = |edge: &Edge| {
        edge.muster(&["env", "up", "--from", "asha/base", "--name", "copy"]).ok();
    };
    edge.survives(&["env", "down", "copy"], there, |edge| {
        let listed = edge.muster(&["env", "list"]).ok();
        assert!(!listed.stdout.contains("copy"), "{}", listed.stdout);
        edge.has("one", "100");
    })
}

#[test]
fn an_environment_sleeps_and_wakes_although_the_engine_was_killed_at_any_step_of_it() {
    let Some(_turn) = real::aside() else { return };
    let edge = Edge::on(Namespace::up("muster-it-sleep", 236), port(3), &format!("{POSTGRES}{DROWSY}"));
    edge.muster(&["env", "up", "one"]).ok();
    let url = edge.url("one");
    edge.begins_with_a_row(&url);
    let stand = &edge.stand;
    let sleeping = stand.effects().during(|| stand.reaches("one", "ASLEEP"));
    let waking = stand.effects().during(|| edge.has("one", "1"));
    println!("falling asleep changes {sleeping:?}, waking {waking:?}");
    for number in chosen(sleeping.len()) {
        edge.has("one", "1");
        stand.effects().hold_at(number);
        edge.killed(number, || stand.show("one")["state"] == "ENVIRONMENT_STATE_ASLEEP").expect("it starts again");
        stand.reaches("one", "ASLEEP");
    }
    for number in chosen(waking.len()) {
        stand.reaches("one", "ASLEEP");
        stand.effects().hold_at(number);
        // It waits in the relay until its service is ready.
        let asked = std::thread::scope(|scope| {
            let asking = scope.spawn(|| edge.query(&url, "select n from kept"));
            edge.killed(number, || asking.is_finished()).expect("it starts again");
            asking.join().expect("no panic")
        });
        println!("it was told {asked:?}");
        // Whoever was already inside when the engine was killed lost that connection; the next one gets in.
        edge.has("one", "1");
    }
    edge.stand.ends();
}
