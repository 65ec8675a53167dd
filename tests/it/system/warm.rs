//! The warm pool: the second environment of a stack and seed is one that ran before anybody asked for it.

use std::time::{Duration, Instant};

use serde_json::Value;
use tests::harness::condition::eventually;
use tests::harness::real;
use tests::harness::sql::query;

use super::seeds::Shop;

const IN_TIME: Duration = Duration::from_secs(60);

/// Names of containers that no environment of anybody is made of, once they are as many as a slot has.
fn slot(shop: &Shop, environments: &[&str]) -> Vec<String> {
    let shorts: Vec<String> = environments
        .iter()
        .map(|name| {
            let shown = shop.muster(&["env", "show", name]).json();
            let id = shown["id"].as_str().expect("an id").to_owned();
            id[id.len() - 12..].to_owned()
        })
        .collect();
    eventually(IN_TIME, "a slot is made", || {
        let all = shop.host.running();
        let of_nobody: Vec<String> =
            all.into_iter().filter(|name| !shorts.iter().any(|short| name.contains(short.as_str()))).collect();
        if of_nobody.len() == 2 { Ok(of_nobody) } else { Err(format!("{of_nobody:?}")) }
    })
}

fn up(shop: &Shop, name: &str) -> (String, Duration, Value) {
    let begun = Instant::now();
    let said = shop.muster(&["env", "up", "--name", name]).ok().all();
    let took = begun.elapsed();
    (said, took, shop.muster(&["env", "show", name]).json())
}

#[test]
fn the_second_environment_was_there_before_it_was_asked_for() {
    let Some(_turn) = real::turn() else { return };
    let mut shop = Shop::warm("copy");
    shop.import();
    let (said, cold, _) = up(&shop, "one");
    assert!(!said.contains("warm pool"), "{said}");
    let waiting = slot(&shop, &["one"]);
    eventually(IN_TIME, "the host tells of its slot", || {
        let shown = shop.muster(&["host", "show", "box-asha"]).ok().stdout;
        let told = shown.contains("and 1 slot of the warm pool") && shown.contains(": 1 ready (1 kept)");
        if told { Ok(()) } else { Err(shown) }
    });

    let weight = |container: &str| {
        let above = shop.host.engine.cgroup(container, "cpu").parent().expect("a group above").to_owned();
        let text = ["cpu.shares", "cpu.weight"].iter().find_map(|name| std::fs::read_to_string(above.join(name)).ok());
        text.expect("a weight").trim().parse::<u32>().expect("a number")
    };
    let before = weight(&waiting[0]);

    // It is told apart by nothing: its own port and password, the seed's data, and nothing was made or started.
    let shown = eventually(IN_TIME, "the slot is handed out", || {
        let (said, warm, shown) = up(&shop, "two");
        if said.contains("warm pool") {
            eprintln!("cold {cold:?}, warm {warm:?}");
            return Ok(shown);
        }
        // It was not frozen yet.
        shop.muster(&["env", "down", "two"]).ok();
        Err(said)
    });
    let id = shown["id"].as_str().expect("an id");
    let own = waiting.iter().find(|name| name.contains(&id[id.len() - 12..]));
    let own = own.unwrap_or_else(|| panic!("{waiting:?} {id}"));
    assert!(before * 8 <= weight(own), "little weight while nobody waited for it: {before}, then {}", weight(own));
    let (one, two) = (shop.url("one"), shop.url("two"));
    assert_ne!(one, two);
    assert_eq!(query(&two, "SELECT count(*) FROM people"), Ok("500".to_owned()));
    query(&two, "DELETE FROM people").expect("deleted");
    assert_eq!(query(&one, "SELECT count(*) FROM people"), Ok("500".to_owned()));
    shop.muster(&["env", "reset", "two"]).ok();
    assert_eq!(shop.url("two"), two);
    assert_eq!(query(&two, "SELECT count(*) FROM people"), Ok("500".to_owned()));

    // An agent that was killed and lost everything it remembered keeps what was handed out.
    shop.host.agent.kill();
    for entry in std::fs::read_dir(shop.host.folder().join("state")).expect("listed").flatten() {
        if entry.file_name().to_string_lossy().starts_with("state.db") {
            std::fs::remove_file(entry.path()).expect("removed");
        }
    }
    shop.host.agent.start();
    shop.cluster.wait_host("box-asha", "READY", IN_TIME);
    shop.muster(&["env", "up", "--name", "two"]).ok();
    assert_eq!(shop.url("two"), two);
    assert_eq!(query(&two, "SELECT count(*) FROM people"), Ok("500".to_owned()));

    // Down removes all of it; slots go with their seed.
    for name in ["one", "two"] {
        shop.muster(&["env", "down", name]).ok();
    }
    shop.muster(&["seed", "rm", "staging"]).ok();
    eventually(IN_TIME, "the slots go with their seed", || {
        let left = shop.host.objects();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
}
