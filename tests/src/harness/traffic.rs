//! The demo's client, which works all the time and never retries.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use super::binaries::root;
use super::cluster::Cluster;
use super::condition::{SOON, eventually};
use super::daemon::Daemon;
use super::host::Host;

/// The client at work on the bot's port 8080 of some hosts.
#[derive(Debug)]
pub struct Traffic {
    client: Daemon,
    report: PathBuf,
}

impl Traffic {
    /// Starts it.
    #[must_use]
    pub fn start(cluster: &Cluster, hosts: &[&Host]) -> Self {
        let report = cluster.folder().join("traffic.json");
        let _ = std::fs::remove_file(&report);
        let mut words = vec!["python3".to_owned(), root().join("scripts/traffic.py").to_string_lossy().into_owned()];
        words.extend(["--report".to_owned(), report.to_string_lossy().into_owned()]);
        words.extend(hosts.iter().map(|host| format!("{}=http://{}:8080", host.name, host.address)));
        let mut client = Daemon::new(cluster.folder(), "traffic", words);
        client.start();
        Self { client, report }
    }

    /// The summary so far.
    #[must_use]
    pub fn so_far(&self) -> Value {
        let text = std::fs::read_to_string(&self.report).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// Waits until so many requests of a release were answered on a host.
    pub fn at_least(&self, host: &str, release: &str, count: u64) {
        eventually(SOON, &format!("{count} requests of release {release} on {host}"), || {
            let report = self.so_far();
            let seen = report["hosts"][host]["releases"][release]["requests"].as_u64().unwrap_or(0);
            if seen >= count { Ok(()) } else { Err(report.to_string()) }
        });
    }

    /// Ends it; the summary, and how many requests failed.
    ///
    /// # Panics
    /// It does not end.
    pub fn stop(mut self) -> (Value, u64) {
        let _ = self.client.stop();
        let report = eventually(Duration::from_secs(10), "its last report", || {
            let report = self.so_far();
            if report["hosts"].is_object() { Ok(report) } else { Err(self.client.printed()) }
        });
        let failed = report["hosts"]
            .as_object()
            .map_or(0, |hosts| hosts.values().filter_map(|host| host["failures"].as_u64()).sum());
        (report, failed)
    }

    /// What it printed: each failure with its host and reason.
    #[must_use]
    pub fn printed(&self) -> String {
        self.client.printed()
    }
}
