//! The relay while it runs: takes requests, keeps table, listeners and routes in step.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::TcpSocket;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::file::Store;
use super::listener::{self, Listening};
use super::protocol::{
    Answer, Code, Confirmation, Confirmed, MAX_DRAIN_MS, Refusal, Request, ReservationView, RouteSpec, TableView,
};
use super::route::{Route, Shared, lock};
use super::stats::{LATENCY_BOUNDS_US, StatsView, now_ms};
use super::table::{Change, Entry};
use super::workers::Workers;
use super::{Config, Error};

/// What a change of the table may touch; held while one is made.
#[derive(Debug)]
pub(super) struct Changing {
    pub store: Store,
    pub listening: BTreeMap<u16, Listening>,
    /// Automatic ports without a route: bound, not listening.
    pub reserved: BTreeMap<u16, TcpSocket>,
}

/// A running relay.
#[derive(Debug)]
pub(super) struct Relay {
    pub config: Config,
    pub changing: tokio::sync::Mutex<Changing>,
    pub routes: Mutex<BTreeMap<u16, Arc<Route>>>,
    pub shared: Arc<Shared>,
    started_at_ms: u64,
    starts: u64,
    /// Fires when nothing new is accepted any more.
    pub stopping: CancellationToken,
    /// All connections.
    pub tasks: TaskTracker,
}

impl Relay {
    /// Restores the table of the configured folder and listens on all its ports.
    ///
    /// # Errors
    /// When the table can neither be read nor stored.
    pub async fn restore(config: Config, workers: Workers) -> Result<Arc<Self>, Error> {
        let mut store =
            Store::open(&config.state_dir).map_err(|source| Error::State { path: config.state_dir.clone(), source })?;
        let mut table = store.table.clone();
        table.starts += 1;
        let starts = table.starts;
        store.replace(table).await.map_err(Error::Table)?;
        if let Some(lost) = &store.lost {
            tracing::error!(reason = %lost, "the relay's table was lost");
        }
        let relay = Arc::new(Self {
            changing: tokio::sync::Mutex::new(Changing {
                store,
                listening: BTreeMap::new(),
                reserved: BTreeMap::new(),
            }),
            routes: Mutex::new(BTreeMap::new()),
            shared: Shared::new(config.limits.clone(), workers),
            started_at_ms: now_ms(),
            starts,
            stopping: CancellationToken::new(),
            tasks: TaskTracker::new(),
            config,
        });
        relay.listen_again().await;
        Ok(relay)
    }

    async fn listen_again(&self) {
        let mut changing = self.changing.lock().await;
        let table = changing.store.table.clone();
        for (port, entry) in &table.entries {
            let bind = entry.route.bind;
            // At once where possible, so that the port answers before the control socket does.
            let listener = listener::listen(None, bind, *port).ok();
            let route = self.add_route(entry);
            let listening = Listening::start(route, bind, listener, self.tasks.clone());
            changing.listening.insert(*port, listening);
        }
        for port in table.reservations.values().filter(|port| !table.entries.contains_key(port)) {
            // Only guards the port; a failure shows when the route is set.
            if let Ok(socket) = listener::reserve(IpAddr::from([127, 0, 0, 1]), *port) {
                changing.reserved.insert(*port, socket);
            }
        }
    }

    fn add_route(&self, entry: &Entry) -> Arc<Route> {
        let route = Route::new(entry, &self.config.boot_id, Arc::clone(&self.shared), self.stopping.clone());
        lock(&self.routes).insert(entry.route.port, Arc::clone(&route));
        route
    }

    pub fn route(&self, port: u16) -> Result<Arc<Route>, Refusal> {
        lock(&self.routes)
            .get(&port)
            .cloned()
            .ok_or_else(|| Refusal::new(Code::RouteUnknown, format!("port {port} has no route; set one first")))
    }

    /// Does one request.
    ///
    /// # Errors
    /// With the reason; nothing was changed then.
    pub async fn handle(&self, request: Request) -> Result<Answer, Refusal> {
        if self.stopping.is_cancelled() {
            return Err(Refusal::new(Code::Stopping, "the relay is ending; connect again"));
        }
        match request {
            Request::SetRoute(spec) => self.set(spec).await.map(|()| Answer::Done),
            Request::RemoveRoute { port, key, generation } => {
                self.remove(port, &key, generation).await.map(|()| Answer::Done)
            }
            Request::AllocatePort { key, bind, range } => self.allocate(key, bind, range).await.map(Answer::Port),
            Request::ReleasePort { port, key } => self.release(port, &key).await.map(|()| Answer::Done),
            Request::Confirm { boot_id, entries } => self.confirm(&boot_id, &entries).await.map(Answer::Confirmed),
            Request::Drain { port, release, deadline_ms } => self.drain(port, &release, deadline_ms).await,
            Request::Wakes { seen, wait_ms } => self.wakes(seen, wait_ms).await.map(Answer::Wakes),
            Request::RefuseHeld { port, key } => self.refuse_held(port, &key).map(|()| Answer::Done),
            Request::Table => Ok(Answer::Table(self.table().await)),
            Request::Stats => Ok(Answer::Stats(self.stats())),
            Request::Ping => Ok(Answer::Done),
        }
    }

    async fn set(&self, spec: RouteSpec) -> Result<(), Refusal> {
        let mut changing = self.changing.lock().await;
        let boot_id = &self.config.boot_id;
        let change = changing.store.table.check_set(&spec, boot_id)?;
        if change == Change::None {
            return Ok(());
        }
        let port = spec.port;
        let bind = spec.bind;
        let listener = match change {
            Change::New => {
                let reserved = changing.reserved.remove(&port);
                let listener = listener::listen(reserved, bind, port);
                Some(match listener {
                    Ok(listener) => listener,
                    Err(error) => {
                        self.reserve_again(&mut changing, port);
                        return Err(listener::refusal(bind, port, error).await);
                    }
                })
            }
            Change::Rebind => Some(self.rebind(&mut changing, port, bind).await?),
            Change::Switch | Change::None => None,
        };
        let mut next = changing.store.table.clone();
        next.set(spec, boot_id);
        let stored = changing.store.replace(next).await;
        if let Err(refusal) = stored {
            drop(listener);
            self.undo_set(&mut changing, change, port).await;
            return Err(refusal);
        }
        let Some(entry) = changing.store.table.entries.get(&port).cloned() else {
            return Err(Refusal::new(Code::RouteUnknown, format!("port {port} has no route")));
        };
        let route = match change {
            Change::New => self.add_route(&entry),
            _ => {
                let route = self.route(port)?;
                route.switch(&entry, boot_id);
                route
            }
        };
        if listener.is_some() {
            route.set_listening(Ok(()));
            let listening = Listening::start(route, bind, listener, self.tasks.clone());
            changing.listening.insert(port, listening);
        }
        Ok(())
    }

    async fn remove(&self, port: u16, key: &str, generation: u64) -> Result<(), Refusal> {
        let mut changing = self.changing.lock().await;
        if !changing.store.table.check_remove(port, key, generation)? {
            return Ok(());
        }
        let mut next = changing.store.table.clone();
        next.remove(port, key, generation);
        changing.store.replace(next).await?;
        let route = lock(&self.routes).remove(&port);
        if let Some(listening) = changing.listening.remove(&port) {
            listening.stop().await;
        }
        self.reserve_again(&mut changing, port);
        drop(changing);
        if let Some(route) = route {
            route.remove();
            route.close_everything().await;
        }
        Ok(())
    }

    async fn confirm(&self, boot_id: &str, entries: &[Confirmation]) -> Result<Vec<Confirmed>, Refusal> {
        if boot_id != self.config.boot_id {
            return Err(Refusal::new(
                Code::BootId,
                format!("the relay runs in boot {}, the confirmation is of another", self.config.boot_id),
            ));
        }
        let mut changing = self.changing.lock().await;
        let mut next = changing.store.table.clone();
        let mut results = Vec::with_capacity(entries.len());
        for confirmation in entries {
            results.push(next.confirm(confirmation, boot_id)?);
        }
        if next != changing.store.table {
            changing.store.replace(next).await?;
        }
        let done = entries.iter().zip(&results).filter(|(_, result)| **result == Confirmed::Done);
        for (confirmation, _) in done {
            if let Some(entry) = changing.store.table.entries.get(&confirmation.port) {
                self.route(confirmation.port)?.switch(entry, boot_id);
            }
        }
        Ok(results)
    }

    async fn drain(&self, port: u16, release: &str, deadline_ms: u64) -> Result<Answer, Refusal> {
        if deadline_ms > MAX_DRAIN_MS {
            return Err(Refusal::new(Code::Invalid, format!("a drain may wait at most {MAX_DRAIN_MS} ms")));
        }
        let route = self.route(port)?;
        let drained = route.drain(release, Duration::from_millis(deadline_ms)).await;
        drained.map(Answer::Drained).ok_or_else(|| {
            Refusal::new(
                Code::ReleaseCurrent,
                format!("port {port} still leads to `{release}`; switch or hold it before draining"),
            )
        })
    }

    async fn table(&self) -> TableView {
        let changing = self.changing.lock().await;
        let reservations = &changing.store.table.reservations;
        let mut reservations: Vec<_> =
            reservations.iter().map(|(key, port)| ReservationView { port: *port, key: key.clone() }).collect();
        reservations.sort_by_key(|reservation| reservation.port);
        TableView {
            entries: lock(&self.routes).values().map(|route| route.view()).collect(),
            reservations,
            pid: std::process::id(),
            boot_id: self.config.boot_id.clone(),
            started_at_ms: self.started_at_ms,
            starts: self.starts,
            table_lost: changing.store.lost.clone(),
        }
    }

    fn stats(&self) -> StatsView {
        StatsView {
            ports: lock(&self.routes).iter().map(|(port, route)| (*port, route.stats())).collect(),
            started_at_ms: self.started_at_ms,
            boot_id: self.config.boot_id.clone(),
            starts: self.starts,
            latency_bounds_us: LATENCY_BOUNDS_US.to_vec(),
        }
    }

    /// Drops connections to endpoints that have been idle for too long.
    pub fn sweep(&self) {
        for route in lock(&self.routes).values() {
            route.sweep();
        }
    }

    /// Stops accepting, lets what is in flight end for `grace`, then closes the rest.
    pub async fn stop(&self, grace: Duration) {
        self.stopping.cancel();
        self.tasks.close();
        if tokio::time::timeout(grace, self.tasks.wait()).await.is_ok() {
            return;
        }
        let routes: Vec<_> = lock(&self.routes).values().cloned().collect();
        let closing = routes.iter().map(|route| route.close_everything());
        futures::future::join_all(closing).await;
    }
}
