//! Redis: all databases, key by key, in batches. A key is compared by its type and content, not by when it ends, and not
//! by how the server keeps it: the same set can lie in another order after a restart.

use std::collections::BTreeMap;

use proto::v1;

use super::Place;
use super::resp::{Connection, Reply};
use super::tables::LATE;
use super::tally::{Cell, Tally};
use super::teller::Teller;
use crate::environments::credentials;

/// Keys that are looked at together.
const BATCH: usize = 256;
/// Elements of a large value that are read together.
const ELEMENTS: usize = 256;
/// Values with at most so many elements (or bytes of a text) are read at once.
const SMALL: i64 = 256;
/// Bytes of a text that are read together.
const PIECE: i64 = 1 << 20;

type Said<T> = Result<T, String>;

/// Compares two servers.
pub(super) async fn compare(seed: &Place<'_>, own: &Place<'_>, teller: &mut Teller) {
    let opened = async { tokio::try_join!(open(seed), open(own)) };
    let (mut before, mut after) = match tokio::time::timeout_at(teller.deadline, opened).await {
        Ok(Ok(opened)) => opened,
        Ok(Err(why)) => return teller.left_out("all keys", &why).await,
        Err(_) => return teller.left_out("all keys", LATE).await,
    };
    let listed = async { tokio::try_join!(databases(&mut before), databases(&mut after)) };
    let (old, new) = match tokio::time::timeout_at(teller.deadline, listed).await {
        Ok(Ok(listed)) => listed,
        Ok(Err(why)) => return teller.left_out("all keys", &why).await,
        Err(_) => return teller.left_out("all keys", LATE).await,
    };
    let mut all: Vec<u32> = old.into_iter().chain(new).collect();
    all.sort_unstable();
    all.dedup();
    let mut usable = true;
    for database in all {
        let name = format!("db{database}");
        if !usable {
            teller.left_out(&name, LATE).await;
            continue;
        }
        teller.progress(format!("comparing {}: {name}", teller.service)).await;
        let mut both = Both { seed: &mut before, own: &mut after, most: teller.rows, values: teller.values };
        match tokio::time::timeout_at(teller.deadline, both.database(database)).await {
            Ok(Ok(None)) => teller.same(),
            Ok(Ok(Some(object))) => teller.found(v1::ObjectDiff { name, ..object }).await,
            Ok(Err(why)) => {
                usable = false;
                teller.left_out(&name, &why).await;
            }
            Err(_) => {
                usable = false;
                teller.left_out(&name, LATE).await;
            }
        }
    }
}

async fn open(place: &Place<'_>) -> Said<Connection> {
    let port = place.service.ports.first().or(place.service.expose.first()).copied().unwrap_or(6379);
    let mut connection = Connection::open(place.address, port).await?;
    if let Some(password) = credentials::password(place.service) {
        connection.ask(&[b"AUTH", password.as_bytes()]).await?;
    }
    Ok(connection)
}

async fn databases(connection: &mut Connection) -> Said<Vec<u32>> {
    let text = connection.ask(&[b"INFO", b"keyspace"]).await?.text();
    let number = |line: &str| line.strip_prefix("db")?.split(':').next()?.parse().ok();
    Ok(text.lines().filter_map(number).collect())
}

struct Both<'a> {
    seed: &'a mut Connection,
    own: &'a mut Connection,
    most: usize,
    values: bool,
}

impl Both<'_> {
    async fn database(&mut self, number: u32) -> Said<Option<v1::ObjectDiff>> {
        let number = number.to_string();
        for side in [&mut *self.seed, &mut *self.own] {
            side.ask(&[b"SELECT", number.as_bytes()]).await?;
        }
        let mut tally = Tally::default();
        let mut cursor = b"0".to_vec();
        loop {
            let (next, keys) = scan(self.own, &cursor).await?;
            self.batch(&keys, &mut tally).await?;
            cursor = next;
            if cursor == b"0" {
                break;
            }
        }
        loop {
            let (next, keys) = scan(self.seed, &cursor).await?;
            let there = types(self.own, &keys).await?;
            for (key, _) in keys.into_iter().zip(there).filter(|(_, kind)| kind == "none") {
                tally.note(v1::DiffChange::Removed, vec![Cell::Bytes(key)], 1, self.most);
            }
            cursor = next;
            if cursor == b"0" {
                break;
            }
        }
        if tally.is_empty() {
            return Ok(None);
        }
        let mut examples = Vec::new();
        for (change, key) in &tally.examples {
            let [Cell::Bytes(name)] = key.as_slice() else { continue };
            let mut example =
                v1::DiffExample { change: (*change).into(), key: key[0].to_string(), ..Default::default() };
            if self.values {
                (example.before, example.after) = (shown(self.seed, name).await?, shown(self.own, name).await?);
            }
            examples.push(example);
        }
        Ok(Some(v1::ObjectDiff {
            presence: v1::ObjectPresence::Both.into(),
            added: tally.added,
            removed: tally.removed,
            changed: tally.changed,
            examples,
            ..v1::ObjectDiff::default()
        }))
    }

    async fn batch(&mut self, keys: &[Vec<u8>], tally: &mut Tally) -> Said<()> {
        let (before, after) = tokio::try_join!(types(self.seed, keys), types(self.own, keys))?;
        let mut same_kind = Vec::new();
        for ((key, old), new) in keys.iter().zip(before).zip(after) {
            let name = || vec![Cell::Bytes(key.clone())];
            match (old.as_str(), new.as_str()) {
                // It ended while we looked.
                (_, "none") => {}
                ("none", _) => tally.note(v1::DiffChange::Added, name(), 1, self.most),
                (old, new) if old != new => tally.note(v1::DiffChange::Changed, name(), 1, self.most),
                _ => same_kind.push((key.as_slice(), new)),
            }
        }
        let digests = tokio::try_join!(digests(self.seed, &same_kind), digests(self.own, &same_kind))?;
        for (((key, _), old), new) in same_kind.iter().zip(digests.0).zip(digests.1) {
            if old != new {
                tally.note(v1::DiffChange::Changed, vec![Cell::Bytes(key.to_vec())], 1, self.most);
            }
        }
        Ok(())
    }
}

async fn scan(connection: &mut Connection, cursor: &[u8]) -> Said<(Vec<u8>, Vec<Vec<u8>>)> {
    let answer = connection.ask(&[b"SCAN", cursor, b"COUNT", BATCH.to_string().as_bytes()]).await?;
    answer.scanned().ok_or_else(|| "its answer to SCAN is not understood".to_owned())
}

async fn types(connection: &mut Connection, keys: &[Vec<u8>]) -> Said<Vec<String>> {
    let asked: Vec<Vec<&[u8]>> = keys.iter().map(|key| vec![b"TYPE".as_slice(), key]).collect();
    Ok(connection.ask_all(&asked).await?.iter().map(Reply::text).collect())
}

/// How many elements (of a text: bytes) a value has.
fn length_command(kind: &str) -> Option<&'static [u8]> {
    Some(match kind {
        "string" => b"STRLEN",
        "list" => b"LLEN",
        "set" => b"SCARD",
        "hash" => b"HLEN",
        "zset" => b"ZCARD",
        "stream" => b"XLEN",
        _ => return None,
    })
}

/// Reads a whole small value.
fn whole_command<'a>(kind: &str, key: &'a [u8]) -> Vec<&'a [u8]> {
    match kind {
        "string" => vec![b"GET", key],
        "list" => vec![b"LRANGE", key, b"0", b"-1"],
        "set" => vec![b"SMEMBERS", key],
        "hash" => vec![b"HGETALL", key],
        "zset" => vec![b"ZRANGE", key, b"0", b"-1", b"WITHSCORES"],
        "stream" => vec![b"XRANGE", key, b"-", b"+"],
        // Of a module: as the server writes it down.
        _ => vec![b"DUMP", key],
    }
}

/// Digests of the values of those keys, each of its type.
async fn digests(connection: &mut Connection, keys: &[(&[u8], String)]) -> Said<Vec<u128>> {
    let lengths: Vec<Vec<&[u8]>> = keys
        .iter()
        .map(|(key, kind)| length_command(kind).map_or_else(|| vec![b"EXISTS".as_slice(), key], |name| vec![name, key]))
        .collect();
    let lengths: Vec<i64> = connection.ask_all(&lengths).await?.iter().map(Reply::number).collect();
    let mut digests = BTreeMap::new();
    let small: Vec<usize> = (0..keys.len()).filter(|index| lengths[*index] <= SMALL).collect();
    let asked: Vec<Vec<&[u8]>> = small.iter().map(|index| whole_command(&keys[*index].1, keys[*index].0)).collect();
    for (index, answer) in small.iter().zip(connection.ask_all(&asked).await?) {
        digests.insert(*index, combined(&keys[*index].1, &answer, 0, lengths[*index]));
    }
    for index in (0..keys.len()).filter(|index| lengths[*index] > SMALL) {
        let (key, kind) = &keys[index];
        digests.insert(index, large(connection, key, kind, lengths[index]).await?);
    }
    Ok(digests.into_values().collect())
}

/// Folds a part of a value into its digest: in order for what has one, by a sum for what has none.
fn combined(kind: &str, part: &Reply, so_far: u128, length: i64) -> u128 {
    let begin =
        if so_far == 0 { u128::from(length.unsigned_abs()).wrapping_mul(0x9e37_79b9_7f4a_7c15) } else { so_far };
    match kind {
        "set" => part.elements().iter().fold(begin, |sum, one| sum.wrapping_add(one.digest())),
        "hash" | "zset" => part.elements().chunks(2).fold(begin, |sum, pair| {
            let pair = pair.iter().fold(1_u128, |chain, one| super::resp::chain(chain, one.digest()));
            sum.wrapping_add(pair)
        }),
        "list" | "stream" => part.elements().iter().fold(begin, |chain, one| super::resp::chain(chain, one.digest())),
        _ => super::resp::chain(begin, part.digest()),
    }
}

/// The digest of a value that is too large to be read at once.
async fn large(connection: &mut Connection, key: &[u8], kind: &str, length: i64) -> Said<u128> {
    let mut digest = 0;
    let count = ELEMENTS.to_string();
    let name: &[u8] = match kind {
        "string" | "list" => {
            let (name, step): (&[u8], i64) = if kind == "string" { (b"GETRANGE", PIECE) } else { (b"LRANGE", SMALL) };
            let mut from = 0;
            while from < length {
                let (begin, end) = (from.to_string(), (from + step - 1).to_string());
                let part = connection.ask(&[name, key, begin.as_bytes(), end.as_bytes()]).await?;
                digest = combined(kind, &part, digest, length);
                from += step;
            }
            return Ok(digest);
        }
        "stream" => return stream(connection, key, length).await,
        "set" => b"SSCAN",
        "hash" => b"HSCAN",
        "zset" => b"ZSCAN",
        _ => {
            let dump = connection.ask(&[b"DUMP", key]).await?;
            return Ok(combined(kind, &dump, 0, length));
        }
    };
    let mut cursor = b"0".to_vec();
    loop {
        let answer = connection.ask(&[name, key, &cursor, b"COUNT", count.as_bytes()]).await?;
        let [next, part] = answer.elements() else { return Err("its answer to a scan is not understood".to_owned()) };
        digest = combined(kind, part, digest, length);
        cursor = next.bytes().to_vec();
        if cursor == b"0" {
            return Ok(digest);
        }
    }
}

async fn stream(connection: &mut Connection, key: &[u8], length: i64) -> Said<u128> {
    let (mut digest, mut from) = (0, b"-".to_vec());
    let count = ELEMENTS.to_string();
    loop {
        let part = connection.ask(&[b"XRANGE", key, &from, b"+", b"COUNT", count.as_bytes()]).await?;
        digest = combined("stream", &part, digest, length);
        let Some(last) = part.elements().last().filter(|_| part.elements().len() >= ELEMENTS) else {
            return Ok(digest);
        };
        let id = last.elements().first().map(|id| id.text()).unwrap_or_default();
        // Streams before 6.2 know no open beginnings.
        let Some((time, number)) = id.split_once('-') else { return Ok(digest) };
        let number: u64 = number.parse().map_err(|_| "an id of a stream is not understood".to_owned())?;
        from = format!("{time}-{}", number.saturating_add(1)).into_bytes();
    }
}

/// The value for people: a text as it is, of everything else its type and size.
async fn shown(connection: &mut Connection, key: &[u8]) -> Said<String> {
    let kind = connection.ask(&[b"TYPE", key]).await?.text();
    if kind == "none" {
        return Ok(String::new());
    }
    if kind == "string" {
        let text = connection.ask(&[b"GETRANGE", key, b"0", b"4095"]).await?.text();
        return Ok(serde_json::Value::String(text).to_string());
    }
    let length = match length_command(&kind) {
        Some(name) => connection.ask(&[name, key]).await?.number(),
        None => 1,
    };
    Ok(serde_json::json!({ "type": kind, "length": length }).to_string())
}
