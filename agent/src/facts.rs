//! What the agent tells about its machine.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use domain::host::Facts;
use sysinfo::{MemoryRefreshKind, RefreshKind, System};

use crate::policy::Policy;
use crate::pool::Pool;

/// Reads facts; keeps what does not change.
#[derive(Debug)]
pub struct Reader {
    state_dir: PathBuf,
    pool: Arc<Pool>,
    base: Facts,
    system: Mutex<Option<System>>,
}

impl Reader {
    /// Reads what does not change while the agent runs.
    #[must_use]
    pub fn new(state_dir: PathBuf, boot_id: String, address: String, pool: Arc<Pool>, policy: &Policy) -> Self {
        let system =
            System::new_with_specifics(RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram()))
                .ok();
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let base = Facts {
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            boot_id,
            platform: platform(),
            os: System::long_os_version().unwrap_or_else(|_| "Linux".to_owned()),
            cpus: u32::try_from(cpus).unwrap_or(u32::MAX),
            memory_bytes: system.as_ref().map_or(0, System::total_memory),
            address,
            pool_backend: pool.kind().word().to_owned(),
            pool_why: pool.why().to_owned(),
            max_environments: policy.max_environments().unwrap_or(0),
            max_environment_bytes: policy.max_environment_bytes().unwrap_or(0),
            ..Facts::default()
        };
        Self { state_dir, pool, base, system: Mutex::new(system) }
    }

    /// The facts now; `engine_version` is empty when the engine does not answer.
    #[must_use]
    pub fn now(&self, engine_version: String) -> Facts {
        let mut facts = self.base.clone();
        facts.engine_version = engine_version;
        if let Ok(mut system) = self.system.lock()
            && let Some(system) = system.as_mut()
        {
            system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
            facts.memory_available_bytes = system.available_memory();
        }
        (facts.disk_bytes, facts.disk_available_bytes) = disk(&self.state_dir);
        let (space, held) = (self.pool.space(), self.pool.measured());
        (facts.pool_total_bytes, facts.pool_available_bytes) = (space.total, space.available);
        (facts.pool_own_bytes, facts.pool_shared_bytes) = (held.own_bytes, held.shared_bytes);
        facts
    }
}

/// Bytes in all and free on the disk under `path`; zero when it cannot be asked.
fn disk(path: &std::path::Path) -> (u64, u64) {
    rustix::fs::statvfs(path).map_or((0, 0), |stat| (stat.f_blocks * stat.f_frsize, stat.f_bavail * stat.f_frsize))
}

/// This machine's platform as images name it, for example `linux/amd64`.
#[must_use]
pub fn platform() -> String {
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    format!("{}/{arch}", std::env::consts::OS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_of_this_machine_are_plausible() {
        let folder = tempfile::tempdir().expect("a folder");
        let pool = Pool::plain(folder.path()).expect("a pool");
        let reader = Reader::new(
            std::env::temp_dir(),
            "boot".to_owned(),
            "127.0.0.1".to_owned(),
            pool,
            &Policy::safe(std::path::Path::new("policy.toml")),
        );
        let facts = reader.now("20.10".to_owned());
        assert!(facts.cpus > 0);
        assert!(facts.memory_bytes > facts.memory_available_bytes);
        assert!(facts.disk_bytes > facts.disk_available_bytes);
        assert!(facts.platform.starts_with("linux/"), "{}", facts.platform);
        assert_eq!(facts.engine_version, "20.10");
        assert_eq!(facts.pool_backend, "copy");
        assert!(facts.pool_total_bytes > facts.pool_available_bytes);
    }
}
