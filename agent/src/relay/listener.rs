//! Listening sockets: bound, kept for later, retried, accepted from.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::holder;
use super::protocol::{Code, Mode, Refusal};
use super::route::{Counted, Route};
use super::workers::Place;
use super::{http, tcp};

const BACKLOG: u32 = 4096;
/// Pause before a port that could not be listened on is tried again.
const RETRY: Duration = Duration::from_millis(250);
/// Pause after a failed accept, which mostly means that descriptors ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

fn socket(bind: IpAddr) -> io::Result<TcpSocket> {
    if bind.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }
}

/// Binds without listening: clients are refused, and nobody else gets the port.
///
/// A socket bound without address reuse keeps out those that ask for it, other relays included; only a port with dead
/// connections on it, which is one we had before, has to be bound with it.
pub(super) fn reserve(bind: IpAddr, port: u16) -> io::Result<TcpSocket> {
    let address = SocketAddr::new(bind, port);
    let exclusive = socket(bind)?;
    exclusive.set_reuseaddr(false)?;
    if exclusive.bind(address).is_ok() {
        return Ok(exclusive);
    }
    let shared = socket(bind)?;
    shared.set_reuseaddr(true)?;
    shared.bind(address)?;
    Ok(shared)
}

/// Like [`reserve`], for a port that never was ours.
pub(super) fn reserve_fresh(bind: IpAddr, port: u16) -> io::Result<TcpSocket> {
    let socket = socket(bind)?;
    socket.set_reuseaddr(false)?;
    socket.bind(SocketAddr::new(bind, port))?;
    Ok(socket)
}

/// Listens on a reserved or fresh socket.
pub(super) fn listen(reserved: Option<TcpSocket>, bind: IpAddr, port: u16) -> io::Result<TcpListener> {
    let address = SocketAddr::new(bind, port);
    if let Some(reserved) = reserved
        && reserved.local_addr().is_ok_and(|bound| bound == address)
    {
        // Its connections inherit this, so that they do not block the port after a restart.
        reserved.set_reuseaddr(true)?;
        return reserved.listen(BACKLOG);
    }
    let socket = socket(bind)?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// What a failed listen means for the one who asked.
pub(super) async fn refusal(bind: IpAddr, port: u16, error: io::Error) -> Refusal {
    if error.kind() != io::ErrorKind::AddrInUse {
        return Refusal::new(Code::Listen, format!("cannot listen on {}: {error}", SocketAddr::new(bind, port)));
    }
    let found = tokio::task::spawn_blocking(move || holder::of_port(port)).await.ok().flatten();
    let by = found.unwrap_or_else(|| "another process".to_owned());
    Refusal::new(Code::PortTaken, format!("port {port} on {bind} is taken by {by}; choose another port or end it"))
}

/// A running accept loop.
#[derive(Debug)]
pub(super) struct Listening {
    stop: CancellationToken,
    task: JoinHandle<()>,
    pub bind: IpAddr,
}

impl Listening {
    /// Accepts for `route`; without a listener, keeps trying to get one.
    pub fn start(route: Arc<Route>, bind: IpAddr, listener: Option<TcpListener>, tasks: TaskTracker) -> Self {
        let stop = route.stopping.child_token();
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let accepting = async {
                let listener = match listener {
                    Some(listener) => listener,
                    None => listen_at_last(&route, bind).await,
                };
                route.set_listening(Ok(()));
                accept(&route, &listener, &tasks).await;
            };
            tokio::select! {
                () = accepting => {}
                () = stopped.cancelled() => {}
            }
            route.set_listening(Err("not listening".to_owned()));
        });
        Self { stop, task, bind }
    }

    /// Closes the listener; when this returns the port is free.
    pub async fn stop(self) {
        self.stop.cancel();
        if let Err(error) = self.task.await {
            tracing::error!(%error, "accept loop failed");
        }
    }
}

async fn listen_at_last(route: &Route, bind: IpAddr) -> TcpListener {
    loop {
        match listen(None, bind, route.port) {
            Ok(listener) => return listener,
            Err(error) => route.set_listening(Err(refusal(bind, route.port, error).await.to_string())),
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn accept(route: &Arc<Route>, listener: &TcpListener, tasks: &TaskTracker) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => admit(route, stream, peer, tasks),
            Err(error) => {
                tracing::warn!(port = route.port, %error, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Lets a connection in, or closes it at once; in the order of arrival, so the first ones stay.
fn admit(route: &Arc<Route>, stream: TcpStream, peer: SocketAddr, tasks: &TaskTracker) {
    let Some(admitted) = Admitted::new(route) else {
        route.counters.refused.fetch_add(1, Relaxed);
        return;
    };
    route.counters.accepted.fetch_add(1, Relaxed);
    let Some(runtime) = admitted.place.elsewhere() else {
        tasks.spawn(carry(admitted, stream, peer, tasks.clone()));
        return;
    };
    let (stream, tracker) = (stream.into_std(), tasks.clone());
    let moved = async move {
        // Its events come to this runtime from now on.
        match stream.and_then(TcpStream::from_std) {
            Ok(stream) => carry(admitted, stream, peer, tracker).await,
            Err(error) => tracing::warn!(port = admitted.route.port, %error, "connection not taken over"),
        }
    };
    tasks.spawn_on(moved, &runtime);
}

/// A client connection's place: on its port, in the relay, with a worker. Given back when dropped.
struct Admitted {
    route: Arc<Route>,
    place: Place,
}

impl Admitted {
    /// `None` when there are too many.
    fn new(route: &Arc<Route>) -> Option<Self> {
        let limits = route.limits();
        let here = Counted::up_to(&route.counters.open, limits.connections_per_port)?;
        let everywhere = Counted::up_to(&route.shared.open, limits.connections)?;
        // Counted down by what is made here.
        std::mem::forget((here, everywhere));
        Some(Self { route: Arc::clone(route), place: route.shared.workers.choose() })
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.route.counters.open.fetch_sub(1, Relaxed);
        self.route.shared.open.fetch_sub(1, Relaxed);
    }
}

/// Carries one client connection to its end.
async fn carry(admitted: Admitted, stream: TcpStream, peer: SocketAddr, tasks: TaskTracker) {
    let route = &admitted.route;
    if let Err(error) = tune(&stream) {
        tracing::debug!(port = route.port, %error, "socket options not set");
    }
    let _peer = route.peer(peer);
    match route.mode() {
        Mode::Tcp => tcp::serve(Arc::clone(route), stream).await,
        Mode::Http => http::serve(Arc::clone(route), stream, peer.ip(), tasks).await,
    }
}

fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    // A client whose machine vanished must not keep its place for ever.
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, Duration::from_secs(60))?;
    sockopt::set_tcp_keepintvl(stream, Duration::from_secs(15))?;
    sockopt::set_tcp_keepcnt(stream, 4)?;
    Ok(())
}
