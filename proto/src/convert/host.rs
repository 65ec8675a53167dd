//! Hosts and their facts.

use domain::host::{Facts, Liveness};
use domain::ids::Fence;

use super::Error;
use crate::v1;

impl From<&Facts> for v1::Facts {
    fn from(facts: &Facts) -> Self {
        Self {
            agent_version: facts.agent_version.clone(),
            boot_id: facts.boot_id.clone(),
            platform: facts.platform.clone(),
            os: facts.os.clone(),
            cpus: facts.cpus,
            memory_bytes: facts.memory_bytes,
            memory_available_bytes: facts.memory_available_bytes,
            disk_bytes: facts.disk_bytes,
            disk_available_bytes: facts.disk_available_bytes,
            engine_version: facts.engine_version.clone(),
            address: facts.address.clone(),
            pool_backend: facts.pool_backend.clone(),
            pool_why: facts.pool_why.clone(),
            pool_total_bytes: facts.pool_total_bytes,
            pool_available_bytes: facts.pool_available_bytes,
            pool_own_bytes: facts.pool_own_bytes,
            pool_shared_bytes: facts.pool_shared_bytes,
            max_environments: facts.max_environments,
            max_environment_bytes: facts.max_environment_bytes,
        }
    }
}

impl From<v1::Facts> for Facts {
    fn from(facts: v1::Facts) -> Self {
        Self {
            agent_version: facts.agent_version,
            boot_id: facts.boot_id,
            platform: facts.platform,
            os: facts.os,
            cpus: facts.cpus,
            memory_bytes: facts.memory_bytes,
            memory_available_bytes: facts.memory_available_bytes,
            disk_bytes: facts.disk_bytes,
            disk_available_bytes: facts.disk_available_bytes,
            engine_version: facts.engine_version,
            address: facts.address,
            pool_backend: facts.pool_backend,
            pool_why: facts.pool_why,
            pool_total_bytes: facts.pool_total_bytes,
            pool_available_bytes: facts.pool_available_bytes,
            pool_own_bytes: facts.pool_own_bytes,
            pool_shared_bytes: facts.pool_shared_bytes,
            max_environments: facts.max_environments,
            max_environment_bytes: facts.max_environment_bytes,
        }
    }
}

impl From<Liveness> for v1::Liveness {
    fn from(liveness: Liveness) -> Self {
        match liveness {
            Liveness::Joined => Self::Joined,
            Liveness::Syncing => Self::Syncing,
            Liveness::Ready => Self::Ready,
            Liveness::Unreachable => Self::Unreachable,
        }
    }
}

impl From<Fence> for v1::Fence {
    fn from(fence: Fence) -> Self {
        Self { incarnation: fence.incarnation, incarnation_id: fence.incarnation_id.to_string(), epoch: fence.epoch }
    }
}

impl TryFrom<v1::Fence> for Fence {
    type Error = Error;

    fn try_from(fence: v1::Fence) -> Result<Self, Error> {
        let incarnation_id = if fence.incarnation_id.is_empty() {
            uuid::Uuid::nil()
        } else {
            uuid::Uuid::try_parse(&fence.incarnation_id).map_err(|why| Error::invalid("fence.incarnation_id", why))?
        };
        Ok(Self { incarnation: fence.incarnation, incarnation_id, epoch: fence.epoch })
    }
}
