//! Limits: what a developer may hold, and what an environment may use in all.

use tests::harness::cluster::{Cluster, Options};
use tests::harness::condition::{SOON, eventually};
use tests::harness::real;

use super::stand::Stand;

const STACK: &str = "
name: shop
x-muster: { idle: { freeze: 8s, stop: never } }
services:
  redis:
    image: redis:7
    mem_limit: 200m
    ports: [\"6379:6379\"]
";
/// Room for one environment that uses its memory, and for two that do not.
const SETTINGS: &str = "quota.environments_per_developer = 2\nquota.memory_bytes_per_developer = 250000000\n";

#[test]
fn who_holds_as_much_as_a_developer_may_is_told_what_and_how_to_give_it_back() {
    let Some(_turn) = real::turn() else { return };
    let cluster = Cluster::with(&Options { settings: SETTINGS, ..Options::default() });
    let stand = Stand::within(cluster, STACK);
    let up = |name: &str| stand.muster(&["env", "up", "--name", name]);
    let events = || stand.muster(&["events", "--since", "10m"]).ok().stdout.matches("environment.ready").count();
    up("one").ok();

    // 80 MB in use, as its host tells, and 200 MiB that the next one declares: more than there may be.
    stand.exec("one", "redis", &["redis-cli", "setrange", "large", "80000000", "x"]).with_code(0);
    eventually(SOON, "its memory is known", || {
        let shown = stand.show("one");
        let bytes = shown["memory_bytes"].as_u64().unwrap_or(0);
        if bytes > 80_000_000 { Ok(()) } else { Err(shown.to_string()) }
    });
    let ready = events();
    let refused = up("two").run();
    assert_ne!(refused.code, 0, "{}", refused.all());
    let refused = refused.says("E_QUOTA_MEMORY").says("of 250.0 MB of memory, and 209.7 MB more would be needed");
    refused.says("muster env list").says("muster env down");
    assert_eq!(events(), ready, "nothing was begun");
    assert!(!stand.muster(&["env", "list"]).ok().stdout.contains("two"));
    stand.muster(&["env", "down", "one"]).ok();
    up("two").ok();

    up("three").ok();
    let refused = up("four").run();
    assert_ne!(refused.code, 0, "{}", refused.all());
    refused.says("E_QUOTA_ENVIRONMENTS").says("you hold 2 of 2 environments").says("muster env down");
    // What is there is no new one.
    up("three").ok();
    stand.muster(&["env", "down", "three"]).ok();
    up("four").ok();
    for name in ["two", "four"] {
        stand.muster(&["env", "down", name]).ok();
    }
    assert_eq!(stand.host.objects(), Vec::<String>::new());
}

const TOGETHER: &str = "
name: shop
x-muster: { quota: { cpu: 1.5, memory: 160m }, idle: never }
services:
  one: { image: \"redis:7\", cpus: 4, mem_limit: 100m }
  two: { image: \"redis:7\", cpus: 1, mem_limit: 150m }
";

#[test]
fn containers_of_an_environment_have_the_quota_of_their_stack_together() {
    let Some(_turn) = real::turn() else { return };
    let stand = Stand::open(TOGETHER);
    stand.muster(&["env", "up", "--name", "one"]).ok();
    let group = |service: &str| stand.host.engine.cgroup(&stand.container("one", service), "memory");
    let (one, two) = (group("one"), group("two"));
    let common = one.parent().expect("a group above").to_owned();
    assert_eq!(two.parent(), Some(common.as_path()), "both are in the same");
    let read = |name: &str| std::fs::read_to_string(common.join(name)).map(|text| text.trim().to_owned());
    let limit = || read("memory.max").or_else(|_| read("memory.limit_in_bytes")).expect("a limit");
    assert_eq!(limit(), (160_u64 << 20).to_string());

    // Another quota holds at once, and without one nothing does.
    stand.file("compose.yaml", TOGETHER.replace("160m", "200m"));
    stand.muster(&["env", "up", "--name", "one"]).ok();
    assert_eq!(limit(), (200_u64 << 20).to_string());
    stand.muster(&["env", "down", "one"]).ok();
    assert!(!common.exists(), "{} stays", common.display());
    assert_eq!(stand.host.objects(), Vec::<String>::new());
}
