//! Idle connections of one worker to one endpoint.

use std::fmt;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use hyper::client::conn::http1::SendRequest;

use super::body::RequestBody;
use super::route::lock;

/// Most idle connections that one worker keeps to one endpoint.
const MOST: usize = 32;
/// Longest idle time before a request that may be sent twice. Servers close from 2 s on (gunicorn), most at 5 s.
const IDLE_SAFE: Duration = Duration::from_secs(4);
/// Longest idle time before a request that may not.
const IDLE_ONCE: Duration = Duration::from_millis(500);
/// A connection put back is ready as soon as its own task ran; this only bounds a stuck one.
const SETTLE: Duration = Duration::from_millis(50);

/// The sending half of a connection to an endpoint.
pub(super) type Sender = SendRequest<RequestBody>;

struct Idle {
    sender: Sender,
    since: Instant,
}

#[derive(Default)]
struct State {
    idle: Vec<Idle>,
    closed: bool,
}

/// Idle connections, the youngest is taken first.
#[derive(Default)]
pub(super) struct Pool(Mutex<State>);

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = lock(&self.0);
        f.debug_struct("Pool").field("idle", &state.idle.len()).field("closed", &state.closed).finish()
    }
}

impl Pool {
    /// A connection that is alive as far as is known; `repeatable` allows an older one.
    pub async fn take(&self, repeatable: bool) -> Option<Sender> {
        let longest = if repeatable { IDLE_SAFE } else { IDLE_ONCE };
        loop {
            let mut idle = self.pop(longest)?;
            let settled = tokio::time::timeout(SETTLE, idle.sender.ready()).await;
            if matches!(settled, Ok(Ok(()))) && !idle.sender.is_closed() {
                return Some(idle.sender);
            }
        }
    }

    fn pop(&self, longest: Duration) -> Option<Idle> {
        let now = Instant::now();
        let mut state = lock(&self.0);
        // What is too old or closed beneath the youngest is left to `sweep`.
        state.idle.pop_if(|youngest| now.duration_since(youngest.since) < longest)
    }

    /// Keeps a connection whose request and answer are complete.
    pub fn put(&self, sender: Sender) {
        let mut state = lock(&self.0);
        if state.closed || sender.is_closed() {
            return;
        }
        if state.idle.len() >= MOST {
            state.idle.remove(0);
        }
        state.idle.push(Idle { sender, since: Instant::now() });
    }

    /// Drops all connections, and those still to come.
    pub fn close(&self) {
        let dropped = {
            let mut state = lock(&self.0);
            state.closed = true;
            std::mem::take(&mut state.idle)
        };
        drop(dropped);
    }

    /// Drops connections that have been idle for too long to be used.
    pub fn sweep(&self) {
        let now = Instant::now();
        lock(&self.0).idle.retain(|idle| now.duration_since(idle.since) < IDLE_SAFE && !idle.sender.is_closed());
    }
}
