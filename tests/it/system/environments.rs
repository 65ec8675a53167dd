//! `muster env` on the example's unchanged compose.yaml.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tests::harness::cluster::{Cluster, request};
use tests::harness::condition::{SOON, eventually};
use tests::harness::example::Example;
use tests::harness::host::Host;
use tests::harness::real;
use tests::harness::sql::query;

fn box_of_asha(cluster: &Cluster) -> Host {
    cluster.host("box-asha").label("owner", "asha").label("env", "dev").join()
}

fn up(cluster: &Cluster, host: &Host, folder: &Path, by: &str) -> String {
    cluster.muster(&["env", "up"]).by(by).within(folder).env("MUSTER_AGENT_SOCKET", host.socket()).ok().stdout
}

fn show(cluster: &Cluster, folder: &Path, by: &str) -> Value {
    cluster.muster(&["env", "show"]).by(by).within(folder).json()
}

fn service<'a>(environment: &'a Value, name: &str) -> &'a Value {
    let services = environment["services"].as_array().expect("services");
    services.iter().find(|service| service["name"] == name).expect("that service")
}

fn say(address: &str, text: &str) -> Result<(u16, String), String> {
    let body = format!("{{\"user\":\"asha\",\"text\":\"{text}\"}}");
    request(
        address,
        &format!(
            "POST /messages HTTP/1.1\r\nhost: bot\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        ),
    )
}

#[test]
fn an_environment_comes_up_is_adopted_and_goes_without_a_trace() {
    let Some(_turn) = real::turn() else { return };
    let cluster = Cluster::start();
    let mut host = box_of_asha(&cluster);
    let folder = Example::get().checkout("v1", cluster.folder());
    let printed = up(&cluster, &host, &folder, "asha");
    assert!(printed.contains("ready in"), "{printed}");

    // Its stores are reached through published addresses with credentials of its own.
    let environment = show(&cluster, &folder, "asha");
    let url = service(&environment, "postgres")["variables"]["POSTGRES_URL"].as_str().expect("a URL").to_owned();
    assert!(!url.contains("bot:bot@"), "the password is random");
    assert_eq!(query(&url, "select 6 * 7").as_deref(), Ok("42"));
    let web = service(&environment, "web")["addresses"]["8000"].as_str().expect("an address").to_owned();
    let (status, body) = say(&web, "it works").expect("an answer");
    assert_eq!(status, 200, "{body}");
    assert!(body.contains("you said: it works"), "{body}");

    // A changed line of the mounted source is served after the app's own reload.
    let replies = folder.join("src/bot/replies.py");
    let text = std::fs::read_to_string(&replies).expect("replies.py");
    std::fs::write(&replies, text.replace("you said: ", "edited: ")).expect("replies.py");
    eventually(SOON, "the edited line is served", || {
        let (_, body) = say(&web, "it works")?;
        if body.contains("edited: it works") { Ok(()) } else { Err(body) }
    });

    // A second `up` of the same changes nothing.
    let before = host.engine.fingerprint(&host.label());
    up(&cluster, &host, &folder, "asha");
    assert_eq!(show(&cluster, &folder, "asha")["id"], environment["id"]);
    assert_eq!(host.engine.fingerprint(&host.label()), before);

    // An agent that was killed adopts what it finds, twice.
    for _ in 0..2 {
        host.crash(&cluster);
        eventually(SOON, "it is ready", || {
            let shown = show(&cluster, &folder, "asha");
            if shown["state"] == "ENVIRONMENT_STATE_READY" { Ok(()) } else { Err(shown.to_string()) }
        });
        assert_eq!(host.engine.fingerprint(&host.label()), before);
    }
    let (status, _) = say(&web, "again").expect("an answer");
    assert_eq!(status, 200);

    cluster.muster(&["env", "down"]).by("asha").within(&folder).ok();
    assert_eq!(host.objects(), Vec::<String>::new());
    assert!(std::net::TcpStream::connect(&web).is_err(), "its port is closed");
    let pool = std::fs::read_dir(host.folder().join("state/pool/environments"))
        .map(|entries| entries.flatten().count())
        .unwrap_or(0);
    assert_eq!(pool, 0, "its data is gone");
}

#[test]
fn environments_of_two_people_on_one_host_do_not_reach_each_other() {
    let Some(_turn) = real::turn() else { return };
    let cluster = Cluster::start();
    let host = box_of_asha(&cluster);
    let folder = Example::get().checkout("v1", cluster.folder());
    up(&cluster, &host, &folder, "asha");
    up(&cluster, &host, &folder, "ben");
    let (one, two) = (show(&cluster, &folder, "asha"), show(&cluster, &folder, "ben"));
    assert_ne!(one["id"], two["id"]);
    let password = |environment: &Value| service(environment, "postgres")["variables"]["POSTGRES_PASSWORD"].clone();
    assert_ne!(password(&one), password(&two));

    // Nobody sees another's credentials.
    let id = one["id"].as_str().unwrap_or_default();
    let foreign = cluster.muster(&["env", "show", id]).by("ben").run();
    let secret = password(&one).as_str().unwrap_or("?").to_owned();
    assert!(!foreign.all().contains(&secret), "{}", foreign.all());
    cluster.muster(&["env", "down", id]).by("ben").code(5);

    // From one's web container to the other's PostgreSQL, by its address on its own bridge.
    let short = |environment: &Value| {
        let id: String = environment["id"].as_str().unwrap_or_default().chars().filter(|c| *c != '-').collect();
        id.get(id.len() - 12..).unwrap_or_default().to_owned()
    };
    let postgres = host.engine.inspect(&format!("muster-{}-postgres", short(&one)));
    let networks = postgres["NetworkSettings"]["Networks"].as_object().expect("networks");
    let addresses: Vec<String> =
        networks.values().filter_map(|network| network["IPAddress"].as_str()).map(str::to_owned).collect();
    assert!(!addresses.is_empty());
    let connect = "import socket, sys\nfor a in sys.argv[1:]:\n try: socket.create_connection((a, 5432), 2); print('open', a)\n except OSError: print('closed', a)";
    let mut arguments = vec![
        "exec".to_owned(),
        format!("muster-{}-web", short(&two)),
        "python".to_owned(),
        "-c".to_owned(),
        connect.to_owned(),
    ];
    arguments.extend(addresses);
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let told = host.engine.run(&words);
    assert!(!told.contains("open") && told.contains("closed"), "{told}");
}

const DYING: &str = r#"services:
  redis:
    image: redis:7
    command: ["redis-server", "--port", "not-a-port"]
    healthcheck: { test: ["CMD", "redis-cli", "ping"] }
  web:
    image: redis:7
    depends_on: { redis: { condition: service_healthy } }
"#;

#[test]
fn a_dependency_that_exits_is_told_at_once_with_its_last_lines() {
    let Some(_turn) = real::turn() else { return };
    let cluster = Cluster::start();
    let host = box_of_asha(&cluster);
    let folder = cluster.folder().join("dying");
    std::fs::create_dir(&folder).expect("a folder");
    std::fs::write(folder.join("compose.yaml"), DYING).expect("a stack file");
    let failed = cluster
        .muster(&["env", "up", "--host", "box-asha"])
        .by("asha")
        .within(&folder)
        .env("MUSTER_AGENT_SOCKET", host.socket())
        .code(1)
        .says("E_ENV_DEPENDENCY_EXITED")
        .says("port");
    assert!(failed.took < Duration::from_secs(15), "after {:?}", failed.took);
    cluster.muster(&["env", "down", "dying"]).by("asha").ok();
    assert_eq!(host.objects(), Vec::<String>::new());
}

#[test]
fn a_stack_that_reaches_outside_is_refused_with_file_and_line_and_changes_nothing() {
    let Some(_turn) = real::turn() else { return };
    let cluster = Cluster::start();
    let host = box_of_asha(&cluster);
    let folder = cluster.folder().join("bad");
    std::fs::create_dir(&folder).expect("a folder");
    std::fs::write(folder.join("compose.yaml"), "services:\n  web:\n    image: redis:7\n    privileged: true\n")
        .expect("a file");
    cluster
        .muster(&["env", "up"])
        .by("asha")
        .within(&folder)
        .env("MUSTER_AGENT_SOCKET", host.socket())
        .code(2)
        .says("E_STACK_REFUSED")
        .says("compose.yaml:4:");
    let list = cluster.muster(&["env", "list", "--all"]).json();
    assert_eq!(list["environments"].as_array().map_or(0, Vec::len), 0);
    assert_eq!(host.objects(), Vec::<String>::new());
}
