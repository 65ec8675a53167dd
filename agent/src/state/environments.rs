//! Environments that are wanted, as ordered.

use std::collections::BTreeMap;
use std::path::PathBuf;

use prost::Message as _;
use proto::v1;
use serde::{Deserialize, Serialize};
use sqlx::Row as _;

use super::{Error, Result, State};

use crate::failpoints::effect;

/// A folder on this host, as it was when its owner granted it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Folder {
    /// Resolved and absolute.
    pub path: PathBuf,
    /// Device and inode: what was granted is the folder, not its name.
    pub device: u64,
    /// See `device`.
    pub inode: u64,
}

/// An environment's row.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    /// The order.
    pub order: v1::EnvironmentOrder,
    /// Where its sources lie, if it has any.
    pub folder: Option<Folder>,
    /// Images to use instead of the stack's, by service.
    pub images: BTreeMap<String, String>,
    /// Everything of it is removed; the row stays until that is acknowledged.
    pub gone: bool,
}

impl State {
    /// Remembers an environment's order, and the folder if there is one.
    ///
    /// # Errors
    /// SQLite says no.
    pub async fn put_environment(&self, stored: &Stored) -> Result<()> {
        effect("state.put");
        let folder = stored.folder.as_ref();
        sqlx::query(
            "INSERT INTO environments (id, generation, message, folder, device, inode, images, gone)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
             ON CONFLICT (id) DO UPDATE SET generation = excluded.generation, message = excluded.message,
               folder = excluded.folder, device = excluded.device, inode = excluded.inode, images = excluded.images, gone = excluded.gone",
        )
        .bind(&stored.order.id)
        .bind(i64::try_from(stored.order.generation).unwrap_or(i64::MAX))
        .bind(stored.order.encode_to_vec())
        .bind(folder.map(|folder| folder.path.to_string_lossy().into_owned()))
        .bind(folder.map(|folder| folder.device.cast_signed()))
        .bind(folder.map(|folder| folder.inode.cast_signed()))
        .bind(serde_json::to_string(&stored.images).unwrap_or_default())
        .bind(i64::from(stored.gone))
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// All environments.
    ///
    /// # Errors
    /// SQLite says no, or a row cannot be read.
    pub async fn environments(&self) -> Result<Vec<Stored>> {
        let rows = sqlx::query("SELECT message, folder, device, inode, gone, images FROM environments ORDER BY id")
            .fetch_all(&self.pool)
            .await?;
        rows.iter()
            .map(|row| {
                let order = v1::EnvironmentOrder::decode(row.get::<&[u8], _>(0))
                    .map_err(|_| Error::Content("an environment"))?;
                let folder = row.get::<Option<String>, _>(1).map(|path| Folder {
                    path: PathBuf::from(path),
                    device: row.get::<i64, _>(2).cast_unsigned(),
                    inode: row.get::<i64, _>(3).cast_unsigned(),
                });
                let images = serde_json::from_str(row.get(5)).unwrap_or_default();
                Ok(Stored { order, folder, images, gone: row.get::<i64, _>(4) != 0 })
            })
            .collect()
    }

    /// Forgets an environment.
    ///
    /// # Errors
    /// SQLite says no.
    pub async fn forget_environment(&self, id: &str) -> Result<()> {
        effect("state.forget");
        sqlx::query("DELETE FROM environments WHERE id = $1").bind(id).execute(&self.pool).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::tests::fresh;

    #[tokio::test]
    async fn an_environment_is_read_back_as_it_was_stored() {
        let (state, _folder) = fresh().await;
        let order = v1::EnvironmentOrder { id: "e".to_owned(), generation: 2, up: true, ..Default::default() };
        let folder = Folder { path: PathBuf::from("/home/asha/bot"), device: u64::MAX, inode: 7 };
        let stored =
            Stored { order, folder: Some(folder), images: [("web".to_owned(), "x".to_owned())].into(), gone: false };
        state.put_environment(&stored).await.expect("stored");
        state.put_environment(&stored).await.expect("stored again");
        assert_eq!(state.environments().await.expect("read"), [stored]);
        state.forget_environment("e").await.expect("forgotten");
        assert!(state.environments().await.expect("read").is_empty());
    }
}
