//! What earlier runs left behind: a kill at the wrong moment, a disk that was full. Only what carries this host's id
//! or lies in its own folder.

use std::collections::BTreeSet;

use super::record::Folder;
use super::{Shared, container};
use crate::job::Handle;

/// Removes leftovers of runs that are not active. What fails is tried again at the next run.
pub(super) async fn leftovers(shared: &Shared) {
    let active: BTreeSet<String> = shared.active().keys().cloned().collect();
    folders(shared, &active);
    let host = &shared.setup.host;
    let all = match host.engine.containers(&host.id).await {
        Ok(all) => all,
        Err(why) => return tracing::warn!(%why, "containers of earlier runs were not looked for"),
    };
    for one in all {
        let Some(id) = container::run_of(&one.labels.slot) else { continue };
        if !active.contains(id) {
            tracing::info!(container = %one.name, "removing what an earlier run left");
            if let Err(why) = host.engine.remove(&one.id).await {
                tracing::warn!(container = %one.name, %why, "it cannot be removed");
            }
        }
    }
}

fn folders(shared: &Shared, active: &BTreeSet<String>) {
    let entries = std::fs::read_dir(shared.setup.state_dir.join("runs")).into_iter().flatten().flatten();
    for entry in entries {
        let Ok(id) = entry.file_name().into_string() else { continue };
        if active.contains(&id) {
            continue;
        }
        let folder = Folder::new(entry.path());
        let removed = match folder.read() {
            // Its record says that it ended, for orders that come late.
            Ok(Some(_)) if !folder.is_stale() => folder.clear(),
            _ => {
                Handle::attach(&folder.job()).sweep().ok();
                folder.remove()
            }
        };
        if let Err(why) = removed {
            tracing::warn!(run = %id, %why, "what an earlier run left cannot be removed");
        }
    }
}
