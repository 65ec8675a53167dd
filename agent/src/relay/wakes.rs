//! Held routes that somebody wants something of: told to the agent, which lets them go or sends away what waits.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::protocol::{Code, MAX_WAKES_MS, Refusal, WakesView};
use super::route::{Route, lock};
use super::state::Relay;

impl Relay {
    /// Waits until a held route is asked for after `seen`; with none, answers after `wait_ms`.
    ///
    /// A client that gives up changes nothing: its ask stands until the route is let go.
    ///
    /// # Errors
    /// [`Code::Invalid`] when it is to wait too long.
    pub(super) async fn wakes(&self, seen: u64, wait_ms: u64) -> Result<WakesView, Refusal> {
        if wait_ms > MAX_WAKES_MS {
            return Err(Refusal::new(Code::Invalid, format!("a question may wait at most {MAX_WAKES_MS} ms")));
        }
        let until = Instant::now() + Duration::from_millis(wait_ms);
        let mut asks = self.shared.asks.subscribe();
        loop {
            let number = *asks.borrow_and_update();
            let asked = |route: &&Arc<Route>| route.asked_since(seen);
            let keys: Vec<String> = lock(&self.routes).values().filter(asked).map(|route| route.key.clone()).collect();
            if !keys.is_empty() {
                return Ok(WakesView { number, keys });
            }
            tokio::select! {
                changed = timeout_at(until, asks.changed()) => if changed.is_err() {
                    return Ok(WakesView { number, keys });
                },
                () = self.stopping.cancelled() => return Ok(WakesView { number, keys }),
            }
        }
    }

    /// Sends away what is held on a port; fine when it is not `key`'s.
    ///
    /// # Errors
    /// [`Code::RouteUnknown`].
    pub(super) fn refuse_held(&self, port: u16, key: &str) -> Result<(), Refusal> {
        let route = self.route(port)?;
        if route.key == key {
            route.refuse_held();
        }
        Ok(())
    }
}
