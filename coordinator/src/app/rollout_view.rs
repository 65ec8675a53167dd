//! Rollouts as people see them, and what `decide` is told.

use std::collections::BTreeMap;

use domain::authorize::{Action, Principal, Resource, authorize};
use domain::ids::ReleaseId;
use domain::name::TargetRef;
use domain::rollout::decide::decide;
use domain::rollout::decision::Decision;
use domain::rollout::progress::{Previous, RolloutState};
use domain::rollout::reports::{HostView, Presence, Reports, TargetView};

use super::{Ctx, resolve};
use crate::auth;
use crate::error::Result;
use crate::store::View;
use crate::store::rollout::RolloutRow;
use crate::store::target::LockRow;

/// A rollout with what is needed to show it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RolloutView {
    /// The rollout.
    pub row: RolloutRow,
    /// Who started it.
    pub actor: String,
    /// Number of the release it replaces.
    pub from: Option<u64>,
    /// The commit it goes to.
    pub commit: String,
    /// Numbers of the releases that members had.
    pub numbers: BTreeMap<ReleaseId, u64>,
    /// What it waits for, or why it ended.
    pub waiting: String,
    /// The target's lock, if one stands.
    pub lock: Option<LockRow>,
    /// When this was looked at.
    pub now: domain::time::Timestamp,
}

/// Puts together what is needed to show a rollout.
///
/// # Errors
/// What the store says.
pub async fn of<V: View + ?Sized>(ctx: &Ctx, view: &mut V, row: RolloutRow) -> Result<RolloutView> {
    let actor = view.principal_get(row.principal).await?.map(|row| row.name.to_string()).unwrap_or_default();
    let mut numbers = BTreeMap::new();
    let previous = row.progress.steps.iter().filter_map(|step| match step.previous {
        Previous::Release(id) => Some(id),
        Previous::Untouched | Previous::Nothing => None,
    });
    for id in previous.chain(row.from) {
        if !numbers.contains_key(&id)
            && let Some(release) = view.release_get(id).await?
        {
            numbers.insert(id, release.release.number);
        }
    }
    let commit =
        view.release_get(row.plan.release).await?.map(|row| row.release.commit.to_string()).unwrap_or_default();
    let lock = view.lock_get(&row.project, &row.plan.target).await?.filter(|lock| lock.lock.until > ctx.now());
    let waiting = look(ctx, view, &row).await?.waiting.to_string();
    let from = row.from.and_then(|id| numbers.get(&id).copied());
    Ok(RolloutView { actor, from, commit, numbers, waiting, lock, now: ctx.now(), row })
}

/// What `decide` would say now; nothing is stored.
///
/// # Errors
/// What the store says.
pub async fn look<V: View + ?Sized>(ctx: &Ctx, view: &mut V, row: &RolloutRow) -> Result<Decision> {
    let reports = reports(ctx, view, row).await?;
    Ok(decide(&row.plan, &row.progress, &reports, ctx.now()))
}

/// What `decide` is told about the world.
///
/// # Errors
/// What the store says.
pub async fn reports<V: View + ?Sized>(ctx: &Ctx, view: &mut V, row: &RolloutRow) -> Result<Reports> {
    let (project, target) = (&row.project, &row.plan.target);
    let target_now = target_view(ctx, view, row).await?;
    if row.progress.state == RolloutState::Queued && target_now.before.is_some() {
        // It waits for its turn, whatever its members do.
        return Ok(Reports { hosts: BTreeMap::new(), target: target_now });
    }
    let executors = view.host_list_of_rollout(row.plan.rollout).await?;
    let executors: BTreeMap<_, _> = executors.iter().map(|host| (host.host.id, auth::presence(ctx, host))).collect();
    let mut hosts = BTreeMap::new();
    for member in &row.plan.members {
        // A host that was removed does not come back.
        let away = Presence::Away { since: row.created_at };
        let presence = executors.get(&member.executor).cloned().unwrap_or(away);
        hosts.insert(member.member, HostView { presence, ..HostView::default() });
    }
    for known in view.member_list(project, target).await? {
        if let Some(host) = hosts.get_mut(&known.host) {
            (host.generation, host.report) = (known.generation, known.report);
        }
    }
    Ok(Reports { hosts, target: target_now })
}

async fn target_view<V: View + ?Sized>(ctx: &Ctx, view: &mut V, row: &RolloutRow) -> Result<TargetView> {
    let (project, target, own) = (&row.project, &row.plan.target, row.plan.rollout);
    let before = if row.progress.state == RolloutState::Queued {
        let active = view.rollout_active(project, target).await?.map(|active| active.plan.rollout);
        match active {
            Some(id) => Some(id),
            None => {
                let first = view.rollout_list_queued(project, target).await?.into_iter().next();
                first.map(|first| first.plan.rollout).filter(|first| *first != own)
            }
        }
    } else {
        None
    };
    let lock = view.lock_get(project, target).await?.filter(|lock| lock.lock.until > ctx.now());
    let locked = lock.filter(|lock| !(row.unlocked && lock.created_at <= row.created_at)).map(|lock| lock.lock);
    let newer_started = row.progress.state.is_terminal() && newer_started(view, project, target, row).await?;
    Ok(TargetView { before, locked, newer_started })
}

async fn newer_started<V: View + ?Sized>(
    view: &mut V,
    project: &str,
    target: &TargetRef,
    row: &RolloutRow,
) -> Result<bool> {
    for newer in view.rollout_list(project, Some(target), 100).await? {
        if newer.plan.rollout == row.plan.rollout {
            return Ok(false);
        }
        let state = newer.progress.state;
        let took = state.is_active()
            || state == RolloutState::Succeeded
            || newer.progress.steps.iter().any(|step| step.touched());
        if took {
            return Ok(true);
        }
    }
    Ok(false)
}

/// One rollout.
///
/// # Errors
/// There is none, or the caller may not see it.
pub async fn show(ctx: &Ctx, principal: &Principal, given: &str) -> Result<RolloutView> {
    ctx.store
        .read(|view| {
            Box::pin(async move {
                let row = resolve::rollout(view, principal, given).await?;
                authorize(principal, Action::Read, &Resource::target(&row.project, &row.plan.target))?;
                of(ctx, view, row).await
            })
        })
        .await
}

/// The last 50 rollouts that the caller may see, newest first, of one target or of all.
///
/// # Errors
/// There is no such target, or the caller may not see it.
pub async fn list(ctx: &Ctx, principal: &Principal, target: &str) -> Result<Vec<RolloutView>> {
    let parsed = match target {
        "" => None,
        given => Some(TargetRef::parse(given)?),
    };
    if let Some(target) = &parsed {
        authorize(principal, Action::Read, &Resource::target(&principal.project, target))?;
    }
    ctx.store
        .read(|view| {
            Box::pin(async move {
                if let Some(target) = &parsed {
                    resolve::target(view, principal, &target.to_string()).await?;
                }
                let mut all = Vec::new();
                for row in view.rollout_list(&principal.project, parsed.as_ref(), 50).await? {
                    if authorize(principal, Action::Read, &Resource::target(&row.project, &row.plan.target)).is_ok() {
                        all.push(of(ctx, view, row).await?);
                    }
                }
                Ok(all)
            })
        })
        .await
}
