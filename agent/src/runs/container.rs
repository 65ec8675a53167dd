//! The container in which a test command runs: a fresh one, made as the stack makes the service's own.

use std::collections::BTreeMap;
use std::path::Path;

use domain::environment::ServiceObserved;
use domain::ids::RunId;
use proto::v1;

use crate::engine::spec::{HOST, PART, SLOT};
use crate::engine::{ContainerSpec, MountSpec};
use crate::job::{ContainerSpec as JobContainer, Mount};

/// Processes that a test container may have.
const PIDS: u64 = 8192;

/// The slot of a run's objects. Not the environment's: that one is kept free of everything its stack does not name.
pub(super) fn slot(run: &str) -> String {
    format!("run:{run}")
}

/// The run whose slot this is.
pub(super) fn run_of(slot: &str) -> Option<&str> {
    slot.strip_prefix("run:")
}

/// Name of the run's container.
pub(super) fn name(run: &str) -> String {
    let short = run.parse::<RunId>().map(RunId::short).unwrap_or_default();
    format!("muster-run-{short}")
}

/// What the test container is made from.
pub(super) struct Parts<'a> {
    pub(super) order: &'a v1::RunOrder,
    /// The service's own container.
    pub(super) service: &'a ContainerSpec,
    pub(super) services: &'a [ServiceObserved],
    pub(super) command: &'a [String],
    /// What is kept of it afterwards.
    pub(super) collect: Option<String>,
    pub(super) engine: &'a Path,
}

/// The test container.
pub(super) fn spec(parts: Parts<'_>) -> JobContainer {
    let Parts { order, service, .. } = parts;
    let mut env = connections(parts.services);
    env.extend(service.environment.clone());
    env.insert("MUSTER_RUN".to_owned(), order.id.clone());
    env.insert("MUSTER_COMMIT".to_owned(), order.commit.clone());
    let labels = [(HOST, service.host.clone()), (SLOT, slot(&order.id)), (PART, order.tests.clone())];
    JobContainer {
        engine: parts.engine.to_owned(),
        name: name(&order.id),
        image: service.image.clone(),
        command: parts.command.to_vec(),
        entrypoint: service.entrypoint.clone(),
        env,
        labels: labels.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
        working_dir: service.working_dir.clone(),
        user: service.user.clone(),
        networks: std::iter::once(&service.network).chain(&service.more_networks).cloned().collect(),
        mounts: mounts(service, order.image.is_some()),
        tmpfs: tmpfs(service),
        memory: service.memory,
        milli_cpus: service.milli_cpus,
        shm_bytes: service.shm_bytes,
        pids: Some(PIDS),
        read_only: service.read_only,
        init: service.init,
        collect: parts.collect,
    }
}

/// When a build is the subject, what is in its image is tested: sources of the checkout must not hide it.
fn mounts(service: &ContainerSpec, is_build: bool) -> Vec<Mount> {
    let all = service.mounts.iter().filter_map(|mount| match mount {
        MountSpec::Bind { source, target, read_only } if !is_build => Some(Mount {
            source: source.display().to_string(),
            target: target.clone(),
            read_only: *read_only,
            volume: false,
        }),
        MountSpec::Volume { name, target, read_only } => {
            Some(Mount { source: name.clone(), target: target.clone(), read_only: *read_only, volume: true })
        }
        MountSpec::Bind { .. } | MountSpec::Tmpfs { .. } => None,
    });
    // Secrets and configs hide nothing of the image's.
    let given = service.files.iter().map(|(source, target)| Mount {
        source: source.display().to_string(),
        target: target.clone(),
        read_only: true,
        volume: false,
    });
    all.chain(given).collect()
}

fn tmpfs(service: &ContainerSpec) -> Vec<String> {
    let all = service.mounts.iter().filter_map(|mount| match mount {
        MountSpec::Tmpfs { target } => Some(target.clone()),
        _ => None,
    });
    all.collect()
}

/// The connection variables of all services, as they are seen from inside: by service name and container port.
fn connections(services: &[ServiceObserved]) -> BTreeMap<String, String> {
    let mut env = BTreeMap::new();
    for service in services {
        // They are made from the published address of the first port; here that is found again by its text.
        for (key, value) in &service.variables {
            let value = service.addresses.iter().fold(value.clone(), |value, (port, address)| {
                let Some((host, published)) = address.rsplit_once(':') else { return value };
                match key.rsplit('_').next() {
                    Some("HOST") if value == host => service.name.clone(),
                    Some("PORT") if value == published => port.to_string(),
                    Some("URL") => value.replace(address, &format!("{}:{port}", service.name)),
                    _ => value,
                }
            });
            env.insert(key.clone(), value);
        }
    }
    env
}

#[cfg(test)]
mod tests {
    use domain::environment::ServiceState;

    use super::*;

    fn postgres() -> ServiceObserved {
        let variables = [
            ("POSTGRES_HOST", "127.0.0.1"),
            ("POSTGRES_PORT", "20411"),
            ("POSTGRES_PASSWORD", "20411"),
            ("POSTGRES_URL", "postgresql://bot:x@127.0.0.1:20411/bot"),
        ];
        ServiceObserved {
            name: "postgres".to_owned(),
            state: ServiceState::Ready,
            detail: String::new(),
            ready_after_micros: None,
            addresses: [(5432, "127.0.0.1:20411".to_owned())].into(),
            variables: variables.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
            last_lines: Vec::new(),
            isolation: None,
        }
    }

    fn service() -> ContainerSpec {
        ContainerSpec {
            host: "h".to_owned(),
            image: "bot:dev".to_owned(),
            network: "muster-e".to_owned(),
            environment: [("POSTGRES_HOST".to_owned(), "own".to_owned())].into(),
            mounts: vec![
                MountSpec::Bind { source: "/t/src".into(), target: "/app/src".to_owned(), read_only: false },
                MountSpec::Volume { name: "v".to_owned(), target: "/data".to_owned(), read_only: true },
                MountSpec::Tmpfs { target: "/tmp".to_owned() },
            ],
            ..ContainerSpec::default()
        }
    }

    fn made(order: &v1::RunOrder) -> JobContainer {
        let (service, services, command) = (service(), [postgres()], ["pytest".to_owned()]);
        spec(Parts {
            order,
            service: &service,
            services: &services,
            command: &command,
            collect: None,
            engine: Path::new("/s"),
        })
    }

    #[test]
    fn it_sees_services_by_name_and_its_own_settings_win() {
        let order = v1::RunOrder { id: "019a0000-0000-7000-8000-0123456789ab".to_owned(), ..Default::default() };
        let made = made(&order);
        assert_eq!(made.name, "muster-run-0123456789ab");
        assert_eq!(made.env["POSTGRES_URL"], "postgresql://bot:x@postgres:5432/bot");
        assert_eq!((made.env["POSTGRES_PORT"].as_str(), made.env["POSTGRES_HOST"].as_str()), ("5432", "own"));
        assert_eq!(made.env["POSTGRES_PASSWORD"], "20411", "only ports are ports");
        assert_eq!((made.mounts.len(), made.tmpfs.len()), (2, 1));
        assert_eq!(run_of(&made.labels[SLOT]), Some(order.id.as_str()));
    }

    #[test]
    fn a_build_is_tested_as_it_is_and_not_under_the_checkouts_sources() {
        let order = v1::RunOrder { image: Some(v1::BuildImage::default()), ..Default::default() };
        let mounts = made(&order).mounts;
        assert_eq!(mounts.iter().map(|mount| mount.target.as_str()).collect::<Vec<_>>(), ["/data"]);
    }
}
