//! One coordinator with its principals; hosts join it.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::call::Call;
use super::condition::{SOON, eventually, until};
use super::daemon::Daemon;
use super::disk::Disk;
use super::host::HostBuilder;
use super::{binaries, clean, example, ranges, template};

/// A coordinator of a test's own. Dropped, it takes everything of its hosts with it.
#[derive(Debug)]
pub struct Cluster {
    /// The process; restart it as you like.
    pub coordinator: Daemon,
    /// The disk of its state, if it has one of its own.
    pub disk: Option<Disk>,
    folder: PathBuf,
    number: u32,
    server: String,
    http: String,
}

/// How a cluster begins.
#[derive(Debug, Default)]
pub struct Options<'a> {
    /// The example app is applied, its builds are registered.
    pub example: bool,
    /// Value of `MUSTER_FAILPOINTS` for the coordinator.
    pub failpoints: &'a str,
    /// Also reachable from other network namespaces; then on a port of this number.
    pub everywhere: Option<u16>,
    /// Further settings of the coordinator, as its file has them.
    pub settings: &'a str,
    /// Its state lies on a disk of its own, an ext4 of so many MiB.
    pub disk: Option<u64>,
    /// Address of the PostgreSQL database that is its store; none: SQLite in its state.
    pub database: Option<&'a str>,
    /// From nothing, not from a copy of another one.
    pub bare: bool,
}

impl Cluster {
    /// An empty one.
    #[must_use]
    pub fn start() -> Self {
        Self::with(&Options::default())
    }

    /// One with the example app and its builds.
    #[must_use]
    pub fn with_example() -> Self {
        Self::with(&Options { example: true, ..Options::default() })
    }

    /// One as `options` say, with the principals admin, asha and ben (developers) and jenkins (deployer).
    ///
    /// # Panics
    /// It does not come up.
    #[must_use]
    pub fn with(options: &Options) -> Self {
        clean::sweep();
        let number = ranges::next_cluster();
        let folder = clean::folder(number);
        std::fs::create_dir_all(folder.join("contexts")).expect("the cluster's folder");
        let state = folder.join("coordinator");
        let disk = options.disk.map(|mib| Disk::ext4(&state, mib));
        let template = match options {
            Options { database: Some(_), .. } | Options { bare: true, .. } => None,
            Options { example: true, .. } => Some(template::with_example()),
            _ => Some(template::with_principals()),
        };
        if let Some(template) = template {
            template.copy_to(&folder);
        }
        let address = ranges::address(number, 1);
        let (listen, server) = match options.everywhere {
            Some(port) => (format!("0.0.0.0:{port}"), format!("127.0.0.1:{port}")),
            None => (format!("{address}:7443"), format!("{address}:7443")),
        };
        let http = format!("{address}:7480");
        let config = folder.join("coordinator.toml");
        let database = options.database.map(|url| format!("database_url = {url:?}\n")).unwrap_or_default();
        let text = format!(
            "state_dir = {state:?}\nlisten = \"{listen}\"\nhttp_listen = \"{http}\"\n{database}{}\n",
            options.settings
        );
        std::fs::write(&config, text).expect("its config file");
        let words = vec![
            binaries::muster().to_string_lossy().into_owned(),
            "serve".to_owned(),
            "--config".to_owned(),
            config.to_string_lossy().into_owned(),
        ];
        let mut coordinator = Daemon::new(&folder, "coordinator", words);
        if !options.failpoints.is_empty() {
            coordinator.set("MUSTER_FAILPOINTS", options.failpoints);
        }
        let mut cluster = Self { coordinator, disk, folder, number, server, http };
        cluster.restart();
        match template {
            Some(_) => cluster.log_in_again(),
            None => {
                cluster.log_in("admin", &state.join("admin.token"));
                for (principal, role) in [("asha", "developer"), ("ben", "developer"), ("jenkins", "deployer")] {
                    cluster.principal(principal, role);
                }
            }
        }
        if options.example && options.database.is_some() {
            example::register(&cluster);
        }
        cluster
    }

    /// Starts the coordinator when it does not run, and waits until it serves.
    pub fn restart(&mut self) {
        self.coordinator.start();
        let http = self.http.clone();
        let coordinator = &mut self.coordinator;
        eventually(SOON, "the coordinator serves", || {
            assert!(coordinator.runs(), "the coordinator ended:\n{}", coordinator.printed());
            get(&http, "/healthz").and_then(|answer| if answer.0 == 200 { Ok(()) } else { Err(answer.1) })
        });
        let token = self.folder.join("coordinator/admin.token");
        until(SOON, "the admin's token is written", || std::fs::metadata(&token).is_ok_and(|found| found.len() > 0));
    }

    /// SIGKILL, and a start.
    pub fn crash(&mut self) {
        self.coordinator.kill();
        self.restart();
    }

    /// Its folder: state, logs, login contexts.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// `HOST:PORT` for the command line.
    #[must_use]
    pub fn server(&self) -> &str {
        &self.server
    }

    /// Number in this process, for addresses of its own.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Value of the label of what the test starts beside Muster.
    #[must_use]
    pub fn name(&self) -> String {
        clean::name(&self.folder)
    }

    /// A call of `muster`.
    #[must_use]
    pub fn muster(&self, arguments: &[&str]) -> Call {
        Call::new(&binaries::muster(), arguments, &self.folder.join("contexts"))
    }

    /// Makes a principal with a role, and its login context.
    pub fn principal(&self, name: &str, role: &str) {
        let made = self.muster(&["api-token", "create", name, "--role", role, "--quiet"]).ok();
        let file = self.folder.join(format!("{name}.token"));
        private(&file, made.stdout.trim());
        self.log_in(name, &file);
    }

    /// Login contexts that came from a template lead to its coordinator.
    fn log_in_again(&self) {
        for entry in std::fs::read_dir(self.folder.join("contexts")).expect("login contexts").flatten() {
            let text = std::fs::read(entry.path()).expect("a login context");
            let mut context: serde_json::Value = serde_json::from_slice(&text).expect("a login context");
            context["server"] = self.server.clone().into();
            private(&entry.path(), &context.to_string());
        }
    }

    fn log_in(&self, name: &str, token: &Path) {
        let ca = self.folder.join("coordinator/ca.pem");
        let (ca, token) = (ca.to_string_lossy(), token.to_string_lossy());
        self.muster(&["login", "--server", &self.server, "--ca", &ca, "--token-file", &token]).by(name).ok();
    }

    /// A host that may join.
    #[must_use]
    pub fn host<'a>(&'a self, name: &str) -> HostBuilder<'a> {
        HostBuilder::new(self, name)
    }

    /// Waits until a host is in one of these liveness states (`READY`, `UNREACHABLE`).
    pub fn wait_host(&self, name: &str, liveness: &str, limit: Duration) {
        let wanted = format!("LIVENESS_{liveness}");
        eventually(limit, &format!("{name} is {liveness}"), || {
            let shown = self.muster(&["host", "show", name, "--output", "json"]).run();
            if shown.code == 0 && shown.json()["liveness"] == wanted.as_str() { Ok(()) } else { Err(shown.all()) }
        });
    }
}

/// Writes a file that only its owner can read.
pub(super) fn private(path: &Path, text: &str) {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .expect("a private file");
    file.write_all(text.as_bytes()).expect("a private file");
}

/// Status and body of one HTTP request.
///
/// # Errors
/// What went wrong on the way.
pub fn get(address: &str, path: &str) -> Result<(u16, String), String> {
    request(address, &format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n"))
}

/// Status and body of a request as given; the answer must end with the connection.
///
/// # Errors
/// What went wrong on the way.
pub fn request(address: &str, text: &str) -> Result<(u16, String), String> {
    let target = address.parse().map_err(|why| format!("{address}: {why}"))?;
    let fail = |why: std::io::Error| why.to_string();
    let stream = std::net::TcpStream::connect_timeout(&target, Duration::from_secs(5)).map_err(fail)?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).map_err(fail)?;
    exchange(stream, text)
}

/// The same over a connection of any kind.
pub(super) fn exchange(mut stream: impl Read + Write, text: &str) -> Result<(u16, String), String> {
    let fail = |why: std::io::Error| why.to_string();
    stream.write_all(text.as_bytes()).map_err(fail)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(fail)?;
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(|| answer.clone())?;
    Ok((status, answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default()))
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.coordinator.kill();
        if std::thread::panicking() {
            show_logs(&self.folder);
        }
        clean::cluster(&self.folder);
    }
}

/// The last lines of every log in a folder, and where the whole ones are kept.
pub(super) fn show_logs(folder: &Path) {
    let kept =
        binaries::folder().join("it-logs").join(std::thread::current().name().unwrap_or("test").replace(':', "-"));
    let _ = std::fs::create_dir_all(&kept);
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for path in entries.flatten().map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "log"))
    {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let all: Vec<&str> = text.lines().collect();
        eprintln!("---- {} ({} lines)", path.display(), all.len());
        all.iter().skip(all.len().saturating_sub(40)).for_each(|line| eprintln!("{line}"));
        let _ = path.file_name().map(|name| std::fs::copy(&path, kept.join(name)));
    }
    eprintln!("---- whole logs: {}", kept.display());
}
