//! What agents call.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use domain::ids::RunId;
use futures::Stream;
use proto::MAX_CHUNK;
use proto::v1;
use proto::v1::agents_server::Agents;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use transport::Peer;

use super::error::status;
use super::{Api, agent};
use crate::app::{artifacts, join, logs};
use crate::auth::Agent;
use crate::error::{Code, Error, Result as Checked};
use crate::sessions::log_orders::CREDIT;
use crate::sessions::session;

/// A run's log is written to the store in pieces of at least this many bytes, or after [`FLUSH`].
const PIECE: usize = 64 << 10;
const FLUSH: Duration = Duration::from_millis(200);
/// Runs whose logs one host sends at once.
const MAX_LOGS: usize = 256;

fn joined(api: &Api, joined: join::Joined) -> v1::JoinResponse {
    v1::JoinResponse {
        host_id: joined.id.to_string(),
        host_name: joined.name.to_string(),
        chain: joined.issued.chain,
        not_after: joined.issued.not_after.0,
        now: api.app.now().0,
    }
}

fn peer<T>(request: &Request<T>) -> Option<Peer> {
    request.extensions().get::<Peer>().cloned()
}

#[tonic::async_trait]
impl Agents for Api {
    type SessionStream = Pin<Box<dyn Stream<Item = Result<v1::CoordinatorMessage, Status>> + Send>>;
    type LogsStream = Pin<Box<dyn Stream<Item = Result<v1::AgentLogAck, Status>> + Send>>;
    type TunnelStream = Pin<Box<dyn Stream<Item = Result<v1::TunnelFrame, Status>> + Send>>;
    type FetchStream = Pin<Box<dyn Stream<Item = Result<v1::FetchChunk, Status>> + Send>>;

    async fn join(&self, request: Request<v1::JoinRequest>) -> Result<Response<v1::JoinResponse>, Status> {
        let from = peer(&request).map_or_else(|| "unknown".to_owned(), |peer| peer.address.to_string());
        let ask = request.into_inner();
        let facts = ask.facts.unwrap_or_default().into();
        let made = join::join(&self.app, &ask.token, &ask.csr, facts, &from).await.map_err(status)?;
        Ok(Response::new(joined(self, made)))
    }

    async fn renew(&self, request: Request<v1::RenewRequest>) -> Result<Response<v1::JoinResponse>, Status> {
        let peer = peer(&request);
        let made = join::renew(&self.app, peer.as_ref(), &request.get_ref().csr).await.map_err(status)?;
        Ok(Response::new(joined(self, made)))
    }

    async fn session(
        &self,
        request: Request<Streaming<v1::AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let agent = agent(&request)?;
        let outgoing = session::begin(self.shared(), agent, request.into_inner());
        Ok(Response::new(Box::pin(ReceiverStream::new(outgoing))))
    }

    async fn logs(&self, request: Request<Streaming<v1::AgentLog>>) -> Result<Response<Self::LogsStream>, Status> {
        let agent = agent(&request)?;
        let (sender, receiver) = mpsc::channel(64);
        let (acks, mut ack_queue) = mpsc::channel::<v1::AgentLogAck>(256);
        let answers = sender.clone();
        tokio::spawn(async move {
            while let Some(ack) = ack_queue.recv().await {
                if answers.send(Ok(ack)).await.is_err() {
                    return;
                }
            }
        });
        let (api, incoming) = (self.clone(), request.into_inner());
        tokio::spawn(async move {
            let taken = take_logs(&api, &agent, incoming, &acks).await;
            api.log_orders.broken(agent.name.as_ref(), &acks);
            if let Err(error) = taken {
                tracing::warn!(host = %agent.name, %error, "a log stream ended");
                let _ = sender.send(Err(status(error))).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn tunnel(
        &self,
        request: Request<Streaming<v1::TunnelFrame>>,
    ) -> Result<Response<Self::TunnelStream>, Status> {
        let agent = agent(&request)?;
        let frames = super::tunnels::dial(self, agent.id, request.into_inner()).await?;
        Ok(Response::new(Box::pin(frames)))
    }

    async fn fetch(&self, request: Request<v1::FetchRequest>) -> Result<Response<Self::FetchStream>, Status> {
        let host = agent(&request)?.id;
        let ask = request.into_inner();
        let plan = artifacts::plan(&self.app, host, &ask.digest, &ask.without, ask.head_only).await.map_err(status)?;
        let (sender, receiver) = mpsc::channel(4);
        let api = self.clone();
        tokio::spawn(async move {
            if let Err(error) = send_artifact(&api, &plan, ask.offset, &sender).await {
                let _ = sender.send(Err(status(error))).await;
            }
            if !ask.head_only {
                // Most of it has been taken from the queue, the last parts are in it.
                crate::failpoint::hit(api.app.ctx.state_dir.as_deref(), "fetch.queued");
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

async fn send_artifact(
    api: &Api,
    plan: &artifacts::Plan,
    mut skip: u64,
    sender: &mpsc::Sender<Result<v1::FetchChunk, Status>>,
) -> Checked<()> {
    for range in &plan.ranges {
        let length = range.end - range.start;
        if skip >= length {
            skip -= length;
            continue;
        }
        let mut at = range.start + skip;
        skip = 0;
        while at < range.end {
            let end = range.end.min(at + MAX_CHUNK as u64);
            let data = api.app.artifacts.read(&plan.digest, at..end).await?;
            at = end;
            if sender.send(Ok(v1::FetchChunk { data })).await.is_err() {
                return Ok(());
            }
        }
    }
    if plan.end_blocks {
        let end = Bytes::from_static(&[0; 1024]);
        let skip = usize::try_from(skip).unwrap_or(usize::MAX).min(end.len());
        let _ = sender.send(Ok(v1::FetchChunk { data: end.slice(skip..) })).await;
    }
    Ok(())
}

/// By key.
type Logs = BTreeMap<String, Log>;

/// A run's log on its way into the store.
struct Log {
    run: RunId,
    /// Where the store ends.
    stored: u64,
    /// What comes after that and is not stored yet.
    waiting: BytesMut,
    closed: bool,
}

async fn take_logs(
    api: &Api,
    agent: &Agent,
    mut incoming: Streaming<v1::AgentLog>,
    acks: &mpsc::Sender<v1::AgentLogAck>,
) -> Checked<()> {
    let mut logs = Logs::new();
    let mut tick = tokio::time::interval(FLUSH);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = api.app.stopping.cancelled() => return Err(super::watch::stop()),
            message = incoming.message() => {
                let Ok(Some(log)) = message else { break };
                take_log(api, agent, &mut logs, log, acks).await?;
            }
            _ = tick.tick() => flush_all(api, agent, &mut logs, acks, 1).await?,
        }
    }
    flush_all(api, agent, &mut logs, acks, 1).await
}

async fn take_log(
    api: &Api,
    agent: &Agent,
    logs: &mut Logs,
    log: v1::AgentLog,
    acks: &mpsc::Sender<v1::AgentLogAck>,
) -> Checked<()> {
    let chunk = log.chunk.unwrap_or_default();
    if chunk.data.len() > MAX_CHUNK {
        return Err(Error::new(Code::TOO_LARGE, format!("a chunk of a log has at most {MAX_CHUNK} bytes")));
    }
    if log.key.starts_with("order:") {
        if !api.log_orders.chunk(&log.key, chunk, acks) {
            ack(acks, v1::AgentLogAck { key: log.key, stop: true, ..v1::AgentLogAck::default() });
        }
        return Ok(());
    }
    if !logs.contains_key(&log.key) {
        let Some(opened) = open(api, agent, &log.key).await? else {
            ack(acks, v1::AgentLogAck { key: log.key, stop: true, ..v1::AgentLogAck::default() });
            return Ok(());
        };
        if logs.len() >= MAX_LOGS {
            return Err(Error::new(Code::TOO_LARGE, format!("a host sends at most {MAX_LOGS} logs at once")));
        }
        // Whoever begins a log waits to hear from where to go on, also after a reconnect.
        ack(acks, v1::AgentLogAck { key: log.key.clone(), offset: opened.stored, credit: CREDIT, stop: false });
        logs.insert(log.key.clone(), opened);
    }
    let Some(entry) = logs.get_mut(&log.key) else { return Ok(()) };
    let end = entry.stored + entry.waiting.len() as u64;
    // What overlaps was sent before the connection broke; a gap is asked for again.
    let overlap = end.saturating_sub(chunk.offset);
    if chunk.offset > end {
        ack(acks, v1::AgentLogAck { key: log.key, offset: end, credit: CREDIT, stop: false });
        return Ok(());
    }
    let skip = usize::try_from(overlap).unwrap_or(usize::MAX).min(chunk.data.len());
    let room = usize::try_from(api.app.max_log_bytes.saturating_sub(end)).unwrap_or(usize::MAX);
    let fresh = chunk.data.slice(skip..);
    let cut = fresh.len() > room;
    entry.waiting.extend_from_slice(&fresh[..fresh.len().min(room)]);
    entry.closed |= chunk.end || cut;
    if entry.waiting.len() >= PIECE || entry.closed || entry.stored == 0 {
        flush(api, agent, &log.key, entry, acks).await?;
    }
    if entry.closed {
        logs::close(&api.app, entry.run).await?;
        api.sessions.changed();
        if cut {
            ack(acks, v1::AgentLogAck { key: log.key.clone(), stop: true, ..v1::AgentLogAck::default() });
        }
        logs.remove(&log.key);
    }
    Ok(())
}

async fn open(api: &Api, agent: &Agent, key: &str) -> Checked<Option<Log>> {
    let Some(run) = key.strip_prefix("run:").and_then(|id| id.parse::<RunId>().ok()) else { return Ok(None) };
    match logs::end(&api.app, agent, run).await {
        Ok(stored) => Ok(Some(Log { run, stored, waiting: BytesMut::new(), closed: false })),
        Err(error) if error.code == Code::RUN_NOT_FOUND => Ok(None),
        Err(error) => Err(error),
    }
}

async fn flush_all(
    api: &Api,
    agent: &Agent,
    logs: &mut Logs,
    acks: &mpsc::Sender<v1::AgentLogAck>,
    least: usize,
) -> Checked<()> {
    for (key, log) in logs.iter_mut() {
        if log.waiting.len() >= least {
            flush(api, agent, key, log, acks).await?;
        }
    }
    Ok(())
}

async fn flush(
    api: &Api,
    agent: &Agent,
    key: &str,
    log: &mut Log,
    acks: &mpsc::Sender<v1::AgentLogAck>,
) -> Checked<()> {
    if !log.waiting.is_empty() {
        let piece = log.waiting.split().freeze();
        log.stored = logs::append(&api.app, agent, log.run, log.stored, piece).await?;
        api.sessions.changed();
    }
    ack(acks, v1::AgentLogAck { key: key.to_owned(), offset: log.stored, credit: CREDIT, stop: false });
    Ok(())
}

/// An agent that does not read its acknowledgements gets the next one instead.
fn ack(acks: &mpsc::Sender<v1::AgentLogAck>, message: v1::AgentLogAck) {
    let _ = acks.try_send(message);
}
