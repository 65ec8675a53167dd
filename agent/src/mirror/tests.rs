use std::process::Command;

use manifest::git::LocalPaths;

use super::*;

/// A repository of this machine with one commit.
struct Origin {
    folder: tempfile::TempDir,
}

impl Origin {
    fn new() -> Self {
        let origin = Self { folder: tempfile::tempdir().unwrap() };
        std::fs::create_dir(origin.path()).unwrap();
        origin.git(&["init", "-q", "-b", "main"]);
        origin.write("app.py", "print('one')\n");
        origin.commit("the first");
        origin
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("origin")
    }

    fn git(&self, arguments: &[&str]) -> String {
        let output = Command::new("git")
            .args(["-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false"])
            .args(arguments)
            .current_dir(self.path())
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .output()
            .unwrap();
        assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path().join(name), text).unwrap();
    }

    fn commit(&self, message: &str) -> Commit {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "-m", message]);
        self.head()
    }

    fn head(&self) -> Commit {
        Commit::parse(&self.git(&["rev-parse", "HEAD"])).unwrap()
    }

    fn url(&self) -> GitUrl {
        GitUrl::parse(&format!("file://{}", self.path().display()), LocalPaths::Allowed).unwrap()
    }

    fn mirrors(&self) -> Mirrors {
        Mirrors::new(self.folder.path())
    }

    fn place(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

fn read(folder: &Path, name: &str) -> String {
    std::fs::read_to_string(folder.join(name)).unwrap()
}

#[tokio::test]
async fn the_exact_commit_is_written_out_and_fetched_once() {
    let origin = Origin::new();
    let first = origin.head();
    origin.write("app.py", "print('two')\n");
    let second = origin.commit("the second\n\nbody");
    let mirrors = origin.mirrors();
    let done = mirrors.checkout(&origin.url(), &second, &origin.place("b")).await.unwrap();
    assert_eq!(done, Checkout { subject: "the second".to_owned(), fetched: true });
    assert_eq!(read(&origin.place("b"), "app.py"), "print('two')\n");
    std::fs::rename(origin.path(), origin.folder.path().join("away")).unwrap();
    let done = mirrors.checkout(&origin.url(), &first, &origin.place("a")).await.unwrap();
    assert!(!done.fetched, "it came with the second, and the repository is not needed any more");
    assert_eq!(read(&origin.place("a"), "app.py"), "print('one')\n");
    assert!(!origin.place("a").join(".git").exists());
}

#[tokio::test]
async fn a_commit_on_no_branch_is_found() {
    let origin = Origin::new();
    let mirrors = origin.mirrors();
    mirrors.checkout(&origin.url(), &origin.head(), &origin.place("a")).await.unwrap();
    origin.git(&["checkout", "-q", "--detach"]);
    origin.write("app.py", "pull request\n");
    let commit = origin.commit("detached");
    origin.git(&["update-ref", "refs/pull/7/head", commit.as_str()]);
    origin.git(&["checkout", "-q", "main"]);
    mirrors.checkout(&origin.url(), &commit, &origin.place("b")).await.unwrap();
    assert_eq!(read(&origin.place("b"), "app.py"), "pull request\n");
}

#[tokio::test]
async fn what_the_repository_does_not_have_is_named() {
    let origin = Origin::new();
    let commit = Commit::parse(&"ab".repeat(20)).unwrap();
    let error = origin.mirrors().checkout(&origin.url(), &commit, &origin.place("a")).await.unwrap_err();
    assert_eq!(error.code(), "E_GIT_COMMIT_MISSING", "{error}");
    assert!(error.to_string().contains(origin.url().as_str()) && error.to_string().contains("abab"), "{error}");
}

#[tokio::test]
async fn a_repository_that_is_not_there_is_a_failed_fetch() {
    let origin = Origin::new();
    let url = GitUrl::parse("/does/not/exist.git", LocalPaths::Allowed).unwrap();
    let error = origin.mirrors().checkout(&url, &origin.head(), &origin.place("a")).await.unwrap_err();
    assert_eq!(error.code(), "E_GIT_FETCH", "{error}");
    assert!(error.to_string().contains("/does/not/exist.git"), "{error}");
}

#[tokio::test]
async fn neither_hooks_nor_filters_nor_strange_refs_run_anything() {
    let origin = Origin::new();
    let mark = origin.place("mark");
    origin.write(".gitattributes", "* filter=evil\n");
    origin.write("app.py", "filtered?\n");
    let commit = origin.commit("filters");
    origin.git(&["config", "filter.evil.smudge", &format!("touch {}", mark.display())]);
    for name in ["refs/heads/--upload-pack=touch-x", "refs/heads/-oProxyCommand=x"] {
        // update-ref is plumbing and takes them, as a hostile server would.
        let folder = origin.path().join(".git").join(name);
        std::fs::create_dir_all(folder.parent().unwrap()).unwrap();
        std::fs::write(folder, format!("{}\n", commit.as_str())).unwrap();
    }
    let mirrors = origin.mirrors();
    mirrors.checkout(&origin.url(), &commit, &origin.place("a")).await.unwrap();
    let mirror = std::fs::read_dir(origin.place("mirrors")).unwrap().next().unwrap().unwrap().path();
    std::fs::create_dir_all(mirror.join("hooks")).unwrap();
    let hook = mirror.join("hooks/post-checkout");
    std::fs::write(&hook, format!("#!/bin/sh\ntouch {}\n", mark.display())).unwrap();
    std::fs::set_permissions(&hook, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    mirrors.checkout(&origin.url(), &commit, &origin.place("b")).await.unwrap();
    assert!(!mark.exists());
    assert_eq!(read(&origin.place("b"), "app.py"), "filtered?\n");
}

#[tokio::test]
async fn a_tree_that_would_write_outside_of_itself_is_refused() {
    let origin = Origin::new();
    let blob = origin.git(&["rev-parse", "HEAD:app.py"]);
    let tree = {
        let output = Command::new("git")
            .args(["hash-object", "-t", "tree", "-w", "--literally", "--stdin"])
            .current_dir(origin.path())
            .stdin({
                let path = origin.place("raw");
                let raw: Vec<u8> = [b"100644 ..\0".as_slice(), &hex::decode(&blob).unwrap()].concat();
                std::fs::write(&path, raw).unwrap();
                std::fs::File::open(path).unwrap()
            })
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let commit = Commit::parse(&origin.git(&["commit-tree", &tree, "-m", "evil"])).unwrap();
    origin.git(&["update-ref", "refs/heads/evil", commit.as_str()]);
    let error = origin.mirrors().checkout(&origin.url(), &commit, &origin.place("a")).await.unwrap_err();
    assert!(matches!(error.code(), "E_GIT_CHECKOUT" | "E_GIT_FETCH"), "{error}");
}

#[tokio::test]
async fn a_mirror_left_half_made_or_locked_heals() {
    let origin = Origin::new();
    let mirrors = origin.mirrors();
    let mirror = origin.place("mirrors").join(format!("{}.git", name(&origin.url())));
    std::fs::create_dir_all(mirror.join("objects")).unwrap();
    mirrors.checkout(&origin.url(), &origin.head(), &origin.place("a")).await.unwrap();
    origin.write("app.py", "next\n");
    let next = origin.commit("next");
    std::fs::write(mirror.join("packed-refs.lock"), "").unwrap();
    std::fs::write(mirror.join(format!("refs/muster/{}.lock", next.as_str())), "").unwrap();
    mirrors.checkout(&origin.url(), &next, &origin.place("b")).await.unwrap();
    for entry in std::fs::read_dir(mirror.join("objects")).unwrap().flatten() {
        files::remove_all(&entry.path().join("pack")).unwrap();
    }
    let commit = next.as_str();
    files::remove_all(&mirror.join("objects").join(&commit[..2])).unwrap();
    mirrors.checkout(&origin.url(), &next, &origin.place("c")).await.unwrap();
    assert_eq!(read(&origin.place("c"), "app.py"), "next\n");
}

#[tokio::test]
async fn a_fetch_that_takes_too_long_is_killed() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = Origin::new();
    let url = format!("https://127.0.0.1:{}/x.git", listener.local_addr().unwrap().port());
    let url = GitUrl::parse(&url, LocalPaths::Refused).unwrap();
    let mut mirrors = origin.mirrors();
    mirrors.fetch_limit = Duration::from_millis(300);
    let error = mirrors.checkout(&url, &origin.head(), &origin.place("a")).await.unwrap_err();
    assert_eq!(error.code(), "E_GIT_TIMEOUT", "{error}");
}
