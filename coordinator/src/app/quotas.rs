//! What people may hold: looked at before anything more is given, inside the transaction that gives it.

use domain::authorize::Principal;
use domain::environment::Wanted;
use domain::ids::PrincipalId;
use domain::quota::{Fill, Held, Limits, Refused, fill, size};

use super::ledger::{self, Event};
use super::{App, Ctx, environment_life};
use crate::auth::Agent;
use crate::error::{Code, Error, Result};
use crate::store::environment::EnvironmentRow;
use crate::store::{Tx, View};

/// What somebody's environments hold, as their hosts told last. Those that are on their way out do not count.
///
/// # Errors
/// What the store says.
pub async fn held<V: View + ?Sized>(view: &mut V, project: &str, owner: PrincipalId) -> Result<Held> {
    let mut held = Held::default();
    for row in view.environment_list(project, Some(owner)).await? {
        let environment = &row.environment;
        if environment.wanted == Wanted::Up && environment.run.is_none() {
            held.environments = held.environments.saturating_add(1);
            held.memory_bytes = held.memory_bytes.saturating_add(memory(&row));
            held.disk_bytes = held.disk_bytes.saturating_add(row.data.observed.own_bytes);
        }
    }
    Ok(held)
}

/// Bytes of memory that an environment has, as its host told last.
#[must_use]
pub fn memory(row: &EnvironmentRow) -> u64 {
    row.environment.observed.activity.as_ref().map_or(0, |activity| activity.memory_bytes)
}

fn refused(why: Refused) -> Error {
    let code = match why {
        Refused::Environments { .. } => Code::QUOTA_ENVIRONMENTS,
        Refused::Memory { .. } => Code::QUOTA_MEMORY,
        Refused::Disk { .. } => Code::QUOTA_DISK,
    };
    let text = format!(
        "you hold {why}, as `muster serve` allows each developer; `muster env list` shows what each takes, and \
         `muster env down NAME` gives it back"
    );
    Error::new(code, text)
}

/// Whether the caller may hold one environment more, which may use so many bytes of memory.
///
/// # Errors
/// A limit is reached; the message says which.
pub async fn one_more(app: &App, tx: &mut dyn Tx, principal: &Principal, memory: u64) -> Result<()> {
    if app.quotas == Limits::default() {
        return Ok(());
    }
    let held = held(tx, &principal.project, principal.id).await?;
    app.quotas.one_more(&held, memory).map_err(refused)
}

/// Whether more may be kept of this environment's data.
///
/// # Errors
/// Its owner, or the environment itself, holds as much disk as it may.
pub async fn more_data(app: &App, tx: &mut dyn Tx, row: &EnvironmentRow) -> Result<()> {
    its_own(row, disk(row))?;
    if app.quotas.disk_bytes.is_none() {
        return Ok(());
    }
    let held = held(tx, &row.project, row.environment.owner).await?;
    app.quotas.more_data(&held).map_err(refused)
}

/// Whether the environment itself has room on disk under this quota of its stack.
///
/// # Errors
/// It has not.
pub fn its_own(row: &EnvironmentRow, quota: Option<u64>) -> Result<()> {
    let own = row.data.observed.own_bytes;
    let (Fill::Full, Some(limit)) = (fill(own, quota), quota) else { return Ok(()) };
    let name = &row.environment.name;
    let text = format!(
        "{name} holds {} of {} of disk (`x-muster.quota` of its stack file); remove data in it, write a larger quota, or \
         `muster env down {name}`",
        size(own),
        size(limit)
    );
    Err(Error::new(Code::QUOTA_DISK, text))
}

/// The quota of disk that an environment's stack file gives it.
fn disk(row: &EnvironmentRow) -> Option<u64> {
    environment_life::stack(row).ok()?.settings.quota.disk
}

/// Tells once when an environment comes near its quota of disk, and once when it reaches it.
///
/// # Errors
/// What the store says.
pub async fn measured(ctx: &Ctx, tx: &mut dyn Tx, agent: &Agent, row: &EnvironmentRow, before: u64) -> Result<()> {
    let own = row.data.observed.own_bytes;
    let Some(limit) = (own > before).then(|| disk(row)).flatten() else { return Ok(()) };
    let now = fill(own, Some(limit));
    if now == Fill::Room || fill(before, Some(limit)) >= now {
        return Ok(());
    }
    let (name, id) = (&row.environment.name, row.environment.id);
    let what = if now == Fill::Full { "; reset and snapshot are refused" } else { "" };
    Event::new(ledger::host(&agent.name), "environment.quota", id)
        .scope(id)
        .reason(Code::QUOTA_DISK.code.to_owned())
        .text(format!("{name} holds {} of {} of disk{what}", size(own), size(limit)))
        .append(ctx, tx, &row.project)
        .await?;
    Ok(())
}
