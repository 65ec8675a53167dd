//! What the folder around the caller says: the app from its `muster.yaml`, the commit and the remote from git.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::context::text;
use super::error::Error;

/// `muster.yaml` in this folder or the nearest above it.
#[must_use]
pub fn find_manifest() -> Option<PathBuf> {
    let here = std::env::current_dir().ok()?;
    here.ancestors().map(|folder| folder.join("muster.yaml")).find(|path| path.is_file())
}

/// The app given, or the one of the `muster.yaml` around the caller.
///
/// # Errors
/// Neither is there, or the file cannot be read.
pub fn app(given: Option<&String>) -> Result<String, Error> {
    if let Some(app) = given {
        return Ok(app.clone());
    }
    let path = find_manifest()
        .ok_or_else(|| Error::usage("E_NO_APP", "no muster.yaml here or above; name the app with --app"))?;
    Ok(read_manifest(&path)?.name.to_string())
}

/// `production` becomes `bot/production` inside the repository of `bot`.
///
/// # Errors
/// As [`app`].
pub fn target(given: &str) -> Result<String, Error> {
    if given.contains('/') { Ok(given.to_owned()) } else { Ok(format!("{}/{given}", app(None)?)) }
}

/// All problems of a file, one line each.
#[must_use]
pub fn problems_error(problems: &[manifest::Problem]) -> Error {
    let code = problems.first().map_or("E_MANIFEST", |problem| problem.code.as_str());
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    Error::Usage { code, text: lines.join("\n") }
}

/// The full commit id of HEAD (or of `name`) in `folder`.
///
/// # Errors
/// git is missing, or does not know it.
pub fn commit(folder: &Path, name: &str) -> Result<String, Error> {
    let revision = format!("{name}^{{commit}}");
    let out = Command::new("git")
        .arg("-C")
        .arg(folder)
        .args(["rev-parse", "--verify", "--quiet", "--end-of-options", &revision])
        .output()
        .map_err(|why| Error::usage("E_GIT", format!("git cannot be started: {why}")))?;
    let commit = String::from_utf8_lossy(&out.stdout).trim().to_owned();
    if out.status.success() && !commit.is_empty() {
        return Ok(commit);
    }
    Err(Error::usage("E_COMMIT_UNKNOWN", format!("git in {} knows no commit {name:?}", folder.display())))
}

/// The commit to act on: all digits as given, or what git in this folder makes of a shorter name or of HEAD.
///
/// # Errors
/// As [`commit`].
pub fn full_commit(given: Option<&String>) -> Result<String, Error> {
    let name = given.map_or("HEAD", String::as_str);
    let full = (name.len() == 40 || name.len() == 64) && name.bytes().all(|b| b.is_ascii_hexdigit());
    if full { Ok(name.to_ascii_lowercase()) } else { commit(Path::new("."), name) }
}

/// Reads a `muster.yaml`.
///
/// # Errors
/// It cannot be read, or has problems: all of them at once.
pub fn read_manifest(path: &Path) -> Result<domain::app::App, Error> {
    manifest::app::read(&path.display().to_string(), &text(path)?).map_err(|problems| problems_error(&problems))
}
