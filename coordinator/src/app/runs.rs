//! Executions of tests.

use domain::authorize::{Action, Principal, Resource, authorize};
use domain::event::Actor;
use domain::host::Liveness;
use domain::ids::{HostId, RunId, SeedId};
use domain::label::Selector;
use domain::name::Name;
use domain::placement::{Among, Candidate, Request, place};
use domain::release::{Commit, Image};
use domain::run::{Run, RunState, Subject, Verdict};

use super::idempotency::{self, Key};
use super::ledger::{self, Event};
use super::run_seeds::{self, Told};
use super::{Ctx, builds, resolve, text};
use crate::error::{Code, Error, Result};
use crate::store::run::RunRow;
use crate::store::{Tx, View};

/// Hosts that may run tests unless asked otherwise.
pub const DEFAULT_SELECTOR: &str = "role=test";

/// A run with names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RunView {
    /// The run.
    pub row: RunRow,
    /// Its owner's name.
    pub owner: String,
    /// Its host's name; empty: none yet.
    pub host: String,
    /// For people: what it waits for; empty: nothing.
    pub waiting: String,
}

/// What `run start` asks for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Start {
    /// The app.
    pub app: String,
    /// The name of its tests.
    pub tests: String,
    /// A full commit; or
    pub commit: String,
    /// a build.
    pub build: String,
    /// Hosts that may run it.
    pub selector: String,
}

/// Asks for a run; a host takes it as soon as one can.
///
/// # Errors
/// The request is malformed, app, tests or build are not there, the app has no repository, or the caller may not.
pub async fn start(ctx: &Ctx, principal: &Principal, ask: &Start, key: Option<&Key>) -> Result<RunView> {
    let app = Name::new("app", &ask.app)?;
    let tests = Name::new("tests", &ask.tests)?;
    let selector = if ask.selector.is_empty() { DEFAULT_SELECTOR } else { &ask.selector };
    text::at_most("selector", selector, 4096)?;
    let selector = Selector::parse(selector).map_err(|why| Error::new(Code::SELECTOR, why.to_string()))?;
    match (ask.commit.is_empty(), ask.build.is_empty()) {
        (true, true) => return Err(Error::new(Code::FIELD, "a run needs a commit or a build")),
        (false, false) => return Err(Error::new(Code::AMBIGUOUS, "give a commit or a build, not both")),
        _ => {}
    }
    let view = ctx
        .store
        .write(|tx| {
            Box::pin(async move {
                authorize(principal, Action::Create, &Resource::owned(&principal.project, principal.id, Some(&app)))?;
                if let Some(made) = idempotency::created(tx, principal, key).await? {
                    let row = resolve::run(tx, principal, &made).await?;
                    return view_of(ctx, tx, row).await;
                }
                let run = new_run(ctx, tx, principal, ask, &app, &tests).await?;
                let mut row = RunRow { project: principal.project.clone(), run, detail: String::new(), version: 0 };
                row.version = tx.run_put(&row).await?;
                run_seeds::remember(tx, principal, row.run.id).await?;
                if selector.to_string() != DEFAULT_SELECTOR {
                    tx.meta_put(&selector_key(row.run.id), &selector.to_string()).await?;
                }
                idempotency::note(ctx, tx, principal, key, row.run.id).await?;
                Event::new(ledger::by(principal), "run.started", row.run.id)
                    .scope(&app)
                    .text(format!("{app} {tests} at {}", row.run.commit.short()))
                    .append(ctx, tx, &principal.project)
                    .await?;
                view_of(ctx, tx, row).await
            })
        })
        .await?;
    ctx.wake.runs();
    Ok(view)
}

async fn new_run(
    ctx: &Ctx,
    tx: &mut dyn Tx,
    principal: &Principal,
    ask: &Start,
    app: &Name,
    tests: &Name,
) -> Result<Run> {
    let row = resolve::app(tx, principal, app).await?;
    if !row.app.tests.contains_key(tests) {
        let known: Vec<&str> = row.app.tests.keys().map(Name::as_str).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        return Err(Error::new(
            Code::TESTS_NOT_FOUND,
            format!("{app} has no tests {tests}; its muster.yaml has {known}"),
        ));
    }
    if row.repository.is_empty() {
        let text = format!("{app} has no repository to fetch commits from; `muster app apply --repository URL`");
        return Err(Error::new(Code::NO_REPOSITORY, text));
    }
    let (subject, commit, manifest) = if ask.build.is_empty() {
        (Subject::Tree, Commit::parse(&ask.commit)?, row.manifest)
    } else {
        let build = builds::by_id(tx, principal, &ask.build).await?.row.build;
        if build.app != *app {
            return Err(Error::new(
                Code::BUILD_NOT_FOUND,
                format!("the build {} is of {}, not of {app}", build.id, build.app),
            ));
        }
        (Subject::Build(build.id), build.commit, build.manifest)
    };
    Ok(Run {
        id: RunId::new(ctx.ids.uuid()),
        app: app.clone(),
        tests: tests.clone(),
        subject,
        commit,
        repository: row.repository,
        manifest,
        owner: principal.id,
        host: None,
        environment: None,
        seed: None,
        state: RunState::Queued,
        cancel: false,
        verdict: None,
        reason: None,
        exit_code: None,
        report: None,
        created_at: ctx.now(),
        assigned_at: None,
        first_line_at: None,
        finished_at: None,
        took: None,
    })
}

fn selector_key(id: RunId) -> String {
    format!("run/{id}/selector")
}

/// What a run is to [`authorize`].
#[must_use]
pub fn resource(row: &RunRow) -> Resource {
    Resource::owned(&row.project, row.run.owner, Some(&row.run.app))
}

async fn view_of<V: View + ?Sized>(ctx: &Ctx, view: &mut V, row: RunRow) -> Result<RunView> {
    let owner = view.principal_get(row.run.owner).await?.map(|owner| owner.name.to_string()).unwrap_or_default();
    let host = match row.run.host {
        None => None,
        Some(id) => view.host_get(id).await?,
    };
    let waiting = match (&host, row.run.state) {
        (_, RunState::Finished) => String::new(),
        (Some(host), _) if ctx.liveness(host) == Liveness::Unreachable => {
            format!(
                "{} has not been heard from; what it runs goes on, and its outcome is told when it is back",
                host.host.name
            )
        }
        _ => run_seeds::waiting(view, &row).await?.unwrap_or_else(|| row.detail.clone()),
    };
    let host = host.map(|host| host.host.name.to_string()).unwrap_or_default();
    Ok(RunView { row, owner, host, waiting })
}

/// The last 100 runs that the caller may see, newest first, of one app or of all.
///
/// # Errors
/// The app's name is none, or the caller may not see it.
pub async fn list(ctx: &Ctx, principal: &Principal, app: &str) -> Result<Vec<RunView>> {
    let app = match app {
        "" => None,
        given => Some(Name::new("app", given)?),
    };
    if let Some(app) = &app {
        authorize(principal, Action::Read, &Resource::app(&principal.project, app))?;
    }
    ctx.store
        .read(|view| {
            Box::pin(async move {
                let mut all = Vec::new();
                for row in view.run_list(&principal.project, app.as_ref(), 100).await? {
                    if authorize(principal, Action::Read, &resource(&row)).is_ok() {
                        all.push(view_of(ctx, view, row).await?);
                    }
                }
                Ok(all)
            })
        })
        .await
}

/// One run.
///
/// # Errors
/// There is none, or the caller may not see it.
pub async fn show(ctx: &Ctx, principal: &Principal, given: &str) -> Result<RunView> {
    ctx.store
        .read(|view| {
            Box::pin(async move {
                let row = resolve::run(view, principal, given).await?;
                authorize(principal, Action::Read, &resource(&row))?;
                view_of(ctx, view, row).await
            })
        })
        .await
}

/// Ends a run; one that waits for a host ends at once. Asked twice it changes nothing.
///
/// # Errors
/// There is none, it has ended, or the caller may not.
pub async fn cancel(ctx: &Ctx, principal: &Principal, given: &str) -> Result<RunView> {
    let view = ctx
        .store
        .write(|tx| {
            Box::pin(async move {
                let mut row = resolve::run(tx, principal, given).await?;
                authorize(principal, Action::Write, &resource(&row))?;
                if row.run.state == RunState::Finished {
                    let text = format!("run {} has ended", row.run.id.short());
                    return Err(Error::new(Code::RUN_ENDED, text));
                }
                if !row.run.cancel {
                    row.run.cancel = true;
                    let text = format!("cancelled by {}", principal.name);
                    Event::new(ledger::by(principal), "run.cancel", row.run.id)
                        .scope(&row.run.app)
                        .append(ctx, tx, &row.project)
                        .await?;
                    if row.run.state == RunState::Queued {
                        finish(ctx, tx, &mut row, Verdict::Cancelled, "E_RUN_CANCELLED", &text).await?;
                    }
                    row.version = tx.run_put(&row).await?;
                }
                view_of(ctx, tx, row).await
            })
        })
        .await?;
    if let Some(host) = view.row.run.host {
        ctx.wake.host(host);
    }
    Ok(view)
}

/// Ends a run by the coordinator's own knowledge; the caller stores the row.
async fn finish(
    ctx: &Ctx,
    tx: &mut dyn Tx,
    row: &mut RunRow,
    verdict: Verdict,
    reason: &str,
    text: &str,
) -> Result<()> {
    row.run.state = RunState::Finished;
    row.run.verdict = Some(verdict);
    row.run.reason = Some((reason.to_owned(), text.to_owned()));
    row.run.finished_at = Some(ctx.now());
    row.detail.clear();
    Event::new(Actor::Coordinator, "run.finished", row.run.id)
        .scope(&row.run.app)
        .reason(reason)
        .text(text)
        .append(ctx, tx, &row.project)
        .await?;
    Ok(())
}

/// Gives every queued run to a host that can take it. Answers the hosts to wake.
///
/// # Errors
/// What the store says.
pub async fn assign_queued(ctx: &Ctx) -> Result<Vec<HostId>> {
    let given = ctx
        .store
        .write(|tx| {
            Box::pin(async move {
                let mut woken = Vec::new();
                let open = tx.run_list_open().await?;
                for row in open {
                    if row.run.state == RunState::Queued
                        && let Some(host) = assign(ctx, tx, row).await?
                    {
                        woken.push(host);
                    }
                }
                Ok::<_, Error>(woken)
            })
        })
        .await?;
    if !given.is_empty() {
        crate::failpoint::hit(ctx.state_dir.as_deref(), "run.assigned");
    }
    Ok(given)
}

async fn assign(ctx: &Ctx, tx: &mut dyn Tx, mut row: RunRow) -> Result<Option<HostId>> {
    let selector = tx.meta_get(&selector_key(row.run.id)).await?;
    let selector = Selector::parse(selector.as_deref().unwrap_or(DEFAULT_SELECTOR)).map_err(Error::internal)?;
    let hosts = tx.host_list(&row.project).await?;
    let mut candidates = Vec::new();
    for host in &hosts {
        let load = tx.run_list_of_host(host.host.id).await?.len();
        let load = u32::try_from(load).unwrap_or(u32::MAX);
        candidates.push(Candidate { host: &host.host, liveness: ctx.liveness(host), load, memory_bytes: 0 });
    }
    let request = Request { among: Among::Labels(selector.clone()), memory_bytes: 0, disk_bytes: 0 };
    let near = run_seeds::near(ctx, tx, &row).await?;
    let near: Vec<_> = candidates.iter().filter(|one| near.contains(&one.host.id)).copied().collect();
    match place(&request, &near).or_else(|_| place(&request, &candidates)) {
        Ok(id) => {
            row.run.state = RunState::Assigned;
            row.run.host = Some(id);
            row.run.assigned_at = Some(ctx.now());
            row.detail.clear();
            tx.run_put(&row).await?;
            let name = hosts.iter().find(|host| host.host.id == id).map(|host| host.host.name.to_string());
            Event::new(Actor::Coordinator, "run.assigned", row.run.id)
                .scope(&row.run.app)
                .text(format!("to {}", name.unwrap_or_default()))
                .append(ctx, tx, &row.project)
                .await?;
            Ok(Some(id))
        }
        Err(nowhere) => {
            let detail = format!("waiting for a host with {selector}: {nowhere}");
            if row.detail != detail {
                row.detail = detail;
                tx.run_put(&row).await?;
            }
            Ok(None)
        }
    }
}

/// A run as its host's agent is ordered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ordered {
    /// The run.
    pub row: RunRow,
    /// Its owner's name.
    pub owner: String,
    /// The build's image, when the subject is a build.
    pub image: Option<Image>,
    /// What is known of the data that its environment begins with.
    pub seed: Option<Told>,
}

/// The runs that a host should have.
///
/// # Errors
/// What the store says.
pub async fn of_host<V: View + ?Sized>(view: &mut V, host: HostId) -> Result<Vec<Ordered>> {
    let mut all = Vec::new();
    for row in view.run_list_of_host(host).await? {
        let owner = view.principal_get(row.run.owner).await?.map(|owner| owner.name.to_string()).unwrap_or_default();
        let image = match row.run.subject {
            Subject::Tree => None,
            Subject::Build(id) => view.build_get(id).await?.map(|build| build.build.image),
        };
        let seed = run_seeds::told(view, &row, host).await?;
        all.push(Ordered { row, owner, image, seed });
    }
    Ok(all)
}

/// What an agent tells about a run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reported {
    /// The run.
    pub id: RunId,
    /// Its state.
    pub state: RunState,
    /// The verdict, once finished.
    pub verdict: Option<Verdict>,
    /// Reason code and text.
    pub reason: Option<(String, String)>,
    /// Exit status of the command.
    pub exit_code: Option<i32>,
    /// Counts and failures.
    pub report: Option<domain::run::Report>,
    /// How long the command ran.
    pub took: Option<std::time::Duration>,
    /// One line for people.
    pub detail: String,
    /// The first line of output has come.
    pub first_line: bool,
    /// The seed that its stack names, while the host waits for it; empty: it waits for none.
    pub seed: String,
}

/// Takes in what a host tells about one of its runs. A run only moves on, and its verdict is written once. Answers the seed
/// that the host waits for.
///
/// # Errors
/// What the store says.
pub async fn report(ctx: &Ctx, host: &crate::auth::Agent, told: Reported) -> Result<Option<SeedId>> {
    ctx.store
        .write(|tx| {
            Box::pin(async move {
                let Some(row) = tx.run_get(told.id).await? else { return Ok(None) };
                if row.run.host != Some(host.id) || row.run.state == RunState::Finished {
                    return Ok(None);
                }
                take_in(ctx, tx, host, row, told).await
            })
        })
        .await
}

async fn take_in(
    ctx: &Ctx,
    tx: &mut dyn Tx,
    host: &crate::auth::Agent,
    mut row: RunRow,
    told: Reported,
) -> Result<Option<SeedId>> {
    let before = row.clone();
    let waits = !told.seed.is_empty() && told.state < RunState::Running;
    if waits {
        run_seeds::ask(ctx, tx, &mut row, &told.seed).await?;
    }
    let run = &mut row.run;
    run.state = run.state.max(told.state);
    if told.first_line && run.first_line_at.is_none() {
        run.first_line_at = Some(ctx.now());
    }
    row.detail = text::line(&told.detail, 300);
    if told.state == RunState::Finished {
        // A finished run without a verdict says nothing about the tests.
        let verdict = told.verdict.unwrap_or(Verdict::Errored);
        run.verdict = Some(verdict);
        run.reason = told.reason.map(|(code, why)| (text::line(&code, 80), text::line(&why, 1000)));
        run.exit_code = told.exit_code;
        run.report = told.report;
        run.took = told.took;
        run.finished_at = Some(ctx.now());
        row.detail.clear();
        let (code, why) = run.reason.clone().unwrap_or_default();
        Event::new(ledger::host(&host.name), "run.finished", run.id)
            .scope(&run.app)
            .reason(code)
            .text(format!("{} {why}", verdict_name(verdict)))
            .append(ctx, tx, &row.project)
            .await?;
    }
    if row != before {
        tx.run_put(&row).await?;
    }
    Ok(row.run.seed.filter(|_| waits).map(|seed| seed.id))
}

fn verdict_name(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Passed => "passed",
        Verdict::Failed => "failed",
        Verdict::Errored => "errored",
        Verdict::TimedOut => "timed out",
        Verdict::Cancelled => "cancelled",
        Verdict::Interrupted => "interrupted",
    }
}

/// Runs that were begun on a host which has lost its state and does not know them any more: their outcome is gone.
///
/// # Errors
/// What the store says.
pub async fn lost(ctx: &Ctx, tx: &mut dyn Tx, host: HostId, known: &std::collections::BTreeSet<String>) -> Result<()> {
    for mut row in tx.run_list_of_host(host).await? {
        if row.run.state > RunState::Assigned && !known.contains(&row.run.id.to_string()) {
            let text = "the host lost its state, and with it the run's outcome";
            finish(ctx, tx, &mut row, Verdict::Interrupted, "E_RUN_INTERRUPTED", text).await?;
            tx.run_put(&row).await?;
        }
    }
    Ok(())
}
