//! What is special about Elasticsearch: everything goes over HTTP, and old values stay in logs and dropped segments.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use domain::stack::Service;
use http::{Method, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::INPUTS;
use super::inputs;
use super::lines::{self, Shape};
use super::scan::Canaries;
use crate::environments::credentials;

/// Where the official image listens.
const PORT: u16 = 9200;
/// Longest time for one call: a restore or a merge answers when it is done.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// Most bytes of an answer that are kept.
const KEPT: usize = 1 << 20;
/// Documents of one page of a search through all of them.
const PAGE: u32 = 200;
/// How a repository is called while a seed is made from it.
const REPOSITORY: &str = "muster-seed";
const JSON: &str = "application/json";

/// A node that runs.
#[derive(Debug)]
pub(crate) struct Node {
    at: SocketAddr,
    /// The value of the header that lets in.
    login: Option<String>,
}

/// The setting by which a node may restore from the inputs of a seed.
#[must_use]
pub fn may_restore(service: &Service) -> (String, String) {
    let inputs = format!("{INPUTS}/{}", inputs::REPOSITORIES);
    let own = service.environment.get("path.repo").filter(|text| !text.is_empty());
    ("path.repo".to_owned(), own.map_or_else(|| inputs.clone(), |own| format!("{own},{inputs}")))
}

/// Makes the folder for repositories: the node's own user must come to it. Nobody else of this machine comes so far.
///
/// # Errors
/// The disk refuses.
pub(super) fn open(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let own = folder.join(inputs::REPOSITORIES);
    std::fs::create_dir_all(&own)?;
    std::fs::set_permissions(&own, std::fs::Permissions::from_mode(0o755))?;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o711))
}

/// Whether the folder is a repository of snapshots, as `elasticsearch` writes it to a file system.
pub(super) fn is_repository(folder: &Path) -> bool {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).any(|name| {
        let number = name.strip_prefix("index-");
        name == "index.latest"
            || number.is_some_and(|text| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()))
    })
}

/// Removes what says that another node has this data open.
///
/// # Errors
/// The disk refuses.
pub fn prepare(volume: &Path) -> io::Result<()> {
    let nodes = std::fs::read_dir(volume.join("nodes")).into_iter().flatten().flatten();
    let folders = nodes.map(|entry| entry.path()).chain([volume.to_owned()]);
    folders.map(|folder| folder.join("node.lock")).try_for_each(|lock| match std::fs::remove_file(lock) {
        Err(why) if !matches!(why.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Err(why),
        _ => Ok(()),
    })
}

impl Node {
    pub fn of(service: &Service, address: IpAddr) -> Self {
        let port = service.environment.get("http.port").and_then(|text| text.parse().ok()).unwrap_or(PORT);
        let login = credentials::password(service).map(|password| {
            format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("elastic:{password}")))
        });
        Self { at: SocketAddr::new(address, port), login }
    }

    /// Feeds bulk lines, in pieces.
    pub async fn bulk(&self, file: &Path) -> Result<(), String> {
        let mut pieces = lines::read(file.to_owned(), Shape::Bulk);
        while let Some(piece) = pieces.recv().await {
            let piece = piece?;
            let path = "/_bulk?filter_path=errors,items.*.error";
            let said = self.call(Method::POST, path, "application/x-ndjson", piece.text.into()).await?;
            if said.contains("\"errors\":true") {
                return Err(format!("in the lines from {} on: {}", piece.line, reason(&said)));
            }
        }
        self.call(Method::POST, "/_refresh", JSON, Bytes::new()).await.map(|_| ())
    }

    /// Runs masking: pairs of lines, `{"index": …}` and the body of an `_update_by_query`.
    pub async fn mask(&self, file: &Path) -> Result<(), String> {
        let mut pairs = lines::read(file.to_owned(), Shape::Pairs);
        while let Some(pair) = pairs.recv().await {
            let pair = pair?;
            let at = |why: &str| format!("line {}: {why}", pair.line);
            let (head, body) = pair.text.split_once('\n').ok_or_else(|| at("no second line"))?;
            let head: Value = serde_json::from_str(head).map_err(|why| at(&why.to_string()))?;
            let index = head["index"].as_str().filter(|name| is_index(name));
            let index = index.ok_or_else(|| at("write {\"index\": \"NAME\"}, then the body in one line"))?;
            let path = format!("/{index}/_update_by_query?conflicts=proceed&refresh=true&filter_path=failures,updated");
            let said =
                self.call(Method::POST, &path, JSON, body.trim().to_owned().into()).await.map_err(|why| at(&why))?;
            if said.contains("\"failures\":[{") {
                return Err(at(&reason(&said)));
            }
        }
        Ok(())
    }

    /// Restores all indices of the newest complete snapshot below `location`, those apart that begin with a dot.
    pub async fn restore(&self, location: &str) -> Result<(), String> {
        let made = json!({ "type": "fs", "settings": { "location": location, "readonly": true } });
        self.json(Method::PUT, &format!("/_snapshot/{REPOSITORY}?verify=false"), &made).await?;
        let all = self.json(Method::GET, &format!("/_snapshot/{REPOSITORY}/_all"), &Value::Null).await?;
        let all = all["snapshots"].as_array().cloned().unwrap_or_default();
        let newest = all
            .iter()
            .filter(|one| one["state"] == "SUCCESS")
            .max_by_key(|one| one["start_time_in_millis"].as_u64())
            .and_then(|one| one["snapshot"].as_str())
            .filter(|name| is_index(name))
            .ok_or("the repository has no complete snapshot")?;
        let wanted = json!({
            "indices": "*,-.*", "include_global_state": false, "index_settings": { "index.number_of_replicas": 0 },
        });
        let path = format!("/_snapshot/{REPOSITORY}/{newest}/_restore?wait_for_completion=true");
        let done = self.json(Method::POST, &path, &wanted).await?;
        let failed = done["snapshot"]["shards"]["failed"].as_u64().unwrap_or(0);
        self.call(Method::DELETE, &format!("/_snapshot/{REPOSITORY}"), JSON, Bytes::new()).await?;
        if failed > 0 { Err(format!("{failed} shards of {newest} were not restored")) } else { Ok(()) }
    }

    /// Everything is in its files, and where it was masked nothing old is.
    pub async fn settle(&self, masked: bool) -> Result<(), String> {
        if !masked {
            return self.flush().await;
        }
        // Newer versions keep no such log, and refuse.
        let retention =
            |value: Value| json!({ "index.translog.retention.size": value, "index.translog.retention.age": value });
        let told = self.json(Method::PUT, "/_all/_settings", &retention(json!("-1"))).await;
        self.flush().await?;
        self.call(Method::POST, "/_forcemerge?max_num_segments=1", JSON, Bytes::new()).await?;
        self.flush().await?;
        if told.is_ok() {
            self.json(Method::PUT, "/_all/_settings", &retention(Value::Null)).await?;
        }
        Ok(())
    }

    /// Has all that it holds written to its files.
    pub async fn flush(&self) -> Result<(), String> {
        let said = self.call(Method::POST, "/_flush?force=true&wait_if_ongoing=true", JSON, Bytes::new()).await?;
        let said: Value = serde_json::from_str(&said).unwrap_or_default();
        match said["_shards"]["failed"].as_u64().unwrap_or(0) {
            0 => Ok(()),
            failed => Err(format!("{failed} shards were not flushed")),
        }
    }

    pub async fn version(&self) -> Result<String, String> {
        let said = self.json(Method::GET, "/", &Value::Null).await?;
        Ok(said["version"]["number"].as_str().unwrap_or_default().to_owned())
    }

    /// Looks for values in all documents: in its files they are compressed. Answers the first value's number, from 1.
    pub async fn holds(&self, canaries: &Canaries) -> Result<Option<usize>, String> {
        let path = format!("/_search?scroll=5m&size={PAGE}&filter_path=_scroll_id,hits.hits._id,hits.hits._source");
        let mut page = self.page(&path, &json!({ "sort": ["_doc"] }), canaries).await?;
        let found = loop {
            if page.found.is_some() || !page.more {
                break page.found;
            }
            let next = json!({ "scroll": "5m", "scroll_id": page.scroll });
            let path = "/_search/scroll?filter_path=_scroll_id,hits.hits._id,hits.hits._source";
            page = self.page(path, &next, canaries).await?;
        };
        // It goes by itself in a few minutes, too.
        let _ = self.json(Method::DELETE, "/_search/scroll", &json!({ "scroll_id": [page.scroll] })).await;
        Ok(found)
    }

    async fn page(&self, path: &str, body: &Value, canaries: &Canaries) -> Result<Page, String> {
        let (status, mut answer, _tasks) = self.send(Method::POST, path, JSON, body.to_string().into()).await?;
        let (mut seen, mut first) = (Vec::new(), Vec::new());
        let mut page = Page::default();
        while let Some(frame) = answer.frame().await {
            let frame = frame.map_err(|why| why.to_string())?;
            let Some(data) = frame.data_ref() else { continue };
            first.extend_from_slice(&data[..data.len().min(KEPT.saturating_sub(first.len()))]);
            seen.extend_from_slice(data);
            page.found = page.found.or_else(|| canaries.find(&seen));
            // A value may lie across two pieces.
            seen.drain(..seen.len().saturating_sub(canaries.longest()));
        }
        let first = String::from_utf8_lossy(&first);
        if !status.is_success() {
            return Err(format!("{path}: {status}: {}", reason(&first)));
        }
        page.more = first.contains("\"hits\":[{");
        let id = first.split_once("\"_scroll_id\":\"").and_then(|(_, rest)| rest.split_once('"'));
        page.scroll = id.map(|(id, _)| id.to_owned()).unwrap_or_default();
        Ok(page)
    }

    /// A call that must succeed, with its whole answer. None: it is longer than `most` bytes.
    ///
    /// # Errors
    /// What the node says, or that it is silent.
    pub async fn ask(&self, method: Method, path: &str, body: &Value, most: usize) -> Result<Option<Value>, String> {
        let body = if body.is_null() { Bytes::new() } else { body.to_string().into() };
        let (status, mut answer, _tasks) = self.send(method, path, JSON, body).await?;
        let mut said = Vec::new();
        while let Some(frame) = answer.frame().await {
            if let Some(data) = frame.map_err(|why| why.to_string())?.data_ref() {
                if said.len() + data.len() > most {
                    return Ok(None);
                }
                said.extend_from_slice(data);
            }
        }
        if !status.is_success() {
            return Err(format!("{path}: {status}: {}", reason(&String::from_utf8_lossy(&said))));
        }
        serde_json::from_slice(&said).map(Some).map_err(|why| format!("{path}: {why}"))
    }

    async fn json(&self, method: Method, path: &str, body: &Value) -> Result<Value, String> {
        let body = if body.is_null() { Bytes::new() } else { body.to_string().into() };
        let said = self.call(method, path, JSON, body).await?;
        serde_json::from_str(&said).map_err(|why| format!("{path}: {why}"))
    }

    /// A call that must succeed; the beginning of its answer.
    async fn call(&self, method: Method, path: &str, kind: &str, body: Bytes) -> Result<String, String> {
        let work = async {
            let (status, mut answer, _tasks) = self.send(method, path, kind, body).await?;
            let mut said = Vec::new();
            while let Some(frame) = answer.frame().await {
                if let Some(data) = frame.map_err(|why| why.to_string())?.data_ref() {
                    said.extend_from_slice(&data[..data.len().min(KEPT.saturating_sub(said.len()))]);
                }
            }
            let said = String::from_utf8_lossy(&said).into_owned();
            if status.is_success() { Ok(said) } else { Err(format!("{path}: {status}: {}", reason(&said))) }
        };
        tokio::time::timeout(LONGEST, work).await.map_err(|_| format!("{path}: no answer within {LONGEST:?}"))?
    }

    /// The connection ends with the answer's third part.
    async fn send(
        &self,
        method: Method,
        path: &str,
        kind: &str,
        body: Bytes,
    ) -> Result<(StatusCode, Incoming, JoinSet<hyper::Result<()>>), String> {
        let stream = TcpStream::connect(self.at).await.map_err(|why| why.to_string())?;
        let opened = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = opened.map_err(|why| why.to_string())?;
        let mut tasks = JoinSet::new();
        tasks.spawn(connection);
        let mut request = http::Request::builder()
            .method(method)
            .uri(path)
            .header(http::header::HOST, self.at.to_string())
            .header(http::header::CONTENT_TYPE, kind);
        if let Some(login) = &self.login {
            request = request.header(http::header::AUTHORIZATION, login);
        }
        let request = request.body(Full::new(body)).map_err(|why| why.to_string())?;
        let answer = sender.send_request(request).await.map_err(|why| why.to_string())?;
        Ok((answer.status(), answer.into_body(), tasks))
    }
}

#[derive(Debug, Default)]
struct Page {
    found: Option<usize>,
    more: bool,
    scroll: String,
}

/// Names of indices, patterns of them, and of snapshots: nothing that would be another path.
fn is_index(name: &str) -> bool {
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'*' | b',');
    !name.is_empty() && name.len() <= 255 && name.bytes().all(good) && !name.starts_with(['_', '.'])
}

/// The first reason in an answer, for people.
fn reason(said: &str) -> String {
    let found = said.split_once("\"reason\":\"").map_or(said, |(_, rest)| rest.split("\",\"").next().unwrap_or(rest));
    found.chars().filter(|c| !c.is_control()).take(300).collect()
}

/// Moves what was unpacked to where the store finds it: data into its volume, a repository aside. Answers the
/// repository, readable for the node's user.
///
/// # Errors
/// The disk refuses.
pub(super) fn place(unpacked: &Path, volume: &Path) -> io::Result<Option<PathBuf>> {
    if is_repository(unpacked) {
        readable(unpacked)?;
        return Ok(Some(unpacked.to_owned()));
    }
    for entry in std::fs::read_dir(unpacked)? {
        let entry = entry?;
        std::fs::rename(entry.path(), volume.join(entry.file_name()))?;
    }
    if let Ok(meta) = std::fs::metadata(unpacked) {
        use std::os::unix::fs::MetadataExt as _;
        std::os::unix::fs::chown(volume, Some(meta.uid()), Some(meta.gid()))?;
        std::fs::set_permissions(volume, meta.permissions())?;
    }
    std::fs::remove_dir(unpacked)?;
    Ok(None)
}

/// Lets everybody who comes into the container read what lies there.
fn readable(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755))?;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            readable(&entry.path())?;
        } else if kind.is_file() {
            std::fs::set_permissions(entry.path(), std::fs::Permissions::from_mode(0o644))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_is_told_from_a_data_folder() {
        let folder = tempfile::tempdir().expect("a folder");
        let (unpacked, volume) = (folder.path().join("unpacked"), folder.path().join("volume"));
        std::fs::create_dir_all(unpacked.join("nodes/0")).expect("made");
        std::fs::create_dir(&volume).expect("made");
        std::fs::write(unpacked.join("nodes/0/node.lock"), "").expect("written");
        std::fs::write(unpacked.join("index-x"), "").expect("written");
        assert_eq!(place(&unpacked, &volume).expect("placed"), None);
        assert!(volume.join("nodes/0/node.lock").exists() && !unpacked.exists());
        prepare(&volume).expect("prepared");
        assert!(!volume.join("nodes/0/node.lock").exists());

        std::fs::create_dir(&unpacked).expect("made");
        std::fs::write(unpacked.join("index-12"), "").expect("written");
        assert_eq!(place(&unpacked, &volume).expect("placed"), Some(unpacked));
    }

    #[test]
    fn names_that_lead_to_another_path_are_refused() {
        for bad in ["", "_all", "a/b", "a?b", ".security", "a b"] {
            assert!(!is_index(bad), "{bad}");
        }
        assert!(is_index("people-2026.11,logs-*"));
    }

    #[test]
    fn what_a_node_says_is_cut_to_its_reason() {
        let said = r#"{"errors":true,"items":[{"index":{"error":{"type":"x","reason":"no such field","index":"a"}}}]}"#;
        assert_eq!(reason(said), "no such field");
        assert_eq!(reason("plain\n"), "plain");
    }
}
