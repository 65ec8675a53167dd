//! An order, read: the stack with its credentials, and the names of everything it is made of.

use std::collections::BTreeSet;
use std::path::PathBuf;

use domain::ids::EnvironmentId;
use domain::stack::Stack;

use super::credentials;
use super::data::{self, Manifest};
use super::failure::Failure;
use super::{Wanted, warm};
use crate::engine::Labels;
use crate::host::Host;

/// An order, read.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The environment's id.
    pub id: String,
    /// The end of the id, for names.
    pub short: String,
    /// What was ordered.
    pub wanted: Wanted,
    /// The stack, with credentials of its own.
    pub stack: Stack,
    /// How many services the stack file has, also those that are not wanted now.
    pub most: usize,
    /// Remarks about the stack file.
    pub notices: Vec<String>,
    /// What lies beside the data.
    pub manifest: Manifest,
    /// Services whose image is to be built again.
    pub rebuild: BTreeSet<String>,
    /// Services to stop and start again.
    pub restart: BTreeSet<String>,
}

/// Reads an order. Credentials and ports of an earlier time are used again.
///
/// # Errors
/// The stack file's problems, or a manifest that is there and cannot be read.
pub fn read(host: &Host, wanted: &Wanted) -> Result<Plan, Failure> {
    let order = &wanted.order;
    let id: EnvironmentId = order.id.parse().map_err(|why| Failure::lasting("E_ID", format!("{why}")))?;
    let unreadable = |why: std::io::Error| {
        let path = data::folder(&host.pool, &order.id);
        Failure::lasting(
            "E_ENV_MANIFEST",
            format!("{}/manifest.json cannot be read ({why}); its data is kept untouched", path.display()),
        )
    };
    let held = Manifest::read(&host.pool, &order.id).map_err(unreadable)?;
    // Made by an agent that knew nothing of seeds: what lies there is its data.
    let old = held.as_ref().is_some_and(|held| held.data_epoch.is_none());
    let mut manifest = held.unwrap_or_default();
    if old {
        manifest.data_epoch = Some(0);
    }
    manifest.id.clone_from(&order.id);
    manifest.name.clone_from(&order.name);
    manifest.owner.clone_from(&order.owner);
    manifest.app.clone_from(&order.app);
    manifest.run.clone_from(&order.run);
    manifest.folder.clone_from(&wanted.folder);
    let variables = order.variables.clone().into_iter().collect();
    let files = |path: &str| order.env_files.get(path).cloned();
    let file = if order.file.is_empty() { "compose.yaml" } else { &order.file };
    let input = manifest::stack::Input { file, text: &order.stack_file, variables: &variables, files: &files };
    let mut no_random = false;
    let mut random = || {
        credentials::random_password().unwrap_or_else(|_| {
            no_random = true;
            String::new()
        })
    };
    let reading = credentials::read(input, &mut manifest.credentials, &mut random).map_err(|problems| {
        let code = problems.first().map_or("E_STACK_SYNTAX", |problem| problem.code.as_str());
        let lines: Vec<String> = problems.iter().take(20).map(ToString::to_string).collect();
        Failure::lasting(code, lines.join("\n"))
    })?;
    let mut stack = reading.stack;
    let most = stack.services.len();
    share(&mut stack);
    restrict(&mut stack, &order.only_services);
    if crate::changes::is_one(&order.run) {
        // Nobody but the agent has business there.
        for service in stack.services.values_mut() {
            let ports = std::mem::take(&mut service.ports);
            service.expose.splice(0..0, ports);
        }
    }
    if no_random {
        return Err(Failure::passing("E_RANDOM", "the operating system gives no random bytes"));
    }
    Ok(Plan {
        id: order.id.clone(),
        short: id.short(),
        wanted: wanted.clone(),
        stack,
        most,
        notices: reading.notices.iter().map(ToString::to_string).collect(),
        manifest,
        rebuild: BTreeSet::new(),
        restart: BTreeSet::new(),
    })
}

/// Gives the quota of the stack to its services: one that says nothing itself may use at most what those that say
/// something leave of it.
fn share(stack: &mut Stack) {
    let quota = stack.settings.quota;
    let left = |all: Option<u64>, said: u64, least: u64| all.map(|all| all.saturating_sub(said).max(least));
    let memory: u64 = stack.services.values().filter_map(|service| service.memory).sum();
    let cpus: u64 = stack.services.values().filter_map(|service| service.milli_cpus).sum();
    let (memory, cpus) = (left(quota.memory, memory, LEAST_MEMORY), left(quota.milli_cpus, cpus, LEAST_MILLI_CPUS));
    for service in stack.services.values_mut() {
        service.memory = service.memory.or(memory);
        // The kernel refuses a container that may use more than the group that it is in.
        let most = quota.milli_cpus.unwrap_or(u64::MAX);
        service.milli_cpus = service.milli_cpus.or(cpus).map(|cpus| cpus.min(most));
    }
}

/// What the engine allows at least, in bytes.
const LEAST_MEMORY: u64 = 6 << 20;
/// Less than this is no progress.
const LEAST_MILLI_CPUS: u64 = 50;

/// Leaves only the services that are wanted, and what they depend on.
fn restrict(stack: &mut Stack, only: &[String]) {
    if only.is_empty() {
        return;
    }
    let mut kept: BTreeSet<String> = BTreeSet::new();
    let mut next: Vec<String> = only.to_vec();
    while let Some(name) = next.pop() {
        if let Some(service) = stack.services.get(&name)
            && kept.insert(name)
        {
            next.extend(service.depends_on.keys().cloned());
        }
    }
    stack.services.retain(|name, _| kept.contains(name));
}

/// Name of a service's container.
#[must_use]
pub fn container(short: &str, service: &str) -> String {
    format!("muster-{short}-{service}")
}

/// Name of an environment's network.
#[must_use]
pub fn network(short: &str) -> String {
    format!("muster-{short}")
}

/// Name of an environment's network with a way out.
#[must_use]
pub fn outside(short: &str) -> String {
    format!("muster-{short}-out")
}

/// The relay's key of a published port.
#[must_use]
pub fn key(id: &str, service: &str, port: u16) -> String {
    format!("env:{id}:{service}:{port}")
}

/// The environment of a relay's key.
#[must_use]
pub fn environment_of(key: &str) -> Option<&str> {
    key.strip_prefix("env:")?.split(':').next()
}

/// The service of a relay's key.
#[must_use]
pub fn service_of(key: &str) -> Option<&str> {
    key.strip_prefix("env:")?.split(':').nth(1)
}

impl Plan {
    /// Nobody has asked for it yet.
    #[must_use]
    pub fn is_slot(&self) -> bool {
        warm::is_slot(&self.wanted.order.run)
    }

    /// Name of the network.
    #[must_use]
    pub fn network(&self) -> String {
        network(&self.short)
    }

    /// Name of the network with a way out.
    #[must_use]
    pub fn outside(&self) -> String {
        outside(&self.short)
    }

    /// Name of a service's container.
    #[must_use]
    pub fn container(&self, service: &str) -> String {
        container(&self.short, service)
    }

    /// Name and folder of a volume.
    #[must_use]
    pub fn volume(&self, host: &Host, volume: &str) -> (String, PathBuf) {
        let folder = data::folder(&host.pool, &self.id).join("volumes").join(volume);
        (format!("muster-{}-{volume}", self.short), folder)
    }

    /// Labels of networks and volumes.
    #[must_use]
    pub fn labels(&self, host: &Host) -> Labels {
        Labels { host: host.id.clone(), slot: self.id.clone(), part: String::new(), spec: String::new() }
    }

    /// The stable published port of a service's container port.
    #[must_use]
    pub fn published(&self, service: &str, port: u16) -> Option<u16> {
        self.manifest.ports.get(&format!("{service}:{port}")).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_says_nothing_gets_what_the_others_leave_of_the_quota() {
        let text = "x-muster: { quota: { cpu: 2, memory: 1g } }\nservices:\n  db: { image: postgres, mem_limit: 256m }\n  web: { image: web, cpus: 0.5 }\n";
        let (variables, files) = (std::collections::BTreeMap::new(), |_: &str| None);
        let input = manifest::stack::Input { file: "c", text, variables: &variables, files: &files };
        let mut stack = manifest::stack::read(input).expect("a good stack").stack;
        share(&mut stack);
        let of = |name: &str| (stack.services[name].memory, stack.services[name].milli_cpus);
        assert_eq!(of("db"), (Some(256 << 20), Some(1500)));
        assert_eq!(of("web"), (Some(768 << 20), Some(500)));

        let text = text.replace("cpus: 0.5", "cpus: 8");
        let mut stack = manifest::stack::read(manifest::stack::Input { text: &text, ..input }).expect("good").stack;
        share(&mut stack);
        assert_eq!(stack.services["web"].milli_cpus, Some(2000), "no more than all may have together");
    }
}
