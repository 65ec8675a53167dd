//! What agents tell: their Hello, their environments, their part of targets. Runs are in [`super::runs`].

use std::collections::{BTreeMap, BTreeSet};

use domain::environment::{EnvironmentState, Observed, Wanted};
use domain::hello::{self, Fenced, Merge, Standing};
use domain::host::{Facts, Liveness};
use domain::ids::{EnvironmentId, HostId, ReleaseId};
use domain::name::TargetRef;
use domain::seed::DataObserved;
use domain::step::report::{HealthNow, Report};
use proto::convert::step::Reported;

use super::environments::SECRET;
use super::ledger::{self, Event};
use super::{App, Ctx, quotas, runs, text};
use crate::auth::{self, Agent};
use crate::error::{Code, Error, Result};
use crate::store::Tx;
use crate::store::environment::EnvironmentRow;
use crate::store::secret::SecretRow;

/// A Hello, as far as it is written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hello {
    /// The machine's facts.
    pub facts: Facts,
    /// Who the agent follows.
    pub fenced: Fenced,
    /// Targets that it knows something of.
    pub targets: BTreeSet<TargetRef>,
    /// Runs that it knows.
    pub runs: BTreeSet<String>,
    /// Results that follow.
    pub backlog: u32,
    /// It lost its state.
    pub state_lost: bool,
}

/// Takes in a Hello, in one write: facts, and what the host no longer knows.
///
/// Answers why nothing may be ordered: the agent follows somebody newer, or has heard of commits that this store does
/// not have. Nothing else is taken in then.
///
/// # Errors
/// What the store says.
pub async fn hello(ctx: &Ctx, agent: &Agent, hello: Hello) -> Result<Option<Stale>> {
    let own = ctx.store.fence();
    ctx.store
        .write(|tx| {
            Box::pin(async move {
                let ours = tx.event_seq().await?;
                if let Some(stale) = why_stale(hello::standing(own, ours, hello.fenced)) {
                    Event::new(ledger::host(&agent.name), "host.refused_coordinator", agent.id)
                        .reason(Code::STALE_COORDINATOR.code)
                        .text(&stale.why)
                        .append(ctx, tx, &agent.project)
                        .await?;
                    return Ok(Some(stale));
                }
                take_in(ctx, tx, agent, hello).await?;
                Ok::<_, Error>(None)
            })
        })
        .await
}

/// Why this coordinator may order nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stale {
    /// For people.
    pub why: String,
    /// Not only to this host: the agent has heard from this very cluster what this store does not know.
    pub everywhere: bool,
}

fn why_stale(standing: Standing) -> Option<Stale> {
    let everywhere = matches!(standing, Standing::Replaced { .. } | Standing::Stale { .. });
    let why = match standing {
        Standing::Current => return None,
        Standing::Replaced { epoch } => format!("a newer coordinator (epoch {epoch}) gives orders; this one must stop"),
        Standing::Stale { theirs, ours } => format!(
            "the host has heard of ledger entry {theirs} and this store ends at {ours}: it is an old copy; nothing is ordered until `muster restore`"
        ),
        Standing::OtherIncarnation { theirs, ours } => {
            format!("the host follows incarnation {theirs} of another store, this is {ours}; nothing is ordered")
        }
    };
    Some(Stale { why, everywhere })
}

async fn take_in(ctx: &Ctx, tx: &mut dyn Tx, agent: &Agent, hello: Hello) -> Result<()> {
    let missing = || Error::new(Code::HOST_NOT_FOUND, format!("the host {} was removed", agent.name));
    let mut row = tx.host_get(agent.id).await?.ok_or_else(missing)?;
    let before = row.clone();
    row.host.facts = bounded(hello.facts);
    row.host.seen_at = Some(ctx.now());
    let liveness = if hello.backlog == 0 { Liveness::Ready } else { Liveness::Syncing };
    if row.host.liveness != liveness {
        row.since = ctx.now();
        row.host.liveness = liveness;
        liveness_event(ctx, tx, &row.project, &row.host, before.host.liveness).await?;
    }
    tx.host_put(&row).await?;
    // The last certificate is in use: the one before is worthless from now on.
    if row.certificate.as_ref().is_some_and(|held| held.fingerprint == agent.fingerprint) {
        let key = auth::previous_key(agent.id);
        if tx.meta_get(&key).await?.is_some_and(|text| !text.is_empty()) {
            tx.meta_put(&key, "").await?;
        }
    }
    for member in tx.member_list_of_host(agent.id).await? {
        if member.report.is_some() && !hello.targets.contains(&member.target) {
            tx.member_report_put(&member.project, &member.target, agent.id, None, ctx.now()).await?;
        }
    }
    if hello.state_lost {
        Event::new(ledger::host(&agent.name), "host.state_lost", agent.id)
            .text("the agent's state was lost and made again from what it found")
            .append(ctx, tx, &agent.project)
            .await?;
        runs::lost(ctx, tx, agent.id, &hello.runs).await?;
    }
    Ok(())
}

fn bounded(facts: Facts) -> Facts {
    let cut = |text: String| text::line(&text, 120);
    Facts {
        agent_version: cut(facts.agent_version),
        boot_id: cut(facts.boot_id),
        platform: cut(facts.platform),
        os: cut(facts.os),
        engine_version: cut(facts.engine_version),
        address: cut(facts.address),
        pool_backend: cut(facts.pool_backend),
        pool_why: text::line(&facts.pool_why, 240),
        ..facts
    }
}

async fn liveness_event(
    ctx: &Ctx,
    tx: &mut dyn Tx,
    project: &str,
    host: &domain::host::Host,
    before: Liveness,
) -> Result<()> {
    let event = match (before, host.liveness) {
        (_, Liveness::Unreachable) => Event::new(domain::event::Actor::Coordinator, "host.unreachable", host.id)
            .reason("E_HOST_UNREACHABLE")
            .text(format!("{}: no heartbeat for 15 s; what it runs goes on", host.name)),
        (Liveness::Unreachable, Liveness::Ready | Liveness::Syncing) => {
            Event::new(domain::event::Actor::Coordinator, "host.back", host.id).text(host.name.as_str())
        }
        (Liveness::Joined, Liveness::Ready | Liveness::Syncing) => {
            Event::new(domain::event::Actor::Coordinator, "host.ready", host.id).text(host.name.as_str())
        }
        _ => return Ok(()),
    };
    event.append(ctx, tx, project).await?;
    Ok(())
}

/// Writes the liveness of every host that differs from what is stored. Answers whether any did.
///
/// # Errors
/// What the store says.
pub async fn liveness(ctx: &Ctx) -> Result<bool> {
    let changed: Vec<HostId> = ctx
        .store
        .read(|view| {
            Box::pin(async move {
                let rows = view.host_list_all().await?;
                let differs = |row: &&crate::store::host::HostRow| ctx.liveness(row) != row.host.liveness;
                Ok::<_, Error>(rows.iter().filter(differs).map(|row| row.host.id).collect())
            })
        })
        .await?;
    if changed.is_empty() {
        return Ok(false);
    }
    ctx.store
        .write(|tx| {
            Box::pin(async move {
                for id in changed {
                    let Some(mut row) = tx.host_get(id).await? else { continue };
                    let (before, now) = (row.host.liveness, ctx.liveness(&row));
                    if before == now {
                        continue;
                    }
                    row.host.liveness = now;
                    row.since = ctx.now();
                    if let Some(seen) = ctx.seen.session(id) {
                        row.host.seen_at = Some(seen.heard_at);
                    }
                    tx.host_put(&row).await?;
                    liveness_event(ctx, tx, &row.project, &row.host, before).await?;
                }
                Ok::<_, Error>(())
            })
        })
        .await?;
    Ok(true)
}

/// Notes when a session that ends was heard last, so that silence counts from there.
///
/// # Errors
/// What the store says.
pub async fn session_ended(ctx: &Ctx, host: HostId, heard_at: domain::time::Timestamp) -> Result<()> {
    ctx.store
        .write(|tx| {
            Box::pin(async move {
                let Some(mut row) = tx.host_get(host).await? else { return Ok(()) };
                if row.host.seen_at.is_none_or(|seen| seen < heard_at) {
                    row.host.seen_at = Some(heard_at);
                    tx.host_put(&row).await?;
                }
                Ok::<_, Error>(())
            })
        })
        .await
}

/// Newer facts of a host's machine, where they differ enough to matter.
///
/// # Errors
/// What the store says.
pub async fn facts(ctx: &Ctx, agent: &Agent, facts: Facts) -> Result<()> {
    let facts = bounded(facts);
    ctx.store
        .write(|tx| {
            Box::pin(async move {
                let Some(mut row) = tx.host_get(agent.id).await? else { return Ok(()) };
                row.host.facts = facts;
                row.host.seen_at = Some(ctx.now());
                tx.host_put(&row).await?;
                Ok::<_, Error>(())
            })
        })
        .await
}

/// Whether facts differ that only another boot, engine or agent changes.
#[must_use]
pub fn another_machine(a: &Facts, b: &Facts) -> bool {
    let steady = |facts: &Facts| Facts {
        memory_available_bytes: 0,
        disk_available_bytes: 0,
        pool_available_bytes: 0,
        pool_own_bytes: 0,
        pool_shared_bytes: 0,
        ..facts.clone()
    };
    steady(a) != steady(b)
}

/// Whether two sets of facts differ enough to be written: another engine or boot, or a tenth of memory or disk.
#[must_use]
pub fn differ(a: &Facts, b: &Facts) -> bool {
    let far = |a: u64, b: u64| a.abs_diff(b) > a.max(b) / 10;
    another_machine(a, b)
        || far(a.memory_available_bytes, b.memory_available_bytes)
        || far(a.disk_available_bytes, b.disk_available_bytes)
        || far(a.pool_available_bytes, b.pool_available_bytes)
        || far(a.pool_own_bytes, b.pool_own_bytes)
        || far(a.pool_shared_bytes, b.pool_shared_bytes)
}

/// Takes in what a host tells about one of its environments.
///
/// # Errors
/// What the store says.
pub async fn environment(
    app: &App,
    agent: &Agent,
    id: EnvironmentId,
    mut told: Observed,
    data: DataObserved,
) -> Result<()> {
    let variables: BTreeMap<String, BTreeMap<String, String>> = told
        .services
        .iter_mut()
        .map(|service| (service.name.clone(), std::mem::take(&mut service.variables)))
        .filter(|(_, variables)| !variables.is_empty())
        .collect();
    app.store
        .write(|tx| {
            Box::pin(async move {
                let Some(mut row) = tx.environment_get(id).await? else { return Ok(()) };
                let known = row.environment.host == agent.id && row.gone_at.is_none();
                if !known || told.generation < row.environment.observed.generation {
                    return Ok(());
                }
                let before = row.data.observed.clone();
                // A report without a word about the data says nothing of what is kept.
                if data != DataObserved::default() {
                    row.data.observed = bounded_data(data);
                }
                let news = row.data.observed != before;
                quotas::measured(app, tx, agent, &row, before.own_bytes).await?;
                observe(app, tx, agent, row, (told, news), &variables).await
            })
        })
        .await
}

/// Something got through the walls of an environment.
const ISOLATION: &str = "E_ISOLATION";

fn reaches(observed: &Observed) -> bool {
    observed.reason.as_ref().is_some_and(|(code, _)| code == ISOLATION)
}

fn bounded_data(data: DataObserved) -> DataObserved {
    let most = i64::MAX.unsigned_abs();
    DataObserved {
        line: text::line(&data.line, 200),
        own_bytes: data.own_bytes.min(most),
        shared_bytes: data.shared_bytes.min(most),
        kept: data.kept.into_iter().take(64).collect(),
    }
}

async fn observe(
    app: &App,
    tx: &mut dyn Tx,
    agent: &Agent,
    mut row: EnvironmentRow,
    (told, news): (Observed, bool),
    variables: &BTreeMap<String, BTreeMap<String, String>>,
) -> Result<()> {
    let id = row.environment.id.to_string();
    let (before, after) = (row.environment.observed.state, told.state);
    let (was_open, is_open) = (reaches(&row.environment.observed), reaches(&told));
    let gone = after == EnvironmentState::Gone
        && row.environment.wanted == Wanted::Down
        && told.generation == row.environment.generation;
    if row.environment.observed != told || news || gone {
        row.environment.observed = told;
        row.gone_at = gone.then(|| app.now());
        tx.environment_put(&row).await?;
    }
    if gone {
        tx.secret_delete(SECRET, &id).await?;
    } else if !variables.is_empty() {
        seal(app, tx, &row, variables).await?;
    }
    if is_open && !was_open {
        let why = row.environment.observed.reason.clone().map(|(_, why)| why).unwrap_or_default();
        Event::new(ledger::host(&agent.name), "environment.isolation", &id)
            .scope(&id)
            .reason(ISOLATION.to_owned())
            .text(format!("{} {why}", row.environment.name))
            .append(app, tx, &row.project)
            .await?;
    }
    let kind = match after {
        EnvironmentState::Ready => "environment.ready",
        EnvironmentState::Failed => "environment.failed",
        EnvironmentState::Gone => "environment.gone",
        EnvironmentState::Frozen => "environment.frozen",
        EnvironmentState::Asleep => "environment.asleep",
        EnvironmentState::Pending | EnvironmentState::Starting | EnvironmentState::Stopping => return Ok(()),
    };
    if before != after {
        let (code, why) = row.environment.observed.reason.clone().unwrap_or_default();
        Event::new(ledger::host(&agent.name), kind, &id)
            .scope(&id)
            .reason(text::line(&code, 80))
            .text(format!("{} {why}", row.environment.name))
            .append(app, tx, &row.project)
            .await?;
    }
    Ok(())
}

async fn seal(
    app: &App,
    tx: &mut dyn Tx,
    row: &EnvironmentRow,
    variables: &BTreeMap<String, BTreeMap<String, String>>,
) -> Result<()> {
    let id = row.environment.id.to_string();
    let plain = serde_json::to_vec(variables).map_err(Error::internal)?;
    if let Some(held) = tx.secret_get(SECRET, &id).await?
        && app.vault.open_sealed(SECRET, &id, &held.sealed).is_ok_and(|held| held == plain)
    {
        return Ok(());
    }
    let sealed = app.vault.seal(SECRET, &id, &plain).map_err(Error::internal)?;
    let row = SecretRow { project: row.project.clone(), kind: SECRET.to_owned(), id, sealed, created_at: app.now() };
    tx.secret_put(&row).await?;
    Ok(())
}

/// Takes in what a host tells about its part of a target. Answers whether it is news.
///
/// # Errors
/// What the store says.
pub async fn step(ctx: &Ctx, agent: &Agent, told: Reported) -> Result<bool> {
    ctx.store
        .write(|tx| {
            Box::pin(async move {
                let stored = tx.member_get(&agent.project, &told.target, agent.id).await?;
                // The store knows nothing of the target on this host: kept there, never removed.
                let Some(stored) = stored else { return Ok(false) };
                if hello::merge(stored.report.as_ref(), &told.report) != Merge::Newer {
                    return Ok(false);
                }
                if let Some(release) = foreign(tx, &agent.project, &told, stored.report.as_ref()).await? {
                    tracing::warn!(host = %agent.name, target = %told.target, %release, "it tells of a release of another target; not taken in");
                    return Ok(false);
                }
                tx.member_report_put(&agent.project, &told.target, agent.id, Some(&told.report), ctx.now()).await?;
                at_rest(ctx, tx, agent, &told).await?;
                Ok::<_, Error>(true)
            })
        })
        .await
}

/// What a release comes to that nobody is changing is told once, and once more when it is over. How a step goes is told by
/// its rollout.
async fn at_rest(ctx: &Ctx, tx: &mut dyn Tx, agent: &Agent, told: &Reported) -> Result<()> {
    let (target, report) = (&told.target, &told.report);
    let Some(current) = report.current else { return Ok(()) };
    if report.step.as_ref().is_some_and(|step| step.settled.is_none()) {
        return Ok(());
    }
    let key = format!("member/{target}/{}/failing", agent.id);
    let known = tx.meta_get(&key).await?.unwrap_or_default();
    let (event, now) = match &report.health {
        HealthNow::Failing(why) if known.is_empty() => {
            let event = Event::new(ledger::host(&agent.name), "release.failing", target).reason(why.cause.code());
            (event.text(format!("{}: {why}", number(tx, current).await?)), "failing")
        }
        HealthNow::Passing if !known.is_empty() => {
            let event = Event::new(ledger::host(&agent.name), "release.recovered", target);
            (event.text(format!("{} passes its checks again", number(tx, current).await?)), "")
        }
        _ => return Ok(()),
    };
    tx.meta_put(&key, now).await?;
    event.scope(target).append(ctx, tx, &agent.project).await?;
    Ok(())
}

async fn number(tx: &mut dyn Tx, release: ReleaseId) -> Result<String> {
    let found = tx.release_get(release).await?;
    Ok(found.map_or_else(|| "a release".to_owned(), |found| format!("release {}", found.release.number)))
}

/// A release that is told of and is another target's. What a host has becomes what it goes back to: who claimed to have
/// another target's would be ordered to run it, with its settings.
async fn foreign(
    tx: &mut dyn Tx,
    project: &str,
    told: &Reported,
    before: Option<&Report>,
) -> Result<Option<ReleaseId>> {
    let known: BTreeSet<ReleaseId> = before.into_iter().flat_map(Report::releases).collect();
    let new: BTreeSet<ReleaseId> = told.report.releases().filter(|id| !known.contains(id)).collect();
    for id in new {
        let release = tx.release_get(id).await?;
        if release.is_some_and(|row| row.project != project || row.release.target != told.target) {
            return Ok(Some(id));
        }
    }
    Ok(None)
}
