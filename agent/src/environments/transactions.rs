//! Transactions that are open in PostgreSQL, MySQL and MariaDB, also those of other services, which the relay does not
//! see. Asked with one short connection, and only when nothing else keeps the environment awake.

use std::net::IpAddr;
use std::time::Duration;

use domain::environment::life::Transaction;
use domain::stack::{Service, StoreKind};
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{ConnectOptions as _, Connection as _, Row as _};

use super::{credentials, variables};
use crate::seeds::mysql;

/// Longest time for connection, question and answer.
const WITHIN: Duration = Duration::from_secs(2);
const POSTGRES: &str = "SELECT COALESCE(application_name, ''), COALESCE(host(client_addr), 'the container itself') \
                        FROM pg_stat_activity WHERE xact_start IS NOT NULL AND pid <> pg_backend_pid() \
                        AND backend_type = 'client backend' ORDER BY xact_start LIMIT 4";
/// Transactions that were prepared and have no client (XA), and threads of the server itself, keep nobody awake. A
/// transaction begins with its first statement on a table (MySQL 8.0 Reference Manual, section 28.4.28).
const MYSQL: &str = "SELECT CAST(p.USER AS CHAR), CAST(p.HOST AS CHAR) FROM information_schema.INNODB_TRX t \
                     JOIN information_schema.PROCESSLIST p ON p.ID = t.trx_mysql_thread_id \
                     WHERE p.ID <> CONNECTION_ID() AND p.USER NOT IN ('system user', 'event_scheduler') \
                     ORDER BY t.trx_started LIMIT 4";

/// Whether stores of this kind are asked.
pub(super) fn is_asked(kind: StoreKind) -> bool {
    matches!(kind, StoreKind::Postgres | StoreKind::Mysql)
}

/// Open transactions of a store; none when it cannot be asked, and one of nobody while it does not answer. MySQL tells them to accounts with the privilege
/// `PROCESS` only: root, where the stack names its password.
pub(super) async fn open(name: &str, service: &Service, address: IpAddr) -> Vec<Transaction> {
    let asked = async {
        match service.store {
            Some(StoreKind::Postgres) => in_postgres(service, address).await.map_err(|why| why.to_string()),
            Some(StoreKind::Mysql) => in_mysql(service, address).await,
            _ => Ok(Vec::new()),
        }
    };
    match tokio::time::timeout(WITHIN, asked).await {
        Ok(Ok(found)) => found
            .into_iter()
            .map(|by| Transaction {
                service: name.to_owned(),
                by: by.chars().filter(|c| !c.is_control()).take(120).collect(),
            })
            .collect(),
        Ok(Err(why)) => {
            tracing::debug!(service = name, %why, "its transactions cannot be asked for");
            Vec::new()
        }
        // Who is too busy to answer is used.
        Err(_) => vec![Transaction { service: name.to_owned(), by: format!("it does not answer within {WITHIN:?}") }],
    }
}

async fn in_postgres(service: &Service, address: IpAddr) -> sqlx::Result<Vec<String>> {
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
    let by = |(program, from): (String, String)| {
        let program: String = program.chars().take(60).collect();
        if program.is_empty() { format!("from {from}") } else { format!("{program} from {from}") }
    };
    Ok(rows.iter().map(|row| by((row.get(0), row.get(1)))).collect())
}

async fn in_mysql(service: &Service, address: IpAddr) -> Result<Vec<String>, String> {
    let mut connection = mysql::connect(service, address).await?;
    let rows = sqlx::query(MYSQL).fetch_all(&mut connection).await.map_err(mysql::said)?;
    connection.close().await.map_err(mysql::said)?;
    Ok(rows.iter().map(|row| format!("{} from {}", row.get::<String, _>(0), row.get::<String, _>(1))).collect())
}
