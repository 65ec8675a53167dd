//! The engine as its own client shows it: a second opinion beside what Muster says.

use std::process::{Command, Stdio};

use serde_json::Value;

/// Whether an engine answers.
#[must_use]
pub fn answers() -> bool {
    let quiet = Command::new("docker").arg("info").stdout(Stdio::null()).stderr(Stdio::null()).status();
    quiet.is_ok_and(|status| status.success())
}

/// An engine, by its socket; none: this machine's.
#[derive(Debug, Clone, Default)]
pub struct Engine {
    socket: Option<String>,
}

impl Engine {
    /// The engine behind `unix://…`.
    #[must_use]
    pub fn at(socket: &str) -> Self {
        Self { socket: Some(socket.to_owned()) }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("docker");
        if let Some(socket) = &self.socket {
            command.args(["--host", socket]);
        }
        command.args(arguments).stdin(Stdio::null());
        command
    }

    /// Standard output of `docker ARGUMENTS`.
    ///
    /// # Errors
    /// Its standard error, when it fails.
    pub fn try_run(&self, arguments: &[&str]) -> Result<String, String> {
        let out = self.command(arguments).output().map_err(|why| why.to_string())?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if out.status.success() { Ok(text(&out.stdout)) } else { Err(text(&out.stderr)) }
    }

    /// Standard output of `docker ARGUMENTS`.
    ///
    /// # Panics
    /// It failed.
    pub fn run(&self, arguments: &[&str]) -> String {
        self.try_run(arguments).unwrap_or_else(|why| panic!("docker {arguments:?}: {why}"))
    }

    fn lines(&self, arguments: &[&str]) -> Vec<String> {
        self.run(arguments).lines().map(str::to_owned).collect()
    }

    /// Names of containers with this label, running or not, sorted.
    pub fn containers(&self, label: &str) -> Vec<String> {
        let mut names = self.lines(&["ps", "-a", "--filter", &format!("label={label}"), "--format", "{{.Names}}"]);
        names.sort();
        names
    }

    /// Names of running containers with this label, sorted.
    pub fn running(&self, label: &str) -> Vec<String> {
        let mut names = self.lines(&["ps", "--filter", &format!("label={label}"), "--format", "{{.Names}}"]);
        names.sort();
        names
    }

    /// Containers, networks and volumes with this label, as `kind name`, sorted.
    pub fn objects(&self, label: &str) -> Vec<String> {
        let filter = format!("label={label}");
        let mut all: Vec<String> = self.containers(label).into_iter().map(|name| format!("container {name}")).collect();
        let networks = self.lines(&["network", "ls", "--filter", &filter, "--format", "{{.Name}}"]);
        all.extend(networks.into_iter().map(|name| format!("network {name}")));
        let volumes = self.lines(&["volume", "ls", "--filter", &filter, "--format", "{{.Name}}"]);
        all.extend(volumes.into_iter().map(|name| format!("volume {name}")));
        all.sort();
        all
    }

    /// What `docker inspect` says of one object.
    pub fn inspect(&self, name: &str) -> Value {
        let all: Value = serde_json::from_str(&self.run(&["inspect", name])).unwrap_or_default();
        all.get(0).cloned().unwrap_or_default()
    }

    /// The control group of a running container in the tree of a controller, or in the only tree.
    ///
    /// # Panics
    /// It does not run, or is in none.
    #[must_use]
    pub fn cgroup(&self, container: &str, controller: &str) -> std::path::PathBuf {
        let pid = self.inspect(container)["State"]["Pid"].as_u64().expect("a pid");
        let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("it runs");
        let path = |controller: &str| {
            text.lines().find_map(|line| {
                let mut parts = line.splitn(3, ':').skip(1);
                let is = parts.next()?.split(',').any(|name| name == controller);
                is.then(|| parts.next().unwrap_or_default().trim_start_matches('/').to_owned())
            })
        };
        let root = std::path::Path::new("/sys/fs/cgroup");
        match path(controller) {
            Some(path) => root.join(controller).join(path),
            None => root.join(path("").expect("a control group")),
        }
    }

    /// Id, start time and restart count of each of these containers: changes when anybody touches one.
    pub fn fingerprint(&self, label: &str) -> Vec<String> {
        let mut all: Vec<String> = self
            .containers(label)
            .iter()
            .map(|name| {
                self.run(&[
                    "inspect",
                    "--format",
                    "{{.Id}} {{.State.StartedAt}} {{.RestartCount}} {{.State.Status}}",
                    name,
                ])
            })
            .collect();
        all.sort();
        all
    }

    /// Removes containers with their anonymous volumes, networks and volumes that carry this label.
    pub fn remove_all(&self, label: &str) {
        let filter = format!("label={label}");
        let running = self.try_run(&["ps", "-q", "--no-trunc", "--filter", &filter]).unwrap_or_default();
        running.lines().for_each(thaw);
        for (list, remove) in [
            (["ps", "-aq", "--filter"].as_slice(), ["rm", "-fv"].as_slice()),
            (&["network", "ls", "-q", "--filter"], &["network", "rm"]),
            (&["volume", "ls", "-q", "--filter"], &["volume", "rm", "-f"]),
        ] {
            let ids = self.try_run(&[list, &[filter.as_str()]].concat()).unwrap_or_default();
            let ids: Vec<&str> = ids.lines().collect();
            if !ids.is_empty()
                && let Err(why) = self.try_run(&[remove, &ids].concat())
            {
                eprintln!("cleaning up: docker {remove:?}: {why}");
            }
        }
    }
}

/// What is frozen cannot be ended.
fn thaw(container: &str) {
    let v1 = format!("/sys/fs/cgroup/freezer/docker/{container}/freezer.state");
    let v2 = format!("/sys/fs/cgroup/system.slice/docker-{container}.scope/cgroup.freeze");
    let v2_plain = format!("/sys/fs/cgroup/docker/{container}/cgroup.freeze");
    for (file, thawed) in [(v1, "THAWED"), (v2, "0"), (v2_plain, "0")] {
        if std::path::Path::new(&file).exists() {
            let _ = std::fs::write(file, thawed);
        }
    }
}
