//! The life of an environment: it sleeps when nobody uses it, and wakes when somebody does.

use std::path::PathBuf;
use std::time::Instant;

use serde_json::Value;
use tests::harness::cluster::Cluster;
use tests::harness::condition::{SOON, eventually};
use tests::harness::host::Host;
use tests::harness::real;
use tests::harness::sql::query;

use super::stand::POSTGRES_AND_REDIS;

/// An environment `life` of asha's whose stack has this `idle`.
struct Life {
    cluster: Cluster,
    host: Host,
    folder: PathBuf,
}

impl Life {
    fn up(idle: &str) -> Self {
        let cluster = Cluster::start();
        let host = cluster.host("box-asha").label("owner", "asha").label("env", "dev").join();
        let folder = cluster.folder().join("life");
        std::fs::create_dir(&folder).expect("a folder");
        std::fs::write(folder.join("compose.yaml"), format!("{POSTGRES_AND_REDIS}x-muster: {{ idle: {idle} }}\n"))
            .expect("a file");
        let life = Self { cluster, host, folder };
        life.muster(&["env", "up"]);
        life
    }

    fn muster(&self, words: &[&str]) -> String {
        let call = self.cluster.muster(words).by("asha").within(&self.folder);
        call.env("MUSTER_AGENT_SOCKET", self.host.socket()).ok().stdout
    }

    fn show(&self) -> Value {
        self.cluster.muster(&["env", "show"]).by("asha").within(&self.folder).json()
    }

    fn reaches(&self, state: &str) -> Value {
        let wanted = format!("ENVIRONMENT_STATE_{state}");
        eventually(SOON, &wanted, || {
            let shown = self.show();
            if shown["state"] == wanted { Ok(shown) } else { Err(shown.to_string()) }
        })
    }

    fn url(&self) -> String {
        let shown = self.show();
        let services = shown["services"].as_array().expect("services");
        let postgres = services.iter().find(|service| service["name"] == "postgres").expect("postgres");
        postgres["variables"]["POSTGRES_URL"].as_str().expect("a URL").to_owned()
    }

    fn started_at(&self, service: &str) -> String {
        let id: String = self.show()["id"].as_str().unwrap_or_default().chars().filter(|c| *c != '-').collect();
        let name = format!("muster-{}-{service}", id.get(id.len() - 12..).unwrap_or_default());
        self.host.engine.inspect(&name)["State"]["StartedAt"].as_str().unwrap_or_default().to_owned()
    }
}

#[test]
fn what_is_not_used_is_frozen_and_a_connection_thaws_it() {
    let Some(_turn) = real::turn() else { return };
    let life = Life::up("{ freeze: 500ms, stop: never }");
    let url = life.url();
    let frozen = life.reaches("FROZEN");
    assert!(frozen["why"].as_str().unwrap_or_default().contains("idle.freeze"), "{frozen}");
    let before = life.started_at("postgres");
    let began = Instant::now();
    assert_eq!(query(&url, "select 6 * 7").as_deref(), Ok("42"));
    println!("wake from frozen to the first row, with a psql's own start: {:?}", began.elapsed());
    life.reaches("FROZEN");
    assert_eq!(life.started_at("postgres"), before, "it was never stopped");

    // A killed agent finds it frozen, and still wakes it.
    let mut life = life;
    life.host.crash(&life.cluster);
    life.reaches("FROZEN");
    assert_eq!(query(&url, "select 1").as_deref(), Ok("1"));

    life.reaches("FROZEN");
    life.muster(&["env", "down"]);
    assert_eq!(life.host.objects(), Vec::<String>::new());
}

#[test]
fn fifty_connections_start_a_stopped_one_once_and_all_succeed() {
    let Some(_turn) = real::turn() else { return };
    let life = Life::up("{ freeze: never, stop: 2s }");
    let url = life.url();
    query(&url, "create table kept (n int); insert into kept values (7)").expect("written");
    life.reaches("ASLEEP");
    assert_eq!(life.host.running(), Vec::<String>::new());
    let events = || {
        let log = life.cluster.muster(&["events", "--since", "10m"]).ok().stdout;
        log.matches("environment.ready").count()
    };
    let ready = events();
    let began = Instant::now();
    let answers: Vec<_> = std::thread::scope(|scope| {
        let asking: Vec<_> = (0..50).map(|_| scope.spawn(|| query(&url, "select n from kept"))).collect();
        asking.into_iter().map(|one| one.join().expect("no panic")).collect()
    });
    println!("50 connections wait {:?} for a stopped environment", began.elapsed());
    for answer in answers {
        assert_eq!(answer.as_deref(), Ok("7"));
    }
    // It is told after the first query was answered: connections wait for a service, not for the news of it.
    life.reaches("READY");
    eventually(SOON, "the event of the start", || {
        if events() > ready { Ok(()) } else { Err(format!("{} events", events())) }
    });
    assert_eq!(events(), ready + 1, "one start");
    assert_eq!(life.url(), url, "port and credentials stay");

    // `env up` wakes it too.
    life.reaches("ASLEEP");
    let printed = life.muster(&["env", "up"]);
    assert!(printed.contains("ready in"), "{printed}");
    assert_eq!(query(&url, "select n from kept").as_deref(), Ok("7"));
    life.muster(&["env", "down"]);
    assert_eq!(life.host.objects(), Vec::<String>::new());
}

impl Life {
    /// A call whose standard input is `input`; its status, output and errors.
    fn fed(&self, words: &[&str], input: &str) -> (i32, String, String) {
        let file = self.folder.join("input");
        std::fs::write(&file, input).expect("a file");
        let call = self.cluster.muster(words).by("asha").within(&self.folder).reads(&file).run();
        (call.code, call.stdout, call.stderr)
    }
}

#[test]
fn commands_run_in_containers_and_ports_lead_there_from_elsewhere() {
    let Some(_turn) = real::turn() else { return };
    let life = Life::up("{ freeze: 1s, stop: never }");

    // Input, both outputs and the status; in an environment that may sleep at any time.
    let script = "read line; echo got $line; echo oops >&2; exit 7";
    let (status, out, errors) = life.fed(&["env", "exec", "redis", "--", "sh", "-c", script], "hello\n");
    assert_eq!((status, out.as_str()), (7, "got hello\n"), "{errors}");
    assert!(errors.contains("oops"), "{errors}");
    let megabyte = "0123456789abcdef\n".repeat(1 << 16);
    let (status, out, errors) = life.fed(&["env", "exec", "redis", "--", "cat"], &megabyte);
    assert!(status == 0 && out == megabyte, "{status} {} bytes, {errors}", out.len());
    life.reaches("FROZEN");
    let (status, out, errors) = life.fed(&["env", "exec", "redis", "--", "echo", "awake"], "");
    assert_eq!((status, out.as_str()), (0, "awake\n"), "{errors}");
    let (status, _, errors) = life.fed(&["env", "exec", "nothing", "--", "true"], "");
    assert!(status != 0 && errors.contains("E_ENV_SERVICE"), "{errors}");

    // Nobody else gets in, and the ledger has who did; arguments stay out of it.
    let id = life.show()["id"].as_str().unwrap_or_default().to_owned();
    life.cluster.muster(&["env", "exec", "-e", &id, "redis", "--", "true"]).by("ben").code(5);
    let events = life.cluster.muster(&["events", "--since", "10m"]).ok().stdout;
    assert!(events.contains("environment.exec") && !events.contains("got $line"), "{events}");

    // The right client, with the right password.
    let (status, out, errors) =
        life.fed(&["env", "connect", "postgres", "--", "-Atc", "select current_database()"], "");
    assert_eq!((status, out.as_str()), (0, "postgres\n"), "{errors}");
    let exported = life.muster(&["env", "export", "--format", "env"]);
    assert!(exported.contains("POSTGRES_URL=postgresql://"), "{exported}");

    // A port of this machine leads to the service, also through a sleep.
    let words = ["env", "forward", "postgres"];
    let mut forward = life.cluster.muster(&words).by("asha").within(&life.folder).begin();
    forward.printed("->");
    let line = forward.so_far();
    let at = line.split_whitespace().nth(1).expect("an address").to_owned();
    let published = life.url();
    let (before, rest) = published.split_once('@').expect("a login");
    let url = format!("{before}@{at}/{}", rest.split_once('/').expect("a database").1);
    assert_eq!(query(&url, "select 6 * 7").as_deref(), Ok("42"), "{line}");
    life.reaches("FROZEN");
    assert_eq!(query(&url, "select 6 * 7").as_deref(), Ok("42"));
    forward.kill();

    // A restart makes it begin anew, once.
    let before = life.started_at("redis");
    let untouched = life.started_at("postgres");
    life.muster(&["env", "restart", "redis"]);
    let after = life.started_at("redis");
    assert_ne!(before, after);
    assert_eq!(untouched, life.started_at("postgres"));
    let kept = life.muster(&["env", "keep", "--for", "30d"]);
    assert!(kept.contains("kept until"), "{kept}");
    let listed = life.muster(&["env", "list"]);
    assert!(listed.contains("IDLE") && listed.contains("WHY"), "{listed}");
    life.reaches("FROZEN");
    assert_eq!(life.started_at("redis"), after, "only once");
    life.muster(&["env", "down"]);
    assert_eq!(life.host.objects(), Vec::<String>::new());
}
