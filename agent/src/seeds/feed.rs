//! How each kind of store is fed, masked and made ready to be sealed. Commands run in the store's own container.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use domain::stack::StoreKind;
use proto::v1::SeedFormat;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::postgres::{identifier, literal};
use super::scan::Canaries;
use super::sealed::Login;
use super::stack::Store;
use super::{INPUTS, elastic, inputs, mysql};
use crate::engine::Executed;
use crate::environments::credentials;
use crate::environments::failure::Failure;
use crate::host::Host;

/// Longest time for one input.
const FEED: Duration = Duration::from_secs(24 * 3600);
const QUICK: Duration = Duration::from_secs(60);
/// MariaDB's images have its clients by MariaDB's names only, MySQL's by MySQL's. What follows are their arguments.
const MYSQL: [&str; 4] = ["/bin/sh", "-c", "exec \"$(command -v mariadb || echo mysql)\" \"$@\"", "mysql"];
const MYSQL_CHECK: [&str; 4] =
    ["/bin/sh", "-c", "exec \"$(command -v mariadb-check || echo mysqlcheck)\" \"$@\"", "mysqlcheck"];

/// A store that runs.
#[derive(Debug)]
pub(super) struct Running<'a> {
    pub host: &'a Host,
    pub name: &'a str,
    pub store: &'a Store,
    /// The engine's id of its container.
    pub container: String,
    pub address: IpAddr,
    /// Where inputs lie on the host.
    pub folder: &'a Path,
}

/// What sealing needs to know of a store.
#[derive(Debug, Default)]
pub(super) struct Finished {
    pub login: Option<Login>,
    pub version: String,
    pub collation: String,
}

/// Whether the input is laid into the volume before the store starts.
pub(super) fn is_laid(format: SeedFormat) -> bool {
    matches!(format, SeedFormat::Folder | SeedFormat::Rdb)
}

impl Running<'_> {
    fn setting(&self, name: &str) -> Option<&str> {
        self.store.service.environment.get(name).map(String::as_str)
    }

    fn user(&self) -> &str {
        self.setting("POSTGRES_USER").unwrap_or("postgres")
    }

    fn database(&self) -> &str {
        self.setting("POSTGRES_DB").unwrap_or_else(|| self.user())
    }

    async fn exec(&self, argv: &[&str], timeout: Duration) -> Result<Executed, Failure> {
        let argv: Vec<String> = argv.iter().map(|word| (*word).to_owned()).collect();
        Ok(self.host.engine.exec(&self.container, &argv, timeout).await?)
    }

    /// Runs a command that must succeed; what it said goes into the error.
    async fn run(&self, what: &str, argv: &[&str], timeout: Duration) -> Result<String, Failure> {
        let done = self.exec(argv, timeout).await?;
        if done.status == 0 {
            return Ok(done.output);
        }
        let said = done.output.trim();
        let text = format!("{what} in {}: {} ended with {}: {said}", self.name, argv[0], done.status);
        Err(Failure::lasting("E_SEED_INPUT", text))
    }

    async fn psql(&self, what: &str, more: &[&str], timeout: Duration) -> Result<String, Failure> {
        let (user, database) = (self.user().to_owned(), self.database().to_owned());
        let mut argv = vec!["psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", &user, "-d", &database];
        argv.extend(more);
        self.run(what, &argv, timeout).await
    }

    /// Before anything is fed.
    pub async fn begin(&self) -> Result<(), Failure> {
        match self.store.kind {
            // A log segment that is used again would keep what was masked.
            StoreKind::Postgres => {
                let sql = ["-c", "ALTER SYSTEM SET wal_recycle = off", "-c", "SELECT pg_reload_conf()"];
                self.psql("before the import", &sql, QUICK).await.map(|_| ())
            }
            StoreKind::Mysql => {
                let login = mysql::login(&self.store.service);
                let file = self.folder.join(format!("{}.cnf", self.name));
                let failed = |why: std::io::Error| Failure::passing("E_SEED_SEAL", why.to_string());
                crate::files::write_atomic(&file, login.as_bytes()).map_err(failed)?;
                // MariaDB: pages that masked rows leave are overwritten.
                let scrub = "SET GLOBAL innodb_immediate_scrub_data_uncompressed = ON";
                if let Err(why) = self.mysql("before the import", scrub).await {
                    tracing::debug!(%why, "this server leaves freed pages as they are");
                }
                Ok(())
            }
            StoreKind::Redis | StoreKind::Elasticsearch => Ok(()),
        }
    }

    fn elastic(&self) -> elastic::Node {
        elastic::Node::of(&self.store.service, self.address)
    }

    /// Runs one statement in MySQL's or MariaDB's own client.
    async fn mysql(&self, what: &str, sql: &str) -> Result<String, Failure> {
        let login = self.mysql_login();
        let argv = [MYSQL.as_slice(), &[&login, "--batch", "--skip-column-names", "-e", sql]].concat();
        self.run(what, &argv, FEED).await
    }

    /// Runs a file of statements, to the first that fails. Its `source` would go on, and answer that all is well.
    async fn mysql_file(&self, what: &str, path: &str, database: Option<&str>) -> Result<String, Failure> {
        let login = self.mysql_login();
        let mut argv = vec!["/bin/sh", "-c", "exec \"$@\" <\"$0\"", path];
        argv.extend(MYSQL);
        argv.extend([&login, "--batch"]);
        argv.extend(database);
        self.run(what, &argv, FEED).await
    }

    fn mysql_login(&self) -> String {
        format!("--defaults-extra-file={INPUTS}/{}.cnf", self.name)
    }

    /// Feeds the input of this number.
    pub async fn feed(&self, number: usize, format: SeedFormat, file: &str) -> Result<(), Failure> {
        let path = format!("{INPUTS}/{number}");
        let refused = |why: &str| Failure::lasting("E_SEED_INPUT", format!("{file} in {}: {why}", self.name));
        match (self.store.kind, format) {
            (StoreKind::Elasticsearch, SeedFormat::Folder) if inputs::repository(self.folder, number).is_dir() => self
                .elastic()
                .restore(&format!("{INPUTS}/{}/{number}", inputs::REPOSITORIES))
                .await
                .map_err(|why| refused(&why)),
            (_, format) if is_laid(format) => Ok(()),
            (StoreKind::Elasticsearch, SeedFormat::Bulk) => {
                self.elastic().bulk(&inputs::path(self.folder, number)).await.map_err(|why| refused(&why))
            }
            (StoreKind::Elasticsearch, SeedFormat::Mask) => {
                self.elastic().mask(&inputs::path(self.folder, number)).await.map_err(|why| refused(&why))
            }
            (_, SeedFormat::Script) => self.run(file, &["/bin/sh", &path], FEED).await.map(|_| ()),
            (StoreKind::Postgres, SeedFormat::Sql | SeedFormat::Mask) => {
                self.psql(file, &["-f", &path], FEED).await.map(|_| ())
            }
            (StoreKind::Mysql, SeedFormat::Sql | SeedFormat::Mask) => {
                let database = mysql::database(&self.store.service);
                self.mysql_file(file, &path, database.as_deref()).await.map(|_| ())
            }
            (StoreKind::Postgres, SeedFormat::PgCustom) => {
                let (user, database) = (self.user(), self.database());
                let argv =
                    ["pg_restore", "-U", user, "-d", database, "--no-owner", "--exit-on-error", "--jobs", "2", &path];
                self.run(file, &argv, FEED).await.map(|_| ())
            }
            (kind, format) => Err(Failure::lasting(
                "E_SEED_FORMAT",
                format!("{file}: {} takes no {}", super::kind_name(kind), word(format)),
            )),
        }
    }

    /// After everything is fed and masked: nothing old is left, and the way in is known to nobody.
    pub async fn finish(&self, masked: bool, canaries: &Canaries) -> Result<Finished, Failure> {
        match self.store.kind {
            StoreKind::Postgres => self.finish_postgres(masked).await,
            StoreKind::Redis => {
                let password = credentials::password(&self.store.service);
                let port = self.store.service.ports.first().or(self.store.service.expose.first()).copied();
                let saved = redis_save(self.address, port.unwrap_or(6379), password).await;
                saved.map_err(|why| Failure::lasting("E_SEED_SEAL", format!("{}: SAVE: {why}", self.name)))?;
                Ok(Finished::default())
            }
            StoreKind::Mysql => self.finish_mysql(masked).await,
            StoreKind::Elasticsearch => self.finish_elastic(masked, canaries).await,
        }
    }

    async fn finish_elastic(&self, masked: bool, canaries: &Canaries) -> Result<Finished, Failure> {
        let failed = |why: String| Failure::lasting("E_SEED_SEAL", format!("{}: {why}", self.name));
        let node = self.elastic();
        if canaries.count() > 0
            && let Some(number) = node.holds(canaries).await.map_err(failed)?
        {
            return Err(Failure::lasting(
                "E_SEED_CANARY",
                format!(
                    "canary value {number} is still in a document of {}; the seed was not made. Mask the field it comes \
                     from (the value itself is not shown)",
                    self.name
                ),
            ));
        }
        node.settle(masked).await.map_err(failed)?;
        Ok(Finished { version: node.version().await.map_err(failed)?, ..Finished::default() })
    }

    async fn finish_mysql(&self, masked: bool) -> Result<Finished, Failure> {
        let own = mysql::users(&self.store.service);
        let (new, old) = mysql::lock_others(&own);
        // MariaDB keeps accounts elsewhere than MySQL.
        if self.mysql("sealing", &new).await.is_err() {
            self.mysql("sealing", &old).await?;
        }
        if masked {
            self.wipe_mysql().await?;
        }
        self.mysql("sealing", "SET GLOBAL innodb_fast_shutdown = 0").await?;
        let version = self.mysql("sealing", "SELECT VERSION()").await?;
        Ok(Finished { version: version.trim().to_owned(), ..Finished::default() })
    }

    /// Old values stay in deleted rows, logs of statements, undo pages and the circular log of changes.
    async fn wipe_mysql(&self) -> Result<(), Failure> {
        let login = self.mysql_login();
        let argv = [MYSQL_CHECK.as_slice(), &[&login, "--all-databases", "--optimize", "--silent"]].concat();
        self.run("sealing", &argv, FEED).await?;
        // Without a log of statements, and by its other name in newer versions, they are refused.
        for forget in ["RESET MASTER", "RESET BINARY LOGS AND GCS"] {
            if let Err(why) = self.mysql("sealing", forget).await {
                tracing::debug!(%why, "no log of statements is emptied");
            }
        }
        let mut size = 0;
        for one in mysql::LOG_SIZES {
            let found = self.mysql("sealing", one).await.unwrap_or_default();
            size = found.trim().parse().unwrap_or(0).max(size);
        }
        let file = self.folder.join("seal.sql");
        crate::files::write_atomic(&file, mysql::filler(size).as_bytes())
            .map_err(|why| Failure::passing("E_SEED_SEAL", why.to_string()))?;
        self.mysql_file("sealing", &format!("{INPUTS}/seal.sql"), None).await.map(|_| ())
    }

    async fn finish_postgres(&self, masked: bool) -> Result<Finished, Failure> {
        let user = self.user();
        let seal = |why: std::io::Error| Failure::passing("E_SEED_SEAL", why.to_string());
        let password = credentials::random_password().map_err(seal)?;
        // A file, because a password has no place in a list of arguments.
        crate::files::write_atomic(&self.folder.join("seal.sql"), seal_sql(user, &password).as_bytes())
            .map_err(seal)?;
        self.psql("sealing", &["-f", &format!("{INPUTS}/seal.sql")], QUICK).await?;
        // Deleted rows, and samples in the statistics, keep what was masked until the tables are written anew.
        let mut vacuum = vec!["vacuumdb", "-q", "-U", user, "--all", "--analyze"];
        if masked {
            vacuum.push("--full");
        }
        self.run("sealing", &vacuum, FEED).await?;
        // The first checkpoint lets go of old segments of the log, the second of what the first wrote.
        let sql = [
            "ALTER SYSTEM RESET wal_recycle",
            "SELECT pg_switch_wal()",
            "CHECKPOINT",
            "CHECKPOINT",
            "SHOW server_version",
        ];
        let printed = self.psql("sealing", &sql.map(|one| ["-c", one]).concat(), FEED).await?;
        let version = printed.trim_end().lines().next_back().unwrap_or_default();
        let collation = "SELECT coalesce(pg_database_collation_actual_version(oid), '') FROM pg_database WHERE datname = current_database()";
        // Only from version 15 on.
        let collation = self.psql("sealing", &["-c", collation], QUICK).await.unwrap_or_default();
        let word = |text: &str| text.split_whitespace().next().unwrap_or_default().to_owned();
        Ok(Finished {
            login: Some(Login { user: user.to_owned(), password }),
            version: word(version),
            collation: word(&collation),
        })
    }
}

/// The administrator's password is another one, and nobody else has any.
fn seal_sql(user: &str, password: &str) -> String {
    format!(
        "SET log_statement = 'none';\nSET password_encryption = 'scram-sha-256';\n\
         DO $$ DECLARE one text; BEGIN\n\
         FOR one IN SELECT rolname FROM pg_roles WHERE rolcanlogin AND rolname <> {user} LOOP\n\
         EXECUTE format('ALTER ROLE %I PASSWORD NULL', one);\nEND LOOP; END $$;\n\
         ALTER ROLE {role} PASSWORD {password};\n",
        user = literal(user),
        role = identifier(user),
        password = literal(password)
    )
}

fn word(format: SeedFormat) -> &'static str {
    match format {
        SeedFormat::Unspecified => "input of an unknown format",
        SeedFormat::Sql => "SQL",
        SeedFormat::PgCustom => "pg_dump archive",
        SeedFormat::Folder => "data folder",
        SeedFormat::Rdb => "dump.rdb",
        SeedFormat::Bulk => "bulk lines",
        SeedFormat::Script => "script",
        SeedFormat::Mask => "masking",
    }
}

/// Has Redis write its file; nothing is lost when it is stopped or frozen after.
pub(super) async fn redis_save(address: IpAddr, port: u16, password: Option<&str>) -> Result<(), String> {
    let work = async {
        let mut stream = tokio::net::TcpStream::connect((address, port)).await.map_err(|why| why.to_string())?;
        let mut request = Vec::new();
        if let Some(password) = password {
            request.extend(format!("*2\r\n$4\r\nAUTH\r\n${}\r\n{password}\r\n", password.len()).into_bytes());
        }
        request.extend(b"*1\r\n$4\r\nSAVE\r\n*1\r\n$4\r\nQUIT\r\n");
        stream.write_all(&request).await.map_err(|why| why.to_string())?;
        let mut answer = String::new();
        stream.take(4096).read_to_string(&mut answer).await.map_err(|why| why.to_string())?;
        match answer.lines().find(|line| line.starts_with('-')) {
            Some(error) => Err(error.trim_start_matches('-').to_owned()),
            None if answer.matches("+OK").count() >= 2 => Ok(()),
            None => Err("it closed the connection".to_owned()),
        }
    };
    tokio::time::timeout(FEED, work).await.map_err(|_| "no answer".to_owned())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sealing_takes_every_other_password_away() {
        let sql = seal_sql("o'brien", "secret");
        assert!(sql.contains("rolname <> 'o''brien'") && sql.contains("ALTER ROLE \"o'brien\" PASSWORD 'secret'"));
        assert!(sql.contains("PASSWORD NULL"));
    }

    #[tokio::test]
    async fn redis_is_asked_to_save_and_its_refusal_is_told() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        tokio::spawn(async move {
            for answer in ["+OK\r\n+OK\r\n+OK\r\n", "-NOAUTH needed\r\n", ""] {
                let (mut stream, _) = listener.accept().await.expect("a client");
                let mut asked = [0; 128];
                let length = stream.read(&mut asked).await.expect("asked");
                assert!(String::from_utf8_lossy(&asked[..length]).contains("SAVE"));
                stream.write_all(answer.as_bytes()).await.expect("answered");
            }
        });
        let save = |password| redis_save(address.ip(), address.port(), password);
        assert_eq!(save(Some("x")).await, Ok(()));
        assert_eq!(save(None).await, Err("NOAUTH needed".to_owned()));
        assert!(save(None).await.is_err());
    }
}
