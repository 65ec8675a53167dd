//! What the agent asks an engine to make.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;
use sha2::{Digest as _, Sha256};

/// Label with the id of the host whose agent made an object.
pub const HOST: &str = "io.muster.host";
/// Label with the environment's id or `APP/TARGET`.
pub const SLOT: &str = "io.muster.slot";
/// Label with the hash of what a container was made from.
pub const SPEC: &str = "io.muster.spec";
/// Label with the service's or process's name.
pub const PART: &str = "io.muster.part";

/// The labels of an object of ours: only what cannot change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Labels {
    /// Id of the host whose agent made it.
    pub host: String,
    /// Environment id or `APP/TARGET`.
    pub slot: String,
    /// Service, or process with its release; empty for networks and volumes.
    pub part: String,
    /// Hash of what it was made from; empty for networks and volumes.
    pub spec: String,
}

impl Labels {
    /// As the engine stores them.
    #[must_use]
    pub fn to_map(&self) -> BTreeMap<String, String> {
        let pairs = [(HOST, &self.host), (SLOT, &self.slot), (PART, &self.part), (SPEC, &self.spec)];
        pairs
            .into_iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(key, value)| (key.to_owned(), value.clone()))
            .collect()
    }

    /// From what the engine stores; none without a host label.
    #[must_use]
    pub fn from_map<'a>(get: impl Fn(&str) -> Option<&'a String>) -> Option<Self> {
        let text = |key: &str| get(key).cloned().unwrap_or_default();
        get(HOST).map(|host| Self { host: host.clone(), slot: text(SLOT), part: text(PART), spec: text(SPEC) })
    }
}

/// Files of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum MountSpec {
    /// A volume by name.
    Volume {
        /// Its name.
        name: String,
        /// Path in the container.
        target: String,
        /// Not writable.
        read_only: bool,
    },
    /// A folder or file of the host.
    Bind {
        /// Path on the host.
        source: PathBuf,
        /// Path in the container.
        target: String,
        /// Not writable.
        read_only: bool,
    },
    /// Memory.
    Tmpfs {
        /// Path in the container.
        target: String,
    },
}

/// What a container is made from. Equal specs have equal hashes.
#[derive(Clone, PartialEq, Eq, Serialize, Default)]
pub struct ContainerSpec {
    /// Its name.
    pub name: String,
    /// Id of this host.
    pub host: String,
    /// Environment id or `APP/TARGET`.
    pub slot: String,
    /// Service or process.
    pub part: String,
    /// Image by name, digest or id.
    pub image: String,
    /// The image's identity, so that a moved tag makes another container.
    pub image_id: String,
    /// Replaces the image's command.
    pub command: Option<Vec<String>>,
    /// Replaces the image's entrypoint.
    pub entrypoint: Option<Vec<String>>,
    /// Environment variables.
    pub environment: BTreeMap<String, String>,
    /// Files.
    pub mounts: Vec<MountSpec>,
    /// The network it is on.
    pub network: String,
    /// Further networks that it joins before its start. Left out where there are none, as below.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub more_networks: Vec<String>,
    /// Names by which others on that network find it.
    pub aliases: Vec<String>,
    /// Container ports, for information.
    pub ports: Vec<u16>,
    /// Working directory.
    pub working_dir: Option<String>,
    /// User.
    pub user: Option<String>,
    /// Signal to stop it with, other than the image's.
    pub stop_signal: Option<String>,
    /// Bytes of memory it may use.
    pub memory: Option<u64>,
    /// Thousandths of a CPU it may use.
    pub milli_cpus: Option<u64>,
    /// An init process reaps its orphans.
    pub init: bool,
    /// The root filesystem is not writable.
    pub read_only: bool,
    /// Bytes of shared memory.
    pub shm_bytes: Option<u64>,
    /// Files of the host that it reads and cannot write: source and path in the container. Left out where there are
    /// none, so that specs of earlier versions keep their hashes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<(PathBuf, String)>,
    /// What its processes may do beyond or below the usual. Left out as above.
    #[serde(skip_serializing_if = "Rights::are_usual")]
    pub rights: Rights,
    /// The control group above its own. No part of what it is made from: it stays adopted where another one is wanted.
    #[serde(skip)]
    pub cgroup_parent: Option<String>,
}

/// What the processes of a container may do beyond or below the usual.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Default)]
pub struct Rights {
    /// Capabilities given back after `cap_drop`.
    pub cap_add: Vec<String>,
    /// Capabilities taken away.
    pub cap_drop: Vec<String>,
    /// Limits by name, soft and hard; -1 means no limit.
    pub ulimits: Vec<(String, i64, i64)>,
    /// Most processes and threads.
    pub pids: Option<u32>,
    /// Lines of `/etc/hosts`: name and address.
    pub extra_hosts: Vec<(String, String)>,
    /// Kernel settings of its own.
    pub sysctls: BTreeMap<String, String>,
    /// Further groups of its user.
    pub groups: Vec<String>,
    /// No rights can be gained, by set-uid programs for example.
    pub no_new_privileges: bool,
}

impl Rights {
    /// Whether nothing is beyond or below the usual.
    #[must_use]
    pub fn are_usual(&self) -> bool {
        *self == Self::default()
    }
}

impl std::fmt::Debug for ContainerSpec {
    /// Without the environment and the command: they hold secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ContainerSpec")
            .field("name", &self.name)
            .field("slot", &self.slot)
            .field("image", &self.image)
            .finish_non_exhaustive()
    }
}

impl ContainerSpec {
    /// 32 hexadecimal digits over everything in it.
    #[must_use]
    pub fn hash(&self) -> String {
        // All maps are sorted, so equal specs are equal texts.
        let text = serde_json::to_vec(self).unwrap_or_default();
        hex::encode(&Sha256::digest(text)[..16])
    }

    /// The labels that a container made from it carries.
    #[must_use]
    pub fn labels(&self) -> Labels {
        Labels { host: self.host.clone(), slot: self.slot.clone(), part: self.part.clone(), spec: self.hash() }
    }
}

/// A bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkSpec {
    /// Its name.
    pub name: String,
    /// Whose it is.
    pub labels: Labels,
    /// Without a way out.
    pub internal: bool,
    /// Its addresses, for example `198.18.4.0/28`.
    pub subnet: String,
    /// Name of the bridge, up to 15 characters. Engines before API 1.44 make a second network of a name, but no second bridge.
    pub bridge: String,
}

/// A volume bound to a folder of the pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeSpec {
    /// Its name.
    pub name: String,
    /// Whose it is.
    pub labels: Labels,
    /// The folder.
    pub folder: PathBuf,
}

/// A volume that has a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FoundVolume {
    /// One of an agent's.
    Labelled(Labels),
    /// An engine was killed while it made it: without labels or options, and empty.
    Unfinished,
    /// Somebody else's.
    Foreign,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_changes_with_the_content_and_not_with_the_order_of_making() {
        let spec = |pairs: &[(&str, &str)]| ContainerSpec {
            environment: pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            ..ContainerSpec::default()
        };
        assert_eq!(spec(&[("A", "1"), ("B", "2")]).hash(), spec(&[("B", "2"), ("A", "1")]).hash());
        assert_ne!(spec(&[("A", "1")]).hash(), spec(&[("A", "2")]).hash());
    }

    #[test]
    fn rights_and_files_count_only_where_there_are_some() {
        let usual = serde_json::to_string(&ContainerSpec::default()).expect("JSON");
        assert!(!usual.contains("rights") && !usual.contains("files"));
        let rights = Rights { pids: Some(5), ..Rights::default() };
        assert_ne!(ContainerSpec { rights, ..ContainerSpec::default() }.hash(), ContainerSpec::default().hash());
    }

    #[test]
    fn debug_shows_no_secret() {
        let mut spec = ContainerSpec::default();
        spec.environment.insert("PASSWORD".to_owned(), "hunter2".to_owned());
        spec.command = Some(vec!["--requirepass".to_owned(), "hunter2".to_owned()]);
        assert!(!format!("{spec:?}").contains("hunter2"));
    }
}
