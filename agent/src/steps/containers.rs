//! Containers of a target's processes: their names, what they are made from, and which exist.

use std::collections::BTreeMap;
use std::net::IpAddr;

use domain::ids::ReleaseId;
use domain::name::{Name, TargetRef};
use domain::release::Release;
use sha2::{Digest as _, Sha256};

use crate::engine::{ContainerSpec, Labels, Run, adopt};
use crate::host::Host;
use crate::image;

/// Name of a target's network on this host.
#[must_use]
pub fn network(host: &Host, target: &TargetRef) -> String {
    format!("muster-{}-{}-{}", host.short(), target.app, target.target)
}

/// Name of a target's bridge. It begins as the engine's own do, which firewalls know.
fn bridge(network: &str) -> String {
    format!("br-{}", hex::encode(&Sha256::digest(network)[..6]))
}

/// Addresses for a target's network: old and new processes side by side, and those that check health.
const CONTAINERS: usize = 125;

/// Makes the target's network, or finds it.
///
/// # Errors
/// As the engine says.
pub async fn ensure_network(host: &Host, target: &TargetRef) -> crate::engine::Result<()> {
    let name = network(host, target);
    let labels = Labels { host: host.id.clone(), slot: target.to_string(), part: String::new(), spec: String::new() };
    // With a way out: what a released app needs lies elsewhere.
    let wanted = adopt::Network { name: &name, labels, internal: false, bridge: bridge(&name), containers: CONTAINERS };
    adopt::network(host.engine.as_ref(), &wanted, host.subnets).await
}

/// What a process's container is made from.
#[must_use]
pub fn spec(host: &Host, release: &Release, process: &Name) -> Option<ContainerSpec> {
    let declared = release.processes.get(process)?;
    let mut environment: BTreeMap<String, String> = declared.environment.clone();
    environment.extend(release.config.clone());
    let own = [
        ("MUSTER_RELEASE", release.number.to_string()),
        ("MUSTER_COMMIT", release.commit.to_string()),
        ("MUSTER_HOST", host.name.clone()),
        ("MUSTER_TARGET", release.target.to_string()),
    ];
    environment.extend(own.map(|(key, value)| (key.to_owned(), value)));
    Some(ContainerSpec {
        name: format!("{}-{process}-r{}", network(host, &release.target), release.number),
        host: host.id.clone(),
        slot: release.target.to_string(),
        part: process.to_string(),
        image: image::reference(&release.image)?,
        command: (!declared.command.is_empty()).then(|| declared.command.clone()),
        environment,
        network: network(host, &release.target),
        ports: declared.ports.clone(),
        ..ContainerSpec::default()
    })
}

/// A container of the target that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Existing {
    /// The engine's id.
    pub id: String,
    /// The release.
    pub release: ReleaseId,
    /// The process.
    pub process: Name,
    /// It runs, at this address.
    pub running: Option<Option<IpAddr>>,
}

/// All containers of the target whose release is known.
///
/// # Errors
/// As the engine says.
pub async fn existing(
    host: &Host,
    target: &TargetRef,
    releases: &BTreeMap<ReleaseId, Release>,
) -> crate::engine::Result<Vec<Existing>> {
    let slot = target.to_string();
    let network = network(host, target);
    let mut found = Vec::new();
    for one in host.engine.containers(&host.id).await?.into_iter().filter(|one| one.labels.slot == slot) {
        let Ok(process) = Name::new("process", &one.labels.part) else { continue };
        let number = one.name.rsplit_once("-r").and_then(|(_, number)| number.parse::<u64>().ok());
        let Some(release) = releases.values().find(|release| Some(release.number) == number) else { continue };
        // Somebody may have removed it in between.
        let Some(container) = host.engine.inspect(&one.id).await? else { continue };
        let running = (container.run == Run::Running).then(|| container.addresses.get(&network).copied());
        found.push(Existing { id: one.id, release: release.id, process, running });
    }
    Ok(found)
}
