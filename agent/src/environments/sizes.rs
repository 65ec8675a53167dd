//! How much disk each environment takes: measured now and then, at low priority, and told when it changed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot};

use super::{Environments, data, lay};
use crate::pool::{Pool, Usage};

/// How often an environment is measured.
const EVERY: Duration = Duration::from_secs(60);
/// A measurement may take this part of the time at most: large pools are measured less often.
const SHARE: u32 = 20;
/// Between a sign that something changed and the measurement: signs come in groups.
const SETTLE: Duration = Duration::from_millis(500);
/// A smaller difference is not told.
const NOTABLE: u64 = 64 << 10;
/// The kernel's least urgent priority.
const LEAST_URGENT: i32 = 19;

/// Disk of all environments, as last measured.
#[derive(Debug, Default)]
pub struct Sizes {
    known: Mutex<Known>,
    asked: Notify,
}

#[derive(Debug, Default)]
struct Known {
    sizes: BTreeMap<String, Measured>,
    due: BTreeSet<String>,
}

#[derive(Clone, Copy, Debug)]
struct Measured {
    usage: Usage,
    /// What was told last.
    told: Usage,
    at: Instant,
    took: Duration,
}

impl Sizes {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes of an environment's data, with what its resets keep; zero: not measured yet.
    #[must_use]
    pub fn of(&self, id: &str) -> Usage {
        self.known().sizes.get(id).map(|measured| measured.usage).unwrap_or_default()
    }

    /// Has an environment measured soon: its data was laid, cloned, or it came up.
    pub fn ask(&self, id: &str) {
        self.known().due.insert(id.to_owned());
        self.asked.notify_one();
    }

    /// Which of these are to be measured now; what is not among them is forgotten.
    fn due(&self, ids: &BTreeSet<String>) -> Vec<String> {
        let mut known = self.known();
        known.sizes.retain(|id, _| ids.contains(id));
        let asked = std::mem::take(&mut known.due);
        let old = |id: &String| {
            known.sizes.get(id).is_none_or(|measured| measured.at.elapsed() >= EVERY.max(measured.took * SHARE))
        };
        ids.iter().filter(|id| asked.contains(*id) || old(id)).cloned().collect()
    }

    /// Keeps a measurement. True: it differs enough from what was told to be told.
    fn put(&self, id: &str, usage: Usage, took: Duration) -> bool {
        let mut known = self.known();
        let told = known.sizes.get(id).map(|measured| measured.told);
        let news = told.is_none_or(|told| notable(told, usage));
        let told = if news { usage } else { told.unwrap_or_default() };
        known.sizes.insert(id.to_owned(), Measured { usage, told, at: Instant::now(), took });
        news
    }
}

fn notable(told: Usage, now: Usage) -> bool {
    let far = |a: u64, b: u64| a.abs_diff(b) > NOTABLE.max(a.max(b) / 20);
    far(told.own_bytes, now.own_bytes) || far(told.shared_bytes, now.shared_bytes)
}

/// Measures everything of an environment. Blocks.
fn measure(pool: &Pool, id: &str) -> Usage {
    let kept = lay::kept(pool, id).into_iter().map(|epoch| lay::aside(pool, id, epoch));
    let folders: Vec<PathBuf> = std::iter::once(data::folder(pool, id)).chain(kept).collect();
    let mut total = Usage::default();
    for folder in folders.iter().filter(|folder| folder.is_dir()) {
        match pool.backend().usage(folder) {
            Ok(usage) => total += usage,
            Err(why) => tracing::debug!(environment = id, %why, "not measured"),
        }
    }
    total
}

/// The same in a thread that stands behind all others.
async fn behind(pool: Arc<Pool>, id: String) -> Option<Usage> {
    let (send, receive) = oneshot::channel();
    let work = move || {
        if let Err(why) = rustix::process::setpriority_process(None, LEAST_URGENT) {
            tracing::debug!(%why, "measured with the right of way of others");
        }
        let _ = send.send(measure(&pool, &id));
    };
    let thread = std::thread::Builder::new().name("measure".to_owned()).spawn(work);
    if let Err(why) = thread {
        tracing::debug!(%why, "not measured");
        return None;
    }
    receive.await.ok()
}

impl Environments {
    /// Measures the environments again and again, one at a time, for as long as it is polled.
    pub async fn keep_measured(&self) {
        let sizes = &self.host.sizes;
        loop {
            let _ = tokio::time::timeout(EVERY, sizes.asked.notified()).await;
            tokio::time::sleep(SETTLE).await;
            for id in sizes.due(&self.ids()) {
                let began = Instant::now();
                let Some(usage) = behind(Arc::clone(&self.host.pool), id.clone()).await else { continue };
                if sizes.put(&id, usage, began.elapsed()) {
                    self.tell(&id);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(own_bytes: u64) -> Usage {
        Usage { own_bytes, shared_bytes: 1 << 30 }
    }

    #[test]
    fn what_was_just_measured_waits_unless_somebody_asks() {
        let sizes = Sizes::default();
        let ids: BTreeSet<String> = ["a".to_owned(), "b".to_owned()].into();
        assert_eq!(sizes.due(&ids), ["a", "b"]);
        assert!(sizes.put("a", usage(5), Duration::from_millis(1)) && sizes.put("b", usage(5), Duration::ZERO));
        assert!(sizes.due(&ids).is_empty());
        sizes.ask("b");
        sizes.ask("gone");
        assert_eq!(sizes.due(&ids), ["b"]);
        assert_eq!(sizes.of("a"), usage(5));
        assert_eq!(sizes.due(&BTreeSet::new()), Vec::<String>::new());
        assert_eq!(sizes.of("a"), Usage::default());
    }

    #[test]
    fn small_changes_are_known_and_told_only_when_they_add_up() {
        let sizes = Sizes::default();
        assert!(sizes.put("a", usage(0), Duration::ZERO));
        assert!(!sizes.put("a", usage(50_000), Duration::ZERO));
        assert_eq!(sizes.of("a"), usage(50_000));
        assert!(sizes.put("a", usage(90_000), Duration::ZERO));
    }
}
