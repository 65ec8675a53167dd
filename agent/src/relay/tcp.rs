//! `tcp` mode: bytes in both directions, each closed on its own; copied while they are few, spliced while they are many.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::BytesMut;
use futures::FutureExt;
use rustix::net::{Shutdown, shutdown};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::net::tcp::ReadHalf;
use tokio::task::yield_now;
use tokio::time::timeout;

use super::backend::{Lease, Use, connect};
use super::route::Route;
use super::splice::Pipe;

/// Bytes taken from a socket at once.
const CHUNK: usize = 64 << 10;
/// Reads in a row of at least this many bytes say that much is coming ...
const LARGE: usize = 16 << 10;
/// ... when there were this many of them: then bytes pass through a pipe.
const MUCH: u32 = 8;
/// How long a connection without traffic keeps its pipe.
const PIPE_IDLE: Duration = Duration::from_millis(200);

/// Bytes spliced in a row before the worker's other connections get their turn.
const TURN: usize = 4 << 20;

/// Carries one client connection to its end.
pub(super) async fn serve(route: Arc<Route>, mut client: TcpStream) {
    let Some((lease, mut upstream)) = reach(&route).await else {
        return;
    };
    let counters = &lease.backend.counters;
    let ((from_client, to_client), (from_upstream, to_upstream)) = (client.split(), upstream.split());
    let inward = pump(from_client, to_upstream.as_ref(), &counters.bytes_in, &route);
    let outward = pump(from_upstream, to_client.as_ref(), &counters.bytes_out, &route);
    tokio::select! {
        biased;
        _ = async { tokio::try_join!(inward, outward) } => {}
        () = lease.backend.close.cancelled() => {}
        () = route.removed.cancelled() => {}
    }
}

/// Connects to where the route leads; when it was switched meanwhile, to the new place.
async fn reach(route: &Route) -> Option<(Lease, TcpStream)> {
    loop {
        let lease = route.lease(Use::Connection).await.ok()?;
        match connect(&lease.backend, route.limits()).await {
            Ok(stream) => return Some((lease, stream)),
            Err(error) => {
                lease.backend.counters.upstream_errors.fetch_add(1, Relaxed);
                tracing::debug!(port = route.port, %error, "endpoint not reached");
                if route.is_current(&lease.backend) {
                    return None;
                }
            }
        }
    }
}

/// Moves bytes until `from` ends, then ends the same direction of `to`.
async fn pump(mut from: ReadHalf<'_>, to: &TcpStream, moved: &AtomicU64, route: &Route) -> io::Result<()> {
    let count = |count: usize| {
        moved.fetch_add(u64::try_from(count).unwrap_or(0), Relaxed);
        route.touch();
    };
    loop {
        match copy(&mut from, to, count).await? {
            Copied::End => break,
            Copied::Much(pipe) => {
                if pass(from.as_ref(), to, &pipe, count).await? == Passed::End {
                    break;
                }
            }
        }
    }
    shutdown(to, Shutdown::Write)?;
    Ok(())
}

/// Why copying ended.
enum Copied {
    End,
    /// So much arrives that a pipe is worth its while.
    Much(Pipe),
}

/// Copies bytes through a buffer: the shortest way for questions and answers.
async fn copy(from: &mut ReadHalf<'_>, to: &TcpStream, count: impl Fn(usize)) -> io::Result<Copied> {
    let mut large = 0;
    loop {
        poll_fn(|cx| from.as_ref().poll_read_ready(cx)).await?;
        // An idle connection keeps no buffer.
        let mut buffer = BytesMut::with_capacity(CHUNK);
        loop {
            buffer.clear();
            // Unlike `try_read`, this remembers that a socket that filled less than the buffer is empty: no second read fails.
            let Some(read) = from.read_buf(&mut buffer).now_or_never() else { break };
            let read = read?;
            if read == 0 {
                return Ok(Copied::End);
            }
            send_all(to, &buffer).await?;
            count(read);
            large = if read >= LARGE { large + 1 } else { 0 };
            if large == MUCH
                && let Some(pipe) = Pipe::new()
            {
                return Ok(Copied::Much(pipe));
            }
            if read < CHUNK {
                break;
            }
        }
    }
}

/// Why passing through a pipe ended.
#[derive(PartialEq, Eq)]
enum Passed {
    End,
    /// Nothing arrived for a while.
    Idle,
}

/// Passes bytes through a pipe for as long as they come.
async fn pass(from: &TcpStream, to: &TcpStream, pipe: &Pipe, count: impl Fn(usize)) -> io::Result<Passed> {
    let mut turn = 0;
    loop {
        match pipe.fill(from) {
            Ok(0) => return Ok(Passed::End),
            Ok(taken) => {
                pipe.empty(to, taken).await?;
                count(taken);
                turn += taken;
                if turn >= TURN {
                    turn = 0;
                    yield_now().await;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let Ok(ready) = timeout(PIPE_IDLE, from.readable()).await else { return Ok(Passed::Idle) };
                ready?;
            }
            Err(error) => return Err(error),
        }
    }
}

async fn send_all(to: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match to.try_write(bytes) {
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => to.writable().await?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
