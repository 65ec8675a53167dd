//! What is special about PostgreSQL's data: how a clone of it is made ready, and how its password is changed.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use domain::stack::Durability;
use sqlx::Connection as _;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgSslMode};

use super::sealed::{Login, folder_where};

/// Nobody enters over the network without a password, whatever the seed's own file said.
const HBA: &str = "# Written by Muster: who may enter an environment's database.\n\
local all all trust\n\
host all all all scram-sha-256\n";
/// Files that make a server follow another one, or say that it runs.
const FORBIDDEN: [&str; 4] = ["postmaster.pid", "standby.signal", "recovery.signal", "recovery.conf"];
/// Settings that reach out of the environment.
const OUTWARD: [&str; 4] = ["primary_conninfo", "archive_command", "archive_library", "restore_command"];
const PATIENCE: Duration = Duration::from_secs(10);

/// The data folder within a volume; none: there is none.
#[must_use]
pub fn data(volume: &Path) -> Option<PathBuf> {
    folder_where(volume, &|folder| folder.join("PG_VERSION").is_file() && folder.join("global").is_dir())
}

/// Makes a clone ready to start on its own: nothing of another server's life, nothing that leads out.
///
/// # Errors
/// The disk refuses.
pub fn prepare(data: &Path, durability: Durability) -> io::Result<()> {
    for name in FORBIDDEN {
        match fs::remove_file(data.join(name)) {
            Err(why) if why.kind() != io::ErrorKind::NotFound => return Err(why),
            _ => {}
        }
    }
    rewrite(&data.join("pg_hba.conf"), HBA)?;
    let path = data.join("postgresql.auto.conf");
    let before = fs::read_to_string(&path).unwrap_or_default();
    let own = ["synchronous_commit", "fsync", "full_page_writes"];
    let names = |line: &str, names: &[&str]| {
        let name = line.split(['=', ' ']).next().unwrap_or_default().trim().to_ascii_lowercase();
        names.contains(&name.as_str())
    };
    let mut text: String = before
        .lines()
        .filter(|line| !names(line, &OUTWARD) && !names(line, &own))
        .flat_map(|line| [line, "\n"])
        .collect();
    match durability {
        Durability::Dev => text.push_str("synchronous_commit = 'off'\n"),
        Durability::Strict => {}
        Durability::Throwaway => {
            text.push_str("synchronous_commit = 'off'\nfsync = 'off'\nfull_page_writes = 'off'\n");
        }
    }
    if text == before { Ok(()) } else { rewrite(&path, &text) }
}

/// Writes into the file that is there, so that its owner and mode stay.
fn rewrite(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
    file.write_all(text.as_bytes())
}

/// Gives the administrator another password. Calling again, also after a crash in between, is fine.
///
/// # Errors
/// What the server says; never a password.
pub async fn change_password(address: IpAddr, port: u16, login: &Login, password: &str) -> Result<(), String> {
    let work = async {
        let mut connection = match connect(address, port, &login.user, &login.password).await {
            Ok(connection) => connection,
            // It was changed already, before somebody was killed.
            Err(first) => connect(address, port, &login.user, password).await.map_err(|_| first)?,
        };
        let sql = format!(
            "SET password_encryption = 'scram-sha-256'; SET log_statement = 'none'; SET log_min_duration_statement = -1; SET log_min_error_statement = 'panic'; \
             ALTER ROLE {} WITH LOGIN PASSWORD {}",
            identifier(&login.user),
            literal(password)
        );
        let changed = sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut connection).await;
        let result = changed.map(|_| ()).map_err(|why| database_error(&why));
        let _ = connection.close().await;
        result
    };
    tokio::time::timeout(PATIENCE, work).await.map_err(|_| format!("no answer within {PATIENCE:?}"))?
}

async fn connect(address: IpAddr, port: u16, user: &str, password: &str) -> Result<PgConnection, String> {
    let options = PgConnectOptions::new_without_pgpass()
        .host(&address.to_string())
        .port(port)
        .username(user)
        .password(password)
        .database("postgres")
        .application_name("muster")
        .ssl_mode(PgSslMode::Disable);
    PgConnection::connect_with(&options).await.map_err(|why| database_error(&why))
}

/// Runs statements as a user of the server, each in a transaction of its own.
///
/// # Errors
/// What the server says.
pub async fn run(address: IpAddr, port: u16, user: &str, password: &str, sql: &str) -> Result<(), String> {
    let work = async {
        let mut connection = connect(address, port, user, password).await?;
        for one in sql.split(';') {
            let done = sqlx::raw_sql(sqlx::AssertSqlSafe(one.to_owned())).execute(&mut connection).await;
            done.map_err(|why| database_error(&why))?;
        }
        let _ = connection.close().await;
        Ok(())
    };
    tokio::time::timeout(PATIENCE, work).await.map_err(|_| format!("no answer within {PATIENCE:?}"))?
}

/// The server's words, which name no password.
fn database_error(why: &sqlx::Error) -> String {
    match why {
        sqlx::Error::Database(said) => said.message().to_owned(),
        other => other.to_string(),
    }
}

/// A quoted name.
#[must_use]
pub fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A quoted text, whatever the server's settings are.
#[must_use]
pub fn literal(text: &str) -> String {
    if text.contains('\\') {
        format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
    } else {
        format!("'{}'", text.replace('\'', "''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(folder: &Path) {
        fs::create_dir_all(folder.join("global")).expect("made");
        fs::write(folder.join("PG_VERSION"), "15\n").expect("written");
    }

    #[test]
    fn the_data_folder_is_found_where_images_put_it() {
        for below in ["", "pgdata", "18/docker"] {
            let volume = tempfile::tempdir().expect("a folder");
            let wanted = volume.path().join(below);
            cluster(&wanted);
            assert_eq!(data(volume.path()).map(|found| found.join("x")), Some(wanted.join("x")));
        }
        assert_eq!(data(tempfile::tempdir().expect("a folder").path()), None);
    }

    #[test]
    fn a_clone_lets_nobody_in_without_a_password_and_leads_nowhere() {
        let folder = tempfile::tempdir().expect("a folder");
        cluster(folder.path());
        fs::write(folder.path().join("postmaster.pid"), "1").expect("written");
        fs::write(folder.path().join("standby.signal"), "").expect("written");
        fs::write(folder.path().join("pg_hba.conf"), "host all all all trust\n").expect("written");
        let auto = folder.path().join("postgresql.auto.conf");
        fs::write(&auto, "# kept\nprimary_conninfo = 'host=prod'\nwork_mem = '8MB'\nfsync = 'off'\n").expect("written");
        for _ in 0..2 {
            prepare(folder.path(), Durability::Dev).expect("prepared");
            let text = fs::read_to_string(&auto).expect("read");
            assert_eq!(text, "# kept\nwork_mem = '8MB'\nsynchronous_commit = 'off'\n");
        }
        assert!(!folder.path().join("standby.signal").exists() && !folder.path().join("postmaster.pid").exists());
        let hba = fs::read_to_string(folder.path().join("pg_hba.conf")).expect("read");
        assert!(hba.lines().filter(|line| line.starts_with("host")).all(|line| line.ends_with("scram-sha-256")));
    }

    #[test]
    fn names_and_texts_are_quoted() {
        assert_eq!(identifier("a\"b"), "\"a\"\"b\"");
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal("a\\'"), "E'a\\\\'''");
    }
}
