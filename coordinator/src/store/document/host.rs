//! Stored shape of a host's facts.

use domain::host::Facts;

use super::document;

document!(Facts => FactsShape {
    agent_version: String,
    boot_id: String,
    platform: String,
    os: String,
    cpus: u32,
    memory_bytes: u64,
    memory_available_bytes: u64,
    disk_bytes: u64,
    disk_available_bytes: u64,
    engine_version: String,
    address: String,
    #[serde(default)]
    pool_backend: String,
    #[serde(default)]
    pool_why: String,
    #[serde(default)]
    pool_total_bytes: u64,
    #[serde(default)]
    pool_available_bytes: u64,
    #[serde(default)]
    pool_own_bytes: u64,
    #[serde(default)]
    pool_shared_bytes: u64,
    #[serde(default)]
    max_environments: u32,
    #[serde(default)]
    max_environment_bytes: u64,
});
