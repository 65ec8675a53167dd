//! Whether environments are kept apart, proven: from inside each service connections are tried to everything that it
//! should not reach, when its environment becomes ready and again when something around it changed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use domain::environment::Isolation;
use futures::stream::{self, StreamExt as _};

use crate::engine::{Container, Run};
use crate::environments::{Environments, plan};
use crate::host::{Host, short};

pub mod addresses;
pub mod probe;
pub mod targets;

use targets::{Around, Spot};

/// How often it is looked whether there is something to prove.
const LOOK: Duration = Duration::from_millis(500);
/// Shortest time between two proofs of the same environment.
const REST: Duration = Duration::from_secs(60);
/// Services probed at one time.
const AT_ONCE: usize = 4;
/// Most names of what was reached that are kept per service.
const NAMED: usize = 20;

/// What was found, by environment and service.
#[derive(Debug, Default)]
pub struct Proofs(Mutex<BTreeMap<String, BTreeMap<String, Isolation>>>);

impl Proofs {
    fn held(&self) -> MutexGuard<'_, BTreeMap<String, BTreeMap<String, Isolation>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was found last from a service.
    #[must_use]
    pub fn of(&self, environment: &str, service: &str) -> Option<Isolation> {
        self.held().get(environment)?.get(service).cloned()
    }
}

/// When an environment was looked at, and what was around it.
#[derive(Debug)]
struct Looked {
    at: Instant,
    around: u64,
}

/// Proves isolation for as long as it is polled. `coordinators` are `HOST:PORT`.
pub async fn keep(host: Arc<Host>, environments: Arc<Environments>, coordinators: Vec<String>) {
    let mut looked: BTreeMap<String, Looked> = BTreeMap::new();
    // Counts changes of what is around: environments that came or went, rules that were put back.
    let (mut around, mut seen) = (0, (BTreeMap::new(), 0));
    let mut tick = tokio::time::interval(LOOK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let ready = environments.ready();
        let now = (ready.clone(), host.firewall.put_back());
        if now != seen {
            (around, seen) = (around + 1, now);
        }
        // What sleeps keeps its proof, and is looked at again when it is awake and a while has passed.
        let known = environments.ids();
        looked.retain(|id, _| known.contains(id));
        host.isolation.held().retain(|id, _| known.contains(id));
        let due = |id: &String| looked.get(id).is_none_or(|last| last.around != around && last.at.elapsed() >= REST);
        let due: BTreeSet<String> = ready.keys().filter(|id| due(id)).cloned().collect();
        if due.is_empty() {
            continue;
        }
        let Ok(spots) = spots(&host, &ready).await else { continue };
        let surroundings = surroundings(&host, &coordinators).await;
        prove(&host, &due, &spots, &surroundings).await;
        let at = Instant::now();
        looked.extend(due.into_iter().map(|id| (id, Looked { at, around })));
        environments.wake();
    }
}

/// All running containers of environments.
async fn spots(host: &Host, ready: &BTreeMap<String, BTreeMap<String, Vec<u16>>>) -> crate::engine::Result<Vec<Spot>> {
    let all = host.engine.containers(&host.id).await?;
    let running = all.into_iter().filter(|one| one.running && !one.labels.part.is_empty());
    let found = stream::iter(running)
        .map(|one| async move { (host.engine.inspect(&one.id).await.ok().flatten(), one.labels) })
        .buffer_unordered(AT_ONCE)
        .collect::<Vec<_>>()
        .await;
    let spot = |(container, labels): (Option<Container>, crate::engine::Labels)| {
        let container = container.filter(|one| one.run == Run::Running)?;
        let outside = plan::outside(&short(&labels.slot));
        let addresses = container.addresses.values().filter_map(|address| match address {
            IpAddr::V4(address) => Some(*address),
            IpAddr::V6(_) => None,
        });
        Some(Spot {
            pid: container.pid?,
            addresses: addresses.collect(),
            ports: ready.get(&labels.slot).and_then(|ports| ports.get(&labels.part)).cloned().unwrap_or_default(),
            egress: container.addresses.contains_key(&outside),
            environment: labels.slot,
            service: labels.part,
            name: container.name,
        })
    };
    Ok(found.into_iter().filter_map(spot).collect())
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// Those of the host's addresses that it no longer has.
fn gone(before: &[Ipv4Addr]) -> BTreeSet<Ipv4Addr> {
    let now = addresses::own(&read("/proc/net/fib_trie"));
    before.iter().filter(|address| !now.contains(address)).copied().collect()
}

async fn surroundings(host: &Host, coordinators: &[String]) -> Around {
    let published = host.routes.entries().await.unwrap_or_default().into_iter().map(|entry| entry.port).collect();
    let mut found = Vec::new();
    for coordinator in coordinators {
        let resolved = tokio::net::lookup_host(coordinator.as_str()).await;
        found.extend(resolved.into_iter().flatten().filter_map(|address| match address {
            SocketAddr::V4(address) => Some(address),
            SocketAddr::V6(_) => None,
        }));
    }
    Around {
        host: addresses::own(&read("/proc/net/fib_trie")),
        published,
        coordinators: found,
        gateway: addresses::gateway(&read("/proc/net/route")),
    }
}

async fn prove(host: &Host, due: &BTreeSet<String>, spots: &[Spot], around: &Around) {
    let from = spots.iter().filter(|spot| due.contains(&spot.environment));
    let mut proofs =
        stream::iter(from).map(|spot| async move { (spot, one(spot, spots, around).await) }).buffer_unordered(AT_ONCE);
    let mut found: BTreeMap<String, BTreeMap<String, Isolation>> = BTreeMap::new();
    while let Some((spot, proof)) = proofs.next().await {
        if !proof.reached.is_empty() {
            tracing::error!(from = %spot.name, reached = %proof.reached.join(", "), "E_ISOLATION: connections got through");
        }
        found.entry(spot.environment.clone()).or_default().insert(spot.service.clone(), proof);
    }
    host.isolation.held().extend(found);
}

async fn one(from: &Spot, spots: &[Spot], around: &Around) -> Isolation {
    let targets = targets::of(from, spots, around);
    let addresses: Vec<SocketAddrV4> = targets.keys().copied().collect();
    let answered = probe::from(from.pid, &addresses).await;
    let tried = u32::try_from(addresses.len()).unwrap_or(u32::MAX);
    let at = crate::clock::now();
    match answered {
        Ok(mut reached) => {
            // Where a bridge went away meanwhile, somebody far behind the way out may have answered for its address.
            let gone = gone(&around.host);
            reached.retain(|address| !gone.contains(address.ip()));
            let named = reached.iter().map(|address| format!("{address} ({})", name(&targets, address)));
            Isolation { at, tried, reached: named.take(NAMED).collect(), problem: String::new() }
        }
        Err(why) => Isolation { at, tried: 0, reached: Vec::new(), problem: why },
    }
}

fn name<'a>(targets: &'a BTreeMap<SocketAddrV4, String>, address: &SocketAddrV4) -> &'a str {
    targets.get(address).map_or("unknown", String::as_str)
}
