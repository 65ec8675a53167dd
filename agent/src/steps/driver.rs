//! One target's own task: tells the step machine what happens, and does what it asks, in its order.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use domain::health::{HealthCheck, Probe};
use domain::ids::ReleaseId;
use domain::name::{Name, TargetRef};
use domain::release::Release;
use domain::step::event::{Action, Event, Found, Instance};
use domain::step::journal::{BootId, BootTime, Slot, StepPhase};
use domain::step::machine::Machine;
use domain::step::report::Report;
use proto::v1;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tonic::transport::Channel;

use super::containers::{self, Existing};
use super::health::Asker;
use super::news::{Begin, News, Running, sampled};
use super::traffic::Led;
use super::{journal, perform, retain};
use crate::clock;
use crate::host::Host;

/// One target's task.
pub(super) struct Driver {
    pub host: Arc<Host>,
    pub target: TargetRef,
    pub machine: Machine,
    pub releases: BTreeMap<ReleaseId, Release>,
    pub retain: u32,
    pub boot: BootId,
    pub channel: watch::Receiver<Option<Channel>>,
    pub told: watch::Sender<Option<v1::StepReport>>,
    pub send: mpsc::UnboundedSender<News>,
    pub news: mpsc::UnboundedReceiver<News>,
    running: BTreeMap<(ReleaseId, Name), Running>,
    instances: Instance,
    wake_at: Option<Duration>,
    phase: Option<StepPhase>,
    routed: Option<ReleaseId>,
    routing: bool,
    /// Asked for until now.
    switches: u64,
    inspected: bool,
    tasks: JoinSet<()>,
}

impl Driver {
    /// Goes on from the journal; what is overdue is settled (durably) when this returns.
    pub async fn restore(begin: Begin) -> Self {
        let now = BootTime { boot: begin.boot, at: clock::boot_time() };
        let (machine, actions) = Machine::restore(begin.slot, begin.run, now);
        let mut driver = Self {
            host: begin.host,
            target: begin.target,
            machine,
            releases: begin.releases,
            retain: begin.retain,
            boot: begin.boot,
            channel: begin.channel,
            told: begin.told,
            send: begin.send,
            news: begin.news,
            running: BTreeMap::new(),
            instances: 0,
            wake_at: None,
            phase: None,
            routed: None,
            routing: false,
            switches: 0,
            inspected: false,
            tasks: JoinSet::new(),
        };
        driver.perform(actions).await;
        driver
    }

    /// Runs for as long as the agent does.
    pub async fn run(mut self) {
        loop {
            let wait = self.wake_at.map(|at| at.saturating_sub(clock::boot_time()));
            let event = tokio::select! {
                news = self.news.recv() => match news {
                    Some(news) => match self.take(news).await {
                        Some(event) => event,
                        None => continue,
                    },
                    None => return,
                },
                () = sleep(wait) => {
                    self.wake_at = None;
                    Event::Tick
                }
                Some(_) = self.tasks.join_next() => continue,
            };
            let actions = self.machine.handle(event, self.now());
            self.perform(actions).await;
        }
    }

    fn now(&self) -> BootTime {
        BootTime { boot: self.boot, at: clock::boot_time() }
    }

    async fn take(&mut self, news: News) -> Option<Event> {
        match news {
            News::Event(event) => {
                match &*event {
                    Event::Routed { release } => {
                        self.routed = *release;
                        self.routing = false;
                        // A process that was started again meanwhile has another address by now.
                        self.look();
                    }
                    Event::RouteFailed { .. } => self.routing = false,
                    Event::Exited { release, process, instance, .. } => {
                        let key = (*release, process.clone());
                        if self.running.get(&key).is_some_and(|one| one.instance == *instance) {
                            self.running.remove(&key);
                        }
                    }
                    _ => {}
                }
                Some(*event)
            }
            News::Order { event, release, retain } => {
                if let Some(release) = release {
                    self.releases.insert(release.id, *release);
                    self.retain = retain;
                }
                Some(*event)
            }
            News::Started { release, process, id, address } => Some(self.started(release, process, id, address).await),
            News::Inspected { existing, led } => Some(self.inspected(existing, &led)),
            News::Tell => {
                self.machine.report_again();
                Some(Event::Tick)
            }
            News::Look => {
                self.look();
                Some(Event::Tick)
            }
            // The answer of a switch counts more than what was seen before it.
            News::Led { switches, .. } if switches != self.switches || self.routing => None,
            News::Led { led, .. } => self.led(&led).await,
        }
    }

    /// Remembers a running container as another instance of its process.
    fn know(&mut self, release: ReleaseId, process: &Name, id: String, address: Option<IpAddr>) -> Instance {
        self.instances += 1;
        let known = self.releases.get(&release);
        let check = known
            .and_then(|known| known.processes.get(process))
            .map(|declared| declared.health.clone().unwrap_or_else(|| HealthCheck::new(Probe::Container)));
        let spec = known.and_then(|known| containers::spec(&self.host, known, process));
        let asker = check.zip(spec).map(|(check, spec)| Asker::new(Arc::clone(&self.host), check, address, spec));
        let running = Running { instance: self.instances, id, address, asker, tasks: Vec::new() };
        self.running.insert((release, process.clone()), running);
        self.instances
    }

    /// A container was started: it is asked and watched from now on.
    async fn started(&mut self, release: ReleaseId, process: Name, id: String, address: Option<IpAddr>) -> Event {
        let instance = self.know(release, &process, id, address);
        // One that is under traffic already has another address after its restart.
        if self.routed == Some(release) {
            self.lead_again(release).await;
        }
        self.watch(release, &process, instance);
        Event::Started { release, process, instance }
    }

    /// The relay was asked where it leads.
    async fn led(&mut self, led: &Led) -> Option<Event> {
        let release = self.reached(led);
        if release == self.routed {
            return None;
        }
        if led.release == self.routed {
            self.lead_again(led.release?).await;
            return None;
        }
        tracing::warn!(target = %self.target, "the relay leads elsewhere than it was told");
        self.routed = release;
        Some(Event::Routed { release })
    }

    /// The release that has the traffic: to lead to where its processes were before a restart does not count.
    fn reached(&self, led: &Led) -> Option<ReleaseId> {
        led.release.filter(|release| led.agrees(&self.addresses(*release)))
    }

    async fn lead_again(&mut self, release: ReleaseId) {
        self.switches += 1;
        let Some(known) = self.releases.get(&release) else { return };
        if let Err(why) = super::traffic::lead(&self.host, known, &self.addresses(release)).await {
            tracing::warn!(target = %self.target, %why, "traffic of a restarted process cannot be led yet");
            self.routed = None;
            let _ = self.send.send(News::Event(Box::new(Event::Routed { release: None })));
        }
    }

    fn addresses(&self, release: ReleaseId) -> BTreeMap<Name, IpAddr> {
        let of = self.running.iter().filter(|((other, _), _)| *other == release);
        of.filter_map(|((_, name), one)| Some((name.clone(), one.address?))).collect()
    }

    /// Asks and watches a running process until it ends.
    fn watch(&mut self, release: ReleaseId, process: &Name, instance: Instance) {
        let Some(running) = self.running.get_mut(&(release, process.clone())) else { return };
        running.instance = instance;
        let (boot, send, name) = (self.boot, self.send.clone(), process.clone());
        if let Some(asker) = running.asker.clone() {
            let asking = tokio::spawn(asker.follow(move |answer| {
                let _ = send.send(sampled(boot, release, &name, instance, answer));
            }));
            running.tasks.push(asking.abort_handle());
        }
        let ending = perform::watch_end(Arc::clone(&self.host), release, process.clone(), instance, running.id.clone());
        let send = self.send.clone();
        let watching = tokio::spawn(async move {
            let event = ending.await;
            let _ = send.send(News::Event(Box::new(event)));
        });
        running.tasks.push(watching.abort_handle());
    }

    async fn perform(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Persist(slot) => self.persist(&slot).await,
                Action::Inspect => self.inspect(),
                Action::Stage { generation, work } => {
                    let ways = self.channel.clone();
                    let known = self.releases.get(&work.release).cloned();
                    self.spawn(perform::stage(Arc::clone(&self.host), known, generation, work, ways));
                }
                Action::Start { release, process } => self.start(release, process),
                Action::Watch { release, process, instance } => self.watch(release, &process, instance),
                Action::ProbeNow { release, process } => self.probe_now(release, &process),
                Action::Stop { release, process, drain, kill } => self.stop(release, process, drain, kill),
                Action::Route { release, .. } => self.route(release),
                Action::Logs { release, process } => {
                    let id = self.running.get(&(release, process.clone())).map(|one| one.id.clone());
                    let name =
                        self.releases.get(&release).and_then(|known| containers::spec(&self.host, known, &process));
                    let id = id.or(name.map(|spec| spec.name));
                    self.spawn(perform::logs(Arc::clone(&self.host), release, process, id));
                }
                Action::Report(report) => self.report(&report),
                Action::Refused(refusal) => {
                    tracing::warn!(target = %self.target, code = refusal.code(), %refusal, "an order was not taken");
                }
                Action::WakeAt(at) => self.wake_at = Some(at),
            }
        }
    }

    /// Nothing goes on before the journal is on disk.
    async fn persist(&mut self, slot: &Slot) {
        crate::failpoints::effect("journal.write");
        let bytes = journal::encode(slot);
        while let Err(why) = self.host.state.put_target(&self.target.to_string(), &bytes, self.retain).await {
            tracing::error!(target = %self.target, %why, "the journal cannot be written; the step waits");
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        let phase = slot.step.as_ref().map(|step| step.phase);
        if phase != self.phase {
            match phase {
                Some(StepPhase::Switching) => self.host.failpoints.hit("step.warm"),
                Some(StepPhase::Checking) => self.host.failpoints.hit("step.checking"),
                Some(StepPhase::Settled) => {
                    let (host, target, keep) = (Arc::clone(&self.host), self.target.clone(), retain::kept(slot));
                    let count = self.retain;
                    self.tasks.spawn(async move { retain::prune(&host, &target, &keep, count).await });
                }
                _ => {}
            }
            self.phase = phase;
        }
    }

    fn report(&mut self, report: &Report) {
        let message = proto::convert::step::report(&self.target, report, "");
        self.host.outbox.tell(&format!("step {}", self.target), v1::agent_message::Message::Step(message.clone()));
        self.told.send_replace(Some(message));
    }

    fn spawn(&mut self, work: impl Future<Output = Event> + Send + 'static) {
        let send = self.send.clone();
        self.tasks.spawn(async move {
            let event = work.await;
            let _ = send.send(News::Event(Box::new(event)));
        });
    }

    fn inspect(&mut self) {
        let (host, target, releases, send) =
            (Arc::clone(&self.host), self.target.clone(), self.releases.clone(), self.send.clone());
        self.tasks.spawn(async move {
            let (existing, led) = perform::inspect(&host, &target, &releases).await;
            let _ = send.send(News::Inspected { existing, led });
        });
    }

    fn inspected(&mut self, existing: Vec<Existing>, led: &Led) -> Event {
        self.inspected = true;
        let mut containers = Vec::new();
        for one in existing {
            let running = one.running.map(|address| self.know(one.release, &one.process, one.id, address));
            containers.push(Found { release: one.release, process: one.process, running });
        }
        self.routed = self.reached(led);
        Event::Inspected { containers, routed: self.routed }
    }

    fn start(&mut self, release: ReleaseId, process: Name) {
        let known = self.releases.get(&release).cloned();
        let (host, send) = (Arc::clone(&self.host), self.send.clone());
        self.tasks.spawn(async move {
            let news = match perform::start(&host, known.as_ref(), &process).await {
                Ok((id, address)) => News::Started { release, process, id, address },
                Err(text) => News::Event(Box::new(Event::StartFailed { release, process, text })),
            };
            let _ = send.send(news);
        });
    }

    fn probe_now(&mut self, release: ReleaseId, process: &Name) {
        let Some(running) = self.running.get(&(release, process.clone())) else { return };
        let Some(asker) = running.asker.clone() else { return };
        let (boot, instance, name, send) = (self.boot, running.instance, process.clone(), self.send.clone());
        self.tasks.spawn(async move {
            let answer = asker.once().await;
            let _ = send.send(sampled(boot, release, &name, instance, answer));
        });
    }

    fn stop(&mut self, release: ReleaseId, process: Name, drain: Duration, kill: Duration) {
        // From here on its end is asked for: nobody is to take it for a failure.
        self.running.remove(&(release, process.clone()));
        let known = self.releases.get(&release).cloned();
        self.spawn(perform::stop(Arc::clone(&self.host), known, release, process, drain, kill));
    }

    fn look(&mut self) {
        if self.routing || !self.inspected {
            return;
        }
        let (host, target, send) = (Arc::clone(&self.host), self.target.clone(), self.send.clone());
        let switches = self.switches;
        self.tasks.spawn(async move {
            if let Ok(led) = super::traffic::led(&host, &target).await {
                let _ = send.send(News::Led { switches, led });
            }
        });
    }

    fn route(&mut self, release: Option<ReleaseId>) {
        self.routing = true;
        self.switches += 1;
        let known = release.and_then(|id| self.releases.get(&id).cloned());
        let addresses = release.map(|id| self.addresses(id)).unwrap_or_default();
        self.spawn(perform::route(Arc::clone(&self.host), self.target.clone(), release, known, addresses));
    }
}

async fn sleep(wait: Option<Duration>) {
    match wait {
        Some(wait) => tokio::time::sleep(wait).await,
        None => std::future::pending().await,
    }
}
