//! A host of its own: a network namespace with an engine, as `scripts/netns-host.sh` makes it.

use std::path::PathBuf;
use std::process::Command;

use super::binaries::root;
use super::cluster::show_logs;

/// What its engine has of this machine's images. The same everywhere: they are unpacked once and then linked.
const IMAGES: &[&str] = &["postgres:15", "redis:7", "bot:v1", "bot:v2"];

/// One such host; removed when dropped.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    /// The host's address.
    pub address: String,
    /// This machine's address towards it.
    pub gateway: String,
    /// Its engine's socket, `unix://…`.
    pub engine: String,
}

fn try_script(arguments: &[&str]) -> Result<String, String> {
    let out = Command::new(root().join("scripts/netns-host.sh")).args(arguments).output().expect("netns-host.sh runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if out.status.success() { Ok(text(&out.stdout)) } else { Err(text(&out.stderr)) }
}

fn script(arguments: &[&str]) -> String {
    try_script(arguments).unwrap_or_else(|why| panic!("netns-host.sh {arguments:?}: {why}"))
}

impl Namespace {
    /// Makes it, with [`IMAGES`]; `index` picks its addresses.
    ///
    /// # Panics
    /// The script fails.
    #[must_use]
    pub fn up(name: &str, index: u8) -> Self {
        Self::with(name, index, IMAGES)
    }

    /// The same; its containers outlive its engine.
    #[must_use]
    pub fn restoring(name: &str, index: u8) -> Self {
        Self::with(name, index, &[&["live-restore"], IMAGES].concat())
    }

    /// The same without images.
    #[must_use]
    pub fn bare(name: &str, index: u8) -> Self {
        Self::with(name, index, &[])
    }

    fn with(name: &str, index: u8, more: &[&str]) -> Self {
        // What a killed test left.
        let _ = Command::new(root().join("scripts/netns-host.sh")).args(["down", name]).output();
        let shown = script(&[&["up", name, &index.to_string()], more].concat());
        let value = |key: &str| {
            let start = format!("{key}=");
            shown.lines().find_map(|line| line.strip_prefix(&start)).unwrap_or_default().to_owned()
        };
        Self {
            name: name.to_owned(),
            address: value("ADDRESS"),
            gateway: value("GATEWAY"),
            engine: value("DOCKER_HOST"),
        }
    }

    /// Where its engine's runc keeps what it knows of a container.
    #[must_use]
    pub fn runtime(&self, container: &str) -> PathBuf {
        self.beside(&format!("exec/runtime-runc/moby-{}", self.name)).join(container)
    }

    /// What lies beside its engine's socket, named as `scripts/netns-host.sh` has it.
    fn beside(&self, name: &str) -> PathBuf {
        PathBuf::from(self.engine.trim_start_matches("unix://")).with_file_name(name)
    }

    /// Words before a command that runs in it.
    #[must_use]
    pub fn prefix(&self) -> Vec<String> {
        let script = root().join("scripts/netns-host.sh").to_string_lossy().into_owned();
        vec![script, "exec".to_owned(), self.name.clone()]
    }

    /// Drops everything between it and this machine, both ways, silently.
    pub fn cut(&self) {
        script(&["cut", &self.name]);
    }

    /// Drops only what comes `in` or goes `out`.
    pub fn cut_one_way(&self, way: &str) {
        script(&["cut", &self.name, way]);
    }

    /// SIGKILL of its engine, and a start.
    pub fn crash_engine(&self) {
        self.kill_engine();
        self.start_engine();
    }

    /// SIGKILL of its engine.
    pub fn kill_engine(&self) {
        script(&["engine", &self.name, "kill"]);
    }

    /// What its engine, which does not run, knows of networks is removed.
    ///
    /// # Panics
    /// It cannot be.
    pub fn forget_networks(&self) {
        std::fs::remove_file(self.beside("data/network/files/local-kv.db")).expect("removed");
    }

    /// Its engine starts after it was killed while it removed a network. False: it never will again, which is a bug of
    /// its own (moby#45057, in 20.10.23 to 20.10.24 and 23.0.1).
    #[must_use]
    pub fn starts_again(&self) -> bool {
        match try_script(&["engine", &self.name, "start"]) {
            Ok(_) => true,
            Err(why) if why.contains("index out of range [0] with length 0") => false,
            Err(why) => panic!("the engine of {}: {why}", self.name),
        }
    }

    /// Its engine starts, and answers.
    pub fn start_engine(&self) {
        script(&["engine", &self.name, "start"]);
    }

    /// Its engine is ended in order, and started again.
    pub fn restart_engine(&self) {
        script(&["engine", &self.name, "stop"]);
        script(&["engine", &self.name, "start"]);
    }

    /// Lets it through again.
    pub fn heal(&self) {
        script(&["heal", &self.name]);
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if std::thread::panicking() {
            show_logs(&self.beside(""));
        }
        let down = Command::new(root().join("scripts/netns-host.sh")).args(["down", &self.name]).output();
        if !down.as_ref().is_ok_and(|out| out.status.success()) {
            eprintln!("cleaning up {}: {down:?}", self.name);
        }
    }
}
