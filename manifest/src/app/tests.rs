use std::collections::BTreeSet;
use std::time::Duration;

use domain::app::Mode;
use domain::health::Probe;
use domain::policy::{Amount, Policy};

use super::*;

const TOUR: &str = r#"app: bot
processes:
  web:       { command: [python, -m, bot.web], ports: [8000], health: { http: /health } }
  scheduler: { command: [python, -m, bot.scheduler], overlap: false, on: role=scheduler }
stack:   compose.yaml
tests:
  unit: { command: [pytest, -q, --junitxml=reports/junit.xml], service: web, reports: { junit: reports/*.xml }, timeout: 10m, no_output: 2m }
targets:
  production:
    members: app=bot,env=production
    expose:  { web: 8080, mode: http }
    rollout: { max_parallel: 1, canary: 1, waves: [25%, 100%], min_healthy_time: 10s, max_fail: 0, auto_revert: true }
    gates:
      - health
"#;

/// A file with one process, and `rest` at its end.
fn with(rest: &str) -> String {
    format!("app: bot\nprocesses:\n  web: {{ ports: [8000] }}\n{rest}")
}

fn rollout(settings: &str) -> String {
    with(&format!("targets:\n  t:\n    members: a=b\n    rollout: {{ {settings} }}\n"))
}

fn problems(text: &str) -> Vec<Problem> {
    read(FILE, text).expect_err(text)
}

#[test]
fn the_tours_example_is_read() {
    let app = read(FILE, TOUR).unwrap();
    let process = |name: &str| &app.processes[&Name::new("process", name).unwrap()];
    let health = process("web").health.as_ref().unwrap();
    assert_eq!(health.probe, Probe::Http { path: "/health".to_owned(), port: None });
    assert_eq!(health.interval, Duration::from_secs(1));
    assert!(process("web").overlap && !process("scheduler").overlap);
    assert_eq!(process("scheduler").on.as_ref().unwrap().to_string(), "role=scheduler");
    assert_eq!(app.stack.as_deref(), Some("compose.yaml"));
    let test = &app.tests[&Name::new("test", "unit").unwrap()];
    assert_eq!((test.timeout, test.no_output), (Duration::from_secs(600), Duration::from_secs(120)));
    assert_eq!(test.junit.as_deref(), Some("reports/*.xml"));
    let target = &app.targets[&Name::new("target", "production").unwrap()];
    assert_eq!(target.policy, Policy::default());
    assert_eq!((target.expose[0].port, target.expose[0].mode, &target.expose[0].address), (8080, Mode::Http, &None));
}

#[test]
fn every_setting_of_a_rollout_is_read() {
    let text = rollout(
        "max_parallel: 50%, canary: 10%, auto_promote: false, waves: [1, 2, 100%], min_healthy_time: 500ms, healthy_deadline: 2m, \
         confirm_deadline: 1m, progress_deadline: 1h, bake_time: 0s, final_bake_time: 1s, auto_revert: false, minimum_healthy_hosts: 50%, \
         max_fail: 1, max_unreachable: 10%, on_newer: supersede, retain_releases: 2, drain_timeout: 5s, kill_timeout: 1s",
    );
    let app = read(FILE, &text).unwrap();
    let policy = &app.targets.values().next().unwrap().policy;
    let expected = Policy {
        max_parallel: Amount::Percent(50),
        canary: Amount::Percent(10),
        auto_promote: false,
        waves: vec![Amount::Count(1), Amount::Count(2), Amount::Percent(100)],
        min_healthy_time: Duration::from_millis(500),
        healthy_deadline: Duration::from_secs(120),
        confirm_deadline: Duration::from_secs(60),
        progress_deadline: Duration::from_secs(3600),
        bake_time: Duration::ZERO,
        final_bake_time: Duration::from_secs(1),
        auto_revert: false,
        minimum_healthy_hosts: Some(Amount::Percent(50)),
        max_fail: Amount::Count(1),
        max_unreachable: Amount::Percent(10),
        on_newer: domain::policy::OnNewer::Supersede,
        retain_releases: 2,
        drain_timeout: Duration::from_secs(5),
        kill_timeout: Duration::from_secs(1),
    };
    assert_eq!(policy, &expected);
}

#[test]
fn probes_are_read_in_all_their_forms() {
    for (health, probe) in [
        ("{ http: /x, port: 9000 }", Probe::Http { path: "/x".to_owned(), port: Some(9000) }),
        ("{ tcp: true }", Probe::Tcp { port: None }),
        ("{ tcp: 9000 }", Probe::Tcp { port: Some(9000) }),
        ("{ postgres: true }", Probe::Postgres { port: 5432 }),
        ("{ redis: 6380 }", Probe::Redis { port: 6380 }),
        ("{ command: [check, now] }", Probe::Command { argv: vec!["check".to_owned(), "now".to_owned()] }),
        ("{ container: true }", Probe::Container),
        ("container", Probe::Container),
    ] {
        let app =
            read(FILE, &format!("app: a\nprocesses: {{ web: {{ ports: [1], health: {health} }} }}")).expect(health);
        assert_eq!(app.processes.values().next().unwrap().health.as_ref().unwrap().probe, probe, "{health}");
    }
}

#[test]
fn a_problem_names_its_place_and_the_key_that_was_meant() {
    let text = TOUR.replace(
        "    rollout: { max_parallel: 1, canary: 1, waves: [25%, 100%], min_healthy_time: 10s,",
        "    rollout: { min_healty_time: 10s,",
    );
    let shown: Vec<String> = problems(&text).iter().map(ToString::to_string).collect();
    assert_eq!(
        shown,
        ["muster.yaml:12:16: unknown key \"min_healty_time\" in rollout; did you mean \"min_healthy_time\"?"]
    );
}

#[test]
fn all_problems_are_told_at_once_in_the_order_of_the_file() {
    let text = "ap: bot\nprocesses:\n  Web: { ports: [0, 70000], overlap: maybe }\ntargets:\n  t: { members: '', gates: [helth] }\n";
    let given: Vec<(u32, Code)> = problems(text).iter().map(|problem| (problem.line, problem.code)).collect();
    assert_eq!(
        given,
        [
            (1, Code::ManifestUnknownKey),
            (1, Code::ManifestMissingKey),
            (3, Code::ManifestName),
            (3, Code::ManifestRange),
            (3, Code::ManifestRange),
            (3, Code::ManifestType),
            (5, Code::ManifestSelector),
            (5, Code::ManifestValue),
        ]
        .map(|(line, code)| (line, code))
    );
}

/// One case per way of being wrong: the text, the only code it gives, and a part of what is told.
fn cases() -> Vec<(String, Code, &'static str)> {
    let process = |text: &str| format!("app: bot\nprocesses:\n  web: {text}\n");
    let target = |text: &str| with(&format!("targets:\n  t: {{ members: a=b, {text} }}\n"));
    let test = |text: &str| with(&format!("stack: compose.yaml\ntests:\n  unit: {{ {text} }}\n"));
    vec![
        ("app: [".to_owned(), Code::ManifestSyntax, ""),
        ("[]".to_owned(), Code::ManifestType, "must be a map"),
        ("app: bot\nprocesses: {}\n".to_owned(), Code::ManifestValue, "processes is empty"),
        (with("app: bot\n"), Code::ManifestDuplicateKey, "stands twice"),
        (with("build: { dockerfile: Dockerfile }\n"), Code::ManifestUnsupported, "muster build register"),
        (with("hooks: { migrate: [x] }\n"), Code::ManifestUnsupported, "not in this version"),
        (with("secrets: [x]\n"), Code::ManifestUnsupported, "config set"),
        (with("x-anything: 1\n"), Code::ManifestUnknownKey, "known: app"),
        (with("stack: ../compose.yaml\n"), Code::ManifestValue, "leaves the folder"),
        (with("stack: /compose.yaml\n"), Code::ManifestValue, "absolute"),
        (with("stack: .\n"), Code::ManifestValue, "folder"),
        (process("{ command: python -m bot }"), Code::ManifestType, "[python, -m, bot]"),
        (process("{ command: [] }"), Code::ManifestValue, "names no program"),
        (process("{ command: [a, [b]] }"), Code::ManifestType, "not a list"),
        (process("{ ports: [80, 80] }"), Code::ManifestConflict, "twice"),
        (process("{ ports: 80 }"), Code::ManifestType, "must be a list"),
        (process("{ ports: [eighty] }"), Code::ManifestType, "whole number"),
        (process("{ ports: [1], health: { http: health } }"), Code::ManifestValue, "begins with '/'"),
        (process("{ health: { http: /x } }"), Code::ManifestConflict, "first port"),
        (process("{ ports: [1], health: { interval: 1s } }"), Code::ManifestMissingKey, "exactly one"),
        (process("{ ports: [1], health: { http: /x, tcp: 1 } }"), Code::ManifestConflict, "http and tcp"),
        (process("{ ports: [1], health: { tcp: 1, port: 2 } }"), Code::ManifestConflict, "http only"),
        (process("{ health: { container: false } }"), Code::ManifestValue, "false"),
        (process("{ health: { mysql: 3306 } }"), Code::ManifestMissingKey, ""),
        (process("{ ports: [1], health: { tcp: 1, interval: 1ms } }"), Code::ManifestRange, "from 50ms to 5m"),
        (process("{ ports: [1], health: { tcp: 1, timeout: 10 } }"), Code::ManifestDuration, "with its unit"),
        (process("{ ports: [1], health: { tcp: 1, failures: 0 } }"), Code::ManifestRange, "from 1 to 100"),
        (process("{ on: 'a' }"), Code::ManifestSelector, "KEY=VALUE"),
        (process("{ environment: { 1A: x } }"), Code::ManifestName, "variable"),
        (process("{ environment: { A: [x] } }"), Code::ManifestType, "must be a text"),
        (process("{ environment: { A: } }"), Code::ManifestType, "not empty"),
        (test("service: web"), Code::ManifestMissingKey, "\"command\" is missing"),
        (test("command: [a], service: Web"), Code::ManifestName, "Web"),
        (test("command: [a], shards: 3"), Code::ManifestUnsupported, "shards"),
        (test("command: [a], reports: { junit: ../x.xml }"), Code::ManifestValue, "inside the checkout"),
        (test("command: [a], timeout: 0s"), Code::ManifestRange, "from 1s to 1d"),
        (test("command: [a], timeout: 1m, no_output: 2m"), Code::ManifestConflict, "longer than its timeout"),
        (with("tests: { unit: { command: [a], service: web } }\n"), Code::ManifestConflict, "no stack"),
        (with("targets: { t: {} }\n"), Code::ManifestMissingKey, "members"),
        (target("driver: archive"), Code::ManifestUnsupported, "archive"),
        (target("driver: ssh"), Code::ManifestValue, "use container"),
        (target("hooks: { migrate: [x] }"), Code::ManifestUnsupported, "hooks"),
        (target("expose: { wbe: 80 }"), Code::ManifestReference, "did you mean \"web\""),
        (target("expose: { mode: http }"), Code::ManifestMissingKey, "names no process"),
        (target("expose: { web: 80, mode: udp }"), Code::ManifestValue, "use tcp or http"),
        (target("expose: { web: 80, address: localhost }"), Code::ManifestValue, "IP address"),
        (target("expose: [{ web: 80 }, { web: 80 }]"), Code::ManifestConflict, "taken by web"),
        (target("gates: [error_rate: { max: 1% }]"), Code::ManifestUnsupported, "error_rate"),
        (target("gates: [run: unit]"), Code::ManifestUnsupported, "\"run\""),
        (target("gates: [health, health]"), Code::ManifestConflict, "twice"),
        (target("gates: [[health]]"), Code::ManifestType, "name of a gate"),
        (rollout("health_check: { http: /x }"), Code::ManifestUnsupported, "to the process"),
        (rollout("canary: 0"), Code::ManifestRange, "from 1 to"),
        (rollout("canary: 101%"), Code::ManifestRange, "to 100%"),
        (rollout("max_parallel: -1"), Code::ManifestType, "number of members"),
        (rollout("max_fail: 1.5"), Code::ManifestType, "percentage"),
        (rollout("waves: []"), Code::ManifestValue, "waves is empty"),
        (rollout("waves: [0]"), Code::ManifestRange, "waves"),
        (rollout("waves: 1"), Code::ManifestType, "must be a list"),
        (rollout("max_unreachable: park"), Code::ManifestUnsupported, "park"),
        (rollout("on_newer: cancel"), Code::ManifestValue, "queue or supersede"),
        (rollout("retain_releases: 0"), Code::ManifestRange, "from 1 to 100"),
        (rollout("bake_time: 25h"), Code::ManifestRange, "to 1d"),
        (rollout("min_healthy_time: 10m, healthy_deadline: 5m"), Code::ManifestConflict, "not longer than"),
        (rollout("healthy_deadline: 20m"), Code::ManifestConflict, "progress_deadline (10m)"),
    ]
}

#[test]
fn each_way_of_being_wrong_has_its_code_and_its_advice() {
    for (text, code, part) in cases() {
        let given = problems(&text);
        assert!(given.iter().any(|problem| problem.code == code), "{text}\n{given:?}");
        assert!(given.iter().any(|problem| problem.to_string().contains(part)), "{text}\n{given:?}");
        assert!(given.iter().all(|problem| problem.line >= 1 && problem.column >= 1));
    }
}

#[test]
fn an_exposed_process_without_ports_is_refused() {
    let text = "app: bot\nprocesses: { job: {} }\ntargets: { t: { members: a=b, expose: { job: 80 } } }\n";
    assert_eq!(problems(text).iter().map(|problem| problem.code).collect::<Vec<_>>(), [Code::ManifestConflict]);
}

#[test]
fn every_code_of_this_file_has_a_case() {
    // The limits of the YAML layer have their cases there.
    let elsewhere = [Code::ManifestTooLarge, Code::ManifestTooDeep, Code::ManifestTooManyNodes];
    let covered: BTreeSet<Code> = cases().into_iter().map(|(_, code, _)| code).chain(elsewhere).collect();
    let all = Code::ALL.iter().filter(|code| code.as_str().starts_with("E_MANIFEST_"));
    assert_eq!(all.filter(|code| !covered.contains(code)).collect::<Vec<_>>(), Vec::<&Code>::new());
}

#[test]
fn a_hostile_file_gives_no_more_than_a_hundred_problems() {
    let text: String = (0..5000).map(|n| format!("k{n}: 1\n")).collect();
    assert_eq!(problems(&text).len(), 100);
}

#[test]
fn every_key_is_in_the_reference() {
    let reference = include_str!("../../../docs/muster-yaml.md");
    for keys in [&KEYS, &process::KEYS, &health::KEYS, &test_spec::KEYS, &target::KEYS, &rollout::KEYS] {
        assert_eq!(keys.undocumented(reference), Vec::<&str>::new());
    }
}
