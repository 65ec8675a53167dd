//! The artifact store: archives by their SHA-256, logs in segments. A local directory behind `object_store`.

use std::fmt;
use std::ops::Range;
use std::path::Path as FsPath;
use std::sync::Arc;

use bytes::Bytes;
use domain::release::Digest;
use futures::StreamExt;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload, WriteMultipart};
use ring::digest::{Context, SHA256};
use tokio::sync::{Mutex, OwnedMutexGuard};
use uuid::Uuid;

use crate::error::{Code, Error, Result};

/// Parts of an upload that are written at once; more wait.
const CONCURRENCY: usize = 4;
/// So many bytes of the disk stay free: the store beside it needs them.
const FLOOR: u64 = 256 << 20;

/// Bulk bytes.
#[derive(Clone)]
pub struct Artifacts {
    store: Arc<dyn ObjectStore>,
    folder: Arc<FsPath>,
    turn: Arc<Mutex<()>>,
}

impl fmt::Debug for Artifacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Artifacts({})", self.store)
    }
}

/// Where the artifact with this content lies.
fn path_of(digest: &Digest) -> Path {
    Path::from(format!("sha256/{}/{}", &digest.hex()[..2], digest.hex()))
}

impl Artifacts {
    /// In a local directory, which is made.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn in_folder(folder: &FsPath) -> std::io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let local = LocalFileSystem::new_with_prefix(folder).map_err(std::io::Error::other)?;
        Ok(Self { store: Arc::new(local.with_fsync(true)), folder: Arc::from(folder), turn: Arc::default() })
    }

    /// Whoever takes bytes away, and whoever puts bytes here that may lie here already, does it in turn: so that what
    /// one begins to need is not what the other finds unneeded.
    pub async fn turn(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.turn).lock_owned().await
    }

    /// Refuses bytes for which the disk has no room.
    ///
    /// # Errors
    /// Less than [`FLOOR`] would be left, or the disk does not say what is free.
    pub fn room_for(&self, bytes: u64) -> Result<()> {
        let disk = rustix::fs::statvfs(&*self.folder).map_err(Error::internal)?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        if bytes == 0 || bytes.saturating_add(FLOOR) <= free {
            return Ok(());
        }
        let text = format!(
            "{} MiB are to be stored, and the coordinator's disk has {} MiB free, of which {} stay free",
            bytes >> 20,
            free >> 20,
            FLOOR >> 20
        );
        Err(Error::new(Code::NO_ROOM, text))
    }

    /// Begins to store something of which only the end will tell what it is.
    ///
    /// # Errors
    /// The store does not take it.
    pub async fn upload(&self, limit: u64) -> Result<Upload> {
        let incoming = Path::from(format!("incoming/{}", Uuid::now_v7()));
        let multipart = self.store.put_multipart(&incoming).await.map_err(failed)?;
        let writer = WriteMultipart::new(multipart);
        Ok(Upload {
            artifacts: self.clone(),
            incoming,
            writer: Some(writer),
            hash: Context::new(&SHA256),
            bytes: 0,
            limit,
        })
    }

    /// Bytes of an artifact.
    ///
    /// # Errors
    /// There is none, or it is shorter.
    pub async fn read(&self, digest: &Digest, range: Range<u64>) -> Result<Bytes> {
        self.range(&path_of(digest), range).await
    }

    async fn range(&self, path: &Path, range: Range<u64>) -> Result<Bytes> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        self.store.get_range(path, range).await.map_err(failed)
    }

    /// Removes an artifact; nothing happens if there is none.
    ///
    /// # Errors
    /// The store does not.
    pub async fn remove(&self, digest: &Digest) -> Result<()> {
        self.remove_path(path_of(digest).as_ref()).await
    }

    /// Stores a piece of a log under a path of its own.
    ///
    /// # Errors
    /// The store does not take it.
    pub async fn put(&self, path: &str, bytes: Bytes) -> Result<()> {
        self.store.put(&Path::from(path), PutPayload::from_bytes(bytes)).await.map_err(failed)?;
        Ok(())
    }

    /// Bytes under a path.
    ///
    /// # Errors
    /// There are none.
    pub async fn get(&self, path: &str, range: Range<u64>) -> Result<Bytes> {
        self.range(&Path::from(path), range).await
    }

    /// All bytes under a path.
    ///
    /// # Errors
    /// There are none, or more than `limit`.
    pub async fn whole(&self, path: &str, limit: u64) -> Result<Bytes> {
        let path = Path::from(path);
        let bytes = self.store.head(&path).await.map_err(failed)?.size;
        if bytes > limit {
            return Err(Error::internal(format!("artifact store: {path} has {bytes} bytes, more than {limit}")));
        }
        self.range(&path, 0..bytes).await
    }

    /// The paths below a folder.
    ///
    /// # Errors
    /// The store does not say.
    pub async fn list(&self, folder: &str) -> Result<Vec<String>> {
        let mut all = self.store.list(Some(&Path::from(folder)));
        let mut paths = Vec::new();
        while let Some(found) = all.next().await {
            paths.push(found.map_err(failed)?.location.to_string());
        }
        Ok(paths)
    }

    /// Removes what lies under a path; nothing happens if there is nothing.
    ///
    /// # Errors
    /// The store does not.
    pub async fn remove_path(&self, path: &str) -> Result<()> {
        match self.store.delete(&Path::from(path)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(failed(error)),
        }
    }

    /// Removes uploads that a kill cut off. Called at start, when there are none under way.
    ///
    /// # Errors
    /// The store does not.
    pub async fn sweep(&self) -> Result<()> {
        let mut left = self.store.list(Some(&Path::from("incoming")));
        while let Some(found) = left.next().await {
            let path = found.map_err(failed)?.location;
            self.remove_path(path.as_ref()).await?;
        }
        Ok(())
    }
}

fn failed(error: object_store::Error) -> Error {
    match error {
        object_store::Error::NotFound { .. } => {
            Error::new(Code::ARTIFACT_NOT_FOUND, "the artifact is not in the store")
        }
        other => Error::internal(format!("artifact store: {other}")),
    }
}

/// Something that is being stored.
pub struct Upload {
    artifacts: Artifacts,
    incoming: Path,
    writer: Option<WriteMultipart>,
    hash: Context,
    bytes: u64,
    limit: u64,
}

impl fmt::Debug for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Upload({}, {} bytes)", self.incoming, self.bytes)
    }
}

impl Upload {
    /// More bytes.
    ///
    /// # Errors
    /// There are more than the limit, or the store does not take them.
    pub async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.bytes += bytes.len() as u64;
        if self.bytes > self.limit {
            let text = format!(
                "the archive has more than {} bytes, the limit of this coordinator (max_archive_bytes)",
                self.limit
            );
            return Err(Error::new(Code::ARCHIVE_TOO_LARGE, text));
        }
        self.hash.update(&bytes);
        let Some(writer) = &mut self.writer else { return Ok(()) };
        writer.wait_for_capacity(CONCURRENCY).await.map_err(failed)?;
        writer.put(bytes);
        Ok(())
    }

    /// Everything is there. What it is can now be looked at, and it is kept or dropped.
    ///
    /// # Errors
    /// The store did not take it.
    pub async fn finish(mut self) -> Result<Stored> {
        if let Some(writer) = self.writer.take() {
            writer.finish().await.map_err(failed)?;
        }
        let mut hash = [0; 32];
        hash.copy_from_slice(self.hash.finish().as_ref());
        Ok(Stored {
            artifacts: self.artifacts,
            incoming: self.incoming,
            digest: crate::ca::digest(&hash),
            bytes: self.bytes,
        })
    }

    /// Forgets it.
    pub async fn abort(mut self) {
        if let Some(writer) = self.writer.take() {
            // What is left is swept at the next start.
            let _ = writer.abort().await;
        }
    }
}

/// Something stored that is not yet kept.
#[derive(Debug)]
pub struct Stored {
    artifacts: Artifacts,
    incoming: Path,
    /// SHA-256 of its bytes.
    pub digest: Digest,
    /// How many bytes.
    pub bytes: u64,
}

impl Stored {
    /// Bytes of it.
    ///
    /// # Errors
    /// It is shorter.
    pub async fn read(&self, range: Range<u64>) -> Result<Bytes> {
        self.artifacts.range(&self.incoming, range).await
    }

    /// From now on it lies under its digest.
    ///
    /// # Errors
    /// The store does not.
    pub async fn keep(self) -> Result<()> {
        self.artifacts.store.rename(&self.incoming, &path_of(&self.digest)).await.map_err(failed)
    }

    /// Forgets it.
    pub async fn drop_it(self) {
        // What is left is swept at the next start.
        let _ = self.artifacts.store.delete(&self.incoming).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_kept_lies_under_the_hash_of_its_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let artifacts = Artifacts::in_folder(folder.path()).unwrap();
        let mut upload = artifacts.upload(100).await.unwrap();
        upload.write(Bytes::from_static(b"hello ")).await.unwrap();
        upload.write(Bytes::from_static(b"world")).await.unwrap();
        let stored = upload.finish().await.unwrap();
        let digest = stored.digest.clone();
        assert_eq!(digest.hex(), hex::encode(transport::pin::sha256(b"hello world")));
        assert!(artifacts.read(&digest, 0..5).await.is_err());
        stored.keep().await.unwrap();
        assert_eq!(&artifacts.read(&digest, 6..11).await.unwrap()[..], b"world");
        artifacts.remove(&digest).await.unwrap();
        assert!(artifacts.read(&digest, 0..5).await.is_err());
    }

    #[tokio::test]
    async fn an_upload_beyond_its_limit_is_refused_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let artifacts = Artifacts::in_folder(folder.path()).unwrap();
        let mut upload = artifacts.upload(4).await.unwrap();
        let error = upload.write(Bytes::from_static(b"12345")).await.unwrap_err();
        assert_eq!(error.reason(), "E_ARCHIVE_TOO_LARGE");
        upload.abort().await;
        artifacts.sweep().await.unwrap();
        let left: Vec<_> = walk(folder.path());
        assert!(left.is_empty(), "{left:?}");
    }

    fn walk(folder: &FsPath) -> Vec<std::path::PathBuf> {
        std::fs::read_dir(folder)
            .unwrap()
            .flat_map(|entry| {
                let path = entry.unwrap().path();
                if path.is_dir() { walk(&path) } else { vec![path] }
            })
            .collect()
    }
}
