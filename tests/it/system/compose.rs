//! What a stack file says, seen from inside its containers.

use serde_json::Value;
use tests::harness::cluster::Cluster;
use tests::harness::real;

const BASE: &str = r#"
include: [store/compose.yaml]
services:
  web:
    image: redis:7
    x-muster: { kind: none }
    command: [sleep, "600"]
    environment: { FROM: base, KEPT: "yes" }
    depends_on: { store: { condition: service_healthy } }
    secrets: [token, { source: key, target: key.pem, mode: 0440 }]
    configs: [{ source: motd, target: /etc/motd }]
    ulimits: { nofile: 4321 }
    pids_limit: 99
    cap_drop: [ALL]
    cap_add: [CHOWN]
    security_opt: ["no-new-privileges:true"]
    sysctls: { net.core.somaxconn: 321 }
    extra_hosts: ["elsewhere.example:192.0.2.7"]
  tool: { image: "redis:7", x-muster: { kind: none }, command: [sleep, "600"], profiles: [ops] }
  never: { image: "redis:7", privileged: true, profiles: [danger] }
secrets:
  token: { environment: COMPOSE_TEST_TOKEN }
  key: { file: ./key.pem }
configs:
  motd: { content: "welcome $$you" }
"#;

const STORE: &str = r#"
services:
  store:
    image: redis:7
    networks: { default: { aliases: [cache] } }
    healthcheck: { test: [CMD, redis-cli, ping], interval: 1s }
"#;

const OVER: &str = "services: { web: { environment: [FROM=over] } }\n";

fn short(environment: &Value) -> String {
    let id: String = environment["id"].as_str().unwrap_or_default().chars().filter(|c| *c != '-').collect();
    id.get(id.len().saturating_sub(12)..).unwrap_or_default().to_owned()
}

#[test]
fn files_secrets_limits_and_names_of_a_stack_are_seen_inside() {
    let Some(_turn) = real::aside() else { return };
    let cluster = Cluster::start();
    let host = cluster.host("box-asha").label("owner", "asha").label("env", "dev").join();
    let folder = cluster.folder().join("stack");
    std::fs::create_dir_all(folder.join("store")).expect("a folder");
    for (name, text) in [("compose.yaml", BASE), ("over.yaml", OVER), ("store/compose.yaml", STORE), ("key.pem", "k\n")]
    {
        std::fs::write(folder.join(name), text).expect("a file");
    }
    let up = || {
        cluster
            .muster(&["env", "up", "-f", "compose.yaml", "-f", "over.yaml", "--profile", "ops"])
            .by("asha")
            .within(&folder)
            .env("MUSTER_AGENT_SOCKET", host.socket())
            .env("COMPOSE_TEST_TOKEN", "t0ken-of-the-test")
            .ok()
    };
    up();
    let shown = cluster.muster(&["env", "show", "stack"]).by("asha").json();
    let names: Vec<&str> =
        shown["services"].as_array().expect("services").iter().filter_map(|one| one["name"].as_str()).collect();
    assert_eq!(names, ["store", "tool", "web"]);

    let web = format!("muster-{}-web", short(&shown));
    let inside = |words: &[&str]| host.engine.run(&[&["exec", web.as_str()], words].concat()).trim().to_owned();
    assert_eq!(
        inside(&["cat", "/run/secrets/token", "/run/secrets/key.pem", "/etc/motd"]),
        "t0ken-of-the-testk\nwelcome $you"
    );
    assert_eq!(inside(&["stat", "-c", "%a", "/run/secrets/token", "/run/secrets/key.pem"]), "444\n440");
    assert_eq!(inside(&["sh", "-c", "echo x > /run/secrets/token && echo written || echo kept"]), "kept");
    assert_eq!(
        inside(&["sh", "-c", "echo $FROM $KEPT; ulimit -n; cat /proc/sys/net/core/somaxconn"]),
        "over yes\n4321\n321"
    );
    assert_eq!(inside(&["getent", "hosts", "elsewhere.example"]).split_whitespace().next(), Some("192.0.2.7"));
    assert_eq!(inside(&["redis-cli", "-h", "cache", "ping"]), "PONG");
    let made = host.engine.inspect(&web);
    assert_eq!(made["HostConfig"]["PidsLimit"], 99);
    assert_eq!(made["HostConfig"]["SecurityOpt"][0], "no-new-privileges");
    assert!(!made.to_string().contains("t0ken-of-the-test"), "the engine is not told what a secret holds");

    // The same again changes nothing; another content makes the container anew.
    let before = host.engine.fingerprint(&host.label());
    up();
    assert_eq!(host.engine.fingerprint(&host.label()), before);
    std::fs::write(folder.join("key.pem"), "k2\n").expect("a file");
    up();
    assert_eq!(inside(&["cat", "/run/secrets/key.pem"]), "k2");

    cluster.muster(&["env", "down", "stack"]).by("asha").ok();
    assert_eq!(host.objects(), Vec::<String>::new());
}
