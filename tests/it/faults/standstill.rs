//! Everything stands still for a snapshot, and its agent goes: it is killed, or hangs.

use std::time::{Duration, Instant};

use tests::harness::cluster::Cluster;
use tests::harness::condition::{SOON, eventually, until};
use tests::harness::real;

use crate::system::stand::{POSTGRES_AND_REDIS, Stand};

/// What the agent promises, and a busy machine's share.
const LIMIT: Duration = Duration::from_secs(2 + 3);

/// Which of the containers' groups the kernel holds.
fn standing(stand: &Stand, names: &[String]) -> Vec<bool> {
    let holds = |name: &String| {
        let group = stand.host.engine.cgroup(name, "freezer");
        let says =
            |file: &str, what: &str| std::fs::read_to_string(group.join(file)).is_ok_and(|text| text.contains(what));
        says("freezer.state", "FROZEN") || says("cgroup.events", "frozen 1")
    };
    names.iter().map(holds).collect()
}

#[test]
fn what_stands_still_for_a_snapshot_goes_on_although_its_agent_is_killed_or_hangs() {
    let Some(_turn) = real::turn() else { return };
    let stack = format!("{POSTGRES_AND_REDIS}x-muster: {{ idle: never }}\n");
    let mut stand = Stand::with(&stack, Cluster::start(), |host| host.pool("auto"));
    stand.muster(&["env", "up", "one"]).ok();
    let effects = stand.changed_by(&["env", "snapshot", "first", "one"]);
    let frozen = effects.iter().rposition(|name| name == "freezer.freeze").expect("it freezes");
    // The first thing that is done while nothing runs.
    let at = frozen + 2;
    let names = stand.host.running();
    let all_stand = |stand: &Stand| {
        until(SOON, "the agent waits", || stand.effects().waits_at().is_some());
        assert_eq!(standing(stand, &names), [true, true], "at {:?}", stand.effects().waits_at());
    };
    let all_go_on = |stand: &Stand, since: Instant| {
        until(SOON, "nothing stands still", || standing(stand, &names) == [false, false]);
        let took = since.elapsed();
        assert!(took < LIMIT, "it stood still for {took:?}");
    };

    // Nobody but the guard is there to thaw it; the next agent takes the snapshot.
    stand.effects().hold_at(at);
    let call = stand.muster(&["env", "snapshot", "second", "one"]).begin();
    all_stand(&stand);
    let since = Instant::now();
    stand.host.agent.kill();
    all_go_on(&stand, since);
    assert_eq!(stand.query("one", "select 6 * 7"), Ok("42".to_owned()), "without an agent");
    stand.effects().release();
    stand.host.agent.start();
    call.finish().with_code(0);

    // It is there and does nothing: what was taken meanwhile is of no instant, and is thrown away.
    stand.effects().hold_at(at);
    let call = stand.muster(&["env", "snapshot", "third", "one"]).begin();
    all_stand(&stand);
    all_go_on(&stand, Instant::now());
    assert!(stand.effects().waits_at().is_some(), "the agent still hangs");
    assert_eq!(stand.query("one", "select 6 * 7"), Ok("42".to_owned()));
    stand.effects().release();
    call.finish().with_code(1).says("E_SNAPSHOT_SLOW");
    let listed = stand.muster(&["seed", "list", "--snapshots"]).ok().stdout;
    assert!(listed.contains("second"), "{listed}");
    eventually(SOON, "it can be taken now", || {
        let again = stand.muster(&["env", "snapshot", "fourth", "one"]).run();
        if again.code == 0 { Ok(()) } else { Err(again.all()) }
    });
    stand.ends();
}
