use std::time::Duration;

use domain::health::Probe;
use domain::stack::{Condition, MountSource, StoreKind};

use super::*;
use crate::yaml;

mod files;
mod settings;

fn read_with(text: &str, variables: &[(&str, &str)], files: &[(&str, &str)]) -> Result<Reading, Vec<Problem>> {
    let map = |pairs: &[(&str, &str)]| {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<BTreeMap<_, _>>()
    };
    let (variables, files) = (map(variables), map(files));
    read(Input { file: "compose.yaml", text, variables: &variables, files: &|path| files.get(path).cloned() })
}

fn plain(text: &str) -> Result<Reading, Vec<Problem>> {
    read_with(text, &[], &[])
}

/// A stack with one service `web`, of `image: a` and the given keys.
fn web(keys: &str) -> String {
    format!("services:\n  web:\n    image: a\n    {keys}\nvolumes: {{ data: }}\n")
}

fn service(keys: &str) -> domain::stack::Service {
    let text = web(keys);
    let mut reading = plain(&text).unwrap_or_else(|problems| panic!("{text}\n{problems:?}"));
    reading.stack.services.remove("web").unwrap()
}

const FULL: &str = r#"
version: "3.9"
x-common: &common
  restart: unless-stopped
  environment: &env { LEVEL: info, SIZE: 10 }
services:
  db:
    <<: *common
    image: docker.io/postgis/postgis:16-3.4
    environment:
      <<: *env
      LEVEL: debug
      PASSWORD: ${PASSWORD:?set it}
    volumes:
      - data:/var/lib/postgresql/data
    healthcheck: { test: pg_isready, interval: 2s, timeout: 3s, retries: 5, start_period: 1m }
    shm_size: 256m
  web:
    <<: [*common]
    build: { context: ./app, dockerfile: Dockerfile.dev, target: dev, args: [A=1, B] }
    image: web:dev
    command: python -m "my web"
    entrypoint: [/entry, --]
    env_file: [web.env, { path: gone.env, required: false }]
    environment: [LEVEL=warn, FROM_OUTSIDE, NOT_SET]
    ports: ["8080:80", 9000-9001, { target: 443, published: 8443 }]
    expose: [7000]
    volumes:
      - ./src/:/app/src:ro
      - /app/node_modules
      - { type: tmpfs, target: /tmp }
    tmpfs: /run
    depends_on: { db: { condition: service_healthy }, init: { condition: service_completed_successfully } }
    working_dir: /app
    user: "1000:1000"
    stop_signal: INT
    stop_grace_period: 1m30s
    deploy: { resources: { limits: { cpus: "0.5", memory: 512M } } }
    init: true
    read_only: true
  init:
    image: web:dev
    depends_on: [db]
volumes:
  data:
"#;

#[test]
fn everything_honoured_is_read() {
    let variables = [("PASSWORD", "s"), ("FROM_OUTSIDE", "o"), ("B", "b")];
    let reading = read_with(FULL, &variables, &[("web.env", "LEVEL=file\nMORE=$B\n")]).unwrap();
    let (db, web) = (&reading.stack.services["db"], &reading.stack.services["web"]);
    let map = |pairs: &[(&str, &str)]| {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<BTreeMap<_, _>>()
    };
    assert_eq!(db.store, Some(StoreKind::Postgres));
    assert_eq!(db.environment, map(&[("LEVEL", "debug"), ("SIZE", "10"), ("PASSWORD", "s")]));
    assert!(db.restart && web.restart && !reading.stack.services["init"].restart);
    let check = db.healthcheck.as_ref().unwrap();
    assert_eq!(check.probe, Probe::Command { argv: ["/bin/sh", "-c", "pg_isready"].map(str::to_owned).to_vec() });
    assert_eq!(
        (check.interval, check.timeout, check.failures, check.start_period),
        (Duration::from_secs(2), Duration::from_secs(3), 5, Duration::from_secs(60))
    );
    assert_eq!(db.shm_bytes, Some(256 << 20));
    assert_eq!(db.mounts[0].source, MountSource::Volume("data".to_owned()));
    assert_eq!(web.environment, map(&[("LEVEL", "warn"), ("FROM_OUTSIDE", "o"), ("MORE", "b")]));
    assert_eq!(web.command.as_ref().unwrap(), &["python", "-m", "my web"]);
    assert_eq!(web.entrypoint.as_ref().unwrap(), &["/entry", "--"]);
    let build = web.build.as_ref().unwrap();
    assert_eq!(
        (build.context.as_str(), build.dockerfile.as_deref(), build.target.as_deref()),
        ("app", Some("Dockerfile.dev"), Some("dev"))
    );
    assert_eq!(build.args, map(&[("A", "1"), ("B", "b")]));
    assert_eq!((web.ports.as_slice(), web.expose.as_slice()), ([80, 9000, 9001, 443].as_slice(), [7000].as_slice()));
    let mounts: Vec<_> = web.mounts.iter().map(|m| (m.source.clone(), m.target.as_str(), m.read_only)).collect();
    let expected = [
        (MountSource::Folder("src".to_owned()), "/app/src", true),
        (MountSource::Anonymous, "/app/node_modules", false),
        (MountSource::Tmpfs, "/tmp", false),
        (MountSource::Tmpfs, "/run", false),
    ];
    assert_eq!(mounts, expected);
    assert_eq!(web.depends_on["db"], Condition::Healthy);
    assert_eq!(web.depends_on["init"], Condition::Completed);
    assert_eq!(
        (web.working_dir.as_deref(), web.user.as_deref(), web.stop_signal.as_deref()),
        (Some("/app"), Some("1000:1000"), Some("SIGINT"))
    );
    assert_eq!(
        (web.stop_grace_period, web.memory, web.milli_cpus),
        (Some(Duration::from_secs(90)), Some(512 << 20), Some(500))
    );
    assert!(web.init && web.read_only);
    assert_eq!(reading.stack.volumes, ["data"]);
    let notices: Vec<String> = reading.notices.iter().map(ToString::to_string).collect();
    assert!(notices[0].starts_with("compose.yaml:2:1: \"version\" is not used"), "{notices:?}");
    assert!(notices.iter().any(|notice| notice.contains("stable address")), "{notices:?}");
}

#[test]
fn stores_are_known_by_their_images_or_by_what_the_file_says() {
    for (image, kind) in [
        ("postgres", Some(StoreKind::Postgres)),
        ("r.example:5000/x/postgis:16", Some(StoreKind::Postgres)),
        ("mariadb:10.6.4-focal", Some(StoreKind::Mysql)),
        ("valkey/valkey:8", Some(StoreKind::Redis)),
        ("opensearchproject/opensearch:2", Some(StoreKind::Elasticsearch)),
        ("postgres-exporter", None),
        ("my/app:postgres", None),
    ] {
        let reading = plain(&format!("services: {{ s: {{ image: '{image}' }} }}")).unwrap();
        assert_eq!(reading.stack.services["s"].store, kind, "{image}");
    }
    assert_eq!(service("x-muster: { kind: redis }").store, Some(StoreKind::Redis));
    let none = plain("services: { s: { image: postgres, x-muster: { kind: none } } }").unwrap();
    assert_eq!(none.stack.services["s"].store, None);
    let waits = |condition| {
        let text =
            "services: { s: { image: postgres }, web: { image: w, depends_on: { s: { condition: CONDITION } } } }";
        plain(&text.replace("CONDITION", condition)).unwrap().stack.services["s"].store
    };
    assert_eq!(waits("service_healthy"), Some(StoreKind::Postgres));
    assert_eq!(waits("service_completed_successfully"), None, "a client, not a server");
}

#[test]
fn variables_come_from_the_caller_then_from_the_env_file_then_from_defaults() {
    let text = "services: { web: { image: 'a:${TAG:-1}', user: $USER_ID, environment: { P: 'a$$b' } } }";
    let reading = read_with(text, &[("TAG", "3")], &[(".env", "TAG=2\nUSER_ID=7\n")]).unwrap();
    let web = &reading.stack.services["web"];
    assert_eq!(
        (web.image.as_deref(), web.user.as_deref(), web.environment["P"].as_str()),
        (Some("a:3"), Some("7"), "a$b")
    );
}

#[test]
fn a_check_can_be_switched_off_and_is_cut_to_our_range() {
    assert_eq!(service("healthcheck: { test: [NONE] }").healthcheck, None);
    assert_eq!(service("healthcheck: { disable: true }").healthcheck, None);
    let check = service("healthcheck: { test: [CMD, a, b], interval: 1h, retries: 0 }").healthcheck.unwrap();
    assert_eq!(check.probe, Probe::Command { argv: vec!["a".to_owned(), "b".to_owned()] });
    assert_eq!((check.interval, check.timeout, check.failures), (Duration::from_secs(300), Duration::from_secs(30), 3));
}

#[test]
fn keys_that_say_nothing_are_no_problem() {
    let web = service(
        "privileged: false\n    cap_add: []\n    ipc: private\n    restart: no\n    command:\n    x-note: { a: 1 }",
    );
    assert!(!web.restart && web.command.is_none());
}

/// One case per way of being wrong: the text, a code that it gives, and a part of what is told.
fn cases() -> Vec<(String, Code, &'static str)> {
    let with = |keys: &str, code, part| (web(keys), code, part);
    let top = |text: &str, code, part| (format!("services: {{ web: {{ image: a }} }}\n{text}"), code, part);
    vec![
        ("services: [".to_owned(), Code::StackSyntax, ""),
        (" ".repeat(yaml::MAX_BYTES + 1), Code::StackTooLarge, "1 MiB"),
        (format!("a: {}", "[".repeat(70)), Code::StackTooDeep, "64"),
        ("- a\n".repeat(yaml::MAX_NODES + 1), Code::StackTooManyNodes, "values"),
        ("volumes: {}\n".to_owned(), Code::StackMissingKey, "\"services\" is missing"),
        ("services: {}\n".to_owned(), Code::StackRange, "0 services"),
        ("services: { 'a b': { image: a } }\n".to_owned(), Code::StackName, "name of a service"),
        ("services: { web: { command: a } }\n".to_owned(), Code::StackMissingKey, "\"image\" is missing"),
        top("volumse: {}\n", Code::StackUnknownKey, "did you mean \"volumes\""),
        top("include: [x.yaml]\n", Code::StackFile, "\"x.yaml\" does not exist"),
        top("include: ['https://git.example/x.git']\n", Code::StackUnsupported, "from elsewhere"),
        top("include: [../x.yaml]\n", Code::StackOutsideFolder, "leaves the folder"),
        top("models: { m: }\n", Code::StackUnsupported, "\"models\""),
        top("secrets: { s: { external: true } }\n", Code::StackRefused, "external"),
        top("secrets: { s: }\n", Code::StackMissingKey, "file: PATH"),
        top("secrets: { s: { content: x } }\n", Code::StackUnsupported, "into a file"),
        top("configs: { c: { file: x, content: y } }\n", Code::StackConflict, "two sources"),
        top("configs: { 'c/d': { content: y } }\n", Code::StackName, "name of a config"),
        top("x-muster: { seed: Staging }\n", Code::StackValue, "NAME@VERSION"),
        top("x-muster: { durability: none }\n", Code::StackValue, "throwaway"),
        top("x-muster: { credentials: mine }\n", Code::StackValue, "keep"),
        top("x-muster: { idle: { freeze: 1h, stop: 1m } }\n", Code::StackConflict, "sooner than freeze"),
        top("x-muster: { ttl: 0 }\n", Code::StackRange, "from 1s"),
        top("x-muster: { quota: { cpus: 2 } }\n", Code::StackUnknownKey, "did you mean \"cpu\""),
        top("x-muster: { quota: { disk: big } }\n", Code::StackValue, "512m"),
        top("x-muster: { sede: staging }\n", Code::StackUnknownKey, "did you mean \"seed\""),
        top("volumes: { d: { external: true } }\n", Code::StackRefused, "external"),
        top("volumes: { d: { driver: nfs } }\n", Code::StackRefused, "driver of volume d"),
        top("volumes: { d: { driver_opts: { device: / } } }\n", Code::StackRefused, "any folder"),
        top("volumes: { 'a/b': }\n", Code::StackName, "name of a volume"),
        top("networks: { n: { external: true } }\n", Code::StackRefused, "external"),
        top("networks: { n: { driver: host } }\n", Code::StackRefused, "driver of network n"),
        with("image: b", Code::StackDuplicateKey, "twice"),
        with("imgae: b", Code::StackUnknownKey, "unknown key \"imgae\" in service web; did you mean \"image\"?"),
        with("privileged: true", Code::StackRefused, "the whole host"),
        with("network_mode: host", Code::StackRefused, "networks of its own"),
        with("pid: host", Code::StackRefused, "\"pid\""),
        with("ipc: host", Code::StackRefused, "\"ipc\""),
        with("cap_add: [NET_ADMIN]", Code::StackRefused, "power over the host"),
        with("cap_drop: ['a b']", Code::StackValue, "name of a capability"),
        with("security_opt: [seccomp:unconfined]", Code::StackRefused, "weaken the isolation"),
        with("ulimits: { nofiles: 1 }", Code::StackUnknownKey, "did you mean \"nofile\""),
        with("ulimits: { nofile: { soft: 2, hard: 1 } }", Code::StackConflict, "above hard"),
        with("ulimits: { nofile: many }", Code::StackValue, "whole number"),
        with("pids_limit: x", Code::StackType, "whole number"),
        with("sysctls: { vm.max_map_count: 1 }", Code::StackRefused, "the whole host"),
        with("extra_hosts: ['h:there']", Code::StackValue, "IP address"),
        with("group_add: ['a b']", Code::StackValue, "names or numbers"),
        with("links: [dbb]", Code::StackDependencyUnknown, "no service"),
        with("profiles: ['a b']", Code::StackName, "profiles of service web"),
        with("configs: [c]", Code::StackReference, "not declared"),
        with("extends: { file: b.yaml, service: b }", Code::StackFile, "does not exist"),
        with("extends: { service: wbe }", Code::StackReference, "did you mean \"web\""),
        with("extends: web", Code::StackDependencyCycle, "extend each other"),
        with("x-muster: { seed: own@1 }", Code::StackUnsupported, "one seed has the data of all stores"),
        with("devices: [/dev/kvm]", Code::StackRefused, "\"devices\""),
        with("volumes: ['/var/run/docker.sock:/var/run/docker.sock']", Code::StackRefused, "engine's socket"),
        with("volumes: ['/etc:/etc']", Code::StackRefused, "of the host"),
        with("volumes: ['~/x:/x']", Code::StackRefused, "home"),
        with("volumes: ['../x:/x']", Code::StackOutsideFolder, "leaves the folder"),
        with(
            "volumes: [{ type: bind, source: ./a/../../b, target: /x }]",
            Code::StackOutsideFolder,
            "leaves the folder",
        ),
        with("volumes: [{ type: bind, source: /etc, target: /x }]", Code::StackRefused, "of the host"),
        with("volumes: [{ type: npipe, source: a, target: /x }]", Code::StackUnsupported, "npipe"),
        with("volumes: ['dta:/x']", Code::StackReference, "did you mean \"data\""),
        with("volumes: ['src/x:/x']", Code::StackReference, "begins with ./"),
        with("volumes: ['data:x']", Code::StackValue, "absolute path"),
        with("volumes: ['data:/x:rshared']", Code::StackUnsupported, "rshared"),
        with("volumes: ['data:/x', './y:/x/']", Code::StackConflict, "twice"),
        with("volumes: ['a:b:c:d']", Code::StackValue, "SOURCE"),
        with("secrets: [s]", Code::StackReference, "secrets of service web names \"s\""),
        with("deploy: { replicas: 0 }", Code::StackUnsupported, "replicas"),
        with("scale: 0", Code::StackUnsupported, "give the service a profile"),
        with("build: https://git.example/x.git", Code::StackUnsupported, "from a URL"),
        with("build: ../x", Code::StackOutsideFolder, "leaves the folder"),
        with("build: { context: a, dockerfile: ../../Dockerfile }", Code::StackOutsideFolder, "dockerfile"),
        with("build: { context: ., privileged: true }", Code::StackRefused, "no more rights"),
        with("build: { dockerfile: x }", Code::StackMissingKey, "context"),
        with("command: 'a | b'", Code::StackValue, "no shell reads"),
        with("command: \"a 'b\"", Code::StackValue, "not closed"),
        with("command: { a: b }", Code::StackType, "must be a text"),
        with("environment: { 'A B': c }", Code::StackName, "not that of a variable"),
        with("environment: { A: [c] }", Code::StackType, "must be a text"),
        with("environment: { A: '${X' }", Code::StackInterpolation, "write $$"),
        with("environment: { A: '${X:?give X}' }", Code::StackVariable, "X is required: give X"),
        with("env_file: gone.env", Code::StackEnvFile, "does not exist"),
        with("env_file: ../x.env", Code::StackOutsideFolder, "leaves the folder"),
        with("env_file: { path: x.env, format: json }", Code::StackValue, "use raw"),
        with("ports: [70000]", Code::StackPort, "1 to 65535"),
        with("ports: ['1-300']", Code::StackRange, "more than 100"),
        with("ports: [{ published: 80 }]", Code::StackMissingKey, "target"),
        with("expose: [x]", Code::StackPort, "\"x\""),
        with("depends_on: [wbe]", Code::StackDependencyUnknown, "did you mean \"web\""),
        with("depends_on: [web]", Code::StackDependencyCycle, "waits for itself"),
        with("depends_on: { web: { condition: ready } }", Code::StackValue, "service_healthy"),
        with("networks: [backnet]", Code::StackReference, "backnet"),
        with("networks: { default: { aliases: ['x y'] } }", Code::StackName, "aliases"),
        with("networks: { default: { ipv4_address: 10.0.0.1 } }", Code::StackUnsupported, "ipv4_address"),
        with("healthcheck: { interval: 1s }", Code::StackMissingKey, "\"test\""),
        with("healthcheck: { test: [ls] }", Code::StackValue, "CMD-SHELL"),
        with("healthcheck: { test: [CMD, ls], interval: 5 }", Code::StackDuration, "with its unit"),
        with("working_dir: app", Code::StackValue, "absolute"),
        with("user: 'a b'", Code::StackValue, "USER:GROUP"),
        with("restart: sometimes", Code::StackValue, "on-failure"),
        with("stop_signal: SIGFOO", Code::StackValue, "SIGINT"),
        with("stop_grace_period: 2h", Code::StackRange, "to 1h"),
        with("mem_limit: 1m", Code::StackRange, "at least 6m"),
        with("mem_limit: lots", Code::StackValue, "512m"),
        with("cpus: many", Code::StackValue, "0.5"),
        with("mem_limit: 1g\n    deploy: { resources: { limits: { memory: 2g } } }", Code::StackConflict, "otherwise"),
        with("init: maybe", Code::StackType, "true or false"),
        with("x-muster: { kind: oracle }", Code::StackValue, "use postgres"),
        ("services: { web: { image: 'A B' } }".to_owned(), Code::ImageRef, "NAME:TAG"),
    ]
}

#[test]
fn each_way_of_being_wrong_has_its_code_and_its_advice() {
    for (text, code, part) in cases() {
        let shown: String = text.chars().take(200).collect();
        let given = plain(&text).expect_err(&shown);
        assert!(given.iter().any(|problem| problem.code == code), "{shown}\n{given:?}");
        assert!(given.iter().any(|problem| problem.to_string().contains(part)), "{shown}\n{given:?}");
    }
}

#[test]
fn every_code_of_this_file_has_a_case() {
    let covered: BTreeSet<Code> = cases().into_iter().map(|(_, code, _)| code).collect();
    let all = Code::ALL.iter().filter(|code| code.as_str().starts_with("E_STACK_"));
    assert_eq!(all.filter(|code| !covered.contains(code)).collect::<Vec<_>>(), Vec::<&Code>::new());
}

#[test]
fn a_service_has_a_limited_number_of_mounts() {
    let mounts: Vec<String> = (0..101).map(|n| format!("/m{n}")).collect();
    let problems = plain(&web(&format!("volumes: [{}]", mounts.join(", ")))).unwrap_err();
    assert_eq!(problems.iter().map(|problem| problem.code).collect::<Vec<_>>(), [Code::StackRange]);
}

#[test]
fn every_circle_is_told_with_its_way() {
    let text = "services:\n  a: { image: x, depends_on: [b] }\n  b: { image: x, depends_on: [c] }\n  c: { image: x, depends_on: [a] }\n  \
                d: { image: x, depends_on: [a, e] }\n  e: { image: x, depends_on: [d] }\n  f: { image: x, depends_on: [a] }\n";
    let shown: Vec<String> = plain(text).unwrap_err().iter().map(|problem| problem.message.clone()).collect();
    assert_eq!(shown, ["services wait for each other: a -> b -> c -> a", "services wait for each other: d -> e -> d"]);
}

#[test]
fn a_place_that_an_alias_shows_twice_is_told_once() {
    let text = "x-a: &a { image: x, privileged: true }\nservices: { b: *a, c: *a, d: { <<: *a } }\n";
    let problems = plain(text).unwrap_err();
    let places: BTreeSet<_> = problems.iter().map(|problem| (problem.line, problem.message.clone())).collect();
    assert_eq!((places.len(), problems.len()), (3, 3), "{problems:?}");
}

#[test]
fn no_message_holds_the_value_of_a_variable() {
    let text = "services:\n  web:\n    image: 'A $S'\n    command: 'x | $S'\n    user: 'u $S'\n    ports: ['$S']\n    volumes: ['$S:/x', '../$S:/y']\n    \
                working_dir: $S\n    cpus: $S\n    init: $S\n    build: { context: '/$S' }\n    healthcheck: { test: [$S], interval: $S }\n    environment: ['$S $S=1']\n    \
                depends_on: [$S]\n    networks: [$S]\n    env_file: $S\n    mem_limit: $S\n    restart: $S\n    stop_signal: $S\n    tmpfs: $S\n";
    let problems = read_with(text, &[("S", "hunter2")], &[]).unwrap_err();
    assert!(problems.len() >= 17, "{problems:?}");
    for problem in problems {
        assert!(!problem.to_string().contains("hunter2"), "{problem}");
    }
}

#[test]
fn every_key_is_in_the_reference() {
    let reference = include_str!("../../../docs/stack-file.md");
    for keys in [&KEYS, &keys::SERVICE, &muster::SERVICE, &muster::TOP, &muster::IDLE, &muster::QUOTA] {
        assert_eq!(keys.undocumented(reference), Vec::<&str>::new());
    }
}

#[test]
fn every_key_of_a_service_stands_in_its_own_list_of_the_reference() {
    let reference = include_str!("../../../docs/stack-file.md");
    let section = |name: &str| {
        let rest = reference.split_once(&format!("## {name}")).unwrap_or_else(|| panic!("no section {name}")).1;
        rest.split("\n## ").next().unwrap_or_default()
    };
    let (outside, not_yet) = section("Refused").split_once("does not run yet").expect("two lists");
    let names = |text: &str, key: &str| text.contains(&format!("`{key}`"));
    for (key, _) in keys::UNUSED {
        assert!(names(section("Rewritten"), key), "{key}");
    }
    for (key, _) in keys::REFUSED {
        assert!(names(outside, key), "{key}");
    }
    for (key, _) in keys::SERVICE.absent {
        assert!(names(not_yet, key), "{key}");
    }
    let other = |key: &&&str| keys::UNUSED.iter().chain(keys::REFUSED).all(|(listed, _)| listed != *key);
    for key in keys::SERVICE.known.iter().filter(other) {
        assert!(names(section("Honoured"), key) || names(section("Rewritten"), key), "{key}");
        assert!(!names(not_yet.split(';').next().unwrap_or_default(), key), "{key}");
    }
}
