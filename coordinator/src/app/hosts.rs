//! Machines with an agent.

use std::collections::BTreeMap;

use domain::authorize::{Action, Principal, Resource, authorize};
use domain::environment::EnvironmentState;
use domain::host::Liveness;
use domain::label::Selector;
use domain::name::TargetRef;
use domain::run::{RunState, Verdict};
use domain::step::report::HealthNow;

use super::ledger::{self, Event};
use super::{Ctx, WarmStack, join_tokens, resolve, seeds};
use crate::error::{Code, Error, Result};
use crate::store::host::HostRow;
use crate::store::{Tx, View};

/// A host with what it runs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostView {
    /// The host.
    pub row: HostRow,
    /// Whether it is heard from, now.
    pub liveness: Liveness,
    /// When it was heard from last, as far as known.
    pub seen_at: Option<domain::time::Timestamp>,
    /// Environments on it.
    pub environments: u32,
    /// Runs on it.
    pub runs: u32,
    /// What it runs of targets.
    pub releases: Vec<HostRelease>,
    /// Its warm pool.
    pub warm: Vec<WarmStack>,
}

/// What a host runs of a target.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostRelease {
    /// The target.
    pub target: TargetRef,
    /// The release's number.
    pub number: u64,
    /// Why it does not do what it should.
    pub failing: Option<String>,
}

async fn view_of<V: View + ?Sized>(ctx: &Ctx, view: &mut V, row: HostRow) -> Result<HostView> {
    let environments = view.environment_list_of_host(row.host.id).await?.len();
    let runs = view.run_list_of_host(row.host.id).await?.len();
    let mut releases = Vec::new();
    for member in view.member_list_of_host(row.host.id).await? {
        let Some(report) = member.report else { continue };
        let Some(current) = report.current else { continue };
        if let Some(release) = view.release_get(current).await? {
            let failing = match &report.health {
                HealthNow::Failing(why) => Some(format!("{}: {why}", why.cause.code())),
                HealthNow::Passing | HealthNow::Unknown => None,
            };
            releases.push(HostRelease { target: member.target, number: release.release.number, failing });
        }
    }
    let session = ctx.seen.session(row.host.id);
    let seen_at = session.map(|seen| seen.heard_at).max(row.host.seen_at);
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let liveness = ctx.liveness(&row);
    let warm = ctx.seen.warm(row.host.id);
    Ok(HostView { liveness, seen_at, environments: count(environments), runs: count(runs), releases, warm, row })
}

/// The project's hosts, all or those that a selector matches.
///
/// # Errors
/// The selector is none.
pub async fn list(ctx: &Ctx, principal: &Principal, selector: &str) -> Result<Vec<HostView>> {
    authorize(principal, Action::Read, &Resource::project(&principal.project))?;
    super::text::at_most("selector", selector, 4096)?;
    let selector = match selector.trim() {
        "" => None,
        text => Some(Selector::parse(text).map_err(|why| Error::new(Code::SELECTOR, why.to_string()))?),
    };
    ctx.store
        .read(|view| {
            Box::pin(async move {
                let mut all = Vec::new();
                for row in view.host_list(&principal.project).await? {
                    if selector.as_ref().is_none_or(|selector| selector.matches(&row.host.labels)) {
                        all.push(view_of(ctx, view, row).await?);
                    }
                }
                Ok(all)
            })
        })
        .await
}

/// One host.
///
/// # Errors
/// There is none of this name or id.
pub async fn show(ctx: &Ctx, principal: &Principal, given: &str) -> Result<HostView> {
    authorize(principal, Action::Read, &Resource::project(&principal.project))?;
    ctx.store
        .read(|view| {
            Box::pin(async move {
                let row = resolve::host(view, principal, given).await?;
                view_of(ctx, view, row).await
            })
        })
        .await
}

/// Sets and unsets labels.
///
/// # Errors
/// A label is malformed, there is no such host, or the caller is no admin.
pub async fn label(
    ctx: &Ctx,
    principal: &Principal,
    given: &str,
    set: &BTreeMap<String, String>,
    unset: &[String],
) -> Result<HostView> {
    let set = join_tokens::labels(set)?;
    if set.is_empty() && unset.is_empty() {
        return Err(Error::new(Code::LABELS, "no label to set and none to unset"));
    }
    let view = change(ctx, principal, given, "host.labelled", |row| {
        let mut labels = row.host.labels.clone();
        labels.retain(|key, _| !unset.contains(key));
        labels.extend(set);
        if labels.len() > 64 {
            return Err(Error::new(Code::TOO_LARGE, "a host has at most 64 labels"));
        }
        let shown: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let changed = labels != row.host.labels;
        row.host.labels = labels;
        Ok(changed.then(|| shown.join(",")))
    })
    .await?;
    ctx.wake.runs();
    Ok(view)
}

/// Takes a host out of placement, or back in. Asked twice it changes nothing.
///
/// # Errors
/// There is no such host, or the caller is no admin.
pub async fn drain(ctx: &Ctx, principal: &Principal, given: &str, draining: bool) -> Result<HostView> {
    let kind = if draining { "host.draining" } else { "host.undrained" };
    let view = change(ctx, principal, given, kind, |row| {
        let changed = row.host.draining != draining;
        row.host.draining = draining;
        Ok(changed.then(String::new))
    })
    .await?;
    ctx.wake.runs();
    Ok(view)
}

async fn change<F>(ctx: &Ctx, principal: &Principal, given: &str, kind: &'static str, edit: F) -> Result<HostView>
where
    F: FnOnce(&mut HostRow) -> Result<Option<String>> + Send,
{
    ctx.store
        .write(|tx| {
            Box::pin(async move {
                authorize(principal, Action::Administer, &Resource::project(&principal.project))?;
                let mut row = resolve::host(tx, principal, given).await?;
                if let Some(text) = edit(&mut row)? {
                    row.version = tx.host_put(&row).await?;
                    Event::new(ledger::by(principal), kind, row.host.id)
                        .text(format!("{} {text}", row.host.name).trim_end())
                        .append(ctx, tx, &principal.project)
                        .await?;
                }
                view_of(ctx, tx, row).await
            })
        })
        .await
}

/// Forgets a host: its certificate is worthless from now on. With `force` also when it is reachable or in use;
/// its environments are then gone, and its runs interrupted.
///
/// # Errors
/// There is no such host, it is reachable or in use, or the caller is no admin.
pub async fn remove(ctx: &Ctx, principal: &Principal, given: &str, force: bool) -> Result<()> {
    let id = ctx
        .store
        .write(|tx| {
            Box::pin(async move {
                authorize(principal, Action::Administer, &Resource::project(&principal.project))?;
                let row = resolve::host(tx, principal, given).await?;
                let view = view_of(ctx, tx, row).await?;
                if !force {
                    unused(&view)?;
                }
                let (id, name) = (view.row.host.id, view.row.host.name.clone());
                seeds::forget_host(ctx, tx, &principal.project, &view.row.host, force).await?;
                forget_environments(ctx, tx, &view).await?;
                interrupt_runs(ctx, tx, &view).await?;
                tx.host_delete(id).await?;
                Event::new(ledger::by(principal), "host.removed", id)
                    .text(if force { format!("{name}, by force") } else { name.to_string() })
                    .append(ctx, tx, &principal.project)
                    .await?;
                Ok::<_, Error>(id)
            })
        })
        .await?;
    ctx.wake.host(id);
    ctx.wake.rollouts();
    Ok(())
}

fn unused(view: &HostView) -> Result<()> {
    let name = &view.row.host.name;
    if view.environments > 0 || view.runs > 0 || !view.releases.is_empty() {
        let targets: Vec<String> = view.releases.iter().map(|one| one.target.to_string()).collect();
        let text = format!(
            "{name} has {} environments, {} runs and releases of [{}]; take them away first, or use --force",
            view.environments,
            view.runs,
            targets.join(", ")
        );
        return Err(Error::new(Code::HOST_IN_USE, text));
    }
    if matches!(view.liveness, Liveness::Ready | Liveness::Syncing) {
        let text = format!("{name} is reachable; stop its agent first, or use --force");
        return Err(Error::new(Code::HOST_REACHABLE, text));
    }
    Ok(())
}

async fn forget_environments(ctx: &Ctx, tx: &mut dyn Tx, view: &HostView) -> Result<()> {
    for mut row in tx.environment_list_of_host(view.row.host.id).await? {
        let text = format!("host {} was removed", view.row.host.name);
        row.environment.observed.state = EnvironmentState::Gone;
        row.environment.observed.reason = Some(("E_HOST_REMOVED".to_owned(), text));
        row.gone_at = Some(ctx.now());
        tx.environment_put(&row).await?;
        tx.secret_delete("environment", &row.environment.id.to_string()).await?;
    }
    Ok(())
}

async fn interrupt_runs(ctx: &Ctx, tx: &mut dyn Tx, view: &HostView) -> Result<()> {
    for mut row in tx.run_list_of_host(view.row.host.id).await? {
        let text = format!("host {} was removed while it ran", view.row.host.name);
        row.run.state = RunState::Finished;
        row.run.verdict = Some(Verdict::Interrupted);
        row.run.reason = Some(("E_RUN_INTERRUPTED".to_owned(), text.clone()));
        row.run.finished_at = Some(ctx.now());
        tx.run_put(&row).await?;
        Event::new(domain::event::Actor::Coordinator, "run.finished", row.run.id)
            .scope(&row.run.app)
            .reason("E_RUN_INTERRUPTED")
            .text(text)
            .append(ctx, tx, &row.project)
            .await?;
    }
    Ok(())
}
