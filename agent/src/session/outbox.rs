//! What is to be told. A newer report of the same thing replaces an older one that was not sent yet; results are kept
//! in the state until they are acknowledged.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use proto::v1;
use tokio::sync::Notify;

use crate::state::{Result, State};

#[derive(Debug, Default)]
struct Waiting {
    messages: VecDeque<(String, v1::AgentMessage)>,
}

/// What is to be told.
#[derive(Debug, Default)]
pub struct Outbox {
    waiting: Mutex<Waiting>,
    news: Notify,
}

impl Outbox {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells `message`, the newest about `key`.
    pub fn tell(&self, key: &str, message: v1::agent_message::Message) {
        let message = v1::AgentMessage { message: Some(message) };
        let mut waiting = self.waiting();
        match waiting.messages.iter_mut().find(|(other, _)| other == key) {
            Some((_, old)) => *old = message,
            None => waiting.messages.push_back((key.to_owned(), message)),
        }
        drop(waiting);
        self.news.notify_one();
    }

    /// Tells a result that must not be lost: it is durable when this returns, and told again in every session until
    /// it is acknowledged under `id`.
    ///
    /// # Errors
    /// The state cannot be written.
    pub async fn result(&self, state: &State, id: &str, message: v1::agent_message::Message) -> Result<()> {
        let kept = v1::AgentMessage { message: Some(message.clone()) };
        state.keep_result(id, &kept).await?;
        self.tell(&format!("result {id}"), message);
        Ok(())
    }

    /// A session begins: kept results were sent by it, the rest is told anew by whoever knows.
    pub fn begin(&self) {
        self.waiting().messages.clear();
    }

    /// The next message. Cancel safe.
    pub async fn next(&self) -> v1::AgentMessage {
        loop {
            let news = self.news.notified();
            if let Some((_, message)) = self.waiting().messages.pop_front() {
                return message;
            }
            news.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use proto::v1::agent_message::Message;

    use super::*;

    fn beat(sequence: u64) -> Message {
        Message::Heartbeat(v1::Heartbeat { sequence, facts: None })
    }

    #[tokio::test]
    async fn only_the_newest_of_each_thing_is_told_in_the_order_of_the_first() {
        let outbox = Outbox::default();
        outbox.tell("a", beat(1));
        outbox.tell("b", beat(2));
        outbox.tell("a", beat(3));
        assert_eq!(outbox.next().await.message, Some(beat(3)));
        assert_eq!(outbox.next().await.message, Some(beat(2)));
    }

    #[tokio::test]
    async fn a_result_is_durable_before_it_is_told() {
        let (state, _folder) = crate::state::tests::fresh().await;
        let outbox = Outbox::default();
        outbox.result(&state, "r", beat(1)).await.expect("kept");
        assert_eq!(state.results().await.expect("read").len(), 1);
        assert_eq!(outbox.next().await.message, Some(beat(1)));
    }
}
