//! Work that is a container: the job itself talks to the engine, so that nothing but this process stands between
//! the container's end and the status file.

use std::collections::HashMap;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use bollard::Docker;
use bollard::errors::Error as EngineError;
use bollard::models::{
    ContainerCreateBody, HealthConfig, HostConfig, HostConfigLogConfig, Mount as EngineMount, MountType,
    NetworkConnectRequest, RestartPolicy, RestartPolicyNameEnum,
};
use bollard::query_parameters::{
    AttachContainerOptions, CreateContainerOptions, DownloadFromContainerOptions, InspectContainerOptions,
    KillContainerOptions, RemoveContainerOptions, WaitContainerOptions,
};
use bytes::Bytes;
use futures::StreamExt;
use tokio::sync::{mpsc, oneshot};

use super::spec::{ContainerSpec, Mount};
use super::status::How;
use super::supervise::Event;

/// Limit of one call to the engine, seconds.
const CALL: u64 = 120;
/// Between two questions to an engine that does not answer.
const AGAIN: Duration = Duration::from_millis(200);
/// Most bytes that are collected.
const COLLECT: u64 = 1 << 30;
/// How long the end of the output is waited for after the container's end.
const LAST: Duration = Duration::from_secs(5);

/// A running container, its output and its end.
#[derive(Debug)]
pub(super) struct Container {
    engine: Docker,
    name: String,
    output: Option<mpsc::Receiver<Bytes>>,
    ended: Option<oneshot::Receiver<(How, bool)>>,
    collect: Option<String>,
    pub(super) notes: Vec<String>,
}

impl Container {
    /// Makes and starts it. Its output is attached before it starts: no byte is missed.
    pub(super) async fn start(spec: &ContainerSpec) -> Result<Self, How> {
        let engine = connect(spec).await?;
        match prepare(&engine, spec).await {
            Ok(output) => {
                let ended = watch(engine.clone(), spec.name.clone());
                Ok(Self {
                    engine,
                    name: spec.name.clone(),
                    output: Some(output),
                    ended: Some(ended),
                    collect: spec.collect.clone(),
                    notes: Vec::new(),
                })
            }
            Err(how) => {
                // Only what was made with these labels: never a stranger that has the name.
                if is_ours(&engine, spec).await {
                    remove(&engine, &spec.name).await;
                }
                Err(how)
            }
        }
    }

    /// What happens next. Cancel safe.
    pub(super) async fn next(&mut self) -> Event {
        loop {
            let output = async {
                match &mut self.output {
                    Some(output) => output.recv().await,
                    None => std::future::pending().await,
                }
            };
            let ended = async {
                match &mut self.ended {
                    Some(ended) => ended.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                bytes = output => match bytes {
                    Some(bytes) => return Event::Output(bytes),
                    None => self.output = None,
                },
                end = ended => {
                    self.ended = None;
                    let lost = || (How::Lost { text: "the watch over the container ended".to_owned() }, false);
                    let (how, out_of_memory) = end.unwrap_or_else(|_| lost());
                    return Event::Ended { how, out_of_memory };
                }
            }
        }
    }

    /// TERM to its first process. Does not wait: an engine that hangs must not stop the clock.
    pub(super) fn terminate(&self) {
        self.signal("SIGTERM");
    }

    /// KILL: with its first process the whole container ends.
    pub(super) fn kill(&self) {
        self.signal("SIGKILL");
    }

    fn signal(&self, signal: &'static str) {
        let (engine, name) = (self.engine.clone(), self.name.clone());
        tokio::spawn(async move {
            let options = KillContainerOptions { signal: signal.to_owned() };
            engine.kill_container(&name, Some(options)).await.ok();
        });
    }

    /// After the end: the rest of the output, what is to be collected, and the container is removed.
    /// Answers why something could not be collected.
    pub(super) async fn finish(&mut self, directory: &Path, mut output: impl FnMut(&[u8])) -> Option<String> {
        let drained = async {
            while let Some(receiver) = &mut self.output {
                match receiver.recv().await {
                    Some(bytes) => output(&bytes),
                    None => self.output = None,
                }
            }
        };
        if tokio::time::timeout(LAST, drained).await.is_err() {
            self.notes.push("the engine did not end the output; its last bytes may be missing".to_owned());
        }
        let collected = match &self.collect {
            Some(path) => collect(&self.engine, &self.name, path, directory).await,
            None => Ok(()),
        };
        remove(&self.engine, &self.name).await;
        collected.err()
    }
}

fn not_started(code: &str, what: &str, error: &EngineError) -> How {
    let text = match error {
        EngineError::DockerResponseServerError { message, .. } => message.clone(),
        other => other.to_string(),
    };
    How::NotStarted { code: code.to_owned(), text: format!("{what}: {text}") }
}

async fn connect(spec: &ContainerSpec) -> Result<Docker, How> {
    let path = spec.engine.display().to_string();
    let refused =
        |error: EngineError| not_started("E_ENGINE_UNAVAILABLE", &format!("container engine at {path}"), &error);
    let engine = Docker::connect_with_unix(&path, CALL, bollard::API_DEFAULT_VERSION).map_err(refused)?;
    engine.negotiate_version().await.map_err(refused)
}

async fn prepare(engine: &Docker, spec: &ContainerSpec) -> Result<mpsc::Receiver<Bytes>, How> {
    create(engine, spec).await?;
    enter_networks(engine, spec).await?;
    let output = attach(engine, &spec.name).await?;
    start(engine, &spec.name).await?;
    Ok(output)
}

async fn create(engine: &Docker, spec: &ContainerSpec) -> Result<(), How> {
    let options = || CreateContainerOptions { name: Some(spec.name.clone()), ..Default::default() };
    let made = match engine.create_container(Some(options()), body(spec)).await {
        // What an earlier attempt left is ours by its labels, and never ran under this job: made anew.
        Err(EngineError::DockerResponseServerError { status_code: 409, .. }) if is_ours(engine, spec).await => {
            remove(engine, &spec.name).await;
            engine.create_container(Some(options()), body(spec)).await
        }
        made => made,
    };
    made.map(|_| ()).map_err(|error| match error {
        EngineError::DockerResponseServerError { status_code: 404, .. } => {
            not_started("E_JOB_IMAGE", &format!("image {}", spec.image), &error)
        }
        _ => not_started("E_JOB_CONTAINER", &format!("create container {}", spec.name), &error),
    })
}

async fn is_ours(engine: &Docker, spec: &ContainerSpec) -> bool {
    let found = engine.inspect_container(&spec.name, None::<InspectContainerOptions>).await;
    let labels = found.ok().and_then(|found| found.config).and_then(|config| config.labels).unwrap_or_default();
    !spec.labels.is_empty() && spec.labels.iter().all(|(key, value)| labels.get(key) == Some(value))
}

fn body(spec: &ContainerSpec) -> ContainerCreateBody {
    let number = |number: Option<u64>| number.and_then(|number| i64::try_from(number).ok());
    ContainerCreateBody {
        image: Some(spec.image.clone()),
        cmd: Some(spec.command.clone()),
        entrypoint: spec.entrypoint.clone(),
        env: Some(spec.env.iter().map(|(key, value)| format!("{key}={value}")).collect()),
        labels: Some(spec.labels.clone().into_iter().collect()),
        working_dir: spec.working_dir.clone(),
        user: spec.user.clone(),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        healthcheck: Some(HealthConfig { test: Some(vec!["NONE".to_owned()]), ..Default::default() }),
        host_config: Some(HostConfig {
            network_mode: Some(spec.networks.first().cloned().unwrap_or_else(|| "none".to_owned())),
            mounts: Some(spec.mounts.iter().map(mount).collect()),
            tmpfs: Some(spec.tmpfs.iter().map(|path| (path.clone(), String::new())).collect::<HashMap<_, _>>()),
            // The job spools; a second copy by the engine would have no limit.
            log_config: Some(HostConfigLogConfig { typ: Some("none".to_owned()), config: None }),
            restart_policy: Some(RestartPolicy { name: Some(RestartPolicyNameEnum::NO), ..Default::default() }),
            memory: number(spec.memory),
            nano_cpus: number(spec.milli_cpus.map(|milli| milli.saturating_mul(1_000_000))),
            shm_size: number(spec.shm_bytes),
            pids_limit: number(spec.pids),
            readonly_rootfs: Some(spec.read_only),
            init: spec.init.then_some(true),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn mount(mount: &Mount) -> EngineMount {
    EngineMount {
        typ: Some(if mount.volume { MountType::VOLUME } else { MountType::BIND }),
        source: Some(mount.source.clone()),
        target: Some(mount.target.clone()),
        read_only: Some(mount.read_only),
        ..Default::default()
    }
}

/// The first network is joined at creation; engines before API 1.44 take only that one.
async fn enter_networks(engine: &Docker, spec: &ContainerSpec) -> Result<(), How> {
    for network in spec.networks.iter().skip(1) {
        let request = NetworkConnectRequest { container: spec.name.clone(), endpoint_config: None };
        engine
            .connect_network(network, request)
            .await
            .map_err(|error| not_started("E_JOB_NETWORK", &format!("join network {network}"), &error))?;
    }
    Ok(())
}

async fn attach(engine: &Docker, name: &str) -> Result<mpsc::Receiver<Bytes>, How> {
    let options = AttachContainerOptions { stream: true, stdout: true, stderr: true, ..Default::default() };
    let attached = engine
        .attach_container(name, Some(options))
        .await
        .map_err(|error| not_started("E_JOB_CONTAINER", &format!("attach to {name}"), &error))?;
    let (sender, receiver) = mpsc::channel(64);
    let mut output = attached.output;
    tokio::spawn(async move {
        // Keeps the connection's other half open: some engines end the output with it.
        let _input = attached.input;
        while let Some(Ok(part)) = output.next().await {
            if sender.send(part.into_bytes()).await.is_err() {
                return;
            }
        }
    });
    Ok(receiver)
}

async fn start(engine: &Docker, name: &str) -> Result<(), How> {
    let started = engine.start_container(name, None).await;
    started.map_err(|error| not_started("E_JOB_COMMAND", &format!("start container {name}"), &error))
}

fn watch(engine: Docker, name: String) -> oneshot::Receiver<(How, bool)> {
    let (sender, receiver) = oneshot::channel();
    tokio::spawn(async move {
        let end = wait(&engine, &name).await;
        sender.send(end).ok();
    });
    receiver
}

/// Waits for the end through restarts of the engine: an engine that does not answer says nothing about its containers.
async fn wait(engine: &Docker, name: &str) -> (How, bool) {
    loop {
        let options = WaitContainerOptions { condition: "not-running".to_owned() };
        // What it says (or that it fails) matters less than what the container then is.
        let _said = engine.wait_container(name, Some(options)).next().await;
        match engine.inspect_container(name, None::<InspectContainerOptions>).await {
            Ok(found) => {
                let state = found.state.unwrap_or_default();
                if !state.running.unwrap_or(false)
                    && let Some(code) = state.exit_code.and_then(|code| i32::try_from(code).ok())
                {
                    return (How::Exited(code), state.oom_killed.unwrap_or(false));
                }
            }
            Err(EngineError::DockerResponseServerError { status_code: 404, .. }) => {
                return (How::Lost { text: format!("container {name} was removed by somebody else") }, false);
            }
            Err(_) => {}
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Keeps a path of the ended container as `collected.tar`; one that is not there leaves no file.
async fn collect(engine: &Docker, name: &str, path: &str, directory: &Path) -> Result<(), String> {
    let found = engine.inspect_container(name, None::<InspectContainerOptions>).await;
    let folder = found.ok().and_then(|found| found.config).and_then(|config| config.working_dir).unwrap_or_default();
    let folder = if folder.is_empty() { "/".to_owned() } else { folder };
    let options = DownloadFromContainerOptions { path: Path::new(&folder).join(path).display().to_string() };
    let partial = directory.join("collected.part");
    let mut file = std::fs::File::create(&partial).map_err(|error| error.to_string())?;
    let mut room = COLLECT;
    let mut stream = std::pin::pin!(engine.download_from_container(name, Some(options)));
    while let Some(piece) = stream.next().await {
        let piece = match piece {
            Ok(piece) => piece,
            Err(EngineError::DockerResponseServerError { status_code: 404, .. }) => {
                std::fs::remove_file(&partial).ok();
                return Ok(());
            }
            Err(error) => return Err(error.to_string()),
        };
        room = room.checked_sub(piece.len() as u64).ok_or("there is more than 1 GiB of it")?;
        file.write_all(&piece).map_err(|error| error.to_string())?;
    }
    std::fs::rename(&partial, directory.join("collected.tar")).map_err(|error| error.to_string())
}

async fn remove(engine: &Docker, name: &str) {
    let options = RemoveContainerOptions { v: true, force: true, link: false };
    // What cannot be removed now is found by the agent's sweep, by its labels.
    engine.remove_container(name, Some(options)).await.ok();
}
