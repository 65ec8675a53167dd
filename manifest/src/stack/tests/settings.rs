//! `x-muster`, limits and rights.

use domain::stack::{Credentials, Durability, Idle, SeedRef, Ulimit};

use super::*;

fn settings(x_muster: &str) -> domain::stack::Settings {
    let text = format!("services: {{ web: {{ image: a }} }}\nx-muster: {{ {x_muster} }}\n");
    plain(&text).unwrap_or_else(|problems| panic!("{text}\n{problems:?}")).stack.settings
}

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn what_a_file_does_not_say_has_documented_defaults() {
    let settings = settings("");
    assert_eq!((settings.seed, settings.durability), (None, Durability::Dev));
    assert_eq!(settings.idle, Idle { freeze: Some(10 * MINUTE), stop: Some(120 * MINUTE) });
    assert_eq!((settings.ttl.0, settings.credentials), (14 * 24 * 60 * MINUTE, Credentials::Random));
    assert_eq!((settings.quota.milli_cpus, settings.quota.memory, settings.quota.disk), (None, None, None));
}

#[test]
fn all_settings_are_read() {
    let given = settings(
        "seed: staging@2026-10-04, durability: throwaway, ttl: 3d, credentials: keep, idle: { freeze: never, stop: 1h }, \
         quota: { cpu: 1.5, memory: 2g, disk: 10g }",
    );
    assert_eq!(given.seed, SeedRef::parse("staging@2026-10-04"));
    assert_eq!((given.durability, given.credentials), (Durability::Throwaway, Credentials::Keep));
    assert_eq!(given.idle, Idle { freeze: None, stop: Some(60 * MINUTE) });
    assert_eq!(given.ttl.0, 3 * 24 * 60 * MINUTE);
    assert_eq!(
        (given.quota.milli_cpus, given.quota.memory, given.quota.disk),
        (Some(1500), Some(2 << 30), Some(10 << 30))
    );
}

#[test]
fn a_time_that_was_left_out_gives_way_to_the_one_that_was_written() {
    assert_eq!(settings("idle: never").idle, Idle { freeze: None, stop: None });
    assert_eq!(settings("idle: { stop: 5m }").idle, Idle { freeze: Some(5 * MINUTE), stop: Some(5 * MINUTE) });
    assert_eq!(settings("idle: { freeze: 3h }").idle, Idle { freeze: Some(180 * MINUTE), stop: Some(180 * MINUTE) });
}

#[test]
fn a_seed_of_a_single_service_is_refused_where_it_stands() {
    for seed in ["own@1", "none"] {
        let text = format!(
            "x-muster: {{ seed: all }}\nservices:\n  db: {{ image: postgres, x-muster: {{ seed: {seed} }} }}\n"
        );
        let problems = plain(&text).unwrap_err();
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!((problems[0].code, problems[0].line), (Code::StackUnsupported, 3));
        assert!(problems[0].to_string().contains("one seed has the data of all stores"), "{}", problems[0]);
    }
    let stack =
        plain("services:\n  web: { image: a, x-muster: { egress: true } }\n  db: { image: postgres }\n").unwrap().stack;
    assert!(stack.services["web"].egress && !stack.services["db"].egress);
}

#[test]
fn rights_and_limits_are_read() {
    let web = service(
        "cap_drop: [ALL]\n    cap_add: [cap_chown, IPC_LOCK]\n    pids_limit: 50\n    group_add: [1001, audio]\n    \
         ulimits: { nofile: 100, memlock: { soft: -1, hard: -1 } }\n    security_opt: ['no-new-privileges:true']\n    \
         extra_hosts: { a: 10.0.0.1, b: ['::1', '[::2]'] }\n    platform: linux/amd64",
    );
    assert_eq!((web.cap_drop, web.cap_add), (vec!["ALL".to_owned()], vec!["CHOWN".to_owned(), "IPC_LOCK".to_owned()]));
    assert_eq!((web.pids_limit, web.no_new_privileges), (Some(50), true));
    assert_eq!(web.group_add, ["1001", "audio"]);
    assert_eq!(web.ulimits["nofile"], Ulimit { soft: 100, hard: 100 });
    assert_eq!(web.ulimits["memlock"], Ulimit { soft: -1, hard: -1 });
    let hosts: Vec<_> = web.extra_hosts.iter().map(|(name, address)| (name.as_str(), address.as_str())).collect();
    assert_eq!(hosts, [("a", "10.0.0.1"), ("b", "::1"), ("b", "::2")]);
    assert_eq!(service("extra_hosts: ['a=1.2.3.4', 'b:::1']").extra_hosts[1].1, "::1");
    assert_eq!(service("deploy: { resources: { limits: { pids: 7 } } }").pids_limit, Some(7));
}

#[test]
fn what_is_left_out_or_not_used_is_told() {
    for (keys, part) in [
        ("volumes: ['/etc/localtime:/etc/localtime:ro']", "/etc/localtime is left out"),
        ("volumes: [{ type: bind, source: /etc/timezone, target: /etc/timezone }]", "/etc/timezone is left out"),
        ("extra_hosts: ['host.docker.internal:host-gateway']", "does not reach its host"),
        ("dns: 8.8.8.8", "\"dns\" of service web is not used"),
        ("deploy: { replicas: 3 }", "one container runs per service"),
        ("scale: 2", "one container runs per service"),
        ("platform: linux/arm64", "the host's own platform"),
        ("cpuset: 0,1", "only mem_limit, cpus and pids_limit"),
    ] {
        let reading = plain(&web(keys)).unwrap_or_else(|problems| panic!("{keys}\n{problems:?}"));
        assert!(reading.notices.iter().any(|notice| notice.message.contains(part)), "{keys}\n{:?}", reading.notices);
        let web = &reading.stack.services["web"];
        assert!(web.mounts.is_empty() && web.extra_hosts.is_empty(), "{keys}");
    }
}

#[test]
fn kernel_settings_of_the_container_are_read_in_both_forms() {
    let expected = [("kernel.sem", "1 2"), ("net.core.somaxconn", "1024")];
    for keys in [
        "sysctls: { net.core.somaxconn: 1024, kernel.sem: '1 2' }",
        "sysctls: [net.core.somaxconn=1024, kernel.sem=1 2]",
    ] {
        let found = service(keys).sysctls;
        let found: Vec<_> = found.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(found, expected);
    }
}

#[test]
fn names_of_networks_and_links_are_names_of_the_service() {
    let text = "services:\n  db: { image: a, networks: { n: { aliases: [store, db2] } } }\n  web: { image: b, links: ['db:database', db] }\nnetworks: { n: }\n";
    let stack = plain(text).unwrap().stack;
    assert_eq!(stack.services["db"].aliases, ["store", "db2", "database"]);
    assert_eq!(stack.services["web"].depends_on["db"], Condition::Started);
    let circle = "services: { a: { image: x, links: [b] }, b: { image: x, depends_on: [a] } }";
    assert_eq!(plain(circle).unwrap_err()[0].code, Code::StackDependencyCycle);
}
