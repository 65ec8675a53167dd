//! Containers.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use bollard::Docker;
use bollard::models::{
    ContainerCreateBody, ContainerInspectResponse, ContainerStateStatusEnum, ContainerSummaryStateEnum,
    EndpointSettings, HealthConfig, HostConfig, HostConfigLogConfig, Mount, MountPoint, MountType, NetworkingConfig,
    ResourcesUlimits, RestartPolicy, RestartPolicyNameEnum,
};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, ListContainersOptionsBuilder, RemoveContainerOptionsBuilder,
    StopContainerOptionsBuilder,
};

use super::super::spec::HOST;
use super::super::{Container, ContainerSpec, Error, Labels, Listed, MountSpec, Result, Run};
use super::{failed, missing_is_fine};

pub(super) async fn create(client: &Docker, spec: &ContainerSpec) -> Result<String> {
    let options = CreateContainerOptionsBuilder::default().name(&spec.name).build();
    let made = client.create_container(Some(options), body(spec)).await;
    made.map(|made| made.id).map_err(|why| failed(&spec.name, why))
}

fn body(spec: &ContainerSpec) -> ContainerCreateBody {
    let endpoint = EndpointSettings { aliases: Some(spec.aliases.clone()), ..EndpointSettings::default() };
    ContainerCreateBody {
        image: Some(spec.image.clone()),
        cmd: spec.command.clone(),
        entrypoint: spec.entrypoint.clone(),
        env: Some(spec.environment.iter().map(|(key, value)| format!("{key}={value}")).collect()),
        labels: Some(spec.labels().to_map().into_iter().collect()),
        user: spec.user.clone(),
        working_dir: spec.working_dir.clone(),
        stop_signal: spec.stop_signal.clone(),
        // The agent asks for health itself; the image's own check would only cost.
        healthcheck: Some(HealthConfig { test: Some(vec!["NONE".to_owned()]), ..HealthConfig::default() }),
        host_config: Some(host_config(spec)),
        networking_config: (!spec.network.is_empty())
            .then(|| NetworkingConfig { endpoints_config: Some(HashMap::from([(spec.network.clone(), endpoint)])) }),
        ..ContainerCreateBody::default()
    }
}

fn host_config(spec: &ContainerSpec) -> HostConfig {
    let log = [("max-size", "10m"), ("max-file", "3")];
    HostConfig {
        network_mode: Some(if spec.network.is_empty() { "none".to_owned() } else { spec.network.clone() }),
        // The agent is the only one that starts containers.
        restart_policy: Some(RestartPolicy { name: Some(RestartPolicyNameEnum::NO), maximum_retry_count: None }),
        log_config: Some(HostConfigLogConfig {
            typ: Some("json-file".to_owned()),
            config: Some(log.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()),
        }),
        mounts: Some(spec.mounts.iter().map(mount).chain(spec.files.iter().map(file)).collect()),
        memory: spec.memory.and_then(|bytes| i64::try_from(bytes).ok()),
        nano_cpus: spec.milli_cpus.and_then(|milli| i64::try_from(milli.saturating_mul(1_000_000)).ok()),
        cgroup_parent: spec.cgroup_parent.clone(),
        init: spec.init.then_some(true),
        readonly_rootfs: Some(spec.read_only),
        shm_size: spec.shm_bytes.and_then(|bytes| i64::try_from(bytes).ok()),
        cap_add: some(&spec.rights.cap_add),
        cap_drop: some(&spec.rights.cap_drop),
        ulimits: some(&spec.rights.ulimits.iter().map(ulimit).collect::<Vec<_>>()),
        pids_limit: spec.rights.pids.map(i64::from),
        extra_hosts: some(
            &spec.rights.extra_hosts.iter().map(|(name, address)| format!("{name}:{address}")).collect::<Vec<_>>(),
        ),
        sysctls: (!spec.rights.sysctls.is_empty()).then(|| spec.rights.sysctls.clone().into_iter().collect()),
        group_add: some(&spec.rights.groups),
        security_opt: spec.rights.no_new_privileges.then(|| vec!["no-new-privileges".to_owned()]),
        ..HostConfig::default()
    }
}

/// None for an empty list: the engine's own default.
fn some<T: Clone>(items: &[T]) -> Option<Vec<T>> {
    (!items.is_empty()).then(|| items.to_vec())
}

fn ulimit((name, soft, hard): &(String, i64, i64)) -> ResourcesUlimits {
    ResourcesUlimits { name: Some(name.clone()), soft: Some(*soft), hard: Some(*hard) }
}

fn file((source, target): &(std::path::PathBuf, String)) -> Mount {
    mount(&MountSpec::Bind { source: source.clone(), target: target.clone(), read_only: true })
}

fn mount(mount: &MountSpec) -> Mount {
    let (typ, source, target, read_only) = match mount {
        MountSpec::Volume { name, target, read_only } => (MountType::VOLUME, Some(name.clone()), target, *read_only),
        MountSpec::Bind { source, target, read_only } => {
            (MountType::BIND, Some(source.to_string_lossy().into_owned()), target, *read_only)
        }
        MountSpec::Tmpfs { target } => (MountType::TMPFS, None, target, false),
    };
    Mount { typ: Some(typ), source, target: Some(target.clone()), read_only: Some(read_only), ..Mount::default() }
}

pub(super) async fn stop(client: &Docker, id: &str, grace: Duration) -> Result<()> {
    let seconds = i32::try_from(grace.as_millis().div_ceil(1000)).unwrap_or(i32::MAX);
    let options = StopContainerOptionsBuilder::default().t(seconds).build();
    let limit = grace + Duration::from_secs(30);
    let patient = client.clone().with_timeout(limit);
    missing_is_fine(patient.stop_container(id, Some(options)).await.map_err(|why| failed(id, why)))
}

pub(super) async fn remove(client: &Docker, id: &str) -> Result<()> {
    let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
    match missing_is_fine(client.remove_container(id, Some(options)).await.map_err(|why| failed(id, why))) {
        // Somebody else's removal of the same container is under way.
        Err(Error::Refused(message)) if message.contains("already in progress") => Ok(()),
        other => other,
    }
}

pub(super) async fn inspect(client: &Docker, name: &str) -> Result<Option<Container>> {
    match client.inspect_container(name, None).await.map_err(|why| failed(name, why)) {
        Ok(found) => Ok(Some(read(found))),
        Err(Error::NotFound(_)) => Ok(None),
        Err(other) => Err(other),
    }
}

fn read(found: ContainerInspectResponse) -> Container {
    let state = found.state.unwrap_or_default();
    let code = state.exit_code.and_then(|code| i32::try_from(code).ok()).unwrap_or(-1);
    let run = match state.status {
        Some(ContainerStateStatusEnum::CREATED) => Run::Created,
        Some(
            ContainerStateStatusEnum::RUNNING | ContainerStateStatusEnum::PAUSED | ContainerStateStatusEnum::RESTARTING,
        ) => Run::Running,
        _ => Run::Exited(code),
    };
    let networks = found.network_settings.and_then(|settings| settings.networks).unwrap_or_default();
    let addresses: BTreeMap<_, _> =
        networks.into_iter().filter_map(|(name, endpoint)| Some((name, endpoint.ip_address?.parse().ok()?))).collect();
    let labels = found.config.and_then(|config| config.labels).unwrap_or_default();
    let bound = |mount: &MountPoint| mount.typ.as_deref() == Some("bind");
    let started = state.started_at.unwrap_or_default();
    Container {
        id: found.id.unwrap_or_default(),
        name: found.name.unwrap_or_default().trim_start_matches('/').to_owned(),
        labels: Labels::from_map(|key| labels.get(key)),
        run,
        pid: state.pid.and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid > 0),
        addresses,
        started_at: if started.starts_with("0001-") { String::new() } else { started },
        out_of_memory: state.oom_killed.unwrap_or(false),
        bound: found.mounts.unwrap_or_default().iter().any(bound),
        image: found.image.unwrap_or_default(),
    }
}

pub(super) async fn list(client: &Docker, host: &str) -> Result<Vec<Listed>> {
    let filters = HashMap::from([("label".to_owned(), vec![format!("{HOST}={host}")])]);
    let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
    let all = client.list_containers(Some(options)).await.map_err(|why| failed("containers", why))?;
    Ok(all
        .into_iter()
        .filter_map(|one| {
            let labels = one.labels.unwrap_or_default();
            let name = one.names.unwrap_or_default().into_iter().next().unwrap_or_default();
            Some(Listed {
                id: one.id?,
                name: name.trim_start_matches('/').to_owned(),
                labels: Labels::from_map(|key| labels.get(key))?,
                running: matches!(
                    one.state,
                    Some(
                        ContainerSummaryStateEnum::RUNNING
                            | ContainerSummaryStateEnum::PAUSED
                            | ContainerSummaryStateEnum::RESTARTING
                    )
                ),
            })
        })
        .collect())
}
