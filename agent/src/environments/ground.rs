//! What an environment stands on: its network, its published ports, and the manifest beside its data.

use std::sync::Arc;

use super::failure::Failure;
use super::plan::{self, Plan};
use crate::engine::adopt;
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

/// Makes the network, or finds it.
///
/// # Errors
/// A foreign network has the name, no addresses are left, or the engine says no.
pub async fn network(host: &Arc<Host>, plan: &Plan) -> Result<(), Failure> {
    let name = plan.network();
    let wanted = adopt::Network { name: &name, labels: plan.labels(host), internal: true };
    Ok(adopt::network(host.engine.as_ref(), &wanted, host.subnets).await?)
}

/// Writes the manifest, durable when this returns: nobody gets credentials that could be forgotten.
///
/// # Errors
/// The disk refuses.
pub async fn manifest(host: &Arc<Host>, plan: &Plan) -> Result<(), Failure> {
    let (pool, manifest) = (host.pool.clone(), plan.manifest.clone());
    let written = tokio::task::spawn_blocking(move || manifest.write(&pool)).await;
    let failed =
        |why: String| Failure::passing("E_POOL", format!("the environment's manifest cannot be written: {why}"));
    written.map_err(|why| failed(why.to_string()))?.map_err(|why| failed(why.to_string()))
}
