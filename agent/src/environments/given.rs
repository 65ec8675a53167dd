//! Secrets and configs of a service: files beside the environment's data that its container reads and cannot write.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use domain::stack::{GivenFile, Service};
use sha2::{Digest as _, Sha256};

use crate::files;

/// Writes the files of a service below `folder`, the environment's own; answers where each is and where it goes.
/// A file with another content, owner or mode has another name, so that the container is made anew.
///
/// # Errors
/// The disk refuses.
pub fn write(folder: &Path, service: &Service) -> io::Result<Vec<(PathBuf, String)>> {
    let all = folder.join("files");
    let mut written = Vec::new();
    for file in &service.files {
        files::private_dir(&all)?;
        let path = all.join(name(folder, file));
        if !path.exists() {
            files::write_atomic(&path, file.content.0.as_bytes())?;
        }
        // Only root enters the folder; in the container the file is as open as the stack says.
        std::os::unix::fs::chown(&path, file.uid, file.gid)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(file.mode))?;
        written.push((path, file.target.clone()));
    }
    Ok(written)
}

/// The files below `folder`, the environment's own, that are not named.
pub fn others(folder: &Path, names: &BTreeSet<&OsStr>) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder.join("files")) else { return Vec::new() };
    entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.file_name().is_some_and(|name| !names.contains(name)))
        .collect()
}

/// Tells nothing of the content, also not that two environments have the same.
fn name(folder: &Path, file: &GivenFile) -> String {
    let mut hash = Sha256::new();
    let parts = [folder.as_os_str().as_encoded_bytes(), file.name.as_bytes(), file.content.0.as_bytes()];
    for part in parts {
        hash.update(part.len().to_be_bytes());
        hash.update(part);
    }
    hash.update(format!("{:o} {:?} {:?}", file.mode, file.uid, file.gid));
    hex::encode(&hash.finalize()[..16])
}

#[cfg(test)]
mod tests {
    use domain::stack::Content;

    use super::*;

    fn service(content: &str, mode: u32) -> Service {
        let file = GivenFile {
            name: "key".to_owned(),
            target: "/run/secrets/key".to_owned(),
            mode,
            uid: None,
            gid: None,
            content: Content(content.to_owned()),
        };
        Service { files: vec![file], ..Service::default() }
    }

    #[test]
    fn a_file_is_written_once_and_anew_when_it_changes() {
        let folder = tempfile::tempdir().expect("a folder");
        let one = |content, mode| write(folder.path(), &service(content, mode)).expect("written").remove(0);
        let (first, target) = one("hunter2", 0o440);
        assert_eq!(target, "/run/secrets/key");
        assert_eq!(std::fs::read_to_string(&first).expect("a text"), "hunter2");
        assert_eq!(std::fs::metadata(&first).expect("there").permissions().mode() & 0o777, 0o440);
        assert_eq!(std::fs::metadata(folder.path().join("files")).expect("there").permissions().mode() & 0o777, 0o700);
        assert_eq!(one("hunter2", 0o440).0, first);
        assert_ne!(one("hunter3", 0o440).0, first);
        assert_ne!(one("hunter2", 0o444).0, first);
        assert!(!first.to_string_lossy().contains("hunter2"));
        let other = tempfile::tempdir().expect("a folder");
        let there = write(other.path(), &service("hunter2", 0o440)).expect("written").remove(0).0;
        assert_ne!(there.file_name(), first.file_name());
    }
}
