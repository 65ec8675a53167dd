//! Idmapped mounts: made, found again, taken away.

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{MoveMountFlags, OpenTreeFlags, UnmountFlags, move_mount, open_tree, unmount};

use super::ids::{self, Exchange};
use crate::state::environments::Folder;

/// How long a process may take to be in a user namespace of its own.
const PATIENCE: Duration = Duration::from_secs(5);

/// Mounts the folder at `at` with the numbers exchanged, unless it is already.
pub(super) fn ensure(folder: &Folder, exchange: Exchange, at: &Path) -> io::Result<()> {
    if is_there(folder, exchange, at) {
        return Ok(());
    }
    // Of a folder that was replaced since.
    while at.exists() && unmount(at, UnmountFlags::DETACH).is_ok() {}
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::openat(CWD, &folder.path, flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&root)?;
    if (stat.st_dev, stat.st_ino) != (folder.device, folder.inode) {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the folder was replaced"));
    }
    let recursive = OpenTreeFlags::AT_RECURSIVE | OpenTreeFlags::AT_EMPTY_PATH;
    let tree = open_tree(&root, c"", OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | recursive)?;
    let users = UserNamespace::with(exchange)?;
    set_owners(tree.as_fd(), users.file()?.as_fd())?;
    // Whoever is behind a number that an owner is seen as would have the owner's rights.
    fs::DirBuilder::new().recursive(true).mode(0o700).create(at)?;
    move_mount(&tree, c"", CWD, at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    Ok(())
}

/// Whether that folder is mounted there, with its owner seen as somebody else.
fn is_there(folder: &Folder, exchange: Exchange, at: &Path) -> bool {
    fs::metadata(at).is_ok_and(|found| {
        (found.dev(), found.ino()) == (folder.device, folder.inode)
            && (found.uid(), found.gid()) == (exchange.users.1, exchange.groups.1)
    })
}

/// Unmounts everything right below `folder`, and removes it. What is still mounted stays, and nothing in it is touched.
pub(super) fn remove_all(folder: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(why) => return Err(why),
    };
    for entry in entries {
        let path = entry?.path();
        while unmount(&path, UnmountFlags::DETACH).is_ok() {}
        // Never with what is in it: that may be somebody's sources.
        fs::remove_dir(&path)?;
    }
    fs::remove_dir(folder)
}

/// A user namespace that only says who is who; it lasts as long as its process, which does nothing.
struct UserNamespace(Child);

impl UserNamespace {
    fn with(exchange: Exchange) -> io::Result<Self> {
        let mut command = Command::new("unshare");
        command.args(["--user", "--", "cat"]).env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        let child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let mut namespace = Self(child);
        namespace.entered()?;
        let pid = namespace.0.id();
        fs::write(format!("/proc/{pid}/uid_map"), ids::lines(exchange.users))?;
        fs::write(format!("/proc/{pid}/gid_map"), ids::lines(exchange.groups))?;
        Ok(namespace)
    }

    /// Waits until it is in a namespace of its own.
    fn entered(&mut self) -> io::Result<()> {
        let ours = fs::read_link("/proc/self/ns/user")?;
        let path = format!("/proc/{}/ns/user", self.0.id());
        let until = Instant::now() + PATIENCE;
        while fs::read_link(&path).is_ok_and(|now| now == ours) {
            if let Some(status) = self.0.try_wait()? {
                return Err(io::Error::other(format!("no user namespace can be made: unshare ended with {status}")));
            }
            if Instant::now() >= until {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "no user namespace was made in time"));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    fn file(&self) -> io::Result<fs::File> {
        fs::File::open(format!("/proc/{}/ns/user", self.0.id()))
    }
}

impl Drop for UserNamespace {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `mount_setattr(2)` with `MOUNT_ATTR_IDMAP`, for a whole tree that is mounted nowhere yet.
fn set_owners(tree: BorrowedFd<'_>, users: BorrowedFd<'_>) -> io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: u64::try_from(users.as_raw_fd()).unwrap_or(u64::MAX),
    };
    let flags = libc::AT_EMPTY_PATH | libc::AT_RECURSIVE;
    #[expect(unsafe_code, reason = "no crate wraps this call; path and attributes live until it returns")]
    let answer = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(&attributes),
            size_of_val(&attributes),
        )
    };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::chown;

    use super::*;
    use crate::environments::folder::describe;

    /// Unmounts also when the test fails.
    struct Mounted<'a>(&'a Path);

    impl Drop for Mounted<'_> {
        fn drop(&mut self) {
            let _ = remove_all(self.0);
        }
    }

    #[test]
    fn what_root_makes_in_there_belongs_to_the_folders_owner_out_here() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("left out: only root may mount");
            return;
        }
        let (home, run) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let root = home.path().join("bot");
        fs::create_dir(&root).expect("made");
        fs::write(root.join("old"), "1").expect("written");
        for path in [&root, &root.join("old")] {
            chown(path, Some(4711), Some(4712)).expect("given away");
        }
        let folder = describe(&root).expect("described");
        let exchange = Exchange::between((4711, 4712), (0, Some(0))).expect("exchanged");
        let all = run.path().join("environment");
        let at = all.join("view");
        let mounted = Mounted(&all);
        ensure(&folder, exchange, &at).expect("mounted");
        ensure(&folder, exchange, &at).expect("found again");
        fs::write(at.join("new"), "2").expect("written");
        let owner = |path: &Path| fs::metadata(path).map(|found| (found.uid(), found.gid())).expect("it is there");
        assert_eq!(owner(&at.join("old")), (0, 0));
        assert_eq!(owner(&root.join("new")), (4711, 4712));
        chown(at.join("new"), Some(4711), Some(4712)).expect("given away");
        assert_eq!(owner(&root.join("new")), (0, 0), "they changed places");

        // Another folder has the name now: that one is mounted once it was granted, and not before.
        fs::rename(&root, home.path().join("was")).expect("moved");
        fs::create_dir(&root).expect("made");
        chown(&root, Some(4711), Some(4712)).expect("given away");
        ensure(&folder, exchange, &at).expect("what was granted stays mounted");
        assert!(at.join("old").exists());
        ensure(&describe(&root).expect("described"), exchange, &at).expect("mounted");
        assert!(!at.join("old").exists());
        assert!(ensure(&folder, exchange, &at).is_err());

        fs::write(root.join("kept"), "").expect("written");
        ensure(&describe(&root).expect("described"), exchange, &at).expect("mounted");
        drop(mounted);
        assert!(!all.exists());
        assert!(root.join("kept").exists(), "nothing in it was touched");
    }
}
