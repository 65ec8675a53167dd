//! What environments take of the disk, as it is told: their own bytes, and those that they share with their seed.

use serde_json::Value;
use tests::harness::condition::{SOON, eventually};
use tests::harness::real;
use tests::harness::sql::query;

use super::seeds::Shop;

fn bytes(shown: &Value, name: &str) -> u64 {
    shown[name].as_str().and_then(|text| text.parse().ok()).or(shown[name].as_u64()).unwrap_or(0)
}

/// Own and shared bytes of an environment, once they are as `wanted`.
fn disk(shop: &Shop, name: &str, wanted: impl Fn(u64, u64) -> bool) -> (u64, u64) {
    eventually(SOON, &format!("{name} is measured"), || {
        let shown = shop.muster(&["env", "show", name]).json();
        let (own, shared) = (bytes(&shown, "own_bytes"), bytes(&shown, "shared_bytes"));
        if wanted(own, shared) { Ok((own, shared)) } else { Err(format!("{own} own, {shared} shared")) }
    })
}

#[test]
fn an_untouched_clone_has_less_than_a_megabyte_of_its_own() {
    let Some(_turn) = real::turn() else { return };
    let shop = Shop::on("auto");
    let host = shop.cluster.muster(&["host", "show", "box-asha"]).json();
    if host["facts"]["pool_backend"] != "reflink" {
        eprintln!("left out: this machine has no pool that shares: {}", host["facts"]["pool_why"]);
        return;
    }
    shop.import();
    shop.muster(&["env", "up", "--name", "one"]).ok();
    let (own, shared) = disk(&shop, "one", |own, shared| own > 0 && shared > 0);
    assert!(own <= 1_000_000 && shared > 20_000_000, "{own} own, {shared} shared");
    let listed = shop.muster(&["env", "list"]).ok();
    assert!(listed.stdout.contains("MB shared"), "{}", listed.stdout);

    // What is written is its own, also after a reset put it aside: an undo would bring it back.
    let fill = "CREATE TABLE own AS SELECT md5(n::text) AS x FROM generate_series(1, 100000) AS n; CHECKPOINT";
    query(&shop.url("one"), fill).expect("written");
    shop.muster(&["env", "reset", "one"]).ok();
    let (own, _) = disk(&shop, "one", |own, _| own > 4_000_000);
    assert!(own < 100_000_000, "{own}");
}

#[test]
fn a_pool_of_copies_shares_nothing() {
    let Some(_turn) = real::turn() else { return };
    let shop = Shop::on("copy");
    shop.import();
    shop.muster(&["env", "up", "--name", "one"]).ok();
    let (own, shared) = disk(&shop, "one", |own, _| own > 20_000_000);
    assert_eq!(shared, 0, "{own} own");
}
