//! An environment's task while it sleeps, on the way there, and on the way back.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use domain::environment::EnvironmentState;
use domain::environment::life::{self, Tier, Turn, Usage};
use domain::time::Timestamp;

use super::actor::{Actor, Next, Pass};
use super::event::Event;
use super::failure::Failure;
use super::life::{Life, Stage};
use super::plan::{self, Plan};
use super::{Wanted, launch, lay, report, sleep, transactions};

/// After a failure to put it to sleep.
const RESTLESS: Duration = Duration::from_secs(60);
/// A later use is told if it is later by so much.
const USED_AGAIN: Duration = Duration::from_secs(60);

impl Actor {
    fn id(&self) -> String {
        self.wanted.borrow().order.id.clone()
    }

    /// Remembers how it sleeps; a disk that refuses is told, and the next stage is written again.
    pub(super) async fn enter(&mut self, stage: Stage) {
        self.life.stage = stage;
        if let Err(why) = self.life.write(&self.host.state, &self.id()).await {
            tracing::error!(environment = %self.id(), %why, "how it sleeps cannot be remembered");
        }
    }

    /// Reads what an agent before this one remembered.
    pub(super) async fn recall(&mut self) {
        match Life::read(&self.host.state, &self.id()).await {
            Ok(life) => self.life = life,
            Err(why) => tracing::error!(environment = %self.id(), %why, "how it slept cannot be read"),
        }
        if self.host.rebooted && matches!(self.life.stage, Stage::Freezing | Stage::Frozen) {
            // What was frozen has ended with the boot.
            self.life.stage = Stage::Asleep;
        }
        if self.life.stage == Stage::Waking {
            // What was stopped for its sleep is started, whoever ended the agent meanwhile.
            self.first = false;
        }
        self.activity.last_used = self.life.last_used();
    }

    /// Forgets it, with the environment.
    pub(super) async fn forget(&self) {
        if let Err(why) = Life::forget(&self.host.state, &self.id()).await {
            tracing::warn!(environment = %self.id(), %why, "how it slept is remembered for nothing");
        }
    }

    /// An order is a use, and wakes.
    pub(super) async fn ordered(&mut self, wanted: &Wanted) {
        if self.life.generation == wanted.order.generation || !wanted.order.up {
            return;
        }
        self.life.generation = wanted.order.generation;
        self.used_now();
        self.awaken().await;
    }

    fn used_now(&mut self) {
        let now = crate::clock::now();
        self.life.last_used = now.0;
        self.activity.last_used = now;
    }

    /// Sleeps until it is wanted, or for ever.
    pub(super) async fn rest(&mut self, wanted: Wanted) -> Next {
        let plan = match plan::read(&self.host, &wanted) {
            Ok(plan) => Arc::new(plan),
            Err(why) => {
                tracing::warn!(environment = %wanted.order.id, %why, "it cannot sleep any more");
                self.awaken().await;
                return Next::Again;
            }
        };
        let laid = lay::told(&self.host, &plan);
        self.view.send_modify(|view| view.data = Some(laid));
        loop {
            match self.deepen(&plan).await {
                Ok(true) => {}
                Ok(false) => {
                    self.awaken().await;
                    return Next::Again;
                }
                Err(why) => {
                    tracing::warn!(environment = %plan.id, %why, "it cannot be put to sleep");
                    self.restless = Some((why.to_string(), Instant::now() + RESTLESS));
                    self.awaken().await;
                    return Next::Again;
                }
            }
            let stop = self.until_stop(&plan);
            tokio::select! {
                changed = self.wanted.changed() => return if changed.is_err() { Next::Closed } else { Next::Again },
                Ok(()) = self.poke.changed() => {
                    // Of who only looks at its data the relay knows nothing either.
                    if self.door.quiet.load(SeqCst) == 0 {
                        self.used_now();
                    }
                    self.awaken().await;
                    return Next::Again;
                }
                Ok(()) = self.wake.changed() => {
                    if let Err(why) = sleep::hold(&self.host, &plan, self.life.stage == Stage::Frozen).await {
                        tracing::debug!(environment = %plan.id, %why, "its ports are held later");
                    }
                }
                () = stop => self.enter(Stage::Stopping).await,
            }
        }
    }

    /// Waits until what is frozen is to be stopped.
    fn until_stop(&self, plan: &Plan) -> impl Future<Output = ()> + use<> {
        let idle = plan.stack.settings.idle;
        let after = (self.life.stage == Stage::Frozen && !plan.is_slot()).then_some(idle.stop).flatten();
        let unused = crate::clock::now().since(self.activity.last_used);
        let left = after.map(|after| after.saturating_sub(unused));
        async move {
            match left {
                Some(left) => tokio::time::sleep(left).await,
                None => std::future::pending().await,
            }
        }
    }

    /// Says that it goes, before it looks whether anybody is inside: who comes in counts first and looks then, so one
    /// of the two sees the other. False: somebody is.
    fn leaves(&self) -> bool {
        self.door.leaving.store(true, SeqCst);
        self.door.guests.load(SeqCst) == 0
    }

    /// Goes on to the stage that was begun. `Ok(false)`: it was used meanwhile.
    async fn deepen(&mut self, plan: &Plan) -> Result<bool, Failure> {
        let freezes = self.life.stage == Stage::Freezing || (self.life.stage == Stage::Frozen && self.first);
        self.first = false;
        let idle = plan.stack.settings.idle;
        if freezes || self.life.stage == Stage::Stopping {
            if !self.leaves() {
                return Ok(false);
            }
            sleep::hold(&self.host, plan, true).await?;
            // From here on every use asks for a wake; what came before the hold is seen here.
            let mut usage = sleep::usage(&self.host, &plan.id, self.life.last_used()).await?;
            usage.guests = self.door.guests.load(SeqCst);
            let due = if freezes {
                life::turn(idle, Tier::Awake, &usage) != Turn::Stay
            } else {
                life::turn(idle, Tier::Frozen, &usage) == Turn::Stop
            };
            if !due && !plan.is_slot() {
                return Ok(false);
            }
            self.activity.last_used = usage.last();
        }
        if freezes {
            self.host.failpoints.hit("environment.freezing");
            sleep::freeze(&self.host, &plan.id).await?;
            self.enter(Stage::Frozen).await;
        }
        if self.life.stage == Stage::Stopping {
            self.host.failpoints.hit("environment.stopping");
            sleep::stop(&self.host, plan).await?;
            self.enter(Stage::Asleep).await;
        }
        if self.life.stage == Stage::Asleep {
            sleep::hold(&self.host, plan, false).await?;
        }
        let (tier, state) = match self.life.stage {
            Stage::Asleep => (Tier::Asleep, EnvironmentState::Asleep),
            _ => (Tier::Frozen, EnvironmentState::Frozen),
        };
        self.activity.why = life::why(idle, tier, &Usage::default());
        self.activity.memory_bytes = sleep::memory(&self.host, &plan.id).await;
        self.publish(report::resting(&self.host, plan, state));
        Ok(true)
    }

    /// Thaws what is frozen and lets its ports go; what is stopped is started by the next pass.
    async fn awaken(&mut self) {
        // Whoever waits looks again when the next pass tells how it stands.
        self.door.leaving.store(false, SeqCst);
        let id = self.id();
        match self.life.stage {
            Stage::Freezing | Stage::Frozen => {
                let began = Instant::now();
                let thawed = async {
                    sleep::thaw(&self.host, &sleep::containers(&self.host, &id).await?).await?;
                    sleep::let_go(&self.host, &id).await
                };
                if let Err(why) = thawed.await {
                    // The next pass thaws and leads again.
                    self.first = true;
                    tracing::warn!(environment = %id, %why, "it does not wake at once");
                }
                tracing::info!(environment = %id, took = ?began.elapsed(), "thawed");
                self.enter(Stage::Awake).await;
            }
            Stage::Stopping | Stage::Asleep => {
                self.first = false;
                // What was frozen before it was to be stopped may be so still: the next pass thaws.
                self.unseen = true;
                self.enter(Stage::Waking).await;
            }
            Stage::Awake | Stage::Waking => self.enter(self.life.stage).await,
        }
        "waking".clone_into(&mut self.activity.why);
    }
}

impl Pass<'_> {
    /// Looks at how the environment is used; the answer comes as an event.
    pub(super) fn look(&mut self) {
        let (host, plan, send) = (Arc::clone(&self.host), Arc::clone(&self.plan), self.send.clone());
        // The end of a command is a use too.
        let guests = self.actor.door.guests.load(SeqCst);
        if guests > self.actor.door.quiet.load(SeqCst) {
            self.actor.used_now();
        }
        let last_used = self.actor.life.last_used();
        let stores: Vec<(String, IpAddr)> = self
            .parts
            .iter()
            .filter(|(name, _)| {
                plan.stack.services.get(*name).is_some_and(|one| one.store.is_some_and(transactions::is_asked))
            })
            .filter_map(|(name, part)| Some((name.clone(), part.address?)))
            .collect();
        self.others.spawn(async move {
            if let Ok(mut usage) = sleep::usage(&host, &plan.id, last_used).await {
                usage.guests = guests;
                if life::worth_asking(plan.stack.settings.idle, &usage) {
                    for (name, address) in stores {
                        if let Some(service) = plan.stack.services.get(&name) {
                            usage.transactions.extend(transactions::open(&name, service, address).await);
                        }
                    }
                }
                let memory = sleep::memory(&host, &plan.id).await;
                let _ = send.send(Event::Used(usage, memory));
            }
        });
    }

    /// What follows from how it is used. True: it goes to sleep, and the stage says how deep.
    pub(super) async fn used(&mut self, usage: &Usage, memory: u64, state: EnvironmentState) -> bool {
        let idle = self.plan.stack.settings.idle;
        let restless = self.actor.restless.clone().filter(|(_, until)| Instant::now() < *until);
        let activity = &mut self.actor.activity;
        if usage.last().since(activity.last_used) >= USED_AGAIN || activity.last_used == Timestamp::default() {
            activity.last_used = usage.last();
        }
        if memory.abs_diff(activity.memory_bytes) > activity.memory_bytes / 10 {
            activity.memory_bytes = memory;
        }
        activity.why = match &restless {
            Some((why, _)) => format!("cannot be put to sleep: {why}"),
            None => life::why(idle, Tier::Awake, usage),
        };
        let settled = matches!(state, EnvironmentState::Ready | EnvironmentState::Failed) && self.launches.is_empty();
        if !settled || restless.is_some() {
            return false;
        }
        let stage = match life::turn(idle, Tier::Awake, usage) {
            Turn::Stay => return false,
            Turn::Freeze => Stage::Freezing,
            Turn::Stop => Stage::Stopping,
        };
        self.actor.activity.last_used = usage.last();
        self.actor.enter(stage).await;
        true
    }

    /// A port of it is held, and somebody asked.
    pub(super) fn poked(&mut self, state: EnvironmentState) {
        if state == EnvironmentState::Failed {
            self.others.spawn(sleep::refuse(Arc::clone(&self.host), self.plan.id.clone()));
        } else if !self.hold {
            // Held although it is awake: an answer of the relay was lost.
            self.lead_again();
        }
    }

    /// A service was started as asked: it is not done again.
    pub(super) async fn done_again(&mut self, name: &str) {
        let order = &self.plan.wanted.order;
        let asked = order.restarts.get(name).max(order.rebuilds.get(name)).copied();
        let life = &mut self.actor.life;
        if let Some(asked) = asked.filter(|asked| life.done.get(name).is_none_or(|done| done < asked)) {
            life.done.insert(name.to_owned(), asked);
            self.actor.enter(self.actor.life.stage).await;
        }
    }

    /// Its service is ready: what waited goes on.
    pub(super) fn let_go(&mut self, name: String, address: IpAddr) {
        let (host, plan) = (Arc::clone(&self.host), Arc::clone(&self.plan));
        self.others.spawn(async move {
            if let Err(why) = launch::lead_all(&host, &plan, &name, address).await {
                tracing::warn!(environment = %plan.id, %why, "a published port cannot be led yet");
            }
        });
    }

    /// All are ready, which is remembered and ends a wake; or one will not be, and who waits for it is sent away.
    pub(super) async fn settle(&mut self, state: EnvironmentState) {
        let generation = self.plan.wanted.order.generation;
        let first = state == EnvironmentState::Ready && self.actor.life.ready_under != generation;
        if first {
            self.actor.life.ready_under = generation;
        }
        if self.actor.life.stage != Stage::Waking {
            if first {
                self.actor.enter(self.actor.life.stage).await;
            }
            return;
        }
        match state {
            EnvironmentState::Ready => {
                self.hold = false;
                self.actor.enter(Stage::Awake).await;
                self.lead_again();
            }
            EnvironmentState::Failed => self.poked(state),
            _ => {}
        }
    }
}
