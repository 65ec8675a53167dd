//! The stack file of the folder around the caller, and what an environment of it needs from this machine.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use domain::stack::MountSource;
use proto::v1;

use super::context::text;
use super::error::Error;
use super::repository;

const NAMES: [&str; 4] = ["compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml"];

/// The stack file, and the folder and app it belongs to.
#[derive(Debug)]
pub struct StackFile {
    path: PathBuf,
    folder: PathBuf,
    app: String,
}

/// The file given, or the `stack` of the muster.yaml around here, or compose.yaml in this folder.
///
/// # Errors
/// There is none, or the muster.yaml has problems.
pub fn find(given: Option<PathBuf>) -> Result<StackFile, Error> {
    let manifest = repository::find_manifest();
    let app = manifest.as_deref().map(repository::read_manifest).transpose()?;
    let named = app.as_ref().and_then(|app| app.stack.clone());
    let beside = manifest.as_deref().and_then(Path::parent);
    let path = match (given, named, beside) {
        (Some(file), _, _) => file,
        (None, Some(stack), Some(folder)) => folder.join(stack),
        _ => NAMES.iter().map(PathBuf::from).find(|path| path.is_file()).ok_or_else(|| {
            Error::usage("E_NO_STACK", "no compose.yaml here, and no muster.yaml that names one; use --file")
        })?,
    };
    let path = std::fs::canonicalize(&path).map_err(|why| Error::file(&path, &why))?;
    let folder = path.parent().map(Path::to_path_buf).unwrap_or_default();
    Ok(StackFile { path, folder, app: app.map(|app| app.name.to_string()).unwrap_or_default() })
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

    /// Reads the file as the coordinator will, so that its problems are told at once; asks the local agent for a
    /// grant when the stack uses files of its folder.
    ///
    /// # Errors
    /// The file cannot be read or has problems, or the agent refuses.
    pub fn request(&self) -> Result<v1::UpEnvironmentRequest, Error> {
        let stack_file = text(&self.path)?;
        let file = self.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let env_files = RefCell::new(BTreeMap::new());
        let files = |path: &str| {
            let found = text(&self.folder.join(path)).ok();
            if let Some(found) = &found {
                env_files.borrow_mut().insert(path.to_owned(), found.clone());
            }
            found
        };
        let all: BTreeMap<String, String> = std::env::vars().collect();
        let input = manifest::stack::Input { file: &file, text: &stack_file, variables: &all, files: &files };
        let reading = manifest::stack::read(input).map_err(|problems| repository::problems_error(&problems))?;
        let env_files = env_files.into_inner();
        let mut names = names_used(&stack_file);
        names.extend(env_files.values().flat_map(|text| names_used(text)));
        let folder = reading.stack.services.values().any(|service| {
            service.build.is_some() || service.mounts.iter().any(|mount| matches!(mount.source, MountSource::Folder(_)))
        });
        let (grant, grant_host) = if folder { grant(&self.folder)? } else { (String::new(), String::new()) };
        Ok(v1::UpEnvironmentRequest {
            name: self.default_name(),
            app: self.app.clone(),
            stack_file,
            file,
            // Only names that the files use leave this machine.
            variables: all.into_iter().filter(|(name, _)| names.contains(name)).collect(),
            env_files,
            grant,
            grant_host,
            ..v1::UpEnvironmentRequest::default()
        })
    }
}

/// Every `$NAME` and `${NAME` of a text. Too many do no harm: only those that are set are sent.
fn names_used(text: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        rest = &rest[at + 1..];
        let tail = rest.strip_prefix('{').unwrap_or(rest);
        let end = tail.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(tail.len());
        if end > 0 {
            names.insert(tail[..end].to_owned());
        }
    }
    names
}

#[cfg(unix)]
fn grant(folder: &Path) -> Result<(String, String), Error> {
    let socket = super::local::socket().ok_or_else(|| {
        Error::usage(
            "E_NO_LOCAL_AGENT",
            "the stack uses folders of this machine, and no agent is found here; run this on a host with an agent (MUSTER_AGENT_SOCKET names its socket)",
        )
    })?;
    let grant = super::local::grant(&socket, folder)?;
    Ok((grant.grant, grant.host_id))
}

#[cfg(not(unix))]
fn grant(_folder: &Path) -> Result<(String, String), Error> {
    Err(Error::usage("E_NO_LOCAL_AGENT", "the stack uses folders of this machine; run this on a host with an agent"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_a_text_uses_are_found() {
        let used = names_used("a: ${DB_URL:-x} b: $PORT $$ ${A:-${B}} $");
        assert_eq!(used.into_iter().collect::<Vec<_>>(), ["A", "B", "DB_URL", "PORT"]);
    }
}
