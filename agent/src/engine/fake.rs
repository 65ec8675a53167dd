//! An engine in memory, for tests: the real agent code runs over it. Containers can listen on addresses of their own
//! (127.64.0.0/10), exit by themselves or by script, and calls can fail before or after their effect.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, broadcast, watch};
use tokio::task::JoinHandle;

use super::{Cgroups, ContainerSpec, Error, Event, Image, Labels, LogPiece, NetworkSpec, Result, Run, VolumeSpec};

mod calls;
mod logs;
mod serve;

/// A kind of call, for scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Op {
    /// `about`.
    About,
    /// `pull`, `load` or `build`.
    Image,
    /// Making a network or volume.
    Object,
    /// `create`.
    Create,
    /// `start`.
    Start,
    /// `stop`.
    Stop,
    /// `remove`.
    Remove,
    /// `inspect` or `containers`.
    Look,
    /// A stream of a log.
    Log,
}

/// How a call fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Nothing happens, nobody answers.
    Away,
    /// It happens, and nobody answers.
    AnswerLost,
    /// The engine says no.
    Refused(String),
}

/// What containers of an image do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Behaviour {
    /// Ends with this status as soon as it is started.
    pub exits: Option<i32>,
    /// Lines it writes when it is started.
    pub says: Vec<String>,
    /// Port on which it answers HTTP with this status and `ok`.
    pub http: Option<(u16, u16)>,
    /// Port on which it answers `+PONG`.
    pub redis: Option<u16>,
    /// Port on which it answers as PostgreSQL asking for a password.
    pub postgres: Option<u16>,
    /// Status of every command run in it.
    pub executes: i32,
}

#[derive(Debug)]
struct Made {
    id: String,
    spec: ContainerSpec,
    labels: Option<Labels>,
    run: Run,
    address: Ipv4Addr,
    starts: u32,
    log: Vec<LogPiece>,
    /// Lengths of the log at each of its ends.
    ends: Vec<usize>,
    servers: Vec<JoinHandle<()>>,
}

impl Drop for Made {
    fn drop(&mut self) {
        self.silence();
    }
}

impl Made {
    fn silence(&mut self) {
        for server in self.servers.drain(..) {
            server.abort();
        }
    }
}

/// The addresses of one engine's containers: 1024, and those of no other engine of this process or of one that runs
/// beside it, so that tests run at once.
#[derive(Debug)]
struct Range(u32);

impl Default for Range {
    fn default() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        Self(std::process::id().wrapping_mul(640).wrapping_add(NEXT.fetch_add(1, Relaxed)) & 0xfff)
    }
}

impl Range {
    fn address(&self, number: u32) -> Ipv4Addr {
        Ipv4Addr::from(0x7f40_0000 | self.0 << 10 | number & 0x3ff)
    }
}

#[derive(Debug, Default)]
struct World {
    range: Range,
    away: bool,
    next: u32,
    addresses: u32,
    boxes: BTreeMap<String, Made>,
    networks: BTreeMap<String, NetworkSpec>,
    volumes: BTreeMap<String, VolumeSpec>,
    unfinished: BTreeSet<String>,
    images: BTreeMap<String, Image>,
    behaviours: BTreeMap<String, Behaviour>,
    faults: BTreeMap<Op, VecDeque<Fault>>,
    delays: BTreeMap<Op, Duration>,
    hidden: BTreeMap<String, u32>,
    calls: Vec<String>,
    watching: BTreeMap<String, u32>,
    cgroups: Cgroups,
    lines: u64,
}

/// An engine in memory.
#[derive(Debug, Clone)]
pub struct Fake {
    world: Arc<Mutex<World>>,
    /// By host id.
    events: broadcast::Sender<(String, Event)>,
    subscribed: Arc<Notify>,
    /// Changes with every log and with what containers do.
    written: watch::Sender<()>,
}

impl Default for Fake {
    fn default() -> Self {
        Self::new()
    }
}

impl Fake {
    /// An empty one; every image exists unless [`Fake::only_images`] was called.
    #[must_use]
    pub fn new() -> Self {
        Self {
            world: Arc::default(),
            events: broadcast::Sender::new(64),
            subscribed: Arc::default(),
            written: watch::Sender::new(()),
        }
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says what its control groups are.
    pub fn set_cgroups(&self, cgroups: Cgroups) {
        self.world().cgroups = cgroups;
    }

    /// Says what containers of `image` do.
    pub fn behave(&self, image: &str, behaviour: Behaviour) {
        self.world().behaviours.insert(image.to_owned(), behaviour);
    }

    /// Puts an image on the host; from the first one on, others do not exist.
    pub fn add_image(&self, reference: &str, image: Image) {
        self.world().images.insert(reference.to_owned(), image);
    }

    /// The next call of that kind fails so.
    pub fn fail(&self, op: Op, fault: Fault) {
        self.world().faults.entry(op).or_default().push_back(fault);
    }

    /// Every call of that kind takes so long.
    pub fn delay(&self, op: Op, by: Duration) {
        self.world().delays.insert(op, by);
    }

    /// So many looks at this name find nothing although it is taken: what bears it is still being made.
    pub fn hide(&self, name: &str, looks: u32) {
        self.world().hidden.insert(name.to_owned(), looks);
    }

    /// The engine stops or begins to answer; containers go on.
    pub fn away(&self, away: bool) {
        self.world().away = away;
    }

    /// Ends a container by name, as if by itself.
    pub fn exit(&self, name: &str, code: i32) {
        let ended = {
            let mut world = self.world();
            let Some(found) = world.boxes.values_mut().find(|one| one.spec.name == name) else { return };
            found.silence();
            found.run = Run::Exited(code);
            found.ends.push(found.log.len());
            (found.spec.host.clone(), Event::Ended(found.id.clone()))
        };
        self.tell(ended);
    }

    fn tell(&self, event: (String, Event)) {
        let _ = self.events.send(event);
        self.written.send_replace(());
    }

    /// The machine was rebooted: everything that ran has ended.
    pub fn reboot(&self) {
        let names: Vec<String> = {
            let world = self.world();
            world.boxes.values().filter(|one| one.run == Run::Running).map(|one| one.spec.name.clone()).collect()
        };
        for name in names {
            self.exit(&name, 255);
        }
    }

    /// A container of somebody else.
    pub fn add_foreign(&self, name: &str) {
        let spec = ContainerSpec { name: name.to_owned(), ..ContainerSpec::default() };
        let mut world = self.world();
        let id = world.add(spec, None);
        if let Some(found) = world.boxes.get_mut(&id) {
            found.run = Run::Running;
        }
    }

    /// Names of all containers, sorted.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.world().boxes.values().map(|one| one.spec.name.clone()).collect();
        names.sort();
        names
    }

    /// Ids of all containers, in the order of making.
    #[must_use]
    pub fn ids(&self) -> Vec<String> {
        self.world().boxes.keys().cloned().collect()
    }

    /// Names of all running containers, sorted.
    #[must_use]
    pub fn running(&self) -> Vec<String> {
        let world = self.world();
        let running = world.boxes.values().filter(|one| one.run == Run::Running);
        let mut names: Vec<String> = running.map(|one| one.spec.name.clone()).collect();
        names.sort();
        names
    }

    /// What the container of that name was made from.
    #[must_use]
    pub fn spec(&self, name: &str) -> Option<ContainerSpec> {
        self.world().boxes.values().find(|one| one.spec.name == name).map(|one| one.spec.clone())
    }

    /// How often the container of that name was started.
    #[must_use]
    pub fn starts(&self, name: &str) -> u32 {
        self.world().boxes.values().find(|one| one.spec.name == name).map_or(0, |one| one.starts)
    }

    /// All calls with an effect so far, as `create NAME`, in their order.
    #[must_use]
    pub fn calls(&self) -> Vec<String> {
        self.world().calls.clone()
    }

    /// A volume that an engine was killed over.
    pub fn leave_volume(&self, name: &str) {
        self.world().unfinished.insert(name.to_owned());
    }

    /// Names of all networks and volumes, sorted.
    #[must_use]
    pub fn objects(&self) -> Vec<String> {
        let world = self.world();
        world.networks.keys().chain(world.volumes.keys()).cloned().collect()
    }

    /// Waits until somebody listens for containers of that host.
    pub async fn subscribed(&self, host: &str) {
        loop {
            let notified = self.subscribed.notified();
            if self.world().watching.contains_key(host) {
                return;
            }
            notified.await;
        }
    }

    /// Fails as scripted. `Ok(true)`: have the effect, then say that the answer was lost.
    async fn enter(&self, op: Op) -> Result<bool> {
        let delay = self.world().delays.get(&op).copied();
        if let Some(delay) = delay {
            tokio::time::sleep(delay).await;
        }
        let mut world = self.world();
        if world.away {
            return Err(Error::Away("scripted".to_owned()));
        }
        match world.faults.get_mut(&op).and_then(VecDeque::pop_front) {
            None => Ok(false),
            Some(Fault::AnswerLost) => Ok(true),
            Some(Fault::Away) => Err(Error::Away("scripted".to_owned())),
            Some(Fault::Refused(why)) => Err(Error::Refused(why)),
        }
    }
}

fn lost<T>(lost: bool, value: T) -> Result<T> {
    if lost { Err(Error::Away("answer lost".to_owned())) } else { Ok(value) }
}

impl World {
    fn add(&mut self, spec: ContainerSpec, labels: Option<Labels>) -> String {
        self.next += 1;
        let id = format!("{:064x}", self.next);
        let address = self.address();
        let made = Made {
            id: id.clone(),
            spec,
            labels,
            run: Run::Created,
            address,
            starts: 0,
            log: Vec::new(),
            ends: Vec::new(),
            servers: Vec::new(),
        };
        self.boxes.insert(id.clone(), made);
        id
    }

    fn address(&mut self) -> Ipv4Addr {
        self.addresses += 1;
        self.range.address(self.addresses)
    }

    /// Counts a look at `name`. True: it is still being made.
    fn hides(&mut self, name: &str) -> bool {
        self.hidden.get_mut(name).is_some_and(|left| {
            let hides = *left > 0;
            *left = left.saturating_sub(1);
            hides
        })
    }

    fn find(&self, name: &str) -> Option<&Made> {
        self.boxes.get(name).or_else(|| self.boxes.values().find(|one| one.spec.name == name))
    }
}

impl Made {
    fn addresses(&self) -> BTreeMap<String, IpAddr> {
        let running = self.run == Run::Running && !self.spec.network.is_empty();
        running.then(|| (self.spec.network.clone(), IpAddr::V4(self.address))).into_iter().collect()
    }
}
