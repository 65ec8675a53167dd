//! The engine as it shows itself, by its client or its own words: a second opinion beside what Muster says. Tests that
//! wait ask often, and a client is a program of 50 MB: what is listed and inspected comes over the socket.

use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::cluster::exchange;

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

    /// What the engine answers to a request that changes nothing (Docker Engine API, version 1.41).
    ///
    /// # Errors
    /// It does not answer, or with an error.
    fn get(&self, path: &str) -> Result<Value, String> {
        let own = std::env::var("DOCKER_HOST").unwrap_or_else(|_| "unix:///var/run/docker.sock".to_owned());
        let socket = self.socket.as_deref().unwrap_or(&own).trim_start_matches("unix://");
        let stream = UnixStream::connect(socket).map_err(|why| format!("{socket}: {why}"))?;
        // This version of HTTP has no chunks, and ends with the connection.
        let (status, body) = exchange(stream, &format!("GET /v1.41{path} HTTP/1.0\r\nHost: engine\r\n\r\n"))
            .map_err(|why| format!("{socket}: {why}"))?;
        if status != 200 {
            return Err(format!("{path}: {body}"));
        }
        serde_json::from_str(&body).map_err(|why| format!("{path}: {why}: {body}"))
    }

    /// This field of everything that is listed there and has this label, sorted.
    fn listed(&self, path: &str, label: &str, field: &str) -> Result<Vec<String>, String> {
        let filters: String =
            format!("{{\"label\":[\"{label}\"]}}").bytes().map(|byte| format!("%{byte:02X}")).collect();
        let joint = if path.contains('?') { '&' } else { '?' };
        let mut answer = self.get(&format!("{path}{joint}filters={filters}"))?;
        if path.starts_with("/volumes") {
            answer = answer["Volumes"].take();
        }
        let value = |one: &Value| match &one[field] {
            Value::Array(names) => names[0].as_str().map(|name| name.trim_start_matches('/').to_owned()),
            name => name.as_str().map(str::to_owned),
        };
        let mut all: Vec<String> = answer.as_array().into_iter().flatten().filter_map(value).collect();
        all.sort();
        Ok(all)
    }

    /// Names of containers with this label, running or not, sorted.
    pub fn containers(&self, label: &str) -> Vec<String> {
        self.listed("/containers/json?all=1", label, "Names").expect("containers")
    }

    /// Names of running containers with this label, sorted.
    pub fn running(&self, label: &str) -> Vec<String> {
        self.listed("/containers/json", label, "Names").expect("containers")
    }

    /// Containers, networks and volumes with this label, as `kind name`, sorted.
    pub fn objects(&self, label: &str) -> Vec<String> {
        let kinds = [
            ("container", self.containers(label)),
            ("network", self.listed("/networks", label, "Name").expect("networks")),
            ("volume", self.listed("/volumes", label, "Name").expect("volumes")),
        ];
        kinds
            .into_iter()
            .flat_map(|(kind, names)| names.into_iter().map(move |name| format!("{kind} {name}")))
            .collect()
    }

    /// What `docker inspect` says of a container.
    ///
    /// # Panics
    /// There is none of this name.
    pub fn inspect(&self, name: &str) -> Value {
        self.get(&format!("/containers/{name}/json")).expect("a container")
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

    /// Id, start time, restart count and state of each of these containers: changes when anybody touches one.
    pub fn fingerprint(&self, label: &str) -> Vec<String> {
        let told = |name: &String| {
            let one = self.inspect(name);
            format!("{} {} {} {}", one["Id"], one["State"]["StartedAt"], one["RestartCount"], one["State"]["Status"])
        };
        let mut all: Vec<String> = self.containers(label).iter().map(told).collect();
        all.sort();
        all
    }

    /// Removes containers with their anonymous volumes, networks and volumes that carry this label.
    pub fn remove_all(&self, label: &str) {
        self.listed("/containers/json", label, "Id").unwrap_or_default().iter().for_each(|id| thaw(id));
        for (list, field, remove) in [
            ("/containers/json?all=1", "Id", ["rm", "-fv"].as_slice()),
            ("/networks", "Id", &["network", "rm"]),
            ("/volumes", "Name", &["volume", "rm", "-f"]),
        ] {
            let ids = self.listed(list, label, field).unwrap_or_default();
            let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
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
