//! The login context: address, CA and api-token in one file that nobody else can read.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Global;
use super::error::Error;

/// What a client needs to call.
#[derive(Serialize, Deserialize, Clone)]
pub struct Context {
    /// HOST:PORT
    pub server: String,
    /// The coordinator's CA certificate, PEM.
    pub ca: String,
    /// The api-token.
    pub token: String,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("server", &self.server).finish_non_exhaustive()
    }
}

/// The context's file: the flag, else `$XDG_CONFIG_HOME/muster/context.json`, else `~/.config/muster/context.json`.
///
/// # Errors
/// There is no home directory to look in.
pub fn path(global: &Global) -> Result<PathBuf, Error> {
    if let Some(path) = &global.context {
        return Ok(path.clone());
    }
    let base = std::env::var_os("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".config")));
    base.map(|base| base.join("muster").join("context.json"))
        .ok_or_else(|| Error::usage("E_CONTEXT", "no home directory; name the file with --context"))
}

/// Flags over environment over file.
///
/// # Errors
/// Something is missing, a file cannot be read, or others can read the token's file.
pub fn load(global: &Global) -> Result<Context, Error> {
    let path = path(global)?;
    let stored = if path.exists() { Some(read(&path)?) } else { None };
    let missing = |what: &str| {
        Error::usage(
            "E_CONTEXT",
            format!("no {what}: log in with `muster login --server HOST:PORT --ca FILE --token-file FILE`"),
        )
    };
    let server = global.server.clone().or_else(|| stored.as_ref().map(|c| c.server.clone()));
    let ca = match &global.ca {
        Some(file) => Some(text(file)?),
        None => stored.as_ref().map(|c| c.ca.clone()),
    };
    Ok(Context {
        server: server.ok_or_else(|| missing("server"))?,
        ca: ca.ok_or_else(|| missing("CA certificate"))?,
        token: token(global, stored.as_ref())?.ok_or_else(|| missing("api-token"))?,
    })
}

fn token(global: &Global, stored: Option<&Context>) -> Result<Option<String>, Error> {
    if let Some(file) = &global.token_file {
        safe(file)?;
        return Ok(Some(text(file)?.trim().to_owned()));
    }
    // An environment variable, not a flag: arguments can be read by every process of the machine.
    if let Ok(token) = std::env::var("MUSTER_TOKEN")
        && !token.is_empty()
    {
        return Ok(Some(token));
    }
    Ok(stored.map(|context| context.token.clone()))
}

fn read(path: &Path) -> Result<Context, Error> {
    safe(path)?;
    serde_json::from_str(&text(path)?).map_err(|why| {
        Error::usage("E_CONTEXT", format!("{}: {why}. Log in again with `muster login`", path.display()))
    })
}

/// A whole text file of at most 1 MiB.
///
/// # Errors
/// It cannot be read, is too long, or is not text.
pub fn text(path: &Path) -> Result<String, Error> {
    let size = std::fs::metadata(path).map_err(|why| Error::file(path, &why))?.len();
    if size > 1 << 20 {
        return Err(Error::usage("E_FILE_TOO_LARGE", format!("{}: {size} bytes; at most 1 MiB", path.display())));
    }
    std::fs::read_to_string(path).map_err(|why| Error::file(path, &why))
}

/// Writes the context so that only its owner can read it, whole or not at all.
///
/// # Errors
/// The file cannot be written.
pub fn save(path: &Path, context: &Context) -> Result<(), Error> {
    let fail = |why: std::io::Error| Error::file(path, &why);
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(fail)?;
    }
    let json = serde_json::to_string_pretty(context).map_err(|why| fail(why.into()))?;
    let part = path.with_extension("part");
    if part.exists() {
        std::fs::remove_file(&part).map_err(fail)?;
    }
    write_private(&part, json.as_bytes()).map_err(fail)?;
    std::fs::rename(&part, path).map_err(fail)
}

#[cfg(unix)]
fn write_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(not(unix))]
fn write_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    std::fs::write(path, bytes)
}

#[cfg(unix)]
fn safe(path: &Path) -> Result<(), Error> {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(path).map_err(|why| Error::file(path, &why))?.permissions().mode();
    if mode & 0o077 == 0 {
        return Ok(());
    }
    Err(Error::usage(
        "E_TOKEN_FILE_READABLE",
        format!(
            "{} can be read by others (mode {:o}); run `chmod 600 {}`",
            path.display(),
            mode & 0o777,
            path.display()
        ),
    ))
}

#[cfg(not(unix))]
fn safe(_path: &Path) -> Result<(), Error> {
    Ok(())
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_token_file_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("context.json");
        let context = Context { server: "a:1".into(), ca: String::new(), token: "mt_x".into() };
        save(&path, &context).unwrap();
        assert_eq!(read(&path).unwrap().token, "mt_x");
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        std::fs::set_permissions(&path, open).unwrap();
        let refused = read(&path).unwrap_err().to_string();
        assert!(refused.starts_with("E_TOKEN_FILE_READABLE"), "{refused}");
    }
}
