//! Bytes for the XML reader: always UTF-8, and never more than the limits.

use std::io::{self, BufRead, Read};

const CHUNK: usize = 64 << 10;

/// A file as UTF-8; bytes that are none become `?`.
#[derive(Debug)]
pub(super) struct Input<R> {
    inner: R,
    buffer: Vec<u8>,
    start: usize,
    /// Up to here the buffer is UTF-8.
    valid: usize,
    ended: bool,
    /// Bytes that may still be read at all.
    left: u64,
    /// Bytes that the present event may still take.
    event: u64,
    /// Some bytes were no UTF-8.
    pub(super) replaced: bool,
}

impl<R: Read> Input<R> {
    pub(super) fn new(inner: R, bytes: u64, event: u64) -> Self {
        Self { inner, buffer: Vec::new(), start: 0, valid: 0, ended: false, left: bytes, event, replaced: false }
    }

    /// A new event begins.
    pub(super) fn begin(&mut self, event: u64) {
        self.event = event;
    }

    fn fill(&mut self) -> io::Result<()> {
        self.buffer.drain(..self.valid);
        self.start = 0;
        let kept = self.buffer.len();
        self.buffer.resize(kept + CHUNK, 0);
        let count = loop {
            match self.inner.read(&mut self.buffer[kept..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other?,
            }
        };
        self.buffer.truncate(kept + count);
        self.ended = count == 0;
        self.left = self.left.checked_sub(count as u64).ok_or_else(|| beyond("the file is longer than allowed"))?;
        self.valid = self.repair();
        Ok(())
    }

    /// Replaces what is no UTF-8; how far the buffer is complete.
    fn repair(&mut self) -> usize {
        let mut at = 0;
        loop {
            let Err(error) = std::str::from_utf8(&self.buffer[at..]) else { return self.buffer.len() };
            let from = at + error.valid_up_to();
            let length = match error.error_len() {
                // A character that the next chunk completes.
                None if !self.ended => return from,
                None => self.buffer.len() - from,
                Some(length) => length,
            };
            self.buffer[from..from + length].fill(b'?');
            self.replaced = true;
            at = from + length;
        }
    }
}

fn beyond(text: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::FileTooLarge, text)
}

impl<R: Read> Read for Input<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(into)?;
        self.consume(count);
        Ok(count)
    }
}

impl<R: Read> BufRead for Input<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.start == self.valid && !self.ended {
            self.fill()?;
        }
        if self.event == 0 {
            return Err(beyond("one element is longer than allowed"));
        }
        Ok(&self.buffer[self.start..self.valid])
    }

    fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.valid);
        self.event = self.event.saturating_sub(count as u64);
    }
}
