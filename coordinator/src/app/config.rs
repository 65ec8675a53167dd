//! Settings of a target, by revision. A revision changes nothing that runs.

use std::collections::BTreeMap;

use domain::authorize::{Action, Principal, Resource, authorize};
use domain::name::TargetRef;

use super::idempotency::{self, Key};
use super::ledger::{self, Event};
use super::{Ctx, resolve, text};
use crate::error::{Code, Error, Result};
use crate::store::View;
use crate::store::config::ConfigRow;

/// A revision with what it changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Revision {
    /// The revision.
    pub row: ConfigRow,
    /// Who made it.
    pub actor: String,
    /// For people: `HISTORY_LIMIT 50 -> 100`.
    pub changes: Vec<String>,
}

const MAX_KEYS: usize = 500;
const MAX_BYTES: usize = 256 << 10;
const MAX_VALUE: usize = 32 << 10;

fn check_key(key: &str) -> Result<()> {
    let mut bytes = key.bytes();
    let good = bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && key.len() <= 128
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let shown = text::line(key, 80);
    if !good {
        let text =
            format!("{shown:?} is not the name of a setting; use letters, digits and '_', not beginning with a digit");
        return Err(Error::new(Code::CONFIG_KEY, text));
    }
    if key.starts_with("MUSTER_") {
        return Err(Error::new(Code::CONFIG_KEY, format!("{shown:?} begins with MUSTER_, which Muster sets itself")));
    }
    Ok(())
}

fn check_value(key: &str, value: &str) -> Result<()> {
    text::at_most(&format!("the value of {key}"), value, MAX_VALUE)?;
    if value.contains('\0') {
        return Err(Error::new(Code::CONFIG_KEY, format!("the value of {key} holds a NUL character")));
    }
    Ok(())
}

/// What changed between two sets of settings, for people.
#[must_use]
pub fn changes(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> Vec<String> {
    let keys: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let short = |value: &String| text::line(value, 40);
    let one = |key: &String| match (before.get(key), after.get(key)) {
        (Some(a), Some(b)) if a == b => None,
        (Some(a), Some(b)) => Some(format!("{key} {} -> {}", short(a), short(b))),
        (None, Some(b)) => Some(format!("{key} set to {}", short(b))),
        (Some(_), None) => Some(format!("{key} unset")),
        (None, None) => None,
    };
    keys.into_iter().filter_map(one).collect()
}

/// Makes a revision out of the newest one. The same settings again make no new revision.
///
/// # Errors
/// A name or value is malformed, something to unset is not there, there is no such target, or the caller may not.
pub async fn set(
    ctx: &Ctx,
    principal: &Principal,
    target: &str,
    set: &BTreeMap<String, String>,
    unset: &[String],
    key: Option<&Key>,
) -> Result<Revision> {
    text::map_at_most("settings", set, MAX_KEYS, MAX_BYTES)?;
    for (name, value) in set {
        check_key(name)?;
        check_value(name, value)?;
    }
    unset.iter().try_for_each(|name| check_key(name))?;
    if set.is_empty() && unset.is_empty() {
        return Err(Error::new(Code::CONFIG_EMPTY, "nothing to set and nothing to unset; write KEY=VALUE"));
    }
    if let Some(both) = unset.iter().find(|name| set.contains_key(*name)) {
        return Err(Error::new(Code::AMBIGUOUS, format!("{both} is both set and unset")));
    }
    ctx.store
        .write(|tx| {
            Box::pin(async move {
                let parsed = TargetRef::parse(target)?;
                authorize(principal, Action::Deploy, &Resource::target(&principal.project, &parsed))?;
                let (target, _) = resolve::target(tx, principal, target).await?;
                let newest = tx.config_newest(&principal.project, &target).await?;
                if let Some(made) = idempotency::created(tx, principal, key).await? {
                    let revision = made.parse().unwrap_or(0);
                    let row = tx.config_get(&principal.project, &target, revision).await?;
                    return revision_of(tx, row.ok_or_else(|| Error::internal("a revision is gone"))?).await;
                }
                let before = newest.as_ref().map(|row| row.values.clone()).unwrap_or_default();
                let values = changed(&before, set, unset)?;
                let row = ConfigRow {
                    project: principal.project.clone(),
                    principal: principal.id,
                    target: target.clone(),
                    revision: newest.as_ref().map_or(1, |row| row.revision + 1),
                    values,
                    created_at: ctx.now(),
                };
                if let Some(newest) = newest
                    && newest.values == row.values
                {
                    idempotency::note(ctx, tx, principal, key, newest.revision).await?;
                    return revision_of(tx, newest).await;
                }
                tx.config_insert(&row).await?;
                idempotency::note(ctx, tx, principal, key, row.revision).await?;
                // Values may be private; the ledger names the keys only.
                let names: Vec<&str> = set.keys().chain(unset).map(String::as_str).collect();
                Event::new(ledger::by(principal), "config.set", &target)
                    .scope(&target)
                    .text(format!("revision {}: {}", row.revision, names.join(", ")))
                    .append(ctx, tx, &principal.project)
                    .await?;
                revision_of(tx, row).await
            })
        })
        .await
}

fn changed(
    before: &BTreeMap<String, String>,
    set: &BTreeMap<String, String>,
    unset: &[String],
) -> Result<BTreeMap<String, String>> {
    let mut values = before.clone();
    for name in unset {
        if values.remove(name).is_none() {
            return Err(Error::new(
                Code::CONFIG_UNKNOWN,
                format!("{name} is not set; `muster config list` shows what is"),
            ));
        }
    }
    values.extend(set.clone());
    text::map_at_most("settings", &values, MAX_KEYS, MAX_BYTES)?;
    Ok(values)
}

async fn revision_of<V: View + ?Sized>(view: &mut V, row: ConfigRow) -> Result<Revision> {
    let before = match row.revision {
        0 | 1 => BTreeMap::new(),
        n => view.config_get(&row.project, &row.target, n - 1).await?.map(|row| row.values).unwrap_or_default(),
    };
    let actor = view.principal_get(row.principal).await?.map(|row| row.name.to_string()).unwrap_or_default();
    Ok(Revision { changes: changes(&before, &row.values), actor, row })
}

/// The last 100 revisions, newest first.
///
/// # Errors
/// There is no such target, or the caller may not see it.
pub async fn list(ctx: &Ctx, principal: &Principal, target: &str) -> Result<Vec<Revision>> {
    let parsed = TargetRef::parse(target)?;
    authorize(principal, Action::Read, &Resource::target(&principal.project, &parsed))?;
    ctx.store
        .read(|view| {
            Box::pin(async move {
                let (target, _) = resolve::target(view, principal, target).await?;
                let mut all = Vec::new();
                for row in view.config_list(&principal.project, &target, 100).await? {
                    all.push(revision_of(view, row).await?);
                }
                Ok(all)
            })
        })
        .await
}
