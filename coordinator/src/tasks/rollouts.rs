//! Moves rollouts. [`turn`] is one look at one target, without waiting: the simulator calls it.

use std::collections::BTreeSet;
use std::time::Duration;

use domain::ids::RolloutId;
use domain::time::Timestamp;

use crate::app::Ctx;
use crate::app::rollout_turn::{self, Turn};
use crate::error::{Error, Result};
use crate::grpc::Api;

/// Even when nobody wakes the loop.
const EVERY: Duration = Duration::from_secs(2);

/// Ids of the rollouts that have something to do, oldest first.
///
/// # Errors
/// What the store says.
pub async fn turning(ctx: &Ctx) -> Result<Vec<RolloutId>> {
    ctx.store.read(|view| Box::pin(async move { Ok::<_, Error>(view.rollout_list_turning().await?) })).await
}

/// Moves one rollout as far as it can go now; see [`rollout_turn::turn`].
///
/// # Errors
/// What the store says.
pub async fn turn(ctx: &Ctx, id: RolloutId, expected: bool) -> Result<Option<Turn>> {
    rollout_turn::turn(ctx, id, expected).await
}

/// Looks until the coordinator stops.
pub async fn run(api: Api) {
    let mut known = BTreeSet::new();
    let mut woken = false;
    loop {
        let looked = look(&api, &mut known, woken).await.map(|wake_at| {
            let until = wake_at.map_or(EVERY, |at| at.since(api.app.now()));
            until.clamp(Duration::from_millis(1), EVERY)
        });
        let pause = super::rest("rollouts", looked);
        woken = tokio::select! {
            () = api.app.stopping.cancelled() => return,
            () = api.sessions.rollouts_woken() => true,
            () = tokio::time::sleep(pause) => false,
        };
    }
}

/// One look at all rollouts. Answers when to look again at the latest.
async fn look(api: &Api, known: &mut BTreeSet<RolloutId>, woken: bool) -> Result<Option<Timestamp>> {
    if api.sessions.stale().is_some() {
        return Ok(None);
    }
    let mut wake_at: Option<Timestamp> = None;
    let mut open: BTreeSet<RolloutId> = turning(&api.app).await?.into_iter().collect();
    let mut changed = true;
    // One rollout's end is another's turn.
    while changed {
        changed = false;
        for id in open.clone() {
            let Some(turn) = turn(&api.app, id, woken).await? else {
                open.remove(&id);
                continue;
            };
            changed |= turn.changed && turn.state.is_terminal();
            if let Some(at) = turn.wake_at {
                wake_at = Some(wake_at.map_or(at, |known| known.min(at)));
            }
            api.sessions.set_orders(id, turn.orders);
            if turn.changed {
                api.sessions.changed();
            }
        }
    }
    for ended in known.difference(&open) {
        api.sessions.set_orders(*ended, Vec::new());
    }
    *known = open;
    Ok(wake_at)
}
