use std::sync::{Arc, Mutex};
use std::time::Duration;

use proto::v1::data_diff::Part;
use proto::v1::tunnel_frame::Frame;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::*;

/// An index: what the node calls it, its last operation, and its documents.
type Index = (String, i64, BTreeMap<String, Value>);

/// A node that answers as far as it is asked.
#[derive(Debug, Default)]
struct Script {
    indexes: BTreeMap<String, Index>,
    asked: Vec<String>,
    scrolls: BTreeMap<String, (Vec<Value>, usize)>,
}

impl Script {
    fn index<S: ToString>(mut self, name: &str, last: i64, documents: &[(S, Value)]) -> Self {
        let documents = documents.iter().map(|(id, source)| (id.to_string(), source.clone())).collect();
        self.indexes.insert(name.to_owned(), (format!("uuid-{name}"), last, documents));
        self
    }

    fn documents(&self, index: &str) -> &BTreeMap<String, Value> {
        &self.indexes[index].2
    }

    fn answer(&mut self, request: &str, body: &Value) -> Value {
        self.asked.push(request.to_owned());
        let path = request.split([' ', '?']).nth(1).unwrap_or_default();
        let mut parts = path.trim_start_matches('/').splitn(2, '/');
        let (index, what) = (parts.next().unwrap_or_default().replace("%25", "%"), parts.next().unwrap_or_default());
        let index = index.as_str();
        match (index, what) {
            ("_all", "_settings") => {
                let settings = |(uuid, _, _): &Index| json!({ "settings": { "index": { "uuid": uuid } } });
                self.indexes.iter().map(|(name, one)| (name.clone(), settings(one))).collect()
            }
            ("_search", "scroll") if request.starts_with("DELETE") => {
                self.scrolls.remove(body["scroll_id"][0].as_str().expect("an id"));
                json!({ "succeeded": true })
            }
            ("_search", "scroll") => self.page(body["scroll_id"].as_str().expect("an id").to_owned()),
            (index, "_search") => {
                let size = request.split("size=").nth(1).and_then(|rest| rest.split('&').next());
                let hits = self.documents(index).iter().map(|(id, source)| match body["_source"] == true {
                    true => json!({ "_id": id, "_source": source }),
                    false => json!({ "_id": id }),
                });
                let (hits, id) = (hits.collect(), format!("scroll-{}", self.asked.len()));
                self.scrolls.insert(id.clone(), (hits, size.expect("a size").parse().expect("a number")));
                self.page(id)
            }
            (index, "_mget") => {
                let one = |wanted: &Value| {
                    let source = self.documents(index).get(wanted["_id"].as_str().expect("an id"));
                    source.map_or(json!({ "found": false }), |source| json!({ "found": true, "_source": source }))
                };
                let docs: Vec<Value> = body["docs"].as_array().expect("a list").iter().map(one).collect();
                json!({ "docs": docs })
            }
            (index, "_count") => json!({ "count": self.documents(index).len() }),
            (index, "_stats") => {
                let user_data = json!({ "history_uuid": "one" });
                let copy = json!({
                    "routing": { "primary": true }, "seq_no": { "max_seq_no": self.indexes[index].1 },
                    "commit": { "user_data": user_data },
                });
                json!({ "indices": { index: { "shards": { "0": [copy] } } } })
            }
            _ => json!({}),
        }
    }

    fn page(&mut self, id: String) -> Value {
        let (left, size) = self.scrolls.get_mut(&id).expect("a scroll that is open");
        let page: Vec<Value> = left.drain(..left.len().min(*size)).collect();
        // Without hits there is nothing of them in the answer, as `filter_path` has it.
        let mut answer = json!({ "_scroll_id": id, "timed_out": false, "_shards": { "failed": 0 } });
        if !page.is_empty() {
            answer["hits"] = json!({ "hits": page });
        }
        answer
    }
}

async fn serve(mut stream: TcpStream, script: Arc<Mutex<Script>>) -> Option<()> {
    let mut read = Vec::new();
    let (head, length) = loop {
        if stream.read_buf(&mut read).await.ok()? == 0 {
            return None;
        }
        let text = String::from_utf8_lossy(&read).to_lowercase();
        let Some((head, _)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
        break (head.len() + 4, length.unwrap_or(0));
    };
    while read.len() < head + length {
        stream.read_buf(&mut read).await.ok()?;
    }
    let body = serde_json::from_slice(&read[head..]).unwrap_or_default();
    let line = String::from_utf8_lossy(&read).lines().next().unwrap_or_default().to_owned();
    let answer = script.lock().expect("unpoisoned").answer(&line, &body).to_string();
    let said = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{answer}", answer.len());
    stream.write_all(said.as_bytes()).await.ok()
}

async fn node(script: Script) -> (Node, Arc<Mutex<Script>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let at = listener.local_addr().expect("an address");
    let script = Arc::new(Mutex::new(script));
    let shared = Arc::clone(&script);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, Arc::clone(&shared)));
        }
    });
    let service = domain::stack::Service {
        environment: [("http.port".to_owned(), at.port().to_string())].into(),
        ..Default::default()
    };
    (Node::of(&service, at.ip()), script)
}

/// What is told of a comparison, and what the nodes were asked.
async fn compared(seed: Script, own: Script, order: v1::DiffOrder) -> (Vec<v1::ObjectDiff>, [Vec<String>; 2]) {
    let ((seed, seed_script), (own, own_script)) = (node(seed).await, node(own).await);
    let (send, mut receive) = mpsc::channel(1000);
    let mut teller = Teller::new(send, &order, Duration::from_secs(30));
    compare_nodes(&seed, &own, &mut teller).await;
    drop(teller);
    let mut objects = Vec::new();
    while let Some(frame) = receive.recv().await {
        if let Some(Frame::Diff(v1::DataDiff { part: Some(Part::Object(object)) })) = frame.frame {
            objects.push(object);
        }
    }
    let asked = [seed_script, own_script].map(|script| {
        let mut script = script.lock().expect("unpoisoned");
        // Of a page that was too large nobody knows the place; the node forgets it by itself.
        let again = script.asked.iter().any(|line| line.contains("size=10&"));
        assert!(again || script.scrolls.is_empty(), "a scroll stays open");
        std::mem::take(&mut script.asked)
    });
    (objects, asked)
}

fn numbers(objects: &[v1::ObjectDiff]) -> Vec<(String, u64, u64, u64)> {
    objects.iter().map(|one| (one.name.clone(), one.added, one.removed, one.changed)).collect()
}

#[tokio::test]
async fn documents_are_told_apart_by_index_and_id() {
    let document = |n: i32| (format!("{:03}", n.abs() % 1000), json!({ "n": n, "more": [1, null] }));
    let many: Vec<(String, Value)> = (0..450).map(document).collect();
    let left = (0..450).filter(|n| !matches!(n, 3 | 220));
    // The thousands change the content and not the id.
    let mut now: Vec<_> = left.map(|n| document(if matches!(n, 7 | 449) { n + 1000 } else { n })).collect();
    now.push(("new".to_owned(), json!({})));
    let seed = Script::default().index("people", 500, &many).index("gone", 0, &[("1", json!(1))]);
    let own = Script::default().index("people", 505, &now).index("a%b", 1, &[("x", json!({})), ("y", json!({}))]);
    let own = own.index(".own", 1, &[("1", json!(1))]);
    let order = v1::DiffOrder { rows: 1, values: true, ..Default::default() };
    let (objects, _) = compared(seed, own, order).await;
    let all = numbers(&objects);
    assert_eq!(
        all,
        [("a%b".to_owned(), 2, 0, 0), ("gone".to_owned(), 0, 1, 0), ("people".to_owned(), 1, 2, 2)],
        "{objects:?}"
    );
    assert_eq!((objects[0].presence(), objects[1].presence()), (v1::ObjectPresence::New, v1::ObjectPresence::Gone));
    let mut examples: Vec<(i32, &str, &str, &str)> = objects[2]
        .examples
        .iter()
        .map(|one| (one.change, one.key.as_str(), one.before.as_str(), one.after.as_str()))
        .collect();
    examples.sort_unstable();
    let kind = |change: v1::DiffChange| i32::from(change);
    let mut expected = [
        (kind(v1::DiffChange::Added), "new", "", "{}"),
        (kind(v1::DiffChange::Removed), "003", r#"{"more":[1,null],"n":3}"#, ""),
        (kind(v1::DiffChange::Changed), "007", r#"{"n":7}"#, r#"{"n":1007}"#),
    ];
    expected.sort_unstable();
    assert_eq!(examples, expected);
}

#[tokio::test]
async fn an_index_without_operations_is_not_read_and_one_with_the_same_content_is_the_same() {
    let same = [("1", json!({ "a": 1, "b": 2 })), ("2", json!({}))];
    let seed = Script::default().index("still", 7, &same).index("written", 7, &same);
    let own = Script::default().index("still", 7, &same).index("written", 9, &same);
    let (objects, asked) = compared(seed, own, v1::DiffOrder::default()).await;
    assert!(objects.is_empty(), "{objects:?}");
    for asked in &asked {
        assert!(
            asked.iter().all(|line| !line.contains("/still/_search") && !line.contains("/still/_mget")),
            "{asked:?}"
        );
    }
    assert!(asked[1].iter().any(|line| line.contains("/written/_search")));
    assert!(asked[0].iter().all(|line| !line.contains("/written/_search")), "nothing is gone, so it is not looked for");
}

#[tokio::test]
async fn documents_too_large_for_a_page_are_read_one_by_one_and_larger_ones_left_out() {
    let large = |size: usize| json!({ "text": "x".repeat(size) });
    let seed = Script::default().index("huge", 1, &[("1", large(33 << 20))]).index(
        "large",
        1,
        &[("1", large(3 << 20)), ("2", large(3 << 20)), ("3", large(3 << 20))],
    );
    let own = Script::default().index("huge", 2, &[("1", large(33 << 20))]).index(
        "large",
        2,
        &[("1", large(3 << 20)), ("2", large(3 << 20)), ("3", large(4 << 20))],
    );
    let (objects, _) = compared(seed, own, v1::DiffOrder::default()).await;
    assert_eq!(numbers(&objects), [("huge".to_owned(), 0, 0, 0), ("large".to_owned(), 0, 0, 1)]);
    assert_eq!(objects[0].left_out, "a document is larger than 32 MiB");
}

#[tokio::test]
async fn a_node_that_is_silent_is_named() {
    let (seed, _) = node(Script::default()).await;
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let service = domain::stack::Service {
        environment: [("http.port".to_owned(), free.port().to_string())].into(),
        ..Default::default()
    };
    let (send, mut receive) = mpsc::channel(10);
    let mut teller = Teller::new(send, &v1::DiffOrder::default(), Duration::from_secs(30));
    compare_nodes(&seed, &Node::of(&service, free.ip()), &mut teller).await;
    let frame = receive.recv().await.and_then(|frame| frame.frame);
    let Some(Frame::Diff(v1::DataDiff { part: Some(Part::Object(object)) })) = frame else { panic!("{frame:?}") };
    assert!(object.name == ALL && !object.left_out.is_empty(), "{object:?}");
}
