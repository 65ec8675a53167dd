//! A folder of an environment on its host that is kept in step with one of its owner's elsewhere.
//!
//! It lies beside the environment's data, outlives resets, and goes with it. Only what was uploaded is ever changed or
//! removed there: what containers make in it stays. Containers may make links in it too, so every path is opened beneath
//! the folder, and no link is followed.

mod entry;
mod record;
mod tree;
mod writer;

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use domain::stack::MountSource;
use proto::v1;
use proto::v1::sync_part::Part;
use proto::v1::tunnel_frame::Frame;
use tokio::sync::mpsc;
use tonic::Streaming;

use crate::environments::failure::Failure;
use crate::environments::{Environments, folder::describe};
use crate::files;
use crate::host::Host;
use crate::pool::Pool;
use crate::state::environments::Folder;
use entry::Entry;
use record::Record;
use tree::Tree;
use writer::Writer;

/// Most entries of one folder.
const MOST_ENTRIES: usize = 50_000;
/// Paths of one message.
const PATHS: usize = 500;
/// Problems that are told of one round.
const MOST_PROBLEMS: usize = 20;

/// Environments whose folder is being written.
static BUSY: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

fn path(pool: &Pool, id: &str) -> PathBuf {
    pool.environment(id).join("upload")
}

/// The uploaded folder of an environment; made if it is not there.
///
/// # Errors
/// The disk refuses.
pub fn folder(pool: &Pool, id: &str) -> io::Result<Folder> {
    let path = path(pool, id);
    files::private_dir(&pool.environment(id))?;
    // Users of containers enter it by their mounts only, and need rights of their own there.
    match std::fs::create_dir(&path) {
        Err(why) if why.kind() != io::ErrorKind::AlreadyExists => return Err(why),
        _ => {}
    }
    describe(&path)
}

/// Whether everything of the owner's folder was there once.
#[must_use]
pub fn is_whole(pool: &Pool, id: &str) -> bool {
    Record::is_whole(&pool.environment(id))
}

/// Held by whoever writes the folder.
struct Alone(String);

impl Alone {
    /// One that was killed a moment ago is about to let go.
    async fn take(id: &str) -> Result<Self, Failure> {
        for _ in 0..30 {
            if BUSY.lock().unwrap_or_else(PoisonError::into_inner).insert(id.to_owned()) {
                return Ok(Self(id.to_owned()));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let text = "the folder is kept in step by another `muster env sync` already";
        Err(Failure::lasting("E_SYNC_BUSY", text))
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        BUSY.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.0);
    }
}

/// Takes rounds until the owner has no more.
///
/// # Errors
/// `E_SYNC_BUSY`, `E_SYNC_SOURCE`, `E_SYNC_LIMIT`, or what the disk says. Single files that cannot be written are told in
/// the round's end.
pub async fn run(
    host: &Arc<Host>,
    environments: &Environments,
    id: &str,
    up: &mpsc::Sender<v1::TunnelFrame>,
    down: &mut Streaming<v1::TunnelFrame>,
) -> Result<(), Failure> {
    let missing = || Failure::lasting("E_ENV_NOT_FOUND", "this host does not have the environment (yet, or any more)");
    let wanted = environments.wanted(id).filter(|wanted| wanted.order.up).ok_or_else(missing)?;
    if !wanted.order.upload {
        let text = "the environment does not use an uploaded folder; `muster env up --sync` makes it so";
        return Err(Failure::lasting("E_SYNC_SOURCE", text));
    }
    let _alone = Alone::take(id).await?;
    let stack = environments.stack(id)?;
    let mounts = stack.services.values().flat_map(|service| &service.mounts).filter_map(|mount| match &mount.source {
        MountSource::Folder(relative) => entry::clean(relative),
        _ => None,
    });
    let failed = |why: io::Error| Failure::passing("E_POOL", format!("the uploaded folder: {why}"));
    folder(&host.pool, id).map_err(failed)?;
    let (home, root) = (host.pool.environment(id), path(&host.pool, id));
    let record = Record::read(&home).map_err(failed)?;
    let mut tree = Tree::open(&root, record, mounts.collect()).map_err(failed)?;
    let mut link = Link { up, down };
    while let Some(list) = link.list().await? {
        host.pool.check_floor().map_err(Failure::from)?;
        let whole = list.whole;
        let (missing, mut done) = tokio::task::block_in_place(|| tree.begin(list));
        // Written before any content: what is begun is known to be ours after a kill.
        tokio::task::block_in_place(|| tree.record().write(&home)).map_err(failed)?;
        link.wanted(&missing).await?;
        let count = missing.len();
        let writer = Writer::begin(tree, missing, done);
        let came = link.contents(count, &writer).await;
        let written = writer.end().await;
        came?;
        (tree, done) = written?;
        if whole {
            tree.record_mut().whole = true;
        }
        tokio::task::block_in_place(|| tree.record().write(&home)).map_err(failed)?;
        let problems = done.problems.len();
        done.problems.truncate(MOST_PROBLEMS);
        if problems > MOST_PROBLEMS {
            done.problems.push(format!("and {} more", problems - MOST_PROBLEMS));
        }
        link.send(Part::Done(done)).await?;
        if whole {
            // Services may wait for it.
            environments.wake();
        }
    }
    Ok(())
}

/// What was listed in one round.
#[derive(Debug, Default)]
struct List {
    entries: Vec<Entry>,
    removed: Vec<String>,
    whole: bool,
    /// Names that cannot be.
    refused: Vec<String>,
}

/// The owner's end.
struct Link<'a> {
    up: &'a mpsc::Sender<v1::TunnelFrame>,
    down: &'a mut Streaming<v1::TunnelFrame>,
}

fn gone() -> Failure {
    Failure::passing("E_SYNC_BROKEN", "the upload broke off; begun again it goes on where it was")
}

impl Link<'_> {
    async fn send(&self, part: Part) -> Result<(), Failure> {
        let frame =
            v1::TunnelFrame { tunnel: String::new(), frame: Some(Frame::Sync(v1::SyncPart { part: Some(part) })) };
        self.up.send(frame).await.map_err(|_| gone())
    }

    async fn next(&mut self) -> Option<Part> {
        loop {
            match self.down.message().await {
                Ok(Some(v1::TunnelFrame { frame: Some(Frame::Sync(part)), .. })) => return part.part,
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => return None,
            }
        }
    }

    /// The next round's list; none: there is no more.
    async fn list(&mut self) -> Result<Option<List>, Failure> {
        let mut list = List::default();
        loop {
            let Some(part) = self.next().await else { return Ok(None) };
            let some = match part {
                Part::List(some) => some,
                Part::End(_) => return Ok(None),
                _ => continue,
            };
            list.whole |= some.whole;
            for message in some.entries {
                match Entry::read(message) {
                    Ok(entry) => list.entries.push(entry),
                    Err(why) => list.refused.push(why),
                }
            }
            list.removed.extend(some.removed);
            if list.entries.len() + list.removed.len() + list.refused.len() > MOST_ENTRIES {
                let text =
                    format!("a folder has {MOST_ENTRIES} files and folders at most; name others in .musterignore");
                return Err(Failure::lasting("E_SYNC_LIMIT", text));
            }
            if some.last {
                return Ok(Some(list));
            }
        }
    }

    async fn wanted(&self, names: &[String]) -> Result<(), Failure> {
        for some in names.chunks(PATHS) {
            self.send(Part::Wanted(v1::SyncWanted { paths: some.to_vec(), last: false })).await?;
        }
        self.send(Part::Wanted(v1::SyncWanted { paths: Vec::new(), last: true })).await
    }

    /// Hands on so many contents, as long as the writer takes them.
    async fn contents(&mut self, count: usize, writer: &Writer) -> Result<(), Failure> {
        for _ in 0..count {
            loop {
                let Some(part) = self.next().await else { return Err(gone()) };
                let Part::Content(piece) = part else { continue };
                let last = piece.last;
                if !writer.take(piece).await {
                    return Ok(());
                }
                if last {
                    break;
                }
            }
        }
        Ok(())
    }
}
