//! How long environments live, and what is done again in them while they do.

use std::time::Duration;

use domain::authorize::{Action, Principal, authorize};
use domain::environment::life::Tenure;
use domain::environment::{Source, Wanted, migration};
use domain::stack::Stack;

use super::environments::{self, EnvironmentView, resource};
use super::{App, apps, environment_data, resolve};
use crate::error::{Code, Error, Result};
use crate::store::Tx;
use crate::store::environment::EnvironmentRow;

/// Longest time that an environment can be kept for at once.
const MOST: Duration = Duration::from_secs(366 * 86_400);

/// Its end, as far as it is known.
#[must_use]
pub fn tenure(row: &EnvironmentRow) -> Tenure {
    let environment = &row.environment;
    let last_used = environment.observed.activity.as_ref().map_or(environment.created_at, |seen| seen.last_used);
    Tenure {
        last_used: last_used.max(environment.created_at),
        keep_until: row.life.keep_until,
        warned: row.life.warned,
    }
}

async fn own(tx: &mut dyn Tx, principal: &Principal, given: &str) -> Result<EnvironmentRow> {
    let row = resolve::environment(tx, principal, given).await?;
    authorize(principal, Action::Write, &resource(&row))?;
    if row.environment.run.is_some() {
        return Err(Error::new(Code::ENV_OF_RUN, "the environment belongs to a run, and ends with it"));
    }
    if row.environment.wanted == Wanted::Down {
        let text = format!("{} is being removed; `muster env up` makes another", row.environment.name);
        return Err(Error::new(Code::ENV_NOT_FOUND, text));
    }
    Ok(row)
}

/// Keeps an environment for so long from now on, whatever its use; zero: as its `ttl` says.
///
/// # Errors
/// There is none, or the caller may not.
pub async fn keep(app: &App, principal: &Principal, given: &str, time: Duration) -> Result<EnvironmentView> {
    if time > MOST {
        return Err(Error::new(Code::FIELD, "an environment can be kept for a year at most; keep it again later"));
    }
    app.store
        .write(|tx| {
            Box::pin(async move {
                let mut row = own(tx, principal, given).await?;
                row.life.keep_until = (!time.is_zero()).then(|| app.now().plus(time));
                row.version = tx.environment_put(&row).await?;
                let text = if time.is_zero() {
                    "as its ttl says".to_owned()
                } else {
                    format!("for {}", domain::time::format_duration(time))
                };
                environments::event(app, tx, principal, &row, "environment.kept", &text).await?;
                environments::view_of(app, tx, principal, row).await
            })
        })
        .await
}

/// Stops and starts a service, or all of them.
///
/// # Errors
/// There is none, or the caller may not.
pub async fn restart(app: &App, principal: &Principal, given: &str, service: &str) -> Result<EnvironmentView> {
    again(app, principal, given, service, false).await
}

/// Builds a service's image again and makes its container anew.
///
/// # Errors
/// There is none, it is not built from sources, or the caller may not.
pub async fn rebuild(app: &App, principal: &Principal, given: &str, service: &str) -> Result<EnvironmentView> {
    again(app, principal, given, service, true).await
}

async fn again(app: &App, principal: &Principal, given: &str, service: &str, build: bool) -> Result<EnvironmentView> {
    let view = app
        .store
        .write(|tx| {
            Box::pin(async move {
                let mut row = own(tx, principal, given).await?;
                let stack = stack(&row)?;
                let migrates = migration::is_one(&stack, service);
                let services = services(&row, stack, service, build)?;
                let kept = if migrates {
                    environment_data::keep_before(app, tx, &mut row, service).await?
                } else {
                    String::new()
                };
                let generation = row.environment.generation.next();
                row.environment.generation = generation;
                // With its data laid anew, everything is done again already.
                if build || kept.is_empty() {
                    let asked = if build { &mut row.life.rebuilds } else { &mut row.life.restarts };
                    asked.extend(services.iter().map(|name| (name.clone(), generation.0)));
                }
                row.version = tx.environment_put(&row).await?;
                let kind = if build { "environment.rebuild" } else { "environment.restart" };
                environments::event(app, tx, principal, &row, kind, &(services.join(" ") + &kept)).await?;
                environments::view_of(app, tx, principal, row).await
            })
        })
        .await?;
    app.wake.host(view.row.environment.host);
    Ok(view)
}

/// An environment whose service the caller may enter: its owner, or an admin.
///
/// # Errors
/// There is none, it has no such service, or the caller may not.
pub async fn enter(app: &App, principal: &Principal, given: &str, service: &str) -> Result<EnvironmentView> {
    app.store
        .read(|view| {
            Box::pin(async move {
                let row = resolve::environment(view, principal, given).await?;
                authorize(principal, Action::Write, &resource(&row))?;
                authorize(principal, Action::ReadSecret, &resource(&row))?;
                if !row.environment.observed.services.iter().any(|one| one.name == service) {
                    let names: Vec<&str> =
                        row.environment.observed.services.iter().map(|one| one.name.as_str()).collect();
                    let text = format!(
                        "{} has no service {:?}; it has {}",
                        row.environment.name,
                        super::text::line(service, 100),
                        names.join(", ")
                    );
                    return Err(Error::new(Code::ENV_SERVICE, text));
                }
                environments::plain_view(app, view, row).await
            })
        })
        .await
}

/// An environment into whose uploaded folder the caller may write: its owner, or an admin.
///
/// # Errors
/// There is none, its folder is not an uploaded one, or the caller may not.
pub async fn uploaded(app: &App, principal: &Principal, given: &str) -> Result<EnvironmentView> {
    app.store
        .read(|view| {
            Box::pin(async move {
                let row = resolve::environment(view, principal, given).await?;
                authorize(principal, Action::Write, &resource(&row))?;
                authorize(principal, Action::ReadSecret, &resource(&row))?;
                if row.environment.source != Source::Upload {
                    let text = format!(
                        "{} uses a folder of its host, or none; `muster env up --sync` uploads this one instead",
                        row.environment.name
                    );
                    return Err(Error::new(Code::SYNC_SOURCE, text));
                }
                environments::plain_view(app, view, row).await
            })
        })
        .await
}

/// Says in the ledger that somebody entered a service; `what` is the program or the port, never its arguments.
///
/// # Errors
/// What the store says.
pub async fn entered(
    app: &App,
    principal: &Principal,
    view: &EnvironmentView,
    kind: &'static str,
    service: &str,
    what: &str,
) -> Result<()> {
    app.store
        .write(|tx| {
            Box::pin(async move {
                let text = format!("{service} {}", super::text::line(what, 100));
                environments::event(app, tx, principal, &view.row, kind, &text).await
            })
        })
        .await
}

/// The stack of an environment: its file is read again, as it was given.
///
/// # Errors
/// This version does not take the file any more.
pub fn stack(row: &EnvironmentRow) -> Result<Stack> {
    let environment = &row.environment;
    let files = |path: &str| row.env_files.get(path).cloned();
    let input = manifest::stack::Input {
        file: file(row),
        text: &environment.stack_file,
        variables: &environment.variables,
        files: &files,
    };
    let reading = manifest::stack::read(input).map_err(|problems| apps::problems_error(Code::STACK, &problems))?;
    Ok(reading.stack)
}

fn file(row: &EnvironmentRow) -> &str {
    if row.file.is_empty() { "compose.yaml" } else { &row.file }
}

/// The services that are meant.
fn services(row: &EnvironmentRow, stack: Stack, service: &str, build: bool) -> Result<Vec<String>> {
    if service.is_empty() && !build {
        return Ok(stack.services.into_keys().collect());
    }
    let Some(found) = stack.services.get(service) else {
        let names: Vec<String> = stack.services.into_keys().collect();
        let text = format!("{} has no service {service:?}; it has {}", row.environment.name, names.join(", "));
        return Err(Error::new(Code::ENV_SERVICE, text));
    };
    if build && found.build.is_none() {
        let text = format!(
            "{service} is not built from sources: it has no `build` in {}; `muster env restart` restarts it",
            file(row)
        );
        return Err(Error::new(Code::ENV_SERVICE, text));
    }
    Ok(vec![service.to_owned()])
}
