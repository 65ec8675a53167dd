//! What a job tells when it is over.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::Error;
use super::files;

/// Largest status that is read, in bytes.
const LARGEST: u64 = 1 << 20;

/// How the work ended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// By itself, with this status.
    Exited(i32),
    /// By a signal that did not come from the job.
    Signalled(i32),
    /// Its time was over.
    TimedOut,
    /// Nothing was printed for too long.
    NoOutput,
    /// The agent asked for it.
    Cancelled,
    /// The job was told to stop by somebody else than the agent (a shutdown).
    Stopped,
    /// It never began.
    NotStarted {
        /// Reason code.
        code: String,
        /// What happened.
        text: String,
    },
    /// The engine lost it: its outcome is not known.
    Lost {
        /// What happened.
        text: String,
    },
}

/// Written once, atomically, as the job's last act.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Status {
    /// How the work ended.
    pub how: How,
    /// The kernel killed it for want of memory.
    pub out_of_memory: bool,
    /// KILL was needed after TERM and grace.
    pub killed: bool,
    /// When it began: microseconds of CLOCK_BOOTTIME.
    pub started_micros: u64,
    /// When it ended: microseconds of CLOCK_BOOTTIME.
    pub ended_micros: u64,
    /// When it began by the wall clock, seconds since 1970: to be compared with times of files.
    pub started_unix: i64,
    /// The boot those belong to.
    pub boot_id: String,
    /// Bytes in the log.
    pub log_bytes: u64,
    /// Bytes of output beyond the limit.
    pub dropped_bytes: u64,
    /// Why what was to be collected is missing, if something else than its absence is the reason.
    pub collect_failed: Option<String>,
    /// Remarks: what could not be confined, what was left over and killed.
    pub notes: Vec<String>,
}

impl Status {
    /// How long the work took, microseconds.
    #[must_use]
    pub fn took_micros(&self) -> u64 {
        self.ended_micros.saturating_sub(self.started_micros)
    }

    /// `None` while there is none.
    pub(super) fn read(directory: &Path) -> Result<Option<Self>, Error> {
        let path = directory.join("status.json");
        match files::read_limited(&path, LARGEST) {
            Ok(text) => {
                serde_json::from_slice(&text).map(Some).map_err(|why| Error::Format { path, why: why.to_string() })
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::file("read", &path)(error)),
        }
    }

    pub(super) fn write(&self, directory: &Path) -> Result<(), Error> {
        let path = directory.join("status.json");
        let text =
            serde_json::to_vec(self).map_err(|why| Error::Format { path: path.clone(), why: why.to_string() })?;
        files::write_atomic(&path, &text).map_err(Error::file("write", &path))
    }
}
