//! One-time grants of folders.

use std::path::PathBuf;

use domain::time::Timestamp;
use sha2::{Digest as _, Sha256};
use sqlx::Row as _;

use super::environments::Folder;
use super::{Result, State};

fn hash(grant: &str) -> String {
    hex::encode(Sha256::digest(grant))
}

impl State {
    /// Remembers a grant, and forgets those that have expired unused.
    ///
    /// # Errors
    /// SQLite says no.
    pub async fn put_grant(
        &self,
        grant: &str,
        folder: &Folder,
        uid: u32,
        expires_at: Timestamp,
        now: Timestamp,
    ) -> Result<()> {
        sqlx::query("DELETE FROM grants WHERE expires_at < $1").bind(now.0).execute(&self.pool).await?;
        sqlx::query("INSERT INTO grants (hash, path, device, inode, uid, expires_at) VALUES ($1, $2, $3, $4, $5, $6)")
            .bind(hash(grant))
            .bind(folder.path.to_string_lossy().into_owned())
            .bind(folder.device.cast_signed())
            .bind(folder.inode.cast_signed())
            .bind(i64::from(uid))
            .bind(expires_at.0)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Spends a grant for an environment: none if it is unknown, expired, or was spent for another one.
    ///
    /// # Errors
    /// SQLite says no.
    pub async fn spend_grant(&self, grant: &str, environment: &str, now: Timestamp) -> Result<Option<Folder>> {
        let row = sqlx::query(
            "UPDATE grants SET environment = $2
             WHERE hash = $1 AND (environment = $2 OR (environment IS NULL AND expires_at >= $3))
             RETURNING path, device, inode",
        )
        .bind(hash(grant))
        .bind(environment)
        .bind(now.0)
        .fetch_optional(&self.pool)
        .await?;
        Ok(row.map(|row| Folder {
            path: PathBuf::from(row.get::<String, _>(0)),
            device: row.get::<i64, _>(1).cast_unsigned(),
            inode: row.get::<i64, _>(2).cast_unsigned(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::tests::fresh;

    #[tokio::test]
    async fn a_grant_is_good_for_one_environment_and_for_its_time() {
        let (state, _folder) = fresh().await;
        let folder = Folder { path: PathBuf::from("/home/a"), device: 1, inode: 2 };
        state.put_grant("g", &folder, 1000, Timestamp(100), Timestamp(0)).await.expect("stored");
        assert_eq!(state.spend_grant("other", "e1", Timestamp(1)).await.expect("asked"), None);
        assert_eq!(state.spend_grant("g", "e1", Timestamp(101)).await.expect("asked"), None);
        assert_eq!(state.spend_grant("g", "e1", Timestamp(99)).await.expect("asked"), Some(folder.clone()));
        assert_eq!(state.spend_grant("g", "e2", Timestamp(99)).await.expect("asked"), None);
        // The same order may come twice.
        assert_eq!(state.spend_grant("g", "e1", Timestamp(200)).await.expect("asked"), Some(folder));
    }
}
