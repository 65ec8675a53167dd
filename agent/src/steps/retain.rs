//! Releases that stay on a host for an instant return, and the removal of those beyond.

use std::collections::BTreeSet;

use domain::name::TargetRef;
use domain::step::journal::Slot;

use crate::host::Host;
use crate::image;

/// Ids of the releases that the journal names: they stay whatever their number.
#[must_use]
pub fn kept(slot: &Slot) -> BTreeSet<String> {
    let step = slot.step.as_ref().map(|step| &step.to);
    let stage = slot.stage.as_ref().map(|stage| &stage.work);
    let works = slot.current.iter().chain(step).chain(stage).chain(&slot.leftovers);
    let mut ids: BTreeSet<String> = works.map(|work| work.release.to_string()).collect();
    ids.extend(slot.step.as_ref().and_then(|step| step.from).map(|id| id.to_string()));
    ids
}

/// Forgets releases beyond the newest `count`, with their images. Images from a registry stay: others may use them.
pub async fn prune(host: &Host, target: &TargetRef, keep: &BTreeSet<String>, count: u32) {
    let count = usize::try_from(count.max(1)).unwrap_or(usize::MAX);
    let Ok(releases) = host.state.releases(&target.to_string()).await else { return };
    let stays = |index: usize, id: &String| index < count || keep.contains(id);
    let digest = |release: &proto::v1::ReleaseSpec| release.image.as_ref().map(|image| image.config_digest.clone());
    let used: BTreeSet<Option<String>> = releases
        .iter()
        .enumerate()
        .filter(|(index, release)| stays(*index, &release.id))
        .map(|(_, release)| digest(release))
        .collect();
    for (index, release) in releases.iter().enumerate() {
        if stays(index, &release.id) {
            continue;
        }
        let name = digest(release).filter(|digest| !digest.is_empty());
        if let Some(name) = name.filter(|name| !used.contains(&Some(name.clone())))
            && let Err(why) = host.engine.untag(&image::local_name(&name)).await
        {
            tracing::warn!(%target, %why, "the image of an old release stays");
        }
        if let Err(why) = host.state.forget_release(&release.id).await {
            tracing::warn!(%target, %why, "an old release stays remembered");
        }
    }
}
