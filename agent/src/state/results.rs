//! Results that the coordinator must store: kept until it says that it has.

use prost::Message as _;
use proto::v1;
use sqlx::Row as _;

use super::{Error, Result, State};

impl State {
    /// Keeps a message until [`State::acknowledged`] is called with `id`; one with the same id is replaced.
    ///
    /// # Errors
    /// SQLite says no.
    pub async fn keep_result(&self, id: &str, message: &v1::AgentMessage) -> Result<()> {
        crate::failpoints::effect("state.result");
        sqlx::query("INSERT INTO results (id, message) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET message = excluded.message")
            .bind(id)
            .bind(message.encode_to_vec())
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// All kept messages, oldest first.
    ///
    /// # Errors
    /// SQLite says no, or a row cannot be read.
    pub async fn results(&self) -> Result<Vec<v1::AgentMessage>> {
        let rows = sqlx::query("SELECT message FROM results ORDER BY number").fetch_all(&self.pool).await?;
        rows.iter()
            .map(|row| v1::AgentMessage::decode(row.get::<&[u8], _>(0)).map_err(|_| Error::Content("a result")))
            .collect()
    }

    /// Forgets a result; whether there was one.
    ///
    /// # Errors
    /// SQLite says no.
    pub async fn acknowledged(&self, id: &str) -> Result<bool> {
        let done = sqlx::query("DELETE FROM results WHERE id = $1").bind(id).execute(&self.pool).await?;
        Ok(done.rows_affected() > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::tests::fresh;

    #[tokio::test]
    async fn results_are_kept_in_order_until_acknowledged() {
        let (state, _folder) = fresh().await;
        let message = |sequence| v1::AgentMessage {
            message: Some(v1::agent_message::Message::Heartbeat(v1::Heartbeat { sequence, facts: None })),
        };
        for (id, number) in [("a", 1), ("b", 2), ("c", 3)] {
            state.keep_result(id, &message(number)).await.expect("kept");
        }
        assert!(state.acknowledged("b").await.expect("done"));
        assert!(!state.acknowledged("b").await.expect("done"));
        assert_eq!(state.results().await.expect("read"), [message(1), message(3)]);
    }
}
