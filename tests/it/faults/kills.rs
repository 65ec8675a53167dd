//! The agent is killed before each thing that a command of an environment changes. Which things these are is not
//! written here: one pass of the command lists them.
//!
//! `MUSTER_TEST_KILLS=all` tries all of them; without it, a few of each command.

use std::time::Duration;

use tests::harness::call::Call;
use tests::harness::cluster::Cluster;
use tests::harness::condition::{SOON, eventually};
use tests::harness::effects::chosen;
use tests::harness::real;
use tests::harness::sql::query;

use crate::system::stand::{KEPT, POSTGRES_AND_REDIS, Stand};

/// What a seed is made from.
const INIT: &str = "CREATE TABLE kept (n int); INSERT INTO kept SELECT generate_series(1, 100);";
/// How long it may take until a slot of the warm pool is there: a stack is brought up, at low priority.
const IN_TIME: Duration = Duration::from_secs(90);

struct Box {
    stand: Stand,
}

impl Box {
    fn open(idle: &str, slots: u32) -> Self {
        let stack = format!("{POSTGRES_AND_REDIS}x-muster: {{ idle: {idle} }}\n");
        Self { stand: Stand::with(&stack, Cluster::start(), |host| host.pool("auto").warm(slots)) }
    }

    fn muster(&self, words: &[&str]) -> Call {
        self.stand.muster(words)
    }

    fn query(&self, name: &str, sql: &str) -> Result<String, String> {
        self.stand.query(name, sql)
    }

    fn count(&self, name: &str) -> Result<String, String> {
        self.query(name, "select count(*) from kept")
    }

    /// Takes down what may not be there.
    fn without(&self, name: &str) {
        self.muster(&["env", "down", name]).run();
        let gone = self.muster(&["env", "show", name]).run();
        assert_ne!(gone.code, 0, "{}", gone.all());
    }

    /// The agent dies at the effect that it was told, and is started again; false: there were fewer.
    fn killed(&mut self, number: usize, ended: &mut dyn FnMut(&Self) -> bool) -> bool {
        let mut dead = false;
        eventually(SOON, "the agent's death, or the end of what it was asked", || {
            dead = !self.stand.host.agent.runs();
            if dead || ended(self) { Ok(()) } else { Err("neither".to_owned()) }
        });
        let Stand { cluster, host, .. } = &mut self.stand;
        if dead {
            host.agent.killed_itself(SOON);
            host.agent.start();
            cluster.wait_host(&host.name, "READY", SOON);
        } else {
            // Other work may take this kill later: it is taken back.
            self.stand.effects().spare();
            let Stand { cluster, host, .. } = &mut self.stand;
            host.crash(cluster);
        }
        println!("{number}: {}", if dead { "killed" } else { "there were fewer" });
        dead
    }

    /// Runs a command with a kill before one effect of it; it ends well.
    fn killed_in(&mut self, words: &[&str], number: usize) {
        self.stand.effects().kill_at(number);
        let mut call = self.muster(words).begin();
        self.killed(number, &mut |_| !call.runs());
        call.finish().with_code(0);
    }

    /// Runs a command with a kill before each chosen effect; it ends well, and `after` is so.
    fn survives(&mut self, words: &[&str], before: impl Fn(&Self), after: impl Fn(&Self)) {
        before(self);
        let effects = self.stand.changed_by(words);
        after(self);
        for number in chosen(effects.len()) {
            before(self);
            self.killed_in(words, number);
            after(self);
        }
    }
}

#[test]
fn an_agent_killed_at_any_step_of_up_clone_snapshot_reset_and_down_finishes_it() {
    let Some(_turn) = real::turn() else { return };
    let mut place = Box::open("{ freeze: never, stop: never }", 0);
    place.muster(&["env", "up", "main"]).ok();
    place.query("main", INIT).expect("written");
    place.muster(&["env", "snapshot", "base", "main"]).ok();
    let all = |name: &'static str| {
        move |place: &Box| {
            assert_eq!(place.count(name), Ok("100".to_owned()));
        }
    };
    let up = ["env", "up", "--from", "asha/base", "--name", "one"];
    place.survives(&up, |place| place.without("one"), all("one"));

    let less = |place: &Box| {
        place.query("one", "delete from kept where n > 10").expect("deleted");
    };
    place.survives(&["env", "reset", "one"], less, all("one"));
    // What it was before the reset comes back, and what it was before that again.
    less(&place);
    place.muster(&["env", "reset", "one"]).ok();
    let full = |place: &Box| {
        if place.count("one").as_deref() == Ok("10") {
            place.muster(&["env", "undo", "one"]).ok();
        }
        assert_eq!(place.count("one"), Ok("100".to_owned()));
    };
    let ten = |name: &'static str| {
        move |place: &Box| {
            assert_eq!(place.count(name), Ok("10".to_owned()));
        }
    };
    place.survives(&["env", "undo", "one"], full, ten("one"));

    // A clone has what the other one has now, not what that began with.
    place.survives(
        &["env", "clone", "one", "copy"],
        |place| place.without("copy"),
        |place| {
            ten("one")(place);
            ten("copy")(place);
        },
    );

    let fresh = |place: &Box| {
        place.without("copy");
        place.muster(&["seed", "rm", "asha/now"]).run();
    };
    place.survives(&["env", "snapshot", "now", "one"], fresh, |place| {
        assert_eq!(place.count("one"), Ok("10".to_owned()), "it was thawed");
        place.muster(&["env", "up", "--from", "asha/now", "--name", "copy"]).ok();
        ten("copy")(place);
    });

    let there = |place: &Box| {
        place.muster(&["env", "up", "--from", "asha/base", "--name", "two"]).ok();
    };
    place.survives(&["env", "down", "two"], there, |place| {
        let listed = place.muster(&["env", "list"]).ok();
        assert!(!listed.stdout.contains("two"), "{}", listed.stdout);
    });
    place.stand.ends();
}

#[test]
fn an_agent_killed_at_any_step_of_making_a_seed_makes_it() {
    let Some(_turn) = real::turn() else { return };
    let mut place = Box::open("{ freeze: never, stop: never }", 0);
    place.stand.file("init.sql", INIT);
    let unmade = |place: &Box| {
        place.without("one");
        place.muster(&["seed", "rm", "init"]).run();
    };
    place.survives(&["seed", "import", "init", "postgres=init.sql"], unmade, |place| {
        place.muster(&["env", "up", "--from", "init", "--name", "one"]).ok();
        assert_eq!(place.count("one"), Ok("100".to_owned()));
        // Of attempts that were ended nothing runs on.
        eventually(SOON, "only the environment's own containers", || {
            let running = place.stand.host.running();
            if running.len() == 2 { Ok(()) } else { Err(format!("{running:?}")) }
        });
    });
    place.stand.ends();
}

/// Waits until a slot that nobody has is offered.
fn slot(place: &Box) -> String {
    let listed = place.muster(&["env", "list"]).json();
    let taken: Vec<String> = listed["environments"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|one| one["id"].as_str().expect("an id").to_owned())
        .collect();
    eventually(IN_TIME, "a slot is offered", || {
        let log = place.stand.host.agent.printed();
        let offers = log.lines().filter(|line| line.contains("a slot is offered"));
        let id = offers.filter_map(|line| line.split("environment=").nth(1)?.split(' ').next()).next_back();
        let running = place.stand.host.running();
        let runs = |id: &&str| running.iter().any(|name| name.contains(&id[id.len() - 12..]));
        let free = id.filter(|id| !taken.iter().any(|one| one == id)).filter(runs);
        free.map(str::to_owned).ok_or_else(|| format!("{id:?}, {running:?}"))
    })
}

#[test]
fn an_agent_killed_at_any_step_of_handing_out_a_slot_hands_it_out() {
    let Some(_turn) = real::turn() else { return };
    let mut place = Box::open("{ freeze: never, stop: never }", 1);
    place.stand.file("init.sql", INIT);
    place.muster(&["seed", "import", "init", "postgres=init.sql"]).ok();
    // It makes the stack hot.
    place.muster(&["env", "up", "--from", "init", "--name", "one"]).ok();
    let up = ["env", "up", "--from", "init", "--name", "two"];
    // The slot that was waiting became the environment, whatever happened on the way.
    let is_it = |place: &Box, slot: &str| {
        let shown = place.stand.show("two");
        assert_eq!(shown["state"], "ENVIRONMENT_STATE_READY", "{shown}");
        assert_eq!(place.count("two"), Ok("100".to_owned()));
        assert_eq!(place.count("one"), Ok("100".to_owned()));
        let all = place.stand.host.running();
        let own = all.iter().filter(|name| shown["id"].as_str().is_some_and(|id| name.contains(&id[id.len() - 12..])));
        assert_eq!(own.count(), 2, "{all:?}");
        let warm = shown["data"].as_str().is_some_and(|data| data.contains("warm pool"));
        if warm && shown["id"] == slot { Ok(()) } else { Err(shown.to_string()) }
    };
    let mut effects = Vec::new();
    eventually(IN_TIME, "a slot is handed out", || {
        place.without("two");
        let slot = slot(&place);
        effects = place.stand.effects().during(|| {
            place.muster(&up).ok();
        });
        // The coordinator may not have heard of it yet.
        is_it(&place, &slot)
    });
    println!("handing out changes {effects:?}");
    for number in chosen(effects.len()) {
        eventually(IN_TIME, "a slot is handed out although the agent was killed", || {
            place.without("two");
            let slot = slot(&place);
            place.killed_in(&up, number);
            is_it(&place, &slot)
        });
    }
    place.stand.ends();
}

#[test]
fn an_agent_killed_at_any_step_of_falling_asleep_and_waking_loses_nothing() {
    let Some(_turn) = real::turn() else { return };
    let mut place = Box::open("{ freeze: 1s, stop: 2500ms }", 0);
    place.muster(&["env", "up", "main"]).ok();
    let ask = |place: &Box| place.query("main", "select n from kept");
    eventually(SOON, "it takes a row", || place.query("main", KEPT));
    let sleeping = place.stand.effects().during(|| place.stand.reaches("main", "ASLEEP"));
    let waking = place.stand.effects().during(|| assert_eq!(ask(&place), Ok("7".to_owned())));
    println!("falling asleep changes {sleeping:?}, waking {waking:?}");
    assert!(!sleeping.is_empty() && !waking.is_empty());
    for number in chosen(sleeping.len()) {
        // From awake on.
        assert_eq!(ask(&place), Ok("7".to_owned()));
        place.stand.effects().kill_at(number);
        place.killed(number, &mut |place| place.stand.show("main")["state"] == "ENVIRONMENT_STATE_ASLEEP");
        place.stand.reaches("main", "ASLEEP");
    }
    let url = place.stand.variable("main", "postgres", "POSTGRES_URL");
    for number in chosen(waking.len()) {
        place.stand.reaches("main", "ASLEEP");
        place.stand.effects().kill_at(number);
        // It waits in the relay, which lives on; the restarted agent wakes the environment for it.
        let url = url.clone();
        let asking = std::thread::spawn(move || query(&url, "select n from kept"));
        place.killed(number, &mut |_| asking.is_finished());
        assert_eq!(asking.join().expect("no panic"), Ok("7".to_owned()));
    }
    place.stand.ends();
}
