//! PostgreSQL: all databases of a server, table by table. Rows are hashed on the server; only tables whose sums differ are
//! streamed, as a key and a hash per row.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_trait::async_trait;
use domain::stack::Service;
use futures::stream::{StreamExt as _, TryStreamExt as _};
use proto::v1;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgRow, PgSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Row as _};

use super::Place;
use super::tables::{self, LATE, Shape, Side, Table, Total};
use super::tally::{Cell, Row, Rows};
use super::teller::Teller;
use crate::environments::{credentials, postgres_login as login};
use crate::seeds::postgres::{identifier, literal};

/// Texts are the same on both sides whatever the settings of database and user are; nothing waits for locks.
const SETTINGS: &str = "SET search_path = pg_catalog; SET TimeZone = 'UTC'; SET DateStyle = 'ISO, YMD'; \
    SET IntervalStyle = 'postgres'; SET bytea_output = 'hex'; SET extra_float_digits = 3; SET lock_timeout = '3s'; \
    SET xmloption = content; SET lc_monetary = 'C'; SET row_security = off";
const BEGIN: &str = "BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY; SAVEPOINT one";
/// Locks of the tables that were read go with it, and the snapshot stays.
const LET_GO: &str = "ROLLBACK TO SAVEPOINT one";
const DATABASES: &str =
    "SELECT datname::text FROM pg_database WHERE NOT datistemplate AND datallowconn ORDER BY datname";
const TABLES: &str = r#"
SELECT n.nspname::text, c.relname::text, c.relkind = 'p',
  ARRAY(SELECT a.attname::text FROM pg_attribute a
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum),
  ARRAY(SELECT format_type(a.atttypid, a.atttypmod) FROM pg_attribute a
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum),
  ARRAY(SELECT a.attname::text FROM pg_index i
        CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k(number, place)
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.number
        WHERE i.indrelid = c.oid AND i.indisprimary AND k.place <= i.indnkeyatts ORDER BY k.place)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence <> 't'
  AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'"#;

/// Compares two servers.
pub(super) async fn compare(seed: &Place<'_>, own: &Place<'_>, teller: &mut Teller) {
    let (_, main) = login(own.service);
    let listed = async { tokio::try_join!(databases(seed, &main), databases(own, &main)) };
    let (before, after) = match tokio::time::timeout_at(teller.deadline, listed).await {
        Ok(Ok(listed)) => listed,
        Ok(Err(why)) => return teller.left_out(&main, &why).await,
        Err(_) => return teller.left_out(&main, LATE).await,
    };
    for database in before.union(&after) {
        let shown = format!("database {database}");
        match (before.contains(database), after.contains(database)) {
            (true, true) => {}
            (false, _) => {
                let presence = v1::ObjectPresence::New.into();
                teller.found(v1::ObjectDiff { name: shown, presence, ..v1::ObjectDiff::default() }).await;
                continue;
            }
            (true, false) => {
                let presence = v1::ObjectPresence::Gone.into();
                teller.found(v1::ObjectDiff { name: shown, presence, ..v1::ObjectDiff::default() }).await;
                continue;
            }
        }
        let left = teller.left();
        let opened =
            async { tokio::try_join!(Database::open(seed, database, left), Database::open(own, database, left)) };
        match tokio::time::timeout_at(teller.deadline, opened).await {
            Ok(Ok((mut before, mut after))) => {
                let prefix = if *database == main { String::new() } else { format!("{database}:") };
                tables::compare(&mut before, &mut after, &prefix, teller).await;
            }
            Ok(Err(why)) => teller.left_out(&shown, &why).await,
            Err(_) => teller.left_out(&shown, LATE).await,
        }
    }
}

async fn connect(place: &Place<'_>, database: &str) -> Result<PgConnection, String> {
    let (user, _) = login(place.service);
    let options = PgConnectOptions::new_without_pgpass()
        .host(&place.address.to_string())
        .port(port(place.service))
        .username(&user)
        .password(credentials::password(place.service).unwrap_or_default())
        .database(database)
        .ssl_mode(PgSslMode::Disable)
        .application_name("muster env diff")
        .statement_cache_capacity(0)
        .disable_statement_logging();
    options.connect().await.map_err(said)
}

fn port(service: &Service) -> u16 {
    service.ports.first().or(service.expose.first()).copied().unwrap_or(5432)
}

fn said(why: sqlx::Error) -> String {
    match &why {
        sqlx::Error::Database(said) => said.message().to_owned(),
        other => other.to_string(),
    }
}

async fn databases(place: &Place<'_>, main: &str) -> Result<BTreeSet<String>, String> {
    let mut connection = connect(place, main).await?;
    let found = sqlx::query_scalar(DATABASES).fetch_all(&mut connection).await.map_err(said)?;
    let _ = connection.close().await;
    Ok(found.into_iter().collect())
}

/// One database of one side, as of one instant.
struct Database(PgConnection);

impl Database {
    /// The server itself ends what takes longer than `left`: it notices late that nobody listens any more.
    async fn open(place: &Place<'_>, database: &str, left: Duration) -> Result<Self, String> {
        let mut connection = connect(place, database).await?;
        let sql = format!("{SETTINGS}; SET statement_timeout = {}; {BEGIN}", left.as_millis().max(1));
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.map_err(said)?;
        Ok(Self(connection))
    }
}

/// The hash of a row over those columns; the same whatever their order is.
fn hash(columns: &BTreeMap<String, String>) -> String {
    let names: Vec<String> = columns.keys().map(|name| format!("t.{}", identifier(name))).collect();
    format!("md5(ROW({})::text)", names.join(", "))
}

fn is_number(kind: &str) -> bool {
    matches!(kind, "smallint" | "integer" | "bigint")
}

/// What a key column is selected and ordered by.
fn key_column(shape: &Shape, name: &str) -> (String, String) {
    let quoted = format!("t.{}", identifier(name));
    if shape.columns.get(name).is_some_and(|kind| is_number(kind)) {
        // Its index gives that order.
        return (format!("{quoted}::bigint"), quoted);
    }
    let bytes = format!("convert_to({quoted}::text, 'UTF8')");
    (bytes.clone(), bytes)
}

fn total_sql(shape: &Shape) -> String {
    let half = |from: u32| format!("coalesce(sum(('x' || substr(m, {from}, 16))::bit(64)::bigint), 0)");
    format!(
        "SELECT count(*), {} || '/' || {} FROM (SELECT {} AS m FROM {} t) s",
        half(1),
        half(17),
        hash(&shape.columns),
        shape.from
    )
}

fn rows_sql(shape: &Shape) -> String {
    let hash = hash(&shape.columns);
    if shape.key.is_empty() {
        return format!(
            "SELECT convert_to(m, 'UTF8'), count(*) FROM (SELECT {hash} AS m FROM {} t) s GROUP BY 1 ORDER BY 1",
            shape.from
        );
    }
    let (shown, order): (Vec<_>, Vec<_>) = shape.key.iter().map(|name| key_column(shape, name)).unzip();
    format!("SELECT {}, {hash} FROM {} t ORDER BY {}", shown.join(", "), shape.from, order.join(", "))
}

fn row_sql(shape: &Shape, key: &[Cell]) -> String {
    let is = |(name, cell): (&String, &Cell)| {
        let value = match cell {
            Cell::Number(number) => format!("'{number}'"),
            Cell::Bytes(bytes) => literal(&String::from_utf8_lossy(bytes)),
        };
        let kind = shape.columns.get(name).map_or("text", String::as_str);
        format!("t.{} = {value}::{kind}", identifier(name))
    };
    let wanted: Vec<String> = shape.key.iter().zip(key).map(is).collect();
    format!("SELECT row_to_json(t)::text FROM {} t WHERE {} LIMIT 1", shape.from, wanted.join(" AND "))
}

fn read(shape: &Shape, row: &PgRow) -> sqlx::Result<Row> {
    let count: i64 = if shape.key.is_empty() { row.try_get(1)? } else { 1 };
    let count = u64::try_from(count).unwrap_or(0);
    if shape.key.is_empty() {
        let hash: Vec<u8> = row.try_get(0)?;
        return Ok(Row { key: vec![Cell::Bytes(hash)], hash: String::new(), count });
    }
    let cell = |(index, name): (usize, &String)| -> sqlx::Result<Cell> {
        Ok(if shape.columns.get(name).is_some_and(|kind| is_number(kind)) {
            Cell::Number(i128::from(row.try_get::<i64, _>(index)?))
        } else {
            Cell::Bytes(row.try_get(index)?)
        })
    };
    let key = shape.key.iter().enumerate().map(cell).collect::<sqlx::Result<_>>()?;
    Ok(Row { key, hash: row.try_get(shape.key.len())?, count })
}

#[async_trait]
impl Side for Database {
    async fn tables(&mut self) -> Result<BTreeMap<String, Table>, String> {
        let rows = sqlx::query(TABLES).fetch_all(&mut self.0).await.map_err(said)?;
        let table = |row: &PgRow| -> sqlx::Result<(String, Table)> {
            let (schema, name): (String, String) = (row.try_get(0)?, row.try_get(1)?);
            let (names, kinds): (Vec<String>, Vec<String>) = (row.try_get(3)?, row.try_get(4)?);
            // Children of a table that is inherited from are tables of their own.
            let only = if row.try_get(2)? { "" } else { "ONLY " };
            let table = Table {
                from: format!("{only}{}.{}", identifier(&schema), identifier(&name)),
                columns: names.into_iter().zip(kinds).collect(),
                key: row.try_get(5)?,
            };
            Ok((if schema == "public" { name } else { format!("{schema}.{name}") }, table))
        };
        rows.iter().map(table).collect::<sqlx::Result<_>>().map_err(said)
    }

    async fn total(&mut self, shape: &Shape) -> Result<Option<Total>, String> {
        let row = sqlx::query(AssertSqlSafe(total_sql(shape))).fetch_one(&mut self.0).await.map_err(said)?;
        let read =
            || -> sqlx::Result<Total> { Ok((u64::try_from(row.try_get::<i64, _>(0)?).unwrap_or(0), row.try_get(1)?)) };
        read().map(Some).map_err(said)
    }

    async fn count(&mut self, table: &Table) -> Result<u64, String> {
        let sql = format!("SELECT count(*) FROM {}", table.from);
        let count: i64 = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut self.0).await.map_err(said)?;
        Ok(u64::try_from(count).unwrap_or(0))
    }

    fn rows<'a>(&'a mut self, shape: &'a Shape) -> Rows<'a> {
        let rows = sqlx::query(AssertSqlSafe(rows_sql(shape))).fetch(&mut self.0);
        rows.and_then(async |row| read(shape, &row)).map_err(said).boxed()
    }

    async fn row(&mut self, shape: &Shape, key: &[Cell]) -> Result<Option<String>, String> {
        sqlx::query_scalar(AssertSqlSafe(row_sql(shape, key))).fetch_optional(&mut self.0).await.map_err(said)
    }

    async fn let_go(&mut self) -> Result<(), String> {
        sqlx::raw_sql(LET_GO).execute(&mut self.0).await.map(|_| ()).map_err(said)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(key: &[&str]) -> Shape {
        let columns = [("id", "integer"), ("na\"me", "character varying(9)")];
        Shape {
            from: "ONLY \"public\".\"people\"".to_owned(),
            columns: columns.map(|(name, kind)| (name.to_owned(), kind.to_owned())).into(),
            key: key.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    #[test]
    fn numbers_are_ordered_by_their_index_and_everything_else_by_its_bytes() {
        assert_eq!(
            rows_sql(&shape(&["id", "na\"me"])),
            "SELECT t.\"id\"::bigint, convert_to(t.\"na\"\"me\"::text, 'UTF8'), \
             md5(ROW(t.\"id\", t.\"na\"\"me\")::text) FROM ONLY \"public\".\"people\" t \
             ORDER BY t.\"id\", convert_to(t.\"na\"\"me\"::text, 'UTF8')"
        );
        assert!(rows_sql(&shape(&[])).ends_with("GROUP BY 1 ORDER BY 1"));
    }

    #[test]
    fn a_keys_value_is_quoted() {
        let key = [Cell::Number(-3), Cell::Bytes(b"x'; DROP TABLE people; --".to_vec())];
        let sql = row_sql(&shape(&["id", "na\"me"]), &key);
        assert!(sql.contains("t.\"id\" = '-3'::integer"), "{sql}");
        assert!(sql.contains("= 'x''; DROP TABLE people; --'::character varying(9)"), "{sql}");
    }
}
