//! Journals of targets, and the releases they name.

use prost::Message as _;
use proto::v1;
use sqlx::Row as _;

use super::{Error, Result, State};

/// A target's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredTarget {
    /// `APP/TARGET`.
    pub target: String,
    /// The journal, encoded.
    pub slot: Vec<u8>,
    /// Releases kept for an instant return.
    pub retain: u32,
}

impl State {
    /// Writes a target's journal, durable when this returns. Releases it names were stored before.
    ///
    /// # Errors
    /// SQLite says no.
    pub async fn put_target(&self, target: &str, slot: &[u8], retain: u32) -> Result<()> {
        sqlx::query(
            "INSERT INTO targets (target, slot, retain) VALUES ($1, $2, $3)
             ON CONFLICT (target) DO UPDATE SET slot = excluded.slot, retain = excluded.retain",
        )
        .bind(target)
        .bind(slot)
        .bind(i64::from(retain))
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// All targets.
    ///
    /// # Errors
    /// SQLite says no.
    pub async fn targets(&self) -> Result<Vec<StoredTarget>> {
        let rows =
            sqlx::query("SELECT target, slot, retain FROM targets ORDER BY target").fetch_all(&self.pool).await?;
        Ok(rows
            .iter()
            .map(|row| StoredTarget {
                target: row.get(0),
                slot: row.get(1),
                retain: u32::try_from(row.get::<i64, _>(2)).unwrap_or(0),
            })
            .collect())
    }

    /// Forgets a target and its releases.
    ///
    /// # Errors
    /// SQLite says no.
    pub async fn forget_target(&self, target: &str) -> Result<()> {
        sqlx::query("DELETE FROM targets WHERE target = $1").bind(target).execute(&self.pool).await?;
        sqlx::query("DELETE FROM releases WHERE target = $1").bind(target).execute(&self.pool).await?;
        Ok(())
    }

    /// Remembers a release; releases never change.
    ///
    /// # Errors
    /// SQLite says no.
    pub async fn put_release(&self, release: &v1::ReleaseSpec) -> Result<()> {
        sqlx::query(
            "INSERT INTO releases (id, target, number, message) VALUES ($1, $2, $3, $4) ON CONFLICT (id) DO NOTHING",
        )
        .bind(&release.id)
        .bind(&release.target)
        .bind(i64::try_from(release.number).unwrap_or(i64::MAX))
        .bind(release.encode_to_vec())
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// A target's releases, newest first.
    ///
    /// # Errors
    /// SQLite says no, or a row cannot be read.
    pub async fn releases(&self, target: &str) -> Result<Vec<v1::ReleaseSpec>> {
        let rows = sqlx::query("SELECT message FROM releases WHERE target = $1 ORDER BY number DESC")
            .bind(target)
            .fetch_all(&self.pool)
            .await?;
        rows.iter()
            .map(|row| v1::ReleaseSpec::decode(row.get::<&[u8], _>(0)).map_err(|_| Error::Content("a release")))
            .collect()
    }

    /// Forgets a release.
    ///
    /// # Errors
    /// SQLite says no.
    pub async fn forget_release(&self, id: &str) -> Result<()> {
        sqlx::query("DELETE FROM releases WHERE id = $1").bind(id).execute(&self.pool).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::tests::fresh;

    #[tokio::test]
    async fn releases_are_listed_newest_first_and_go_with_their_target() {
        let (state, _folder) = fresh().await;
        for number in [1, 3, 2] {
            let release = v1::ReleaseSpec {
                id: number.to_string(),
                target: "bot/production".to_owned(),
                number,
                ..Default::default()
            };
            state.put_release(&release).await.expect("stored");
        }
        state.put_target("bot/production", b"slot", 5).await.expect("stored");
        let listed = state.releases("bot/production").await.expect("read");
        assert_eq!(listed.iter().map(|release| release.number).collect::<Vec<_>>(), [3, 2, 1]);
        state.forget_target("bot/production").await.expect("forgotten");
        assert!(state.releases("bot/production").await.expect("read").is_empty());
        assert!(state.targets().await.expect("read").is_empty());
    }
}
