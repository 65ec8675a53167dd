//! Logs that clients wait for: asked of a host over its session, answered on its Logs stream, passed on with flow control.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use proto::v1;
use tokio::sync::mpsc;

use crate::error::{Code, Error};

/// Bytes that an agent may send beyond what the client has taken.
pub const CREDIT: u64 = 512 << 10;
/// Chunks that wait for the client: as many as its credit is for, when each has one short line.
const QUEUE: usize = 16 << 10;

/// All orders that are open.
#[derive(Default)]
pub struct LogOrders(Mutex<HashMap<String, Order>>);

struct Order {
    chunks: mpsc::Sender<Result<v1::LogChunk, Error>>,
    acks: Option<mpsc::Sender<v1::AgentLogAck>>,
}

impl fmt::Debug for LogOrders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LogOrders({} open)", self.lock().len())
    }
}

/// What the client holds; dropping it ends the order.
#[derive(Debug)]
pub struct Waiting {
    orders: Arc<LogOrders>,
    key: String,
    chunks: mpsc::Receiver<Result<v1::LogChunk, Error>>,
}

impl LogOrders {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Order>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens an order with this id.
    pub fn open(self: &Arc<Self>, id: &str) -> Waiting {
        let (sender, chunks) = mpsc::channel(QUEUE);
        let key = format!("order:{id}");
        self.lock().insert(key.clone(), Order { chunks: sender, acks: None });
        Waiting { orders: Arc::clone(self), key, chunks }
    }

    /// A chunk has come on a host's Logs stream. False: nobody wants it.
    pub fn chunk(&self, key: &str, chunk: v1::LogChunk, acks: &mpsc::Sender<v1::AgentLogAck>) -> bool {
        let mut orders = self.lock();
        let Some(order) = orders.get_mut(key) else { return false };
        order.acks = Some(acks.clone());
        let end = chunk.end;
        // A full queue: the agent sent more than its credit.
        let taken = order.chunks.try_send(Ok(chunk)).is_ok();
        if end || !taken {
            orders.remove(key);
        }
        taken
    }

    /// The Logs stream that these belong to is gone: what comes on it was lost on the way, or comes no more.
    pub fn broken(&self, host: &str, acks: &mpsc::Sender<v1::AgentLogAck>) {
        self.lock().retain(|_, order| {
            let broken = order.acks.as_ref().is_some_and(|of| of.same_channel(acks));
            if broken {
                let _ = order.chunks.try_send(Err(lost(host)));
            }
            !broken
        });
    }

    /// The host cannot give the log.
    pub fn refuse(&self, id: &str, why: &str) {
        if let Some(order) = self.lock().remove(&format!("order:{id}")) {
            let text = crate::app::text::line(why, 500);
            let _ = order.chunks.try_send(Err(Error::new(Code::LOG_REFUSED, text)));
        }
    }
}

/// What a log ends with whose host is not heard from any more: clients come back and resume.
#[must_use]
pub fn lost(host: &str) -> Error {
    let text = format!("the connection to {host} broke; the call can be made again when it is back");
    Error::new(Code::HOST_UNREACHABLE, text)
}

impl Waiting {
    /// The next chunk; the agent may then send as much more. None: it sent more than fits into the queue.
    pub async fn next(&mut self) -> Option<Result<v1::LogChunk, Error>> {
        let chunk = self.chunks.recv().await?;
        if let Ok(chunk) = &chunk {
            let acks = self.orders.lock().get(&self.key).and_then(|order| order.acks.clone());
            if let Some(acks) = acks {
                let offset = chunk.offset + chunk.data.len() as u64;
                let ack = v1::AgentLogAck { key: self.key.clone(), offset, credit: CREDIT, stop: false };
                // A lost one would have the agent wait for ever.
                let _ = acks.send(ack).await;
            }
        }
        Some(chunk)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(order) = self.orders.lock().remove(&self.key)
            && let Some(acks) = order.acks
        {
            let _ = acks.try_send(v1::AgentLogAck { key: self.key.clone(), offset: 0, credit: 0, stop: true });
        }
    }
}
