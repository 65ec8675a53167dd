//! One bare mirror per repository, and exact commits of it checked out into fresh folders.
//!
//! git is called with argument vectors, an environment made here, no hooks, no configuration of the machine, and only
//! the transport that the address names. It never sees an address or a commit that was not parsed first.

mod git;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use domain::release::Commit;
use manifest::git::GitUrl;
use sha2::{Digest as _, Sha256};

use crate::files;
use git::{Call, Failure};

/// Limit of one fetch.
const FETCH: Duration = Duration::from_mins(10);
/// Limit of anything that git does on this machine alone.
const LOCAL: Duration = Duration::from_mins(5);

/// Why a commit could not be checked out. Names the repository and the commit.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// git itself cannot be run.
    #[error("git cannot be run: {why}; install git on this host")]
    Program {
        /// The operating system's answer.
        why: io::Error,
    },
    /// The repository does not answer, or refuses.
    #[error("fetch {commit} from {url}: {said}")]
    Fetch {
        /// The repository.
        url: String,
        /// What was to be fetched.
        commit: String,
        /// git's own words.
        said: String,
    },
    /// The repository answers and does not have it.
    #[error("{url} has no commit {commit}; push it first")]
    Missing {
        /// The repository.
        url: String,
        /// What was to be fetched.
        commit: String,
    },
    /// It took too long.
    #[error("{what} {commit} from {url} took longer than {limit:?}")]
    Late {
        /// What was done.
        what: &'static str,
        /// The repository.
        url: String,
        /// What was to be fetched.
        commit: String,
        /// The limit.
        limit: Duration,
    },
    /// The commit is here and cannot be written out.
    #[error("check out {commit} from {url}: {said}")]
    Checkout {
        /// The repository.
        url: String,
        /// What was to be written out.
        commit: String,
        /// git's own words.
        said: String,
    },
    /// A folder of this machine.
    #[error("{path}: {why}")]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        why: io::Error,
    },
}

impl Error {
    /// The stable reason code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Program { .. } => "E_GIT_PROGRAM",
            Self::Fetch { .. } => "E_GIT_FETCH",
            Self::Missing { .. } => "E_GIT_COMMIT_MISSING",
            Self::Late { .. } => "E_GIT_TIMEOUT",
            Self::Checkout { .. } => "E_GIT_CHECKOUT",
            Self::Folder { .. } => "E_GIT_FOLDER",
        }
    }
}

/// What was checked out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Checkout {
    /// First line of the commit's message, at most 200 characters, for people.
    pub subject: String,
    /// It had to be fetched.
    pub fetched: bool,
}

/// The mirrors of this host.
#[derive(Debug)]
pub struct Mirrors {
    folder: PathBuf,
    fetch_limit: Duration,
    /// One at a time per mirror: two fetches of one repository only wait for the same bytes.
    locks: Mutex<BTreeMap<PathBuf, Arc<tokio::sync::Mutex<()>>>>,
}

impl Mirrors {
    /// Mirrors below `state_dir/mirrors`; the folder is made when first needed.
    #[must_use]
    pub fn new(state_dir: &Path) -> Self {
        Self { folder: state_dir.join("mirrors"), fetch_limit: FETCH, locks: Mutex::default() }
    }

    /// Writes the files of `commit` into `into`, which must not exist. Fetches only when the commit is not here.
    ///
    /// # Errors
    /// See [`Error`]; nothing usable is then in `into`.
    pub async fn checkout(&self, url: &GitUrl, commit: &Commit, into: &Path) -> Result<Checkout, Error> {
        let mirror = self.folder.join(format!("{}.git", name(url)));
        let lock = self.locks.lock().unwrap_or_else(PoisonError::into_inner).entry(mirror.clone()).or_default().clone();
        let _turn = lock.lock().await;
        let job = Work { mirror: &mirror, url, commit, fetch_limit: self.fetch_limit };
        let fetched = job.provide().await?;
        if let Err(error) = job.write_out(into).await {
            // A mirror that a crash damaged is made anew, once.
            if fetched || !matches!(error, Error::Checkout { .. }) {
                return Err(error);
            }
            remove(into)?;
            remove(&mirror)?;
            job.provide().await?;
            job.write_out(into).await?;
        }
        Ok(Checkout { subject: job.subject().await?, fetched })
    }
}

/// Folder name of a repository's mirror.
fn name(url: &GitUrl) -> String {
    hex::encode(&Sha256::digest(url.as_str().as_bytes())[..8])
}

fn remove(path: &Path) -> Result<(), Error> {
    files::remove_all(path).map_err(|why| Error::Folder { path: path.to_owned(), why })
}

struct Work<'a> {
    mirror: &'a Path,
    url: &'a GitUrl,
    commit: &'a Commit,
    fetch_limit: Duration,
}

impl Work<'_> {
    /// Makes sure that the mirror has the commit; true if it had to be fetched.
    async fn provide(&self) -> Result<bool, Error> {
        self.init().await?;
        if self.has().await? {
            return Ok(false);
        }
        self.unlock()?;
        // The exact commit first: one round trip, and it finds commits that are on no branch (pull requests).
        let exact = format!("+{0}:refs/muster/{0}", self.commit.as_str());
        let refused = match self.fetch(&exact).await {
            Ok(()) if self.has().await? => return Ok(true),
            Ok(()) => String::new(),
            Err(Failure::Said(said)) => said,
            Err(other) => return Err(self.error("fetching", self.fetch_limit, other)),
        };
        // Servers that give away tips only.
        match self.fetch("+refs/heads/*:refs/heads/*").await {
            Ok(()) if self.has().await? => Ok(true),
            Ok(()) if refused.is_empty() || is_missing(&refused) => {
                Err(Error::Missing { url: self.url(), commit: self.id() })
            }
            Ok(()) => Err(Error::Fetch { url: self.url(), commit: self.id(), said: refused }),
            Err(other) => Err(self.error("fetching", self.fetch_limit, other)),
        }
    }

    async fn init(&self) -> Result<(), Error> {
        if self.mirror.join("muster-ready").exists() {
            return Ok(());
        }
        // What a kill left half made.
        remove(self.mirror)?;
        let folder = |why| Error::Folder { path: self.mirror.to_owned(), why };
        files::private_dir(self.mirror).map_err(folder)?;
        let call = Call::new(LOCAL).args(["init", "--quiet", "--bare", "--template="]).path(self.mirror);
        call.run().await.map_err(|failure| self.error("preparing", LOCAL, failure))?;
        files::write_atomic(&self.mirror.join("muster-ready"), self.url.as_str().as_bytes()).map_err(folder)
    }

    async fn has(&self) -> Result<bool, Error> {
        let object = format!("{}^{{commit}}", self.commit.as_str());
        match self.git(LOCAL).args(["cat-file", "-e", &object]).run().await {
            Ok(_) => Ok(true),
            Err(Failure::Said(_)) => Ok(false),
            Err(other) => Err(self.error("looking for", LOCAL, other)),
        }
    }

    async fn fetch(&self, refspec: &str) -> Result<(), Failure> {
        let options =
            ["fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules", "--no-auto-gc"];
        let call = self.git(self.fetch_limit).protocol(self.url).args(options);
        call.args(["--end-of-options", self.url.as_str(), refspec]).run().await.map(|_| ())
    }

    /// Lock files of git outlive a killed git; nobody else works in this mirror now.
    fn unlock(&self) -> Result<(), Error> {
        let folders = [self.mirror.to_owned(), self.mirror.join("refs/muster"), self.mirror.join("refs/heads")];
        for entry in folders.iter().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten().flatten() {
            if entry.file_name().as_encoded_bytes().ends_with(b".lock") {
                remove(&entry.path())?;
            }
        }
        Ok(())
    }

    async fn write_out(&self, into: &Path) -> Result<(), Error> {
        let index = self.mirror.join("muster-index");
        for stale in [index.clone(), self.mirror.join("muster-index.lock")] {
            remove(&stale)?;
        }
        std::fs::create_dir(into).map_err(|why| Error::Folder { path: into.to_owned(), why })?;
        let steps = [vec!["read-tree", self.commit.as_str()], vec!["checkout-index", "--all", "--quiet"]];
        for step in steps {
            let call = self.git(LOCAL).tree(into, &index).args(step);
            call.run().await.map_err(|failure| match failure {
                Failure::Said(said) => Error::Checkout { url: self.url(), commit: self.id(), said },
                other => self.error("checking out", LOCAL, other),
            })?;
        }
        remove(&index)
    }

    async fn subject(&self) -> Result<String, Error> {
        let call =
            self.git(LOCAL).args(["show", "-s", "--no-show-signature", "--format=%s", self.commit.as_str(), "--"]);
        let said = call.run().await.map_err(|failure| self.error("reading", LOCAL, failure))?;
        Ok(said.lines().next().unwrap_or_default().chars().filter(|c| !c.is_control()).take(200).collect())
    }

    fn git(&self, limit: Duration) -> Call {
        let mut folder = std::ffi::OsString::from("--git-dir=");
        folder.push(self.mirror);
        Call::new(limit).args([folder])
    }

    fn error(&self, what: &'static str, limit: Duration, failure: Failure) -> Error {
        match failure {
            Failure::Program(why) => Error::Program { why },
            Failure::Late => Error::Late { what, url: self.url(), commit: self.id(), limit },
            Failure::Said(said) => Error::Fetch { url: self.url(), commit: self.id(), said },
        }
    }

    fn url(&self) -> String {
        self.url.as_str().to_owned()
    }

    fn id(&self) -> String {
        self.commit.as_str().to_owned()
    }
}

/// How servers say that they do not have, or do not give, a single commit.
fn is_missing(said: &str) -> bool {
    ["not our ref", "unadvertised object", "no such remote ref", "find remote ref"]
        .iter()
        .any(|words| said.contains(words))
}

#[cfg(test)]
mod tests;
