//! Settings of `muster serve`: a file, under environment variables, under flags.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use domain::quota::Limits;
use serde::Deserialize;

use crate::store::retention::Keep;

/// How the log is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// What `muster serve` runs with.
#[derive(Clone, Debug)]
pub struct Config {
    /// Folder of everything that is kept.
    pub state_dir: PathBuf,
    /// Where gRPC is served.
    pub listen: SocketAddr,
    /// Where `/healthz` is served.
    pub http_listen: SocketAddr,
    /// `postgres://…`; none: SQLite in the state directory. May hold a password: never shown.
    pub database_url: Option<Secret>,
    /// Further names and addresses of this coordinator, for its certificate.
    pub names: Vec<String>,
    /// For how long things are kept after they ended.
    pub keep: Keep,
    /// The largest archive of a build, in bytes.
    pub max_archive_bytes: u64,
    /// The largest log of a run, in bytes.
    pub max_log_bytes: u64,
    /// Connections open at once.
    pub max_connections: usize,
    /// What each developer may hold.
    pub quotas: Limits,
    /// How the log is written.
    pub log_format: LogFormat,
    /// What is logged: `info`, `coordinator=debug`, …
    pub log: String,
}

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(secret)")
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("E_CONFIG_FILE: {}: {why}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's words.
        why: std::io::Error,
    },
    /// The file is not TOML, or has an unknown key or a wrong value.
    #[error("E_CONFIG_FILE: {}: {why}", .path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// Where and what.
        why: String,
    },
    /// A value is out of its range.
    #[error("E_CONFIG_VALUE: {key}: {why}")]
    Value {
        /// The key.
        key: &'static str,
        /// Why not.
        why: String,
    },
}

/// Flags of `muster serve`; each but `--config` is also a key of the file and an environment variable.
#[derive(Args, Clone, Debug, Default)]
pub struct Flags {
    /// Configuration file (TOML)
    #[arg(long, env = "MUSTER_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Folder of everything that is kept [default: /var/lib/muster]
    #[arg(long, env = "MUSTER_STATE_DIR", value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Where gRPC is served [default: 0.0.0.0:7443]
    #[arg(long, env = "MUSTER_LISTEN", value_name = "ADDR:PORT")]
    pub listen: Option<SocketAddr>,
    /// Where /healthz is served [default: 127.0.0.1:7480]
    #[arg(long, env = "MUSTER_HTTP_LISTEN", value_name = "ADDR:PORT")]
    pub http_listen: Option<SocketAddr>,
    /// Further names and addresses of this coordinator, for its certificate
    #[arg(long, env = "MUSTER_NAMES", value_name = "NAME", value_delimiter = ',')]
    pub names: Vec<String>,
    /// The largest archive of a build, in bytes [default: 20 GiB]
    #[arg(long, env = "MUSTER_MAX_ARCHIVE_BYTES", value_name = "BYTES")]
    pub max_archive_bytes: Option<u64>,
    /// The largest log of a run, in bytes [default: 256 MiB]
    #[arg(long, env = "MUSTER_MAX_LOG_BYTES", value_name = "BYTES")]
    pub max_log_bytes: Option<u64>,
    /// Connections open at once [default: 16384]
    #[arg(long, env = "MUSTER_MAX_CONNECTIONS", value_name = "NUMBER")]
    pub max_connections: Option<usize>,
    /// How the log is written [default: text]
    #[arg(long, env = "MUSTER_LOG_FORMAT", value_enum)]
    pub log_format: Option<LogFormat>,
    /// What is logged: info, coordinator=debug, ... [default: info]
    #[arg(long, env = "MUSTER_LOG", value_name = "FILTER")]
    pub log: Option<String>,
    /// postgres://...; no flag, because arguments are seen by everybody on the machine.
    #[arg(skip)]
    pub database_url: Option<Secret>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct File {
    state_dir: Option<PathBuf>,
    listen: Option<SocketAddr>,
    http_listen: Option<SocketAddr>,
    database_url: Option<String>,
    names: Option<Vec<String>>,
    max_archive_bytes: Option<u64>,
    max_log_bytes: Option<u64>,
    max_connections: Option<usize>,
    log_format: Option<LogFormat>,
    log: Option<String>,
    #[serde(default)]
    retention: Retention,
    #[serde(default)]
    quota: Quota,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Quota {
    environments_per_developer: Option<u32>,
    memory_bytes_per_developer: Option<u64>,
    disk_bytes_per_developer: Option<u64>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Retention {
    events_days: Option<u32>,
    runs_days: Option<u32>,
    rollouts_days: Option<u32>,
    environments_days: Option<u32>,
}

impl Config {
    /// Puts the file named by the flags, the environment and the flags together, the later winning.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn load(mut flags: Flags) -> Result<Self, Error> {
        if flags.database_url.is_none() {
            flags.database_url = std::env::var("MUSTER_DATABASE_URL").ok().filter(|url| !url.is_empty()).map(Secret);
        }
        let file = flags.config.as_deref().map(read).transpose()?.unwrap_or_default();
        Self::merge(file, flags)
    }

    /// Defaults in this folder, for tests and tools.
    #[must_use]
    pub fn in_folder(state_dir: &Path) -> Self {
        Self {
            state_dir: state_dir.to_owned(),
            listen: SocketAddr::from(([0, 0, 0, 0], 7443)),
            http_listen: SocketAddr::from(([127, 0, 0, 1], 7480)),
            database_url: None,
            names: Vec::new(),
            keep: Keep::default(),
            max_archive_bytes: 20 << 30,
            max_log_bytes: 256 << 20,
            max_connections: 16_384,
            quotas: Limits::default(),
            log_format: LogFormat::Text,
            log: "info".to_owned(),
        }
    }

    fn merge(file: File, flags: Flags) -> Result<Self, Error> {
        let default = Self::in_folder(Path::new("/var/lib/muster"));
        let names = if flags.names.is_empty() { file.names.unwrap_or_default() } else { flags.names };
        for name in &names {
            let good = name.len() <= 253 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b".-:_".contains(&b));
            if !good || name.is_empty() {
                return Err(Error::Value { key: "names", why: format!("{name:?} is not a host name or an address") });
            }
        }
        Ok(Self {
            state_dir: flags.state_dir.or(file.state_dir).unwrap_or(default.state_dir),
            listen: flags.listen.or(file.listen).unwrap_or(default.listen),
            http_listen: flags.http_listen.or(file.http_listen).unwrap_or(default.http_listen),
            database_url: flags.database_url.or(file.database_url.map(Secret)),
            names,
            keep: keep(&file.retention)?,
            max_archive_bytes: flags.max_archive_bytes.or(file.max_archive_bytes).unwrap_or(default.max_archive_bytes),
            max_log_bytes: flags.max_log_bytes.or(file.max_log_bytes).unwrap_or(default.max_log_bytes),
            max_connections: flags.max_connections.or(file.max_connections).unwrap_or(default.max_connections).max(1),
            quotas: Limits {
                environments: file.quota.environments_per_developer,
                memory_bytes: file.quota.memory_bytes_per_developer,
                disk_bytes: file.quota.disk_bytes_per_developer,
            },
            log_format: flags.log_format.or(file.log_format).unwrap_or(default.log_format),
            log: flags.log.or(file.log).unwrap_or(default.log),
        })
    }
}

fn keep(retention: &Retention) -> Result<Keep, Error> {
    let mut keep = Keep::default();
    let fields = [
        ("retention.events_days", retention.events_days, &mut keep.events),
        ("retention.runs_days", retention.runs_days, &mut keep.runs),
        ("retention.rollouts_days", retention.rollouts_days, &mut keep.rollouts),
        ("retention.environments_days", retention.environments_days, &mut keep.environments),
    ];
    for (key, days, field) in fields {
        match days {
            None => {}
            Some(days @ 1..=3650) => *field = Duration::from_secs(u64::from(days) * 86_400),
            Some(days) => return Err(Error::Value { key, why: format!("{days} is not 1 to 3650 days") }),
        }
    }
    Ok(keep)
}

fn read(path: &Path) -> Result<File, Error> {
    let text = fs::read_to_string(path).map_err(|why| Error::File { path: path.to_owned(), why })?;
    toml::from_str(&text).map_err(|why| Error::Content { path: path.to_owned(), why: why.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> File {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let flags = Flags { listen: Some(([127, 0, 0, 1], 1).into()), ..Flags::default() };
        let text = "listen = '0.0.0.0:2'\nstate_dir = '/srv/muster'\n[retention]\nevents_days = 30";
        let config = Config::merge(file(text), flags).unwrap();
        assert_eq!(config.listen, ([127, 0, 0, 1], 1).into());
        assert_eq!(config.state_dir, Path::new("/srv/muster"));
        assert_eq!(config.http_listen, ([127, 0, 0, 1], 7480).into());
        assert_eq!(config.keep.events, Duration::from_secs(30 * 86_400));
    }

    #[test]
    fn unknown_keys_and_wrong_values_are_refused() {
        for text in ["listn = '0.0.0.0:2'", "listen = 'here'", "[retention]\nevents = 3"] {
            assert!(toml::from_str::<File>(text).is_err(), "{text}");
        }
        assert!(Config::merge(file("[retention]\nevents_days = 0"), Flags::default()).is_err());
        assert!(Config::merge(file("names = ['a b']"), Flags::default()).is_err());
    }

    #[test]
    fn the_database_address_is_not_shown() {
        let config =
            Config { database_url: Some(Secret("postgres://u:pw@h/d".into())), ..Config::in_folder(Path::new("x")) };
        assert!(!format!("{config:?}").contains("pw"));
    }
}
