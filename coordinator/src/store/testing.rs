//! A PostgreSQL server of its own for a test, from the distribution's binaries.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const USER: &str = "postgres";
const BINARIES: &str = "/usr/lib/postgresql";

/// A running server on a Unix socket, without fsync; stopped and removed when dropped. Start it on the thread that
/// keeps it: it ends with that thread.
#[derive(Debug)]
pub struct PostgresServer {
    process: Child,
    folder: tempfile::TempDir,
    binaries: PathBuf,
}

impl PostgresServer {
    /// Makes and starts a server.
    ///
    /// # Errors
    /// The binaries are missing, or the server does not start; the text says what to install or what it said.
    pub fn start() -> Result<Self, String> {
        let binaries = binaries()?;
        let folder = tempfile::Builder::new().prefix("muster-pg-").tempdir().map_err(|error| error.to_string())?;
        let path = folder.path();
        if let Some((uid, gid)) = server_user()? {
            chown(path, Some(uid), Some(gid)).map_err(|error| error.to_string())?;
        }
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(|error| error.to_string())?;
        let data = path.join("data");
        let arguments = ["--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "--username=postgres", "-D"];
        let mut make = as_server(&binaries.join("initdb"))?;
        let made = make.args(arguments).arg(&data).output().map_err(|error| error.to_string())?;
        if !made.status.success() {
            return Err(format!("initdb failed: {}", String::from_utf8_lossy(&made.stderr)));
        }
        let log = fs::File::create(path.join("log")).map_err(|error| error.to_string())?;
        let mut serve = as_server(&binaries.join("postgres"))?;
        serve.arg("-D").arg(&data).arg("-k").arg(path);
        for setting in ["listen_addresses=", "fsync=off", "full_page_writes=off", "max_connections=200"] {
            serve.arg("-c").arg(setting);
        }
        let process = serve.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
        let mut server = Self { process: process.map_err(|error| error.to_string())?, folder, binaries };
        server.wait_until_ready()?;
        Ok(server)
    }

    /// Makes an empty database and answers its address.
    ///
    /// # Errors
    /// What the server said.
    pub fn database(&self, name: &str) -> Result<String, String> {
        self.sql("postgres", &format!("CREATE DATABASE {name}"))?;
        Ok(self.url(name))
    }

    /// The address of a database; there is always `postgres`.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{USER}@localhost/{database}?host={}", self.folder.path().display())
    }

    /// Runs a statement in a database through `psql` and answers what it printed.
    ///
    /// # Errors
    /// What the server said.
    pub fn sql(&self, database: &str, statement: &str) -> Result<String, String> {
        let mut psql = Command::new(self.binaries.join("psql"));
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", USER, "-h"]);
        let done = psql.arg(self.folder.path()).args(["-d", database, "-c", statement]).output();
        let done = done.map_err(|error| error.to_string())?;
        if done.status.success() {
            Ok(String::from_utf8_lossy(&done.stdout).trim().to_owned())
        } else {
            Err(String::from_utf8_lossy(&done.stderr).into_owned())
        }
    }

    fn wait_until_ready(&mut self) -> Result<(), String> {
        let began = Instant::now();
        loop {
            let error = match self.sql("postgres", "SELECT 1") {
                Ok(_) => return Ok(()),
                Err(error) => error,
            };
            let ended = self.process.try_wait().map_err(|error| error.to_string())?;
            if ended.is_some() || began.elapsed() > Duration::from_secs(30) {
                let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
                return Err(format!("PostgreSQL did not start: {error}\n{log}"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        let pid = i32::try_from(self.process.id()).ok().and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            // QUIT: at once, its files are removed anyway. It fails only if the server has ended.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::QUIT);
        }
        let _ = self.process.wait();
    }
}

/// The newest installed version's binaries.
fn binaries() -> Result<PathBuf, String> {
    let missing =
        || format!("no PostgreSQL under {BINARIES}: install the package `postgresql` (apt-get install postgresql)");
    let versions = fs::read_dir(BINARIES).map_err(|_| missing())?;
    let paths = versions.filter_map(|entry| entry.ok().map(|entry| entry.path().join("bin")));
    let number = |path: &PathBuf| {
        let version = path.parent().and_then(Path::file_name).and_then(OsStr::to_str);
        version.and_then(|version| version.parse::<u32>().ok()).unwrap_or(0)
    };
    let complete = |path: &PathBuf| ["initdb", "postgres", "psql"].iter().all(|name| path.join(name).is_file());
    paths.filter(complete).max_by_key(number).ok_or_else(missing)
}

/// Who the server runs as: it refuses to run as root. None: as we do.
fn server_user() -> Result<Option<(u32, u32)>, String> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let id = |flag: &str| {
        let done = Command::new("id").args([flag, USER]).output().map_err(|error| error.to_string())?;
        let text = String::from_utf8_lossy(&done.stdout);
        text.trim().parse::<u32>().map_err(|_| format!("there is no user {USER}: install the package `postgresql`"))
    };
    Ok(Some((id("-u")?, id("-g")?)))
}

/// The program as that user, ended with the thread that starts it.
fn as_server(program: &Path) -> Result<Command, String> {
    let mut command = Command::new("setpriv");
    if let Some((uid, gid)) = server_user()? {
        command.arg(format!("--reuid={uid}")).arg(format!("--regid={gid}")).arg("--clear-groups");
    }
    command.args(["--pdeathsig", "QUIT", "--"]).arg(program).current_dir("/");
    Ok(command)
}
