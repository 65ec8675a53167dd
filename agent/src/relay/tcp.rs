//! `tcp` mode: bytes in both directions, each closed on its own.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::BytesMut;
use rustix::net::{Shutdown, shutdown};
use tokio::net::TcpStream;

use super::backend::{Lease, Use, connect};
use super::route::Route;

/// Bytes taken from a socket at once.
const CHUNK: usize = 64 << 10;

/// Carries one client connection to its end.
pub(super) async fn serve(route: Arc<Route>, client: TcpStream) {
    let Some((lease, upstream)) = reach(&route).await else {
        return;
    };
    let counters = &lease.backend.counters;
    let inward = pump(&client, &upstream, &counters.bytes_in, &route);
    let outward = pump(&upstream, &client, &counters.bytes_out, &route);
    tokio::select! {
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
async fn pump(from: &TcpStream, to: &TcpStream, moved: &AtomicU64, route: &Route) -> io::Result<()> {
    loop {
        from.readable().await?;
        // An idle connection keeps no buffer.
        let mut buffer = BytesMut::with_capacity(CHUNK);
        loop {
            buffer.clear();
            match from.try_read_buf(&mut buffer) {
                Ok(0) => {
                    shutdown(to, Shutdown::Write)?;
                    return Ok(());
                }
                Ok(count) => {
                    send_all(to, &buffer).await?;
                    moved.fetch_add(u64::try_from(count).unwrap_or(0), Relaxed);
                    route.touch();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
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
