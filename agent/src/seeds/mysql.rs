//! What is special about MySQL's and MariaDB's data: how the server is entered, and how it gets its passwords.

use std::net::IpAddr;

use domain::stack::{Content, Durability, GivenFile, Service};
use sqlx::ConnectOptions as _;
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection, MySqlSslMode};

/// The server reads the settings of this folder in the official images of both.
const SETTINGS: &str = "/etc/mysql/conf.d/zz-muster.cnf";
const PASSWORDS: &str = "/etc/mysql/zz-muster.sql";

fn setting<'a>(service: &'a Service, name: &str) -> Option<&'a str> {
    let of = |prefix: &str| service.environment.get(&format!("{prefix}_{name}")).map(String::as_str);
    of("MARIADB").or_else(|| of("MYSQL")).filter(|text| !text.is_empty())
}

/// The database that the image makes.
#[must_use]
pub fn database(service: &Service) -> Option<String> {
    setting(service, "DATABASE").map(str::to_owned)
}

/// Accounts that the stack names, with their passwords.
#[must_use]
pub fn users(service: &Service) -> Vec<(String, String)> {
    let root = setting(service, "ROOT_PASSWORD").map(|password| ("root".to_owned(), password.to_owned()));
    let user = setting(service, "USER").zip(setting(service, "PASSWORD"));
    root.into_iter().chain(user.map(|(user, password)| (user.to_owned(), password.to_owned()))).collect()
}

/// Opens a connection as the first of those accounts that is let in.
///
/// # Errors
/// What the server said to the last of them.
pub async fn connect(service: &Service, address: IpAddr) -> Result<MySqlConnection, String> {
    let port = service.ports.first().or(service.expose.first()).copied().unwrap_or(3306);
    let mut why = "its stack names no account".to_owned();
    for (user, password) in users(service) {
        let options = MySqlConnectOptions::new()
            .host(&address.to_string())
            .port(port)
            .username(&user)
            .password(&password)
            .charset("utf8mb4")
            .ssl_mode(MySqlSslMode::Preferred)
            .statement_cache_capacity(0)
            .disable_statement_logging();
        match options.connect().await {
            Ok(connection) => return Ok(connection),
            Err(refused) => why = said(refused),
        }
    }
    Err(why)
}

/// What the server itself said, where it did.
#[must_use]
pub fn said(why: sqlx::Error) -> String {
    match &why {
        sqlx::Error::Database(said) => said.message().to_owned(),
        other => other.to_string(),
    }
}

/// Settings of the client: a file, because a password has no place in a list of arguments.
#[must_use]
pub fn login(service: &Service) -> String {
    let (user, password) = users(service).into_iter().next().unwrap_or_else(|| ("root".to_owned(), String::new()));
    let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    format!("[client]\nuser={}\npassword={}\nprotocol=socket\n", quoted(&user), quoted(&password))
}

/// Statements that let in nobody but these: MariaDB's, and MySQL's.
#[must_use]
pub fn lock_others(own: &[(String, String)]) -> (String, String) {
    let mut names: Vec<String> =
        ["mariadb.sys", "mysql", "mysql.sys", "mysql.session", "mysql.infoschema"].map(literal).into();
    names.extend(own.iter().map(|(user, _)| literal(user)));
    let names = names.join(", ");
    (
        format!(
            "UPDATE mysql.global_priv SET Priv = JSON_SET(Priv, '$.account_locked', true) WHERE User NOT IN ({names}); FLUSH PRIVILEGES"
        ),
        format!("UPDATE mysql.user SET account_locked = 'Y' WHERE User NOT IN ({names}); FLUSH PRIVILEGES"),
    )
}

/// Questions for the bytes of the circular log of changes: MySQL's, MariaDB's, and what both knew before.
pub const LOG_SIZES: [&str; 3] = [
    "SELECT @@innodb_redo_log_capacity",
    "SELECT @@innodb_log_file_size",
    "SELECT @@innodb_log_file_size * @@innodb_log_files_in_group",
];
/// Most bytes that are written to overwrite that log.
const MAX_LOG: u64 = 8 << 30;

/// Statements that write once around a log of so many bytes, so that nothing older is in it.
#[must_use]
pub fn filler(log: u64) -> String {
    // A page's worth of what is written needs a little more than itself; and the log has at least the default size.
    let pieces = (log.clamp(100 << 20, MAX_LOG) >> 20) + 4;
    let mut sql = String::from(
        "CREATE DATABASE muster_seal;\nCREATE TABLE muster_seal.filler (id int PRIMARY KEY, text longtext);\n",
    );
    for id in 0..pieces {
        // Few rows: what they were before is in the same undo pages again and again.
        sql.push_str(&format!("REPLACE INTO muster_seal.filler VALUES ({}, REPEAT(MD5({id}), 32768));\n", id % 4));
    }
    sql.push_str("DROP DATABASE muster_seal;\n");
    sql
}

/// A quoted text.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// Files by which a server with a seed's data has the environment's passwords before it lets anybody in, and gives up
/// what `durability` says.
#[must_use]
pub fn files(service: &Service, durability: Durability) -> Vec<GivenFile> {
    let flush = match durability {
        Durability::Strict => "",
        Durability::Dev => "innodb_flush_log_at_trx_commit = 2\nsync_binlog = 0\n",
        Durability::Throwaway => "innodb_flush_log_at_trx_commit = 0\nsync_binlog = 0\ninnodb_doublewrite = 0\n",
    };
    let mut sql = String::new();
    for (user, password) in users(service) {
        let (name, password) = (literal(&user), literal(&password));
        if user == "root" {
            sql.push_str(&format!("ALTER USER IF EXISTS {name}@'localhost' IDENTIFIED BY {password};\n"));
            sql.push_str(&format!("ALTER USER IF EXISTS {name}@'%' IDENTIFIED BY {password};\n"));
            continue;
        }
        sql.push_str(&format!("CREATE USER IF NOT EXISTS {name}@'%' IDENTIFIED BY {password};\n"));
        sql.push_str(&format!("ALTER USER {name}@'%' IDENTIFIED BY {password};\n"));
        if let Some(database) = database(service) {
            sql.push_str(&format!("GRANT ALL ON `{}`.* TO {name}@'%';\n", database.replace('`', "``")));
        }
    }
    // Only root enters the folder that they lie in; the server's own user must be able to read them.
    let file = |name: &str, target: &str, content: String| GivenFile {
        name: name.to_owned(),
        target: target.to_owned(),
        mode: 0o444,
        uid: None,
        gid: None,
        content: Content(content),
    };
    vec![
        file("muster.cnf", SETTINGS, format!("[mysqld]\ninit_file = {PASSWORDS}\n{flush}")),
        file("muster.sql", PASSWORDS, sql),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service() -> Service {
        let text = "services: { db: { image: mariadb, environment: { MARIADB_ROOT_PASSWORD: r, MYSQL_USER: \"o'b\", MYSQL_PASSWORD: p, MYSQL_DATABASE: shop } } }";
        let variables = std::collections::BTreeMap::new();
        let input = manifest::stack::Input { file: "c", text, variables: &variables, files: &|_| None };
        manifest::stack::read(input).expect("a good stack").stack.services.remove("db").expect("one")
    }

    #[test]
    fn a_server_gets_the_stacks_passwords_before_anybody_is_let_in() {
        let files = files(&service(), Durability::Dev);
        assert!(files[0].content.0.contains("init_file = /etc/mysql/zz-muster.sql"));
        assert!(files[0].content.0.contains("innodb_flush_log_at_trx_commit = 2"));
        let sql = &files[1].content.0;
        assert!(sql.contains("ALTER USER IF EXISTS 'root'@'localhost' IDENTIFIED BY 'r';"));
        assert!(sql.contains("ALTER USER 'o''b'@'%' IDENTIFIED BY 'p';") && sql.contains("ON `shop`.*"));
        assert!(sql.lines().all(|line| line.ends_with(';')), "the server reads one statement a line");
    }

    #[test]
    fn the_log_is_written_around_once_within_a_limit() {
        let pieces = |log| filler(log).matches("REPLACE").count() as u64;
        assert!(pieces(0) > 100 && pieces(512 << 20) > 512 && pieces(u64::MAX) < 9_000);
        assert!(filler(0).lines().all(|line| line.ends_with(';')));
    }

    #[test]
    fn others_are_locked_out_and_the_clients_password_is_in_a_file() {
        let (mariadb, _) = lock_others(&users(&service()));
        assert!(mariadb.contains("'o''b'") && mariadb.contains("'root'"));
        assert_eq!(login(&service()), "[client]\nuser=\"root\"\npassword=\"r\"\nprotocol=socket\n");
        assert_eq!(database(&service()).as_deref(), Some("shop"));
    }
}
