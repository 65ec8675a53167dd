//! Transactions that are open in PostgreSQL, also those of other services, which the relay does not see. Asked with
//! one short connection, and only when nothing else keeps the environment awake.

use std::net::IpAddr;
use std::time::Duration;

use domain::environment::life::Transaction;
use domain::stack::Service;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{ConnectOptions as _, Connection as _, Row as _};

use super::{credentials, variables};

/// Longest time for connection, question and answer.
const WITHIN: Duration = Duration::from_secs(2);
const SQL: &str = "SELECT COALESCE(application_name, ''), COALESCE(host(client_addr), 'the container itself') \
                   FROM pg_stat_activity WHERE xact_start IS NOT NULL AND pid <> pg_backend_pid() \
                   AND backend_type = 'client backend' ORDER BY xact_start LIMIT 4";

/// Open transactions of a PostgreSQL; none when it cannot be asked.
pub(super) async fn open(name: &str, service: &Service, address: IpAddr) -> Vec<Transaction> {
    match tokio::time::timeout(WITHIN, ask(name, service, address)).await {
        Ok(Ok(found)) => found,
        Ok(Err(why)) => {
            tracing::debug!(service = name, %why, "its transactions cannot be asked for");
            Vec::new()
        }
        Err(_) => Vec::new(),
    }
}

async fn ask(name: &str, service: &Service, address: IpAddr) -> sqlx::Result<Vec<Transaction>> {
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
    let rows = sqlx::query(SQL).fetch_all(&mut connection).await?;
    connection.close().await?;
    Ok(rows
        .iter()
        .map(|row| {
            let (program, from) = (row.get::<String, _>(0), row.get::<String, _>(1));
            let program: String = program.chars().filter(|c| !c.is_control()).take(60).collect();
            let by = if program.is_empty() { format!("from {from}") } else { format!("{program} from {from}") };
            Transaction { service: name.to_owned(), by }
        })
        .collect())
}
