//! The stack files of the folder around the caller, and what an environment of them needs from this machine.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use clap::Args;
use domain::stack::{MountSource, Stack};
use manifest::stack::{Input, Report};
use proto::v1;

use super::context::text;
use super::error::Error;
use super::repository;

const NAMES: [&str; 4] = ["compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml"];

/// Which files are read, and which of their profiles are active.
#[derive(Args, Debug, Clone, Default)]
pub struct Chosen {
    /// The stack file; given again: files that are laid over it. Default: COMPOSE_FILE, the `stack` of muster.yaml, or
    /// compose.yaml in this folder
    #[arg(long = "file", short, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Also services of this profile; `*`: of all. Default: COMPOSE_PROFILES
    #[arg(long = "profile", value_name = "NAME")]
    profiles: Vec<String>,
}

impl Chosen {
    /// One file, as it stands.
    #[must_use]
    pub fn file(&self, file: PathBuf) -> Self {
        Self { files: vec![file], profiles: self.profiles.clone() }
    }
}

/// A stack that was read.
#[derive(Debug)]
pub struct ReadStack {
    /// What brings it up, without a grant for its folder.
    pub request: v1::UpEnvironmentRequest,
    /// The stack.
    pub stack: Stack,
}

/// Stack files that are read together.
#[derive(Debug, Clone)]
pub struct StackFile {
    path: PathBuf,
    folder: PathBuf,
    /// As `manifest` wants it: the names of all files.
    names: String,
    /// Files were named: no other is read beside them unless they say so.
    explicit: bool,
    profiles: Vec<String>,
    app: String,
}

/// The files given, or the `stack` of the muster.yaml around here, or compose.yaml in this folder.
///
/// # Errors
/// There is none, they lie in different folders, or the muster.yaml has problems.
pub fn find(chosen: &Chosen) -> Result<StackFile, Error> {
    let manifest = repository::find_manifest();
    let app = manifest.as_deref().map(repository::read_manifest).transpose()?;
    let named = app.as_ref().and_then(|app| app.stack.clone());
    let beside = manifest.as_deref().and_then(Path::parent);
    let given = if chosen.files.is_empty() { files_by_variable() } else { chosen.files.clone() };
    let first = match (given.first(), named, beside) {
        (Some(file), _, _) => file.clone(),
        (None, Some(stack), Some(folder)) => folder.join(stack),
        _ => NAMES.iter().map(PathBuf::from).find(|path| path.is_file()).ok_or_else(|| {
            Error::usage("E_NO_STACK", "no compose.yaml here, and no muster.yaml that names one; use --file")
        })?,
    };
    let path = whole(&first)?;
    let folder = path.parent().map(Path::to_path_buf).unwrap_or_default();
    let mut names = vec![name_below(&folder, &path)?];
    for file in given.iter().skip(1) {
        names.push(name_below(&folder, &whole(file)?)?);
    }
    Ok(StackFile {
        path,
        folder,
        names: names.join(":"),
        explicit: !given.is_empty(),
        profiles: chosen.profiles.clone(),
        app: app.map(|app| app.name.to_string()).unwrap_or_default(),
    })
}

/// What `COMPOSE_FILE` says, in the environment or in the `.env` of this folder.
fn files_by_variable() -> Vec<PathBuf> {
    let from_file = || {
        let read = manifest::dotenv::parse(".env", &text(Path::new(".env")).ok()?, &BTreeMap::new());
        read.ok()?.remove("COMPOSE_FILE").map(Into::into)
    };
    let files = std::env::var_os("COMPOSE_FILE").or_else(from_file).filter(|files| !files.is_empty());
    files.map(|files| std::env::split_paths(&files).collect()).unwrap_or_default()
}

fn whole(path: &Path) -> Result<PathBuf, Error> {
    std::fs::canonicalize(path).map_err(|why| Error::file(path, &why))
}

/// A file's path in the first file's folder, as stack files name others.
fn name_below(folder: &Path, path: &Path) -> Result<String, Error> {
    let refuse = |why: &str| Error::usage("E_STACK_OUTSIDE_FOLDER", format!("{}: {why}", path.display()));
    let below = path.strip_prefix(folder).map_err(|_| {
        refuse("all files of a stack lie in the first one's folder; move it there, or include it from a file above")
    })?;
    let parts: Option<Vec<&str>> = below.iter().map(|part| part.to_str()).collect();
    let name = parts.map(|parts| parts.join("/")).ok_or_else(|| refuse("its name is no text"))?;
    if name.contains(':') { Err(refuse("a stack file has no ':' in its name")) } else { Ok(name) }
}

impl StackFile {
    /// The app's name, or the folder's.
    #[must_use]
    pub fn default_name(&self) -> String {
        if !self.app.is_empty() {
            return self.app.clone();
        }
        let folder = self.folder.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
        let name: String = folder.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        name.trim_matches('-').to_owned()
    }

    /// The caller's variables, with the profiles that were asked for.
    fn variables(&self) -> BTreeMap<String, String> {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        let mut all: BTreeMap<String, String> = std::env::vars_os().filter_map(text).collect();
        if !self.profiles.is_empty() {
            all.insert("COMPOSE_PROFILES".to_owned(), self.profiles.join(","));
        }
        all
    }

    /// The text of another file; links are followed only inside the folder.
    fn text_of(&self, path: &str) -> Option<String> {
        let beside = path.ends_with(".override.yml") || path.ends_with(".override.yaml");
        if self.explicit && beside && !path.contains('/') && !self.names.split(':').any(|name| name == path) {
            return None;
        }
        let found = std::fs::canonicalize(self.folder.join(path)).ok()?;
        if found.starts_with(&self.folder) && found.is_file() { text(&found).ok() } else { None }
    }

    /// Reads all files, and tells everything about them; `shown` is the name of the first one in messages.
    ///
    /// # Errors
    /// The first file cannot be read. Problems of the files are in the report.
    pub fn report(&self, shown: Option<&str>) -> Result<Report, Error> {
        let first = text(&self.path)?;
        let rest = self.names.split_once(':').map(|(_, rest)| format!(":{rest}")).unwrap_or_default();
        let file = match shown.filter(|shown| !shown.contains(':')) {
            Some(shown) => format!("{shown}{rest}"),
            None => self.names.clone(),
        };
        let variables = self.variables();
        let files = |path: &str| self.text_of(path);
        Ok(manifest::stack::check(Input { file: &file, text: &first, variables: &variables, files: &files }))
    }

    /// The folder that paths in the files are relative to.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What the stack uses of its folder, relative to it: mounted files and folders, and contexts of builds. Empty text:
    /// all of it.
    ///
    /// # Errors
    /// A file cannot be read or has problems.
    pub fn used(&self) -> Result<BTreeSet<String>, Error> {
        Ok(used(&self.read()?.stack))
    }

    /// As [`StackFile::read`]; asks the local agent for a grant when the stack uses files of its folder.
    ///
    /// # Errors
    /// A file cannot be read or has problems, or the agent refuses.
    pub fn request(&self) -> Result<v1::UpEnvironmentRequest, Error> {
        let ReadStack { mut request, stack } = self.read()?;
        if !used(&stack).is_empty() {
            (request.grant, request.grant_host) = grant(&self.folder)?;
        }
        Ok(request)
    }

    /// Reads the files as the coordinator will, so that their problems are told at once.
    ///
    /// # Errors
    /// A file cannot be read or has problems.
    pub fn read(&self) -> Result<ReadStack, Error> {
        let stack_file = text(&self.path)?;
        let env_files = RefCell::new(BTreeMap::new());
        let files = |path: &str| {
            let found = self.text_of(path);
            if let Some(found) = &found {
                env_files.borrow_mut().insert(path.to_owned(), found.clone());
            }
            found
        };
        let all = self.variables();
        let input = Input { file: &self.names, text: &stack_file, variables: &all, files: &files };
        let reading = manifest::stack::read(input).map_err(|problems| repository::problems_error(&problems))?;
        let env_files = env_files.into_inner();
        let request = v1::UpEnvironmentRequest {
            name: self.default_name(),
            app: self.app.clone(),
            stack_file,
            file: self.names.clone(),
            // Only names that the files use leave this machine.
            variables: all.into_iter().filter(|(name, _)| reading.names.contains(name)).collect(),
            env_files,
            ..v1::UpEnvironmentRequest::default()
        };
        Ok(ReadStack { request, stack: reading.stack })
    }
}

fn used(stack: &Stack) -> BTreeSet<String> {
    let mounts = stack.services.values().flat_map(|service| &service.mounts).filter_map(|mount| match &mount.source {
        MountSource::Folder(path) => Some(path.as_str()),
        _ => None,
    });
    let builds = stack.services.values().filter_map(|service| Some(service.build.as_ref()?.context.as_str()));
    mounts.chain(builds).map(plain).collect()
}

/// Without `.` and empty parts.
pub(super) fn plain(path: &str) -> String {
    path.split('/').filter(|part| !part.is_empty() && *part != ".").collect::<Vec<_>>().join("/")
}

#[cfg(unix)]
fn grant(folder: &Path) -> Result<(String, String), Error> {
    let socket = super::local::socket().ok_or_else(|| {
        Error::usage(
            "E_NO_LOCAL_AGENT",
            "the stack uses folders of this machine, and no agent is found here; upload them (`muster env up --sync`), or run this on a host with an agent (MUSTER_AGENT_SOCKET names its socket)",
        )
    })?;
    let grant = super::local::grant(&socket, folder)?;
    Ok((grant.grant, grant.host_id))
}

#[cfg(not(unix))]
fn grant(_folder: &Path) -> Result<(String, String), Error> {
    Err(Error::usage("E_NO_LOCAL_AGENT", "the stack uses folders of this machine; upload them: `muster env up --sync`"))
}
