//! Published ports as environments and targets use them: the relay, or a table in memory for tests.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use domain::time::Timestamp;

use crate::failpoints::effect;
use crate::relay::client::{Client, ClientError};
use crate::relay::protocol::{Code, Drained, Mode, PortRange, RouteSpec};

/// How long one question for wakes waits.
const WAKES: Duration = Duration::from_secs(20);

/// Why a route was not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The relay said no.
    #[error("{message}")]
    Refused {
        /// Its stable reason code.
        code: &'static str,
        /// What, where and what to do.
        message: String,
    },
    /// It does not answer; the change may have happened.
    #[error("{0}")]
    Silent(String),
}

impl Error {
    /// The stable reason code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Refused { code, .. } => code,
            Self::Silent(_) => "E_RELAY_SILENT",
        }
    }
}

/// Result of a call of the relay.
pub type Result<T> = std::result::Result<T, Error>;

/// Where a published port is to lead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The published port.
    pub port: u16,
    /// The address it listens on.
    pub bind: IpAddr,
    /// Bytes or requests.
    pub mode: domain::app::Mode,
    /// Who owns it.
    pub key: String,
    /// What is counted and drained together.
    pub release: String,
    /// Where traffic goes.
    pub endpoint: SocketAddr,
}

/// A published port as the relay has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The published port.
    pub port: u16,
    /// Who owns it.
    pub key: String,
    /// What it leads to.
    pub release: String,
    /// Where traffic goes.
    pub endpoint: Option<SocketAddr>,
    /// Vouched for in this boot.
    pub confirmed: bool,
    /// New traffic is held.
    pub held: bool,
    /// Connections open.
    pub connections: u64,
    /// Connections or requests that wait.
    pub waiting: u64,
    /// Last byte or request; none: none since the relay's start.
    pub last_used: Option<Timestamp>,
    /// Some of those who are connected.
    pub peers: Vec<SocketAddr>,
}

/// A published port whose traffic is to be held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// The published port.
    pub port: u16,
    /// The address it listens on.
    pub bind: IpAddr,
    /// Who owns it.
    pub key: String,
    /// What is counted and drained together.
    pub release: String,
    /// Where open connections go on to; none: nothing is there any more.
    pub endpoint: Option<SocketAddr>,
}

/// Published ports.
#[async_trait]
pub trait Routes: Send + Sync + std::fmt::Debug {
    /// The automatic port of `key`, the same at each call until it is released.
    async fn allocate(&self, key: &str, bind: IpAddr) -> Result<u16>;
    /// Gives an automatic port back.
    async fn release(&self, port: u16, key: &str) -> Result<()>;
    /// Leads a port somewhere; new traffic goes there when this returns, also after a crash.
    async fn set(&self, route: Route) -> Result<()>;
    /// Holds new traffic of a `tcp` port from now on, also after a crash; open connections stay, and ask by their bytes.
    async fn hold(&self, hold: Hold) -> Result<()>;
    /// Closes what is held on a port.
    async fn refuse_held(&self, port: u16, key: &str) -> Result<()>;
    /// Waits for a while until held routes are asked for after `seen`; answers the next `seen` and their keys.
    async fn wakes(&self, seen: u64) -> Result<(u64, Vec<String>)>;
    /// Forgets a port's route and closes what goes through it; fine when there is none.
    async fn remove(&self, port: u16, key: &str) -> Result<()>;
    /// Waits until nothing of a release is open on the port, at most `deadline`, then has the rest closed.
    async fn drain(&self, port: u16, release: &str, deadline: Duration) -> Result<()>;
    /// All routes.
    async fn entries(&self) -> Result<Vec<Entry>>;
    /// All automatic ports with their owners.
    async fn reservations(&self) -> Result<Vec<(u16, String)>>;
}

/// The relay's process.
#[derive(Debug)]
pub struct Relay {
    client: Client,
    range: PortRange,
    /// The highest generation per port that this agent knows. Calls that change a port are made one after the other.
    generations: tokio::sync::Mutex<BTreeMap<u16, u64>>,
}

impl Relay {
    /// Over a client of the relay's socket; automatic ports come from `range`.
    #[must_use]
    pub fn new(client: Client, range: PortRange) -> Self {
        Self { client, range, generations: tokio::sync::Mutex::default() }
    }

    /// Sets a route under the next generation of its port.
    async fn put(&self, spec: RouteSpec) -> Result<()> {
        let mut generations = self.generations.lock().await;
        let generation = self.next(&mut generations, spec.port).await?;
        // Also after a failure: an answer may be lost after the change was made.
        generations.insert(spec.port, generation);
        self.client.set_route(RouteSpec { generation, ..spec }).await.map_err(failed)
    }

    /// The generation after the one that the relay has for a port.
    async fn next(&self, generations: &mut BTreeMap<u16, u64>, port: u16) -> Result<u64> {
        if !generations.contains_key(&port) {
            let table = self.client.table().await.map_err(failed)?;
            generations.extend(table.entries.iter().map(|entry| (entry.route.port, entry.route.generation)));
        }
        Ok(generations.get(&port).copied().unwrap_or(0) + 1)
    }
}

fn failed(why: ClientError) -> Error {
    match why {
        ClientError::Refused(refusal) => Error::Refused { code: refusal.code.as_str(), message: refusal.message },
        other => Error::Silent(other.to_string()),
    }
}

#[async_trait]
impl Routes for Relay {
    async fn allocate(&self, key: &str, bind: IpAddr) -> Result<u16> {
        effect("route.allocate");
        self.client.allocate_port(key, bind, Some(self.range)).await.map_err(failed)
    }

    async fn release(&self, port: u16, key: &str) -> Result<()> {
        effect("route.release");
        self.client.release_port(port, key).await.map_err(failed)
    }

    async fn set(&self, route: Route) -> Result<()> {
        effect("route.set");
        let mode = match route.mode {
            domain::app::Mode::Tcp => Mode::Tcp,
            domain::app::Mode::Http => Mode::Http,
        };
        self.put(RouteSpec {
            port: route.port,
            bind: route.bind,
            mode,
            key: route.key,
            release: route.release,
            generation: 0,
            endpoint: Some(route.endpoint),
            held: false,
        })
        .await
    }

    async fn hold(&self, hold: Hold) -> Result<()> {
        effect("route.hold");
        self.put(RouteSpec {
            port: hold.port,
            bind: hold.bind,
            mode: Mode::Tcp,
            key: hold.key,
            release: hold.release,
            generation: 0,
            endpoint: hold.endpoint,
            held: true,
        })
        .await
    }

    async fn refuse_held(&self, port: u16, key: &str) -> Result<()> {
        match self.client.refuse_held(port, key).await {
            Err(ClientError::Refused(refusal)) if refusal.code == Code::RouteUnknown => Ok(()),
            other => other.map_err(failed),
        }
    }

    async fn wakes(&self, seen: u64) -> Result<(u64, Vec<String>)> {
        let wakes = self.client.wakes(seen, WAKES).await.map_err(failed)?;
        Ok((wakes.number, wakes.keys))
    }

    async fn remove(&self, port: u16, key: &str) -> Result<()> {
        effect("route.remove");
        let mut generations = self.generations.lock().await;
        let generation = self.next(&mut generations, port).await?;
        generations.remove(&port);
        match self.client.remove_route(port, key, generation).await {
            Err(ClientError::Refused(refusal)) if refusal.code == Code::RouteUnknown => Ok(()),
            other => other.map_err(failed),
        }
    }

    async fn drain(&self, port: u16, release: &str, deadline: Duration) -> Result<()> {
        match self.client.drain(port, release, deadline).await {
            Ok(Drained { .. }) => Ok(()),
            Err(ClientError::Refused(refusal)) if refusal.code == Code::RouteUnknown => Ok(()),
            Err(other) => Err(failed(other)),
        }
    }

    async fn entries(&self) -> Result<Vec<Entry>> {
        let table = self.client.table().await.map_err(failed)?;
        Ok(table
            .entries
            .into_iter()
            .map(|entry| Entry {
                port: entry.route.port,
                key: entry.route.key,
                release: entry.route.release,
                endpoint: entry.route.endpoint,
                confirmed: !entry.unconfirmed,
                held: entry.route.held,
                connections: entry.connections_open,
                waiting: entry.held_now,
                last_used: (entry.last_activity_ms > 0)
                    .then(|| Timestamp(i64::try_from(entry.last_activity_ms.saturating_mul(1000)).unwrap_or(i64::MAX))),
                peers: entry.peers,
            })
            .collect())
    }

    async fn reservations(&self) -> Result<Vec<(u16, String)>> {
        let table = self.client.table().await.map_err(failed)?;
        Ok(table.reservations.into_iter().map(|one| (one.port, one.key)).collect())
    }
}

/// Routes in memory, for tests.
#[derive(Debug, Default)]
pub struct Table {
    asked: tokio::sync::Notify,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    ports: BTreeMap<String, u16>,
    routes: BTreeMap<u16, Route>,
    held: BTreeMap<u16, Hold>,
    used: BTreeMap<u16, Timestamp>,
    late: bool,
    asks: Vec<String>,
    log: Vec<String>,
    silent: u32,
}

impl Table {
    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Everything that was done, in order.
    #[must_use]
    pub fn log(&self) -> Vec<String> {
        self.inner().log.clone()
    }

    /// The route of a port.
    #[must_use]
    pub fn route(&self, port: u16) -> Option<Route> {
        self.inner().routes.get(&port).cloned()
    }

    /// Somebody wants something of a port.
    pub fn knock(&self, port: u16, now: Timestamp) {
        let mut inner = self.inner();
        inner.used.insert(port, now);
        if let Some(key) = inner.held.get(&port).map(|hold| hold.key.clone()) {
            inner.asks.push(key);
            self.asked.notify_one();
        }
    }

    /// Something of a port is used without asking for it.
    pub fn touch(&self, port: u16, now: Timestamp) {
        self.inner().used.insert(port, now);
    }

    /// The next port that is held was used just before.
    pub fn touch_before_hold(&self) {
        self.inner().late = true;
    }

    /// Ports whose traffic is held.
    #[must_use]
    pub fn held(&self) -> Vec<u16> {
        self.inner().held.keys().copied().collect()
    }

    /// The next so many changes fail.
    pub fn silence(&self, times: u32) {
        self.inner().silent = times;
    }
}

#[async_trait]
impl Routes for Table {
    async fn allocate(&self, key: &str, _bind: IpAddr) -> Result<u16> {
        let mut inner = self.inner();
        let next = 20_000 + u16::try_from(inner.ports.len()).unwrap_or(0);
        Ok(*inner.ports.entry(key.to_owned()).or_insert(next))
    }

    async fn release(&self, _port: u16, key: &str) -> Result<()> {
        self.inner().ports.remove(key);
        Ok(())
    }

    async fn set(&self, route: Route) -> Result<()> {
        let mut inner = self.inner();
        if inner.silent > 0 {
            inner.silent -= 1;
            return Err(Error::Silent("scripted".to_owned()));
        }
        inner.log.push(format!("route {} {}", route.port, route.release));
        inner.held.remove(&route.port);
        inner.routes.insert(route.port, route);
        Ok(())
    }

    async fn remove(&self, port: u16, _key: &str) -> Result<()> {
        let mut inner = self.inner();
        inner.log.push(format!("unroute {port}"));
        inner.routes.remove(&port);
        inner.held.remove(&port);
        Ok(())
    }

    async fn hold(&self, hold: Hold) -> Result<()> {
        let mut inner = self.inner();
        if inner.silent > 0 {
            inner.silent -= 1;
            return Err(Error::Silent("scripted".to_owned()));
        }
        inner.log.push(format!("hold {}", hold.port));
        if std::mem::take(&mut inner.late) {
            inner.used.insert(hold.port, crate::clock::now());
        }
        inner.routes.remove(&hold.port);
        inner.held.insert(hold.port, hold);
        Ok(())
    }

    async fn refuse_held(&self, port: u16, _key: &str) -> Result<()> {
        self.inner().log.push(format!("refuse {port}"));
        Ok(())
    }

    async fn wakes(&self, seen: u64) -> Result<(u64, Vec<String>)> {
        loop {
            let asked = self.asked.notified();
            let asks = std::mem::take(&mut self.inner().asks);
            if !asks.is_empty() {
                return Ok((seen + 1, asks));
            }
            asked.await;
        }
    }

    async fn drain(&self, port: u16, release: &str, _deadline: Duration) -> Result<()> {
        self.inner().log.push(format!("drain {port} {release}"));
        Ok(())
    }

    async fn entries(&self) -> Result<Vec<Entry>> {
        let inner = self.inner();
        let entry = |port: u16, key: &str, release: &str, endpoint, held| Entry {
            port,
            key: key.to_owned(),
            release: release.to_owned(),
            endpoint,
            confirmed: true,
            held,
            connections: 0,
            waiting: 0,
            last_used: inner.used.get(&port).copied(),
            peers: Vec::new(),
        };
        let routes = inner.routes.values();
        let routes = routes.map(|one| entry(one.port, &one.key, &one.release, Some(one.endpoint), false));
        let held = inner.held.values().map(|one| entry(one.port, &one.key, &one.release, one.endpoint, true));
        Ok(routes.chain(held).collect())
    }

    async fn reservations(&self) -> Result<Vec<(u16, String)>> {
        Ok(self.inner().ports.iter().map(|(key, port)| (*port, key.clone())).collect())
    }
}
