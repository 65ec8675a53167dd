//! The agent's side of the control socket.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::codec::{Framed, LinesCodec};

use super::protocol::{
    Answer, Confirmation, Confirmed, Drained, MAX_ANSWER_BYTES, PortRange, Refusal, Reply, Request, RouteSpec,
    TableView, WakesView,
};
use super::route::lock;
use super::stats::StatsView;

/// Longest a call may take when nothing else is said; long enough for a killed relay to be started again.
pub const DEADLINE: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);
/// Idle connections kept.
const MOST_IDLE: usize = 4;

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The relay said no; nothing was changed.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// No answer within the deadline; the request may or may not have been done, and may be repeated.
    #[error("E_RELAY_SILENT: the relay at {} did not answer within {deadline:?}: {last}", .socket.display())]
    Silent {
        /// The control socket.
        socket: PathBuf,
        /// How long was waited.
        deadline: Duration,
        /// The last failure seen.
        last: String,
    },
    /// The answer does not fit the request: the relay is of another version.
    #[error("E_RELAY_PROTOCOL: the relay gave an answer that does not fit: {0}")]
    Protocol(String),
}

type Lines = Framed<UnixStream, LinesCodec>;

/// Speaks to one relay; connects when needed and again when it was restarted. Cheap to clone, calls may overlap.
///
/// All requests may be repeated without harm, so a call whose connection breaks is sent again until its deadline.
#[derive(Debug, Clone)]
pub struct Client {
    socket: Arc<Path>,
    idle: Arc<Mutex<Vec<Lines>>>,
}

impl Client {
    /// A client of the relay at `socket`; connects with the first call.
    #[must_use]
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into().into(), idle: Arc::default() }
    }

    /// The control socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Sends one request and waits for its answer, at most `deadline`, through restarts of the relay.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn call(&self, request: &Request, deadline: Duration) -> Result<Answer, ClientError> {
        let until = Instant::now() + deadline;
        let line = serde_json::to_string(request).map_err(|error| ClientError::Protocol(error.to_string()))?;
        let mut pause = FIRST_PAUSE;
        loop {
            let last = match timeout_at(until, self.attempt(&line)).await {
                Ok(Ok(Reply::Ok(answer))) => return Ok(answer),
                Ok(Ok(Reply::Refused(refusal))) if refusal.code == super::protocol::Code::Stopping => {
                    refusal.to_string()
                }
                Ok(Ok(Reply::Refused(refusal))) => return Err(refusal.into()),
                Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData => {
                    return Err(ClientError::Protocol(error.to_string()));
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => "no answer yet".to_owned(),
            };
            if Instant::now() + pause >= until {
                let socket = self.socket.to_path_buf();
                return Err(ClientError::Silent { socket, deadline, last });
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn attempt(&self, line: &str) -> io::Result<Reply> {
        let kept = lock(&self.idle).pop();
        let mut lines = match kept {
            Some(lines) => lines,
            None => {
                Framed::new(UnixStream::connect(&self.socket).await?, LinesCodec::new_with_max_length(MAX_ANSWER_BYTES))
            }
        };
        lines.send(line).await.map_err(io::Error::other)?;
        let text = match lines.next().await {
            Some(text) => text.map_err(io::Error::other)?,
            None => return Err(io::ErrorKind::ConnectionReset.into()),
        };
        let reply = serde_json::from_str(&text)?;
        let mut idle = lock(&self.idle);
        if idle.len() < MOST_IDLE {
            idle.push(lines);
        }
        Ok(reply)
    }

    async fn done(&self, request: &Request) -> Result<(), ClientError> {
        match self.call(request, DEADLINE).await? {
            Answer::Done => Ok(()),
            other => Err(unfit(&other)),
        }
    }

    /// Stores and switches a route; when this returns, new traffic goes there.
    ///
    /// # Errors
    /// `E_STALE_GENERATION`, `E_GENERATION_CONFLICT`, `E_PORT_TAKEN`, `E_LISTEN`, `E_INVALID`, `E_LIMIT`, `E_TABLE_WRITE`.
    pub async fn set_route(&self, route: RouteSpec) -> Result<(), ClientError> {
        self.done(&Request::SetRoute(route)).await
    }

    /// Forgets a route and closes what goes through it; fine when there is none.
    ///
    /// # Errors
    /// `E_STALE_GENERATION`, `E_PORT_TAKEN`, `E_TABLE_WRITE`.
    pub async fn remove_route(&self, port: u16, key: &str, generation: u64) -> Result<(), ClientError> {
        let key = key.to_owned();
        let request = Request::RemoveRoute { port, key, generation };
        match self.call(&request, DEADLINE * 2).await? {
            Answer::Done => Ok(()),
            other => Err(unfit(&other)),
        }
    }

    /// The automatic port of `key`, the same at each call until it is released.
    ///
    /// # Errors
    /// `E_NO_FREE_PORT`, `E_INVALID`, `E_LIMIT`, `E_TABLE_WRITE`.
    pub async fn allocate_port(&self, key: &str, bind: IpAddr, range: Option<PortRange>) -> Result<u16, ClientError> {
        let key = key.to_owned();
        match self.call(&Request::AllocatePort { key, bind, range }, DEADLINE).await? {
            Answer::Port(port) => Ok(port),
            other => Err(unfit(&other)),
        }
    }

    /// Gives an automatic port back; fine when it is not `key`'s.
    ///
    /// # Errors
    /// `E_TABLE_WRITE`.
    pub async fn release_port(&self, port: u16, key: &str) -> Result<(), ClientError> {
        let key = key.to_owned();
        self.done(&Request::ReleasePort { port, key }).await
    }

    /// Vouches for entries in this boot; one result per entry, in order.
    ///
    /// # Errors
    /// `E_BOOT_ID`, `E_INVALID`, `E_TABLE_WRITE`.
    pub async fn confirm(&self, boot_id: &str, entries: Vec<Confirmation>) -> Result<Vec<Confirmed>, ClientError> {
        let boot_id = boot_id.to_owned();
        match self.call(&Request::Confirm { boot_id, entries }, DEADLINE).await? {
            Answer::Confirmed(results) => Ok(results),
            other => Err(unfit(&other)),
        }
    }

    /// Waits until nothing of an old release is open, at most `deadline`, then has the rest closed.
    ///
    /// # Errors
    /// `E_RELEASE_CURRENT`, `E_ROUTE_UNKNOWN`, `E_INVALID`.
    pub async fn drain(&self, port: u16, release: &str, deadline: Duration) -> Result<Drained, ClientError> {
        let request = Request::Drain {
            port,
            release: release.to_owned(),
            deadline_ms: u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX),
        };
        match self.call(&request, deadline + DEADLINE * 2).await? {
            Answer::Drained(drained) => Ok(drained),
            other => Err(unfit(&other)),
        }
    }

    /// Waits until a held route is asked for after `seen`, at most `wait`.
    ///
    /// # Errors
    /// Only when the relay is silent.
    pub async fn wakes(&self, seen: u64, wait: Duration) -> Result<WakesView, ClientError> {
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        match self.call(&Request::Wakes { seen, wait_ms }, wait + DEADLINE).await? {
            Answer::Wakes(wakes) => Ok(wakes),
            other => Err(unfit(&other)),
        }
    }

    /// Sends away what is held on a port.
    ///
    /// # Errors
    /// `E_ROUTE_UNKNOWN`.
    pub async fn refuse_held(&self, port: u16, key: &str) -> Result<(), ClientError> {
        self.done(&Request::RefuseHeld { port, key: key.to_owned() }).await
    }

    /// All entries.
    ///
    /// # Errors
    /// Only when the relay is silent.
    pub async fn table(&self) -> Result<TableView, ClientError> {
        match self.call(&Request::Table, DEADLINE).await? {
            Answer::Table(table) => Ok(table),
            other => Err(unfit(&other)),
        }
    }

    /// All counters.
    ///
    /// # Errors
    /// Only when the relay is silent.
    pub async fn stats(&self) -> Result<StatsView, ClientError> {
        match self.call(&Request::Stats, DEADLINE).await? {
            Answer::Stats(stats) => Ok(stats),
            other => Err(unfit(&other)),
        }
    }

    /// Whether the relay answers within `deadline`.
    ///
    /// # Errors
    /// When it does not.
    pub async fn ping(&self, deadline: Duration) -> Result<(), ClientError> {
        self.call(&Request::Ping, deadline).await.map(drop)
    }

    /// Returns when the relay is gone, at once when it is not there.
    pub async fn gone(&self) {
        if let Ok(stream) = UnixStream::connect(&self.socket).await {
            let mut lines = Framed::new(stream, LinesCodec::new_with_max_length(MAX_ANSWER_BYTES));
            // Nothing is asked, so whatever arrives is the end.
            let _ = lines.next().await;
        }
    }
}

fn unfit(answer: &Answer) -> ClientError {
    ClientError::Protocol(format!("{answer:?}"))
}
