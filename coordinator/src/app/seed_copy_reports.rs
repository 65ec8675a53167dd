//! What hosts tell about copies of seeds.

use domain::ids::HostId;
use domain::seed::{Place, SeedState};
use proto::convert::seed::Reported;
use proto::v1::SeedWork;

use super::seed_copies::fail_environments;
use super::{App, ledger, run_seeds, seed_copies, seeds, text};
use crate::auth::Agent;
use crate::error::{Code, Error, Result};
use crate::store::Tx;
use crate::store::seed_copy::SeedCopyRow;

/// Takes in what a host tells about a copy of a seed.
///
/// # Errors
/// What the store says.
pub async fn report(app: &App, agent: &Agent, told: Reported) -> Result<()> {
    let seed = told.id;
    let place = if told.work == SeedWork::Push { Place::Store } else { Place::Host(agent.id) };
    let woken = app
        .store
        .write(|tx| {
            Box::pin(async move {
                let row = tx.seed_copy_get(seed, place).await?.filter(|row| row.copy.host == agent.id);
                let Some(row) = row else { return Ok(Vec::new()) };
                take_in(app, tx, agent, row, told).await
            })
        })
        .await?;
    for host in woken {
        app.wake.host(host);
    }
    Ok(())
}

/// Answers who has something to do now.
async fn take_in(
    app: &App,
    tx: &mut dyn Tx,
    agent: &Agent,
    mut row: SeedCopyRow,
    told: Reported,
) -> Result<Vec<HostId>> {
    let pushed = row.copy.place == Place::Store;
    match (row.copy.state, told.state) {
        (SeedState::Making, SeedState::Making) => {
            row.copy.detail = text::line(&told.detail, 200);
            tx.seed_copy_put(&row).await?;
            Ok(Vec::new())
        }
        (SeedState::Making, SeedState::Ready) if pushed && row.copy.index.is_none() => {
            let why = (Code::SEED_INDEX.code.to_owned(), "its host told an end without an index".to_owned());
            fail(app, tx, agent, row, why).await
        }
        (SeedState::Making, SeedState::Ready) => {
            let copy = &mut row.copy;
            (copy.state, copy.reason, copy.took) = (SeedState::Ready, None, told.took);
            copy.moved = told.moved.min(i64::MAX.unsigned_abs());
            copy.detail.clear();
            tx.seed_copy_put(&row).await?;
            if let Some(seed) = tx.seed_get(row.copy.seed).await? {
                let kind = if pushed { "seed.pushed" } else { "seed.pulled" };
                let text = format!("{} bytes moved", row.copy.moved);
                seeds::event(app, tx, ledger::host(&agent.name), kind, &seed, &text).await?;
            }
            let copies = tx.seed_copy_list(row.copy.seed).await?;
            let mut woken: Vec<HostId> = copies.iter().map(|row| row.copy.host).collect();
            woken.push(agent.id);
            Ok(woken)
        }
        (SeedState::Making, SeedState::Failed) => {
            let (code, why) = told.reason.unwrap_or_default();
            fail(app, tx, agent, row, (text::line(&code, 80), text::line(&why, 1000))).await
        }
        (SeedState::Removing, SeedState::Removed) => {
            tx.seed_copy_delete(row.copy.seed, row.copy.place).await?;
            Ok(Vec::new())
        }
        (SeedState::Removing, SeedState::Failed) => {
            row.copy.reason = told.reason.map(|(code, why)| (text::line(&code, 80), text::line(&why, 1000)));
            tx.seed_copy_put(&row).await?;
            Ok(Vec::new())
        }
        _ => Ok(Vec::new()),
    }
}

async fn fail(
    app: &App,
    tx: &mut dyn Tx,
    agent: &Agent,
    mut row: SeedCopyRow,
    why: (String, String),
) -> Result<Vec<HostId>> {
    row.copy.state = SeedState::Failed;
    row.copy.reason = Some(why.clone());
    row.copy.detail.clear();
    tx.seed_copy_put(&row).await?;
    let pushed = row.copy.place == Place::Store;
    if let Some(seed) = tx.seed_get(row.copy.seed).await? {
        let kind = if pushed { "seed.not_pushed" } else { "seed.not_pulled" };
        seeds::event(app, tx, ledger::host(&agent.name), kind, &seed, &why.1).await?;
    }
    if !pushed {
        fail_environments(app, tx, &row.copy, agent.id).await?;
        run_seeds::fail(tx, &row.copy, agent.id).await?;
        return Ok(vec![agent.id]);
    }
    let mut woken = Vec::new();
    // Who waits for it to come into the store waits in vain.
    for mut other in tx.seed_copy_list(row.copy.seed).await? {
        if let (Place::Host(host), SeedState::Making) = (other.copy.place, other.copy.state) {
            other.copy.state = SeedState::Failed;
            other.copy.reason = Some(why.clone());
            other.copy.detail.clear();
            tx.seed_copy_put(&other).await?;
            fail_environments(app, tx, &other.copy, host).await?;
            run_seeds::fail(tx, &other.copy, host).await?;
            woken.push(host);
        }
    }
    Ok(woken)
}

/// The store's copies of these seeds are not whole any more: they are pushed again when somebody needs them.
///
/// # Errors
/// What the store says.
pub(super) async fn damaged(app: &App, segment: &str, why: &str) -> Result<()> {
    app.store
        .write(|tx| {
            Box::pin(async move {
                for seed in tx.chunk_seeds_of(segment).await? {
                    let Some(mut row) = tx.seed_copy_get(seed, Place::Store).await? else { continue };
                    row.copy.state = SeedState::Failed;
                    row.copy.reason = Some((Code::SEED_CHUNK.code.to_owned(), why.to_owned()));
                    tx.seed_copy_put(&row).await?;
                    if let Some(seed) = tx.seed_get(seed).await? {
                        let actor = domain::event::Actor::Coordinator;
                        seeds::event(app, tx, actor, "seed.not_pushed", &seed, why).await?;
                    }
                }
                tx.chunk_segment_delete(segment).await?;
                Ok::<_, Error>(())
            })
        })
        .await?;
    app.artifacts.remove_path(&super::chunks::segment_path(segment)).await
}

/// The host has to push this seed now.
///
/// # Errors
/// It has not.
pub(super) async fn pushes<V: crate::store::View + ?Sized>(
    view: &mut V,
    host: HostId,
    seed: domain::ids::SeedId,
) -> Result<SeedCopyRow> {
    let row = view.seed_copy_get(seed, Place::Store).await?;
    let row = row.filter(|row| row.copy.host == host && row.copy.state == SeedState::Making);
    row.ok_or_else(|| not_ordered("push"))
}

/// The host has to pull this seed now, and it is in the store.
///
/// # Errors
/// It has not, or it is not.
pub(super) async fn pulls<V: crate::store::View + ?Sized>(
    view: &mut V,
    host: HostId,
    seed: domain::ids::SeedId,
) -> Result<SeedCopyRow> {
    let ordered = seed_copies::of_host(view, host).await?;
    let wanted = |copy: &&domain::seed::SeedCopy| copy.seed == seed && copy.place == Place::Host(host);
    if !ordered.iter().filter(wanted).any(|copy| copy.state == SeedState::Making) {
        return Err(not_ordered("pull"));
    }
    let store = view.seed_copy_get(seed, Place::Store).await?;
    store.ok_or_else(|| not_ordered("pull"))
}

fn not_ordered(what: &str) -> Error {
    Error::new(Code::SEED_NOT_ORDERED, format!("this host has no order to {what} that seed now"))
}
