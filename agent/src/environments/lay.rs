//! An environment's data: laid before its first start, and again at each reset. What was there before is kept aside.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::stack::Durability;
use futures::future::try_join_all;

use super::data;
use super::failure::Failure;
use super::plan::Plan;
use crate::files;
use crate::host::Host;
use crate::pool::{self, Pool};
use crate::seeds::sealed::{Login, Sealed, volume};
use crate::seeds::{elastic, postgres};

/// Resets that can be taken back.
const KEPT: usize = 3;
/// How long a store may take to write down what it has before a reset.
const WRITE: Duration = Duration::from_secs(10);

/// Lays the data that the order asks for, unless it lies there. Durable when this returns.
///
/// # Errors
/// `E_SEED_MISSING`, `E_SEED_MISMATCH`, or what the pool or the engine says.
pub async fn data(host: &Arc<Host>, plan: &mut Plan) -> Result<(), Failure> {
    let wanted = plan.wanted.order.data_epoch;
    if plan.manifest.data_epoch.is_some_and(|laid| laid >= wanted) {
        return Ok(());
    }
    // Before anything is touched: what cannot be laid anew stays as it is.
    host.pool.has_room().await?;
    if let Some(laid) = plan.manifest.data_epoch {
        set_aside(host, plan, laid).await?;
    }
    let began = Instant::now();
    let source = source(host, plan)?;
    // Of an attempt that did not end.
    host.pool.remove(own(host, plan).join("volumes")).await?;
    let said = match &source {
        None => String::new(),
        Some((folder, sealed)) => {
            clone(host, plan, folder, sealed).await?;
            format!("cloned {} in {:.2} s ({})", size(sealed.bytes()), began.elapsed().as_secs_f64(), host.pool.kind())
        }
    };
    plan.manifest.data_epoch = Some(wanted);
    plan.manifest.data = said;
    // Its own data of an earlier time was written by the same images.
    if !plan.wanted.order.data_from.starts_with("auto:") {
        plan.manifest.images = source.map(|(_, sealed)| images(&sealed)).unwrap_or_default();
    }
    super::ground::manifest(host, plan).await?;
    forget(host, plan).await;
    host.sizes.ask(&plan.id);
    Ok(())
}

/// What is told about an environment's data.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Laid {
    /// How it came, for people.
    pub said: String,
    /// Epochs that can be returned to, oldest first.
    pub kept: Vec<u64>,
}

/// What is told about the data that lies there.
#[must_use]
pub fn told(host: &Host, plan: &Plan) -> Laid {
    Laid { said: plan.manifest.data.clone(), kept: kept(&host.pool, &plan.id) }
}

fn own(host: &Host, plan: &Plan) -> PathBuf {
    data::folder(&host.pool, &plan.id)
}

/// The folder of an epoch that was reset away.
pub(super) fn aside(pool: &Pool, id: &str, epoch: u64) -> PathBuf {
    pool.snapshot(&format!("{id}.{epoch}"))
}

/// Epochs that can be returned to, oldest first.
#[must_use]
pub fn kept(pool: &Pool, id: &str) -> Vec<u64> {
    let entries = std::fs::read_dir(pool.layout().snapshots()).into_iter().flatten().flatten();
    let epochs = entries.filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        name.strip_prefix(id)?.strip_prefix('.')?.parse().ok()
    });
    let mut epochs: Vec<u64> = epochs.collect();
    epochs.sort_unstable();
    epochs
}

/// Removes all that was set aside for an environment.
///
/// # Errors
/// The disk refuses.
pub fn forget_all(pool: &Pool, id: &str) -> pool::Result<()> {
    kept(pool, id).into_iter().try_for_each(|epoch| pool.remove_now(&aside(pool, id, epoch)))
}

async fn forget(host: &Arc<Host>, plan: &Plan) {
    let mut epochs = kept(&host.pool, &plan.id);
    epochs.truncate(epochs.len().saturating_sub(KEPT));
    for epoch in epochs {
        if let Err(why) = host.pool.remove(aside(&host.pool, &plan.id, epoch)).await {
            tracing::warn!(environment = %plan.id, %why, "an old state of its data cannot be removed");
        }
    }
}

/// Ends everything that uses the data, and keeps the data aside.
async fn set_aside(host: &Arc<Host>, plan: &Plan, epoch: u64) -> Result<(), Failure> {
    let all = host.engine.containers(&host.id).await?;
    let own_containers: Vec<_> = all.into_iter().filter(|one| one.labels.slot == plan.id).collect();
    // A frozen one does not die.
    super::thaw(host, &own_containers).await?;
    try_join_all(own_containers.into_iter().map(|one| async move {
        // What a store holds in memory only is to come back with an undo; of others nothing comes back.
        let is_store = plan.stack.services.get(&one.labels.part).is_some_and(|service| service.store.is_some());
        if one.running && is_store {
            host.engine.stop(&one.id, WRITE).await?;
        }
        host.engine.remove(&one.id).await
    }))
    .await?;
    let (from, to) = (own(host, plan).join("volumes"), aside(&host.pool, &plan.id, epoch));
    let aside = to.clone();
    let moved = tokio::task::spawn_blocking(move || move_aside(&from, &to)).await.map_err(io::Error::other);
    moved.and_then(|done| done).map_err(|why| Failure::at("set the data aside in", &aside, why))
}

/// One rename; a second attempt finds it done.
fn move_aside(from: &Path, to: &Path) -> io::Result<()> {
    files::private_dir(to)?;
    crate::failpoints::effect("data.aside");
    match std::fs::rename(from, to.join("volumes")) {
        // An environment without volumes, or an attempt that was killed after the rename.
        Err(why) if why.kind() == io::ErrorKind::NotFound => files::private_dir(&to.join("volumes")),
        // An attempt that was killed after the rename has begun to lay the new data: that is no state to keep.
        Err(_) if to.join("volumes").is_dir() => Ok(()),
        other => other.and_then(|()| files::sync_folder(to)),
    }
}

/// What the order begins with; none: empty volumes.
fn source(host: &Host, plan: &Plan) -> Result<Option<(PathBuf, Sealed)>, Failure> {
    let order = &plan.wanted.order;
    if order.data_from.is_empty() {
        return Ok(None);
    }
    let named = if order.seed.is_empty() { order.data_from.as_str() } else { &order.seed };
    let missing = |why: &str| Failure::lasting("E_SEED_MISSING", format!("the data {named} is not on this host{why}"));
    if let Some(epoch) = order.data_from.strip_prefix("auto:") {
        let epoch: u64 = epoch.parse().map_err(|_| missing(""))?;
        let folder = aside(&host.pool, &plan.id, epoch);
        if !folder.join("volumes").is_dir() {
            return Err(missing("; it was reset away too long ago"));
        }
        // Its own data, with its own passwords.
        return Ok(Some((folder.clone(), Sealed::new(parts_of(&folder), BTreeMap::new(), false))));
    }
    if let Some(id) = order.data_from.strip_prefix("import:") {
        // What a seed begins with that is being made; nothing, if all of its inputs are fed later.
        let folder = host.pool.snapshot(&format!("import-{id}"));
        return Ok(Some((folder.clone(), Sealed::new(parts_of(&folder), BTreeMap::new(), false))));
    }
    let digest = order.data_from.strip_prefix("seed:").filter(|digest| is_digest(digest));
    let digest = digest.ok_or_else(|| missing(": its name is not known"))?;
    let folder = host.pool.seed(digest);
    match Sealed::read(&folder) {
        Ok(Some(sealed)) => Ok(Some((folder, sealed))),
        Ok(None) => Err(missing("")),
        Err(why) => Err(missing(&format!(": its manifest cannot be read ({why})"))),
    }
}

fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// The volumes of a folder that has no manifest.
fn parts_of(folder: &Path) -> Vec<crate::seeds::sealed::Part> {
    let entries = std::fs::read_dir(folder.join("volumes")).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.map(crate::seeds::sealed::Part::unknown).collect()
}

async fn clone(host: &Arc<Host>, plan: &Plan, folder: &Path, sealed: &Sealed) -> Result<(), Failure> {
    fits(plan, sealed)?;
    let own = own(host, plan);
    let durability = plan.stack.settings.durability;
    try_join_all(sealed.parts.iter().map(|part| {
        let (from, to) = (volume(folder, &part.volume), volume(&own, &part.volume));
        async move {
            host.pool.clone_tree(from, to.clone()).await?;
            let made = to.clone();
            let ready = tokio::task::spawn_blocking(move || ready(&to, durability)).await.map_err(io::Error::other);
            ready.and_then(|done| done).map_err(|why| Failure::at("make the clone ready in", &made, why))
        }
    }))
    .await?;
    for (service, login) in &sealed.logins {
        write_login(&own, service, login).map_err(|why| Failure::at("write a login in", &own, why))?;
    }
    Ok(())
}

/// Removes what tells of another server's life.
fn ready(volume: &Path, durability: Durability) -> io::Result<()> {
    if let Some(data) = postgres::data(volume) {
        postgres::prepare(&data, durability)?;
    }
    match std::fs::remove_file(volume.join("auto.cnf")) {
        Err(why) if why.kind() != io::ErrorKind::NotFound => Err(why),
        _ => elastic::prepare(volume),
    }
}

/// Every store's data must have its service in this stack.
fn fits(plan: &Plan, sealed: &Sealed) -> Result<(), Failure> {
    for part in sealed.parts.iter().filter(|part| !part.kind.is_empty()) {
        let service = plan.stack.services.get(&part.service);
        let found = service.and_then(|service| service.store).map(crate::seeds::kind_name);
        if found != Some(part.kind.as_str()) {
            let has = found.map_or_else(|| "has none of that name".to_owned(), |kind| format!("has {kind} there"));
            return Err(Failure::lasting(
                "E_SEED_MISMATCH",
                format!(
                    "the data {} holds {} of the service {}, and the stack {has}; name the service so, or make a seed from this stack",
                    plan.wanted.order.seed, part.kind, part.service
                ),
            ));
        }
    }
    Ok(())
}

/// Which image wrote the data of a service.
fn images(sealed: &Sealed) -> BTreeMap<String, String> {
    let stores = sealed.parts.iter().filter(|part| !part.kind.is_empty());
    stores.map(|part| (part.service.clone(), part.image.clone())).collect()
}

fn login_path(own: &Path, service: &str) -> PathBuf {
    own.join("logins").join(format!("{service}.json"))
}

fn write_login(own: &Path, service: &str, login: &Login) -> io::Result<()> {
    let path = login_path(own, service);
    files::private_dir(&own.join("logins"))?;
    files::write_atomic(&path, &serde_json::to_vec(login)?)
}

/// How a service's data is entered, while its password is not the environment's own yet.
#[must_use]
pub fn login(host: &Host, plan: &Plan, service: &str) -> Option<Login> {
    let bytes = files::read_limited(&login_path(&own(host, plan), service), 64 << 10).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// The service's password is the environment's own.
///
/// # Errors
/// The disk refuses.
pub fn own_password(host: &Host, plan: &Plan, service: &str) -> io::Result<()> {
    files::remove_all(&login_path(&own(host, plan), service))
}

/// `1.9 GB`.
#[must_use]
pub fn size(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let bytes = bytes as f64;
    match bytes {
        bytes if bytes >= 1e9 => format!("{:.1} GB", bytes / 1e9),
        bytes if bytes >= 1e6 => format!("{:.1} MB", bytes / 1e6),
        bytes => format!("{:.1} kB", bytes / 1e3),
    }
}
