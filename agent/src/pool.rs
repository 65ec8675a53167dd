//! The pool: folders of data that are cloned in constant time.
//!
//! Everything that environments, seeds and snapshots hold lies in one pool per agent, by the paths that [`Pool`] names.
//! A clone shares its bytes with what it was made from until one of the two is written. Four rules hold for every
//! backend and are tested on each:
//!
//! - A clone is whole and durable, or not there: it is made in `tmp/` and renamed.
//! - What is removed is gone at once: it is renamed into `trash/`, then deleted. A start sweeps both.
//! - A pool that should be there and is not is an error, and nothing is made in its place.
//! - Nothing new is made below the floor of free space; what is there goes on.

mod attributes;
mod backend;
mod btrfs;
mod choice;
pub mod command;
mod contents;
mod error;
mod folders;
mod image;
mod layout;
mod record;
mod setting;
#[cfg(test)]
mod tests;
mod threads;
pub(crate) mod tool;
mod upkeep;
mod usage;
mod walk;

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

pub use backend::{Backend, Cloned, Kind, Usage};
pub use error::{Error, Result};
pub use layout::Layout;
pub use setting::{Setting, Settings};

use choice::Opened;
use folders::Folders;
use image::Image;
use record::{Hold, Record};
use upkeep::Upkeep;

use crate::failpoints::effect;

/// Floor of free space unless the settings say otherwise, in bytes; less in small pools.
const FLOOR: u64 = 2 << 30;

/// Room in the pool, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Space {
    /// All that it has.
    pub total: u64,
    /// What can still be written, with what the disk under a loop file has left taken into account.
    pub available: u64,
}

/// The pool of one agent.
#[derive(Debug)]
pub struct Pool {
    layout: Layout,
    backend: Arc<dyn Backend>,
    why: String,
    image: Option<Image>,
    floor: Option<u64>,
    record: PathBuf,
    /// The file system that is the pool; another one there means that it is gone.
    device: u64,
    upkeep: Mutex<Upkeep>,
    _hold: Option<Hold>,
}

impl Pool {
    /// Opens the pool of an earlier start, mounting it if need be, or chooses and makes one. Sweeps what a crash has
    /// left. Blocks. Call it before any container is started.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn open(settings: &Settings) -> Result<Arc<Self>> {
        let Opened { layout, backend, why, image, hold } = choice::open(settings)?;
        let swept = backend.sweep()?;
        layout.take_old();
        let pool = Self {
            device: device(layout.root())?,
            layout,
            backend,
            why,
            image,
            floor: settings.floor_bytes,
            record: Record::path(&settings.state_dir),
            upkeep: Mutex::default(),
            _hold: Some(hold),
        };
        let (kind, root, space) = (pool.kind(), pool.root().display().to_string(), pool.space());
        let mib = |bytes: u64| bytes >> 20;
        tracing::info!(%kind, root, why = pool.why, total_mib = mib(space.total), available_mib = mib(space.available),
            swept, "the pool is open");
        Ok(Arc::new(pool))
    }

    /// A pool of copies at `root` without record or lock, for tests of what uses one.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn plain(root: &Path) -> Result<Arc<Self>> {
        let layout = Layout::new(root.to_owned());
        layout.make()?;
        Ok(Arc::new(Self {
            device: device(root)?,
            backend: Arc::new(Folders::copying(layout.clone())),
            layout,
            why: "it was asked for".to_owned(),
            image: None,
            floor: Some(0),
            record: PathBuf::new(),
            upkeep: Mutex::default(),
            _hold: None,
        }))
    }

    /// The backend, for callers that may block.
    #[must_use]
    pub fn backend(&self) -> &dyn Backend {
        self.backend.as_ref()
    }

    /// Which backend.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.backend.kind()
    }

    /// Why this one, for people.
    #[must_use]
    pub fn why(&self) -> &str {
        &self.why
    }

    /// What whoever waits for a clone should be told; none: clones take constant time.
    #[must_use]
    pub fn notice(&self) -> Option<String> {
        let copies = self.kind() == Kind::Copy;
        copies.then(|| format!("data is copied, which is slow and takes all its bytes again: {}", self.why))
    }

    /// Where it lies.
    #[must_use]
    pub fn root(&self) -> &Path {
        self.layout.root()
    }

    /// Where everything lies.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The folder of an environment, by its id.
    #[must_use]
    pub fn environment(&self, id: &str) -> PathBuf {
        self.layout.environments().join(id)
    }

    /// The folder of a seed, by its digest.
    #[must_use]
    pub fn seed(&self, digest: &str) -> PathBuf {
        self.layout.seeds().join(digest)
    }

    /// The folder of a snapshot, by its id.
    #[must_use]
    pub fn snapshot(&self, id: &str) -> PathBuf {
        self.layout.snapshots().join(id)
    }

    /// Room in it.
    #[must_use]
    pub fn space(&self) -> Space {
        let Ok(stat) = rustix::fs::statvfs(self.root()) else { return Space::default() };
        let (total, available) = (stat.f_blocks * stat.f_frsize, stat.f_bavail * stat.f_frsize);
        let host = self.image.as_ref().map_or(u64::MAX, Image::host_available);
        Space { total, available: available.min(host) }
    }

    /// Bytes that can still be written.
    #[must_use]
    pub fn available(&self) -> u64 {
        self.space().available
    }

    /// Bytes below which nothing new is made.
    #[must_use]
    pub fn floor(&self) -> u64 {
        self.floor.unwrap_or_else(|| FLOOR.min(self.space().total / 20))
    }

    /// Bytes of everything in it, as last measured.
    #[must_use]
    pub fn measured(&self) -> Usage {
        self.upkeep.lock().unwrap_or_else(PoisonError::into_inner).measured
    }

    /// Refuses when the pool has gone from where it was.
    ///
    /// # Errors
    /// `E_POOL_MISSING`.
    pub fn check(&self) -> Result<()> {
        if device(self.root()).is_ok_and(|device| device == self.device) {
            return Ok(());
        }
        let why = "it was unmounted, or something was mounted over it".to_owned();
        Err(Error::Missing { root: self.root().to_owned(), why, record: self.record.clone() })
    }

    /// Refuses when there is no room for anything new; a loop file is made larger first. Blocks.
    ///
    /// # Errors
    /// `E_POOL_FULL`, `E_POOL_MISSING`.
    pub fn check_floor(&self) -> Result<()> {
        self.check()?;
        let floor = self.floor();
        if self.available() < floor {
            self.grow();
        }
        let available = self.available();
        if available < floor {
            return Err(Error::Full { root: self.root().to_owned(), available, floor });
        }
        Ok(())
    }

    /// Refuses when so many bytes would leave too little room; a loop file is made larger first. Blocks.
    ///
    /// # Errors
    /// As [`Pool::check_floor`].
    pub fn check_room(&self, bytes: u64) -> Result<()> {
        self.check_floor()?;
        let floor = self.floor().saturating_add(bytes);
        let mut available = self.available();
        while available < floor {
            self.grow();
            let grown = self.available();
            if grown <= available {
                return Err(Error::Full { root: self.root().to_owned(), available, floor });
            }
            available = grown;
        }
        Ok(())
    }

    /// The same as [`Pool::check_floor`], for callers that may not block.
    ///
    /// # Errors
    /// As there.
    pub async fn has_room(self: &Arc<Self>) -> Result<()> {
        self.blocking(Self::check_floor).await
    }

    /// Makes an empty folder that can be cloned; see [`Backend::create`].
    ///
    /// # Errors
    /// As there, and as [`Pool::check_floor`].
    pub async fn create_dir(self: &Arc<Self>, folder: PathBuf) -> Result<()> {
        effect("pool.create");
        self.blocking(move |pool| {
            pool.check_floor()?;
            pool.backend.create(&folder)
        })
        .await
    }

    /// Makes `to` a clone of `from`; see [`Backend::clone_tree`].
    ///
    /// # Errors
    /// As there, and as [`Pool::check_floor`].
    pub async fn clone_tree(self: &Arc<Self>, from: PathBuf, to: PathBuf) -> Result<Cloned> {
        effect("pool.clone");
        self.blocking(move |pool| {
            pool.check_floor()?;
            pool.backend.clone_tree(&from, &to)
        })
        .await
    }

    /// Removes a folder; see [`Backend::remove`].
    ///
    /// # Errors
    /// As there.
    pub async fn remove(self: &Arc<Self>, folder: PathBuf) -> Result<()> {
        self.blocking(move |pool| pool.remove_now(&folder)).await
    }

    /// The same as [`Pool::remove`], for callers that may block.
    ///
    /// # Errors
    /// As there.
    pub fn remove_now(&self, folder: &Path) -> Result<()> {
        effect("pool.remove");
        self.check()?;
        self.backend.remove(folder)?;
        self.upkeep.lock().unwrap_or_else(PoisonError::into_inner).removed = true;
        Ok(())
    }

    /// Bytes of a folder; see [`Backend::usage`].
    ///
    /// # Errors
    /// As there.
    pub async fn usage(self: &Arc<Self>, folder: PathBuf) -> Result<Usage> {
        self.blocking(move |pool| pool.backend.usage(&folder)).await
    }

    /// Makes everything written to a folder durable; see [`Backend::sync`].
    ///
    /// # Errors
    /// As there.
    pub async fn sync(self: &Arc<Self>, folder: PathBuf) -> Result<()> {
        effect("pool.sync");
        self.blocking(move |pool| pool.backend.sync(&folder)).await
    }

    async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let pool = Arc::clone(self);
        match tokio::task::spawn_blocking(move || work(&pool)).await {
            Ok(done) => done,
            Err(why) => Err(Error::at("work in", self.root())(std::io::Error::other(why))),
        }
    }
}

fn device(root: &Path) -> Result<u64> {
    std::fs::metadata(root).map(|meta| meta.dev()).map_err(Error::at("open", root))
}
