//! From what people write to rows: names, ids, ends of ids.

use domain::authorize::Principal;
use domain::ids::{EnvironmentId, HostId, RolloutId, RunId};
use domain::name::{Name, TargetRef};
use domain::seed::{SeedAddress, SeedState, nearest};
use domain::stack::SeedRef;

use super::text;
use crate::error::{Code, Error, Result};
use crate::store::View;
use crate::store::app::AppRow;
use crate::store::environment::EnvironmentRow;
use crate::store::host::HostRow;
use crate::store::rollout::RolloutRow;
use crate::store::run::RunRow;
use crate::store::seed::SeedRow;

/// The longest reference that anybody writes: `OWNER/NAME`, `APP/TARGET`.
const MAX: usize = 160;

fn shown(given: &str) -> String {
    format!("{:?}", text::line(given, 80))
}

/// A host by its name or id.
///
/// # Errors
/// There is none in the caller's project.
pub async fn host<V: View + ?Sized>(view: &mut V, principal: &Principal, given: &str) -> Result<HostRow> {
    text::at_most("host", given, MAX)?;
    let row = match given.parse::<HostId>() {
        Ok(id) => view.host_get(id).await?,
        Err(_) => view.host_by_name(&principal.project, &Name::new("host", given)?).await?,
    };
    row.filter(|row| row.project == principal.project).ok_or_else(|| {
        Error::new(Code::HOST_NOT_FOUND, format!("there is no host {}; `muster host list` shows all", shown(given)))
    })
}

/// An app by its name.
///
/// # Errors
/// There is none in the caller's project.
pub async fn app<V: View + ?Sized>(view: &mut V, principal: &Principal, name: &Name) -> Result<AppRow> {
    view.app_get(&principal.project, name).await?.ok_or_else(|| {
        Error::new(Code::APP_NOT_FOUND, format!("there is no app {name}; make it with `muster app apply`"))
    })
}

/// A target and its app.
///
/// # Errors
/// There is no such app, or the app has no such target.
pub async fn target<V: View + ?Sized>(view: &mut V, principal: &Principal, given: &str) -> Result<(TargetRef, AppRow)> {
    text::at_most("target", given, MAX)?;
    let target = TargetRef::parse(given)?;
    let row = app(view, principal, &target.app).await?;
    if row.app.targets.contains_key(&target.target) {
        return Ok((target, row));
    }
    let known: Vec<String> = row.app.targets.keys().map(ToString::to_string).collect();
    let known = if known.is_empty() { "it has none".to_owned() } else { format!("it has {}", known.join(", ")) };
    Err(Error::new(Code::TARGET_NOT_FOUND, format!("{} has no target {}; {known}", target.app, target.target)))
}

/// An environment by its id, by the NAME of the caller's, or by OWNER/NAME.
///
/// # Errors
/// There is none.
pub async fn environment<V: View + ?Sized>(view: &mut V, principal: &Principal, given: &str) -> Result<EnvironmentRow> {
    text::at_most("environment", given, MAX)?;
    let missing = || {
        let text = format!("there is no environment {}; `muster env list --all` shows all", shown(given));
        Error::new(Code::ENV_NOT_FOUND, text)
    };
    let row = if let Ok(id) = given.parse::<EnvironmentId>() {
        view.environment_get(id).await?
    } else {
        let (owner, name) = match given.split_once('/') {
            None => (principal.id, Name::new("environment", given)?),
            Some((owner, name)) => {
                let name = Name::new("environment", name)?;
                let owner = Name::new("owner", owner)?;
                let row = view.principal_by_name(&principal.project, &owner).await?.ok_or_else(missing)?;
                (row.id, name)
            }
        };
        view.environment_by_name(&principal.project, owner, &name).await?
    };
    row.filter(|row| row.project == principal.project).ok_or_else(missing)
}

/// A seed by its id, NAME for the newest, NAME@VERSION, or OWNER/NAME for a snapshot.
///
/// # Errors
/// There is none; the nearest name is told.
pub async fn seed<V: View + ?Sized>(view: &mut V, principal: &Principal, given: &str) -> Result<SeedRow> {
    text::at_most("seed", given, MAX)?;
    let address = SeedAddress::parse(given).ok_or_else(|| {
        let text = format!("{} is no seed; write NAME, NAME@VERSION, or OWNER/NAME for a snapshot", shown(given));
        Error::new(Code::FIELD, text)
    })?;
    seed_at(view, principal, &address).await
}

/// As [`seed`], of what was read already.
///
/// # Errors
/// As [`seed`].
pub async fn seed_at<V: View + ?Sized>(view: &mut V, principal: &Principal, address: &SeedAddress) -> Result<SeedRow> {
    let unknown = |text: String| Error::new(Code::SEED_UNKNOWN, text);
    if let SeedAddress::Id(id) = address {
        let row = view.seed_get(*id).await?.filter(|row| row.project == principal.project);
        return row.ok_or_else(|| unknown(format!("there is no seed {id}; `muster seed list` shows all")));
    }
    let rows = view.seed_list(&principal.project).await?;
    let owner = match address {
        SeedAddress::Snapshot { owner, .. } => {
            view.principal_by_name(&principal.project, owner).await?.map(|row| row.id)
        }
        SeedAddress::Id(_) | SeedAddress::Seed(_) => None,
    };
    let fits = |row: &&SeedRow| match address {
        SeedAddress::Seed(seed) => !row.seed.snapshot && fits_seed(row, seed),
        SeedAddress::Snapshot { name, .. } => {
            row.seed.snapshot && Some(row.seed.owner) == owner && row.seed.name == *name
        }
        SeedAddress::Id(_) => false,
    };
    // What failed is found only when there is nothing else of its name; then what can be used; then the newest.
    let rank = |row: &&SeedRow| {
        (row.seed.ended_at.is_none(), row.seed.state == SeedState::Ready, row.seed.created_at, row.seed.id)
    };
    if let Some(found) = rows.iter().filter(fits).max_by_key(rank) {
        return Ok(found.clone());
    }
    Err(unknown(not_found(view, address, &rows).await?))
}

fn fits_seed(row: &SeedRow, seed: &SeedRef) -> bool {
    row.seed.name == seed.name && seed.version.as_ref().is_none_or(|version| row.seed.version == *version)
}

async fn not_found<V: View + ?Sized>(view: &mut V, address: &SeedAddress, rows: &[SeedRow]) -> Result<String> {
    let there = rows.iter().filter(|row| !row.seed.state.ended());
    if let SeedAddress::Seed(SeedRef { name, version: Some(version) }) = address {
        let same = there.clone().filter(|row| !row.seed.snapshot && row.seed.name == *name);
        let versions: Vec<&str> = same.map(|row| row.seed.version.as_str()).collect();
        if !versions.is_empty() {
            return Ok(format!("there is no {name}@{version}; {name} has the versions {}", versions.join(", ")));
        }
    }
    let (what, given, end) = match address {
        SeedAddress::Seed(seed) => ("seed", seed.name.to_string(), "`muster seed list` shows all"),
        SeedAddress::Snapshot { owner, name } => {
            ("snapshot", format!("{owner}/{name}"), "`muster seed list --snapshots --all` shows all")
        }
        SeedAddress::Id(id) => ("seed", id.to_string(), "`muster seed list` shows all"),
    };
    let mut known = Vec::new();
    for row in there {
        if !row.seed.snapshot {
            known.push((row.seed.name.to_string(), row.seed.name.to_string()));
        } else if let Some(owner) = view.principal_get(row.seed.owner).await? {
            let full = format!("{}/{}", owner.name, row.seed.name);
            known.push((full.clone(), full.clone()));
            // People forget whose it is.
            known.push((row.seed.name.to_string(), full));
        }
    }
    let near = nearest(&given, known.iter().map(|(name, _)| name.as_str()));
    let near = near.and_then(|near| known.iter().find(|(name, _)| name == near));
    Ok(match near {
        Some((_, full)) => format!("there is no {what} {given}; did you mean {full}? {end}"),
        None => format!("there is no {what} {given}; {end}"),
    })
}

/// A run by its id, or the end of one (at least six characters) among the last 200.
///
/// # Errors
/// There is none, or several end so.
pub async fn run<V: View + ?Sized>(view: &mut V, principal: &Principal, given: &str) -> Result<RunRow> {
    text::at_most("run", given, MAX)?;
    let missing = || {
        Error::new(Code::RUN_NOT_FOUND, format!("there is no run {}; `muster run list` shows the last", shown(given)))
    };
    if let Ok(id) = given.parse::<RunId>() {
        return view.run_get(id).await?.filter(|row| row.project == principal.project).ok_or_else(missing);
    }
    let end = id_end(given, "run").ok_or_else(missing)?;
    let rows = view.run_list(&principal.project, None, 200).await?;
    let mut fitting = rows.into_iter().filter(|row| row.run.id.uuid().simple().to_string().ends_with(&end));
    let first = fitting.next().ok_or_else(missing)?;
    if fitting.next().is_some() {
        return Err(Error::new(Code::AMBIGUOUS, format!("several runs end in {}; write more of the id", shown(given))));
    }
    Ok(first)
}

/// A rollout by its id, the end of one (at least six characters) among the last 200, or APP/TARGET for its newest.
///
/// # Errors
/// There is none, or several end so.
pub async fn rollout<V: View + ?Sized>(view: &mut V, principal: &Principal, given: &str) -> Result<RolloutRow> {
    text::at_most("rollout", given, MAX)?;
    let missing = || {
        let text = format!("there is no rollout {}; `muster rollout list` shows the last", shown(given));
        Error::new(Code::ROLLOUT_NOT_FOUND, text)
    };
    if let Ok(id) = given.parse::<RolloutId>() {
        return view.rollout_get(id).await?.filter(|row| row.project == principal.project).ok_or_else(missing);
    }
    if given.contains('/') {
        let (target, _) = target(view, principal, given).await?;
        return view.rollout_list(&principal.project, Some(&target), 1).await?.into_iter().next().ok_or_else(missing);
    }
    let end = id_end(given, "rollout").ok_or_else(missing)?;
    let rows = view.rollout_list(&principal.project, None, 200).await?;
    let mut fitting = rows.into_iter().filter(|row| row.plan.rollout.uuid().simple().to_string().ends_with(&end));
    let first = fitting.next().ok_or_else(missing)?;
    if fitting.next().is_some() {
        return Err(Error::new(
            Code::AMBIGUOUS,
            format!("several rollouts end in {}; write more of the id", shown(given)),
        ));
    }
    Ok(first)
}

fn id_end(given: &str, _noun: &str) -> Option<String> {
    let end: String = given.chars().filter(|c| *c != '-').collect();
    let good = (6..=32).contains(&end.len()) && end.bytes().all(|b| b.is_ascii_hexdigit());
    good.then(|| end.to_ascii_lowercase())
}
