//! The agent's settings: a TOML file, and two environment variables for what should not stand in a file.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::firewall::rules::Open;
use crate::pool;
use crate::subnets::Subnets;

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("E_CONFIG: cannot read {path}: {why}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The operating system's answer.
        why: std::io::Error,
    },
    /// The file is not what it should be.
    #[error("E_CONFIG: {path}: {why}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and what.
        why: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    coordinator: Coordinators,
    state_dir: PathBuf,
    join_token_file: Option<PathBuf>,
    engine: Option<String>,
    listen_address: Option<IpAddr>,
    advertise_address: Option<String>,
    ports: Option<String>,
    subnets: Option<String>,
    socket: Option<PathBuf>,
    policy: Option<PathBuf>,
    release_networks: Option<Vec<String>>,
    host_services: Option<Vec<String>>,
    pool: Option<String>,
    pool_floor_bytes: Option<u64>,
    pool_bytes: Option<u64>,
    start_relay: Option<bool>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Coordinators {
    One(String),
    Many(Vec<String>),
}

/// The agent's settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// `HOST:PORT` of each coordinator.
    pub coordinators: Vec<String>,
    /// Where everything the agent keeps lies.
    pub state_dir: PathBuf,
    /// The join secret, for the first start.
    pub join_token: Option<Secret>,
    /// The container engine's Unix socket.
    pub engine: PathBuf,
    /// Where published ports listen.
    pub listen_address: IpAddr,
    /// Where others reach them.
    pub advertise_address: String,
    /// `FIRST-LAST` of automatic ports.
    pub ports: String,
    /// Where networks of environments and targets get their addresses.
    pub subnets: Subnets,
    /// The local socket for directory grants.
    pub socket: PathBuf,
    /// The root-owned file that limits what a coordinator may ask.
    pub policy: PathBuf,
    /// The pool of data.
    pub pool: pool::Settings,
    /// Existing networks of this host that containers of releases join, for what runs outside Muster.
    pub release_networks: Vec<String>,
    /// Ports of this host that environments may reach, for example a resolver's.
    pub host_services: Vec<Open>,
    /// Whether the agent starts the relay when none answers; otherwise a unit of its own does.
    pub start_relay: bool,
}

/// A text that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Config {
    /// Reads `path`; `variable` looks up environment variables (`MUSTER_JOIN_TOKEN`, `MUSTER_AGENT_SOCKET`).
    ///
    /// # Errors
    /// The file cannot be read, has an unknown key, or a value out of its range.
    pub fn read(path: &Path, variable: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).map_err(|why| Error::Read { path: path.to_owned(), why })?;
        let syntax = |why: String| Error::Syntax { path: path.to_owned(), why };
        let raw: Raw = toml::from_str(&text).map_err(|why| syntax(why.to_string()))?;
        let coordinators = match raw.coordinator {
            Coordinators::One(one) => vec![one],
            Coordinators::Many(many) => many,
        };
        if coordinators.is_empty() || coordinators.iter().any(|one| !is_address(one)) {
            return Err(syntax("coordinator: write HOST:PORT, for example muster.example.com:7443".to_owned()));
        }
        if !raw.state_dir.is_absolute() {
            return Err(syntax("state_dir: write an absolute path".to_owned()));
        }
        let join_token = match (variable("MUSTER_JOIN_TOKEN"), raw.join_token_file) {
            (Some(token), _) => Some(Secret(token)),
            // The file goes away once it is spent; a missing one matters only to a host that has not joined.
            (None, Some(file)) => std::fs::read_to_string(file).ok().map(|text| Secret(text.trim().to_owned())),
            (None, None) => None,
        };
        let listen_address = raw.listen_address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let subnets = raw.subnets.as_deref().unwrap_or("198.18.0.0/15");
        let setting = raw.pool.as_deref().unwrap_or("auto");
        let engine = raw.engine.unwrap_or_else(|| "/var/run/docker.sock".to_owned());
        Ok(Self {
            coordinators,
            join_token,
            engine: PathBuf::from(engine.strip_prefix("unix://").unwrap_or(&engine)),
            listen_address,
            advertise_address: raw.advertise_address.unwrap_or_else(|| listen_address.to_string()),
            ports: raw.ports.unwrap_or_else(|| "20000-29999".to_owned()),
            subnets: subnets.parse().map_err(|why| syntax(format!("subnets: {why}")))?,
            socket: variable("MUSTER_AGENT_SOCKET")
                .map(PathBuf::from)
                .or(raw.socket)
                .unwrap_or_else(|| raw.state_dir.join("agent.sock")),
            release_networks: raw.release_networks.unwrap_or_default(),
            start_relay: raw.start_relay.unwrap_or(true),
            host_services: raw
                .host_services
                .unwrap_or_default()
                .iter()
                .map(|port| port.parse())
                .collect::<Result<_, String>>()
                .map_err(|why| syntax(format!("host_services: {why}")))?,
            pool: pool::Settings {
                setting: setting.parse().map_err(|why| syntax(format!("pool: {why}")))?,
                state_dir: raw.state_dir.clone(),
                floor_bytes: raw.pool_floor_bytes,
                image_bytes: raw.pool_bytes,
            },
            policy: raw.policy.unwrap_or_else(|| raw.state_dir.join("policy.toml")),
            state_dir: raw.state_dir,
        })
    }

    /// Where the relay's control socket is.
    #[must_use]
    pub fn relay_socket(&self) -> PathBuf {
        self.state_dir.join("relay.sock")
    }
}

fn is_address(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Config, Error> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("agent.toml");
        std::fs::write(&path, text).expect("written");
        Config::read(&path, |name| (name == "MUSTER_JOIN_TOKEN").then(|| "jt_x".to_owned()))
    }

    #[test]
    fn two_lines_are_enough() {
        let config = read("coordinator = \"localhost:7443\"\nstate_dir = \"/var/lib/muster-agent\"\n").expect("valid");
        assert_eq!(config.listen_address.to_string(), "127.0.0.1");
        assert_eq!(config.socket, Path::new("/var/lib/muster-agent/agent.sock"));
        assert_eq!(config.engine, Path::new("/var/run/docker.sock"));
        assert_eq!(config.pool, pool::Settings::new(config.state_dir.clone(), pool::Setting::Auto));
        assert_eq!(format!("{:?}", config.join_token), "Some(Secret(…))");
    }

    #[test]
    fn unknown_keys_and_bad_values_are_refused() {
        let base = "coordinator = \"localhost:7443\"\nstate_dir = \"/x\"\n";
        for more in [
            "listen = \"x\"",
            "pool = \"zfs\"",
            "pool_bytes = \"1 GB\"",
            "subnets = \"10.0.0.0/30\"",
            "listen_address = \"here\"",
        ] {
            assert!(read(&format!("{base}{more}\n")).is_err(), "{more}");
        }
        for text in [
            "state_dir = \"/x\"",
            "coordinator = \"x\"\nstate_dir = \"/x\"",
            "coordinator = \"x:1\"\nstate_dir = \"x\"",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
