//! Seeds and snapshots of Elasticsearch on a real node.

use std::fmt::Write as _;
use std::process::Command;

use serde_json::Value;
use tests::harness::condition::{SOON, eventually};
use tests::harness::real;

use super::stand::Stand;

const STACK: &str = "
name: finder
services:
  search:
    image: elasticsearch:6.8.23
    environment:
      ES_JAVA_OPTS: -Xms256m -Xmx256m -XX:TieredStopAtLevel=1
      xpack.security.enabled: \"false\"
      xpack.watcher.enabled: \"false\"
      xpack.monitoring.enabled: \"false\"
      xpack.graph.enabled: \"false\"
      path.repo: /usr/share/elasticsearch/data/repository
    ports: [\"9200:9200\"]
    volumes: [\"data:/usr/share/elasticsearch/data\"]
volumes: { data: }
";
const PEOPLE: u64 = 300;

fn call(stand: &Stand, environment: &str, method: &str, path: &str, body: &str) -> Result<Value, String> {
    let url = format!("{}{path}", stand.variable(environment, "search", "SEARCH_URL"));
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--fail-with-body", "--max-time", "60", "-X", method, "-H", "content-type: application/json"]);
    if !body.is_empty() {
        curl.args(["--data-binary", body]);
    }
    let done = curl.arg(url).output().map_err(|why| why.to_string())?;
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    if !done.status.success() {
        return Err(format!("{said}{}", String::from_utf8_lossy(&done.stderr)));
    }
    serde_json::from_str(&said).map_err(|why| format!("{why}: {said}"))
}

fn hits(stand: &Stand, environment: &str, index: &str, query: &str) -> u64 {
    let found = call(stand, environment, "GET", &format!("/{index}/_search?size=0&q={query}"), "").expect("an answer");
    found["hits"]["total"].as_u64().expect("a number")
}

#[test]
fn a_masked_index_is_cloned_searched_and_reset() {
    let Some(_turn) = real::turn() else { return };
    let stand = Stand::open(STACK);
    let mut bulk = String::new();
    for id in 1..=PEOPLE {
        writeln!(
            bulk,
            "{{\"index\":{{\"_index\":\"people\",\"_type\":\"_doc\",\"_id\":\"{id}\"}}}}\n\
             {{\"number\":{id},\"email\":\"person{id}@customer.example\",\"town\":\"Pune\"}}"
        )
        .expect("a string");
    }
    bulk.push_str(
        "{\"index\":{\"_index\":\"towns\",\"_type\":\"_doc\",\"_id\":\"pune\"}}\n{\"state\":\"Maharashtra\"}\n",
    );
    stand.file("people.ndjson", bulk);
    let mask = "{\"index\":\"people\"}\n{\"script\":{\"source\":\"ctx._source.email = 'user' + ctx._source.number + '@test'\"}}\n";
    stand.file("mask.ndjson", mask);
    stand.file("canaries.txt", "person77@customer.example\nperson299@customer.example\n");
    // Compressed in the files, and found all the same.
    let words = ["seed", "import", "staging", "search=people.ndjson", "--canaries", "canaries.txt"];
    let said = stand.muster(&words).run().with_code(1).says("E_SEED_CANARY");
    assert!(!said.all().contains("person77"), "{}", said.all());
    stand.muster(&[words.as_slice(), &["--mask", "search=mask.ndjson"]].concat()).ok();

    let printed = stand.muster(&["env", "up", "--from", "staging", "--name", "one"]).ok();
    assert!(printed.all().contains("cloned") && printed.all().contains("single node"), "{}", printed.all());
    assert_eq!(hits(&stand, "one", "people", "email:person77"), 0);
    assert_eq!(hits(&stand, "one", "people", "email:user77"), 1);
    assert_eq!(hits(&stand, "one", "people", "town:pune"), PEOPLE);
    let document = call(&stand, "one", "GET", "/people/_doc/77", "").expect("it is there");
    assert_eq!(document["_source"]["email"], "user77@test");

    // What changed since is told by index and id; the copy that it is compared with is gone afterwards.
    let before = stand.host.objects();
    call(&stand, "one", "DELETE", "/people/_doc/5", "").expect("deleted");
    call(&stand, "one", "POST", "/people/_doc/7/_update", "{\"doc\":{\"town\":\"Delhi\"}}").expect("updated");
    call(&stand, "one", "PUT", "/people/_doc/new?routing=far", "{\"town\":\"Delhi\"}").expect("written");
    call(&stand, "one", "PUT", "/orders/_doc/1", "{\"of\":7}").expect("written");
    let told = stand.muster(&["env", "diff", "--data", "one", "--rows", "1", "--values"]).ok();
    let lines: Vec<String> =
        told.stdout.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    for line in [
        "orders new, 1 documents",
        "people +1 -1 ~1",
        "~ 7 {\"town\":\"Pune\"} -> {\"town\":\"Delhi\"}",
        "+ new routing=far {\"town\":\"Delhi\"}",
        "- 5 {\"email\":\"user5@test\",\"number\":5,\"town\":\"Pune\"}",
    ] {
        assert!(lines.iter().any(|one| one == line), "{line}: {lines:#?}");
    }
    assert!(told.all().contains("2 differ, 1 are the same"), "{lines:#?}");
    eventually(SOON, "the copy of the seed is gone", || {
        let now = stand.host.objects();
        if now == before { Ok(()) } else { Err(format!("{now:?}, and before {before:?}")) }
    });

    let url = stand.variable("one", "search", "SEARCH_URL");
    call(&stand, "one", "DELETE", "/people", "").expect("deleted");
    stand.muster(&["env", "reset", "one"]).ok();
    assert_eq!(stand.variable("one", "search", "SEARCH_URL"), url);
    assert_eq!(hits(&stand, "one", "people", "town:pune"), PEOPLE);
}

#[test]
fn a_running_node_is_copied_at_one_instant_and_a_repository_of_snapshots_becomes_a_seed() {
    let Some(_turn) = real::turn() else { return };
    let stand = Stand::open(STACK);
    stand.muster(&["env", "up", "--name", "one"]).ok();
    let url = stand.variable("one", "search", "SEARCH_URL");
    let script = "n=0; while [ ! -e stop ]; do n=$((n+1)); curl -sf -XPUT -H content-type:application/json \"$0/writes/_doc/$n\" -d \"{\\\"n\\\":$n}\" >/dev/null; done";
    let mut writer =
        Command::new("sh").args(["-c", script, &url]).current_dir(&stand.folder).spawn().expect("a writer");
    let written = |name: &str| {
        call(&stand, name, "POST", "/writes/_refresh", "")?;
        call(&stand, name, "GET", "/writes/_search?size=0", "{\"aggs\":{\"last\":{\"max\":{\"field\":\"n\"}}}}")
    };
    eventually(SOON, "it writes", || {
        let total = written("one")?["hits"]["total"].as_u64().unwrap_or(0);
        if total > 20 { Ok(()) } else { Err(total.to_string()) }
    });
    stand.muster(&["env", "snapshot", "bug", "one"]).ok();
    std::fs::write(stand.folder.join("stop"), "").expect("stop");
    writer.wait().expect("it ends");
    let location = "{\"type\":\"fs\",\"settings\":{\"location\":\"/usr/share/elasticsearch/data/repository\"}}";
    call(&stand, "one", "PUT", "/_snapshot/backup", location).expect("made");
    let total = written("one").expect("counted")["hits"]["total"].as_u64().expect("a number");
    call(&stand, "one", "PUT", "/_snapshot/backup/first?wait_for_completion=true", "").expect("made");
    let archive = std::fs::File::create(stand.folder.join("repository.tar")).expect("a file");
    let from = format!("{}:/usr/share/elasticsearch/data/repository", stand.container("one", "search"));
    assert!(Command::new("docker").args(["cp", &from, "-"]).stdout(archive).status().expect("docker runs").success());
    stand.muster(&["env", "down", "one"]).ok();

    // Every acknowledged write before the instant is there, and none after it.
    stand.muster(&["env", "up", "--from", "asha/bug", "--name", "copy"]).ok();
    let copied = written("copy").expect("counted");
    let (count, last) = (copied["hits"]["total"].as_u64(), copied["aggregations"]["last"]["value"].as_f64());
    assert!(count.is_some_and(|count| count > 20 && count <= total), "{copied}");
    assert_eq!(count.map(|count| count as f64), last, "no hole");
    stand.muster(&["env", "down", "copy"]).ok();

    stand.muster(&["seed", "import", "backup", "search=repository.tar"]).ok();
    stand.muster(&["env", "up", "--from", "backup", "--name", "restored"]).ok();
    assert_eq!(written("restored").expect("counted")["hits"]["total"].as_u64(), Some(total));
    let repositories = call(&stand, "restored", "GET", "/_snapshot", "").expect("an answer");
    assert_eq!(repositories, serde_json::json!({}), "it does not know where it came from");
}
