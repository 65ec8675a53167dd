//! Tunnels of upgraded connections, and how a websocket is ended in good form.
//!
//! The relay does not speak websocket; it only follows where frames begin and end. When a tunnel has to end, it waits for
//! the end of the frame that is passing, at most [`FRAME_PATIENCE`], then sends a close frame with status 1001 in both
//! directions, and waits at most [`LEAVE_PATIENCE`] for the client to leave. A frame that does not end in time is cut: the
//! connection closes without a close frame. Other protocols are closed at once.

use std::time::Duration;

use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use std::sync::atomic::Ordering::Relaxed;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

use super::backend::Lease;
use super::route::Route;

/// How long a passing frame may take to end once the tunnel has to close.
const FRAME_PATIENCE: Duration = Duration::from_secs(1);
/// How long a client may take to leave after its close frame.
const LEAVE_PATIENCE: Duration = Duration::from_secs(1);
const CHUNK: usize = 16 << 10;

/// Close, status 1001 (going away), as a server sends it.
const CLOSE_TO_CLIENT: [u8; 4] = [0x88, 0x02, 0x03, 0xe9];
/// The same as a client sends it: masked, with a mask of zeros.
const CLOSE_TO_SERVER: [u8; 8] = [0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe9];

/// Follows frames in one direction.
#[derive(Debug, Default)]
struct Frames {
    /// The head seen so far: at most 2 bytes, 8 of length, 4 of mask.
    head: Vec<u8>,
    payload_left: u64,
    /// A close frame has passed: nothing may follow it.
    closed: bool,
}

impl Frames {
    fn at_boundary(&self) -> bool {
        self.head.is_empty() && self.payload_left == 0
    }

    /// Takes bytes up to the next end of a frame, or all; answers how many.
    fn feed(&mut self, bytes: &[u8]) -> usize {
        let mut used = 0;
        while let Some(byte) = bytes.get(used) {
            if self.payload_left > 0 {
                let rest = bytes.len() - used;
                let count = rest.min(usize::try_from(self.payload_left).unwrap_or(usize::MAX));
                self.payload_left -= u64::try_from(count).unwrap_or(self.payload_left);
                used += count;
            } else {
                self.head.push(*byte);
                used += 1;
                if !self.finish_head() {
                    continue;
                }
            }
            if self.payload_left == 0 {
                return used;
            }
        }
        used
    }

    /// When the head is complete, forgets it and remembers its payload.
    fn finish_head(&mut self) -> bool {
        let [first, second, rest @ ..] = self.head.as_slice() else {
            return false;
        };
        let length_bytes = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mask_bytes = if second & 0x80 == 0 { 0 } else { 4 };
        if rest.len() < length_bytes + mask_bytes {
            return false;
        }
        self.payload_left = match length_bytes {
            0 => u64::from(second & 0x7f),
            count => rest[..count].iter().fold(0, |sum, byte| (sum << 8) | u64::from(*byte)),
        };
        self.closed |= first & 0x0f == 0x08;
        self.head.clear();
        true
    }
}

/// Carries an upgraded connection to its end.
pub(super) async fn tunnel(route: &Route, lease: Lease, client: Upgraded, server: Upgraded, websocket: bool) {
    let (from_client, to_client) = tokio::io::split(TokioIo::new(client));
    let (from_server, to_server) = tokio::io::split(TokioIo::new(server));
    let counters = &lease.backend.counters;
    let close = CancellationToken::new();
    let inward = Direction {
        route,
        moved: &counters.bytes_in,
        close: &close,
        goodbye: websocket.then_some(&CLOSE_TO_SERVER[..]),
    };
    let outward = Direction {
        route,
        moved: &counters.bytes_out,
        close: &close,
        goodbye: websocket.then_some(&CLOSE_TO_CLIENT[..]),
    };
    let both = async { tokio::join!(inward.carry(from_client, to_server), outward.carry(from_server, to_client)) };
    tokio::pin!(both);
    tokio::select! {
        _ = &mut both => return,
        () = lease.backend.close.cancelled() => {}
        () = route.removed.cancelled() => {}
    }
    if websocket {
        close.cancel();
        let _ = tokio::time::timeout(FRAME_PATIENCE + LEAVE_PATIENCE, both).await;
    }
}

/// One direction of a tunnel.
struct Direction<'a> {
    route: &'a Route,
    moved: &'a std::sync::atomic::AtomicU64,
    close: &'a CancellationToken,
    goodbye: Option<&'a [u8]>,
}

impl Direction<'_> {
    async fn carry(&self, mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) {
        let mut frames = Frames::default();
        let mut buffer = vec![0; CHUNK];
        loop {
            if self.close.is_cancelled() && frames.at_boundary() {
                break;
            }
            let read = tokio::select! {
                biased;
                () = self.close.cancelled(), if !self.close.is_cancelled() => continue,
                read = from.read(&mut buffer) => read,
            };
            let Some(bytes) = read.ok().and_then(|count| buffer.get(..count)).filter(|bytes| !bytes.is_empty()) else {
                let _ = to.shutdown().await;
                return;
            };
            let taken = self.take(&mut frames, bytes);
            if to.write_all(&bytes[..taken]).await.is_err() || to.flush().await.is_err() {
                return;
            }
            self.moved.fetch_add(u64::try_from(taken).unwrap_or(0), Relaxed);
            self.route.touch();
        }
        self.say_goodbye(&frames, &mut to).await;
        // Unread bytes would turn our close into a reset and destroy the close frame on its way.
        while matches!(from.read(&mut buffer).await, Ok(1..)) {}
    }

    /// Follows the frames in `bytes`; when closing, only up to the end of the first.
    fn take(&self, frames: &mut Frames, bytes: &[u8]) -> usize {
        if self.goodbye.is_none() {
            return bytes.len();
        }
        let mut taken = 0;
        while taken < bytes.len() {
            taken += frames.feed(&bytes[taken..]);
            if self.close.is_cancelled() && frames.at_boundary() {
                break;
            }
        }
        taken
    }

    async fn say_goodbye(&self, frames: &Frames, to: &mut (impl AsyncWrite + Unpin)) {
        if let Some(goodbye) = self.goodbye
            && !frames.closed
        {
            let _ = to.write_all(goodbye).await;
        }
        let _ = to.shutdown().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(opcode: u8, length: usize, masked: bool) -> Vec<u8> {
        let mask = if masked { 0x80 } else { 0 };
        let mut bytes = vec![0x80 | opcode];
        match length {
            0..=125 => bytes.push(mask | u8::try_from(length).expect("small")),
            126..=65_535 => {
                bytes.push(mask | 126);
                bytes.extend_from_slice(&u16::try_from(length).expect("fits").to_be_bytes());
            }
            _ => {
                bytes.push(mask | 127);
                bytes.extend_from_slice(&u64::try_from(length).expect("fits").to_be_bytes());
            }
        }
        if masked {
            bytes.extend_from_slice(&[1, 2, 3, 4]);
        }
        bytes.resize(bytes.len() + length, 0xff);
        bytes
    }

    #[test]
    fn frames_of_every_length_end_where_they_end() {
        for length in [0, 1, 125, 126, 65_535, 65_536] {
            for masked in [false, true] {
                let bytes = frame(2, length, masked);
                let mut frames = Frames::default();
                let mut followed = bytes.clone();
                followed.extend_from_slice(&frame(1, 3, masked));
                assert_eq!(frames.feed(&followed), bytes.len(), "{length} {masked}");
                assert!(frames.at_boundary());
                let mut bytewise = Frames::default();
                for (at, byte) in bytes.iter().enumerate() {
                    assert_eq!(bytewise.at_boundary(), at == 0);
                    assert_eq!(bytewise.feed(&[*byte]), 1);
                }
                assert!(bytewise.at_boundary() && !bytewise.closed);
            }
        }
    }

    #[test]
    fn a_close_frame_is_noticed() {
        let mut frames = Frames::default();
        assert_eq!(frames.feed(&CLOSE_TO_CLIENT), 4);
        assert!(frames.closed && frames.at_boundary());
        let mut masked = Frames::default();
        assert_eq!(masked.feed(&CLOSE_TO_SERVER), 8);
        assert!(masked.closed && masked.at_boundary());
    }
}
