//! A target's published ports.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use domain::ids::ReleaseId;
use domain::name::{Name, TargetRef};
use domain::release::Release;

use crate::host::Host;
use crate::routes::{Error, Result, Route};

/// The relay's key of a published process.
#[must_use]
pub fn key(target: &TargetRef, process: &Name) -> String {
    format!("target:{target}:{process}")
}

/// The process of one of the target's own keys.
fn process_of<'a>(target: &TargetRef, key: &'a str) -> Option<&'a str> {
    let (of, process) = key.strip_prefix("target:")?.rsplit_once(':')?;
    (of == target.to_string()).then_some(process)
}

/// Leads every published port of the release to it, and forgets the target's other ports.
///
/// # Errors
/// The relay refuses or is silent; traffic may be led partly.
pub async fn lead(host: &Host, release: &Release, addresses: &BTreeMap<Name, IpAddr>) -> Result<()> {
    for expose in &release.expose {
        let address = addresses.get(&expose.process);
        let port = release.processes.get(&expose.process).and_then(|process| process.ports.first());
        let (Some(address), Some(port)) = (address, port) else {
            let message = format!("{} has no address to lead traffic to", expose.process);
            return Err(Error::Refused { code: "E_NO_ENDPOINT", message });
        };
        let bind = expose.address.as_ref().and_then(|text| text.parse().ok()).unwrap_or(host.listen_address);
        let route = Route {
            port: expose.port,
            bind,
            mode: expose.mode,
            key: key(&release.target, &expose.process),
            release: release.id.to_string(),
            endpoint: SocketAddr::new(*address, *port),
        };
        host.routes.set(route).await?;
    }
    forget(host, &release.target, |port| release.expose.iter().any(|expose| expose.port == port)).await
}

/// Forgets the target's ports, but for those that `keep` says.
///
/// # Errors
/// The relay refuses or is silent.
pub async fn forget(host: &Host, target: &TargetRef, keep: impl Fn(u16) -> bool) -> Result<()> {
    for entry in host.routes.entries().await? {
        if process_of(target, &entry.key).is_some() && !keep(entry.port) {
            host.routes.remove(entry.port, &entry.key).await?;
        }
    }
    Ok(())
}

/// Where a target's ports lead in this boot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Led {
    /// The release that all of them lead to; none: they lead nowhere, or not to one.
    pub release: Option<ReleaseId>,
    /// Where the published processes are, as the relay has it.
    endpoints: BTreeMap<Name, IpAddr>,
}

impl Led {
    /// None of the processes is elsewhere than the relay has it. One that does not run is nowhere.
    #[must_use]
    pub fn agrees(&self, addresses: &BTreeMap<Name, IpAddr>) -> bool {
        self.endpoints.iter().all(|(process, led)| addresses.get(process).is_none_or(|address| address == led))
    }
}

/// Asks the relay where the target's ports lead.
///
/// # Errors
/// The relay is silent.
pub async fn led(host: &Host, target: &TargetRef) -> Result<Led> {
    let entries = host.routes.entries().await?;
    let own = entries.iter().filter_map(|entry| Some((process_of(target, &entry.key)?, entry)));
    let (mut releases, mut endpoints) = (BTreeSet::new(), BTreeMap::new());
    for (process, entry) in own {
        releases.insert(entry.release.parse().ok().filter(|_| entry.confirmed));
        if let (Ok(process), Some(endpoint)) = (Name::new("process", process), entry.endpoint) {
            endpoints.insert(process, endpoint.ip());
        }
    }
    let release = if releases.len() == 1 { releases.into_iter().next().flatten() } else { None };
    Ok(Led { release, endpoints })
}
