//! Moving a target's members to a release: what people ask. What follows is in [`super::rollout_turn`].

use std::collections::BTreeMap;

use domain::app::TargetSpec;
use domain::authorize::{Action, Principal, Resource, authorize};
use domain::host::Host;
use domain::ids::RolloutId;
use domain::name::TargetRef;
use domain::policy::{OnNewer, Policy};
use domain::release::{Build, Commit, Release};
use domain::rollout::ask::{self, AskError};
use domain::rollout::plan::{self, Kind, Plan, PlanError};
use domain::rollout::progress::Progress;
use domain::time::Timestamp;

use super::idempotency::{self, Key};
use super::ledger::{self, Event};
use super::rollout_view::{self, RolloutView};
use super::{Ctx, builds, config, overrides, releases, resolve, text};
use crate::error::{Code, Error, Result};
use crate::store::release::ReleaseRow;
use crate::store::rollout::RolloutRow;
use crate::store::target::LockRow;
use crate::store::{Tx, View};

/// What `rollout start` and `rollout plan` ask for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Start {
    /// APP/TARGET
    pub target: String,
    /// The build that was registered last at this commit; or
    pub commit: String,
    /// this build; or
    pub build: String,
    /// this release of the target; or, with none of the three, the build registered last.
    pub release: u64,
    /// Why, for the ledger.
    pub reason: String,
    /// Also when the target is locked.
    pub unlock: bool,
    /// Overrides of the target's policy.
    pub overrides: BTreeMap<String, String>,
}

/// What a start would do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Planned {
    /// The target.
    pub target: TargetRef,
    /// The release to go to.
    pub release: Release,
    /// The release that the target is on.
    pub from: Option<Release>,
    /// Members and waves; or why not.
    pub plan: std::result::Result<Plan, PlanError>,
    /// What differs, for people.
    pub changes: Vec<String>,
    /// A lock that stands.
    pub lock: Option<LockRow>,
}

struct Prepared {
    target: TargetRef,
    spec: TargetSpec,
    release: Release,
    new_release: bool,
    from: Option<Release>,
    policy: Policy,
    lock: Option<LockRow>,
    hosts: Vec<Host>,
}

fn one_subject(ask: &Start) -> Result<()> {
    let given = [!ask.commit.is_empty(), !ask.build.is_empty(), ask.release != 0];
    if given.into_iter().filter(|given| *given).count() > 1 {
        return Err(Error::new(Code::AMBIGUOUS, "give a commit, a build or a release, not several of them"));
    }
    text::one_line("reason", &ask.reason, 500)
}

async fn prepare<V: View + ?Sized>(ctx: &Ctx, view: &mut V, principal: &Principal, ask: &Start) -> Result<Prepared> {
    let (target, app) = resolve::target(view, principal, &ask.target).await?;
    let missing = || Error::internal("a target is gone");
    let spec = app.app.targets.get(&target.target).ok_or_else(missing)?.clone();
    let policy = overrides::apply(&spec.policy, &ask.overrides)?;
    let (release, new_release) = if ask.release == 0 {
        let build = subject(view, principal, &target, ask).await?;
        let config = view.config_newest(&principal.project, &target).await?;
        releases::of(ctx, view, &principal.project, &target, &spec, &build, config.as_ref()).await?
    } else {
        (releases::by_number(view, principal, &target, ask.release).await?.release, false)
    };
    let from = match view.target_get(&principal.project, &target).await?.and_then(|row| row.release) {
        None => None,
        Some(id) => view.release_get(id).await?.map(|row| row.release),
    };
    let lock = view.lock_get(&principal.project, &target).await?.filter(|row| row.lock.until > ctx.now());
    let hosts = hosts(ctx, view, &principal.project).await?;
    Ok(Prepared { target, spec, release, new_release, from, policy, lock, hosts })
}

/// The project's hosts with their liveness of now.
async fn hosts<V: View + ?Sized>(ctx: &Ctx, view: &mut V, project: &str) -> Result<Vec<Host>> {
    let rows = view.host_list(project).await?;
    Ok(rows.into_iter().map(|row| Host { liveness: ctx.liveness(&row), ..row.host }).collect())
}

async fn subject<V: View + ?Sized>(
    view: &mut V,
    principal: &Principal,
    target: &TargetRef,
    ask: &Start,
) -> Result<Build> {
    let app = &target.app;
    if !ask.build.is_empty() {
        let build = builds::by_id(view, principal, &ask.build).await?.row.build;
        if build.app != *app {
            return Err(Error::new(
                Code::BUILD_NOT_FOUND,
                format!("the build {} is of {}, not of {app}", build.id, build.app),
            ));
        }
        return Ok(build);
    }
    let found = if ask.commit.is_empty() {
        view.build_newest(&principal.project, app).await?
    } else {
        let commit = Commit::parse(&ask.commit)?;
        view.build_list_at(&principal.project, app, &commit).await?.into_iter().next()
    };
    found.map(|row| row.build).ok_or_else(|| {
        let at = if ask.commit.is_empty() { String::new() } else { format!(" at {}", text::line(&ask.commit, 64)) };
        Error::new(Code::BUILD_NOT_FOUND, format!("{app} has no build{at}; make one with `muster build register`"))
    })
}

fn planned(id: RolloutId, kind: Kind, prepared: &Prepared) -> std::result::Result<Plan, PlanError> {
    plan::plan(plan::Request {
        rollout: id,
        kind,
        release: &prepared.release,
        members: &prepared.spec.members,
        policy: &prepared.policy,
        hosts: &prepared.hosts,
    })
}

fn preflight(error: &PlanError) -> Error {
    Error::detailed(Code::ROLLOUT_PREFLIGHT, error.code(), error.to_string())
}

/// What a start would do, without doing it.
///
/// # Errors
/// The request is malformed, the target or what shall go there is not there, or the caller may not see it.
pub async fn plan(ctx: &Ctx, principal: &Principal, ask: &Start) -> Result<Planned> {
    let target = TargetRef::parse(&ask.target)?;
    authorize(principal, Action::Read, &Resource::target(&principal.project, &target))?;
    one_subject(ask)?;
    ctx.store
        .read(|view| {
            Box::pin(async move {
                let prepared = prepare(ctx, view, principal, ask).await?;
                let plan = planned(RolloutId::new(ctx.ids.uuid()), Kind::Forward, &prepared);
                let changes = differences(prepared.from.as_ref(), &prepared.release);
                let Prepared { target, release, from, lock, .. } = prepared;
                Ok(Planned { target, release, from, plan, changes, lock })
            })
        })
        .await
}

/// What differs between two releases, for people.
#[must_use]
pub fn differences(from: Option<&Release>, to: &Release) -> Vec<String> {
    let Some(from) = from else { return vec![format!("first release, at {}", to.commit.short())] };
    let mut all = Vec::new();
    if from.build != to.build {
        all.push(format!(
            "build {} -> {} (commit {} -> {})",
            from.build.short(),
            to.build.short(),
            from.commit.short(),
            to.commit.short()
        ));
    }
    all.extend(config::changes(&from.config, &to.config).into_iter().map(|change| format!("config: {change}")));
    if from.expose != to.expose {
        all.push("published ports".to_owned());
    }
    all
}

/// Starts a rollout, or queues it behind the one that has the target.
///
/// # Errors
/// The request is malformed, preflight refuses, the target is locked, or the caller may not.
pub async fn start(ctx: &Ctx, principal: &Principal, ask: &Start, key: Option<&Key>) -> Result<RolloutView> {
    let target = TargetRef::parse(&ask.target)?;
    authorize(principal, Action::Deploy, &Resource::target(&principal.project, &target))?;
    one_subject(ask)?;
    let view = ctx
        .store
        .write(|tx| {
            Box::pin(async move {
                if let Some(made) = idempotency::created(tx, principal, key).await? {
                    let row = resolve::rollout(tx, principal, &made).await?;
                    return rollout_view::of(ctx, tx, row).await;
                }
                let prepared = prepare(ctx, tx, principal, ask).await?;
                if let Some(row) = &prepared.lock {
                    if !ask.unlock {
                        return Err(locked(&prepared.target, row, ctx));
                    }
                    unlock(ctx, tx, principal, row).await?;
                }
                let id = RolloutId::new(ctx.ids.uuid());
                let plan = planned(id, Kind::Forward, &prepared).map_err(|why| preflight(&why))?;
                let row = insert(ctx, tx, principal, plan, &prepared, &ask.reason, ask.unlock).await?;
                idempotency::note(ctx, tx, principal, key, id).await?;
                rollout_view::of(ctx, tx, row).await
            })
        })
        .await?;
    ctx.wake.rollouts();
    Ok(view)
}

fn locked(target: &TargetRef, row: &LockRow, ctx: &Ctx) -> Error {
    let left = row.lock.until.since(ctx.now()).as_secs().div_ceil(60);
    let text = format!(
        "{target} is locked by {}: {}. It ends by itself in {left} m; `muster rollout start --unlock` goes on in spite of it",
        row.lock.holder, row.lock.reason
    );
    Error::new(Code::TARGET_LOCKED, text)
}

async fn unlock(ctx: &Ctx, tx: &mut dyn Tx, principal: &Principal, row: &LockRow) -> Result<()> {
    tx.lock_delete(&row.project, &row.target).await?;
    Event::new(ledger::by(principal), "target.unlocked", &row.target)
        .scope(&row.target)
        .text(format!("was locked by {}: {}", row.lock.holder, row.lock.reason))
        .append(ctx, tx, &row.project)
        .await?;
    Ok(())
}

async fn insert(
    ctx: &Ctx,
    tx: &mut dyn Tx,
    principal: &Principal,
    plan: Plan,
    prepared: &Prepared,
    message: &str,
    unlocked: bool,
) -> Result<RolloutRow> {
    if prepared.new_release {
        let row = ReleaseRow {
            project: principal.project.clone(),
            principal: principal.id,
            release: prepared.release.clone(),
        };
        tx.release_insert(&row).await?;
        Event::new(
            ledger::by(principal),
            "release.created",
            format!("{} {}", prepared.target, prepared.release.number),
        )
        .scope(&prepared.target)
        .text(format!("build {} at {}", prepared.release.build.short(), prepared.release.commit.short()))
        .append(ctx, tx, &principal.project)
        .await?;
    }
    let progress = Progress::queued(plan.members.len());
    // Which of two rollouts is the newer is told by this; a clock that was set back must not turn them round.
    let last = tx.rollout_list(&principal.project, Some(&plan.target), 1).await?.into_iter().next();
    let created_at = last.map_or(ctx.now(), |last| ctx.now().max(Timestamp(last.created_at.0 + 1)));
    let row = RolloutRow {
        project: principal.project.clone(),
        principal: principal.id,
        from: prepared.from.as_ref().map(|release| release.id),
        message: message.to_owned(),
        unlocked,
        created_at,
        finished_at: None,
        progress,
        plan: plan.into(),
        version: 1,
    };
    tx.rollout_insert(&row).await?;
    let from = prepared.from.as_ref().map_or_else(|| "nothing".to_owned(), |release| release.number.to_string());
    Event::new(ledger::by(principal), "rollout.started", row.plan.rollout)
        .scope(&prepared.target)
        .text(format!("{} {from} -> {} {message}", prepared.target, row.plan.number).trim_end())
        .append(ctx, tx, &principal.project)
        .await?;
    if prepared.policy.on_newer == OnNewer::Supersede
        && let Some(active) = tx.rollout_active(&principal.project, &prepared.target).await?
    {
        let by = format!("rollout {}", row.plan.rollout.short());
        let mut next = active.progress.clone();
        if ask::supersede(&active.plan, &mut next, &by, ctx.now()).is_ok() {
            tx.rollout_put(&active, &next, active.finished_at).await?;
        }
    }
    Ok(row)
}

/// What a person asks of a rollout that is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ask {
    /// Nothing new starts.
    Pause,
    /// It goes on.
    Resume,
    /// Touched members go back, then it ends.
    Cancel,
}

impl Ask {
    fn kind(self) -> &'static str {
        match self {
            Self::Pause => "rollout.pause",
            Self::Resume => "rollout.resume",
            Self::Cancel => "rollout.cancel",
        }
    }
}

/// Pauses, resumes or cancels. Asked twice it changes nothing.
///
/// # Errors
/// There is no such rollout, it cannot do this in its state, or the caller may not.
pub async fn change(ctx: &Ctx, principal: &Principal, given: &str, asked: Ask, reason: &str) -> Result<RolloutView> {
    text::one_line("reason", reason, 500)?;
    let view = ctx
        .store
        .write(|tx| {
            Box::pin(async move {
                let row = resolve::rollout(tx, principal, given).await?;
                authorize(principal, Action::Deploy, &Resource::target(&row.project, &row.plan.target))?;
                let row = asked_of(ctx, tx, principal, row, asked, reason).await?;
                rollout_view::of(ctx, tx, row).await
            })
        })
        .await?;
    ctx.wake.rollouts();
    Ok(view)
}

async fn asked_of(
    ctx: &Ctx,
    tx: &mut dyn Tx,
    principal: &Principal,
    mut row: RolloutRow,
    asked: Ask,
    reason: &str,
) -> Result<RolloutRow> {
    let by = if reason.is_empty() { principal.name.to_string() } else { format!("{}: {reason}", principal.name) };
    let mut next = row.progress.clone();
    let done = match asked {
        Ask::Pause => ask::pause(&mut next, &by, ctx.now()),
        Ask::Resume => ask::resume(&row.plan, &mut next, &by, ctx.now()),
        Ask::Cancel => ask::cancel(&row.plan, &mut next, &by, ctx.now()),
    };
    done.map_err(refused)?;
    if next != row.progress {
        let version = tx.rollout_put(&row, &next, row.finished_at).await?;
        (row.progress, row.version) = (next, version);
        Event::new(ledger::by(principal), asked.kind(), row.plan.rollout)
            .scope(&row.plan.target)
            .text(reason)
            .append(ctx, tx, &row.project)
            .await?;
    }
    Ok(row)
}

fn refused(error: AskError) -> Error {
    let code = if let AskError::Ended(_) = error { Code::ROLLOUT_ENDED } else { Code::ROLLOUT_STATE };
    Error::detailed(code, error.code(), error.to_string())
}

/// A running rollout goes back; for a finished one a new rollout starts, to what was before it.
///
/// # Errors
/// There is no such rollout, nothing was before it, preflight refuses, or the caller may not.
pub async fn revert(
    ctx: &Ctx,
    principal: &Principal,
    given: &str,
    reason: &str,
    key: Option<&Key>,
) -> Result<RolloutView> {
    text::one_line("reason", reason, 500)?;
    let view = ctx
        .store
        .write(|tx| {
            Box::pin(async move {
                let row = resolve::rollout(tx, principal, given).await?;
                authorize(principal, Action::Deploy, &Resource::target(&row.project, &row.plan.target))?;
                if let Some(made) = idempotency::created(tx, principal, key).await? {
                    let row = resolve::rollout(tx, principal, &made).await?;
                    return rollout_view::of(ctx, tx, row).await;
                }
                let row = if row.progress.state.is_terminal() {
                    back(ctx, tx, principal, &row, reason).await?
                } else {
                    asked_of(ctx, tx, principal, row, Ask::Cancel, reason).await?
                };
                idempotency::note(ctx, tx, principal, key, row.plan.rollout).await?;
                rollout_view::of(ctx, tx, row).await
            })
        })
        .await?;
    ctx.wake.rollouts();
    Ok(view)
}

async fn back(ctx: &Ctx, tx: &mut dyn Tx, principal: &Principal, row: &RolloutRow, reason: &str) -> Result<RolloutRow> {
    let nothing = || {
        let text = format!("nothing was on {} before this rollout; start another release instead", row.plan.target);
        Error::new(Code::NO_PREVIOUS, text)
    };
    let release = tx.release_get(row.from.ok_or_else(nothing)?).await?.ok_or_else(nothing)?.release;
    // Going back is what a lock after a revert asks for; it does not stand in its way.
    let ask = Start { target: row.plan.target.to_string(), release: release.number, unlock: true, ..Start::default() };
    let prepared = prepare(ctx, tx, principal, &ask).await?;
    let id = RolloutId::new(ctx.ids.uuid());
    let plan = planned(id, Kind::Revert { of: row.plan.rollout }, &prepared).map_err(|why| preflight(&why))?;
    insert(ctx, tx, principal, plan, &prepared, reason, true).await
}
