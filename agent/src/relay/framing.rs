//! Watches the bytes of a client for requests that carry both a length and a transfer coding. hyper drops the length
//! of such a request before anybody sees it; whoever sends both tries to be read in two ways, and is refused. The same
//! wrapper ends a connection whose client does not take an answer that has to end.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::backend::Backend;
use super::route::lock;

/// Longest line looked at; hyper refuses longer heads anyway.
const LONGEST_LINE: usize = 64 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Head,
    Body(u64),
    ChunkSize,
    Chunk(u64),
    Trailers,
    /// Not HTTP any more, or not understood.
    Opaque,
}

/// Follows requests through a stream of bytes.
#[derive(Debug)]
struct Follower {
    state: State,
    line: Vec<u8>,
    started: bool,
    length: Option<u64>,
    coded: bool,
    requests: u64,
}

impl Follower {
    fn new() -> Self {
        Self { state: State::Head, line: Vec::new(), started: false, length: None, coded: false, requests: 0 }
    }

    /// Takes bytes in order; answers the number (from 0) of a request with two lengths.
    fn feed(&mut self, mut bytes: &[u8]) -> Option<u64> {
        let mut bad = None;
        while !bytes.is_empty() {
            match self.state {
                State::Opaque => return bad,
                State::Body(left) => {
                    let (rest, left) = skip(bytes, left);
                    bytes = rest;
                    self.state = if left == 0 { State::Head } else { State::Body(left) };
                }
                State::Chunk(left) => {
                    let (rest, left) = skip(bytes, left);
                    bytes = rest;
                    self.state = if left == 0 { State::ChunkSize } else { State::Chunk(left) };
                }
                State::Head | State::ChunkSize | State::Trailers => {
                    match bytes.iter().position(|byte| *byte == b'\n') {
                        Some(end) if self.line.is_empty() => {
                            bad = self.take_line(&bytes[..end]).or(bad);
                            bytes = &bytes[end + 1..];
                        }
                        Some(end) => {
                            let mut line = std::mem::take(&mut self.line);
                            line.extend_from_slice(&bytes[..end]);
                            bad = self.take_line(&line).or(bad);
                            bytes = &bytes[end + 1..];
                        }
                        None => {
                            self.line.extend_from_slice(bytes);
                            if self.line.len() > LONGEST_LINE {
                                self.give_up();
                            }
                            return bad;
                        }
                    }
                }
            }
        }
        bad
    }

    fn give_up(&mut self) {
        self.state = State::Opaque;
        self.line = Vec::new();
    }

    fn take_line(&mut self, line: &[u8]) -> Option<u64> {
        let text = line.strip_suffix(b"\r").unwrap_or(line);
        let mut bad = None;
        match self.state {
            State::Head if text.is_empty() && self.started => bad = self.end_head(),
            State::Head if text.is_empty() => {}
            State::Head if self.started => self.header(text),
            State::Head => self.started = true,
            State::ChunkSize => self.chunk(text),
            State::Trailers if text.is_empty() => self.state = State::Head,
            _ => {}
        }
        bad
    }

    fn header(&mut self, line: &[u8]) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            return;
        };
        let (name, value) = (line[..colon].trim_ascii(), line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"transfer-encoding") {
            self.coded = true;
        } else if name.eq_ignore_ascii_case(b"content-length") {
            let number = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
            self.length = Some(number.unwrap_or(0));
        }
    }

    fn end_head(&mut self) -> Option<u64> {
        let (coded, length) = (self.coded, self.length);
        self.started = false;
        self.coded = false;
        self.length = None;
        let number = self.requests;
        self.requests += 1;
        self.state = match (coded, length) {
            (true, _) => State::ChunkSize,
            (false, Some(length)) if length > 0 => State::Body(length),
            _ => State::Head,
        };
        (coded && length.is_some()).then_some(number)
    }

    fn chunk(&mut self, line: &[u8]) {
        let digits = line.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        let size = std::str::from_utf8(digits).ok().and_then(|text| u64::from_str_radix(text, 16).ok());
        match size {
            Some(0) => self.state = State::Trailers,
            // The chunk and the line end behind it.
            Some(size) => self.state = State::Chunk(size.saturating_add(2)),
            None => self.give_up(),
        }
    }
}

fn skip(bytes: &[u8], left: u64) -> (&[u8], u64) {
    let count = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
    (&bytes[count..], left - u64::try_from(count).unwrap_or(left))
}

/// What is shared between a connection's bytes and its requests.
#[derive(Debug, Clone)]
pub(super) struct Verdict(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// The number of the request to be refused.
    refused: AtomicU64,
    /// Whose answer is being written: it ends when this closes.
    answering: Mutex<Option<Arc<Backend>>>,
}

impl Verdict {
    fn new() -> Self {
        Self(Arc::new(Shared { refused: AtomicU64::new(u64::MAX), answering: Mutex::new(None) }))
    }

    /// Whether the request with this number, from 0, has two lengths.
    pub fn refuses(&self, number: u64) -> bool {
        self.0.refused.load(Relaxed) == number
    }

    /// From now on the closing of `backend` ends the connection, even when the client takes nothing; `None` ends that.
    pub fn answered_by(&self, backend: Option<Arc<Backend>>) {
        *lock(&self.0.answering) = backend;
    }

    fn check_cut(&self) -> io::Result<()> {
        match &*lock(&self.0.answering) {
            Some(backend) if backend.close.is_cancelled() => Err(io::ErrorKind::ConnectionAborted.into()),
            _ => Ok(()),
        }
    }
}

/// A client's connection whose incoming bytes are watched.
#[derive(Debug)]
pub(super) struct Watched<T> {
    inner: T,
    follower: Follower,
    verdict: Verdict,
}

impl<T> Watched<T> {
    pub fn new(inner: T) -> (Self, Verdict) {
        let verdict = Verdict::new();
        let watched = Self { inner, follower: Follower::new(), verdict: verdict.clone() };
        (watched, verdict)
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Watched<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.inner).poll_read(cx, buf))?;
        let fresh = buf.filled().get(before..).unwrap_or_default();
        if let Some(number) = this.follower.feed(fresh) {
            // The first one counts: the connection ends there.
            let _ = this.verdict.0.refused.compare_exchange(u64::MAX, number, Relaxed, Relaxed);
            this.follower.give_up();
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Watched<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.verdict.check_cut()?;
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.verdict.check_cut()?;
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.verdict.check_cut()?;
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BAD: &[u8] = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\ncontent-length: 3\r\n\r\n";

    fn whole_and_bytewise(input: &[u8]) -> Option<u64> {
        let whole = Follower::new().feed(input);
        let mut follower = Follower::new();
        let mut bytewise = None;
        for byte in input.chunks(1) {
            bytewise = bytewise.or(follower.feed(byte));
        }
        assert_eq!(whole, bytewise);
        whole
    }

    #[test]
    fn both_lengths_are_found_in_either_order() {
        assert_eq!(whole_and_bytewise(BAD), Some(0));
        let other = b"POST / HTTP/1.1\r\nContent-Length: 3\r\nX: y\r\ntransfer-encoding: chunked\r\n\r\n";
        assert_eq!(whole_and_bytewise(other), Some(0));
    }

    #[test]
    fn bodies_are_not_taken_for_heads() {
        let mut input = format!("POST / HTTP/1.1\r\nContent-Length: {}\r\n\r\n", BAD.len()).into_bytes();
        input.extend_from_slice(BAD);
        input.extend_from_slice(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n");
        input.extend_from_slice(format!("{:x};ext=1\r\n", BAD.len()).as_bytes());
        input.extend_from_slice(BAD);
        input.extend_from_slice(b"\r\n0\r\nTrailer: x\r\n\r\nGET / HTTP/1.1\r\n\r\n");
        assert_eq!(whole_and_bytewise(&input), None);
        input.extend_from_slice(BAD);
        assert_eq!(whole_and_bytewise(&input), Some(3));
    }

    #[test]
    fn what_is_not_http_is_left_alone() {
        let mut follower = Follower::new();
        assert_eq!(follower.feed(&vec![b'x'; LONGEST_LINE + 1]), None);
        assert_eq!((follower.state, follower.line.capacity()), (State::Opaque, 0));
        assert_eq!(follower.feed(BAD), None);
    }
}
