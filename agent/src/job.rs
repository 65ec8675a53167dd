//! `muster-agent job`: the small parent of everything that runs once.
//!
//! It has its own session, spools the output and writes down how the work ended, so that an agent that is killed
//! still learns the true outcome. What it is told and what it tells are files of one directory:
//!
//! | file | holds |
//! |---|---|
//! | `spec.json` | what to do, written by the agent |
//! | `lock` | held while the job lives |
//! | `began` | it began: a second job in the same directory does nothing |
//! | `pid` | its process, to be woken by |
//! | `child` | the process group and cgroup of the work, for a sweep after the job itself was killed |
//! | `log` | both output streams, byte for byte, up to the limit |
//! | `cancel` | made by the agent: the work is to end |
//! | `status.json` | how it ended, written last and atomically |

mod cgroup;
mod container;
pub mod files;
mod handle;
mod log;
mod process;
mod spec;
mod status;
mod supervise;
mod tree;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

pub use handle::{Handle, Launcher, State};
pub use spec::{ContainerSpec, Mount, ProcessSpec, Spec, Work};
pub use status::{How, Status};

/// Why a job could not be begun, read or ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of the job's directory.
    #[error("{what} {path}: {source}")]
    File {
        /// What was tried, for example `write`.
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A file of the job's directory is not what the job or the agent writes.
    #[error("{path} is not readable: {why}")]
    Format {
        /// Which file.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// The parent process itself could not be started.
    #[error("start {program}: {source}")]
    Launch {
        /// The program.
        program: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// Something the operating system refused to the job.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: std::io::Error,
    },
}

impl Error {
    fn file(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { what, path, source }
    }

    fn system(what: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::System { what, source }
    }
}

/// Runs the job of the directory; the exit code says only whether the job itself worked.
#[must_use]
pub fn main(directory: &Path) -> ExitCode {
    // Jobs are workloads: they do not inherit the agent's right of way.
    let _ = rustix::process::setpriority_process(None, 0);
    match supervise::run(directory) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody reads standard error of a detached process; the agent reads this file's text into its log.
            let text = format!("{error}\n");
            files::write_atomic(&directory.join("error"), text.as_bytes()).ok();
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests;
