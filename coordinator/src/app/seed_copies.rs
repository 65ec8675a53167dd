//! Seeds on other hosts than the one that made them: through the coordinator's store, by a host that has the seed and
//! pushes it, and by one that needs it and pulls it.

use std::collections::BTreeSet;

use domain::authorize::{Action, Principal, authorize};
use domain::environment::{EnvironmentState, Wanted};
use domain::host::Liveness;
use domain::ids::{HostId, SeedId};
use domain::seed::{Begin, Place, Seed, SeedCopy, SeedState};

use super::placing::{Wish, choose};
use super::seeds::{self, SeedView};
use super::{App, Ctx, chunks, ledger, resolve};
use crate::error::{Code, Error, Result};
use crate::store::environment::EnvironmentRow;
use crate::store::host::HostRow;
use crate::store::seed::SeedRow;
use crate::store::seed_copy::SeedCopyRow;
use crate::store::{Tx, View};

/// Where a seed can be had.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Lies {
    /// Hosts that have it.
    pub(super) on: BTreeSet<HostId>,
    /// It can be brought to others: it is in the store, or one that has it is heard from.
    pub(super) travels: bool,
}

/// Where the seed lies.
pub(super) async fn lies<V: View + ?Sized>(ctx: &Ctx, view: &mut V, seed: &SeedRow) -> Result<Lies> {
    let copies = view.seed_copy_list(seed.seed.id).await?;
    let mut lies = Lies::default();
    for host in hosts(view, seed, &copies).await? {
        lies.travels |= ctx.liveness(&host) != Liveness::Unreachable;
        lies.on.insert(host.host.id);
    }
    lies.travels |= copies.iter().any(|row| row.copy.place == Place::Store && row.copy.state == SeedState::Ready);
    Ok(lies)
}

/// The hosts that have it, the one that made it first.
async fn hosts<V: View + ?Sized>(view: &mut V, seed: &SeedRow, copies: &[SeedCopyRow]) -> Result<Vec<HostRow>> {
    let home = (seed.seed.state == SeedState::Ready).then_some(seed.seed.host);
    let there = copies.iter().filter(|row| row.copy.state == SeedState::Ready);
    let there = there.filter_map(|row| match row.copy.place {
        Place::Host(host) => Some(host),
        Place::Store => None,
    });
    let mut found = Vec::new();
    for id in home.into_iter().chain(there) {
        found.extend(view.host_get(id).await?);
    }
    Ok(found)
}

/// What an environment waits for before its host is told of it: its seed is still on the way.
///
/// # Errors
/// What the store says.
pub async fn waits<V: View + ?Sized>(view: &mut V, row: &EnvironmentRow) -> Result<Option<SeedCopyRow>> {
    let (Some(seed), Begin::Seed(_)) = (row.data.seed, &row.data.from) else { return Ok(None) };
    if row.environment.wanted != Wanted::Up || row.gone_at.is_some() {
        return Ok(None);
    }
    let copy = view.seed_copy_get(seed, Place::Host(row.environment.host)).await?;
    Ok(copy.filter(|row| row.copy.state != SeedState::Ready))
}

/// How far what an environment waits for is, for people.
pub(super) async fn waiting<V: View + ?Sized>(view: &mut V, row: &EnvironmentRow) -> Result<Option<String>> {
    let Some(copy) = waits(view, row).await? else { return Ok(None) };
    how_far(view, copy.copy.seed, row.environment.host).await
}

/// How far a seed is that is brought to a host, for people; none: it is not under way.
pub(super) async fn how_far<V: View + ?Sized>(view: &mut V, seed: SeedId, host: HostId) -> Result<Option<String>> {
    let copy = view.seed_copy_get(seed, Place::Host(host)).await?;
    let Some(copy) = copy.filter(|row| row.copy.state == SeedState::Making) else { return Ok(None) };
    let store = view.seed_copy_get(seed, Place::Store).await?;
    let Some(store) = store.filter(|row| row.copy.state == SeedState::Making) else {
        return Ok(Some(copy.copy.detail));
    };
    let from = view.host_get(store.copy.host).await?;
    let from = from.map_or_else(|| store.copy.host.to_string(), |host| host.host.name.to_string());
    Ok(Some(format!("from {from}: {}", store.copy.detail)))
}

/// Has a seed brought to a host that lacks it, unless that is under way.
///
/// # Errors
/// It is being removed there, or nobody who has it is heard from.
pub(super) async fn bring(ctx: &Ctx, tx: &mut dyn Tx, seed: &SeedRow, to: HostId) -> Result<()> {
    if lies(ctx, tx, seed).await?.on.contains(&to) {
        return Ok(());
    }
    store(ctx, tx, seed).await?;
    let place = Place::Host(to);
    order(ctx, tx, seed, place, to).await
}

/// Has a seed brought into the store, unless that is under way.
async fn store(ctx: &Ctx, tx: &mut dyn Tx, seed: &SeedRow) -> Result<()> {
    let copies = tx.seed_copy_list(seed.seed.id).await?;
    if copies.iter().any(|row| row.copy.place == Place::Store && row.copy.state == SeedState::Ready) {
        return Ok(());
    }
    let hosts = hosts(tx, seed, &copies).await?;
    let heard = hosts.iter().find(|host| ctx.liveness(host) != Liveness::Unreachable);
    let Some(from) = heard else {
        let view = seeds::view_of(tx, seed.clone(), 0).await?;
        let names: Vec<&str> = hosts.iter().map(|host| host.host.name.as_str()).collect();
        let names = if names.is_empty() { "a host that was removed".to_owned() } else { names.join(", ") };
        let text = format!("{} lies on {names}, which is not heard from; start the agent there", view.address());
        return Err(Error::new(Code::SEED_ELSEWHERE, text));
    };
    order(ctx, tx, seed, Place::Store, from.host.id).await
}

async fn order(ctx: &Ctx, tx: &mut dyn Tx, seed: &SeedRow, place: Place, host: HostId) -> Result<()> {
    let Some(digest) = seed.seed.digest.clone() else {
        return Err(Error::internal(format!("the seed {} is ready and has no digest", seed.seed.id)));
    };
    let mut copy = SeedCopy::new(seed.seed.id, place, host, digest, ctx.now());
    "waits for its host".clone_into(&mut copy.detail);
    let before = tx.seed_copy_get(seed.seed.id, place).await?;
    let version = match &before {
        None => 0,
        Some(row) if row.copy.state == SeedState::Removing => {
            let text = "it is being removed from that host; try again when that has ended";
            return Err(Error::new(Code::SEED_STATE, text));
        }
        // Under way, by one that is heard from.
        Some(row) if row.copy.state == SeedState::Making && row.copy.host == host => return Ok(()),
        Some(row) => row.version,
    };
    tx.seed_copy_put(&SeedCopyRow { project: seed.project.clone(), copy, version }).await?;
    Ok(())
}

/// Wakes all hosts that have something to do for copies of the seed.
///
/// # Errors
/// What the store says.
pub async fn wake(app: &App, seed: SeedId) -> Result<()> {
    let copies =
        app.store.read(|view| Box::pin(async move { Ok::<_, Error>(view.seed_copy_list(seed).await?) })).await?;
    for row in copies.iter().filter(|row| row.copy.state.pending()) {
        app.wake.host(row.copy.host);
    }
    Ok(())
}

async fn ready(tx: &mut dyn Tx, principal: &Principal, given: &str) -> Result<SeedRow> {
    let row = resolve::seed(tx, principal, given).await?;
    authorize(principal, Action::Read, &seeds::resource(&row))?;
    if row.seed.state == SeedState::Ready {
        return Ok(row);
    }
    let address = seeds::view_of(tx, row, 0).await?.address();
    let text = format!("{address} is not ready; `muster seed show {address}` says more");
    Err(Error::new(Code::SEED_STATE, text))
}

/// Brings a seed into the store.
///
/// # Errors
/// There is none, it is not ready, nobody who has it is heard from, or the caller may not.
pub async fn push(app: &App, principal: &Principal, given: &str) -> Result<SeedView> {
    let view = app
        .store
        .write(|tx| {
            Box::pin(async move {
                let row = ready(tx, principal, given).await?;
                store(app, tx, &row).await?;
                seeds::event(app, tx, ledger::by(principal), "seed.push", &row, "").await?;
                seeds::view_of(tx, row, 0).await
            })
        })
        .await?;
    wake(app, view.row.seed.id).await?;
    Ok(view)
}

/// Brings a seed to a host: the one named, or the caller's own box.
///
/// # Errors
/// There is no such seed or host, it is not ready, nobody who has it is heard from, or the caller may not.
pub async fn pull(app: &App, principal: &Principal, given: &str, host: &str) -> Result<SeedView> {
    let view = app
        .store
        .write(|tx| {
            Box::pin(async move {
                let row = ready(tx, principal, given).await?;
                let named = if host.is_empty() { None } else { Some(resolve::host(tx, principal, host).await?) };
                let wish = Wish { named, granted: false, memory: 0, seed: None };
                let to = choose(app, tx, principal, &wish).await?;
                bring(app, tx, &row, to.host.id).await?;
                let text = format!("to {}", to.host.name);
                seeds::event(app, tx, ledger::by(principal), "seed.pull", &row, &text).await?;
                seeds::view_of(tx, row, 0).await
            })
        })
        .await?;
    wake(app, view.row.seed.id).await?;
    Ok(view)
}

/// What a host has to do for copies of seeds, now: nobody pulls before everything is in the store.
///
/// # Errors
/// What the store says.
pub async fn of_host<V: View + ?Sized>(view: &mut V, host: HostId) -> Result<Vec<SeedCopy>> {
    let mut all = Vec::new();
    for SeedCopyRow { copy, .. } in view.seed_copy_list_pending(host).await? {
        if copy.state == SeedState::Making && copy.place != Place::Store {
            let store = view.seed_copy_get(copy.seed, Place::Store).await?;
            if store.is_none_or(|row| row.copy.state != SeedState::Ready) {
                continue;
            }
        }
        all.push(copy);
    }
    Ok(all)
}

/// Whether the host has the same data under another name, so that it must stay when this seed goes.
pub(super) async fn shared<V: View + ?Sized>(view: &mut V, seed: &SeedRow, host: HostId) -> Result<bool> {
    let same =
        |other: &Seed| other.id != seed.seed.id && other.digest == seed.seed.digest && other.state == SeedState::Ready;
    for other in view.seed_list(&seed.project).await?.into_iter().filter(|row| same(&row.seed)) {
        let copy = view.seed_copy_get(other.seed.id, Place::Host(host)).await?;
        if other.seed.host == host || copy.is_some_and(|row| !row.copy.state.ended()) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The seed goes: out of the store, and from all hosts that have a copy. See [`chunks::sweep`].
pub(super) async fn remove(tx: &mut dyn Tx, seed: &SeedRow) -> Result<()> {
    let id = seed.seed.id;
    for mut row in tx.seed_copy_list(id).await? {
        let gone = match row.copy.place {
            Place::Store => true,
            Place::Host(host) => tx.host_get(host).await?.is_none() || shared(tx, seed, host).await?,
        };
        if gone {
            tx.seed_copy_delete(id, row.copy.place).await?;
        } else {
            row.copy.state = SeedState::Removing;
            tx.seed_copy_put(&row).await?;
        }
    }
    tx.chunk_ref_delete(id).await?;
    tx.secret_delete(chunks::MANIFEST, &id.to_string()).await?;
    Ok(())
}

/// What lies on a host that is forgotten is gone with it. Answers for a seed that it made whether it is elsewhere too.
pub(super) async fn forget_host(tx: &mut dyn Tx, host: HostId) -> Result<()> {
    for mut row in tx.seed_copy_list_of_host(host).await? {
        match row.copy.place {
            Place::Host(_) => {
                tx.seed_copy_delete(row.copy.seed, row.copy.place).await?;
            }
            Place::Store if row.copy.state == SeedState::Making => {
                row.copy.state = SeedState::Failed;
                row.copy.reason = Some(("E_HOST_REMOVED".to_owned(), "its host was removed".to_owned()));
                tx.seed_copy_put(&row).await?;
            }
            Place::Store => {}
        }
    }
    Ok(())
}

/// Whether a seed is ready anywhere else than on the host that made it.
pub(super) async fn elsewhere<V: View + ?Sized>(view: &mut V, seed: SeedId) -> Result<bool> {
    Ok(view.seed_copy_list(seed).await?.iter().any(|row| row.copy.state == SeedState::Ready))
}

/// An environment that waits for a copy fails with it.
pub(super) async fn fail_environments(ctx: &Ctx, tx: &mut dyn Tx, copy: &SeedCopy, host: HostId) -> Result<()> {
    let (code, why) = copy.reason.clone().unwrap_or_default();
    for mut row in tx.seed_environments(copy.seed).await? {
        if row.environment.host != host || waits(tx, &row).await?.is_none() {
            continue;
        }
        let generation = row.environment.generation;
        let observed = &mut row.environment.observed;
        (observed.generation, observed.state) = (generation, EnvironmentState::Failed);
        observed.reason = Some((code.clone(), format!("its seed could not be brought here: {why}")));
        tx.environment_put(&row).await?;
        ledger::Event::new(domain::event::Actor::Coordinator, "environment.failed", row.environment.id)
            .scope(row.environment.id)
            .reason(&code)
            .text(format!("{} its seed could not be brought here: {why}", row.environment.name))
            .append(ctx, tx, &row.project)
            .await?;
    }
    Ok(())
}
