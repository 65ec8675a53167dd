//! An image archive as `docker save` writes it, checked while it streams to the engine.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};

use bytes::Bytes;
use futures::StreamExt as _;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio::sync::{mpsc, oneshot};

use crate::engine::ByteStream;

/// Most files of an archive.
const MAX_ENTRIES: usize = 20_000;
/// Largest manifest or configuration in bytes.
const MAX_JSON: u64 = 8 << 20;

/// Manifest and configuration of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// SHA-256 of the configuration, hexadecimal: the image's identity.
    pub config_digest: String,
    /// Path of the configuration in the archive.
    pub config: String,
    /// Digests of the uncompressed layers (`sha256:…`), lowest first.
    pub diff_ids: Vec<String>,
    /// Paths of the layers in the archive, in the same order.
    pub layers: Vec<String>,
}

impl Head {
    /// Reads an archive that has no layers (or has them; they are passed over).
    ///
    /// # Errors
    /// What is missing or does not fit together.
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        let mut files = BTreeMap::new();
        let mut archive = tar::Archive::new(bytes);
        for entry in archive.entries().map_err(|why| why.to_string())?.take(MAX_ENTRIES) {
            let entry = entry.map_err(|why| why.to_string())?;
            let path = entry.path().map_err(|why| why.to_string())?.to_string_lossy().into_owned();
            if entry.size() <= MAX_JSON {
                let mut content = Vec::new();
                entry.take(MAX_JSON).read_to_end(&mut content).map_err(|why| why.to_string())?;
                files.insert(path, content);
            }
        }
        let manifest = files.get("manifest.json").ok_or("the archive has no manifest.json")?;
        let manifest: Value = serde_json::from_slice(manifest).map_err(|why| format!("manifest.json: {why}"))?;
        let config = manifest[0]["Config"].as_str().ok_or("manifest.json names no configuration")?;
        let content = files.get(config).ok_or("the archive has no configuration")?;
        let parsed: Value = serde_json::from_slice(content).map_err(|why| format!("{config}: {why}"))?;
        let head = Self {
            config_digest: hex::encode(Sha256::digest(content)),
            config: config.to_owned(),
            diff_ids: texts(&parsed["rootfs"]["diff_ids"]),
            layers: texts(&manifest[0]["Layers"]),
        };
        if head.diff_ids.is_empty() || head.diff_ids.len() != head.layers.len() {
            return Err("manifest.json and the configuration name different layers".to_owned());
        }
        Ok(head)
    }
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(|one| one.as_str().map(str::to_owned)).collect()
}

/// Passes an archive on, checking the configuration and every layer, and naming the image `name` in it. The stream
/// ends with an error at the first thing that is wrong; the receiver tells what it was.
pub fn verify(
    incoming: ByteStream,
    head: Head,
    skipped: BTreeSet<String>,
    name: String,
) -> (ByteStream, oneshot::Receiver<Result<(), String>>) {
    let (out, outgoing) = mpsc::channel(8);
    let (done, outcome) = oneshot::channel();
    let reader = Incoming::begin(incoming);
    tokio::task::spawn_blocking(move || {
        let result = pass(reader, &head, &skipped, &name, Outgoing { out: out.clone(), buffer: Vec::new() });
        if let Err(why) = &result {
            let _ = out.blocking_send(Err(io::Error::other(why.clone())));
        }
        let _ = done.send(result);
    });
    (tokio_stream::wrappers::ReceiverStream::new(outgoing).boxed(), outcome)
}

fn pass(reader: Incoming, head: &Head, skipped: &BTreeSet<String>, name: &str, writer: Outgoing) -> Result<(), String> {
    let text = |why: io::Error| why.to_string();
    let mut missing: BTreeSet<&str> = head
        .layers
        .iter()
        .zip(&head.diff_ids)
        .filter(|(_, id)| !skipped.contains(*id))
        .map(|(path, _)| path.as_str())
        .collect();
    let mut archive = tar::Archive::new(reader);
    let mut out = tar::Builder::new(writer);
    let mut config_seen = false;
    for (count, entry) in archive.entries().map_err(text)?.enumerate() {
        let mut entry = entry.map_err(text)?;
        if count >= MAX_ENTRIES {
            return Err(format!("the archive has more than {MAX_ENTRIES} files"));
        }
        let path = entry.path().map_err(text)?.to_string_lossy().into_owned();
        let mut header = entry.header().clone();
        if path == "manifest.json" {
            let manifest =
                serde_json::json!([{ "Config": head.config, "RepoTags": [name], "Layers": head.layers }]).to_string();
            header.set_size(manifest.len() as u64);
            out.append_data(&mut header, &path, manifest.as_bytes()).map_err(text)?;
            continue;
        }
        if path == "repositories" || path == "index.json" && head.config.starts_with("blobs/") {
            // They would give names of their own.
            continue;
        }
        let layer = head.layers.iter().position(|one| *one == path);
        let expected = layer.map(|index| head.diff_ids[index].as_str());
        if !entry.header().entry_type().is_file() {
            if entry.header().entry_type().is_symlink() {
                missing.remove(path.as_str());
            }
            append_other(&mut out, &mut header, &path, &entry)?;
            continue;
        }
        let mut hashing = Hashing { from: &mut entry, hash: Sha256::new(), plain: Plain::default() };
        out.append_data(&mut header, &path, &mut hashing).map_err(text)?;
        let (raw, plain) = hashing.finish();
        if let Some(expected) = expected {
            if expected != format!("sha256:{raw}")
                && plain.as_ref().is_none_or(|plain| expected != format!("sha256:{plain}"))
            {
                return Err(format!("layer {path} has another hash than its {expected}"));
            }
            missing.remove(path.as_str());
        }
        if path == head.config {
            config_seen = true;
            if raw != head.config_digest {
                return Err("the archive's configuration changed on the way".to_owned());
            }
        }
    }
    if !config_seen || !missing.is_empty() {
        return Err(format!("the archive ended early: {} layers are missing", missing.len()));
    }
    out.into_inner().map_err(text)?.flush().map_err(text)
}

fn append_other<R: Read>(
    out: &mut tar::Builder<Outgoing>,
    header: &mut tar::Header,
    path: &str,
    entry: &tar::Entry<'_, R>,
) -> Result<(), String> {
    let link = entry.link_name().map_err(|why| why.to_string())?.map(|link| link.into_owned());
    header.set_size(0);
    let appended = match link {
        Some(link) => out.append_link(header, path, link),
        None => out.append_data(header, path, io::empty()),
    };
    appended.map_err(|why| why.to_string())
}

/// Hashes what is read, as it is and, if it is compressed, what is in it.
struct Hashing<R> {
    from: R,
    hash: Sha256,
    plain: Plain,
}

#[derive(Default)]
enum Plain {
    #[default]
    Unknown,
    No,
    Gzip(Box<flate2::write::MultiGzDecoder<Digesting>>),
    Broken,
}

#[derive(Default)]
struct Digesting(Sha256);

impl Write for Digesting {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(buffer)?;
        let bytes = &buffer[..read];
        self.hash.update(bytes);
        if matches!(self.plain, Plain::Unknown) && read > 0 {
            let gzip = bytes.starts_with(&[0x1f, 0x8b]);
            self.plain = if gzip {
                Plain::Gzip(Box::new(flate2::write::MultiGzDecoder::new(Digesting::default())))
            } else {
                Plain::No
            };
        }
        if let Plain::Gzip(decoder) = &mut self.plain
            && decoder.write_all(bytes).is_err()
        {
            self.plain = Plain::Broken;
        }
        Ok(read)
    }
}

impl<R> Hashing<R> {
    fn finish(self) -> (String, Option<String>) {
        let plain = match self.plain {
            Plain::Gzip(decoder) => decoder.finish().ok().map(|digesting| hex::encode(digesting.0.finalize())),
            _ => None,
        };
        (hex::encode(self.hash.finalize()), plain)
    }
}

/// Pieces from a stream as a blocking reader.
struct Incoming {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    present: Bytes,
}

impl Incoming {
    fn begin(mut stream: ByteStream) -> Self {
        let (send, pieces) = mpsc::channel(8);
        tokio::spawn(async move {
            while let Some(piece) = stream.next().await {
                if send.send(piece).await.is_err() {
                    return;
                }
            }
        });
        Self { pieces, present: Bytes::new() }
    }
}

impl Read for Incoming {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.present.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => self.present = piece?,
                None => return Ok(0),
            }
        }
        let length = buffer.len().min(self.present.len());
        buffer[..length].copy_from_slice(&self.present.split_to(length));
        Ok(length)
    }
}

/// A blocking writer as pieces of a stream.
struct Outgoing {
    out: mpsc::Sender<io::Result<Bytes>>,
    buffer: Vec<u8>,
}

impl Write for Outgoing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= 256 << 10 {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let piece = Bytes::from(std::mem::take(&mut self.buffer));
        self.out
            .blocking_send(Ok(piece))
            .map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "the engine stopped reading"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Engine as _;
    use crate::engine::fake::Fake;

    fn archive(layers: &[(&str, &[u8])], claimed: &[&[u8]]) -> Vec<u8> {
        let diff_ids: Vec<String> =
            claimed.iter().map(|bytes| format!("sha256:{}", hex::encode(Sha256::digest(bytes)))).collect();
        let config = serde_json::json!({ "rootfs": { "diff_ids": diff_ids } }).to_string();
        let config_path = format!("{}.json", hex::encode(Sha256::digest(&config)));
        let names: Vec<String> = (0..claimed.len()).map(|index| format!("l{index}/layer.tar")).collect();
        let manifest =
            serde_json::json!([{ "Config": config_path, "RepoTags": ["evil:1"], "Layers": names }]).to_string();
        let mut tar = tar::Builder::new(Vec::new());
        let mut add = |path: &str, bytes: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, path, bytes).expect("added");
        };
        for (path, bytes) in layers {
            add(path, bytes);
        }
        add(&config_path, config.as_bytes());
        add("manifest.json", manifest.as_bytes());
        tar.into_inner().expect("a tar")
    }

    async fn load(bytes: Vec<u8>, skipped: &[&[u8]]) -> (Fake, Result<(), String>) {
        let fake = Fake::new();
        let head = Head::read(&bytes).expect("a head");
        let skipped = skipped.iter().map(|bytes| format!("sha256:{}", hex::encode(Sha256::digest(bytes)))).collect();
        let pieces: Vec<io::Result<Bytes>> = bytes.chunks(100).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        let (stream, outcome) =
            verify(futures::stream::iter(pieces).boxed(), head, skipped, "muster-release:x".to_owned());
        let loaded = fake.load(stream).await;
        let outcome = outcome.await.expect("checked");
        assert_eq!(loaded.is_ok(), outcome.is_ok());
        (fake, outcome)
    }

    #[tokio::test]
    async fn a_good_archive_is_loaded_under_our_name_only() {
        let (fake, outcome) =
            load(archive(&[("l0/layer.tar", b"one"), ("l1/layer.tar", b"two")], &[b"one", b"two"]), &[]).await;
        assert_eq!(outcome, Ok(()));
        assert_eq!(fake.calls(), ["load muster-release:x"]);
    }

    #[tokio::test]
    async fn layers_that_the_host_has_may_be_missing_and_others_may_not() {
        let bytes = archive(&[("l1/layer.tar", b"two")], &[b"one", b"two"]);
        assert_eq!(load(bytes.clone(), &[b"one"]).await.1, Ok(()));
        assert!(load(bytes, &[]).await.1.expect_err("refused").contains("missing"));
    }

    #[tokio::test]
    async fn a_layer_with_another_hash_is_refused() {
        let (fake, outcome) = load(archive(&[("l0/layer.tar", b"bad")], &[b"one"]), &[]).await;
        assert!(outcome.expect_err("refused").contains("another hash"));
        assert!(fake.calls().is_empty());
    }

    #[tokio::test]
    async fn a_compressed_layer_is_checked_by_what_is_in_it() {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(b"one").expect("compressed");
        let gzip = gzip.finish().expect("compressed");
        assert_eq!(load(archive(&[("l0/layer.tar", &gzip)], &[b"one"]), &[]).await.1, Ok(()));
    }
}
