//! Whose files are whose in a developer's folder. Whoever a container begins as is the folder's owner in there, and what
//! it makes belongs to the owner out here: two numbers are exchanged by an idmapped mount (Linux 5.12,
//! `mount_setattr(2)`), all others stay what they are. Containers of a folder that is mounted so find it below [`ROOT`].
//!
//! The mounts are not in the agent's state: a tree that somebody removes there must not take sources with it. They are
//! gone after a reboot, and made again before a container starts.

mod ids;
mod mapped;

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use ids::Begins;
use ids::Exchange;

use crate::state::environments::Folder;

/// Where folders are mounted for containers, in a folder per host.
pub const ROOT: &str = "/run/muster/folders";

/// A granted folder as one kind of container sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct View {
    folder: Folder,
    exchange: Exchange,
    at: PathBuf,
}

#[derive(Debug, Default)]
struct Known {
    /// Views that this process has made or found, by environment.
    views: BTreeMap<String, Vec<View>>,
    /// Why containers of an environment that begin so see a folder as it is.
    plain: BTreeMap<String, BTreeMap<Begins, String>>,
}

/// The folders of developers that are mounted for containers of this host.
#[derive(Debug)]
pub struct Owners {
    root: PathBuf,
    known: Mutex<Known>,
}

impl Owners {
    /// Mounts lie below `root`.
    #[must_use]
    pub fn at(root: PathBuf) -> Self {
        Self { root, known: Mutex::default() }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where a container that begins as `begins` finds `path`, which lies in the granted folder. That is `path` itself
    /// where nothing needs to be exchanged, and where that cannot be had: then there are [`Owners::notices`].
    pub async fn seen(self: &Arc<Self>, environment: &str, folder: &Folder, begins: Begins, path: &Path) -> PathBuf {
        let Ok(below) = path.strip_prefix(&folder.path) else { return path.to_owned() };
        let asked = {
            let (owners, begins) = (Arc::clone(self), begins.clone());
            let (environment, folder) = (environment.to_owned(), folder.clone());
            tokio::task::spawn_blocking(move || owners.view(&environment, &folder, &begins))
        };
        match asked.await.unwrap_or_else(|why| Err(io::Error::other(why))) {
            Ok(None) => path.to_owned(),
            // A trailing slash would make a folder of what is a file.
            Ok(Some(at)) if below.as_os_str().is_empty() => at,
            Ok(Some(at)) => at.join(below),
            Err(why) => {
                let text = format!(
                    "what containers make in {} does not belong to its owner there ({why})",
                    folder.path.display()
                );
                tracing::warn!(environment, "{text}");
                self.known().plain.entry(environment.to_owned()).or_default().insert(begins, text);
                path.to_owned()
            }
        }
    }

    /// The mounted folder; none: it is seen as it is.
    fn view(&self, environment: &str, folder: &Folder, begins: &Begins) -> io::Result<Option<PathBuf>> {
        let owner = std::fs::metadata(&folder.path)?;
        let exchange = match begins {
            Begins::As { uid, gid } => Exchange::between((owner.uid(), owner.gid()), (*uid, *gid)),
            Begins::Named(_) if owner.uid() == 0 => None,
            Begins::Named(name) => {
                let text = format!("the image's user {name:?} has no number; say it as `user: UID:GID`");
                return Err(io::Error::other(text));
            }
        };
        let Some(exchange) = exchange else { return Ok(None) };
        let at = self.root.join(environment).join(exchange.name());
        let view = View { folder: folder.clone(), exchange, at: at.clone() };
        mapped::ensure(&view.folder, view.exchange, &view.at)?;
        let mut known = self.known();
        if let Some(plain) = known.plain.get_mut(environment) {
            plain.remove(begins);
        }
        let views = known.views.entry(environment.to_owned()).or_default();
        if !views.contains(&view) {
            views.push(view);
        }
        Ok(Some(at))
    }

    /// Makes sure that what the environment's containers were told to mount is mounted, before one starts.
    ///
    /// # Errors
    /// It cannot be mounted any more.
    pub async fn again(self: &Arc<Self>, environment: &str) -> io::Result<()> {
        let views = self.known().views.get(environment).cloned().unwrap_or_default();
        if views.is_empty() {
            return Ok(());
        }
        let all = move || views.iter().try_for_each(|view| mapped::ensure(&view.folder, view.exchange, &view.at));
        tokio::task::spawn_blocking(all).await.unwrap_or_else(|why| Err(io::Error::other(why)))
    }

    /// Why containers of the environment see a folder as it is, where that is not what its owner would expect.
    #[must_use]
    pub fn notices(&self, environment: &str) -> Vec<String> {
        self.known().plain.get(environment).into_iter().flat_map(BTreeMap::values).cloned().collect()
    }

    /// Unmounts what was mounted for an environment, also by an agent before this one.
    pub async fn remove(self: &Arc<Self>, environment: &str) {
        let folder = self.root.join(environment);
        {
            let mut known = self.known();
            known.views.remove(environment);
            known.plain.remove(environment);
        }
        let gone = tokio::task::spawn_blocking(move || mapped::remove_all(&folder)).await;
        if let Ok(Err(why)) = gone {
            tracing::warn!(environment, %why, "a developer's folder stays mounted for containers that are gone");
        }
    }
}
