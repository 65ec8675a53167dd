//! The few statements that differ between SQLite and PostgreSQL. Everything else is one set of queries.

/// Which database.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Dialect {
    Sqlite,
    Postgres,
}

impl Dialect {
    /// Begins a transaction that may write.
    pub(crate) const fn begin(self) -> &'static str {
        match self {
            // A deferred one could fail at its first write, when it has read already.
            Self::Sqlite => "BEGIN IMMEDIATE",
            Self::Postgres => "BEGIN",
        }
    }

    /// Begins a transaction that sees one instant.
    pub(crate) const fn snapshot(self) -> &'static str {
        match self {
            Self::Sqlite => "BEGIN",
            Self::Postgres => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        }
    }

    /// A row if there is a schema of any version.
    pub(crate) const fn schema_exists(self) -> &'static str {
        match self {
            Self::Sqlite => "SELECT 1 AS found FROM sqlite_master WHERE type = 'table' AND name = 'meta'",
            Self::Postgres => {
                "SELECT 1::BIGINT AS found FROM information_schema.tables \
                 WHERE table_schema = current_schema() AND table_name = 'meta'"
            }
        }
    }

    /// Locks out others who migrate, until the transaction ends. No advisory lock: poolers in between lose those.
    pub(crate) const fn migration_lock(self) -> &'static [&'static str] {
        match self {
            // The state directory's lock is enough.
            Self::Sqlite => &[],
            Self::Postgres => &[
                "CREATE TABLE IF NOT EXISTS migration_lock (id BIGINT NOT NULL PRIMARY KEY)",
                "LOCK TABLE migration_lock IN ACCESS EXCLUSIVE MODE",
            ],
        }
    }

    /// A row if epoch `$1` still leads, held so that no take-over commits before this transaction. Without a row lock
    /// a take-over could commit between this look and our commit.
    pub(crate) const fn fence(self) -> Option<&'static str> {
        match self {
            Self::Sqlite => None,
            Self::Postgres => Some("SELECT 1::BIGINT AS found FROM leader_epoch WHERE id = 1 AND epoch = $1 FOR SHARE"),
        }
    }

    /// A row with `left`, the microseconds until the lease ends; locks the lease until the transaction ends.
    pub(crate) const fn lease_left(self) -> &'static str {
        match self {
            Self::Sqlite => "SELECT 0 AS left_micros FROM leader_renewal WHERE id = 1",
            Self::Postgres => {
                "SELECT expires_at - (EXTRACT(EPOCH FROM clock_timestamp()) * 1000000)::BIGINT AS left_micros \
                 FROM leader_renewal WHERE id = 1 FOR UPDATE"
            }
        }
    }

    /// Gives the lease to epoch `$1` for `$2` microseconds, by the database's clock.
    pub(crate) const fn lease_take(self) -> &'static str {
        match self {
            Self::Sqlite => "UPDATE leader_renewal SET epoch = $1, expires_at = $2 WHERE id = 1",
            Self::Postgres => {
                "UPDATE leader_renewal SET epoch = $1, \
                 expires_at = (EXTRACT(EPOCH FROM clock_timestamp()) * 1000000)::BIGINT + $2 WHERE id = 1"
            }
        }
    }

    /// Renews the lease of epoch `$1` for `$2` microseconds; changes no row when another epoch has it.
    pub(crate) const fn lease_renew(self) -> &'static str {
        match self {
            Self::Sqlite => "UPDATE leader_renewal SET expires_at = $2 WHERE id = 1 AND epoch = $1",
            Self::Postgres => {
                "UPDATE leader_renewal \
                 SET expires_at = (EXTRACT(EPOCH FROM clock_timestamp()) * 1000000)::BIGINT + $2 \
                 WHERE id = 1 AND epoch = $1"
            }
        }
    }

    /// For people.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Postgres => "postgres",
        }
    }
}
