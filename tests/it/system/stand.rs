//! One host of asha's and a folder with a stack file: what tests of stores begin with.

use std::path::PathBuf;

use serde_json::Value;
use tests::harness::call::{Call, Output};
use tests::harness::cluster::Cluster;
use tests::harness::host::Host;

pub struct Stand {
    pub cluster: Cluster,
    pub host: Host,
    pub folder: PathBuf,
}

impl Stand {
    pub fn open(stack: &str) -> Self {
        Self::within(Cluster::start(), stack)
    }

    /// The same in a cluster that began otherwise.
    pub fn within(cluster: Cluster, stack: &str) -> Self {
        let host = cluster.host("box-asha").label("owner", "asha").label("env", "dev").join();
        let folder = cluster.folder().join("stand");
        std::fs::create_dir(&folder).expect("a folder");
        let stand = Self { cluster, host, folder };
        stand.file("compose.yaml", stack);
        stand
    }

    /// Writes a file beside the stack file.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.folder.join(name);
        std::fs::write(&path, content).expect("written");
        path
    }

    pub fn muster(&self, words: &[&str]) -> Call {
        self.cluster.muster(words).by("asha").within(&self.folder).env("MUSTER_AGENT_SOCKET", self.host.socket())
    }

    pub fn show(&self, name: &str) -> Value {
        self.muster(&["env", "show", name]).json()
    }

    /// A connection variable of a service.
    pub fn variable(&self, name: &str, service: &str, variable: &str) -> String {
        let shown = self.show(name);
        let services = shown["services"].as_array().expect("services");
        let service = services.iter().find(|one| one["name"] == service).expect("that service");
        service["variables"][variable].as_str().expect("that variable").to_owned()
    }

    /// Runs a command in a service's container.
    pub fn exec(&self, name: &str, service: &str, command: &[&str]) -> Output {
        let words = [&["env", "exec", "-e", name, service, "--"], command].concat();
        self.muster(&words).run()
    }

    /// The container of a service.
    pub fn container(&self, name: &str, service: &str) -> String {
        let id: String = self.show(name)["id"].as_str().unwrap_or_default().chars().filter(|c| *c != '-').collect();
        format!("muster-{}-{service}", id.get(id.len() - 12..).unwrap_or_default())
    }
}
