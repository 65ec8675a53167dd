//! Transactions that are open in PostgreSQL, MySQL or MariaDB, also those of other services, which the relay does not
//! see. Asked with one short connection, and only when nothing else keeps the environment awake. Redis tells nobody that
//! a client is between MULTI and EXEC.

use std::net::IpAddr;
use std::time::Duration;

use domain::environment::life::Transaction;
use domain::stack::{Service, StoreKind};
use sqlx::mysql::{MySqlConnectOptions, MySqlSslMode};
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{ConnectOptions as _, Connection as _, Row as _};

use super::{credentials, variables};
use crate::seeds::mysql;

/// Longest time for connection, question and answer.
const WITHIN: Duration = Duration::from_secs(2);
const POSTGRES: &str = "SELECT COALESCE(application_name, ''), COALESCE(host(client_addr), 'the container itself') \
                        FROM pg_stat_activity WHERE xact_start IS NOT NULL AND pid <> pg_backend_pid() \
                        AND backend_type = 'client backend' ORDER BY xact_start LIMIT 4";
/// Transactions begin for InnoDB with the first statement that needs it; its own have no thread.
const MYSQL: &str = "SELECT CAST(p.USER AS CHAR), CAST(SUBSTRING_INDEX(p.HOST, ':', 1) AS CHAR) \
                     FROM information_schema.INNODB_TRX t JOIN information_schema.PROCESSLIST p \
                     ON p.ID = t.trx_mysql_thread_id WHERE p.ID <> CONNECTION_ID() ORDER BY t.trx_started LIMIT 4";

/// Whether a store of this kind can be asked.
pub(super) fn tells(kind: StoreKind) -> bool {
    matches!(kind, StoreKind::Postgres | StoreKind::Mysql)
}

/// Open transactions of a store; none when it cannot be asked.
pub(super) async fn open(name: &str, service: &Service, address: IpAddr) -> Vec<Transaction> {
    let asked = async {
        match service.store {
            Some(StoreKind::Postgres) => postgres(service, address).await,
            Some(StoreKind::Mysql) => mysql(service, address).await,
            _ => Ok(Vec::new()),
        }
    };
    let found = match tokio::time::timeout(WITHIN, asked).await {
        Ok(Ok(found)) => found,
        Ok(Err(why)) => {
            tracing::debug!(service = name, %why, "its transactions cannot be asked for");
            Vec::new()
        }
        Err(_) => Vec::new(),
    };
    found.into_iter().map(|(who, from)| Transaction { service: name.to_owned(), by: by(&who, &from) }).collect()
}

/// Who has it open, in a line.
fn by(who: &str, from: &str) -> String {
    let who: String = who.chars().filter(|c| !c.is_control()).take(60).collect();
    if who.is_empty() { format!("from {from}") } else { format!("{who} from {from}") }
}

/// Program or user, and address, of each.
type Found = Vec<(String, String)>;

async fn postgres(service: &Service, address: IpAddr) -> sqlx::Result<Found> {
    let (user, database) = variables::postgres(service);
    let options = PgConnectOptions::new_without_pgpass()
        .host(&address.to_string())
        .port(5432)
        .username(&user)
        .password(credentials::password(service).unwrap_or_default())
        .database(&database)
        .ssl_mode(PgSslMode::Disable)
        .application_name("muster-agent")
        .log_statements(tracing::log::LevelFilter::Trace);
    let mut connection = options.connect().await?;
    let rows = sqlx::query(POSTGRES).fetch_all(&mut connection).await?;
    connection.close().await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

/// Asks as the first account of the stack that is let in and may see them: root, mostly.
async fn mysql(service: &Service, address: IpAddr) -> sqlx::Result<Found> {
    let mut last = sqlx::Error::Configuration("its stack names no account".into());
    for (user, password) in mysql::users(service) {
        let options = MySqlConnectOptions::new()
            .host(&address.to_string())
            .port(mysql::port(service))
            .username(&user)
            .password(&password)
            .ssl_mode(MySqlSslMode::Preferred)
            .log_statements(tracing::log::LevelFilter::Trace);
        match mysql_as(&options).await {
            Ok(found) => return Ok(found),
            Err(why) => last = why,
        }
    }
    Err(last)
}

async fn mysql_as(options: &MySqlConnectOptions) -> sqlx::Result<Found> {
    let mut connection = options.connect().await?;
    let rows = sqlx::query(MYSQL).fetch_all(&mut connection).await?;
    connection.close().await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_it_open_is_told_without_control_characters() {
        assert_eq!(by("psql\n", "10.0.0.1"), "psql from 10.0.0.1");
        assert_eq!(by("", "the container itself"), "from the container itself");
    }
}
