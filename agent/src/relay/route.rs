//! One published port while the relay runs: where it leads, who uses it, who waits for it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Limits;
use super::backend::{Backend, Lease, Use, close_all};
use super::protocol::{Drained, EntryView, MAX_PEERS, Mode};
use super::stats::{PortCounters, PortStats, ReleaseCounters, now_ms};
use super::table::Entry;
use super::workers::Workers;

/// Releases without traffic whose counters are kept.
const KEPT_RELEASES: usize = 8;

/// Locks; a panic elsewhere leaves counters and lists usable.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why a connection or request got no backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotLed {
    /// Held for as long as allowed.
    TooLong,
    /// Too many are held already.
    TooMany,
    /// What it waits for will not come.
    Refused,
    /// The route was removed.
    Removed,
    /// The relay ends.
    Stopping,
}

#[derive(Debug)]
struct Target {
    backend: Arc<Backend>,
    ready: bool,
    mode: Mode,
    /// How often what was held was sent away.
    refusals: u64,
}

/// Decrements a counter when dropped.
pub(super) struct Counted<'a>(&'a AtomicU64);

impl<'a> Counted<'a> {
    /// Counts up unless `most` are counted already.
    pub fn up_to(counter: &'a AtomicU64, most: u64) -> Option<Self> {
        counter.fetch_update(Relaxed, Relaxed, |now| (now < most).then_some(now + 1)).ok().map(|_| Self(counter))
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// What all ports share.
#[derive(Debug)]
pub(super) struct Shared {
    pub limits: Limits,
    pub workers: Workers,
    /// Connections open on all ports.
    pub open: AtomicU64,
    /// Connections and requests held on all ports.
    pub held: AtomicU64,
    /// Rises with everything that is wanted of a held route.
    pub asks: watch::Sender<u64>,
}

impl Shared {
    pub fn new(limits: Limits, workers: Workers) -> Arc<Self> {
        // Above every number that a relay before this one gave.
        let asks = watch::Sender::new(now_ms().saturating_mul(1000));
        Arc::new(Self { limits, workers, open: AtomicU64::new(0), held: AtomicU64::new(0), asks })
    }
}

/// A published port.
#[derive(Debug)]
pub(super) struct Route {
    pub port: u16,
    pub key: String,
    pub shared: Arc<Shared>,
    pub counters: PortCounters,
    /// Fires when the route is removed.
    pub removed: CancellationToken,
    /// Fires when the relay ends.
    pub stopping: CancellationToken,
    /// Fires with either.
    pub ending: CancellationToken,
    pub listen_error: Mutex<Option<String>>,
    target: watch::Sender<Target>,
    entry: Mutex<(Entry, bool)>,
    /// Backends that traffic was led away from, while something is open there.
    old: Mutex<Vec<Arc<Backend>>>,
    releases: Mutex<BTreeMap<String, Arc<ReleaseCounters>>>,
    listening: AtomicBool,
    /// Set to be held, whether vouched for or not.
    held: AtomicBool,
    /// Number of the last ask while held; 0: none since it is.
    asked: AtomicU64,
    peers: Mutex<BTreeMap<u64, SocketAddr>>,
    next_peer: AtomicU64,
}

/// Forgets a peer when dropped.
pub(super) struct Peer<'a>(&'a Route, u64);

impl Drop for Peer<'_> {
    fn drop(&mut self) {
        lock(&self.0.peers).remove(&self.1);
    }
}

impl Route {
    pub fn new(entry: &Entry, boot_id: &str, shared: Arc<Shared>, stopping: CancellationToken) -> Arc<Self> {
        let confirmed = entry.boot_id == boot_id;
        let route = &entry.route;
        let counters = Arc::new(ReleaseCounters::default());
        let backend = Backend::new(&route.release, route.endpoint, Arc::clone(&counters));
        let (target, _) =
            watch::channel(Target { backend, ready: confirmed && !route.held, mode: route.mode, refusals: 0 });
        Arc::new(Self {
            port: route.port,
            key: route.key.clone(),
            shared,
            counters: PortCounters::default(),
            removed: CancellationToken::new(),
            ending: stopping.child_token(),
            stopping,
            listen_error: Mutex::new(None),
            target,
            entry: Mutex::new((entry.clone(), confirmed)),
            old: Mutex::new(Vec::new()),
            releases: Mutex::new(BTreeMap::from([(route.release.clone(), counters)])),
            listening: AtomicBool::new(false),
            held: AtomicBool::new(route.held),
            asked: AtomicU64::new(0),
            peers: Mutex::new(BTreeMap::new()),
            next_peer: AtomicU64::new(0),
        })
    }

    pub fn limits(&self) -> &Limits {
        &self.shared.limits
    }

    pub fn mode(&self) -> Mode {
        self.target.borrow().mode
    }

    /// Remembers whether the port is listened on, and why not.
    pub fn set_listening(&self, result: Result<(), String>) {
        self.listening.store(result.is_ok(), Relaxed);
        *lock(&self.listen_error) = result.err();
    }

    /// Leads new traffic where the stored `entry` says, at once.
    pub fn switch(&self, entry: &Entry, boot_id: &str) {
        let route = &entry.route;
        let confirmed = entry.boot_id == boot_id;
        let ready = confirmed && !route.held;
        let counters = self.counters_of(&route.release);
        let mut left = None;
        self.target.send_modify(|target| {
            let same = target.backend.endpoint == route.endpoint
                && target.backend.release == route.release
                && target.mode == route.mode;
            if !same {
                let next = Backend::new(&route.release, route.endpoint, counters);
                left = Some(std::mem::replace(&mut target.backend, next));
            }
            target.ready = ready;
            target.mode = route.mode;
        });
        *lock(&self.entry) = (entry.clone(), confirmed);
        if !self.held.swap(route.held, Relaxed) || !route.held {
            self.asked.store(0, Relaxed);
        }
        if let Some(backend) = left {
            backend.close_pools();
            let mut old = lock(&self.old);
            old.retain(|backend| backend.open() > 0);
            if backend.open() > 0 {
                old.push(backend);
            }
        }
        self.forget_releases();
    }

    fn counters_of(&self, release: &str) -> Arc<ReleaseCounters> {
        let mut releases = lock(&self.releases);
        let counters = releases.entry(release.to_owned()).or_default();
        counters.last_used_ms.store(now_ms(), Relaxed);
        Arc::clone(counters)
    }

    /// Drops the counters of releases nobody uses, smallest use first, so that the map stays small.
    fn forget_releases(&self) {
        let current = Arc::clone(&self.target.borrow().backend);
        let mut releases = lock(&self.releases);
        while releases.len() > KEPT_RELEASES {
            let unused = releases
                .iter()
                .filter(|(name, counters)| **name != current.release && Arc::strong_count(counters) == 1)
                .min_by_key(|(_, counters)| counters.last_used_ms.load(Relaxed))
                .map(|(name, _)| name.clone());
            match unused {
                Some(name) => releases.remove(&name),
                None => return,
            };
        }
    }

    /// A byte or request went through; while the route is held, that asks for it to be let go.
    pub fn touch(&self) {
        self.counters.touch();
        if self.held.load(Relaxed) {
            self.ask();
        }
    }

    fn ask(&self) {
        self.shared.asks.send_modify(|number| {
            *number += 1;
            self.asked.store(*number, Relaxed);
        });
    }

    /// Whether something was wanted of it after `seen`, while it is held.
    pub fn asked_since(&self, seen: u64) -> bool {
        self.held.load(Relaxed) && self.asked.load(Relaxed) > seen
    }

    /// Remembers who is connected, as long as the guard lives.
    pub fn peer(&self, address: SocketAddr) -> Peer<'_> {
        let number = self.next_peer.fetch_add(1, Relaxed);
        lock(&self.peers).insert(number, address);
        Peer(self, number)
    }

    /// Sends away what is held now.
    pub fn refuse_held(&self) {
        self.asked.store(0, Relaxed);
        self.target.send_modify(|target| target.refusals += 1);
    }

    fn lease_now(&self, kind: Use) -> Option<Lease> {
        // Counted while the switch is locked out: a drain that starts after a switch sees every older lease.
        let target = self.target.borrow();
        target.ready.then(|| Lease::new(&target.backend, kind))
    }

    /// A lease on where the port leads now; while the port is held, waits.
    pub async fn lease(&self, kind: Use) -> Result<Lease, NotLed> {
        self.touch();
        match self.lease_now(kind) {
            Some(lease) => Ok(lease),
            None => self.wait_for_lease(kind).await,
        }
    }

    async fn wait_for_lease(&self, kind: Use) -> Result<Lease, NotLed> {
        let full = || {
            self.counters.held_too_long.fetch_add(1, Relaxed);
            NotLed::TooMany
        };
        let _here = Counted::up_to(&self.counters.held_now, self.limits().held_per_port).ok_or_else(full)?;
        let _everywhere = Counted::up_to(&self.shared.held, self.limits().held).ok_or_else(full)?;
        self.counters.held.fetch_add(1, Relaxed);
        let mut changes = self.target.subscribe();
        let refusals = changes.borrow().refusals;
        let ready = async {
            loop {
                let refused = changes.borrow_and_update().refusals != refusals;
                if let Some(lease) = self.lease_now(kind) {
                    return Ok(lease);
                }
                if refused {
                    return Err(NotLed::Refused);
                }
                if changes.changed().await.is_err() {
                    return Err(NotLed::Removed);
                }
            }
        };
        tokio::select! {
            biased;
            lease = ready => lease,
            () = self.removed.cancelled() => Err(NotLed::Removed),
            () = self.stopping.cancelled() => Err(NotLed::Stopping),
            () = tokio::time::sleep(self.limits().hold) => {
                self.counters.held_too_long.fetch_add(1, Relaxed);
                Err(NotLed::TooLong)
            }
        }
    }

    /// The route is there no more: what goes through it ends.
    pub fn remove(&self) {
        self.removed.cancel();
        self.ending.cancel();
    }

    /// Whether `backend` is where new traffic goes.
    pub fn is_current(&self, backend: &Arc<Backend>) -> bool {
        Arc::ptr_eq(&self.target.borrow().backend, backend)
    }

    /// The backends of `release` that get no new traffic; `None` when it is current and has no older ones.
    fn drainable(&self, release: &str) -> Option<Vec<Arc<Backend>>> {
        let mut found: Vec<_> = {
            let mut old = lock(&self.old);
            old.retain(|backend| backend.open() > 0);
            old.iter().filter(|backend| backend.release == release).cloned().collect()
        };
        let target = self.target.borrow();
        if target.backend.release == release {
            if !target.ready {
                found.push(Arc::clone(&target.backend));
            } else if found.is_empty() {
                return None;
            }
        }
        Some(found)
    }

    /// Waits until nothing of `release` is open, at most `deadline`, then closes the rest.
    /// `None` when new traffic still goes there.
    pub async fn drain(&self, release: &str, deadline: Duration) -> Option<Drained> {
        let backends = self.drainable(release)?;
        let open = backends.iter().map(|backend| backend.open()).sum();
        let all_idle = async {
            for backend in &backends {
                backend.wait_idle().await;
            }
        };
        if tokio::time::timeout(deadline, all_idle).await.is_ok() {
            return Some(Drained { open, closed: 0 });
        }
        let closed = backends.iter().map(|backend| backend.open()).sum();
        // What was current and held gets a fresh backend, or the next traffic would be closed too.
        self.replace_current(&backends);
        close_all(&backends).await;
        Some(Drained { open, closed })
    }

    fn replace_current(&self, closing: &[Arc<Backend>]) {
        self.target.send_modify(|target| {
            if closing.iter().any(|backend| Arc::ptr_eq(backend, &target.backend)) {
                let old = &target.backend;
                target.backend = Backend::new(&old.release, old.endpoint, Arc::clone(&old.counters));
            }
        });
    }

    /// Closes everything that goes through the route, wherever it leads.
    pub async fn close_everything(&self) {
        let mut backends = std::mem::take(&mut *lock(&self.old));
        backends.push(Arc::clone(&self.target.borrow().backend));
        close_all(&backends).await;
    }

    /// Drops kept connections that are too old to be used.
    pub fn sweep(&self) {
        self.target.borrow().backend.sweep();
    }

    pub fn view(&self) -> EntryView {
        let (entry, confirmed) = lock(&self.entry).clone();
        EntryView {
            route: entry.route,
            unconfirmed: !confirmed,
            boot_id: entry.boot_id,
            listen_error: self.listen_error(),
            connections_open: self.counters.open.load(Relaxed),
            held_now: self.counters.held_now.load(Relaxed),
            last_activity_ms: self.counters.last_activity_ms.load(Relaxed),
            peers: lock(&self.peers).values().rev().take(MAX_PEERS).copied().collect(),
        }
    }

    fn listen_error(&self) -> Option<String> {
        if self.listening.load(Relaxed) {
            return None;
        }
        lock(&self.listen_error).clone()
    }

    pub fn stats(&self) -> PortStats {
        let entry = lock(&self.entry).0.clone();
        let counters = &self.counters;
        let releases = lock(&self.releases);
        PortStats {
            key: self.key.clone(),
            release: entry.route.release,
            generation: entry.route.generation,
            accepted: counters.accepted.load(Relaxed),
            open: counters.open.load(Relaxed),
            refused: counters.refused.load(Relaxed),
            held: counters.held.load(Relaxed),
            held_now: counters.held_now.load(Relaxed),
            held_too_long: counters.held_too_long.load(Relaxed),
            bad_requests: counters.bad_requests.load(Relaxed),
            last_activity_ms: counters.last_activity_ms.load(Relaxed),
            releases: releases.iter().map(|(name, counters)| (name.clone(), counters.view())).collect(),
        }
    }
}
