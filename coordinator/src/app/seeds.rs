//! Seeds and snapshots: what is there, what hosts have to do for it, and what they tell.

use std::collections::BTreeMap;
use std::fmt;

use domain::authorize::{Action, Principal, Resource, authorize};
use domain::ids::{HostId, SeedId};
use domain::seed::{Seed, SeedAddress, SeedState};
use serde::{Deserialize, Serialize};

use super::ledger::{self, Event};
use super::{App, Ctx, chunks, resolve, run_seeds, seed_copies, text};
use crate::error::{Code, Error, Result};
use crate::store::secret::SecretRow;
use crate::store::seed::SeedRow;
use crate::store::seed_copy::SeedCopyRow;
use crate::store::{Tx, View};

/// The kind under which the stack of a seed is sealed, and the noun that needs its inputs.
pub const SECRET: &str = "seed";

/// A seed with names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SeedView {
    /// The seed.
    pub row: SeedRow,
    /// Its owner's name.
    pub owner: String,
    /// Its host's name; the id where the host is gone.
    pub host: String,
    /// Environments that began with it.
    pub environments: u32,
    /// Copies of it, with the names of their hosts.
    pub copies: Vec<(SeedCopyRow, String)>,
}

impl SeedView {
    /// `NAME@VERSION`, or `OWNER/NAME` for a snapshot.
    #[must_use]
    pub fn address(&self) -> String {
        self.row.seed.address(&self.owner)
    }
}

/// The stack of a seed or snapshot: it can hold passwords, and is stored sealed.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Sealed {
    /// The stack file's text.
    pub stack_file: String,
    /// Its name, for messages.
    pub file: String,
    /// Interpolation variables.
    pub variables: BTreeMap<String, String>,
    /// Texts of the other files that the stack needs.
    pub env_files: BTreeMap<String, String>,
    /// Values of which nothing may be left.
    #[serde(default)]
    pub canaries: Vec<String>,
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealed({}, {} bytes)", self.file, self.stack_file.len())
    }
}

/// What a seed is to [`authorize`].
#[must_use]
pub fn resource(row: &SeedRow) -> Resource {
    Resource::owned(&row.project, row.seed.owner, row.seed.app.as_ref())
}

pub(super) async fn seal(app: &App, tx: &mut dyn Tx, row: &SeedRow, stack: &Sealed) -> Result<()> {
    let id = row.seed.id.to_string();
    let plain = serde_json::to_vec(stack).map_err(Error::internal)?;
    let sealed = app.vault.seal(SECRET, &id, &plain).map_err(Error::internal)?;
    let row = SecretRow { project: row.project.clone(), kind: SECRET.to_owned(), id, sealed, created_at: app.now() };
    tx.secret_put(&row).await?;
    Ok(())
}

pub(super) async fn unseal<V: View + ?Sized>(app: &App, view: &mut V, id: SeedId) -> Result<Option<Sealed>> {
    let id = id.to_string();
    let Some(row) = view.secret_get(SECRET, &id).await? else { return Ok(None) };
    let plain = app.vault.open_sealed(SECRET, &id, &row.sealed).map_err(Error::internal)?;
    serde_json::from_slice(&plain).map(Some).map_err(Error::internal)
}

pub(super) async fn event(
    ctx: &Ctx,
    tx: &mut dyn Tx,
    actor: domain::event::Actor,
    kind: &'static str,
    row: &SeedRow,
    text: &str,
) -> Result<()> {
    let owner = owner_of(tx, row).await?;
    let code = row.seed.reason.as_ref().map(|(code, _)| text::line(code, 80)).unwrap_or_default();
    Event::new(actor, kind, row.seed.id)
        .scope(row.seed.environment.map_or_else(|| row.seed.name.to_string(), |id| id.to_string()))
        .reason(code)
        .text(format!("{} {text}", row.seed.address(&owner)).trim_end())
        .append(ctx, tx, &row.project)
        .await?;
    Ok(())
}

async fn owner_of<V: View + ?Sized>(view: &mut V, row: &SeedRow) -> Result<String> {
    Ok(view.principal_get(row.seed.owner).await?.map(|owner| owner.name.to_string()).unwrap_or_default())
}

pub(super) async fn view_of<V: View + ?Sized>(view: &mut V, row: SeedRow, environments: u32) -> Result<SeedView> {
    let owner = owner_of(view, &row).await?;
    let host = view.host_get(row.seed.host).await?;
    let host = host.map_or_else(|| row.seed.host.to_string(), |host| host.host.name.to_string());
    let mut copies = Vec::new();
    for copy in view.seed_copy_list(row.seed.id).await? {
        let at = view.host_get(copy.copy.host).await?;
        copies.push((copy, at.map(|host| host.host.name.to_string()).unwrap_or_default()));
    }
    Ok(SeedView { row, owner, host, environments, copies })
}

async fn counted<V: View + ?Sized>(view: &mut V, row: SeedRow) -> Result<SeedView> {
    let environments = view.seed_environments(row.seed.id).await?.len();
    view_of(view, row, u32::try_from(environments).unwrap_or(u32::MAX)).await
}

/// The project's seeds; with `snapshots` also the caller's snapshots, and with `all` those of others too.
///
/// # Errors
/// What the store says.
pub async fn list(ctx: &Ctx, principal: &Principal, snapshots: bool, all: bool) -> Result<Vec<SeedView>> {
    let shown = |seed: &Seed| !seed.snapshot || (snapshots && (all || seed.owner == principal.id));
    ctx.store
        .read(|view| {
            Box::pin(async move {
                let mut counts: BTreeMap<SeedId, u32> = BTreeMap::new();
                for row in view.environment_list(&principal.project, None).await? {
                    if let Some(seed) = row.data.seed {
                        *counts.entry(seed).or_default() += 1;
                    }
                }
                let mut found = Vec::new();
                for row in view.seed_list(&principal.project).await? {
                    if shown(&row.seed) && authorize(principal, Action::Read, &resource(&row)).is_ok() {
                        let environments = counts.get(&row.seed.id).copied().unwrap_or(0);
                        found.push(view_of(view, row, environments).await?);
                    }
                }
                Ok(found)
            })
        })
        .await
}

/// One seed or snapshot.
///
/// # Errors
/// There is none, or the caller may not see it.
pub async fn show(ctx: &Ctx, principal: &Principal, given: &str) -> Result<SeedView> {
    ctx.store
        .read(|view| {
            Box::pin(async move {
                let row = resolve::seed(view, principal, given).await?;
                authorize(principal, Action::Read, &resource(&row))?;
                counted(view, row).await
            })
        })
        .await
}

/// Removes a seed or snapshot; its host takes it out of its pool.
///
/// # Errors
/// There is none, an environment began with it, it is still being made, or the caller may not.
pub async fn remove(ctx: &App, principal: &Principal, given: &str) -> Result<SeedView> {
    let view = ctx
        .store
        .write(|tx| {
            Box::pin(async move {
                let mut row = resolve::seed(tx, principal, given).await?;
                authorize(principal, Action::Write, &resource(&row))?;
                one_version(tx, principal, given, &row).await?;
                let address = row.seed.address(&owner_of(tx, &row).await?);
                match row.seed.state {
                    SeedState::Removing | SeedState::Removed => return counted(tx, row).await,
                    SeedState::Making => {
                        let text = format!("{address} is still being made; `muster seed show {address}` says how far");
                        return Err(Error::new(Code::SEED_STATE, text));
                    }
                    SeedState::Failed => end(ctx, &mut row, SeedState::Removed),
                    SeedState::Ready => {
                        unused(tx, &row, &address).await?;
                        // Without its host there is nobody to take it out, and nothing to take it out of.
                        let there = tx.host_get(row.seed.host).await?.is_some();
                        seed_copies::remove(tx, &row).await?;
                        if there && !seed_copies::shared(tx, &row, row.seed.host).await? {
                            row.seed.state = SeedState::Removing;
                            row.seed.detail = "waits for its host".to_owned();
                        } else {
                            end(ctx, &mut row, SeedState::Removed);
                        }
                    }
                }
                row.version = tx.seed_put(&row).await?;
                tx.secret_delete(SECRET, &row.seed.id.to_string()).await?;
                event(ctx, tx, ledger::by(principal), "seed.remove", &row, "").await?;
                counted(tx, row).await
            })
        })
        .await?;
    chunks::sweep(ctx, Some(view.row.seed.id)).await?;
    seed_copies::wake(ctx, view.row.seed.id).await?;
    ctx.wake.host(view.row.seed.host);
    Ok(view)
}

/// Refuses a name without a version when there are several.
async fn one_version(tx: &mut dyn Tx, principal: &Principal, given: &str, row: &SeedRow) -> Result<()> {
    let Some(SeedAddress::Seed(seed)) = SeedAddress::parse(given) else { return Ok(()) };
    if seed.version.is_some() {
        return Ok(());
    }
    let same =
        |other: &&SeedRow| !other.seed.snapshot && other.seed.name == row.seed.name && other.seed.ended_at.is_none();
    let all = tx.seed_list(&principal.project).await?;
    let versions: Vec<&str> = all.iter().filter(same).map(|other| other.seed.version.as_str()).collect();
    if versions.len() < 2 {
        return Ok(());
    }
    let text = format!("{} has the versions {}; write {}@VERSION", seed.name, versions.join(", "), seed.name);
    Err(Error::new(Code::AMBIGUOUS, text))
}

async fn unused(tx: &mut dyn Tx, row: &SeedRow, address: &str) -> Result<()> {
    let users = tx.seed_environments(row.seed.id).await?;
    let runs = run_seeds::users(tx, row.seed.id).await?;
    if users.is_empty() && runs.is_empty() {
        return Ok(());
    }
    let mut names = Vec::new();
    for user in users.iter().take(10) {
        let owner = tx.principal_get(user.environment.owner).await?;
        let owner = owner.map(|owner| owner.name.to_string()).unwrap_or_default();
        names.push(format!("{owner}/{}", user.environment.name));
    }
    names.extend(runs.iter().take(10).map(|run| format!("run {}", run.run.id.short())));
    let all = users.len() + runs.len();
    if all > names.len() {
        names.push(format!("{} more", all - names.len()));
    }
    let text = format!("{address} is what {} began with; take them down first, or wait for runs", names.join(", "));
    Err(Error::new(Code::SEED_IN_USE, text))
}

/// It has ended: its name is free, and it is forgotten some days later.
pub(super) fn end(ctx: &Ctx, row: &mut SeedRow, state: SeedState) {
    row.seed.state = state;
    row.seed.ended_at = Some(ctx.now());
    row.seed.detail.clear();
}

/// Work of a host, as it is ordered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ordered {
    /// The seed.
    pub row: SeedRow,
    /// Its owner's name.
    pub owner: String,
    /// The stack of an import.
    pub stack: Option<Sealed>,
}

/// What a host has to make or remove.
///
/// # Errors
/// What the store says.
pub async fn of_host<V: View + ?Sized>(app: &App, view: &mut V, host: HostId) -> Result<Vec<Ordered>> {
    let mut all = Vec::new();
    for row in view.seed_list_pending(host).await? {
        let import = row.seed.state == SeedState::Making && !row.seed.snapshot;
        let stack = if import { unseal(app, view, row.seed.id).await? } else { None };
        let owner = owner_of(view, &row).await?;
        all.push(Ordered { row, owner, stack });
    }
    Ok(all)
}

/// The seeds of a host that is forgotten are gone with it.
///
/// # Errors
/// It holds some, and `force` is not given.
pub(super) async fn forget_host(
    ctx: &Ctx,
    tx: &mut dyn Tx,
    project: &str,
    host: &domain::host::Host,
    force: bool,
) -> Result<()> {
    let mut held = Vec::new();
    for row in tx.seed_list(project).await? {
        // What is elsewhere too is not lost.
        let lost = row.seed.host == host.id && !row.seed.state.ended();
        if lost && !seed_copies::elsewhere(tx, row.seed.id).await? {
            held.push(row);
        }
    }
    if !force && !held.is_empty() {
        let mut names = Vec::new();
        for row in held.iter().take(10) {
            names.push(row.seed.address(&owner_of(tx, row).await?));
        }
        let text = format!(
            "{} holds {} seeds ({}); `muster seed rm` removes one, and --force gives all up",
            host.name,
            held.len(),
            names.join(", ")
        );
        return Err(Error::new(Code::HOST_IN_USE, text));
    }
    seed_copies::forget_host(tx, host.id).await?;
    for mut row in held {
        let making = row.seed.state == SeedState::Making;
        row.seed.reason = Some(("E_HOST_REMOVED".to_owned(), format!("host {} was removed", host.name)));
        end(ctx, &mut row, if making { SeedState::Failed } else { SeedState::Removed });
        tx.seed_put(&row).await?;
        tx.artifact_ref_delete(SECRET, &row.seed.id.to_string()).await?;
        tx.secret_delete(SECRET, &row.seed.id.to_string()).await?;
    }
    Ok(())
}
