//! Elasticsearch: index by index, document by document. The environment's documents are read page by page, and the
//! seed's under the same ids beside them; then it is looked which of the seed's are gone. An index in which nothing was
//! written since is told by the numbers of its operations alone. Only calls that versions 6.8 to 8 have alike.

use std::collections::{BTreeMap, BTreeSet};

use http::Method;
use proto::v1;
use serde_json::{Value, json};

use super::Place;
use super::tables::{self, LATE};
use super::tally::Cell;
use super::teller::Teller;
use crate::seeds::elastic::Node;

/// Most bytes of an answer that is no page of documents.
const MOST: usize = 16 << 20;
/// Documents of a page, and most bytes of it: where they are too large for the first, the next is tried.
const PAGES: [(u32, usize); 3] = [(200, 8 << 20), (10, 8 << 20), (1, 32 << 20)];
/// How long the node keeps a page's place.
const KEPT: &str = "2m";
const ALL: &str = "all indexes";

/// Why an index was not compared.
#[derive(Debug)]
enum Why {
    /// Its documents are too large for pages of this size.
    Large,
    Said(String),
}

impl From<String> for Why {
    fn from(said: String) -> Self {
        Self::Said(said)
    }
}

type Said<T> = Result<T, Why>;

/// Compares two nodes.
pub(super) async fn compare(seed: &Place<'_>, own: &Place<'_>, teller: &mut Teller) {
    let (seed, own) = (Node::of(seed.service, seed.address), Node::of(own.service, own.address));
    compare_nodes(&seed, &own, teller).await;
}

async fn compare_nodes(seed: &Node, own: &Node, teller: &mut Teller) {
    let listed = async { tokio::try_join!(indexes(seed), indexes(own)) };
    let (before, after) = match tokio::time::timeout_at(teller.deadline, listed).await {
        Ok(Ok(listed)) => listed,
        Ok(Err(why)) => return teller.left_out(ALL, &text(why)).await,
        Err(_) => return teller.left_out(ALL, LATE).await,
    };
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    for name in names {
        if teller.late() {
            teller.left_out(name, LATE).await;
            continue;
        }
        teller.progress(format!("comparing {}: {name}", teller.service)).await;
        let (path, most, values) = (escaped(name), teller.rows, teller.values);
        let both = Both { seed, own, index: &path, most, values };
        let compared = both.index(before.get(name), after.get(name));
        match tokio::time::timeout_at(teller.deadline, compared).await {
            Ok(Ok(None)) => teller.same(),
            Ok(Ok(Some(object))) => teller.found(v1::ObjectDiff { name: name.clone(), ..object }).await,
            Ok(Err(why)) => teller.left_out(name, &text(why)).await,
            Err(_) => teller.left_out(name, LATE).await,
        }
    }
}

fn text(why: Why) -> String {
    match why {
        Why::Large => format!("a document is larger than {} MiB", PAGES[PAGES.len() - 1].1 >> 20),
        Why::Said(said) => said,
    }
}

/// A name as a part of a path.
fn escaped(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    name.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

async fn ask(node: &Node, method: Method, path: &str, body: &Value, most: usize) -> Said<Value> {
    node.ask(method, path, body, most).await?.ok_or(Why::Large)
}

/// The indexes of people by their names, with what the node calls them itself. Its own begin with a dot, and change as
/// it runs.
async fn indexes(node: &Node) -> Said<BTreeMap<String, String>> {
    let path = "/_all/_settings?expand_wildcards=all&filter_path=*.settings.index.uuid";
    let said = ask(node, Method::GET, path, &Value::Null, MOST).await?;
    let all = said.as_object().cloned().unwrap_or_default();
    let of_people = |name: &str| !name.starts_with('.') || name.starts_with(".ds-");
    let uuid = |one: &Value| one["settings"]["index"]["uuid"].as_str().unwrap_or_default().to_owned();
    Ok(all.iter().filter(|(name, _)| of_people(name)).map(|(name, one)| (name.clone(), uuid(one))).collect())
}

/// A document of a page.
struct Document {
    id: String,
    routing: Option<String>,
    source: Value,
}

impl Document {
    fn read(hit: &mut Value) -> Option<Self> {
        let id = hit["_id"].as_str()?.to_owned();
        let routing = hit["_routing"].as_str().map(str::to_owned);
        Some(Self { id, routing, source: hit["_source"].take() })
    }

    /// As people know it; and cut, because a name can be long.
    fn shown(&self) -> String {
        let id = Cell::Bytes(self.id.clone().into_bytes());
        match &self.routing {
            Some(routing) => format!("{id} routing={}", Cell::Bytes(routing.clone().into_bytes())),
            None => id.to_string(),
        }
    }
}

struct Both<'a> {
    seed: &'a Node,
    own: &'a Node,
    /// As part of a path.
    index: &'a str,
    most: usize,
    values: bool,
}

/// What was found of one index.
#[derive(Default)]
struct Found {
    added: u64,
    removed: u64,
    changed: u64,
    /// Documents that were read of the environment.
    read: u64,
    examples: Vec<v1::DiffExample>,
}

impl Both<'_> {
    async fn index(&self, before: Option<&String>, after: Option<&String>) -> Said<Option<v1::ObjectDiff>> {
        match (before, after) {
            (None, None) => Ok(None),
            (None, Some(_)) => Ok(Some(v1::ObjectDiff {
                presence: v1::ObjectPresence::New.into(),
                added: self.count(self.own).await?,
                ..v1::ObjectDiff::default()
            })),
            (Some(_), None) => Ok(Some(v1::ObjectDiff {
                presence: v1::ObjectPresence::Gone.into(),
                removed: self.count(self.seed).await?,
                ..v1::ObjectDiff::default()
            })),
            (Some(old), Some(new)) => {
                if old == new && self.untouched().await? {
                    return Ok(None);
                }
                self.documents().await
            }
        }
    }

    async fn count(&self, node: &Node) -> Said<u64> {
        self.refresh(node).await;
        let said = ask(node, Method::GET, &format!("/{}/_count", self.index), &Value::Null, MOST).await?;
        said["count"].as_u64().ok_or_else(|| Why::Said("it does not tell how many documents it has".to_owned()))
    }

    /// A search sees what was written before it; an index that refuses is read as it is.
    async fn refresh(&self, node: &Node) {
        let path = format!("/{}/_refresh", self.index);
        if let Err(why) = node.ask(Method::POST, &path, &Value::Null, MOST).await {
            tracing::debug!(%why, "an index is compared as it was refreshed last");
        }
    }

    /// Whether both sides are at the same operation of the same index: then they hold the same.
    async fn untouched(&self) -> Said<bool> {
        let (before, after) = tokio::try_join!(self.operations(self.seed), self.operations(self.own))?;
        Ok(before.is_some() && before == after)
    }

    /// The history of each shard, and the number of its last operation. None: not all of them tell.
    async fn operations(&self, node: &Node) -> Said<Option<BTreeMap<String, Vec<(String, i64)>>>> {
        let wanted = ["seq_no.max_seq_no", "routing.primary", "commit.user_data.history_uuid"];
        let wanted = wanted.map(|one| format!("indices.*.shards.*.{one}")).join(",");
        let path = format!("/{}/_stats?level=shards&filter_path={wanted}", self.index);
        let mut said = ask(node, Method::GET, &path, &Value::Null, MOST).await?;
        let all = said.pointer_mut("/indices").and_then(Value::as_object_mut).map(std::mem::take);
        let Some((_, index)) = all.and_then(|all| all.into_iter().next()) else { return Ok(None) };
        let Some(shards) = index["shards"].as_object() else { return Ok(None) };
        let last = |copy: &Value| -> Option<(String, i64)> {
            let history = copy["commit"]["user_data"]["history_uuid"].as_str()?;
            Some((history.to_owned(), copy["seq_no"]["max_seq_no"].as_i64()?))
        };
        let numbers = |copies: &Value| -> Option<Vec<(String, i64)>> {
            let primaries = copies.as_array()?.iter().filter(|copy| copy["routing"]["primary"] == true);
            primaries.map(last).collect::<Option<Vec<_>>>().filter(|numbers| !numbers.is_empty())
        };
        Ok(shards.iter().map(|(shard, copies)| Some((shard.clone(), numbers(copies)?))).collect())
    }

    async fn documents(&self) -> Said<Option<v1::ObjectDiff>> {
        tokio::join!(self.refresh(self.seed), self.refresh(self.own));
        let mut found = Err(Why::Large);
        for page in PAGES {
            found = self.walk(page).await;
            if !matches!(found, Err(Why::Large)) {
                break;
            }
        }
        let found = found?;
        if found.added == 0 && found.removed == 0 && found.changed == 0 {
            return Ok(None);
        }
        Ok(Some(v1::ObjectDiff {
            presence: v1::ObjectPresence::Both.into(),
            added: found.added,
            removed: found.removed,
            changed: found.changed,
            examples: found.examples,
            ..v1::ObjectDiff::default()
        }))
    }

    async fn walk(&self, page: (u32, usize)) -> Said<Found> {
        let total = self.count(self.seed).await?;
        let mut found = Found::default();
        let mut scroll = Scroll::new(self.own, self.index, page, true);
        let walked = async {
            while let Some(documents) = scroll.next().await? {
                let there = self.get(self.seed, &documents, page.1, true).await?;
                for (new, old) in documents.iter().zip(there) {
                    self.one(new, old, &mut found)?;
                }
            }
            Ok(())
        };
        let walked: Said<()> = walked.await;
        scroll.close().await;
        walked?;
        // Every document that both have was met, so that all of the seed's are accounted for, or some are gone.
        if found.read - found.added < total {
            let mut scroll = Scroll::new(self.seed, self.index, page, self.values && self.most > 0);
            let gone = self.gone(&mut scroll, page.1, &mut found).await;
            scroll.close().await;
            gone?;
        }
        Ok(found)
    }

    fn one(&self, new: &Document, old: Option<Value>, found: &mut Found) -> Said<()> {
        found.read += 1;
        match old {
            None => {
                found.added += 1;
                self.example(v1::DiffChange::Added, new, None, Some(&new.source), found);
            }
            Some(old) if old.is_null() && new.source.is_null() => {
                return Err(Why::Said("it keeps no _source, so its documents cannot be compared".to_owned()));
            }
            Some(old) if old == new.source => {}
            Some(old) => {
                found.changed += 1;
                self.example(v1::DiffChange::Changed, new, Some(&old), Some(&new.source), found);
            }
        }
        Ok(())
    }

    async fn gone(&self, scroll: &mut Scroll<'_>, most: usize, found: &mut Found) -> Said<()> {
        while let Some(documents) = scroll.next().await? {
            let there = self.get(self.own, &documents, most, false).await?;
            for old in documents.iter().zip(there).filter(|(_, there)| there.is_none()).map(|(old, _)| old) {
                found.removed += 1;
                self.example(v1::DiffChange::Removed, old, Some(&old.source), None, found);
            }
        }
        Ok(())
    }

    fn example(
        &self,
        change: v1::DiffChange,
        of: &Document,
        before: Option<&Value>,
        after: Option<&Value>,
        found: &mut Found,
    ) {
        if found.examples.iter().filter(|one| one.change() == change).count() >= self.most {
            return;
        }
        let mut example = v1::DiffExample { change: change.into(), key: of.shown(), ..Default::default() };
        if self.values {
            let text = |value: Option<&Value>| value.map(Value::to_string).unwrap_or_default();
            (example.before, example.after) = tables::values(text(before), text(after));
        }
        found.examples.push(example);
    }

    /// What a side has under the ids of those documents, in their order; with its content, if that is asked for.
    async fn get(&self, node: &Node, of: &[Document], most: usize, content: bool) -> Said<Vec<Option<Value>>> {
        let wanted = of.iter().map(|one| match &one.routing {
            Some(routing) => json!({ "_id": one.id, "routing": routing }),
            None => json!({ "_id": one.id }),
        });
        let body = json!({ "docs": wanted.collect::<Vec<_>>() });
        let path = format!("/{}/_mget?_source={content}", self.index);
        let mut said = ask(node, Method::POST, &path, &body, most).await?;
        let strange = || Why::Said("its answer to _mget is not understood".to_owned());
        let docs = said.pointer_mut("/docs").and_then(Value::as_array_mut);
        let docs = docs.filter(|docs| docs.len() == of.len()).ok_or_else(strange)?;
        docs.iter_mut()
            .map(|one| match one["found"].as_bool() {
                Some(true) => Ok(Some(one["_source"].take())),
                Some(false) => Ok(None),
                None => Err(strange()),
            })
            .collect()
    }
}

/// All documents of an index as of one instant, in whatever order they lie.
struct Scroll<'a> {
    node: &'a Node,
    index: &'a str,
    page: (u32, usize),
    content: bool,
    id: Option<String>,
}

impl<'a> Scroll<'a> {
    fn new(node: &'a Node, index: &'a str, page: (u32, usize), content: bool) -> Self {
        Self { node, index, page, content, id: None }
    }

    async fn next(&mut self) -> Said<Option<Vec<Document>>> {
        let filter =
            "filter_path=_scroll_id,timed_out,_shards.failed,hits.hits._id,hits.hits._routing,hits.hits._source";
        let (path, body) = match &self.id {
            None => {
                let path = format!("/{}/_search?scroll={KEPT}&size={}&{filter}", self.index, self.page.0);
                (path, json!({ "sort": ["_doc"], "_source": self.content }))
            }
            Some(id) => (format!("/_search/scroll?{filter}"), json!({ "scroll": KEPT, "scroll_id": id })),
        };
        let mut said = ask(self.node, Method::POST, &path, &body, self.page.1).await?;
        self.id = said["_scroll_id"].as_str().map(str::to_owned).or(self.id.take());
        if said["timed_out"] == true || said["_shards"]["failed"].as_u64() != Some(0) {
            return Err(Why::Said("not all of its shards answer".to_owned()));
        }
        let documents: Option<Vec<Document>> = match said.pointer_mut("/hits/hits").and_then(Value::as_array_mut) {
            Some(hits) => hits.iter_mut().map(Document::read).collect(),
            None => Some(Vec::new()),
        };
        let documents = documents.ok_or_else(|| Why::Said("a page of documents is not understood".to_owned()))?;
        if !documents.is_empty() && self.id.is_none() {
            return Err(Why::Said("it does not tell how its pages go on".to_owned()));
        }
        Ok((!documents.is_empty()).then_some(documents))
    }

    /// The node would keep its place for a while.
    async fn close(&mut self) {
        let Some(id) = self.id.take() else { return };
        let body = json!({ "scroll_id": [id] });
        let _ = self.node.ask(Method::DELETE, "/_search/scroll", &body, MOST).await;
    }
}

#[cfg(test)]
mod tests;
