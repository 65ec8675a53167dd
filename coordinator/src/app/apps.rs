//! Things released, described by `muster.yaml`.

use std::collections::BTreeMap;

use domain::app::App as Definition;
use domain::authorize::{Action, Principal, Resource, authorize};
use domain::name::{Name, TargetRef};
use manifest::git::{GitUrl, LocalPaths};

use super::idempotency::{self, Key};
use super::ledger::{self, Event};
use super::{Ctx, resolve, text};
use crate::error::{Code, Error, Result};
use crate::store::View;
use crate::store::app::AppRow;
use crate::store::target::LockRow;

/// An app with the state of its targets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AppView {
    /// The app.
    pub row: AppRow,
    /// Its targets, by name.
    pub targets: BTreeMap<Name, TargetState>,
}

/// The state of a target.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TargetState {
    /// Names of the hosts that are its members now.
    pub members: Vec<Name>,
    /// Number of the release it is on.
    pub release: Option<u64>,
    /// The newest revision of its settings.
    pub config_revision: u64,
    /// Its lock, if one stands.
    pub lock: Option<LockRow>,
}

/// Reads `muster.yaml`; all its problems become one error.
///
/// # Errors
/// `E_MANIFEST` or the finer code of the first problem, with all problems in its text.
pub fn read(file: &str, manifest: &str) -> Result<Definition> {
    let file = if file.is_empty() { manifest::app::FILE } else { file };
    text::one_line("file", file, 255)?;
    manifest::app::read(file, manifest).map_err(|problems| problems_error(Code::MANIFEST, &problems))
}

/// All problems of a file as one error, under the code of the first.
#[must_use]
pub fn problems_error(code: Code, problems: &[manifest::Problem]) -> Error {
    let all: Vec<String> = problems.iter().map(ToString::to_string).collect();
    match problems.first() {
        Some(first) => Error::detailed(code, first.code.as_str(), all.join("\n")),
        None => Error::new(code, "the file cannot be read"),
    }
}

/// Makes an app or changes it. Answers whether anything changed.
///
/// # Errors
/// `muster.yaml` has problems, the repository is none, or the caller may not.
pub async fn apply(
    ctx: &Ctx,
    principal: &Principal,
    file: &str,
    manifest: &str,
    repository: &str,
    key: Option<&Key>,
) -> Result<(AppView, bool)> {
    let app = read(file, manifest)?;
    if !repository.is_empty() {
        GitUrl::parse(repository, LocalPaths::Allowed).map_err(|why| Error::new(Code::REPOSITORY, why.to_string()))?;
    }
    let result = ctx
        .store
        .write(|tx| {
            Box::pin(async move {
                authorize(principal, Action::Write, &Resource::app(&principal.project, &app.name))?;
                let name = app.name.clone();
                let before = tx.app_get(&principal.project, &name).await?;
                if idempotency::created(tx, principal, key).await?.is_some()
                    && let Some(row) = before
                {
                    return Ok((view_of(ctx, tx, row).await?, false));
                }
                idempotency::note(ctx, tx, principal, key, &name).await?;
                let held = before.as_ref().map(|row| row.repository.clone()).unwrap_or_default();
                let mut row = AppRow {
                    project: principal.project.clone(),
                    principal: principal.id,
                    app,
                    manifest: manifest.to_owned(),
                    repository: if repository.is_empty() { held } else { repository.to_owned() },
                    applied_at: ctx.now(),
                    version: before.as_ref().map_or(0, |row| row.version),
                };
                if let Some(before) = before
                    && before.manifest == row.manifest
                    && before.repository == row.repository
                    && before.app == row.app
                {
                    return Ok((view_of(ctx, tx, before).await?, false));
                }
                row.version = tx.app_put(&row).await?;
                let targets: Vec<&str> = row.app.targets.keys().map(Name::as_str).collect();
                Event::new(ledger::by(principal), "app.applied", &name)
                    .scope(&name)
                    .text(format!("targets: {}", targets.join(", ")))
                    .append(ctx, tx, &principal.project)
                    .await?;
                Ok::<_, Error>((view_of(ctx, tx, row).await?, true))
            })
        })
        .await?;
    Ok(result)
}

async fn view_of<V: View + ?Sized>(ctx: &Ctx, view: &mut V, row: AppRow) -> Result<AppView> {
    let hosts = view.host_list(&row.project).await?;
    let mut targets = BTreeMap::new();
    for (name, spec) in &row.app.targets {
        let target = TargetRef { app: row.app.name.clone(), target: name.clone() };
        let members = hosts.iter().filter(|host| spec.members.matches(&host.host.labels));
        let release = match view.target_get(&row.project, &target).await?.and_then(|state| state.release) {
            None => None,
            Some(id) => view.release_get(id).await?.map(|release| release.release.number),
        };
        let config = view.config_newest(&row.project, &target).await?;
        let lock = view.lock_get(&row.project, &target).await?.filter(|lock| lock.lock.until > ctx.now());
        let state = TargetState {
            members: members.map(|host| host.host.name.clone()).collect(),
            release,
            config_revision: config.map_or(0, |config| config.revision),
            lock,
        };
        targets.insert(name.clone(), state);
    }
    Ok(AppView { row, targets })
}

/// The project's apps that the caller may see, by name.
///
/// # Errors
/// What the store says.
pub async fn list(ctx: &Ctx, principal: &Principal) -> Result<Vec<AppView>> {
    ctx.store
        .read(|view| {
            Box::pin(async move {
                let mut all = Vec::new();
                for row in view.app_list(&principal.project).await? {
                    if authorize(principal, Action::Read, &Resource::app(&row.project, &row.app.name)).is_ok() {
                        all.push(view_of(ctx, view, row).await?);
                    }
                }
                Ok(all)
            })
        })
        .await
}

/// One app.
///
/// # Errors
/// There is none of this name, or the caller may not see it.
pub async fn show(ctx: &Ctx, principal: &Principal, name: &str) -> Result<AppView> {
    let name = Name::new("app", name)?;
    authorize(principal, Action::Read, &Resource::app(&principal.project, &name))?;
    ctx.store
        .read(|view| {
            Box::pin(async move {
                let row = resolve::app(view, principal, &name).await?;
                view_of(ctx, view, row).await
            })
        })
        .await
}
