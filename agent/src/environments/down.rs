//! Removing everything of an environment.

use std::sync::Arc;
use std::time::Duration;

use domain::ids::EnvironmentId;
use futures::future::try_join_all;
use proto::v1;

use super::failure::Failure;
use super::{data, plan, sleep};
use crate::engine::Listed;
use crate::host::Host;

/// How long programs may take to end; databases get none, their data goes away.
const GRACE: Duration = Duration::from_secs(1);
/// How long a database may take to write everything down.
const CLEAN: Duration = Duration::from_secs(300);

/// Removes containers, network, volumes, routes, ports, data and manifest. Calling again goes on where it stopped.
///
/// # Errors
/// Something could not be removed yet.
pub async fn remove(host: &Arc<Host>, order: &v1::EnvironmentOrder) -> Result<(), Failure> {
    let id: EnvironmentId = order.id.parse().map_err(|why| Failure::lasting("E_ID", format!("{why}")))?;
    let containers = host.engine.containers(&host.id).await?;
    let own = containers.into_iter().filter(|one| one.labels.slot == order.id);
    let own: Vec<Listed> = own.collect();
    // The engine cannot end what is frozen.
    sleep::thaw(host, &own).await?;
    try_join_all(own.into_iter().map(|one| container(host, one))).await?;
    tokio::try_join!(networks(host, &id), volumes(host, &order.id), routes(host, &order.id))?;
    host.parents.remove(&order.id).await;
    host.owners.remove(&order.id).await;
    let (pool, name) = (host.pool.clone(), order.id.clone());
    let removed = tokio::task::spawn_blocking(move || data::remove(&pool, &name)).await;
    let failed = |why: String| Failure::passing("E_POOL", format!("data of {}: {why}", order.id));
    removed.map_err(|why| failed(why.to_string()))?.map_err(Failure::from)
}

/// Stops every container of an environment as its program likes to be stopped; they stay, with their data.
///
/// # Errors
/// One could not be stopped yet.
pub async fn stop(host: &Arc<Host>, id: &str) -> Result<(), Failure> {
    let containers = host.engine.containers(&host.id).await?;
    let running = containers.into_iter().filter(|one| one.labels.slot == id && one.running);
    try_join_all(running.map(|one| async move { host.engine.stop(&one.id, CLEAN).await })).await?;
    Ok(())
}

async fn container(host: &Arc<Host>, one: Listed) -> Result<(), Failure> {
    if one.running && has_sources(host, &one.id).await {
        host.engine.stop(&one.id, GRACE).await?;
    }
    Ok(host.engine.remove(&one.id).await?)
}

/// Whether files of the user are mounted: only then a program's way of ending matters to anybody.
async fn has_sources(host: &Arc<Host>, id: &str) -> bool {
    matches!(host.engine.inspect(id).await, Ok(Some(container)) if container.bound)
}

async fn networks(host: &Arc<Host>, id: &EnvironmentId) -> Result<(), Failure> {
    let short = id.short();
    let remove = async |name: String| -> Result<(), Failure> {
        // Only our own; a foreign one of that name was never used.
        match host.engine.network(&name).await? {
            Some(Some(labels)) if labels.host == host.id && labels.slot == id.to_string() => {
                Ok(host.engine.remove_network(&name).await?)
            }
            _ => Ok(()),
        }
    };
    tokio::try_join!(remove(plan::network(&short)), remove(plan::outside(&short)))?;
    // Only now: until then its containers were on them.
    host.firewall.forget(&short).await;
    Ok(())
}

async fn volumes(host: &Arc<Host>, id: &str) -> Result<(), Failure> {
    let all = host.engine.volumes(&host.id).await?;
    let own = all.into_iter().filter(|(_, labels)| labels.slot == id);
    try_join_all(own.map(|(name, _)| async move { host.engine.remove_volume(&name).await })).await?;
    Ok(())
}

async fn routes(host: &Arc<Host>, id: &str) -> Result<(), Failure> {
    let prefix = format!("env:{id}:");
    for entry in host.routes.entries().await?.iter().filter(|entry| entry.key.starts_with(&prefix)) {
        host.routes.remove(entry.port, &entry.key).await?;
    }
    for (port, key) in host.routes.reservations().await? {
        if key.starts_with(&prefix) {
            host.routes.release(port, &key).await?;
        }
    }
    Ok(())
}
