//! Bringing the schema up to date, and refusing one that is too new.

use std::borrow::Cow;

use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::{AnyConnection, AnyPool, SqlSafeStr};

use super::dialect::Dialect;
use super::error::{Error, Result};
use super::sql::{Columns, execute, failed, rows, values};

/// The newest schema this binary knows. It works on any newer one whose `min_reader` is not above it.
pub(crate) const SCHEMA: u32 = 6;

const TRIES: u32 = 5;

fn migrations() -> Vec<Migration> {
    let files = [
        (1, "initial", include_str!("../../../migrations/0001_initial.sql")),
        (2, "life", include_str!("../../../migrations/0002_life.sql")),
        (3, "seeds", include_str!("../../../migrations/0003_seeds.sql")),
        (4, "copies", include_str!("../../../migrations/0004_copies.sql")),
        (5, "run_seeds", include_str!("../../../migrations/0005_run_seeds.sql")),
        (6, "sealed_stacks", include_str!("../../../migrations/0006_sealed_stacks.sql")),
    ];
    let read = |(version, name, sql): (i64, &'static str, &'static str)| {
        Migration::new(version, Cow::Borrowed(name), MigrationType::Simple, sql.into_sql_str(), false)
    };
    files.into_iter().map(read).collect()
}

/// Makes or upgrades the schema; twice is the same as once.
pub(crate) async fn migrate(pool: &AnyPool, dialect: Dialect) -> Result<()> {
    let mut tries = 0;
    loop {
        tries += 1;
        match once(pool, dialect).await {
            // Two coordinators that start on an empty database can both want to make the lock's table.
            Err(Error::Exists { .. }) if tries < TRIES => {}
            done => return done,
        }
    }
}

async fn once(pool: &AnyPool, dialect: Dialect) -> Result<()> {
    let begin = |error| failed("migrations", error);
    let mut transaction = pool.begin_with(dialect.begin()).await.map_err(begin)?;
    for sql in dialect.migration_lock() {
        execute(&mut transaction, "migration_lock", sql, values![]).await?;
    }
    readable(&mut transaction, dialect).await?;
    let mut migrator = Migrator::with_migrations(migrations());
    migrator.set_locking(false).set_ignore_missing(true);
    let done = migrator.run_direct(None, &mut *transaction, false).await;
    done.map_err(|error| Error::Migration { what: error.to_string() })?;
    transaction.commit().await.map_err(|error| failed("migrations", error))
}

/// Refuses a schema that a newer binary made and this one cannot read.
async fn readable(connection: &mut AnyConnection, dialect: Dialect) -> Result<()> {
    if rows(connection, "meta", dialect.schema_exists(), values![]).await?.is_empty() {
        return Ok(());
    }
    let found = rows(connection, "meta", "SELECT key, value FROM meta WHERE key = 'min_reader'", values![]).await?;
    let min_reader = match found.first() {
        Some(row) => Columns::new("meta", &["key"], row).parse("value")?,
        None => 1,
    };
    if min_reader > SCHEMA { Err(Error::SchemaTooNew { min_reader, ours: SCHEMA }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_known_schema_is_the_last_migration() {
        let last = migrations().iter().map(|migration| migration.version).max();
        assert_eq!(last, Some(i64::from(SCHEMA)));
    }
}
