//! Disks become full: the pool's, that of an agent's state, that of the coordinator's. Nothing is lost, whoever asks is
//! told why and what to do, and everything goes on once there is room.

use tests::harness::cluster::{Cluster, Options};
use tests::harness::condition::{SOON, eventually};
use tests::harness::disk::{Disk, SMALLEST_XFS};
use tests::harness::real;
use tests::harness::sql::query;

use crate::system::stand::{POSTGRES, Stand};

const AWAKE: &str = "x-muster: { idle: { freeze: never, stop: never } }\n";
const KEPT: &str = "create table kept (n int); insert into kept values (7)";
/// Disk of a state folder, in MiB.
const SMALL: u64 = 48;

/// Its row is there, at the address that it had.
fn kept(url: &str) {
    assert_eq!(query(url, "select n from kept"), Ok("7".to_owned()));
}

#[test]
fn a_full_pool_refuses_what_is_new_and_takes_it_when_there_is_room() {
    let Some(_turn) = real::turn() else { return };
    let cluster = Cluster::start();
    // A pool of its own on a disk that cannot grow.
    let root = cluster.folder().join("pools/small");
    let _disk = Disk::xfs(&root, SMALLEST_XFS);
    let pool = root.join("pool");
    let mut stand =
        Stand::with(&format!("{POSTGRES}{AWAKE}"), cluster, |host| host.pool(&format!("reflink:{}", pool.display())));
    stand.muster(&["env", "up", "one"]).ok();
    let one = stand.variable("one", "postgres", "POSTGRES_URL");
    query(&one, KEPT).expect("written");

    // It fills the pool from inside, until writes fail there.
    let fill = ["dd", "if=/dev/zero", "of=/var/lib/postgresql/data/filler", "bs=64k"];
    let filled = stand.exec("one", "postgres", &fill);
    assert_ne!(filled.code, 0, "{}", filled.all());
    assert!(filled.all().contains("No space left on device"), "{}", filled.all());
    let more = "create unlogged table more as select generate_series(1, 10000000)";
    let refused = stand.query("one", more).expect_err("there is no room");
    assert!(refused.contains("No space left on device"), "{refused}");
    kept(&one);

    // Whoever comes now is told so, with the way out, and so is who looks later.
    for _ in 0..2 {
        let refused = stand.muster(&["env", "up", "two"]).run().with_code(1).says("E_POOL_FULL");
        assert!(refused.all().contains("take environments down"), "{}", refused.all());
    }
    let shown = stand.muster(&["env", "show", "two"]).ok().says("E_POOL_FULL").says("failed");
    assert!(shown.all().contains("take environments down"), "{}", shown.all());
    let snapshot = stand.muster(&["env", "snapshot", "now", "one"]).run();
    snapshot.with_code(1).says("E_POOL_FULL");
    kept(&one);
    // Also an agent that begins with a full pool keeps what is there.
    stand.host.crash(&stand.cluster);
    stand.reaches("one", "READY");
    kept(&one);
    // A reset that has no room leaves everything as it is.
    stand.muster(&["env", "reset", "one"]).run().with_code(1).says("E_POOL_FULL");
    kept(&one);

    // The way out: it can be taken down, and what waited comes up by itself.
    stand.muster(&["env", "down", "one"]).ok();
    stand.reaches("two", "READY");
    stand.muster(&["env", "up", "three"]).ok();
    stand.query("three", KEPT).expect("written");
    for name in ["two", "three"] {
        stand.muster(&["env", "down", name]).ok();
    }
    let left: Vec<_> = ["environments", "snapshots", "trash", "tmp"]
        .iter()
        .flat_map(|folder| std::fs::read_dir(pool.join(folder)).into_iter().flatten().flatten())
        .map(|entry| entry.path())
        .collect();
    assert_eq!(left, Vec::<std::path::PathBuf>::new());
    assert_eq!(stand.host.objects(), Vec::<String>::new());
}

#[test]
fn an_agent_whose_disk_is_full_says_so_and_goes_on_when_there_is_room() {
    let Some(_turn) = real::turn() else { return };
    let cluster = Cluster::start();
    let pool = cluster.folder().join("pools/elsewhere");
    let mut stand = Stand::with(&format!("{POSTGRES}{AWAKE}"), cluster, |host| {
        host.on_disk(SMALL).pool(&format!("copy:{}", pool.display()))
    });
    stand.muster(&["env", "up", "one"]).ok();
    let one = stand.variable("one", "postgres", "POSTGRES_URL");
    query(&one, KEPT).expect("written");
    let disk = stand.host.disk.clone().expect("its own disk");
    disk.fill();

    // What runs is not touched; what is new is told why it is not made.
    let mut call = stand.muster(&["env", "up", "two"]).begin();
    let reason = eventually(SOON, "it tells a reason", || {
        // It is there a moment after it was asked for.
        let shown = stand.muster(&["env", "show", "two", "--output", "json"]).run();
        if shown.code != 0 {
            return Err(shown.all());
        }
        let shown = shown.json();
        let has_code = shown["reason"]["code"].as_str().is_some_and(|code| code.starts_with("E_"));
        if has_code { Ok(shown["reason"].clone()) } else { Err(shown.to_string()) }
    });
    println!("reason: {reason}");
    kept(&one);
    // Nor is it by an agent that begins on a full disk, whether it gives up or not.
    let begun = |stand: &Stand| stand.host.agent.printed().matches("the agent runs").count();
    let before = begun(&stand);
    stand.host.agent.kill();
    stand.host.agent.start();
    let outcome =
        eventually(SOON, "it gives up, or runs", || match (begun(&stand) > before, stand.host.agent.runs()) {
            (true, _) => Ok("runs"),
            (false, false) => Ok("gives up"),
            (false, true) => Err("neither".to_owned()),
        });
    println!("on a full disk the agent {outcome}");
    kept(&one);
    disk.make_room();
    // As a service manager does.
    eventually(SOON, "the agent runs", || {
        if !stand.host.agent.runs() {
            stand.host.agent.kill();
            stand.host.agent.start();
        }
        if begun(&stand) > before { Ok(()) } else { Err(stand.host.agent.printed()) }
    });
    stand.cluster.wait_host("box-asha", "READY", SOON);
    let begun = call.runs();
    let said = call.finish();
    println!("the call that met a full disk, {}: {}", if begun { "waiting" } else { "ended" }, said.all());
    stand.muster(&["env", "up", "two"]).ok();
    stand.query("two", KEPT).expect("written");
    kept(&one);
    for name in ["one", "two"] {
        stand.muster(&["env", "down", name]).ok();
    }
    assert_eq!(stand.host.objects(), Vec::<String>::new());
}

#[test]
fn an_environment_is_taken_down_also_when_its_agents_disk_was_full() {
    let Some(_turn) = real::turn() else { return };
    let cluster = Cluster::start();
    let pool = cluster.folder().join("pools/elsewhere");
    let stand = Stand::with(&format!("{POSTGRES}{AWAKE}"), cluster, |host| {
        host.on_disk(SMALL).pool(&format!("copy:{}", pool.display()))
    });
    stand.muster(&["env", "up", "one"]).ok();
    let disk = stand.host.disk.clone().expect("its own disk");
    disk.fill();
    let mut call = stand.muster(&["env", "down", "one"]).begin();
    let told = eventually(SOON, "it ends, or tells a reason", || {
        let shown = stand.muster(&["env", "show", "one", "--output", "json"]).run();
        if shown.code != 0 || shown.stdout.contains("\"E_") { Ok(shown.all()) } else { Err(shown.all()) }
    });
    println!("while it is full, {}: {told}", if call.runs() { "it waits" } else { "it went all the same" });
    disk.make_room();
    call.finish().with_code(0);
    assert_eq!(stand.host.objects(), Vec::<String>::new());
    stand.muster(&["env", "up", "one"]).ok();
    stand.muster(&["env", "down", "one"]).ok();
}

#[test]
fn a_coordinator_whose_disk_is_full_refuses_changes_and_loses_none() {
    let Some(_turn) = real::turn() else { return };
    let mut cluster = Cluster::with(&Options { disk: Some(SMALL), ..Options::default() });
    let disk = cluster.disk.clone().expect("its own disk");
    disk.fill();
    let made = |number: usize| format!("someone-{number}");
    let make = |cluster: &Cluster, number: usize| {
        cluster.muster(&["api-token", "create", &made(number), "--role", "developer", "--quiet"]).run()
    };
    // What the log of changes has room for is taken, and kept; the rest is refused.
    let mut taken = 0;
    let refused = loop {
        let answer = make(&cluster, taken);
        if answer.code != 0 {
            break answer;
        }
        taken += 1;
        assert!(taken < 500, "a full disk refuses nothing");
    };
    println!("{taken} were taken, then: {}", refused.all());
    let refused = refused.with_code(1).says("E_STORE_FULL");
    assert!(refused.took < SOON, "{:?}", refused.took);
    // It still answers who only reads, also after a restart if that comes up.
    let listed = |cluster: &Cluster| cluster.muster(&["api-token", "list"]).ok().stdout;
    let before = listed(&cluster);
    assert!(!before.contains(&made(taken)), "{before}");
    disk.make_room();
    eventually(SOON, "it takes changes again", || {
        let answer = make(&cluster, taken);
        if answer.code == 0 { Ok(()) } else { Err(answer.all()) }
    });
    cluster.crash();
    let after = listed(&cluster);
    for number in 0..=taken {
        assert!(after.contains(&made(number)), "{number}: {after}");
    }
}
