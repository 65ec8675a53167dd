//! Paths below a granted folder. What was granted is the folder itself, not its name: device and inode are checked
//! again before each use, and nothing leads out of it.

use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};

use super::failure::Failure;
use crate::state::environments::Folder;

/// Describes a folder as it is now.
///
/// # Errors
/// It is not a folder that can be opened.
pub fn describe(path: &Path) -> std::io::Result<Folder> {
    let opened = rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let stat = rustix::fs::fstat(&opened)?;
    Ok(Folder { path: path.to_owned(), device: stat.st_dev, inode: stat.st_ino })
}

/// The absolute path of `relative` below the folder.
///
/// # Errors
/// `E_FOLDER_CHANGED`: another folder has the name now. `E_MOUNT_MISSING`: there is nothing. `E_MOUNT_OUTSIDE`: it
/// leads out of the folder.
pub fn resolve(folder: &Folder, relative: &str) -> Result<PathBuf, Failure> {
    let shown = folder.path.display();
    let changed = |why: String| {
        Failure::lasting(
            "E_FOLDER_CHANGED",
            format!("{shown} is not the folder that was granted ({why}); run `muster env up` in it again"),
        )
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::openat(CWD, &folder.path, flags, Mode::empty()).map_err(|why| changed(why.to_string()))?;
    let stat = rustix::fs::fstat(&root).map_err(|why| changed(why.to_string()))?;
    if (stat.st_dev, stat.st_ino) != (folder.device, folder.inode) {
        return Err(changed("it was replaced".to_owned()));
    }
    let inside = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let relative = if relative.is_empty() { "." } else { relative };
    let found = rustix::fs::openat2(&root, relative, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), inside);
    let found = found.map_err(|why| match why {
        rustix::io::Errno::XDEV | rustix::io::Errno::LOOP => {
            Failure::lasting("E_MOUNT_OUTSIDE", format!("{relative} leads out of {shown}"))
        }
        _ => Failure::lasting(
            "E_MOUNT_MISSING",
            format!("{relative} does not exist in {shown}; make it, or take it out of the stack file"),
        ),
    })?;
    std::fs::read_link(format!("/proc/self/fd/{}", found.as_raw_fd()))
        .map_err(|why| Failure::lasting("E_MOUNT_MISSING", format!("{relative} in {shown}: {why}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lies_in_the_granted_folder_is_found() {
        let home = tempfile::tempdir().expect("a folder");
        let root = home.path().join("bot");
        std::fs::create_dir_all(root.join("src")).expect("made");
        std::os::unix::fs::symlink("/etc", root.join("out")).expect("linked");
        std::os::unix::fs::symlink("src", root.join("in")).expect("linked");
        let folder = describe(&root).expect("described");
        assert_eq!(resolve(&folder, "src").expect("found"), root.join("src"));
        assert_eq!(resolve(&folder, "in").expect("found"), root.join("src"));
        assert_eq!(resolve(&folder, "").expect("found"), root);
        let code = |relative: &str| resolve(&folder, relative).expect_err("refused").code;
        assert_eq!(code("out/passwd"), "E_MOUNT_OUTSIDE");
        assert_eq!(code("../x"), "E_MOUNT_OUTSIDE");
        assert_eq!(code("/etc"), "E_MOUNT_OUTSIDE");
        assert_eq!(code("nothing"), "E_MOUNT_MISSING");
        std::fs::rename(&root, home.path().join("old")).expect("moved");
        std::fs::create_dir(&root).expect("made");
        assert_eq!(code("src"), "E_FOLDER_CHANGED");
    }
}
