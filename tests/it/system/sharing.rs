//! Agents that share one machine, one engine and one network namespace with each other and with strangers.

use tests::harness::clean::LABEL;
use tests::harness::condition::{SOON, eventually};
use tests::harness::example::Example;
use tests::harness::real;

use super::production::{Production, health};

#[test]
fn three_agents_reconciled_twice_change_nothing_of_each_other_or_of_strangers() {
    let Some(_turn) = real::turn() else { return };
    let mut production = Production::released(3);
    let folder = Example::get().checkout("v1", production.cluster.folder());
    let socket = production.hosts[1].socket();
    production.cluster.muster(&["env", "up"]).by("asha").within(&folder).env("MUSTER_AGENT_SOCKET", socket).ok();

    // Containers of strangers: one without any label of ours, one of a host that is not here.
    let engine = production.hosts[0].engine.clone();
    let mine = format!("{LABEL}={}", production.cluster.name());
    let stranger = format!("{}-stranger", production.cluster.name());
    let other_host = format!("muster-{}-web", production.cluster.name());
    let sleeping = ["redis:7", "sleep", "600"];
    engine.run(&[&["run", "-d", "--name", &stranger, "--label", &mine], sleeping.as_slice()].concat());
    let foreign = "io.muster.host=00000000-0000-7000-8000-000000000001";
    let labels = ["--label", mine.as_str(), "--label", foreign, "--label", "io.muster.slot=bot/production"];
    engine.run(&[&["run", "-d", "--name", &other_host], labels.as_slice(), sleeping.as_slice()].concat());

    let all = |production: &Production| {
        let mut seen: Vec<String> =
            production.hosts.iter().flat_map(|host| engine.fingerprint(&host.label())).collect();
        seen.extend(engine.fingerprint(&mine));
        let networks: Vec<String> = production.hosts.iter().flat_map(tests::harness::host::Host::objects).collect();
        (seen, networks)
    };
    let before = all(&production);
    for _ in 0..2 {
        for host in &mut production.hosts {
            host.agent.kill();
        }
        for host in &mut production.hosts {
            host.agent.start();
        }
        for host in &production.hosts {
            production.cluster.wait_host(&host.name, "READY", SOON);
            eventually(SOON, "it serves", || health(host).map(drop));
        }
        assert_eq!(all(&production), before);
    }
    production.all_run(1);
}
