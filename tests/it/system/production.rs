//! The example's target `bot/production` on some hosts.

use std::time::Duration;

use serde_json::Value;
use tests::harness::call::{Call, Output};
use tests::harness::cluster::{Cluster, Options, get};
use tests::harness::condition::{SOON, eventually};
use tests::harness::example::Example;
use tests::harness::fleet::Fleet;
use tests::harness::host::Host;

/// Hosts web-1, web-2, …, the first with the scheduler; what they use; their coordinator.
pub struct Production {
    pub hosts: Vec<Host>,
    pub cluster: Cluster,
    /// Last: the cluster's containers are on its network.
    pub fleet: Fleet,
}

impl Production {
    /// With so many hosts, and nothing released.
    pub fn start(hosts: usize) -> Self {
        Self::within(Cluster::with(&Options { example: true, ..Options::default() }), hosts)
    }

    /// The same in this cluster, which has the example.
    pub fn within(cluster: Cluster, hosts: usize) -> Self {
        let fleet = Fleet::start(&cluster);
        let join = |number: usize| {
            cluster.host(&format!("web-{number}")).member(fleet.network(), number == 1).label("role", "test").start()
        };
        let started: Vec<Host> = (1..=hosts).map(join).collect();
        let hosts = started.into_iter().map(|host| host.joined(&cluster)).collect();
        Self { hosts, cluster, fleet }
    }

    /// With release 1, which is v1.
    pub fn released(hosts: usize) -> Self {
        let production = Self::start(hosts);
        production.rollout("v1", &[]).ok();
        production
    }

    /// `rollout start` of a version, with short times; waits for the outcome.
    pub fn rollout(&self, version: &str, more: &[&str]) -> Call {
        let what = Example::get().commit(version);
        self.start_of(&[&["bot/production", what], more].concat())
    }

    /// `rollout start` of an earlier release.
    pub fn back_to(&self, release: u64) -> Call {
        self.start_of(&["bot/production", "--release", &release.to_string()])
    }

    fn start_of(&self, what: &[&str]) -> Call {
        let mut arguments = vec!["rollout", "start"];
        arguments.extend(what);
        for short in ["min_healthy_time=1s", "bake_time=0s", "final_bake_time=0s", "drain_timeout=3s"] {
            arguments.extend(["--set", short]);
        }
        self.cluster.muster(&arguments).by("jenkins")
    }

    /// The newest rollout.
    pub fn newest(&self) -> Value {
        self.cluster.muster(&["rollout", "status", "bot/production"]).json()
    }

    /// What `rollout status --why` prints of the newest.
    pub fn why(&self) -> Output {
        self.cluster.muster(&["rollout", "status", "--why", "bot/production"]).ok()
    }

    /// Waits until the newest rollout's step of `member` is in `state`, for example `CHECKING`.
    pub fn wait_step(&self, member: &str, state: &str) {
        let wanted = format!("STEP_STATE_{state}");
        eventually(SOON, &format!("the step of {member} is {state}"), || {
            let rollout = self.newest();
            let steps = rollout["steps"].as_array().cloned().unwrap_or_default();
            let found = steps.iter().any(|step| step["member"] == member && step["state"] == wanted.as_str());
            if found { Ok(()) } else { Err(rollout.to_string()) }
        });
    }

    /// Every host serves this release from exactly one web process, the scheduler runs once, nothing else runs.
    pub fn all_run(&self, release: u64) {
        for (index, host) in self.hosts.iter().enumerate() {
            eventually(SOON, &format!("{} runs release {release} and nothing else", host.name), || {
                let running = of_target(host.running());
                let expected = if index == 0 { vec!["scheduler", "web"] } else { vec!["web"] };
                let is = |name: &str, process: &str| name.ends_with(&format!("-{process}-r{release}"));
                let right = running.len() == expected.len()
                    && running.iter().zip(&expected).all(|(name, process)| is(name, process));
                if !right {
                    return Err(format!("it runs {running:?}"));
                }
                let health = health(host)?;
                if health["release"] == release.to_string().as_str() { Ok(()) } else { Err(health.to_string()) }
            });
        }
        let all = self.hosts.iter().flat_map(Host::running).filter(|name| name.contains("-scheduler-")).count();
        assert_eq!(all, 1, "the scheduler runs once in the fleet");
    }

    /// No container of a step that is over is left, running or not.
    pub fn no_leftovers(&self, release: u64) {
        for host in &self.hosts {
            eventually(Duration::from_secs(30), &format!("{} keeps only release {release}", host.name), || {
                let left: Vec<String> = of_target(host.engine.containers(&host.label()))
                    .into_iter()
                    .filter(|name| !name.ends_with(&format!("-r{release}")))
                    .collect();
                if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
            });
        }
    }
}

/// Names of the target's containers, out of all of a host's.
fn of_target(mut names: Vec<String>) -> Vec<String> {
    names.retain(|name| name.contains("-bot-production-"));
    names
}

/// What the bot on a host answers at `/health`.
pub fn health(host: &Host) -> Result<Value, String> {
    let (status, body) = get(&format!("{}:8080", host.address), "/health")?;
    if status != 200 {
        return Err(format!("HTTP {status} {body}"));
    }
    serde_json::from_str(&body).map_err(|why| format!("{why}: {body}"))
}
