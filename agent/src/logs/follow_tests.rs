//! Following logs of environments that the real agent code makes on an engine in memory.

use std::path::Path;

use domain::environment::EnvironmentState;

use super::follow::{Ask, Reader};
use super::*;
use crate::engine::Engine as _;
use crate::engine::fake::{Behaviour, Fake, Fault, Op};
use crate::environments::Environments;
use crate::environments::tests::{ID, order_of};
use crate::host::Host;
use crate::host::tests::host;
use domain::log::Place;

const WEB: &str = "muster-0123456789ab-web";
const WORKER: &str = "muster-0123456789ab-worker";
const STACK: &str = "
services:
  web: { image: \"web:1\" }
  worker: { image: \"worker:1\" }
";

struct Stand {
    fake: Arc<Fake>,
    host: Arc<Host>,
    environments: Environments,
    _folder: tempfile::TempDir,
}

fn order(generation: u64) -> v1::EnvironmentOrder {
    order_of(STACK, generation)
}

/// The environment's `web` says `web began` whenever it is started.
impl Stand {
    async fn new() -> Self {
        let fake = Arc::new(Fake::new());
        fake.behave("web:1", Behaviour { says: vec!["web began".to_owned()], ..Behaviour::default() });
        let (host, folder) = host(Arc::clone(&fake), Path::new("/nowhere")).await;
        let environments = Environments::new(Arc::clone(&host));
        fake.subscribed(&host.id).await;
        Self { fake, host, environments, _folder: folder }
    }

    async fn ready() -> Self {
        let stand = Self::new().await;
        stand.reaches(order(1)).await;
        stand
    }

    /// Orders this, and waits until it is so.
    async fn reaches(&self, order: v1::EnvironmentOrder) {
        let generation = order.generation;
        self.environments.order(order).await;
        let mut view = self.environments.watch(ID).expect("known");
        let ready = view.wait_for(|view| {
            view.observed.state == EnvironmentState::Ready && view.observed.generation.0 == generation
        });
        soon(ready).await.expect("not ended");
    }

    async fn open(&self, ask: Ask) -> Result<Reader, (&'static str, String)> {
        Reader::open(Arc::clone(&self.host), &self.environments, Ask { environment: ID.to_owned(), ..ask }).await
    }

    async fn follow(&self, ask: Ask) -> Reader {
        self.open(Ask { follow: true, ..ask }).await.expect("something to follow")
    }
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(std::time::Duration::from_secs(20), what).await.expect("in time")
}

/// Lines up to this one, in the order of their services; and up to where everything was given.
async fn until(reader: &mut Reader, last: &str) -> (Vec<String>, BTreeMap<String, Place>) {
    let (mut lines, mut places) = (Vec::new(), BTreeMap::<String, Place>::new());
    while lines.last().is_none_or(|line| line != last) {
        let chunk = soon(reader.next()).await.expect("not over");
        places.entry(chunk.source.clone()).or_default().pass(chunk.error, chunk.at);
        lines.extend(std::str::from_utf8(&chunk.data).expect("text").split_inclusive('\n').map(str::to_owned));
    }
    (lines, places)
}

async fn rest(reader: &mut Reader) -> Vec<String> {
    let mut lines = Vec::new();
    while let Some(chunk) = soon(reader.next()).await {
        lines.extend(std::str::from_utf8(&chunk.data).expect("text").split_inclusive('\n').map(str::to_owned));
    }
    lines
}

fn web() -> Ask {
    Ask { service: "web".to_owned(), ..Ask::default() }
}

#[tokio::test]
async fn a_service_is_followed_over_a_restart_and_a_container_made_anew_until_nothing_is_left() {
    let stand = Stand::ready().await;
    let mut reader = stand.follow(web()).await;
    assert_eq!(until(&mut reader, "web began\n").await.0, ["web began\n"]);
    stand.fake.say(WEB, false, "one\n");
    assert_eq!(until(&mut reader, "one\n").await.0, ["one\n"]);

    stand.fake.say(WEB, true, "unfinished");
    stand.reaches(v1::EnvironmentOrder { restarts: [("web".to_owned(), 2)].into(), ..order(2) }).await;
    assert_eq!(stand.fake.starts(WEB), 2);
    stand.fake.say(WEB, false, "two\n");
    assert_eq!(until(&mut reader, "two\n").await.0, ["unfinished\n", "web began\n", "two\n"]);

    let before = stand.fake.ids();
    let changed = STACK.replace("\"web:1\"", "\"web:1\", command: [serve]");
    stand.reaches(v1::EnvironmentOrder { stack_file: changed, ..order(3) }).await;
    assert_ne!(stand.fake.ids(), before);
    stand.fake.say(WEB, false, "three\n");
    assert_eq!(until(&mut reader, "three\n").await.0, ["web began\n", "three\n"]);

    stand.environments.order(v1::EnvironmentOrder { up: false, ..order(4) }).await;
    assert_eq!(rest(&mut reader).await, [""; 0]);
}

#[tokio::test]
async fn a_service_that_ends_by_itself_is_read_once_for_each_start() {
    let stand = Stand::new().await;
    let says = vec!["migrated".to_owned()];
    stand.fake.behave("worker:1", Behaviour { exits: Some(0), says, ..Behaviour::default() });
    let stack =
        STACK.replace("web: {", "web: { depends_on: { worker: { condition: service_completed_successfully } },");
    let order = |generation| v1::EnvironmentOrder { stack_file: stack.clone(), ..order(generation) };
    stand.reaches(order(1)).await;
    let mut reader = stand.follow(Ask { service: "worker".to_owned(), ..Ask::default() }).await;
    assert_eq!(until(&mut reader, "migrated\n").await.0, ["migrated\n"]);
    let id = stand.fake.inspect(WORKER).await.expect("an answer").expect("made").id;
    stand.fake.start(&id).await.expect("started");
    assert_eq!(until(&mut reader, "migrated\n").await.0, ["migrated\n"]);
    stand.environments.order(v1::EnvironmentOrder { up: false, ..order(2) }).await;
    assert_eq!(rest(&mut reader).await, [""; 0]);
}

#[tokio::test]
async fn who_comes_back_gets_what_it_lacks_of_each_service_and_output() {
    let stand = Stand::ready().await;
    for line in ["one\n", "two\n"] {
        stand.fake.say(WEB, false, line);
        stand.fake.say(WEB, true, &format!("error {line}"));
    }
    stand.fake.say(WORKER, false, "works\n");
    // Its services are read beside each other: of `worker` it may have nothing yet.
    let mut reader = stand.follow(web()).await;
    let (_, since) = until(&mut reader, "error two\n").await;
    drop(reader);
    stand.fake.say(WEB, true, "error three\n");
    stand.fake.say(WEB, false, "three\n");
    let mut reader = stand.follow(Ask { since, ..Ask::default() }).await;
    let mut lines = Vec::new();
    while lines.len() < 3 {
        let chunk = soon(reader.next()).await.expect("not over");
        lines.push(format!("{}: {}", chunk.source, std::str::from_utf8(&chunk.data).expect("text")));
    }
    lines.sort();
    assert_eq!(lines, ["web: error three\n", "web: three\n", "worker: works\n"]);
}

#[tokio::test]
async fn the_last_lines_are_for_the_beginning_only_also_where_there_were_none() {
    let stand = Stand::ready().await;
    for line in ["one\n", "two\n", "three\n"] {
        stand.fake.say(WEB, false, line);
    }
    let mut reader = stand.follow(Ask { tail: Some(2), ..Ask::default() }).await;
    let mut places = BTreeMap::<String, Place>::new();
    let mut lines = Vec::new();
    let both = |places: &BTreeMap<String, Place>| {
        places.len() == 2 && places.values().all(|place| place.out != 0 && place.error != 0)
    };
    while !both(&places) {
        let chunk = soon(reader.next()).await.expect("not over");
        places.entry(chunk.source.clone()).or_default().pass(chunk.error, chunk.at);
        lines.push(String::from_utf8(chunk.data.to_vec()).expect("text"));
    }
    assert_eq!(lines.concat(), "two\nthree\n");
    drop(reader);
    for line in 0..5 {
        stand.fake.say(WORKER, true, &format!("{line}\n"));
    }
    let mut reader = stand.follow(Ask { since: places, ..Ask::default() }).await;
    assert_eq!(until(&mut reader, "4\n").await.0.concat(), "0\n1\n2\n3\n4\n");
}

#[tokio::test]
async fn an_engine_that_breaks_off_is_asked_again_for_what_is_missing_and_for_a_torn_line_whole() {
    let stand = Stand::ready().await;
    let mut reader = stand.follow(web()).await;
    stand.fake.say(WEB, false, "one\n");
    stand.fake.say(WEB, false, "a torn ");
    assert_eq!(until(&mut reader, "one\n").await.0, ["web began\n", "one\n"]);
    stand.fake.fail(Op::Log, Fault::Away);
    stand.fake.fail(Op::Look, Fault::Away);
    stand.fake.say(WEB, false, "line\n");
    stand.fake.say(WEB, false, "two\n");
    assert_eq!(until(&mut reader, "two\n").await.0, ["a torn line\n", "two\n"]);
}

#[tokio::test]
async fn a_service_that_has_not_begun_is_waited_for_and_one_that_does_not_exist_is_told() {
    let stand = Stand::new().await;
    let refused = |opened: Result<Reader, (&'static str, String)>| opened.err().map(|(code, _)| code);
    assert_eq!(refused(stand.open(Ask { follow: true, ..web() }).await), Some("E_LOGS_NONE"));
    stand.fake.delay(Op::Create, std::time::Duration::from_millis(200));
    stand.environments.order(order(1)).await;
    let none = Ask { service: "wbe".to_owned(), follow: true, ..Ask::default() };
    assert_eq!(refused(stand.open(none).await), Some("E_LOGS_NONE"));
    let mut reader = stand.follow(web()).await;
    assert_eq!(until(&mut reader, "web began\n").await.0, ["web began\n"]);
}

#[tokio::test]
async fn without_following_it_ends_with_what_there_is_as_it_is() {
    let stand = Stand::ready().await;
    stand.fake.say(WEB, false, "one\n");
    stand.fake.say(WEB, false, "no end");
    let mut reader = stand.open(Ask { tail: Some(2), ..web() }).await.expect("a log");
    assert_eq!(rest(&mut reader).await, ["one\n", "no end"]);
}
