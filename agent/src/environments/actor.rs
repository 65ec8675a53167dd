//! One environment's own task: compares what is wanted with what is known after every change, and acts at once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::environment::diff::{Seen, diff};
use domain::environment::{Activity, EnvironmentState, life};
use domain::time::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::event::{Event, LINES, watch_end};
use super::failure::Failure;
use super::guest::Door;
use super::launch::{self, Launched};
use super::life::{Life, Stage};
use super::part::Part;
use super::plan::{self, Plan};
use super::{View, Wanted, down, enter, ground, health, lay, prepare, report, sleep, warm};
use crate::engine::{ContainerSpec, Listed, Run, last_lines};
use crate::host::Host;

/// Pause before something that may pass is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Why a pass over what is wanted ended.
pub(super) enum Next {
    /// Something else is wanted, or everything is to be looked at again.
    Again,
    /// Nothing of it is left.
    Gone,
    /// It goes to sleep; what it does first is remembered.
    Rest,
    /// The agent ends; what runs goes on.
    Closed,
}

/// One environment's task.
pub(super) struct Actor {
    pub host: Arc<Host>,
    pub wanted: watch::Receiver<Wanted>,
    pub wake: watch::Receiver<u64>,
    pub view: watch::Sender<View>,
    /// The first pass after the agent's start.
    pub first: bool,
    /// Nothing of it was looked at yet by this agent, or something of it may be frozen.
    pub unseen: bool,
    /// Somebody wants something of it.
    pub poke: watch::Receiver<u64>,
    /// Who is inside, and whether it goes to sleep.
    pub door: Arc<Door>,
    /// How it sleeps and was used.
    pub life: Life,
    /// As it is told.
    pub activity: Activity,
    /// Why it cannot be put to sleep, and until when that is not tried again.
    pub restless: Option<(String, Instant)>,
}

impl Actor {
    /// One that does nothing yet.
    pub fn new(
        host: Arc<Host>,
        wanted: watch::Receiver<Wanted>,
        (wake, poke): (watch::Receiver<u64>, watch::Receiver<u64>),
        view: watch::Sender<View>,
        first: bool,
    ) -> Self {
        let (life, activity) = (Life::default(), Activity::default());
        Self {
            host,
            wanted,
            wake,
            view,
            first,
            unseen: true,
            poke,
            life,
            activity,
            restless: None,
            door: Arc::default(),
        }
    }

    /// Runs until nothing of the environment is left.
    pub async fn run(mut self) {
        self.recall().await;
        loop {
            let wanted = self.wanted.borrow_and_update().clone();
            match warm::hand_out(&self.host, &wanted.order).await {
                Ok(false) => {}
                Ok(true) => self.life = Life::default(),
                Err(why) => {
                    self.failed(wanted.order.generation, why).await;
                    continue;
                }
            }
            self.ordered(&wanted).await;
            let next = match (wanted.order.up, wanted.halted, self.life.stage.sleeps()) {
                (true, true, _) => self.halt(wanted).await,
                (true, false, false) => self.up(wanted).await,
                (true, false, true) => self.rest(wanted).await,
                (false, _, _) => self.down(wanted).await,
            };
            self.first = false;
            // It may have been wanted again while the last of it went.
            match next {
                Next::Closed => return,
                Next::Gone if !self.wanted.borrow().order.up => return,
                Next::Gone | Next::Again | Next::Rest => {}
            }
        }
    }

    async fn down(&mut self, wanted: Wanted) -> Next {
        self.publish(report::bare(wanted.order.generation, EnvironmentState::Stopping, None));
        loop {
            match down::remove(&self.host, &wanted.order).await {
                Ok(()) => break,
                Err(why) => {
                    tracing::warn!(environment = %wanted.order.id, %why, "the environment is not removed yet");
                    let reason = Some((why.code, why.text));
                    self.publish(report::bare(wanted.order.generation, EnvironmentState::Stopping, reason));
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
        let gone = report::bare(wanted.order.generation, EnvironmentState::Gone, None);
        // A slot that was handed out at the last moment begins anew.
        if self.wanted.borrow().order.up {
            self.forget().await;
            self.life = Life::default();
            return Next::Gone;
        }
        // Who waits for the end sees it after it is durable.
        while let Err(why) = super::tell_gone(&self.host, &wanted, &gone).await {
            tracing::error!(%why, "the removal cannot be remembered");
            tokio::time::sleep(RETRY).await;
        }
        self.forget().await;
        self.view.send_modify(|view| view.observed = gone);
        Next::Gone
    }

    /// Everything is stopped as its programs like to be stopped, and stays so until something else is wanted.
    async fn halt(&mut self, wanted: Wanted) -> Next {
        self.publish(report::bare(wanted.order.generation, EnvironmentState::Stopping, None));
        while let Err(why) = down::stop(&self.host, &wanted.order.id).await {
            tracing::warn!(environment = %wanted.order.id, %why, "not everything is stopped yet");
            tokio::time::sleep(RETRY).await;
        }
        self.view.send_modify(|view| view.halted = true);
        let changed = self.wanted.changed().await;
        self.view.send_modify(|view| view.halted = false);
        if changed.is_err() { Next::Closed } else { Next::Again }
    }

    async fn up(&mut self, wanted: Wanted) -> Next {
        let generation = wanted.order.generation;
        let mut plan = match plan::read(&self.host, &wanted) {
            Ok(plan) => plan,
            Err(why) => return self.failed(generation, why).await,
        };
        plan.rebuild = life::still_to_do(&wanted.order.rebuilds, &self.life.done);
        plan.restart = life::still_to_do(&wanted.order.restarts, &self.life.done);
        if let Err(why) = ground::ports(&self.host, &mut plan).await {
            return self.failed(generation, why).await;
        }
        if let Err(why) = lay::data(&self.host, &mut plan).await {
            return self.failed(generation, why).await;
        }
        let laid = lay::told(&self.host, &plan);
        self.view.send_modify(|view| view.data = Some(laid));
        let found = match self.host.engine.containers(&self.host.id).await {
            Ok(all) => all.into_iter().filter(|one| one.labels.slot == plan.id).collect::<Vec<_>>(),
            Err(why) => return self.failed(generation, why.into()).await,
        };
        // Whatever an agent before this one left half done or forgot.
        if (self.first || self.unseen)
            && let Err(why) = sleep::thaw(&self.host, &found).await
        {
            return self.failed(generation, why).await;
        }
        self.unseen = false;
        let mut pass = Pass::begin(self, Arc::new(plan), found);
        pass.run().await
    }

    /// Waits for another order, or for a while if it may pass.
    async fn failed(&mut self, generation: u64, why: Failure) -> Next {
        let (passes, needs_room) = (why.passes, why.needs_room());
        let state = if passes && !needs_room { EnvironmentState::Starting } else { EnvironmentState::Failed };
        self.publish(report::bare(generation, state, Some((why.code, why.text))));
        if passes {
            let pause = if needs_room { RETRY * 10 } else { RETRY };
            let _ = tokio::time::timeout(pause, self.wanted.changed()).await;
        } else if self.wanted.changed().await.is_err() {
            return Next::Closed;
        }
        Next::Again
    }

    /// Tells how it stands, if that changed.
    pub(super) fn publish(&self, mut observed: domain::environment::Observed) {
        observed.activity = (self.activity.last_used > Timestamp::default()).then(|| self.activity.clone());
        let (id, slot) = {
            let wanted = self.wanted.borrow();
            (wanted.order.id.clone(), warm::is_slot(&wanted.order.run))
        };
        self.view.send_if_modified(|view| {
            if view.observed == observed {
                return false;
            }
            if view.observed.state != observed.state {
                self.host.sizes.ask(&id);
            }
            view.observed = observed;
            if slot {
                self.host.warm.changed();
            } else {
                super::tell(&self.host, &id, view);
            }
            true
        });
    }
}

/// One pass over one order.
pub(super) struct Pass<'a> {
    pub(super) actor: &'a mut Actor,
    pub(super) host: Arc<Host>,
    pub(super) plan: Arc<Plan>,
    found: Vec<Listed>,
    pub(super) parts: BTreeMap<String, Part>,
    grounded: bool,
    /// Why it is not.
    blocked: Option<Failure>,
    pub(super) send: mpsc::UnboundedSender<Event>,
    events: mpsc::UnboundedReceiver<Event>,
    /// Never aborted half-way through a create: what they make must be known.
    pub(super) launches: JoinSet<()>,
    /// Ends with the pass.
    pub(super) others: JoinSet<()>,
    /// Woken from a stop: a port is let go when its service is ready, not before.
    pub(super) hold: bool,
    /// When its use is looked at.
    look: Option<tokio::time::Interval>,
    /// No content of a secret lies there that was replaced.
    pub(super) tidied: bool,
}

impl<'a> Pass<'a> {
    fn begin(actor: &'a mut Actor, plan: Arc<Plan>, found: Vec<Listed>) -> Self {
        let (send, events) = mpsc::unbounded_channel();
        // What ran under this order before it slept, or before the agent or the engine was ended, is tried again and again.
        let was_ready = actor.life.ready_under == plan.wanted.order.generation;
        let parts = plan.stack.services.keys().map(|name| (name.clone(), Part::new(was_ready))).collect();
        let host = Arc::clone(&actor.host);
        let hold = actor.life.stage == Stage::Waking;
        // A run's environment ends with its run.
        let every = life::look_every(plan.stack.settings.idle).filter(|_| plan.wanted.order.run.is_empty());
        let look = every.map(sleep::ticks);
        let mut pass = Self {
            actor,
            host,
            plan,
            found,
            parts,
            grounded: false,
            blocked: None,
            send,
            events,
            launches: JoinSet::new(),
            others: JoinSet::new(),
            hold,
            look,
            tidied: false,
        };
        pass.lay_ground(Duration::ZERO);
        let names: Vec<String> = pass.parts.keys().cloned().collect();
        for name in names {
            pass.prepare(name);
        }
        pass
    }

    async fn run(&mut self) -> Next {
        self.remove_surplus();
        loop {
            let state = self.act();
            self.settle(state).await;
            self.tidy().await;
            if state == EnvironmentState::Ready && self.launches.is_empty() && self.plan.is_slot() {
                self.actor.enter(Stage::Freezing).await;
                return Next::Rest;
            }
            tokio::select! {
                changed = self.actor.wanted.changed() => {
                    if changed.is_err() {
                        return Next::Closed;
                    }
                    // What is being made is finished first, so that it can be found.
                    while self.launches.join_next().await.is_some() {}
                    return Next::Again;
                }
                Ok(()) = self.actor.wake.changed() => {
                    if self.parts.values().any(|part| part.failure.is_some()) {
                        return Next::Again;
                    }
                    self.lead_again();
                }
                Ok(()) = self.actor.poke.changed() => self.poked(state),
                () = sleep::next(&mut self.look) => self.look(),
                Some(event) = self.events.recv() => match event {
                    Event::Used(usage, memory) => {
                        if self.used(&usage, memory, state).await {
                            return Next::Rest;
                        }
                    }
                    other => self.take(other).await,
                },
                Some(_) = self.launches.join_next() => {}
                Some(_) = self.others.join_next() => {}
            }
        }
    }

    fn act(&mut self) -> EnvironmentState {
        let known = self.parts.iter().map(|(name, part)| (name.clone(), part.known)).collect();
        let next = diff(&self.plan.stack, &known);
        let mut observed = report::observed(&self.host, &self.plan, &self.parts, &next);
        if let (Some(why), None) = (&self.blocked, &observed.reason) {
            observed.state = if why.passes { EnvironmentState::Starting } else { EnvironmentState::Failed };
            observed.reason = Some((why.code.clone(), why.text.clone()));
        }
        let state = observed.state;
        self.actor.publish(observed);
        if !self.grounded {
            return state;
        }
        for name in next.start {
            self.launch(name);
        }
        state
    }

    fn lay_ground(&mut self, after: Duration) {
        let (host, plan, send) = (Arc::clone(&self.host), Arc::clone(&self.plan), self.send.clone());
        self.others.spawn(async move {
            tokio::time::sleep(after).await;
            let networks = async { Ok(ground::networks(&host, &plan).await?) };
            let laid = tokio::try_join!(networks, ground::manifest(&host, &plan));
            let _ = send.send(Event::Grounded(laid.map(|_| ())));
        });
    }

    fn prepare(&mut self, name: String) {
        let (host, plan, send) = (Arc::clone(&self.host), Arc::clone(&self.plan), self.send.clone());
        self.others.spawn(async move {
            let spec = prepare::service(&host, &plan, &name).await;
            let _ = send.send(Event::Prepared(name, spec.map(Box::new)));
        });
    }

    /// Containers of services that the stack no longer has.
    fn remove_surplus(&mut self) {
        for one in &self.found {
            if !self.parts.contains_key(&one.labels.part) {
                let (host, id) = (Arc::clone(&self.host), one.id.clone());
                self.launches.spawn(async move {
                    let _ = host.engine.remove(&id).await;
                });
            }
        }
    }

    /// Whatever was told or missed: published ports lead to what runs.
    pub(super) fn lead_again(&mut self) {
        let ready = |part: &Part| !self.hold || part.known.seen == Seen::Running { ready: true };
        let running: Vec<_> = self
            .parts
            .iter()
            .filter(|(_, part)| ready(part))
            .filter_map(|(name, part)| Some((name.clone(), part.address?)))
            .collect();
        let (host, plan) = (Arc::clone(&self.host), Arc::clone(&self.plan));
        self.others.spawn(async move { launch::lead_missing(&host, &plan, running).await });
    }

    fn launch(&mut self, name: String) {
        let Some(part) = self.parts.get_mut(&name) else { return };
        let Some(spec) = part.spec.clone() else { return };
        part.starting();
        let (instance, leads) = (part.instance, !self.hold);
        let (host, plan, send) = (Arc::clone(&self.host), Arc::clone(&self.plan), self.send.clone());
        self.launches.spawn(async move {
            let launched = launch::service(&host, &plan, &name, &spec, leads).await;
            let _ = send.send(Event::Launched(name, instance, launched));
        });
    }

    fn later(&mut self, after: Duration, event: Event) {
        let send = self.send.clone();
        self.others.spawn(async move {
            tokio::time::sleep(after).await;
            let _ = send.send(event);
        });
    }

    async fn take(&mut self, event: Event) {
        match event {
            Event::Grounded(Ok(())) => {
                self.grounded = true;
                self.blocked = None;
            }
            Event::Grounded(Err(why)) => {
                self.lay_ground(if why.passes { RETRY } else { RETRY * 10 });
                self.blocked = Some(why);
            }
            Event::Prepared(name, Ok(spec)) => self.prepared(name, *spec).await,
            Event::Prepared(name, Err(why)) => self.unprepared(name, why),
            Event::Launched(name, instance, launched) => {
                if launched.is_ok() {
                    self.done_again(&name).await;
                }
                self.launched(name, instance, launched);
            }
            Event::Health(name, instance, change) => {
                let Some(part) = self.part(&name, instance) else { return };
                part.health(change.healthy, change.text);
                let address = part.address.filter(|_| change.healthy);
                if let Some(address) = address.filter(|_| self.hold) {
                    self.let_go(name, address);
                }
            }
            // Taken where it is decided over.
            Event::Used(..) => {}
            Event::Ended { service, instance, code, lines, out_of_memory, engine_was_away } => {
                let Some(part) = self.part(&service, instance) else { return };
                match code {
                    Some(code) => {
                        let pause = part.ended(code, lines, out_of_memory, engine_was_away);
                        self.later(pause, Event::PauseOver(service, instance));
                    }
                    None => {
                        part.vanished();
                        self.prepare(service);
                    }
                }
            }
            Event::PauseOver(name, instance) => {
                let Some(part) = self.part(&name, instance) else { return };
                part.may_start_again();
                if part.known.seen == Seen::Preparing {
                    self.prepare(name);
                }
            }
        }
    }

    /// The part, unless the news is about an earlier start of it.
    fn part(&mut self, name: &str, instance: u64) -> Option<&mut Part> {
        self.parts.get_mut(name).filter(|part| part.instance == instance)
    }

    fn unprepared(&mut self, name: String, why: Failure) {
        let Some(part) = self.parts.get_mut(&name) else { return };
        let (passes, instance) = (why.passes || part.was_ready, part.instance);
        tracing::warn!(environment = %self.plan.id, service = name, %why, again = passes, "a service does not start");
        let pause = part.failed(why);
        if passes {
            self.later(pause, Event::PauseOver(name, instance));
        }
    }

    /// Finds out what of an earlier time can be used again.
    async fn prepared(&mut self, name: String, spec: ContainerSpec) {
        let done_is_done = self
            .plan
            .stack
            .services
            .values()
            .any(|one| one.depends_on.get(&name) == Some(&domain::stack::Condition::Completed));
        let found = self.found.iter().find(|one| one.name == spec.name && one.labels == spec.labels()).cloned();
        let view = &self.actor.view;
        view.send_modify(|view| {
            view.specs.insert(name.clone(), spec.clone());
        });
        let Some(part) = self.parts.get_mut(&name) else { return };
        part.spec = Some(spec);
        part.failure = None;
        part.known.seen = Seen::Startable;
        let Some(found) = found else { return };
        if found.running {
            return self.launch(name);
        }
        let Ok(Some(container)) = self.host.engine.inspect(&found.id).await else { return };
        if let Run::Exited(code) = container.run {
            let rebooted = self.actor.first && self.host.rebooted;
            // A new order, or a new boot, is a new chance; what was done once stays done.
            if (code == 0 && done_is_done) || (self.actor.first && !rebooted) {
                part.known.seen = Seen::Ended { code: Some(code), was_ready: true, pause_over: true };
                part.detail = format!("exit {code}");
                part.last_lines = last_lines(self.host.engine.as_ref(), &found.id, LINES).await;
            }
        }
    }

    fn launched(&mut self, name: String, instance: u64, launched: Result<Launched, Failure>) {
        let declared = self.plan.stack.services.get(&name).cloned();
        let (host, plan, send) = (Arc::clone(&self.host), Arc::clone(&self.plan), self.send.clone());
        let Some(part) = self.part(&name, instance) else { return };
        let launched = match launched {
            Ok(launched) => launched,
            Err(why) => return self.unprepared(name, why),
        };
        part.running(launched.id.clone(), launched.address);
        let watching =
            tokio::spawn(watch_end(Arc::clone(&host), send.clone(), name.clone(), instance, launched.id.clone()));
        part.watched_by(watching.abort_handle());
        let (Some(service), Some(address)) = (declared, launched.address) else { return };
        let (tell, mut changes) = mpsc::channel(8);
        let asking =
            tokio::spawn(health::follow(Arc::clone(&host), health::gate(&service), launched.id, address, tell));
        let passing = tokio::spawn(async move {
            while let Some(mut change) = changes.recv().await {
                // Nobody gets in before the password is the environment's own.
                if change.healthy {
                    enter::own(&host, &plan, &name, address, |why| {
                        change.text = why;
                        let waiting = health::Change { healthy: false, text: change.text.clone() };
                        let _ = send.send(Event::Health(name.clone(), instance, waiting));
                    })
                    .await;
                }
                let _ = send.send(Event::Health(name.clone(), instance, change));
            }
        });
        part.watched_by(asking.abort_handle());
        part.watched_by(passing.abort_handle());
    }
}
