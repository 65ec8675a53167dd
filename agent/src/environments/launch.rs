//! Starting one service's container, or finding it started.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use domain::stack::MountSource;

use super::failure::Failure;
use super::plan::{self, Plan};
use super::{ground, lay, prepare};
use crate::engine::{ContainerSpec, Run, adopt};
use crate::host::Host;
use crate::parents::Share;
use crate::routes::Route;

/// Between the stop signal and KILL where a service does not say.
pub(super) const GRACE: Duration = Duration::from_secs(10);

/// A container that was started or found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launched {
    /// The engine's id.
    pub id: String,
    /// Its address on the environment's network; none: it has ended already.
    pub address: Option<IpAddr>,
}

/// Adopts or creates the container, starts it unless it runs, and, with `leads`, leads its published ports to it.
///
/// # Errors
/// See the codes of [`Failure`].
pub async fn service(
    host: &Arc<Host>,
    plan: &Arc<Plan>,
    name: &str,
    spec: &ContainerSpec,
    leads: bool,
) -> Result<Launched, Failure> {
    let service = plan.stack.services.get(name);
    // What was granted is looked at again before each create.
    for mount in service.iter().flat_map(|service| &service.mounts) {
        if let MountSource::Folder(relative) = &mount.source {
            prepare::source(host, plan, relative)?;
        }
    }
    host.owners.again(&plan.id).await.map_err(|why| {
        Failure::passing(
            "E_FOLDER_OWNERS",
            format!("the folder of {} cannot be mounted for {name}: {why}", plan.wanted.order.name),
        )
    })?;
    let share = Share::of(plan.stack.settings.quota, plan.is_slot());
    let cgroup_parent = host.parents.parent(host.engine.as_ref(), &plan.id, share).await;
    let spec = &ContainerSpec { cgroup_parent, ..spec.clone() };
    let mut made = adopt::grounded(host.engine.as_ref(), spec, ground::networks(host, plan)).await?;
    if made.run == Run::Running && plan.restart.contains(name) {
        let grace = service.and_then(|service| service.stop_grace_period);
        host.engine.stop(&made.id, grace.unwrap_or(GRACE)).await?;
        made.run = Run::Exited(0);
    }
    if made.run != Run::Running {
        host.failpoints.hit("container.starting");
        made =
            adopt::started(host.engine.as_ref(), spec, &spec.more_networks, made, ground::networks(host, plan)).await?;
    }
    let found = host.engine.inspect(&made.id).await?;
    if spec.cgroup_parent.is_some() {
        if host.parents.notice(&plan.id).is_some() {
            // Version 1 takes no limit below that of a container, and one of those was just made anew.
            host.parents.parent(host.engine.as_ref(), &plan.id, share).await;
        }
        if let Some(pid) = found.as_ref().and_then(|found| found.pid) {
            host.parents.look(&plan.id, name, pid);
        }
    }
    let address = found.and_then(|found| found.addresses.get(&spec.network).copied());
    if let Some(address) = address.filter(|_| leads) {
        lead_all(host, plan, name, address).await?;
    }
    Ok(Launched { id: made.id, address })
}

/// Leads all published ports of a service to it; not while its password is that of a seed.
///
/// # Errors
/// The relay refuses or is silent.
pub async fn lead_all(host: &Arc<Host>, plan: &Plan, name: &str, address: IpAddr) -> Result<(), Failure> {
    if lay::login(host, plan, name).is_some() {
        return Ok(());
    }
    for port in plan.stack.services.get(name).iter().flat_map(|service| &service.ports) {
        lead(host, plan, name, *port, address).await?;
    }
    Ok(())
}

async fn lead(host: &Arc<Host>, plan: &Plan, name: &str, port: u16, address: IpAddr) -> Result<(), Failure> {
    let Some(published) = plan.published(name, port) else { return Ok(()) };
    let route = Route {
        port: published,
        bind: host.listen_address,
        mode: domain::app::Mode::Tcp,
        key: plan::key(&plan.id, name, port),
        release: plan.id.clone(),
        endpoint: SocketAddr::new(address, port),
    };
    Ok(host.routes.set(route).await?)
}

/// Leads the ports that the relay does not lead to what runs.
pub async fn lead_missing(host: &Arc<Host>, plan: &Arc<Plan>, running: Vec<(String, IpAddr)>) {
    let Ok(entries) = host.routes.entries().await else { return };
    for (name, address) in running.into_iter().filter(|(name, _)| lay::login(host, plan, name).is_none()) {
        for port in plan.stack.services.get(&name).iter().flat_map(|service| &service.ports) {
            let endpoint = Some(SocketAddr::new(address, *port));
            let led = |entry: &crate::routes::Entry| {
                entry.key == plan::key(&plan.id, &name, *port)
                    && entry.endpoint == endpoint
                    && entry.confirmed
                    && !entry.held
            };
            if !entries.iter().any(led)
                && let Err(why) = lead(host, plan, &name, *port, address).await
            {
                tracing::warn!(environment = %plan.id, %why, "a published port cannot be led yet");
            }
        }
    }
}
