//! What an environment stands on: its network, its published ports, and the manifest beside its data.

use std::io;
use std::sync::Arc;

use super::data::Manifest;
use super::failure::Failure;
use super::plan::{self, Plan};
use crate::engine::{self, adopt};
use crate::firewall::rules;
use crate::host::Host;

/// Allocates every published port; the same ones as before.
///
/// # Errors
/// The relay refuses or is silent.
pub async fn ports(host: &Arc<Host>, plan: &mut Plan) -> Result<(), Failure> {
    for (name, service) in &plan.stack.services {
        for port in &service.ports {
            let key = plan::key(&plan.id, name, *port);
            let published = host.routes.allocate(&key, host.listen_address).await?;
            plan.manifest.ports.insert(format!("{name}:{port}"), published);
        }
    }
    Ok(())
}

/// Addresses beyond one per service: for tests and clients that run beside them.
const SPARE: usize = 6;

/// Makes the networks, or finds them: one without a way out for all services, and one with it for those that ask. The
/// firewall knows their bridges before any container is on them.
///
/// # Errors
/// A foreign network has the name, no addresses are left, or the engine says no.
pub async fn networks(host: &Arc<Host>, plan: &Plan) -> engine::Result<()> {
    let outer = plan.stack.services.values().filter(|service| service.egress).count();
    let make = async |name: String, bridge: String, internal: bool, containers: usize| {
        let labels = plan.labels(host);
        let wanted = adopt::Network { name: &name, labels, internal, bridge, containers: containers + SPARE };
        adopt::network(host.engine.as_ref(), &wanted, host.subnets).await
    };
    let outside = async {
        match outer {
            0 => Ok(()),
            _ => make(plan.outside(), rules::outer(&plan.short), false, outer).await,
        }
    };
    let walled = async {
        host.firewall.add([plan.short.clone()]).await;
        Ok(())
    };
    tokio::try_join!(make(plan.network(), rules::inner(&plan.short), true, plan.most), outside, walled)?;
    Ok(())
}

/// Writes the manifest, durable when this returns: nobody gets credentials that could be forgotten.
///
/// # Errors
/// The disk refuses.
pub async fn manifest(host: &Arc<Host>, plan: &Plan) -> Result<(), Failure> {
    write(host, &plan.manifest, &plan.id).await
}

/// Writes the manifest of any environment, durable when this returns.
///
/// # Errors
/// The disk refuses.
pub async fn write(host: &Arc<Host>, manifest: &Manifest, id: &str) -> Result<(), Failure> {
    let (pool, manifest) = (host.pool.clone(), manifest.clone());
    let written = tokio::task::spawn_blocking(move || manifest.write(&pool)).await.map_err(io::Error::other);
    written.and_then(|done| done).map_err(|why| Failure::at("write the manifest in", &host.pool.environment(id), why))
}
