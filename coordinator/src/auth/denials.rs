//! Denied calls go to the ledger, so many at most: a flood of them must not fill it.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use domain::event::Actor;
use domain::time::Timestamp;

use super::Denial;
use crate::app::App;
use crate::app::ledger::{self, Event};
use crate::store::PROJECT;

const WINDOW: Duration = Duration::from_secs(10);
const MOST: u32 = 50;

/// How many were written lately.
#[derive(Debug, Default)]
pub struct Denials(Mutex<(Timestamp, u32)>);

impl Denials {
    fn admit(&self, now: Timestamp) -> bool {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if now.since(state.0) >= WINDOW {
            *state = (now, 0);
        }
        state.1 += 1;
        state.1 <= MOST
    }

    /// Writes a denial to the ledger, and always to the log.
    pub async fn record(&self, app: &App, method: &str, from: &str, denial: &Denial) {
        let method = crate::app::text::line(method, 100);
        tracing::warn!(%method, %from, reason = denial.error.reason(), cause = %denial.cause, "denied");
        if !self.admit(app.now()) {
            return;
        }
        let actor = denial.who.as_deref().map_or(Actor::Coordinator, ledger::by);
        let project = denial.who.as_ref().map_or(PROJECT, |who| &who.project).to_owned();
        let event = Event::new(actor, "auth.denied", method)
            .reason(denial.error.reason())
            .text(format!("{} (from {from})", denial.cause));
        let written = app.store.write(|tx| Box::pin(async move { event.append(app, tx, &project).await })).await;
        if let Err(error) = written {
            tracing::error!(%error, "a denial could not be written to the ledger");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_and_the_next_window_is_open_again() {
        let denials = Denials::default();
        let at = |seconds: i64| Timestamp(seconds * 1_000_000);
        assert_eq!((0..100).filter(|_| denials.admit(at(100))).count(), 50);
        assert!(denials.admit(at(110)));
    }
}
