//! A relay, apps behind it and clients in front of it.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::relay::client::Client;
use crate::relay::protocol::{Mode, RouteSpec};
use crate::relay::{Config, Error, Limits, run};
pub use crate::waiting::until;

pub const LOOPBACK: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
pub const KEY: &str = "target:bot/production:web";
/// Longer than anything here takes.
pub const LONG: Duration = Duration::from_secs(20);

/// A relay in this process.
pub struct Rig {
    pub client: Client,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), Error>>,
}

pub fn config(dir: &Path) -> Config {
    let mut config = Config::new(dir.join("state"), dir.join("relay.sock")).expect("a boot id");
    config.limits.stop_grace = Duration::from_millis(200);
    config
}

impl Rig {
    pub async fn start(config: Config) -> Self {
        let (stop, stopped) = oneshot::channel();
        let client = Client::new(config.socket.clone());
        let task = tokio::spawn(run(config, async {
            let _ = stopped.await;
        }));
        client.ping(LONG).await.expect("the relay starts");
        Self { client, stop, task }
    }

    pub async fn fresh() -> (TempDir, Self) {
        Self::limited(Limits::default()).await
    }

    pub async fn limited(limits: Limits) -> (TempDir, Self) {
        let dir = tempfile::tempdir().expect("a folder");
        let mut config = config(dir.path());
        let stop_grace = config.limits.stop_grace;
        config.limits = Limits { stop_grace, ..limits };
        let rig = Self::start(config).await;
        (dir, rig)
    }

    pub async fn stop(self) {
        self.stop.send(()).expect("it runs");
        self.task.await.expect("no panic").expect("a clean end");
    }

    pub async fn port(&self) -> u16 {
        self.client.allocate_port(KEY, LOOPBACK, None).await.expect("a free port")
    }

    /// Leads `port` to `endpoint` with the release named after the generation.
    pub async fn lead(&self, port: u16, mode: Mode, generation: u64, endpoint: SocketAddr) {
        self.client.set_route(route(port, mode, generation, endpoint)).await.expect("a good route");
    }
}

pub fn route(port: u16, mode: Mode, generation: u64, endpoint: SocketAddr) -> RouteSpec {
    RouteSpec {
        port,
        bind: LOOPBACK,
        mode,
        key: KEY.to_owned(),
        release: format!("r{generation}"),
        generation,
        endpoint: Some(endpoint),
        held: false,
    }
}

/// An HTTP app that says its name and how much it was sent.
pub struct App {
    pub address: SocketAddr,
    pub requests: Arc<AtomicU64>,
    pub heads: mpsc::UnboundedReceiver<Request<()>>,
    task: JoinHandle<()>,
}

impl App {
    pub async fn start(name: &'static str) -> Self {
        let listener = TcpListener::bind((LOOPBACK, 0)).await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let requests = Arc::new(AtomicU64::new(0));
        let (seen, heads) = mpsc::unbounded_channel();
        let counter = Arc::clone(&requests);
        let task = tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else {
                    return;
                };
                let (counter, seen) = (Arc::clone(&counter), seen.clone());
                let service = service_fn(move |request| answer(name, Arc::clone(&counter), seen.clone(), request));
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        Self { address, requests, heads, task }
    }

    pub fn count(&self) -> u64 {
        self.requests.load(SeqCst)
    }

    /// Refuses connections from now on.
    pub async fn end(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

async fn answer(
    name: &'static str,
    counter: Arc<AtomicU64>,
    seen: mpsc::UnboundedSender<Request<()>>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    counter.fetch_add(1, SeqCst);
    let (parts, mut body) = request.into_parts();
    let big = parts.uri.path().strip_prefix("/big/").and_then(|size| size.parse().ok());
    let _ = seen.send(Request::from_parts(parts, ()));
    let mut length = 0;
    while let Some(Ok(frame)) = body.frame().await {
        length += frame.data_ref().map_or(0, Bytes::len);
    }
    let text = match big {
        Some(size) => Bytes::from(vec![b'x'; size]),
        None => Bytes::from(format!("{name} {length}")),
    };
    Ok(Response::new(Full::new(text)))
}

/// A client connection spoken to in bytes.
pub struct Raw(pub TcpStream);

/// Status, head as text, body.
pub type Got = (u16, String, Vec<u8>);

impl Raw {
    pub async fn open(port: u16) -> Self {
        Self(TcpStream::connect((LOOPBACK, port)).await.expect("the relay listens"))
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).await.expect("the relay reads");
    }

    /// A head, up to its empty line.
    pub async fn head(&mut self) -> (u16, String) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.0.read_u8().await.expect("a whole head"));
        }
        let text = String::from_utf8(head).expect("text");
        let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
        (status.unwrap_or(0), text)
    }

    /// An answer with a length.
    pub async fn answer(&mut self) -> Got {
        let (status, head) = self.head().await;
        let lower = head.to_ascii_lowercase();
        let length = lower.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
        let length = length.and_then(|length| length.parse().ok()).expect("a length");
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).await.expect("a whole body");
        (status, head, body)
    }

    pub async fn get(&mut self) -> (u16, String) {
        self.send("GET / HTTP/1.1\r\nHost: app\r\n\r\n").await;
        let (status, _, body) = self.answer().await;
        (status, String::from_utf8(body).expect("text"))
    }

    /// Whatever comes until the relay closes.
    pub async fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        let read = tokio::time::timeout(LONG, self.0.read_to_end(&mut rest)).await;
        read.expect("the relay closes").expect("without a reset");
        rest
    }
}

pub async fn get(port: u16) -> (u16, String) {
    Raw::open(port).await.get().await
}
