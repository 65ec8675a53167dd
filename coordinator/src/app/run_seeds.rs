//! The seed that a run's environment begins with. Only its host knows the stack at the commit that is tested: it tells which
//! seed that names, and is answered with the version that was found, once that lies there.

use std::collections::BTreeSet;

use domain::authorize::{Grant, Principal, Role, Scope};
use domain::ids::{HostId, RunId, SeedId};
use domain::run::{RunSeed, RunState};
use domain::seed::{Begin, Place, SeedCopy, SeedState};
use domain::stack::SeedRef;

use super::environment_data::beginning;
use super::{Ctx, seed_copies, text};
use crate::error::{Code, Error, Result};
use crate::store::run::RunRow;
use crate::store::{Tx, View};

/// So many of an app's last runs are looked at for the seed that the next one will probably have.
const LOOKED_AT: u32 = 20;

/// What a host is told about the data of a run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Told {
    /// It begins with a seed that lies there.
    Begins {
        /// Its address.
        address: String,
        /// What the data begins with, as in the order of an environment.
        from: String,
    },
    /// It does not begin: reason code and text.
    Refused(String, String),
}

/// What the run's host is to be told now; none: nothing yet.
pub(super) async fn told<V: View + ?Sized>(view: &mut V, row: &RunRow, host: HostId) -> Result<Option<Told>> {
    if let Some((code, why)) = &row.run.reason {
        return Ok(Some(Told::Refused(code.clone(), why.clone())));
    }
    let Some(seed) = &row.run.seed else { return Ok(None) };
    if !lies_on(view, seed.id, host).await? {
        return Ok(None);
    }
    Ok(Some(Told::Begins { address: seed.address.clone(), from: Begin::Seed(seed.digest.clone()).to_string() }))
}

async fn lies_on<V: View + ?Sized>(view: &mut V, seed: SeedId, host: HostId) -> Result<bool> {
    let home = view.seed_get(seed).await?;
    if home.is_some_and(|row| row.seed.host == host && row.seed.state == SeedState::Ready) {
        return Ok(true);
    }
    let copy = view.seed_copy_get(seed, Place::Host(host)).await?;
    Ok(copy.is_some_and(|row| row.copy.state == SeedState::Ready))
}

fn scope_key(id: RunId) -> String {
    format!("run/{id}/scope")
}

/// Remembers how far the token reaches that asked for the run: its seed may be no other than that token could read.
pub(super) async fn remember(tx: &mut dyn Tx, principal: &Principal, run: RunId) -> Result<()> {
    if principal.grant.scope != Scope::Project {
        tx.meta_put(&scope_key(run), "app").await?;
    }
    Ok(())
}

async fn owner<V: View + ?Sized>(view: &mut V, row: &RunRow) -> Result<Principal> {
    let found = view.principal_get(row.run.owner).await?;
    let name = found.ok_or_else(|| Error::internal(format!("the run {} has no owner", row.run.id)))?.name;
    let narrow = view.meta_get(&scope_key(row.run.id)).await?.is_some();
    let scope = if narrow { Scope::App(row.run.app.clone()) } else { Scope::Project };
    let grant = Grant { role: Role::Developer, scope };
    Ok(Principal { id: row.run.owner, name, project: row.project.clone(), grant })
}

/// The host asks for the seed that its stack names: it is found once, and brought there. What cannot be had ends the run,
/// when its host was told so. The caller stores the row.
pub(super) async fn ask(ctx: &Ctx, tx: &mut dyn Tx, row: &mut RunRow, asked: &str) -> Result<()> {
    let Some(host) = row.run.host else { return Ok(()) };
    if row.run.seed.is_some() || row.run.reason.is_some() {
        return Ok(());
    }
    match found(ctx, tx, row, asked, host).await {
        Ok(seed) => row.run.seed = Some(seed),
        Err(why) if is_refusal(why.code) => {
            let text = format!("the seed of its stack: {}", why.text);
            row.run.reason = Some((why.code.code.to_owned(), text::line(&text, 1000)));
        }
        Err(why) => return Err(why),
    }
    Ok(())
}

fn is_refusal(code: Code) -> bool {
    [Code::FIELD, Code::PERMISSION_DENIED, Code::SEED_ELSEWHERE, Code::SEED_STATE, Code::SEED_UNKNOWN].contains(&code)
}

async fn found(ctx: &Ctx, tx: &mut dyn Tx, row: &RunRow, asked: &str, host: HostId) -> Result<RunSeed> {
    let Some(seed) = SeedRef::parse(asked) else {
        return Err(Error::new(Code::FIELD, format!("{:?} names no seed", text::line(asked, 100))));
    };
    let owner = owner(tx, row).await?;
    let begin = beginning(tx, &owner, "", Some(&seed)).await?;
    let unmade = || Error::internal("a seed was found and is none");
    let begin = begin.ok_or_else(unmade)?;
    seed_copies::bring(ctx, tx, &begin.row, host).await?;
    let digest = begin.row.seed.digest.clone().ok_or_else(unmade)?;
    Ok(RunSeed { id: begin.row.seed.id, address: begin.address, digest })
}

/// What a run waits for while its seed is on the way.
pub(super) async fn waiting<V: View + ?Sized>(view: &mut V, row: &RunRow) -> Result<Option<String>> {
    let (Some(seed), Some(host)) = (&row.run.seed, row.run.host) else { return Ok(None) };
    if row.run.state > RunState::Preparing || lies_on(view, seed.id, host).await? {
        return Ok(None);
    }
    let how_far = seed_copies::how_far(view, seed.id, host).await?.unwrap_or_default();
    Ok(Some(format!("bringing {} to its host: {how_far}", seed.address)))
}

/// Runs that have not ended and need the seed.
pub(super) async fn users<V: View + ?Sized>(view: &mut V, seed: SeedId) -> Result<Vec<RunRow>> {
    let open = view.run_list_open().await?.into_iter();
    Ok(open.filter(|row| row.run.seed.as_ref().is_some_and(|one| one.id == seed)).collect())
}

/// Runs that wait for a copy end with it.
pub(super) async fn fail(tx: &mut dyn Tx, copy: &SeedCopy, host: HostId) -> Result<()> {
    let (code, why) = copy.reason.clone().unwrap_or_default();
    for mut row in tx.run_list_of_host(host).await? {
        let waits = row.run.seed.as_ref().is_some_and(|seed| seed.id == copy.seed);
        if waits && row.run.state <= RunState::Preparing && row.run.reason.is_none() {
            row.run.reason = Some((code.clone(), format!("its seed could not be brought to its host: {why}")));
            tx.run_put(&row).await?;
        }
    }
    Ok(())
}

/// The hosts that have the seed with which the last run of the same tests began: there the next one need not wait for it.
pub(super) async fn near<V: View + ?Sized>(ctx: &Ctx, view: &mut V, row: &RunRow) -> Result<BTreeSet<HostId>> {
    let last = view.run_list(&row.project, Some(&row.run.app), LOOKED_AT).await?.into_iter();
    let seed = last.filter(|other| other.run.tests == row.run.tests).find_map(|other| other.run.seed);
    let Some(seed) = seed else { return Ok(BTreeSet::new()) };
    match view.seed_get(seed.id).await? {
        Some(seed) => Ok(seed_copies::lies(ctx, view, &seed).await?.on),
        None => Ok(BTreeSet::new()),
    }
}
