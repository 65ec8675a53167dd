//! Removing what is old, in SQL.

use async_trait::async_trait;
use domain::time::Timestamp;

use super::super::error::Result;
use super::super::retention::{Cutoffs, Keep, Removed, RetentionWrites};
use super::{Columns, FromRow, SqlTx, values};

/// An id of any noun.
struct Id(String);

impl FromRow for Id {
    const TABLE: &'static str = "retention";
    const KEY: &'static [&'static str] = &[];

    fn from_row(row: &Columns<'_>) -> Result<Self> {
        row.text("id").map(Self)
    }
}

#[async_trait]
impl RetentionWrites for SqlTx {
    async fn retention_run(&mut self, now: Timestamp, keep: &Keep) -> Result<Removed> {
        let before = Cutoffs::new(now, keep);
        let mut removed = Removed::default();
        let batch = keep.batch;
        removed.events = self.remove("events", EVENTS, before.events, batch, &mut removed.more).await?;
        self.remove_runs(before.runs, batch, &mut removed).await?;
        self.remove_rollouts(before.rollouts, keep, &mut removed).await?;
        self.remove_environments(before.environments, batch, &mut removed).await?;
        self.remove_seeds(before.seeds, batch, &mut removed).await?;
        removed.idempotency = self.remove("idempotency", KEYS, before.idempotency, batch, &mut removed.more).await?;
        removed.tokens = self.remove("api_tokens", API_TOKENS, before.tokens, batch, &mut removed.more).await?;
        removed.tokens += self.remove("join_tokens", JOIN_TOKENS, before.tokens, batch, &mut removed.more).await?;
        Ok(removed)
    }
}

const EVENTS: &str = "DELETE FROM events WHERE seq IN \
    (SELECT seq FROM events WHERE happened_at < $1 ORDER BY seq LIMIT $2)";
const KEYS: &str = "DELETE FROM idempotency WHERE (principal, method, key) IN \
    (SELECT principal, method, key FROM idempotency WHERE used_at < $1 ORDER BY used_at LIMIT $2)";
const API_TOKENS: &str = "DELETE FROM api_tokens WHERE id IN \
    (SELECT id FROM api_tokens WHERE expires_at < $1 OR revoked_at < $1 ORDER BY id LIMIT $2)";
const JOIN_TOKENS: &str = "DELETE FROM join_tokens WHERE id IN \
    (SELECT id FROM join_tokens WHERE expires_at < $1 OR revoked_at < $1 OR used_at < $1 ORDER BY id LIMIT $2)";
const RUNS: &str = "SELECT id FROM runs WHERE finished = 1 AND finished_at < $1 ORDER BY id LIMIT $2";
const ENVIRONMENTS: &str = "SELECT id FROM environments WHERE gone_at < $1 ORDER BY id LIMIT $2";
const SEEDS: &str = "SELECT id FROM seeds WHERE ended_at < $1 ORDER BY id LIMIT $2";
const ROLLOUTS: &str = "SELECT id FROM \
    (SELECT id, finished_at, turning, \
     row_number() OVER (PARTITION BY project, app, target ORDER BY created_at DESC, id DESC) AS place FROM rollouts) \
    AS placed WHERE turning = 0 AND finished_at < $1 AND place > $3 ORDER BY id LIMIT $2";

impl SqlTx {
    async fn remove(
        &mut self,
        table: &'static str,
        sql: &'static str,
        before: Timestamp,
        batch: u32,
        more: &mut bool,
    ) -> Result<u64> {
        let removed = self.execute(table, sql, values![before, batch]).await?;
        *more |= removed >= u64::from(batch);
        Ok(removed)
    }

    async fn remove_runs(&mut self, before: Timestamp, batch: u32, removed: &mut Removed) -> Result<()> {
        let old: Vec<Id> = self.list(RUNS, values![before, batch]).await?;
        for Id(id) in old {
            let log = format!("run:{id}");
            let paths = "SELECT path AS id FROM log_segments WHERE log = $1 ORDER BY first_byte";
            let paths: Vec<Id> = self.list(paths, values![&log]).await?;
            removed.log_paths.extend(paths.into_iter().map(|Id(path)| path));
            self.execute("log_segments", "DELETE FROM log_segments WHERE log = $1", values![log]).await?;
            removed.runs += self.execute("runs", "DELETE FROM runs WHERE id = $1", values![id]).await?;
        }
        removed.more |= removed.runs >= u64::from(batch);
        Ok(())
    }

    async fn remove_rollouts(&mut self, before: Timestamp, keep: &Keep, removed: &mut Removed) -> Result<()> {
        let values = values![before, keep.batch, keep.rollouts_per_target];
        let old: Vec<Id> = self.list(ROLLOUTS, values).await?;
        for Id(id) in old {
            // Its steps go with it.
            removed.rollouts += self.execute("rollouts", "DELETE FROM rollouts WHERE id = $1", values![id]).await?;
        }
        removed.more |= removed.rollouts >= u64::from(keep.batch);
        Ok(())
    }

    async fn remove_environments(&mut self, before: Timestamp, batch: u32, removed: &mut Removed) -> Result<()> {
        let old: Vec<Id> = self.list(ENVIRONMENTS, values![before, batch]).await?;
        for Id(id) in old {
            let secret = "DELETE FROM secrets WHERE kind = 'environment' AND id = $1";
            self.execute("secrets", secret, values![&id]).await?;
            let data = "DELETE FROM environment_data WHERE environment = $1";
            self.execute("environment_data", data, values![&id]).await?;
            let sql = "DELETE FROM environments WHERE id = $1";
            removed.environments += self.execute("environments", sql, values![id]).await?;
        }
        removed.more |= removed.environments >= u64::from(batch);
        Ok(())
    }

    async fn remove_seeds(&mut self, before: Timestamp, batch: u32, removed: &mut Removed) -> Result<()> {
        let old: Vec<Id> = self.list(SEEDS, values![before, batch]).await?;
        for Id(id) in old {
            self.execute("secrets", "DELETE FROM secrets WHERE kind = 'seed' AND id = $1", values![&id]).await?;
            removed.seeds += self.execute("seeds", "DELETE FROM seeds WHERE id = $1", values![id]).await?;
        }
        removed.more |= removed.seeds >= u64::from(batch);
        Ok(())
    }
}
