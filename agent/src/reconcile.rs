//! The loop that looks at everything again, whatever was told or missed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::environments::{Environments, data};
use crate::host::Host;
use crate::steps::Steps;

/// How often.
const EVERY: Duration = Duration::from_secs(10);

/// Looks at everything again and again, for as long as it is polled.
pub async fn keep(host: Arc<Host>, environments: Arc<Environments>, steps: Arc<Steps>) {
    let mut tick = tokio::time::interval_at(tokio::time::Instant::now() + EVERY, EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        host.firewall.check().await;
        environments.wake();
        steps.wake();
        if let Err(why) = sweep(&host, &environments, &steps).await {
            tracing::debug!(%why, "leftovers are looked for later");
        }
    }
}

/// The engine cannot end what is frozen.
async fn sleep_off(host: &Host, one: &crate::engine::Listed) {
    if let Err(why) = crate::environments::thaw(host, std::slice::from_ref(one)).await {
        tracing::warn!(container = %one.name, %why, "a leftover cannot be thawed");
    }
}

/// Removes objects of ours that nothing wants and whose data is gone. What still has data, with a manifest or without,
/// is kept: without an order nobody may decide over it.
///
/// # Errors
/// The engine does not answer.
pub async fn sweep(host: &Host, environments: &Environments, steps: &Steps) -> crate::engine::Result<()> {
    // Without the pool nobody can tell what still has data.
    if let Err(why) = host.pool.check() {
        tracing::error!(code = why.code(), %why, "nothing is swept");
        return Ok(());
    }
    let mut known: BTreeSet<String> = environments.ids();
    known.extend(steps.names());
    known.extend(data::all(&host.pool).into_iter().map(|(id, _)| id));
    // Only slots that are environments: what belongs to a target is removed by its own journal.
    let surplus = |slot: &str| !known.contains(slot) && slot.parse::<domain::ids::EnvironmentId>().is_ok();
    for one in host.engine.containers(&host.id).await? {
        if surplus(&one.labels.slot) {
            tracing::info!(container = %one.name, "removing a leftover");
            sleep_off(host, &one).await;
            host.engine.remove(&one.id).await?;
        }
    }
    for (name, labels) in host.engine.volumes(&host.id).await? {
        if surplus(&labels.slot) {
            host.engine.remove_volume(&name).await?;
        }
    }
    for (name, labels) in host.engine.networks(&host.id).await? {
        if surplus(&labels.slot) {
            host.engine.remove_network(&name).await?;
        }
    }
    Ok(())
}
