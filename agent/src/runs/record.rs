//! What is remembered of a run, in its own folder.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use proto::v1;
use serde::{Deserialize, Serialize};

use crate::files;

/// Largest record in bytes.
const MAX_FILE: u64 = 8 << 20;
/// How long it is remembered that a run ended: longer than any order can be on its way.
const REMEMBER: Duration = Duration::from_secs(86_400);

/// Where a restart goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Stage {
    /// Checkout and environment; a restart does it again from the beginning.
    Preparing,
    /// The job has its spec; a restart asks it what became of it.
    Command,
    /// The result is known, and being told and cleaned up after.
    Ended,
    /// The coordinator has the result. Only this record is left.
    Acknowledged,
}

/// What is remembered of a run.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) stage: Stage,
    #[serde(with = "encoded")]
    pub(super) order: v1::RunOrder,
    /// The environment that was made for it.
    pub(super) environment: Option<String>,
    /// Pattern of its JUnit files.
    pub(super) junit: Option<String>,
    /// Limits of the command as its file has them, for messages.
    pub(super) limits: (Duration, Duration),
    pub(super) cancel: bool,
    #[serde(with = "encoded")]
    pub(super) result: v1::RunReport,
}

/// Messages as hexadecimal text: they grow by fields without this file's knowledge.
mod encoded {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<M: prost::Message, S: Serializer>(message: &M, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&hex::encode(message.encode_to_vec()))
    }

    pub(super) fn deserialize<'de, M: prost::Message + Default, D: Deserializer<'de>>(from: D) -> Result<M, D::Error> {
        let text = String::deserialize(from)?;
        let bytes = hex::decode(text).map_err(D::Error::custom)?;
        M::decode(bytes.as_slice()).map_err(D::Error::custom)
    }
}

impl Record {
    pub(super) fn new(order: v1::RunOrder) -> Self {
        Self {
            stage: Stage::Preparing,
            cancel: order.cancel,
            order,
            environment: None,
            junit: None,
            limits: (Duration::ZERO, Duration::ZERO),
            result: v1::RunReport::default(),
        }
    }

    /// The result is known.
    pub(super) fn end(&mut self, report: &v1::RunReport) {
        self.stage = Stage::Ended;
        self.result = report.clone();
    }
}

/// A run's folder.
#[derive(Clone, Debug)]
pub(super) struct Folder {
    path: PathBuf,
}

impl Folder {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Where the commit's files lie.
    pub(super) fn tree(&self) -> PathBuf {
        self.path.join("tree")
    }

    /// The job's directory.
    pub(super) fn job(&self) -> PathBuf {
        self.path.join("job")
    }

    /// Its log.
    pub(super) fn log(&self) -> PathBuf {
        self.job().join("log")
    }

    /// None: there is no record.
    pub(super) fn read(&self) -> io::Result<Option<Record>> {
        match files::read_limited(&self.path.join("run.json"), MAX_FILE) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(io::Error::other),
            Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(why) => Err(why),
        }
    }

    /// Durable when it returns.
    pub(super) fn write(&self, record: &Record) -> io::Result<()> {
        let made = !self.path.exists();
        files::private_dir(&self.path)?;
        files::write_atomic(&self.path.join("run.json"), &serde_json::to_vec(record)?)?;
        match self.path.parent() {
            Some(parent) if made => files::sync_folder(parent),
            _ => Ok(()),
        }
    }

    /// Everything but the record.
    pub(super) fn clear(&self) -> io::Result<()> {
        files::remove_all(&self.tree())?;
        files::remove_all(&self.job())
    }

    /// The coordinator has the result: only the memory that it ended stays.
    pub(super) fn acknowledge(&self) -> io::Result<()> {
        let Some(mut record) = self.read()? else { return Ok(()) };
        self.clear()?;
        record.stage = Stage::Acknowledged;
        record.result = v1::RunReport::default();
        self.write(&record)
    }

    /// Whether nobody needs to remember it any more.
    pub(super) fn is_stale(&self) -> bool {
        let written = std::fs::metadata(self.path.join("run.json")).and_then(|meta| meta.modified());
        written.is_ok_and(|at| SystemTime::now().duration_since(at).is_ok_and(|age| age > REMEMBER))
    }

    pub(super) fn remove(&self) -> io::Result<()> {
        files::remove_all(&self.path)
    }
}

/// All runs with a readable record below `folder`.
pub(super) fn all(folder: &Path) -> io::Result<Vec<(String, Record)>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(why) => return Err(why),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        let Ok(id) = entry.file_name().into_string() else { continue };
        match Folder::new(entry.path()).read() {
            Ok(Some(record)) if record.order.id == id => found.push((id, record)),
            Ok(_) => {}
            Err(why) => tracing::warn!(run = %id, %why, "the run's record cannot be read"),
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(found)
}
