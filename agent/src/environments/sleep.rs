//! Putting an environment's containers to sleep and waking them: hold, freeze, thaw, stop, let go. All may be repeated.

use std::sync::Arc;
use std::time::Duration;

use domain::environment::life::{PortUse, Usage, stop_order};
use domain::time::Timestamp;
use futures::future::{join_all, try_join_all};
use tokio::time::{Interval, MissedTickBehavior};

use super::failure::Failure;
use super::launch::GRACE;
use super::plan::{self, Plan};
use crate::engine::Listed;
use crate::freezer::Boxed;
use crate::host::Host;
use crate::routes::{Entry, Hold, Route};

/// Ticks from one interval on.
pub(super) fn ticks(every: Duration) -> Interval {
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + every, every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// The next tick; never without an interval.
pub(super) async fn next(ticks: &mut Option<Interval>) {
    match ticks {
        Some(ticks) => {
            ticks.tick().await;
        }
        None => std::future::pending().await,
    }
}

/// An environment's containers.
///
/// # Errors
/// The engine does not answer.
pub async fn containers(host: &Host, id: &str) -> Result<Vec<Listed>, Failure> {
    let all = host.engine.containers(&host.id).await?;
    Ok(all.into_iter().filter(|one| one.labels.slot == id).collect())
}

async fn boxed(host: &Host, found: &[Listed]) -> Result<Vec<Boxed>, Failure> {
    let running = found.iter().filter(|one| one.running);
    let looked = try_join_all(running.map(|one| host.engine.inspect(&one.id))).await?;
    Ok(looked.into_iter().flatten().filter_map(|one| Some(Boxed { pid: one.pid?, id: one.id })).collect())
}

/// Thaws those of the containers that run; what is not frozen stays as it is.
///
/// # Errors
/// The engine does not answer, or the kernel says no.
pub async fn thaw(host: &Host, found: &[Listed]) -> Result<(), Failure> {
    let boxed = boxed(host, found).await?;
    let thawed = join_all(boxed.iter().map(|one| host.freezer.thaw(one))).await;
    thawed.into_iter().collect::<Result<(), _>>().map_err(|why| Failure::passing("E_THAW", why.to_string()))
}

/// Freezes all containers of an environment at once. After a failure none is frozen.
///
/// # Errors
/// The engine does not answer, or the kernel says no.
pub async fn freeze(host: &Host, id: &str) -> Result<(), Failure> {
    let boxed = boxed(host, &containers(host, id).await?).await?;
    let frozen = join_all(boxed.iter().map(|one| host.freezer.freeze(one))).await;
    let Err(why) = frozen.into_iter().collect::<Result<(), _>>() else { return Ok(()) };
    join_all(boxed.iter().map(|one| host.freezer.thaw(one))).await;
    Err(Failure::passing("E_FREEZE", why.to_string()))
}

/// Bytes of memory that an environment's containers have.
pub async fn memory(host: &Host, id: &str) -> u64 {
    let Ok(found) = containers(host, id).await else { return 0 };
    let Ok(boxed) = boxed(host, &found).await else { return 0 };
    join_all(boxed.iter().map(|one| host.freezer.memory(one))).await.into_iter().flatten().sum()
}

/// Thaws an environment and stops it, who depends on others before them; its containers stay.
///
/// # Errors
/// The engine does not answer.
pub async fn stop(host: &Host, plan: &Plan) -> Result<(), Failure> {
    let found = containers(host, &plan.id).await?;
    thaw(host, &found).await?;
    for group in stop_order(&plan.stack) {
        let of_group = found.iter().filter(|one| one.running && group.contains(&one.labels.part));
        try_join_all(of_group.map(|one| {
            let grace = plan.stack.services.get(&one.labels.part).and_then(|service| service.stop_grace_period);
            host.engine.stop(&one.id, grace.unwrap_or(GRACE))
        }))
        .await?;
    }
    Ok(())
}

/// The environment's routes as the relay has them.
///
/// # Errors
/// The relay is silent.
pub async fn entries(host: &Host, id: &str) -> Result<Vec<Entry>, Failure> {
    let all = host.routes.entries().await?;
    Ok(all.into_iter().filter(|entry| plan::environment_of(&entry.key) == Some(id)).collect())
}

/// Holds all published ports. `keeps` leaves open connections where they lead.
///
/// # Errors
/// The relay refuses or is silent.
pub async fn hold(host: &Host, plan: &Plan, keeps: bool) -> Result<(), Failure> {
    let known = entries(host, &plan.id).await?;
    for (name, service) in &plan.stack.services {
        for port in &service.ports {
            let Some(published) = plan.published(name, *port) else { continue };
            let before = known.iter().find(|entry| entry.port == published);
            let endpoint = before.filter(|_| keeps).and_then(|entry| entry.endpoint);
            if before.is_some_and(|entry| entry.held && entry.endpoint == endpoint) {
                continue;
            }
            host.routes
                .hold(Hold {
                    port: published,
                    bind: host.listen_address,
                    key: plan::key(&plan.id, name, *port),
                    release: plan.id.clone(),
                    endpoint,
                })
                .await?;
        }
    }
    Ok(())
}

/// Lets held ports go whose endpoint is known: the environment was only frozen.
///
/// # Errors
/// The relay refuses or is silent.
pub async fn let_go(host: &Host, id: &str) -> Result<(), Failure> {
    for entry in entries(host, id).await?.into_iter().filter(|entry| entry.held) {
        let Some(endpoint) = entry.endpoint else { continue };
        host.routes
            .set(Route {
                port: entry.port,
                bind: host.listen_address,
                mode: domain::app::Mode::Tcp,
                key: entry.key,
                release: entry.release,
                endpoint,
            })
            .await?;
    }
    Ok(())
}

/// Closes everything that waits on held ports.
pub async fn refuse(host: Arc<Host>, id: String) {
    let Ok(entries) = entries(&host, &id).await else { return };
    for entry in entries.iter().filter(|entry| entry.held) {
        if let Err(why) = host.routes.refuse_held(entry.port, &entry.key).await {
            tracing::debug!(environment = %id, %why, "what waits is closed later");
        }
    }
}

/// How an environment is used, as far as the relay sees.
///
/// # Errors
/// The relay is silent.
pub async fn usage(host: &Host, id: &str, last_used: Timestamp) -> Result<Usage, Failure> {
    let seen = crate::clock::now();
    let ports = entries(host, id).await?.into_iter().map(|entry| PortUse {
        service: plan::service_of(&entry.key).unwrap_or_default().to_owned(),
        open: entry.connections,
        waiting: entry.waiting,
        last_used: entry.last_used,
        peers: entry.peers.iter().map(ToString::to_string).collect(),
    });
    Ok(Usage { seen, last_used, ports: ports.collect(), transactions: Vec::new(), guests: 0 })
}
