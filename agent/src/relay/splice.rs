//! Moves bytes between sockets inside the kernel: a pipe takes references to the pages of what arrived (`splice(2)`), and
//! nothing is copied by this process.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// Pipes at once; connections beyond that are copied. Each has two descriptors.
pub(super) const MOST: u64 = 128;
/// Bytes a pipe is asked to hold; the kernel's limit for users other than root (`fs.pipe-max-size`).
const SIZE: usize = 1 << 20;

static OPEN: AtomicU64 = AtomicU64::new(0);

/// A pipe that one direction of one connection uses for a while. It is empty between two calls.
#[derive(Debug)]
pub(super) struct Pipe {
    reader: OwnedFd,
    writer: OwnedFd,
    _counted: Counted,
}

#[derive(Debug)]
struct Counted;

impl Drop for Counted {
    fn drop(&mut self) {
        OPEN.fetch_sub(1, Relaxed);
    }
}

impl Pipe {
    /// `None` when there are too many, or descriptors or memory are short: the caller copies instead.
    pub fn new() -> Option<Self> {
        let counted = Counted;
        if OPEN.fetch_add(1, Relaxed) >= MOST {
            return None;
        }
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
        // A smaller pipe works too.
        let _ = fcntl_setpipe_size(&writer, SIZE);
        Some(Self { reader, writer, _counted: counted })
    }

    /// Takes what arrived on `from`: the count of bytes, 0 at its end.
    ///
    /// # Errors
    /// `WouldBlock` when nothing is there, and what the socket says.
    pub fn fill(&self, from: &TcpStream) -> io::Result<usize> {
        from.try_io(Interest::READABLE, || Ok(splice(from, None, &self.writer, None, SIZE, FLAGS)?))
    }

    /// Hands the `count` bytes that it holds to `to`.
    ///
    /// # Errors
    /// What the socket says; the pipe is of no use afterwards.
    pub async fn empty(&self, to: &TcpStream, mut count: usize) -> io::Result<()> {
        while count > 0 {
            match to.try_io(Interest::WRITABLE, || Ok(splice(&self.reader, None, to, None, count, FLAGS)?)) {
                Ok(moved) => count -= moved,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => to.writable().await?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

const FLAGS: SpliceFlags = SpliceFlags::MOVE.union(SpliceFlags::NONBLOCK);

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let (one, other) = tokio::join!(TcpStream::connect(address), listener.accept());
        (one.expect("connected"), other.expect("accepted").0)
    }

    #[tokio::test]
    async fn what_one_socket_got_leaves_by_the_other() {
        let ((mut client, inside), (outside, mut server)) = (pair().await, pair().await);
        let pipe = Pipe::new().expect("a pipe");
        let none = pipe.fill(&inside).expect_err("nothing there");
        assert_eq!(none.kind(), io::ErrorKind::WouldBlock);
        client.write_all(b"hello").await.expect("sent");
        inside.readable().await.expect("something there");
        let taken = pipe.fill(&inside).expect("taken");
        pipe.empty(&outside, taken).await.expect("handed on");
        let mut got = [0; 5];
        server.read_exact(&mut got).await.expect("a text");
        assert_eq!(&got, b"hello");
        drop(client);
        inside.readable().await.expect("its end");
        assert_eq!(pipe.fill(&inside).expect("its end"), 0);
    }
}
