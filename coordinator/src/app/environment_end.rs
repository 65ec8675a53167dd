//! The end of environments that nobody uses: a warning, a snapshot of the data, and only then the removal.

use std::collections::BTreeSet;
use std::time::Duration;

use domain::environment::Wanted;
use domain::environment::life::Expiry;
use domain::event::Actor;
use domain::host::Liveness;
use domain::ids::{EnvironmentId, SeedId};
use domain::name::Name;
use domain::seed::SeedState;
use domain::stack::Ttl;
use domain::time::Timestamp;

use super::environment_life::tenure;
use super::ledger::Event;
use super::{App, Ctx, environment_data, seeds};
use crate::error::{Error, Result};
use crate::store::environment::EnvironmentRow;
use crate::store::seed::SeedRow;
use crate::store::{PROJECT, Tx};

/// How often it is looked at least.
const SELDOM: Duration = Duration::from_secs(30);
/// How often while a host takes a snapshot.
const OFTEN: Duration = Duration::from_secs(2);
/// A snapshot that failed is tried again after so long.
const AGAIN: Duration = Duration::from_secs(600);
/// What a host says of an environment in which there is nothing to take.
const EMPTY: &str = "E_SNAPSHOT_EMPTY";
/// Longest name.
const LONGEST: usize = 63;

/// What a look at one environment came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Looked {
    /// Nothing to do for its host.
    Nothing,
    /// Its host takes a snapshot.
    Waits,
    /// Its host has something new to do.
    Ordered,
}

/// How far the snapshot of an environment's end is; a fact of the store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mark {
    /// It was ordered.
    Taking(SeedId),
    /// It failed; it is tried again then.
    Again(Timestamp),
}

impl Mark {
    fn parse(text: &str) -> Option<Self> {
        match text.split_once(' ')? {
            ("taking", id) => id.parse().ok().map(Self::Taking),
            ("again", at) => at.parse().ok().map(|at| Self::Again(Timestamp(at))),
            _ => None,
        }
    }

    fn text(self) -> String {
        match self {
            Self::Taking(id) => format!("taking {id}"),
            Self::Again(at) => format!("again {}", at.0),
        }
    }
}

/// The fact's key.
#[must_use]
pub fn mark_key(id: EnvironmentId) -> String {
    format!("environment/{id}/end")
}

/// Warns of environments that end soon, and ends those that were warned of. Hosts that are not heard from keep theirs:
/// nobody knows how those are used. Answers when to look again.
///
/// # Errors
/// What the store says.
pub async fn expire(app: &App) -> Result<Duration> {
    let (due, mut pause) = due(app).await?;
    for row in due {
        let (id, host) = (row.environment.id, row.environment.host);
        let looked = app
            .store
            .write(|tx| {
                Box::pin(async move {
                    // It may have been used in between.
                    let Some(row) = tx.environment_get(id).await? else { return Ok(Looked::Nothing) };
                    end(app, tx, row).await
                })
            })
            .await?;
        if looked == Looked::Ordered {
            app.wake.host(host);
        }
        if looked != Looked::Nothing {
            pause = pause.min(OFTEN);
        }
    }
    Ok(pause)
}

async fn due(app: &App) -> Result<(Vec<EnvironmentRow>, Duration)> {
    app.store
        .read(|view| {
            Box::pin(async move {
                let (mut due, mut pause) = (Vec::new(), SELDOM);
                for row in view.environment_list(PROJECT, None).await? {
                    // Short lives are looked at more often.
                    if let Some(ttl) = row.life.ttl.filter(|_| mortal(&row)) {
                        pause = pause.min((ttl / 8).max(Duration::from_millis(500)));
                    }
                    if expiry(app, &row) == Expiry::Keep {
                        continue;
                    }
                    let host = view.host_get(row.environment.host).await?;
                    if host.is_some_and(|host| app.liveness(&host) == Liveness::Ready) {
                        due.push(row);
                    }
                }
                Ok::<_, Error>((due, pause))
            })
        })
        .await
}

fn mortal(row: &EnvironmentRow) -> bool {
    row.environment.run.is_none() && row.environment.wanted == Wanted::Up && row.gone_at.is_none()
}

fn expiry(app: &App, row: &EnvironmentRow) -> Expiry {
    match row.life.ttl {
        Some(ttl) if mortal(row) => tenure(row).expiry(Ttl(ttl), app.now()),
        _ => Expiry::Keep,
    }
}

/// Warns of one environment's end, or goes a step towards it.
async fn end(app: &App, tx: &mut dyn Tx, mut row: EnvironmentRow) -> Result<Looked> {
    let name = row.environment.name.clone();
    match expiry(app, &row) {
        Expiry::Keep => Ok(Looked::Nothing),
        Expiry::Warn(ends) => {
            row.life.warned = Some((ends, app.now()));
            tx.environment_put(&row).await?;
            let left = domain::time::format_duration(ends.since(app.now()));
            let text = format!(
                "{name} is not used; in {left} its data becomes a snapshot and it is removed. `muster env keep {name}` \
                 keeps it"
            );
            event(app, tx, &row, ("environment.expiring", ""), text).await?;
            Ok(Looked::Nothing)
        }
        Expiry::Remove => match kept(app, tx, &row).await? {
            Kept::NotYet(looked) => Ok(looked),
            Kept::Nothing => remove(app, tx, row, "; it had no data to keep").await,
            Kept::As(address) => {
                let back =
                    format!("; its data is the snapshot {address}: `muster env up --from {address}` brings it back");
                remove(app, tx, row, &back).await
            }
        },
    }
}

async fn remove(app: &App, tx: &mut dyn Tx, mut row: EnvironmentRow, data: &str) -> Result<Looked> {
    row.environment.wanted = Wanted::Down;
    row.environment.generation = row.environment.generation.next();
    tx.environment_put(&row).await?;
    let text = format!("{} was not used for its ttl and not kept after the warning{data}", row.environment.name);
    event(app, tx, &row, ("environment.expired", ""), text).await?;
    Ok(Looked::Ordered)
}

/// What became of the data of an environment that ends.
enum Kept {
    /// It is not kept yet.
    NotYet(Looked),
    /// There is none.
    Nothing,
    /// It is this snapshot.
    As(String),
}

async fn kept(app: &App, tx: &mut dyn Tx, row: &EnvironmentRow) -> Result<Kept> {
    let mark = tx.meta_get(&mark_key(row.environment.id)).await?;
    let seed = match mark.as_deref().and_then(Mark::parse) {
        Some(Mark::Again(at)) if app.now() < at => return Ok(Kept::NotYet(Looked::Nothing)),
        Some(Mark::Taking(id)) => tx.seed_get(id).await?,
        _ => None,
    };
    match seed {
        Some(seed) if seed.seed.state == SeedState::Making => Ok(Kept::NotYet(Looked::Waits)),
        // One of before a later use is not its data.
        Some(seed) if seed.seed.state == SeedState::Ready && seed.seed.created_at >= tenure(row).last_used => {
            let view = seeds::view_of(tx, seed, 0).await?;
            Ok(Kept::As(view.address()))
        }
        Some(seed) if seed.seed.state == SeedState::Failed => failed(app, tx, row, &seed).await,
        _ => take(app, tx, row).await,
    }
}

async fn take(app: &App, tx: &mut dyn Tx, row: &EnvironmentRow) -> Result<Kept> {
    let name = free_name(tx, row).await?;
    let seed = environment_data::take(app, tx, row, name, row.environment.owner).await?;
    tx.meta_put(&mark_key(row.environment.id), &Mark::Taking(seed.seed.id).text()).await?;
    let text = format!("of {}, before it is removed", row.environment.name);
    seeds::event(app, tx, Actor::Coordinator, "environment.snapshot", &seed, &text).await?;
    Ok(Kept::NotYet(Looked::Ordered))
}

async fn failed(app: &App, tx: &mut dyn Tx, row: &EnvironmentRow, seed: &SeedRow) -> Result<Kept> {
    let (code, why) = seed.seed.reason.clone().unwrap_or_default();
    if code == EMPTY {
        return Ok(Kept::Nothing);
    }
    tx.meta_put(&mark_key(row.environment.id), &Mark::Again(app.now().plus(AGAIN)).text()).await?;
    let name = &row.environment.name;
    let text = format!(
        "{name} is not used and stays, because no snapshot of its data could be taken: {why}; that is tried again in {}. \
         `muster env down {name}` removes it without one",
        domain::time::format_duration(AGAIN)
    );
    event(app, tx, row, ("environment.not_expired", &code), text).await?;
    Ok(Kept::NotYet(Looked::Nothing))
}

/// The environment's own name, with a number where its owner has a snapshot of that name.
async fn free_name(tx: &mut dyn Tx, row: &EnvironmentRow) -> Result<Name> {
    let owner = row.environment.owner;
    let all = tx.seed_list(&row.project).await?.into_iter();
    let own = all.filter(|one| one.seed.snapshot && one.seed.owner == owner && one.seed.ended_at.is_none());
    let taken: BTreeSet<Name> = own.map(|one| one.seed.name).collect();
    let name = &row.environment.name;
    if !taken.contains(name) {
        return Ok(name.clone());
    }
    // One more than there are: one of these is free.
    for number in 2..=taken.len() + 2 {
        let end = format!("-{number}");
        let stem: String = name.as_str().chars().take(LONGEST - end.len()).collect();
        let other = Name::new("snapshot", &format!("{}{end}", stem.trim_end_matches('-')))?;
        if !taken.contains(&other) {
            return Ok(other);
        }
    }
    Err(Error::internal(format!("no name is free for a snapshot of {name}")))
}

async fn event(
    ctx: &Ctx,
    tx: &mut dyn Tx,
    row: &EnvironmentRow,
    (kind, reason): (&'static str, &str),
    text: String,
) -> Result<()> {
    Event::new(Actor::Coordinator, kind, row.environment.id)
        .scope(row.environment.id)
        .reason(reason)
        .text(text)
        .append(ctx, tx, &row.project)
        .await?;
    Ok(())
}
