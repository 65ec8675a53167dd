//! Reading what was made, once, and keeping a clone of it under its digest.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use domain::stack::StoreKind;

use super::feed::Finished;
use super::made::Made;
use super::scan::{self, Canaries, Tree};
use super::sealed::{Part, Sealed, volume};
use crate::engine::{ContainerSpec, MountSpec};
use crate::environments::failure::Failure;
use crate::host::Host;
use crate::pool;

/// By volume: the service that writes it, and the id of that service's image.
pub(super) type Writers = BTreeMap<String, (String, String)>;

/// Who writes which volume, as far as these containers do.
pub(super) fn writers(specs: &BTreeMap<String, ContainerSpec>) -> Writers {
    let mut writers = Writers::new();
    for spec in specs.values() {
        for mount in &spec.mounts {
            let MountSpec::Volume { name, read_only: false, .. } = mount else { continue };
            let Some((_, volume)) = name.split_once('-').and_then(|(_, rest)| rest.split_once('-')) else { continue };
            writers.entry(volume.to_owned()).or_insert_with(|| (spec.part.clone(), spec.image_id.clone()));
        }
    }
    writers
}

/// What is known of data that is to be sealed.
#[derive(Debug)]
pub(super) struct Described<'a> {
    /// Who wrote it.
    pub writers: Writers,
    /// Its stores.
    pub kinds: BTreeMap<String, StoreKind>,
    /// How they were left.
    pub finished: BTreeMap<String, Finished>,
    pub masked: bool,
    /// The order that it is made for.
    pub order: &'a str,
    /// How long everything stood still for it.
    pub freeze: Duration,
}

/// Reads all volumes below `from` and keeps a clone of them. Nobody writes there meanwhile.
///
/// # Errors
/// `E_SEED_CANARY` where a value is left that must not be; what the pool says.
pub(super) async fn run(
    host: &Arc<Host>,
    from: &Path,
    described: &Described<'_>,
    canaries: &Canaries,
) -> Result<Made, Failure> {
    let mut parts = Vec::new();
    for name in volumes(from) {
        let folder = volume(from, &name);
        let tree = tokio::task::block_in_place(|| scan::read(&folder, canaries));
        let failed = |why: std::io::Error| Failure::passing("E_SEED_SEAL", format!("volume {name}: {why}"));
        let tree = tree.map_err(failed)?.map_err(|find| left(&name, &find))?;
        parts.push(part(described, name, tree));
    }
    let finished = described.finished.iter();
    let logins = finished.filter_map(|(name, finished)| Some((name.clone(), finished.login.clone()?))).collect();
    let sealed = Sealed::new(parts, logins, described.masked);
    let made = Made { sealed, canaries: canaries.count(), freeze: described.freeze };
    keep(host, from, made, described.order).await
}

/// The volumes below a folder, in order.
pub(super) fn volumes(from: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(from.join("volumes")).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

fn left(volume: &str, find: &scan::Find) -> Failure {
    Failure::lasting(
        "E_SEED_CANARY",
        format!(
            "canary value {} is still in the volume {volume}: {} before byte {}; the seed was not made. Mask the column it \
             comes from (the value itself is not shown)",
            find.number,
            find.file.display(),
            find.offset
        ),
    )
}

fn part(described: &Described<'_>, volume: String, tree: Tree) -> Part {
    let mut part = Part { bytes: tree.bytes, files: tree.files, tree: tree.hash, ..Part::unknown(volume) };
    let Some((service, image)) = described.writers.get(&part.volume) else { return part };
    part.service.clone_from(service);
    part.image.clone_from(image);
    if let Some(kind) = described.kinds.get(service) {
        super::kind_name(*kind).clone_into(&mut part.kind);
    }
    if let Some(finished) = described.finished.get(service) {
        part.version.clone_from(&finished.version);
        part.collation.clone_from(&finished.collation);
    }
    part
}

/// The folder counts as a seed only when its manifest is there, which is written last.
async fn keep(host: &Arc<Host>, from: &Path, made: Made, order: &str) -> Result<Made, Failure> {
    let to: PathBuf = host.pool.seed(&made.sealed.digest);
    if let Ok(Some(sealed)) = Sealed::read(&to) {
        // The same data was sealed before; the way in is that of the clone that is kept.
        return Ok(Made { sealed, ..made });
    }
    // Half of it, from before a kill.
    host.pool.remove(to.clone()).await?;
    for part in &made.sealed.parts {
        host.pool.clone_tree(volume(from, &part.volume), volume(&to, &part.volume)).await?;
    }
    let (written, folder, order) = (made.clone(), to.clone(), order.to_owned());
    let written = tokio::task::spawn_blocking(move || {
        written.write(&folder, &order)?;
        folder.parent().map_or(Ok(()), crate::files::sync_folder)
    });
    let failed = |why: String| Failure::from(pool::Error::at("write", &to)(std::io::Error::other(why)));
    written.await.map_err(|why| failed(why.to_string()))?.map_err(|why| failed(why.to_string()))?;
    Ok(made)
}
