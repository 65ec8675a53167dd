//! JUnit XML, read as a stream: whatever a test command (or an attacker in it) leaves behind costs bounded memory.
//!
//! What is strange is told as a warning; what is broken is told too, and what was read before it is kept.

mod archive;
mod cases;
mod files;
mod input;

use std::path::Path;

use domain::run::Report;

pub use archive::read_archive;
pub use files::{Found, Pattern, PatternError, Snapshot};

/// Failing cases that are kept.
const FAILURES: usize = 200;
/// Warnings that are kept.
const WARNINGS: usize = 50;

/// What bounds one reading.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Attributes of one element.
    pub attributes: usize,
    /// Nesting.
    pub depth: usize,
    /// Cases of all files.
    pub cases: u64,
    /// Bytes of one file.
    pub bytes: u64,
    /// Bytes of one element's text or of one tag: what has to be held at once.
    pub event: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { attributes: 256, depth: 64, cases: 5_000_000, bytes: 2 << 30, event: 16 << 20 }
    }
}

/// What was read of all files.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Reading {
    /// Counts and failures, as far as they could be read.
    pub report: Report,
    /// Why it is not all there was: the first file that is broken or beyond a limit.
    pub broken: Option<String>,
}

impl Reading {
    fn warn(&mut self, text: String) {
        if self.report.warnings.len() < WARNINGS {
            self.report.warnings.push(text);
        }
    }
}

/// Reads all files of `found` below `root`; links are not followed.
#[must_use]
pub fn read(root: &Path, found: &Found, limits: Limits) -> Reading {
    let mut reading = Reading::default();
    for name in &found.files {
        let opened = files::open(root, name);
        let done =
            opened.map_err(|error| error.to_string()).and_then(|file| cases::read(file, name, limits, &mut reading));
        if let Err(why) = done {
            let text = format!("{name}: {why}");
            reading.warn(text.clone());
            reading.broken.get_or_insert(text);
        }
    }
    if found.cut {
        reading.broken.get_or_insert("there are more files than are read".to_owned());
    }
    reading
}

#[cfg(test)]
mod tests;
