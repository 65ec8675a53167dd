//! An agent that joins a cluster.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::binaries;
use super::cluster::{Cluster, private};
use super::condition::{SOON, eventually};
use super::daemon::Daemon;
use super::disk::Disk;
use super::docker::Engine;
use super::namespace::Namespace;
use super::{clean, ranges};

/// What a host will be.
#[derive(Debug)]
pub struct HostBuilder<'a> {
    cluster: &'a Cluster,
    name: String,
    labels: Vec<String>,
    failpoints: String,
    networks: Vec<String>,
    namespace: Option<&'a Namespace>,
    pool: String,
    warm: u32,
    disk: Option<u64>,
}

/// A host with its agent.
#[derive(Debug)]
pub struct Host {
    /// The agent's process; restart it as you like.
    pub agent: Daemon,
    /// Its name.
    pub name: String,
    /// Where its published ports listen.
    pub address: String,
    /// Its engine, as Docker's own client sees it.
    pub engine: Engine,
    /// The disk of its state, if it has one of its own.
    pub disk: Option<Disk>,
    folder: PathBuf,
    id: String,
    prefix: Vec<String>,
}

impl<'a> HostBuilder<'a> {
    pub(super) fn new(cluster: &'a Cluster, name: &str) -> Self {
        Self {
            cluster,
            name: name.to_owned(),
            labels: Vec::new(),
            failpoints: String::new(),
            networks: Vec::new(),
            namespace: None,
            pool: "copy".to_owned(),
            warm: 0,
            disk: None,
        }
    }

    /// With this label, given by the coordinator.
    #[must_use]
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.labels.push(format!("{key}={value}"));
        self
    }

    /// A member of the example's target; the first of them runs the scheduler.
    #[must_use]
    pub fn member(self, network: &str, scheduler: bool) -> Self {
        let mut member = self.label("app", "bot").label("env", "production");
        if scheduler {
            member = member.label("scheduler", "yes");
        }
        member.networks.push(network.to_owned());
        member
    }

    /// With this pool instead of one that copies.
    #[must_use]
    pub fn pool(mut self, setting: &str) -> Self {
        setting.clone_into(&mut self.pool);
        self
    }

    /// With so many slots of each hot stack kept ready, however busy this machine is.
    #[must_use]
    pub fn warm(mut self, slots: u32) -> Self {
        self.warm = slots;
        self
    }

    /// With its state on a disk of its own, an ext4 of so many MiB: [`Host`]'s `disk`.
    #[must_use]
    pub fn on_disk(mut self, mib: u64) -> Self {
        self.disk = Some(mib);
        self
    }

    /// Value of `MUSTER_FAILPOINTS` for the agent.
    #[must_use]
    pub fn failpoints(mut self, failpoints: &str) -> Self {
        failpoints.clone_into(&mut self.failpoints);
        self
    }

    /// In a network namespace with an engine of its own.
    #[must_use]
    pub fn inside(mut self, namespace: &'a Namespace) -> Self {
        self.namespace = Some(namespace);
        self
    }

    /// Starts the agent, which joins with a one-time token; does not wait.
    ///
    /// # Panics
    /// There is no join-token to be had.
    #[must_use]
    pub fn start(self) -> Host {
        let cluster = self.cluster;
        let number = ranges::next_host();
        let folder = cluster.folder().join(&self.name);
        let state = folder.join("state");
        std::fs::create_dir_all(&state).expect("the host's folder");
        let disk = self.disk.map(|mib| Disk::ext4(&state, mib));
        let mut arguments = vec!["join-token", "create", &self.name, "--quiet"];
        self.labels.iter().for_each(|label| arguments.extend(["--label", label]));
        let token = cluster.muster(&arguments).ok();
        private(&folder.join("join-token"), token.stdout.trim());
        let address = self
            .namespace
            .map_or_else(|| ranges::address(cluster.number(), 11 + number % 200), |space| space.address.clone());
        let config = self.config(&folder, &state, &address, number);
        std::fs::write(folder.join("agent.toml"), config).expect("its config file");
        std::fs::write(folder.join("policy.toml"), policy(cluster.folder(), self.warm)).expect("its policy");
        let mut words = self.namespace.map(Namespace::prefix).unwrap_or_default();
        let config = folder.join("agent.toml").to_string_lossy().into_owned();
        words.extend([
            binaries::agent().to_string_lossy().into_owned(),
            "run".to_owned(),
            "--config".to_owned(),
            config,
        ]);
        let mut agent = Daemon::new(cluster.folder(), &self.name, words);
        if !self.failpoints.is_empty() {
            agent.set("MUSTER_FAILPOINTS", &self.failpoints);
        }
        agent.start();
        let engine = self.namespace.map(|space| Engine::at(&space.engine)).unwrap_or_default();
        let prefix = self.namespace.map(Namespace::prefix).unwrap_or_default();
        Host { agent, name: self.name, address, engine, disk, folder, id: String::new(), prefix }
    }

    /// Starts the agent and waits until the host is ready.
    #[must_use]
    pub fn join(self) -> Host {
        let cluster = self.cluster;
        self.start().joined(cluster)
    }

    fn config(&self, folder: &Path, state: &Path, address: &str, number: u32) -> String {
        let (server, engine) = match self.namespace {
            Some(space) => {
                let port = self.cluster.server().rsplit(':').next().unwrap_or_default().to_owned();
                (format!("{}:{port}", space.gateway), space.engine.clone())
            }
            None => (self.cluster.server().to_owned(), "/var/run/docker.sock".to_owned()),
        };
        format!(
            "coordinator = \"{server}\"\nstate_dir = {state:?}\njoin_token_file = {token:?}\nengine = \"{engine}\"\n\
             listen_address = \"{address}\"\nports = \"{ports}\"\nsubnets = \"{subnets}\"\nsocket = {socket:?}\n\
             policy = {policy:?}\npool = {pool:?}\nrelease_networks = {networks:?}\n",
            pool = self.pool,
            token = folder.join("join-token"),
            ports = ranges::ports(number),
            subnets = ranges::subnets(number),
            socket = folder.join("agent.sock"),
            policy = folder.join("policy.toml"),
            networks = self.networks,
        )
    }
}

fn policy(cluster: &Path, warm: u32) -> String {
    let releases = super::example::Example::get().repository.parent().map(Path::to_owned).unwrap_or_default();
    format!(
        "mounts = [{cluster:?}]\nrepositories = [\"https://\", \"ssh://\", {releases:?}, {cluster:?}]\nwarm = {warm}\nwarm_load = 1000.0\n"
    )
}

impl Host {
    /// Waits until the coordinator calls it ready.
    #[must_use]
    pub fn joined(mut self, cluster: &Cluster) -> Self {
        let state = self.folder.join("state");
        let agent = &mut self.agent;
        self.id = eventually(SOON, &format!("{} joins", self.name), || {
            assert!(agent.runs(), "the agent ended:\n{}", agent.printed());
            clean::host_id(&state).ok_or_else(|| "it has no id".to_owned())
        });
        cluster.wait_host(&self.name, "READY", SOON);
        self
    }

    /// Its id, as labels carry it.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The label of everything that this host's agent made.
    #[must_use]
    pub fn label(&self) -> String {
        format!("io.muster.host={}", self.id)
    }

    /// Its folder: `state`, `agent.sock`, configuration.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The local socket for directory grants.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.folder.join("agent.sock")
    }

    /// Names of its running containers.
    #[must_use]
    pub fn running(&self) -> Vec<String> {
        self.engine.running(&self.label())
    }

    /// Containers, networks, volumes and firewall chains of its own.
    #[must_use]
    pub fn objects(&self) -> Vec<String> {
        let mut objects = self.engine.objects(&self.label());
        let chain = format!("-N MUSTER-{}-", self.id.get(self.id.len().saturating_sub(12)..).unwrap_or_default());
        for program in ["iptables", "ip6tables"] {
            let rules = self.command(&[program, "-w", "5", "-S"]).unwrap_or_default();
            objects
                .extend(rules.lines().filter(|line| line.starts_with(&chain)).map(|line| format!("{program} {line}")));
        }
        objects
    }

    /// Standard output of a command in the host's network namespace.
    ///
    /// # Errors
    /// Its standard error, when it fails.
    pub fn command(&self, words: &[&str]) -> Result<String, String> {
        let words: Vec<&str> = self.prefix.iter().map(String::as_str).chain(words.iter().copied()).collect();
        let (program, arguments) = words.split_first().ok_or("no command")?;
        let out = std::process::Command::new(program).args(arguments).output().map_err(|why| why.to_string())?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if out.status.success() { Ok(text(&out.stdout)) } else { Err(text(&out.stderr)) }
    }

    /// Processes of a kind: `relay` or `job`.
    #[must_use]
    pub fn processes(&self, kind: &str) -> Vec<u32> {
        let is = |pid: &u32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
            words.first().is_some_and(|program| program.ends_with(b"muster-agent"))
                && words.get(1).is_some_and(|word| *word == kind.as_bytes())
        };
        clean::processes(&self.folder).into_iter().filter(is).collect()
    }

    /// SIGKILL of the agent, and a start; relay and jobs live on.
    pub fn crash(&mut self, cluster: &Cluster) {
        self.agent.kill();
        self.agent.start();
        cluster.wait_host(&self.name, "READY", Duration::from_secs(40));
    }

    /// Everything of it that runs ends at once, as when its power goes: agent, relay, containers.
    pub fn power_off(&mut self) {
        self.agent.kill();
        let relays = self.processes("relay").into_iter().filter_map(|pid| i32::try_from(pid).ok());
        for relay in relays.filter_map(rustix::process::Pid::from_raw) {
            // One that is gone already is fine.
            let _ = rustix::process::kill_process(relay, rustix::process::Signal::KILL);
        }
        let running = self.running();
        if !running.is_empty() {
            let words: Vec<&str> = ["kill"].into_iter().chain(running.iter().map(String::as_str)).collect();
            self.engine.run(&words);
        }
    }

    /// The agent starts again.
    pub fn power_on(&mut self) {
        self.agent.start();
    }
}
