//! Preflight on a host: the artifact is here and is the right one, there is room, and the ports are free.

use std::net::TcpListener;
use std::time::Duration;

use domain::name::TargetRef;
use domain::release::Release;
use domain::step::order::Work;
use domain::step::report::{StageCheck, StageOutcome, StageRefusal};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tonic::transport::Channel;

use super::perform::RETRY;
use super::{containers, traffic};
use crate::engine;
use crate::host::Host;
use crate::image;
use crate::routes;

/// Memory that a process must find free, in bytes: less than any real one needs, more than a full host has.
const MEMORY: u64 = 32 << 20;
/// Disk that must stay free, in bytes.
const DISK: u64 = 256 << 20;

/// How long an engine or a relay that does not answer is waited for: a restart of either takes less.
const PATIENCE: Duration = Duration::from_secs(30);

/// What stands in the way.
#[derive(Debug)]
enum Obstacle {
    /// It is so.
    Refused(StageRefusal),
    /// Who has to be asked does not answer.
    Silent(StageRefusal),
}

fn refused(check: StageCheck, text: impl Into<String>) -> Obstacle {
    Obstacle::Refused(StageRefusal { check, text: text.into() })
}

fn engine_says(why: &engine::Error) -> Obstacle {
    let refusal = StageRefusal { check: StageCheck::Engine, text: why.to_string() };
    if matches!(why, engine::Error::Away(_)) { Obstacle::Silent(refusal) } else { Obstacle::Refused(refusal) }
}

fn relay_says(why: &routes::Error) -> Obstacle {
    let refusal = StageRefusal { check: StageCheck::Port, text: why.to_string() };
    if matches!(why, routes::Error::Silent(_)) { Obstacle::Silent(refusal) } else { Obstacle::Refused(refusal) }
}

/// Stages a release: no effect on what runs. An engine that is being restarted is waited for.
pub async fn stage(
    host: &Host,
    release: &Release,
    work: &Work,
    ways: watch::Receiver<Option<Channel>>,
) -> StageOutcome {
    let end = Instant::now() + PATIENCE;
    loop {
        match check(host, release, work, ways.clone()).await {
            Ok(()) => return StageOutcome::Ready,
            Err(Obstacle::Silent(refusal)) if Instant::now() < end => {
                tracing::warn!(target = %release.target, why = refusal.text, "preflight waits");
                sleep(RETRY).await;
            }
            Err(Obstacle::Refused(refusal)) => return StageOutcome::Refused(refusal),
            Err(Obstacle::Silent(StageRefusal { check, text })) => {
                let text = format!("{text} (waited for {} s)", PATIENCE.as_secs());
                return StageOutcome::Refused(StageRefusal { check, text });
            }
        }
    }
}

async fn check(
    host: &Host,
    release: &Release,
    work: &Work,
    ways: watch::Receiver<Option<Channel>>,
) -> Result<(), Obstacle> {
    room(host, release, work)?;
    // The checks know nothing of each other, and rollouts wait for all of them.
    let image = async {
        image::stage(host, &release.image, ways).await.map_err(|why| match why {
            image::Error::Denied(why) => refused(StageCheck::Policy, why.to_string()),
            image::Error::Engine(why @ engine::Error::Away(_)) => engine_says(&why),
            other => refused(StageCheck::Artifact, other.to_string()),
        })
    };
    let network = async { containers::ensure_network(host, &release.target).await.map_err(|why| engine_says(&why)) };
    tokio::try_join!(image, network, ports(host, &release.target, release)).map(|_| ())
}

fn room(host: &Host, release: &Release, work: &Work) -> Result<(), Obstacle> {
    let free = |field: &str| memory_field(&std::fs::read_to_string("/proc/meminfo").unwrap_or_default(), field);
    let needed = MEMORY * work.processes.len() as u64;
    if let Some(available) = free("MemAvailable")
        && available < needed
    {
        let text =
            format!("{} MiB of memory are free, {} MiB are needed for both releases", available >> 20, needed >> 20);
        return Err(refused(StageCheck::Memory, text));
    }
    let needed = DISK + release.image.archive_bytes;
    if let Ok(stat) = rustix::fs::statvfs(&host.state_dir)
        && stat.f_bavail * stat.f_frsize < needed
    {
        let text =
            format!("{} MiB of disk are free, {} MiB are needed", (stat.f_bavail * stat.f_frsize) >> 20, needed >> 20);
        return Err(refused(StageCheck::Disk, text));
    }
    Ok(())
}

/// A field of `/proc/meminfo` in bytes.
fn memory_field(text: &str, field: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
}

async fn ports(host: &Host, target: &TargetRef, release: &Release) -> Result<(), Obstacle> {
    if release.expose.is_empty() {
        return Ok(());
    }
    let entries = host.routes.entries().await.map_err(|why| relay_says(&why))?;
    for expose in &release.expose {
        let bind = expose.address.as_ref().and_then(|text| text.parse().ok()).unwrap_or(host.listen_address);
        let own = traffic::key(target, &expose.process);
        match entries.iter().find(|entry| entry.port == expose.port) {
            Some(entry) if entry.key == own || traffic_of(target, &entry.key) => {}
            Some(entry) => {
                let text = format!("port {} belongs to {}", expose.port, entry.key);
                return Err(refused(StageCheck::Port, text));
            }
            None => {
                TcpListener::bind((bind, expose.port)).map_err(|why| {
                    refused(StageCheck::Port, format!("port {bind}:{} cannot be used: {why}", expose.port))
                })?;
            }
        }
    }
    Ok(())
}

fn traffic_of(target: &TargetRef, key: &str) -> bool {
    key.starts_with(&format!("target:{target}:"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_meminfo_are_read_in_bytes() {
        let text = "MemTotal:       16 kB\nMemAvailable:    8 kB\n";
        assert_eq!(memory_field(text, "MemAvailable"), Some(8192));
        assert_eq!(memory_field(text, "Mem"), None);
    }
}
