//! Streams that send a state now and at each change.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use futures::Stream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::Api;
use super::error::status;
use crate::error::{Code, Error, Result};

/// A stream of answers.
pub type Answers<T> = Pin<Box<dyn Stream<Item = std::result::Result<T, Status>> + Send>>;

/// Looked at again after so long even when nobody says that something changed: remaining times move by themselves.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Nobody reads faster; without it every client would have everything read again at each commit.
const AT_MOST_EVERY: Duration = Duration::from_millis(25);
/// Answers that wait for a slow client.
const QUEUE: usize = 16;

/// Sends what `look` answers whenever it differs from what was sent last, until `look` says that this was the last.
pub fn states<T, F, L>(api: &Api, look: L) -> Answers<T>
where
    T: PartialEq + Clone + Send + Sync + 'static,
    F: Future<Output = Result<(T, bool)>> + Send,
    L: Fn() -> F + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(QUEUE);
    let mut changes = api.sessions.changes();
    let mut seq = api.app.store.seq();
    let stopping = api.app.stopping.clone();
    tokio::spawn(async move {
        let mut last: Option<T> = None;
        loop {
            changes.mark_unchanged();
            seq.mark_unchanged();
            let looked_at = tokio::time::Instant::now();
            match look().await {
                Err(error) => {
                    let _ = sender.send(Err(status(error))).await;
                    return;
                }
                Ok((state, end)) => {
                    if last.as_ref() != Some(&state) {
                        if sender.send(Ok(state.clone())).await.is_err() {
                            return;
                        }
                        last = Some(state);
                    }
                    if end {
                        return;
                    }
                }
            }
            tokio::select! {
                () = sender.closed() => return,
                () = stopping.cancelled() => {
                    let _ = sender.send(Err(status(stop()))).await;
                    return;
                }
                _ = changes.changed() => {}
                _ = seq.changed() => {}
                () = tokio::time::sleep(LOOK_AGAIN) => {}
            }
            tokio::time::sleep_until(looked_at + AT_MOST_EVERY).await;
        }
    });
    Box::pin(ReceiverStream::new(receiver))
}

/// What streams end with when the coordinator stops: clients come back and resume.
#[must_use]
pub fn stop() -> Error {
    Error::new(Code::STOPPING, "the coordinator stops; the call can be made again when it is back")
}
