//! What the machine's actions do to the engine and the relay. Each ends in the event that answers it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::ids::{Generation, ReleaseId};
use domain::name::{Name, TargetRef};
use domain::release::Release;
use domain::step::event::{Event, Instance};
use domain::step::evidence::LOG_LINES;
use domain::step::order::Work;
use domain::step::report::{StageCheck, StageOutcome, StageRefusal};
use tokio::sync::watch;
use tonic::transport::Channel;

use super::containers::{self, Existing};
use super::traffic::Led;
use super::{stage, traffic};
use crate::engine::{Run, adopt, last_lines};
use crate::host::Host;

/// Pause before an engine or relay that does not answer is asked again.
pub(super) const RETRY: Duration = Duration::from_millis(500);

fn lines() -> u32 {
    u32::try_from(LOG_LINES).unwrap_or(50)
}

/// Everything of the target that exists, and where traffic goes. Waits for engine and relay to answer.
pub(super) async fn inspect(
    host: &Host,
    target: &TargetRef,
    releases: &BTreeMap<ReleaseId, Release>,
) -> (Vec<Existing>, Led) {
    loop {
        let found = containers::existing(host, target, releases).await;
        let led = traffic::led(host, target).await;
        match (found, led) {
            (Ok(found), Ok(led)) => return (found, led),
            (found, led) => {
                let why = found.err().map(|why| why.to_string()).or(led.err().map(|why| why.to_string()));
                tracing::warn!(%target, why = why.unwrap_or_default(), "what runs is not known yet");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

pub(super) async fn stage(
    host: Arc<Host>,
    release: Option<Release>,
    generation: Generation,
    work: Work,
    ways: watch::Receiver<Option<Channel>>,
) -> Event {
    let began = Instant::now();
    let outcome = match &release {
        Some(release) => stage::stage(&host, release, &work, ways).await,
        None => StageOutcome::Refused(StageRefusal {
            check: StageCheck::Artifact,
            text: "the release is not known here".to_owned(),
        }),
    };
    Event::Staged { generation, outcome, took: began.elapsed() }
}

/// Adopts or creates the container and starts it. Answers its id and address.
pub(super) async fn start(
    host: &Arc<Host>,
    release: Option<&Release>,
    process: &Name,
) -> Result<(String, Option<IpAddr>), String> {
    let release = release.ok_or("the release is not known here")?;
    let spec = containers::spec(host, release, process).ok_or("the release has no such process, or no image")?;
    let text = |why: crate::engine::Error| why.to_string();
    let ground = || containers::ensure_network(host, &release.target);
    let engine = host.engine.as_ref();
    let mut made = adopt::grounded(engine, &spec, ground()).await.map_err(text)?;
    if made.run != Run::Running {
        host.failpoints.hit("container.starting");
        made = adopt::started(engine, &spec, &host.release_networks, made, ground()).await.map_err(text)?;
    }
    let found = host.engine.inspect(&made.id).await.map_err(text)?;
    let address = found.and_then(|found| found.addresses.get(&spec.network).copied());
    Ok((made.id, address))
}

/// Waits for the end of a container, and keeps its last words before anybody removes it.
pub(super) async fn watch_end(
    host: Arc<Host>,
    release: ReleaseId,
    process: Name,
    instance: Instance,
    id: String,
) -> Event {
    let code = host.watch.exit(&id).await;
    let log = last_lines(host.engine.as_ref(), &id, lines()).await;
    Event::Exited { release, process, instance, code, log }
}

pub(super) async fn logs(host: Arc<Host>, release: ReleaseId, process: Name, id: Option<String>) -> Event {
    let lines = match id {
        Some(id) => last_lines(host.engine.as_ref(), &id, lines()).await,
        None => Vec::new(),
    };
    Event::Logs { release, process, lines }
}

/// Lets connections drain, then stops and removes.
pub(super) async fn stop(
    host: Arc<Host>,
    known: Option<Release>,
    release: ReleaseId,
    process: Name,
    drain: Duration,
    kill: Duration,
) -> Event {
    let Some(known) = known else { return Event::Stopped { release, process } };
    let published = known.expose.iter().filter(|expose| expose.process == process);
    for expose in published.filter(|_| !drain.is_zero()) {
        if let Err(why) = host.routes.drain(expose.port, &release.to_string(), drain).await {
            tracing::warn!(target = %known.target, %why, "connections were not drained");
        }
    }
    let Some(spec) = containers::spec(&host, &known, &process) else { return Event::Stopped { release, process } };
    match gone(&host, &spec.name, kill).await {
        Ok(()) => Event::Stopped { release, process },
        Err(why) => {
            tracing::warn!(target = %known.target, %why, "a process cannot be stopped yet");
            Event::StopFailed { release, process }
        }
    }
}

async fn gone(host: &Host, name: &str, kill: Duration) -> crate::engine::Result<()> {
    let Some(found) = host.engine.inspect(name).await? else { return Ok(()) };
    // One of that name that is not ours is none of our business.
    if found.labels.is_none_or(|labels| labels.host != host.id) {
        return Ok(());
    }
    host.engine.stop(&found.id, kill).await?;
    host.engine.remove(&found.id).await
}

pub(super) async fn route(
    host: Arc<Host>,
    target: TargetRef,
    release: Option<ReleaseId>,
    known: Option<Release>,
    addresses: BTreeMap<Name, IpAddr>,
) -> Event {
    let done = match &known {
        Some(known) => traffic::lead(&host, known, &addresses).await,
        None if release.is_none() => traffic::forget(&host, &target, |_| false).await,
        None => Err(crate::routes::Error::Refused {
            code: "E_RELEASE_UNKNOWN",
            message: "the release is not known here".to_owned(),
        }),
    };
    match done {
        Ok(()) => Event::Routed { release },
        Err(why) => {
            tracing::warn!(%target, %why, "traffic cannot be led");
            Event::RouteFailed { text: why.to_string() }
        }
    }
}
