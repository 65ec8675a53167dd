//! A seed of this host brought into the coordinator's store: only what the store lacks.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use proto::v1;
use proto::v1::put_index_request::Part;
use rustix::fs::FileType;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::Setup;
use super::index::{Hash, Index, hash, kind, path};
use super::moving::{AWAY, Breaks, Progress, client, pack, refused};
use super::sealed::{Sealed, missing};
use crate::environments::failure::Failure;
use crate::files;

/// Pushes as ordered. Answers how many bytes went over the network.
pub(super) async fn run(setup: &Setup, id: &str, digest: &str) -> Result<u64, Failure> {
    setup.tell_of(v1::SeedWork::Push, id, "reading the seed");
    let folder = setup.host.pool.seed(digest);
    let from = folder.clone();
    let read = tokio::task::spawn_blocking(move || {
        let sealed = Sealed::read(&from).map_err(|why| Failure::lasting("E_SEED_MISSING", why.to_string()))?;
        let sealed = sealed.ok_or_else(|| missing("the seed"))?;
        let manifest = files::read_limited(&from.join("seed.json"), proto::MAX_SEED_MANIFEST as u64);
        let manifest = manifest.map_err(|why| Failure::passing("E_POOL", why.to_string()))?;
        Ok::<_, Failure>((manifest, Index::of_seed(&from, &sealed)?))
    });
    let (manifest, index) = read.await.map_err(|why| Failure::passing("E_POOL", why.to_string()))??;
    let push = Push { setup, id, volumes: folder.join("volumes"), manifest, index: Arc::new(index) };
    let moved = std::sync::atomic::AtomicU64::new(0);
    let mut breaks = Breaks::none(setup, v1::SeedWork::Push, id);
    loop {
        let outcome = push.once(&moved).await;
        if let Some(done) = breaks.over(outcome).await {
            return done.map(|()| moved.into_inner());
        }
    }
}

struct Push<'a> {
    setup: &'a Setup,
    id: &'a str,
    volumes: PathBuf,
    manifest: Vec<u8>,
    index: Arc<Index>,
}

impl Push<'_> {
    async fn once(&self, moved: &std::sync::atomic::AtomicU64) -> Result<(), Failure> {
        let missing = self.missing().await?;
        let all = missing.values().map(|(_, _, length)| *length as u64).sum();
        let mut progress = Progress::new(self.setup, (v1::SeedWork::Push, self.id), all);
        progress.add(0);
        self.send(missing, moved, progress).await?;
        let bytes = self.index.encode();
        let head = v1::PutIndexHead { seed: self.id.to_owned(), manifest: self.manifest.clone() };
        let mut parts = vec![Part::Head(head)];
        parts.extend(bytes.chunks(proto::MAX_CHUNK).map(|data| Part::Data(data.to_vec())));
        let parts = parts.into_iter().map(|part| v1::PutIndexRequest { part: Some(part) });
        let put = client(self.setup)?.put_index(tokio_stream::iter(parts)).await;
        put.map_err(|status| refused(&status))?;
        moved.fetch_add(bytes.len() as u64, std::sync::atomic::Ordering::Relaxed);
        Ok(())
    }

    /// What the store lacks: by hash the entry, where it begins there and its length.
    async fn missing(&self) -> Result<BTreeMap<Hash, (usize, u64, usize)>, Failure> {
        let mut lacks = std::collections::BTreeSet::new();
        for hashes in self.index.hashes().chunks(proto::MAX_HASHES * 32) {
            let ask = v1::MissingChunksRequest { seed: self.id.to_owned(), hashes: hashes.to_vec() };
            let answer = client(self.setup)?.missing(ask).await.map_err(|status| refused(&status))?.into_inner();
            lacks.extend(answer.hashes.as_chunks::<32>().0.iter().copied());
        }
        let mut found = BTreeMap::new();
        for (number, entry) in self.index.entries().iter().enumerate() {
            if kind(entry) != FileType::RegularFile {
                continue;
            }
            for (begins, chunk) in self.index.spots(entry) {
                let hash = self.index.hash(chunk);
                if lacks.contains(&hash) {
                    found.entry(hash).or_insert((number, begins, self.index.length(chunk)));
                }
            }
        }
        Ok(found)
    }

    /// Reads in a thread of its own, in the order of the files, and sends.
    async fn send(
        &self,
        missing: BTreeMap<Hash, (usize, u64, usize)>,
        moved: &std::sync::atomic::AtomicU64,
        mut progress: Progress<'_>,
    ) -> Result<(), Failure> {
        if missing.is_empty() {
            return Ok(());
        }
        let mut wanted: Vec<_> = missing.into_iter().map(|(hash, spot)| (spot, hash)).collect();
        wanted.sort_unstable();
        let (volumes, index) = (self.volumes.clone(), Arc::clone(&self.index));
        let (chunks, mut read) = mpsc::channel::<(usize, v1::Chunk)>(4);
        let reader = tokio::task::spawn_blocking(move || {
            for ((number, begins, length), hash) in wanted {
                let plain = bytes(&volumes, &index, number, begins, length, &hash)?;
                if chunks.blocking_send((length, pack(hash, plain))).is_err() {
                    return Ok(());
                }
            }
            Ok::<_, Failure>(())
        });
        let (requests, stream) = mpsc::channel(4);
        let seed = self.id.to_owned();
        let mut client = client(self.setup)?;
        let put = async { client.put(ReceiverStream::new(stream)).await.map_err(|status| refused(&status)) };
        let feed = async {
            while let Some((length, chunk)) = read.recv().await {
                moved.fetch_add(chunk.data.len() as u64, std::sync::atomic::Ordering::Relaxed);
                let request = v1::PutChunksRequest { seed: seed.clone(), chunk: Some(chunk) };
                if requests.send(request).await.is_err() {
                    break;
                }
                progress.add(length);
            }
            // The stream ends with its sender, and the reader with its receiver.
            drop((requests, read));
        };
        let (put, ()) = tokio::join!(put, feed);
        // What could not be read is the cause, if there is such a thing.
        reader.await.map_err(|why| Failure::passing(AWAY, why.to_string()))??;
        put.map(|_| ())
    }
}

fn bytes(
    volumes: &Path,
    index: &Index,
    number: usize,
    begins: u64,
    length: usize,
    wanted: &Hash,
) -> Result<Vec<u8>, Failure> {
    use std::os::unix::fs::FileExt as _;
    let Some(entry) = index.entries().get(number) else { return Err(missing("the seed")) };
    let at = volumes.join(path(entry));
    let failed = |why: std::io::Error| Failure::passing("E_POOL", format!("{}: {why}", at.display()));
    let mut bytes = vec![0; length];
    std::fs::File::open(&at).and_then(|file| file.read_exact_at(&mut bytes, begins)).map_err(failed)?;
    if hash(&bytes) == *wanted {
        return Ok(bytes);
    }
    Err(super::index::changed(&String::from_utf8_lossy(&entry.path)))
}
