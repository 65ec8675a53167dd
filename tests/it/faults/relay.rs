//! The relay is killed under traffic.

use tests::harness::clean::kill;
use tests::harness::condition::{SOON, eventually};
use tests::harness::real;
use tests::harness::traffic::Traffic;

use crate::system::production::Production;

/// What the client holds open per host: 3 keep-alive connections, 2 slow POSTs, 1 WebSocket.
const OPEN: u64 = 6;

#[test]
fn only_connections_open_at_that_instant_fail() {
    let Some(_turn) = real::turn() else { return };
    let production = Production::released(2);
    let hosts: Vec<_> = production.hosts.iter().collect();
    let traffic = Traffic::start(&production.cluster, &hosts);
    hosts.iter().for_each(|host| traffic.at_least(&host.name, "1", 50));
    let old = hosts[0].processes("relay");
    assert_eq!(old.len(), 1, "one relay per host: {old:?}");
    old.iter().for_each(|pid| kill(*pid));
    let new = eventually(SOON, "the agent starts another", || {
        let now = hosts[0].processes("relay");
        if now.len() == 1 && now != old { Ok(now) } else { Err(format!("{now:?}")) }
    });
    let seen = |name: &str| traffic.so_far()["hosts"][name]["releases"]["1"]["requests"].as_u64().unwrap_or(0);
    hosts.iter().for_each(|host| traffic.at_least(&host.name, "1", seen(&host.name) + 50));
    let settled = traffic.so_far()["hosts"]["web-1"]["failures"].as_u64().unwrap_or(u64::MAX);
    hosts.iter().for_each(|host| traffic.at_least(&host.name, "1", seen(&host.name) + 100));
    let (report, _) = traffic.stop();
    assert!(settled <= OPEN, "{report}");
    assert_eq!(report["hosts"]["web-1"]["failures"], settled, "none fails later: {report}");
    assert_eq!(report["hosts"]["web-2"]["failures"], 0, "{report}");
    assert_eq!(hosts[0].processes("relay"), new);
    production.all_run(1);
}
