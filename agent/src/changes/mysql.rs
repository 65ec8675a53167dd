//! MySQL and MariaDB: all databases of people, table by table, as for PostgreSQL.

use std::collections::BTreeMap;

use async_trait::async_trait;
use futures::stream::{StreamExt as _, TryStreamExt as _};
use sqlx::mysql::{MySqlConnection, MySqlRow};
use sqlx::{AssertSqlSafe, Row as _};

use super::Place;
use super::tables::{self, LATE, Shape, Side, Table, Total};
use super::tally::{Cell, Row, Rows};
use super::teller::Teller;
use crate::seeds::mysql::{connect, database, said};

const SETTINGS: [&str; 5] = [
    "SET SESSION time_zone = '+00:00', SESSION lock_wait_timeout = 3, SESSION group_concat_max_len = 1048576",
    "SET SESSION sql_mode = ''",
    "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ",
    "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY",
    "SAVEPOINT one",
];
/// Locks of the tables that were read go with it, and the snapshot stays.
const LET_GO: &str = "ROLLBACK TO SAVEPOINT one";
const COLUMNS: &str = "\
SELECT CAST(c.TABLE_SCHEMA AS CHAR), CAST(c.TABLE_NAME AS CHAR), CAST(c.COLUMN_NAME AS CHAR), CAST(c.COLUMN_TYPE AS CHAR),
  CAST(COALESCE(k.ORDINAL_POSITION, 0) AS SIGNED)
FROM information_schema.TABLES t
JOIN information_schema.COLUMNS c ON c.TABLE_SCHEMA = t.TABLE_SCHEMA AND c.TABLE_NAME = t.TABLE_NAME
LEFT JOIN information_schema.KEY_COLUMN_USAGE k ON k.CONSTRAINT_NAME = 'PRIMARY' AND k.TABLE_SCHEMA = c.TABLE_SCHEMA
  AND k.TABLE_NAME = c.TABLE_NAME AND k.COLUMN_NAME = c.COLUMN_NAME
WHERE t.TABLE_TYPE = 'BASE TABLE'
  AND t.TABLE_SCHEMA NOT IN ('mysql', 'sys', 'information_schema', 'performance_schema')";

/// Compares two servers.
pub(super) async fn compare(seed: &Place<'_>, own: &Place<'_>, teller: &mut Teller) {
    let opened = async { tokio::try_join!(Server::open(seed), Server::open(own)) };
    let all = "all tables";
    match tokio::time::timeout_at(teller.deadline, opened).await {
        Ok(Ok((mut before, mut after))) => {
            tables::compare(&mut before, &mut after, "", teller).await;
        }
        Ok(Err(why)) => teller.left_out(all, &why).await,
        Err(_) => teller.left_out(all, LATE).await,
    }
}

/// One server, as of one instant.
struct Server {
    connection: MySqlConnection,
    /// Its tables are named without their database.
    main: String,
}

impl Server {
    async fn open(place: &Place<'_>) -> Result<Self, String> {
        let mut connection = connect(place.service, place.address).await?;
        for sql in SETTINGS {
            sqlx::raw_sql(sql).execute(&mut connection).await.map_err(said)?;
        }
        Ok(Self { connection, main: database(place.service).unwrap_or_default() })
    }
}

fn identifier(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

fn is_number(kind: &str) -> bool {
    let word = kind.split(['(', ' ']).next().unwrap_or_default();
    matches!(word, "tinyint" | "smallint" | "mediumint" | "int" | "bigint")
}

/// A column as bytes that say its value exactly, whatever its character set is.
fn bytes(name: &str, kind: &str) -> String {
    let quoted = format!("t.{}", identifier(name));
    match kind.split(['(', ' ']).next().unwrap_or_default() {
        "json" => format!("CAST(CAST({quoted} AS CHAR) AS BINARY)"),
        "float" | "double" => format!("CAST({quoted} + 0e0 AS BINARY)"),
        "bit" | "geometry" | "point" | "linestring" | "polygon" | "multipoint" | "multilinestring" | "multipolygon"
        | "geometrycollection" | "geomcollection" => format!("HEX({quoted})"),
        _ => format!("CAST({quoted} AS BINARY)"),
    }
}

/// The hash of a row over those columns, in which lengths keep neighbours apart.
fn hash(columns: &BTreeMap<String, String>) -> String {
    let one = |(name, kind): (&String, &String)| {
        let bytes = bytes(name, kind);
        format!("COALESCE(CONCAT(LENGTH({bytes}), ':', {bytes}), 'N')")
    };
    let all: Vec<String> = columns.iter().map(one).collect();
    format!("MD5(CONCAT('', {}))", if all.is_empty() { "''".to_owned() } else { all.join(", ") })
}

fn total_sql(shape: &Shape) -> String {
    let half = |end: &str| format!("COALESCE(SUM(CAST(CONV({end}(m, 16), 16, 10) AS UNSIGNED)), 0)");
    format!(
        "SELECT COUNT(*), CAST(CONCAT({}, '/', {}) AS CHAR) FROM (SELECT {} AS m FROM {} t) s",
        half("LEFT"),
        half("RIGHT"),
        hash(&shape.columns),
        shape.from
    )
}

fn kind<'a>(shape: &'a Shape, name: &str) -> &'a str {
    shape.columns.get(name).map_or("", String::as_str)
}

fn rows_sql(shape: &Shape) -> String {
    let hash = hash(&shape.columns);
    if shape.key.is_empty() {
        return format!(
            "SELECT CAST(m AS BINARY) AS h, COUNT(*) FROM (SELECT {hash} AS m FROM {} t) s GROUP BY h ORDER BY h",
            shape.from
        );
    }
    let (shown, order): (Vec<String>, Vec<String>) = shape
        .key
        .iter()
        .map(|name| {
            let bytes = bytes(name, kind(shape, name));
            // Numbers are ordered by their index.
            let order = if is_number(kind(shape, name)) { format!("t.{}", identifier(name)) } else { bytes.clone() };
            (bytes, order)
        })
        .unzip();
    format!("SELECT {}, CAST({hash} AS BINARY) FROM {} t ORDER BY {}", shown.join(", "), shape.from, order.join(", "))
}

fn row_sql(shape: &Shape, key: &[Cell]) -> String {
    let columns: Vec<String> = shape
        .columns
        .iter()
        .map(|(name, kind)| {
            let quoted = name.replace('\\', "\\\\").replace('\'', "''");
            let value = match kind.split(['(', ' ']).next().unwrap_or_default() {
                "binary" | "varbinary" | "blob" | "tinyblob" | "mediumblob" | "longblob" | "bit" | "geometry" => {
                    format!("HEX(t.{})", identifier(name))
                }
                _ => format!("CONVERT(t.{} USING utf8mb4)", identifier(name)),
            };
            format!("'{quoted}', {value}")
        })
        .collect();
    let is = |(name, cell): (&String, &Cell)| match cell {
        Cell::Number(number) => format!("t.{} = {number}", identifier(name)),
        Cell::Bytes(value) => format!("{} = X'{}'", bytes(name, kind(shape, name)), hex::encode(value)),
    };
    let wanted: Vec<String> = shape.key.iter().zip(key).map(is).collect();
    format!(
        "SELECT CAST(JSON_OBJECT({}) AS CHAR) FROM {} t WHERE {} LIMIT 1",
        columns.join(", "),
        shape.from,
        wanted.join(" AND ")
    )
}

fn read(shape: &Shape, row: &MySqlRow) -> Result<Row, String> {
    if shape.key.is_empty() {
        let (hash, count): (Vec<u8>, i64) = (row.try_get(0).map_err(said)?, row.try_get(1).map_err(said)?);
        return Ok(Row { key: vec![Cell::Bytes(hash)], hash: String::new(), count: u64::try_from(count).unwrap_or(0) });
    }
    let cell = |(index, name): (usize, &String)| -> Result<Cell, String> {
        let bytes: Vec<u8> = row.try_get(index).map_err(said)?;
        if !is_number(kind(shape, name)) {
            return Ok(Cell::Bytes(bytes));
        }
        let number = std::str::from_utf8(&bytes).ok().and_then(|text| text.parse().ok());
        number.map(Cell::Number).ok_or_else(|| format!("{name} holds what is no number"))
    };
    let key = shape.key.iter().enumerate().map(cell).collect::<Result<_, _>>()?;
    let hash: Vec<u8> = row.try_get(shape.key.len()).map_err(said)?;
    Ok(Row { key, hash: String::from_utf8_lossy(&hash).into_owned(), count: 1 })
}

#[async_trait]
impl Side for Server {
    async fn tables(&mut self) -> Result<BTreeMap<String, Table>, String> {
        let rows = sqlx::query(COLUMNS).fetch_all(&mut self.connection).await.map_err(said)?;
        let mut tables: BTreeMap<String, (Table, BTreeMap<i64, String>)> = BTreeMap::new();
        for row in &rows {
            let text = |index: usize| row.try_get::<String, _>(index).map_err(said);
            let (schema, name, column) = (text(0)?, text(1)?, text(2)?);
            let shown = if schema == self.main { name.clone() } else { format!("{schema}.{name}") };
            let (table, key) = tables.entry(shown).or_default();
            table.from = format!("{}.{}", identifier(&schema), identifier(&name));
            table.columns.insert(column.clone(), text(3)?.to_lowercase());
            let place: i64 = row.try_get(4).map_err(said)?;
            if place > 0 {
                key.insert(place, column);
            }
        }
        let keyed = |(name, (table, key)): (String, (Table, BTreeMap<i64, String>))| {
            (name, Table { key: key.into_values().collect(), ..table })
        };
        Ok(tables.into_iter().map(keyed).collect())
    }

    async fn total(&mut self, shape: &Shape) -> Result<Option<Total>, String> {
        let row = sqlx::query(AssertSqlSafe(total_sql(shape))).fetch_one(&mut self.connection).await.map_err(said)?;
        let count: i64 = row.try_get(0).map_err(said)?;
        Ok(Some((u64::try_from(count).unwrap_or(0), row.try_get(1).map_err(said)?)))
    }

    async fn count(&mut self, table: &Table) -> Result<u64, String> {
        let sql = format!("SELECT COUNT(*) FROM {}", table.from);
        let count: i64 = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut self.connection).await.map_err(said)?;
        Ok(u64::try_from(count).unwrap_or(0))
    }

    fn rows<'a>(&'a mut self, shape: &'a Shape) -> Rows<'a> {
        let rows = sqlx::query(AssertSqlSafe(rows_sql(shape))).fetch(&mut self.connection);
        rows.map_err(said).and_then(async |row| read(shape, &row)).boxed()
    }

    async fn row(&mut self, shape: &Shape, key: &[Cell]) -> Result<Option<String>, String> {
        let sql = AssertSqlSafe(row_sql(shape, key));
        sqlx::query_scalar(sql).fetch_optional(&mut self.connection).await.map_err(said)
    }

    async fn let_go(&mut self) -> Result<(), String> {
        sqlx::raw_sql(LET_GO).execute(&mut self.connection).await.map(|_| ()).map_err(said)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_hashed_as_bytes_with_their_length() {
        let columns = [("a`b", "varchar(9)"), ("f", "float"), ("g", "point")];
        let columns = columns.map(|(name, kind)| (name.to_owned(), kind.to_owned())).into();
        let sql = hash(&columns);
        assert!(sql.contains("LENGTH(CAST(t.`a``b` AS BINARY)), ':', CAST(t.`a``b` AS BINARY)"), "{sql}");
        assert!(sql.contains("CAST(t.`f` + 0e0 AS BINARY)") && sql.contains("HEX(t.`g`)"), "{sql}");
        assert!(is_number("bigint(20) unsigned") && !is_number("decimal(10,0)") && !is_number("binary(16)"));
    }

    #[test]
    fn a_row_is_found_by_bytes_that_need_no_quoting() {
        let columns = [("id", "int(11)"), ("name", "varchar(9)")];
        let shape = Shape {
            from: "`shop`.`people`".to_owned(),
            columns: columns.map(|(name, kind)| (name.to_owned(), kind.to_owned())).into(),
            key: vec!["id".to_owned(), "name".to_owned()],
        };
        let sql = row_sql(&shape, &[Cell::Number(-3), Cell::Bytes(b"'".to_vec())]);
        assert!(sql.ends_with("WHERE t.`id` = -3 AND CAST(t.`name` AS BINARY) = X'27' LIMIT 1"), "{sql}");
    }
}
