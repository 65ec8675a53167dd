//! What the data of an environment begins with, snapshots of it, and going back to what it was.

use domain::authorize::{Action, Principal, authorize};
use domain::environment::{EnvironmentState, Wanted};
use domain::host::Liveness;
use domain::ids::{PrincipalId, SeedId};
use domain::name::Name;
use domain::release::Digest;
use domain::seed::{Begin, Data, Seed, SeedAddress, SeedState, newest};
use domain::stack::SeedRef;

use super::environments::{self, EnvironmentView, Up};
use super::idempotency::{self, Key};
use super::ledger::{self, Event};
use super::seeds::{self, Sealed, SeedView};
use super::{App, quotas, resolve};
use crate::error::{Code, Error, Result};
use crate::store::environment::EnvironmentRow;
use crate::store::seed::SeedRow;
use crate::store::{Tx, View};

/// A seed that is ready, with its address for people.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Beginning {
    /// The seed.
    pub row: SeedRow,
    /// `NAME@VERSION`, or `OWNER/NAME` for a snapshot.
    pub address: String,
}

impl Beginning {
    /// The data of a new environment that begins with it.
    #[must_use]
    pub fn data(&self) -> Data {
        let digest = self.row.seed.digest.clone();
        digest.map_or_else(Data::default, |digest| Data::of(self.row.seed.id, self.address.clone(), digest))
    }
}

/// The seed that a new environment begins with: `from` if given, else what its stack says.
///
/// # Errors
/// There is none of that name, it is not ready, or the caller may not see it.
pub async fn beginning<V: View + ?Sized>(
    view: &mut V,
    principal: &Principal,
    from: &str,
    stack: Option<&SeedRef>,
) -> Result<Option<Beginning>> {
    let row = match (from, stack) {
        ("", None) => return Ok(None),
        ("", Some(seed)) => resolve::seed_at(view, principal, &SeedAddress::Seed(newest(seed.clone()))).await?,
        (from, _) => resolve::seed(view, principal, from).await?,
    };
    authorize(principal, Action::Read, &seeds::resource(&row))?;
    let view = seeds::view_of(view, row, 0).await?;
    let address = view.address();
    let refused = |code, why| Err(Error::new(code, format!("{address} {why}; `muster seed show {address}` says more")));
    match view.row.seed.state {
        SeedState::Ready => {}
        SeedState::Making => return refused(Code::SEED_STATE, "is still being made"),
        SeedState::Failed => return refused(Code::SEED_UNKNOWN, "is not there: it could not be made"),
        SeedState::Removing | SeedState::Removed => return refused(Code::SEED_STATE, "is being removed"),
    }
    Ok(Some(Beginning { row: view.row, address }))
}

/// A request that names a snapshot and no stack gets the stack that the snapshot was taken of.
///
/// # Errors
/// There is no such snapshot, it is not the caller's to see, or it is a seed, which has no stack.
pub async fn with_stack(app: &App, principal: &Principal, ask: &Up) -> Result<Up> {
    let mut ask = ask.clone();
    if !ask.stack_file.is_empty() || ask.from.is_empty() {
        return Ok(ask);
    }
    let from = ask.from.clone();
    let found = app
        .store
        .read(|view| {
            Box::pin(async move {
                let Some(begin) = beginning(view, principal, &from, None).await? else { return Ok(None) };
                if !begin.row.seed.snapshot {
                    let text = format!("{} is a seed, not a snapshot: give a stack file with --file", begin.address);
                    return Err(Error::new(Code::FIELD, text));
                }
                let stack = seeds::unseal(app, view, begin.row.seed.id).await?;
                Ok(stack.map(|stack| (stack, begin.row.seed.app)))
            })
        })
        .await?;
    let Some((stack, of_app)) = found else {
        return Err(Error::internal(format!("the snapshot {} has no stack", ask.from)));
    };
    let Sealed { stack_file, file, variables, env_files, canaries: _ } = stack;
    (ask.stack_file, ask.file, ask.variables, ask.env_files) = (stack_file, file, variables, env_files);
    if ask.app.is_empty() {
        ask.app = of_app.map(|app| app.to_string()).unwrap_or_default();
    }
    Ok(ask)
}

fn up_only(row: &EnvironmentRow) -> Result<()> {
    let state = row.environment.observed.state;
    // A sleeping one has its data too; its host wakes it if it must.
    let there = !matches!(state, EnvironmentState::Pending | EnvironmentState::Stopping | EnvironmentState::Gone);
    if row.environment.wanted == Wanted::Up && row.gone_at.is_none() && there {
        return Ok(());
    }
    let text = format!("the environment {} is not up; `muster env up` first", row.environment.name);
    Err(Error::new(Code::ENV_NOT_UP, text))
}

/// Orders a snapshot of an environment, under a name of the caller's.
///
/// # Errors
/// There is no such environment, it is not up, its host is not heard from, the name is taken, or the caller may not.
pub async fn snapshot(
    app: &App,
    principal: &Principal,
    given: &str,
    name: &str,
    key: Option<&Key>,
) -> Result<SeedView> {
    let name = &Name::new("snapshot", name)?;
    let view = app
        .store
        .write(|tx| {
            Box::pin(async move {
                if let Some(made) = idempotency::created(tx, principal, key).await? {
                    let row = resolve::seed(tx, principal, &made).await?;
                    return seeds::view_of(tx, row, 0).await;
                }
                let environment = resolve::environment(tx, principal, given).await?;
                authorize(principal, Action::Write, &environments::resource(&environment))?;
                up_only(&environment)?;
                quotas::more_data(app, tx, &environment).await?;
                let host = tx.host_get(environment.environment.host).await?;
                if host.as_ref().is_none_or(|host| app.liveness(host) == Liveness::Unreachable) {
                    let text = format!("the host of {} is not heard from", environment.environment.name);
                    return Err(Error::new(Code::HOST_UNREACHABLE, text));
                }
                let row = take(app, tx, &environment, name.clone(), principal.id).await?;
                idempotency::note(app, tx, principal, key, row.seed.id).await?;
                let text = format!("of {}", environment.environment.name);
                seeds::event(app, tx, ledger::by(principal), "environment.snapshot", &row, &text).await?;
                seeds::view_of(tx, row, 0).await
            })
        })
        .await?;
    app.wake.host(view.row.seed.host);
    Ok(view)
}

/// A snapshot that its host is to take, with the stack of the environment.
///
/// # Errors
/// The owner has one of this name.
pub(super) async fn take(
    app: &App,
    tx: &mut dyn Tx,
    environment: &EnvironmentRow,
    name: Name,
    owner: PrincipalId,
) -> Result<SeedRow> {
    let of = &environment.environment;
    let mut seed = Seed::new(SeedId::new(app.ids.uuid()), name, String::new(), owner, of.host, app.now());
    (seed.snapshot, seed.app, seed.environment) = (true, of.app.clone(), Some(of.id));
    let mut row = SeedRow { project: environment.project.clone(), seed, version: 0 };
    let mut there = tx.seed_list(&environment.project).await?.into_iter();
    if there.any(|other| other.seed.ended_at.is_none() && other.same_name(&row)) {
        let text = format!("you have a snapshot {}; choose another name, or `muster seed rm` it", row.seed.name);
        return Err(Error::new(Code::SEED_EXISTS, text));
    }
    row.version = tx.seed_put(&row).await?;
    let stack = Sealed {
        stack_file: of.stack_file.clone(),
        file: environment.file.clone(),
        variables: of.variables.clone(),
        env_files: environment.env_files.clone(),
        canaries: Vec::new(),
    };
    seeds::seal(app, tx, &row, &stack).await?;
    Ok(row)
}

/// Keeps the data of an environment as it is, and lets it go on with a copy, before a service is done on it: `env undo`
/// brings it back. Answers what is told of that; nothing where its host has not yet seen what was last wanted, which is then
/// data that is laid anew in any case.
///
/// # Errors
/// Its owner, or the environment itself, holds as much disk as it may.
pub(super) async fn keep_before(app: &App, tx: &mut dyn Tx, row: &mut EnvironmentRow, service: &str) -> Result<String> {
    let of = &row.environment;
    if of.observed.generation != of.generation || of.run.is_some() || of.wanted != Wanted::Up {
        return Ok(String::new());
    }
    quotas::more_data(app, tx, row).await?;
    row.data.begin(Begin::Epoch(row.data.epoch));
    Ok(format!("; its data is kept as it was before {service}"))
}

/// Brings the data of an environment back to what it began with, or with `undo` to what it was before the last reset.
///
/// # Errors
/// There is no such environment, it is not up, belongs to a run or to somebody else, or nothing is kept to go back to.
pub async fn reset(app: &App, principal: &Principal, given: &str, undo: bool) -> Result<EnvironmentView> {
    let view = app
        .store
        .write(|tx| {
            Box::pin(async move {
                let mut row = resolve::environment(tx, principal, given).await?;
                authorize(principal, Action::Write, &environments::resource(&row))?;
                // Not even an admin throws away what somebody has in their data.
                if row.environment.owner != principal.id {
                    let text = "only its owner resets the data of an environment";
                    return Err(Error::new(Code::PERMISSION_DENIED, text));
                }
                if row.environment.run.is_some() {
                    let text = "the environment belongs to a run, and its data with it";
                    return Err(Error::new(Code::ENV_OF_RUN, text));
                }
                up_only(&row)?;
                // The way back is never closed: it keeps nothing more.
                if !undo {
                    quotas::more_data(app, tx, &row).await?;
                }
                let begin = if undo { before(&row)? } else { row.data.origin() };
                let text = told(&row, &begin);
                row.data.begin(begin);
                row.environment.generation = row.environment.generation.next();
                row.version = tx.environment_put(&row).await?;
                Event::new(ledger::by(principal), "environment.reset", row.environment.id)
                    .scope(row.environment.id)
                    .text(text)
                    .append(app, tx, &row.project)
                    .await?;
                environments::view_of(app, tx, principal, row).await
            })
        })
        .await?;
    app.wake.host(view.row.environment.host);
    Ok(view)
}

/// An environment that is to be compared with what it began with, and the digest of that. Its owner, or an admin; with
/// `values` its owner alone.
///
/// # Errors
/// There is none, it is not up, it began with nothing, or the caller may not.
pub async fn compare(app: &App, principal: &Principal, given: &str, values: bool) -> Result<(EnvironmentView, Digest)> {
    app.store
        .write(|tx| {
            Box::pin(async move {
                let row = resolve::environment(tx, principal, given).await?;
                authorize(principal, Action::Write, &environments::resource(&row))?;
                authorize(principal, Action::ReadSecret, &environments::resource(&row))?;
                if values && row.environment.owner != principal.id {
                    let text = "values are shown to the owner of the environment alone; leave --values out";
                    return Err(Error::new(Code::PERMISSION_DENIED, text));
                }
                up_only(&row)?;
                let Some(digest) = row.data.digest.clone() else {
                    let text = format!(
                        "{0} began with empty data, so everything in it is new; `muster env snapshot NAME {0}` takes it \
                         as it is now, and what begins with that (`muster env up --from`) can be compared with it",
                        row.environment.name
                    );
                    return Err(Error::new(Code::DIFF_NO_SEED, text));
                };
                let address = row.data.address.clone();
                environments::event(app, tx, principal, &row, "environment.diff", &address).await?;
                Ok((environments::view_of(app, tx, principal, row).await?, digest))
            })
        })
        .await
}

fn before(row: &EnvironmentRow) -> Result<Begin> {
    row.data.undo().map(Begin::Epoch).ok_or_else(|| {
        let text = format!("nothing is kept of the data of {} before its last reset", row.environment.name);
        Error::new(Code::ENV_NO_UNDO, text)
    })
}

fn told(row: &EnvironmentRow, begin: &Begin) -> String {
    let name = &row.environment.name;
    match begin {
        Begin::Nothing => format!("{name} to empty volumes"),
        Begin::Seed(_) => format!("{name} to {}", row.data.address),
        Begin::Epoch(epoch) => format!("{name} back to before reset {}", epoch + 1),
    }
}
