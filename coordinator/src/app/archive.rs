//! Archives of images as `docker save` writes them: what is in one, and one with layers left out.
//!
//! Both layouts are read, the older one and the OCI one: each has a `manifest.json` that names the configuration and
//! the layers. Nothing is unpacked; only headers, `manifest.json` and the configuration are looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use bytes::Bytes;
use domain::release::Digest;
use serde::Deserialize;

use crate::artifacts::{Artifacts, Stored};
use crate::error::{Code, Error, Result};

const BLOCK: u64 = 512;
const MAX_ENTRIES: usize = 20_000;
const MAX_NAME: u64 = 4 << 10;
const MAX_MANIFEST: u64 = 1 << 20;
const MAX_CONFIG: u64 = 8 << 20;

/// Where the bytes come from.
#[derive(Debug)]
pub enum Source<'a> {
    /// An upload that is being looked at.
    Stored(&'a Stored),
    /// An artifact.
    Artifact(&'a Artifacts, &'a Digest, u64),
}

impl Source<'_> {
    fn len(&self) -> u64 {
        match self {
            Self::Stored(stored) => stored.bytes,
            Self::Artifact(_, _, bytes) => *bytes,
        }
    }

    /// Bytes of it.
    ///
    /// # Errors
    /// It is shorter, or the store does not answer.
    pub async fn read(&self, range: Range<u64>) -> Result<Bytes> {
        if range.end > self.len() {
            return Err(bad("it ends in the middle of a file; it was cut off"));
        }
        match self {
            Self::Stored(stored) => stored.read(range).await,
            Self::Artifact(artifacts, digest, _) => artifacts.read(digest, range).await,
        }
    }
}

/// An image's archive, understood.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Archive {
    /// SHA-256 of the configuration: the image's identity.
    pub config_digest: Digest,
    /// `linux/amd64`
    pub platform: String,
    config_path: String,
    /// Path of each layer's file with its diff ids (the same file can stand for several equal layers).
    layers: BTreeMap<String, BTreeSet<Digest>>,
    entries: Vec<Entry>,
}

/// A file in the archive, with the extension headers before it.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Entry {
    name: String,
    /// From its first header to the next file's first header.
    whole: Range<u64>,
    content: Range<u64>,
}

#[derive(Deserialize)]
struct ManifestEntry {
    #[serde(rename = "Config")]
    config: String,
    #[serde(rename = "Layers")]
    layers: Vec<String>,
}

#[derive(Deserialize)]
struct ImageConfig {
    os: String,
    architecture: String,
    variant: Option<String>,
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Vec<String>,
}

fn bad(why: impl std::fmt::Display) -> Error {
    Error::new(Code::ARCHIVE, format!("this is not an image archive as `docker save` writes it: {why}"))
}

/// Reads what is in an archive.
///
/// # Errors
/// `E_ARCHIVE`: it is not one image's archive, or its parts do not fit together.
pub async fn read(source: &Source<'_>) -> Result<Archive> {
    let entries = entries(source).await?;
    let manifest = file(source, &entries, "manifest.json", MAX_MANIFEST).await?;
    let mut images: Vec<ManifestEntry> =
        serde_json::from_slice(&manifest).map_err(|why| bad(format_args!("manifest.json: {why}")))?;
    let image = match (images.pop(), images.len()) {
        (Some(image), 0) => image,
        (None, _) => return Err(bad("manifest.json names no image")),
        (Some(_), more) => return Err(bad(format_args!("it holds {} images; save one", more + 1))),
    };
    let config = file(source, &entries, &image.config, MAX_CONFIG).await?;
    let digest = crate::ca::digest(&transport::pin::sha256(&config));
    if !image.config.contains(digest.hex()) {
        return Err(bad(format_args!("the configuration {:?} has another hash than its name says", image.config)));
    }
    let parsed: ImageConfig =
        serde_json::from_slice(&config).map_err(|why| bad(format_args!("its configuration: {why}")))?;
    let layers = pair_layers(&image.layers, &parsed.rootfs.diff_ids, &entries)?;
    let variant = parsed.variant.filter(|text| !text.is_empty()).map(|text| format!("/{text}")).unwrap_or_default();
    let platform = format!("{}/{}{variant}", parsed.os, parsed.architecture);
    check_platform(&platform)?;
    Ok(Archive { config_digest: digest, platform, config_path: image.config, layers, entries })
}

/// Checks `os/architecture[/variant]`.
///
/// # Errors
/// `E_PLATFORM`
pub fn check_platform(platform: &str) -> Result<()> {
    let part = |part: &str| {
        (1..=32).contains(&part.len())
            && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    };
    let parts: Vec<&str> = platform.split('/').collect();
    if (2..=3).contains(&parts.len()) && parts.iter().all(|text| part(text)) {
        return Ok(());
    }
    let text = format!(
        "{:?} is not a platform; write OS/ARCHITECTURE, for example linux/amd64",
        super::text::line(platform, 80)
    );
    Err(Error::new(Code::PLATFORM, text))
}

fn pair_layers(paths: &[String], diff_ids: &[String], entries: &[Entry]) -> Result<BTreeMap<String, BTreeSet<Digest>>> {
    if paths.len() != diff_ids.len() {
        let (a, b) = (paths.len(), diff_ids.len());
        return Err(bad(format_args!("manifest.json names {a} layers, the configuration {b}")));
    }
    let names: BTreeSet<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
    let mut layers: BTreeMap<String, BTreeSet<Digest>> = BTreeMap::new();
    for (path, diff_id) in paths.iter().zip(diff_ids) {
        if !names.contains(path.as_str()) {
            return Err(bad(format_args!("the layer {path:?} is not in it")));
        }
        layers.entry(path.clone()).or_default().insert(Digest::parse(diff_id).map_err(bad)?);
    }
    Ok(layers)
}

async fn file(source: &Source<'_>, entries: &[Entry], name: &str, limit: u64) -> Result<Bytes> {
    let entry =
        entries.iter().find(|entry| entry.name == name).ok_or_else(|| bad(format_args!("{name:?} is not in it")))?;
    let size = entry.content.end - entry.content.start;
    if size > limit {
        return Err(bad(format_args!("{name:?} has {size} bytes")));
    }
    source.read(entry.content.clone()).await
}

/// Walks the headers. Only what `docker save` writes is understood: ustar with GNU and pax long names.
async fn entries(source: &Source<'_>) -> Result<Vec<Entry>> {
    let mut all = Vec::new();
    let (mut at, mut begin, mut long_name) = (0, 0, None);
    while at + BLOCK <= source.len() {
        let block = source.read(at..at + BLOCK).await?;
        if block.iter().all(|byte| *byte == 0) {
            break;
        }
        let header = Header::read(&block, at)?;
        let content = at + BLOCK..(at + BLOCK).checked_add(header.size).ok_or_else(|| bad("a file's size"))?;
        if content.end > source.len() {
            return Err(bad("it ends in the middle of a file; it was cut off"));
        }
        let next = content.end.checked_next_multiple_of(BLOCK).ok_or_else(|| bad("a file's size"))?;
        match header.kind {
            b'L' | b'x' if header.size > MAX_NAME * 4 => return Err(bad("a file's name is too long")),
            b'L' => {
                let bytes = source.read(content).await?;
                let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
                long_name = Some(text(&bytes[..end])?);
            }
            b'x' => long_name = pax_path(&source.read(content).await?)?.or(long_name),
            b'g' | b'K' => {}
            _ => {
                let name = long_name.take().unwrap_or(header.name);
                all.push(Entry { name, whole: begin..next, content });
                begin = next;
            }
        }
        if all.len() > MAX_ENTRIES {
            return Err(bad(format_args!("it holds more than {MAX_ENTRIES} files")));
        }
        at = next;
    }
    Ok(all)
}

struct Header {
    name: String,
    size: u64,
    kind: u8,
}

impl Header {
    fn read(block: &[u8], at: u64) -> Result<Self> {
        if at == 0 && block.starts_with(&[0x1f, 0x8b]) {
            return Err(bad("it is compressed; give it as `docker save` writes it"));
        }
        let sum: u64 =
            block.iter().enumerate().map(|(n, byte)| if (148..156).contains(&n) { 32 } else { u64::from(*byte) }).sum();
        if octal(&block[148..156]) != Some(sum) {
            return Err(bad(format_args!("there is no tar header at byte {at}")));
        }
        let size = number(&block[124..136]).ok_or_else(|| bad(format_args!("a file's size at byte {at}")))?;
        let field = |range: Range<usize>| {
            let bytes = &block[range];
            let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
            text(&bytes[..end])
        };
        let mut name = field(0..100)?;
        if &block[257..262] == b"ustar" && block[263] == b'0' {
            let prefix = field(345..500)?;
            if !prefix.is_empty() {
                name = format!("{prefix}/{name}");
            }
        }
        // Links and folders have no content, whatever their size says.
        let kind = block[156];
        let size = if matches!(kind, b'1' | b'2' | b'5') { 0 } else { size };
        Ok(Self { name, size, kind })
    }
}

fn text(bytes: &[u8]) -> Result<String> {
    let name = std::str::from_utf8(bytes).map_err(|_| bad("a file's name is not UTF-8"))?;
    if name.len() as u64 > MAX_NAME {
        return Err(bad("a file's name is too long"));
    }
    Ok(name.to_owned())
}

fn octal(field: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(field).ok()?;
    let digits = text.trim_matches(|c| c == ' ' || c == '\0');
    if digits.is_empty() { Some(0) } else { u64::from_str_radix(digits, 8).ok() }
}

fn number(field: &[u8]) -> Option<u64> {
    // GNU's binary form, for files of 8 GiB and more.
    if field[0] & 0x80 == 0 {
        return octal(field);
    }
    let high = field[..4].iter().enumerate().any(|(n, byte)| if n == 0 { *byte != 0x80 } else { *byte != 0 });
    let low: [u8; 8] = field[4..12].try_into().ok()?;
    (!high).then(|| u64::from_be_bytes(low))
}

fn pax_path(bytes: &[u8]) -> Result<Option<String>> {
    let mut rest = bytes;
    let mut path = None;
    while !rest.is_empty() && rest[0] != 0 {
        let space = rest.iter().position(|byte| *byte == b' ').ok_or_else(|| bad("a pax header"))?;
        let length: usize = text(&rest[..space])?.parse().map_err(|_| bad("a pax header"))?;
        if length <= space + 1 || length > rest.len() {
            return Err(bad("a pax header"));
        }
        let record = rest[space + 1..length].strip_suffix(b"\n").ok_or_else(|| bad("a pax header"))?;
        match record.iter().position(|byte| *byte == b'=') {
            Some(equals) if &record[..equals] == b"path" => path = Some(text(&record[equals + 1..])?),
            // A size of its own would make the header's wrong.
            Some(equals) if &record[..equals] == b"size" => return Err(bad("a file's size in a pax header")),
            _ => {}
        }
        rest = &rest[length..];
    }
    Ok(path)
}

impl Archive {
    /// The byte ranges of the archive that make up one without these layers, in order; two empty blocks end it.
    #[must_use]
    pub fn without(&self, layers: &BTreeSet<Digest>) -> Vec<Range<u64>> {
        self.ranges(|entry| self.layers.get(&entry.name).is_none_or(|ids| !ids.is_subset(layers)))
    }

    /// The byte ranges of `manifest.json` and the configuration alone.
    #[must_use]
    pub fn head(&self) -> Vec<Range<u64>> {
        self.ranges(|entry| entry.name == "manifest.json" || entry.name == self.config_path)
    }

    /// The layers' diff ids.
    pub fn layers(&self) -> impl Iterator<Item = &Digest> {
        self.layers.values().flatten()
    }

    fn ranges(&self, keep: impl Fn(&Entry) -> bool) -> Vec<Range<u64>> {
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for entry in self.entries.iter().filter(|entry| keep(entry)) {
            match ranges.last_mut() {
                Some(last) if last.end == entry.whole.start => last.end = entry.whole.end,
                _ => ranges.push(entry.whole.clone()),
            }
        }
        ranges
    }
}

#[cfg(test)]
#[path = "archive_tests.rs"]
mod tests;
