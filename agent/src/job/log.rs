//! The spooled output: both streams, byte for byte, up to a limit; the rest is read, counted and dropped.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The job's side of the log.
#[derive(Debug)]
pub(super) struct Log {
    file: File,
    room: u64,
    written: u64,
    dropped: u64,
}

impl Log {
    /// Begins an empty log that keeps at most `limit` bytes and one line that says where it was cut.
    pub(super) fn create(path: &Path, limit: u64) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        Ok(Self { file, room: limit, written: 0, dropped: 0 })
    }

    /// A full disk must not end the work: what cannot be written counts as dropped.
    pub(super) fn append(&mut self, bytes: &[u8]) {
        let keep = usize::try_from(self.room).unwrap_or(usize::MAX).min(bytes.len());
        let kept = self.write(&bytes[..keep]);
        let lost = bytes.len() - kept;
        self.room -= kept as u64;
        if lost == 0 {
            return;
        }
        self.room = 0;
        if self.dropped == 0 {
            self.write(b"\n[muster: the rest of the output is beyond the limit and was dropped]\n");
        }
        self.dropped += lost as u64;
    }

    fn write(&mut self, mut bytes: &[u8]) -> usize {
        let mut count = 0;
        while !bytes.is_empty() {
            match self.file.write(bytes) {
                Ok(0) => break,
                Ok(wrote) => {
                    count += wrote;
                    bytes = &bytes[wrote..];
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        self.written += count as u64;
        count
    }

    /// Makes it durable; bytes in the log, bytes dropped.
    pub(super) fn finish(&self) -> (u64, u64) {
        self.file.sync_all().ok();
        (self.written, self.dropped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_beyond_the_limit_is_dropped_counted_and_said_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut log = Log::create(&path, 5).unwrap();
        for part in [b"abc".as_slice(), b"def", b"ghi"] {
            log.append(part);
        }
        let (written, dropped) = log.finish();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("abcde\n[muster: "), "{text}");
        assert_eq!(text.matches("dropped").count(), 1);
        assert_eq!((written, dropped), (text.len() as u64, 4));
    }
}
