//! A seed fetched from the coordinator's store: only what no other seed of this host holds. What an interrupted attempt
//! has fetched is looked at again and kept.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use proto::v1;

use super::Setup;
use super::index::Index;
use super::moving::{Breaks, Progress, client, refused, unpack};
use super::rebuild::{self, Base, Lacking};
use super::scan::{self, Canaries};
use super::sealed::{self, Sealed, volume};
use crate::environments::failure::Failure;
use crate::environments::lay::size;
use crate::pool::{self, Pool};

/// Seeds of this host that bytes are taken from, at most.
const BASES: usize = 4;
/// Chunks that are asked for at once.
const AT_ONCE: usize = 512;
/// What was begun and never asked for again is removed at a start after so long.
const FORGOTTEN: Duration = Duration::from_secs(2 * 24 * 3600);

/// Where what has come is kept until it is whole.
fn staging(pool: &Pool, id: &str) -> PathBuf {
    pool.snapshot(&format!("pull-{id}"))
}

/// Removes what was fetched of a seed that is not wanted any more.
pub(super) fn forget(pool: &Pool, id: &str) -> pool::Result<()> {
    pool.remove_now(&staging(pool, id))
}

/// Removes what was begun long ago.
pub(super) fn sweep(pool: &Pool) {
    for entry in std::fs::read_dir(pool.layout().snapshots()).into_iter().flatten().flatten() {
        let old = || entry.metadata().ok()?.modified().ok()?.elapsed().ok();
        let ours = entry.file_name().to_string_lossy().starts_with("pull-");
        if ours
            && old().is_some_and(|age| age > FORGOTTEN)
            && let Err(why) = pool.remove_now(&entry.path())
        {
            tracing::warn!(folder = %entry.path().display(), %why, "what was fetched of a seed stays");
        }
    }
}

/// Pulls as ordered. Answers how many bytes came over the network.
pub(super) async fn run(setup: &Setup, id: &str, digest: &str) -> Result<u64, Failure> {
    let pool = &setup.host.pool;
    if matches!(Sealed::read(&pool.seed(digest)), Ok(Some(_))) {
        return Ok(0);
    }
    let moved = std::sync::atomic::AtomicU64::new(0);
    let pull = |local| Pull { setup, id, digest, local, moved: &moved };
    let mut done = pull(true).until_done().await;
    if done.as_ref().is_err_and(|why| why.code == "E_SEED_DIGEST") {
        // A seed of this host that bytes were taken from may be what is damaged.
        tracing::warn!(seed = %id, "what was put together is not the seed; everything is fetched");
        pool.remove(staging(pool, id)).await?;
        done = pull(false).until_done().await;
    }
    if done.as_ref().is_err_and(|why| why.code != "E_POOL_FULL" && !why.code.starts_with("E_SEED_CHUNK")) {
        pool.remove(staging(pool, id)).await?;
    }
    done.map(|()| moved.into_inner())
}

struct Pull<'a> {
    setup: &'a Setup,
    id: &'a str,
    digest: &'a str,
    /// Bytes are taken from other seeds of this host.
    local: bool,
    moved: &'a std::sync::atomic::AtomicU64,
}

fn failed(why: &io::Error) -> Failure {
    let full = matches!(why.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    let code = if full { "E_POOL_FULL" } else { "E_POOL" };
    Failure::passing(code, format!("the seed cannot be written: {why}"))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Failure> + Send + 'static) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work).await.map_err(|why| Failure::passing("E_POOL", why.to_string()))?
}

impl Pull<'_> {
    fn tell(&self, detail: &str) {
        self.setup.tell_of(v1::SeedWork::Pull, self.id, detail);
    }

    fn count(&self, bytes: usize) {
        self.moved.fetch_add(bytes as u64, std::sync::atomic::Ordering::Relaxed);
    }

    async fn until_done(&self) -> Result<(), Failure> {
        let mut breaks = Breaks::none(self.setup, v1::SeedWork::Pull, self.id);
        loop {
            let outcome = self.once().await;
            if let Some(done) = breaks.over(outcome).await {
                return done;
            }
        }
    }

    async fn once(&self) -> Result<(), Failure> {
        self.tell("fetching the index");
        let (sealed, index) = self.index().await?;
        let pool = &self.setup.host.pool;
        let folder = staging(pool, self.id);
        let volumes = folder.join("volumes");
        for part in &sealed.parts {
            match pool.create_dir(volume(&folder, &part.volume)).await {
                Ok(()) | Err(pool::Error::Exists { .. }) => {}
                Err(why) => return Err(why.into()),
            }
        }
        self.tell("looking at what is here already");
        let (from, parts, local) = (Arc::clone(pool), sealed.clone(), self.local);
        let (index, to) = (Arc::new(index), volumes.clone());
        let laid = Arc::clone(&index);
        let lacking = blocking(move || {
            let bases = if local { bases(&from, &parts) } else { Vec::new() };
            let shares = from.kind() != pool::Kind::Copy;
            let there = from.backend().usage(&to).unwrap_or_default();
            let there = there.own_bytes.saturating_add(there.shared_bytes);
            from.check_room(rebuild::needs(&laid, &bases, shares).saturating_sub(there))?;
            rebuild::lay(&laid, &to, &bases).map_err(|why| failed(&why))
        });
        let lacking = lacking.await?;
        self.fetch(&index, &volumes, &lacking).await?;
        self.finish(sealed, index, folder).await
    }

    async fn index(&self) -> Result<(Sealed, Index), Failure> {
        let ask = v1::FetchIndexRequest { seed: self.id.to_owned() };
        let mut stream = client(self.setup)?.index(ask).await.map_err(|status| refused(&status))?.into_inner();
        let (mut manifest, mut bytes) = (Vec::new(), Vec::new());
        while let Some(piece) = stream.message().await.map_err(|status| refused(&status))? {
            self.count(piece.manifest.len() + piece.data.len());
            manifest.extend_from_slice(&piece.manifest);
            bytes.extend_from_slice(&piece.data);
            if bytes.len() > proto::MAX_SEED_INDEX || manifest.len() > proto::MAX_SEED_MANIFEST {
                return Err(wrong("is larger than any can be"));
            }
        }
        let sealed = Sealed::parse(&manifest).map_err(|why| wrong(&why.to_string()))?;
        if sealed.digest != self.digest {
            return Err(wrong("is that of another seed"));
        }
        let names: BTreeSet<&str> = sealed.parts.iter().map(|part| part.volume.as_str()).collect();
        let index = Index::decode(&bytes, &names).map_err(|why| wrong(&why))?;
        Ok((sealed, index))
    }

    async fn fetch(&self, index: &Index, volumes: &Path, lacking: &Lacking) -> Result<(), Failure> {
        let all = lacking.keys().map(|chunk| index.length(*chunk) as u64).sum();
        let mut progress = Progress::new(self.setup, (v1::SeedWork::Pull, self.id), all);
        let numbers: Vec<u32> = lacking.keys().copied().collect();
        let mut came_so_far = 0;
        for some in numbers.chunks(AT_ONCE) {
            let hashes = some.iter().flat_map(|chunk| index.hash(*chunk)).collect();
            let ask = v1::FetchChunksRequest { seed: self.id.to_owned(), hashes };
            let mut stream = client(self.setup)?.fetch(ask).await.map_err(|status| refused(&status))?.into_inner();
            for chunk in some {
                let came = stream.message().await.map_err(|status| refused(&status))?;
                let came = came.ok_or_else(|| Failure::passing(super::moving::AWAY, "the stream ended early"))?;
                self.count(came.data.len());
                let plain = unpack(&index.hash(*chunk), index.length(*chunk), &came).ok_or_else(|| {
                    Failure::lasting(
                        "E_SEED_CHUNK",
                        "a chunk came with other bytes than its hash says; push the seed again",
                    )
                })?;
                let spots = &lacking[chunk];
                let put = tokio::task::block_in_place(|| rebuild::put(index, volumes, spots, &plain));
                put.map_err(|why| failed(&why))?;
                progress.add(plain.len());
                came_so_far += 1;
                if came_so_far == numbers.len() / 2 {
                    self.setup.host.failpoints.hit("seed.pull.half");
                }
            }
        }
        Ok(())
    }

    /// Compares everything with what was sealed, and only then makes it a seed.
    async fn finish(&self, sealed: Sealed, index: Arc<Index>, folder: PathBuf) -> Result<(), Failure> {
        self.tell(&format!("comparing {} with what was sealed", size(sealed.bytes())));
        let pool = Arc::clone(&self.setup.host.pool);
        let to = pool.seed(self.digest);
        blocking(move || {
            rebuild::finish(&index, &folder.join("volumes")).map_err(|why| failed(&why))?;
            let none = Canaries::new(&[]).map_err(|why| Failure::lasting("E_SEED_CANARY", why))?;
            for part in &sealed.parts {
                let tree = scan::read(&volume(&folder, &part.volume), &none).map_err(|why| failed(&why))?;
                if !tree.is_ok_and(|tree| tree.hash == part.tree) {
                    let text = format!("the volume {} came with other data than was sealed", part.volume);
                    return Err(Failure::lasting("E_SEED_DIGEST", text));
                }
            }
            pool.backend().sync(&folder)?;
            if matches!(Sealed::read(&to), Ok(Some(_))) {
                // The same data was made here meanwhile.
                return Ok(pool.remove_now(&folder)?);
            }
            // Half of it, from before a kill.
            pool.remove_now(&to)?;
            index.keep(&folder).map_err(|why| failed(&why))?;
            sealed.write(&folder).map_err(|why| failed(&why))?;
            // With its manifest in it: from here on it is a seed.
            std::fs::rename(&folder, &to).map_err(|why| failed(&why))?;
            crate::files::sync_folder(&pool.layout().seeds()).map_err(|why| failed(&why))
        })
        .await
    }
}

fn wrong(what: &str) -> Failure {
    Failure::lasting("E_SEED_INDEX", format!("the index that came {what}; push the seed again"))
}

/// Seeds of this host that may hold some of it: of the same volumes, the newest first.
fn bases(pool: &Pool, wanted: &Sealed) -> Vec<Base> {
    let mut near = Vec::new();
    for digest in sealed::all_of(pool) {
        let folder = pool.seed(&digest);
        let Ok(Some(sealed)) = Sealed::read(&folder) else { continue };
        let alike = |part: &sealed::Part| {
            wanted.parts.iter().any(|other| other.volume == part.volume && other.kind == part.kind)
        };
        if sealed.parts.iter().any(alike) {
            let made = std::fs::metadata(folder.join("seed.json")).and_then(|meta| meta.modified());
            near.push((made.ok(), folder, sealed));
        }
    }
    near.sort_by_key(|one| std::cmp::Reverse(one.0));
    let open = |(_, folder, sealed): (_, PathBuf, Sealed)| match Index::of_seed(&folder, &sealed) {
        Ok(index) => Some(Base::new(folder.join("volumes"), index)),
        Err(why) => {
            tracing::warn!(folder = %folder.display(), %why, "nothing is taken from a seed of this host");
            None
        }
    };
    near.into_iter().take(BASES).filter_map(open).collect()
}
