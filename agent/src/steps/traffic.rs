//! A target's published ports.

use std::collections::BTreeMap;
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

fn is_own(target: &TargetRef, key: &str) -> bool {
    key.strip_prefix("target:").and_then(|rest| rest.rsplit_once(':')).is_some_and(|(of, _)| of == target.to_string())
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
        if is_own(target, &entry.key) && !keep(entry.port) {
            host.routes.remove(entry.port, &entry.key).await?;
        }
    }
    Ok(())
}

/// The release that all of the target's ports lead to in this boot; none: they lead nowhere, or not to one.
///
/// # Errors
/// The relay is silent.
pub async fn routed(host: &Host, target: &TargetRef) -> Result<Option<ReleaseId>> {
    let entries = host.routes.entries().await?;
    let mut led: Vec<Option<ReleaseId>> = entries
        .iter()
        .filter(|entry| is_own(target, &entry.key))
        .map(|entry| entry.release.parse().ok().filter(|_| entry.confirmed))
        .collect();
    led.dedup();
    Ok(if let [Some(one)] = led.as_slice() { Some(*one) } else { None })
}
