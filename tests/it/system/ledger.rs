//! What people read of the ledger.

use tests::harness::cluster::Cluster;
use tests::harness::real;

#[test]
fn since_an_instant_all_events_are_told_and_a_limit_takes_the_newest() {
    let Some(_turn) = real::turn() else { return };
    let cluster = Cluster::start();
    let hosts: Vec<String> = (1..=105).map(|number| format!("web-{number}")).collect();
    for host in &hosts {
        cluster.muster(&["join-token", "create", host]).ok();
    }
    let told = |words: &[&str]| -> Vec<String> {
        let printed = cluster.muster(&[&["events"], words].concat()).ok().stdout;
        printed
            .lines()
            .filter_map(|line| line.split_once("for host ")?.1.split(',').next().map(str::to_owned))
            .collect()
    };
    assert_eq!(told(&["--since", "1h"]), hosts);
    assert_eq!(told(&["--since", "1h", "--limit", "3"]), hosts[102..]);
    assert_eq!(told(&["--limit", "3"]), hosts[102..]);
    assert_eq!(told(&[]), hosts[5..]);
    cluster.muster(&["events", "--limit", "0"]).run().with_code(2);
}
