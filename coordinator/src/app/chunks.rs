//! Chunks of seeds in the artifact store: taken from hosts that push, given to hosts that pull.

use std::collections::BTreeSet;
use std::io::Read as _;

use bytes::{Bytes, BytesMut};
use domain::ids::SeedId;
use domain::release::Digest;
use prost::Message as _;
use proto::{MAX_HASHES, MAX_SEED_CHUNK, MAX_SEED_INDEX, MAX_SEED_MANIFEST, v1};

use super::App;
use super::seed_copy_reports::{damaged, pulls, pushes};
use crate::auth::Agent;
use crate::error::{Code, Error, Result};
use crate::store::Tx;
use crate::store::chunk::{ChunkRow, SegmentRow};
use crate::store::secret::SecretRow;

/// The kind under which manifests are sealed: they say how databases are entered.
pub const MANIFEST: &str = "seed-manifest";
/// A segment has at least so many bytes, but for the last one of a push.
const SEGMENT: usize = 8 << 20;
/// Segments that are removed in one go.
const SWEEP: u32 = 500;

/// Where a segment lies.
pub(super) fn segment_path(segment: &str) -> String {
    format!("chunks/{segment}")
}

fn index_path(seed: SeedId) -> String {
    format!("seed-index/{seed}")
}

/// Reads hashes that stand one after the other.
///
/// # Errors
/// They are not whole, or too many.
pub fn hashes(bytes: &[u8]) -> Result<Vec<Digest>> {
    let (whole, rest) = bytes.as_chunks::<32>();
    if !rest.is_empty() {
        return Err(Error::new(Code::FIELD, "hashes of chunks have 32 bytes each"));
    }
    if whole.len() > MAX_HASHES {
        return Err(Error::new(Code::TOO_LARGE, format!("at most {MAX_HASHES} hashes of chunks in one request")));
    }
    Ok(whole.iter().map(crate::ca::digest).collect())
}

/// Which of these the store lacks. What it has is the seed's from now on.
///
/// # Errors
/// The host has no order to push it.
pub async fn missing(app: &App, agent: &Agent, seed: SeedId, asked: Vec<Digest>) -> Result<Vec<Digest>> {
    let asked = &asked;
    app.store
        .write(|tx| {
            Box::pin(async move {
                pushes(tx, agent.id, seed).await?;
                let there = need(tx, seed, asked).await?;
                Ok(asked.iter().filter(|hash| !there.contains(*hash)).cloned().collect())
            })
        })
        .await
}

/// Notes that the seed needs those of the chunks that there are, and answers which these are.
async fn need(tx: &mut dyn Tx, seed: SeedId, asked: &[Digest]) -> Result<BTreeSet<Digest>> {
    let there = tx.chunk_list(asked).await?;
    let segments: BTreeSet<&str> = there.iter().map(|row| row.segment.as_str()).collect();
    for segment in segments {
        tx.chunk_ref_put(seed, segment).await?;
    }
    Ok(there.into_iter().map(|row| row.hash).collect())
}

/// Chunks on their way in.
#[derive(Debug)]
pub struct Receiving {
    seed: SeedId,
    bytes: BytesMut,
    chunks: Vec<ChunkRow>,
    stored: u64,
}

impl Receiving {
    /// Of this seed; none has come yet.
    ///
    /// # Errors
    /// The host has no order to push it.
    pub async fn begin(app: &App, agent: &Agent, seed: SeedId) -> Result<Self> {
        let host = agent.id;
        app.store.read(|view| Box::pin(async move { pushes(view, host, seed).await })).await?;
        Ok(Self { seed, bytes: BytesMut::new(), chunks: Vec::new(), stored: 0 })
    }

    /// One more.
    ///
    /// # Errors
    /// It does not fit its hash, is too large, or cannot be stored.
    pub async fn take(&mut self, app: &App, agent: &Agent, chunk: v1::Chunk) -> Result<()> {
        let hash = checked(&chunk)?;
        let (begins, length) = (self.bytes.len() as u64, chunk.data.len() as u64);
        self.bytes.extend_from_slice(&chunk.data);
        self.chunks.push(ChunkRow { hash, segment: String::new(), begins, length, packed: chunk.packed });
        if self.bytes.len() >= SEGMENT {
            self.flush(app, agent).await?;
        }
        Ok(())
    }

    /// No more come. Answers how many bytes were stored.
    ///
    /// # Errors
    /// They cannot be.
    pub async fn finish(mut self, app: &App, agent: &Agent) -> Result<u64> {
        self.flush(app, agent).await?;
        Ok(self.stored)
    }

    /// The bytes first, then the rows that say where they are.
    async fn flush(&mut self, app: &App, agent: &Agent) -> Result<()> {
        if self.chunks.is_empty() {
            return Ok(());
        }
        let bytes = self.bytes.split().freeze();
        let length = bytes.len() as u64;
        app.artifacts.room_for(length)?;
        let segment = app.ids.uuid().to_string();
        app.artifacts.put(&segment_path(&segment), bytes).await?;
        let mut chunks = std::mem::take(&mut self.chunks);
        for chunk in &mut chunks {
            chunk.segment.clone_from(&segment);
        }
        let row = SegmentRow { segment: segment.clone(), bytes: length, created_at: app.now() };
        let (row, chunks, seed) = (&row, &chunks, self.seed);
        let noted = app
            .store
            .write(|tx| {
                Box::pin(async move {
                    pushes(tx, agent.id, seed).await?;
                    tx.chunk_segment_put(row, chunks).await?;
                    tx.chunk_ref_put(seed, &row.segment).await?;
                    // Somebody else may have sent the same meanwhile.
                    let hashes: Vec<Digest> = chunks.iter().map(|chunk| chunk.hash.clone()).collect();
                    need(tx, seed, &hashes).await?;
                    Ok::<_, Error>(())
                })
            })
            .await;
        if let Err(error) = noted {
            app.artifacts.remove_path(&segment_path(&segment)).await?;
            return Err(error);
        }
        self.stored += length;
        Ok(())
    }
}

/// The hash of a chunk, once it was seen to be right.
fn checked(chunk: &v1::Chunk) -> Result<Digest> {
    let hash: &[u8; 32] =
        chunk.hash.as_slice().try_into().map_err(|_| Error::new(Code::FIELD, "the hash of a chunk has 32 bytes"))?;
    if chunk.data.len() > MAX_SEED_CHUNK {
        return Err(Error::new(Code::TOO_LARGE, format!("a chunk of a seed has at most {MAX_SEED_CHUNK} bytes")));
    }
    if fits(hash, &chunk.data, chunk.packed) {
        return Ok(crate::ca::digest(hash));
    }
    Err(Error::new(Code::SEED_CHUNK, "a chunk came with another hash than it has; push the seed again"))
}

fn fits(hash: &[u8; 32], data: &[u8], packed: bool) -> bool {
    let of = |plain: &[u8]| transport::pin::sha256(plain) == *hash;
    if !packed {
        return of(data);
    }
    let mut plain = Vec::with_capacity(data.len().saturating_mul(2).min(MAX_SEED_CHUNK));
    let limit = MAX_SEED_CHUNK as u64 + 1;
    let read = flate2::read::DeflateDecoder::new(data).take(limit).read_to_end(&mut plain);
    read.is_ok() && plain.len() <= MAX_SEED_CHUNK && of(&plain)
}

/// Takes a seed's index and manifest: from now on any host can be given it. Answers the index's hash.
///
/// # Errors
/// It is malformed, one of its chunks is not in the store, or the host has no order to push it.
pub async fn put_index(app: &App, agent: &Agent, seed: SeedId, manifest: &[u8], bytes: Bytes) -> Result<Digest> {
    if manifest.len() > MAX_SEED_MANIFEST {
        return Err(Error::new(Code::TOO_LARGE, format!("a manifest has at most {MAX_SEED_MANIFEST} bytes")));
    }
    let wanted = &named(&bytes)?;
    let digest = &crate::ca::digest(&transport::pin::sha256(&bytes));
    let host = agent.id;
    app.store.read(|view| Box::pin(async move { pushes(view, host, seed).await })).await?;
    app.artifacts.room_for(bytes.len() as u64)?;
    app.artifacts.put(&index_path(seed), bytes).await?;
    let id = seed.to_string();
    let sealed = app.vault.seal(MANIFEST, &id, manifest).map_err(Error::internal)?;
    let sealed = &sealed;
    app.store
        .write(|tx| {
            Box::pin(async move {
                let mut row = pushes(tx, host, seed).await?;
                let there = need(tx, seed, wanted).await?;
                let lacking = wanted.iter().filter(|hash| !there.contains(*hash)).count();
                if lacking > 0 {
                    let text = format!("{lacking} chunks of the index are not in the store; send them first");
                    return Err(Error::new(Code::SEED_INDEX, text));
                }
                row.copy.index = Some(digest.clone());
                tx.seed_copy_put(&row).await?;
                let secret = SecretRow {
                    project: row.project,
                    kind: MANIFEST.to_owned(),
                    id: seed.to_string(),
                    sealed: sealed.clone(),
                    created_at: app.now(),
                };
                tx.secret_put(&secret).await?;
                Ok(())
            })
        })
        .await?;
    Ok(digest.clone())
}

/// The chunks that an index names.
fn named(bytes: &[u8]) -> Result<Vec<Digest>> {
    let wrong = |text: &str| Error::new(Code::SEED_INDEX, format!("the index of the seed {text}"));
    if bytes.len() > MAX_SEED_INDEX {
        return Err(Error::new(Code::TOO_LARGE, format!("an index has at most {MAX_SEED_INDEX} bytes")));
    }
    let index = v1::SeedIndex::decode(bytes).map_err(|_| wrong("cannot be read"))?;
    let (whole, rest) = index.hashes.as_chunks::<32>();
    if !rest.is_empty() || whole.len() != index.lengths.len() {
        return Err(wrong("has hashes and lengths that do not fit"));
    }
    Ok(whole.iter().map(crate::ca::digest).collect())
}

/// A seed's manifest and index, for a host that pulls it.
///
/// # Errors
/// The host has no order to, or the index is damaged.
pub async fn index(app: &App, agent: &Agent, seed: SeedId) -> Result<(Vec<u8>, Bytes)> {
    let (host, id) = (agent.id, seed.to_string());
    let (row, sealed) = app
        .store
        .read(|view| {
            Box::pin(async move {
                let row = pulls(view, host, seed).await?;
                Ok::<_, Error>((row, view.secret_get(MANIFEST, &id).await?))
            })
        })
        .await?;
    let sealed = sealed.ok_or_else(|| Error::internal(format!("the seed {seed} has no manifest in the store")))?;
    let manifest = app.vault.open_sealed(MANIFEST, &seed.to_string(), &sealed.sealed).map_err(Error::internal)?;
    let bytes = app.artifacts.whole(&index_path(seed), MAX_SEED_INDEX as u64).await?;
    if row.copy.index != Some(crate::ca::digest(&transport::pin::sha256(&bytes))) {
        return Err(Error::new(Code::SEED_CHUNK, "the seed's index in the coordinator's store is damaged"));
    }
    Ok((manifest, bytes))
}

/// Where these chunks lie, in the order they are asked for.
///
/// # Errors
/// The host has no order to pull the seed, or one is none of its chunks.
pub async fn find(app: &App, agent: &Agent, seed: SeedId, asked: Vec<Digest>) -> Result<Vec<ChunkRow>> {
    let (host, wanted) = (agent.id, &asked);
    let (found, segments) = app
        .store
        .read(|view| {
            Box::pin(async move {
                pulls(view, host, seed).await?;
                Ok::<_, Error>((view.chunk_list(wanted).await?, view.chunk_segments_of(seed).await?))
            })
        })
        .await?;
    let segments: BTreeSet<String> = segments.into_iter().collect();
    let own = found.into_iter().filter(|row| segments.contains(&row.segment));
    let own: std::collections::BTreeMap<Digest, ChunkRow> = own.map(|row| (row.hash.clone(), row)).collect();
    let gone = || Error::new(Code::SEED_CHUNK, "a chunk of the seed is not in the coordinator's store; push it again");
    asked.iter().map(|hash| own.get(hash).cloned().ok_or_else(gone)).collect()
}

/// A chunk as it lies there, seen to be right.
///
/// # Errors
/// It is damaged: the store's copies that need it are given up.
pub async fn read(app: &App, row: &ChunkRow) -> Result<v1::Chunk> {
    let hash: [u8; 32] = hex::decode(row.hash.hex()).ok().and_then(|hash| hash.try_into().ok()).unwrap_or_default();
    let read = app.artifacts.get(&segment_path(&row.segment), row.begins..row.begins + row.length).await;
    match read {
        Ok(data) if fits(&hash, &data, row.packed) => Ok(v1::Chunk { hash: hash.to_vec(), data, packed: row.packed }),
        Ok(_) => lost(app, row, "has other bytes than were put there").await,
        Err(error) if error.code == Code::ARTIFACT_NOT_FOUND => lost(app, row, "is gone").await,
        Err(error) => Err(error),
    }
}

async fn lost(app: &App, row: &ChunkRow, what: &str) -> Result<v1::Chunk> {
    let text = format!("a chunk in the coordinator's store {what} (artifacts/{})", segment_path(&row.segment));
    tracing::error!(segment = row.segment, what, "a chunk in the store is damaged");
    damaged(app, &row.segment, &text).await?;
    Err(Error::new(Code::SEED_CHUNK, format!("{text}; try again: the seed is pushed anew")))
}

/// Removes the bytes that no seed needs any more, and the index of a seed that went.
///
/// # Errors
/// What the store says.
pub async fn sweep(app: &App, gone: Option<SeedId>) -> Result<()> {
    if let Some(seed) = gone {
        app.artifacts.remove_path(&index_path(seed)).await?;
    }
    loop {
        let unused = app
            .store
            .write(|tx| {
                Box::pin(async move {
                    let unused = tx.chunk_segments_unused(SWEEP).await?;
                    for segment in &unused {
                        tx.chunk_segment_delete(segment).await?;
                    }
                    Ok::<_, Error>(unused)
                })
            })
            .await?;
        for segment in &unused {
            app.artifacts.remove_path(&segment_path(segment)).await?;
        }
        if unused.len() < SWEEP as usize {
            return Ok(());
        }
    }
}

/// Removes segments that a kill left without a row. Called at start, when none are under way.
///
/// # Errors
/// What the store says.
pub async fn sweep_lost(app: &App) -> Result<()> {
    for path in app.artifacts.list("chunks").await? {
        let Some(segment) = path.strip_prefix("chunks/").map(str::to_owned) else { continue };
        let known = app
            .store
            .read(|view| Box::pin(async move { Ok::<_, Error>(view.chunk_segment_exists(&segment).await?) }))
            .await?;
        if !known {
            app.artifacts.remove_path(&path).await?;
        }
    }
    Ok(())
}
