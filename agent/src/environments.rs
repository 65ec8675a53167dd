//! Running copies of stacks on this host: made as ordered, kept so, and removed without a rest.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use domain::environment::{EnvironmentState, Observed};
use domain::ids::EnvironmentId;
use proto::v1;
use proto::v1::agent_message::Message;
use tokio::sync::watch;

use crate::engine::ContainerSpec;
use crate::host::Host;
use crate::session::hello::MAX_ENVIRONMENTS;
use crate::state::environments::{Folder, Stored};

mod actor;
mod context;
pub mod credentials;
pub mod data;
mod down;
mod enter;
mod event;
pub mod failure;
pub mod folder;
mod given;
mod ground;
mod guest;
mod health;
mod ignore;
mod launch;
pub mod lay;
mod leftover;
mod life;
mod part;
pub mod plan;
mod prepare;
mod report;
mod rest;
pub mod sizes;
mod sleep;
#[cfg(test)]
mod sleep_tests;
#[cfg(test)]
pub(crate) mod tests;
mod transactions;
mod untaken;
mod variables;
pub mod warm;

use failure::Failure;
pub use guest::Guest;
pub use sleep::{containers, thaw};
pub use variables::postgres as postgres_login;

/// What is wanted of an environment.
#[derive(Clone, PartialEq)]
pub struct Wanted {
    /// The order.
    pub order: v1::EnvironmentOrder,
    /// Where its sources lie.
    pub folder: Option<Folder>,
    /// Images to use instead of the stack's, by service.
    pub images: BTreeMap<String, String>,
    /// Stopped, with its data as it is; not remembered over a restart of the agent.
    pub halted: bool,
}

impl std::fmt::Debug for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wanted").field("id", &self.order.id).field("up", &self.order.up).finish_non_exhaustive()
    }
}

/// How an environment stands.
#[derive(Clone, PartialEq, Debug)]
pub struct View {
    /// As it is reported.
    pub observed: Observed,
    /// What the services' containers are made from, as far as that is known: for those who run something beside them.
    pub specs: BTreeMap<String, ContainerSpec>,
    /// What is known of its data; none: nothing yet.
    pub data: Option<lay::Laid>,
    /// All is stopped because that is wanted, see [`Wanted::rest`].
    pub halted: bool,
}

impl View {
    fn new(observed: Observed) -> Self {
        Self { observed, specs: BTreeMap::new(), data: None, halted: false }
    }
}

#[derive(Debug)]
struct Running {
    wanted: watch::Sender<Wanted>,
    poke: watch::Sender<u64>,
    door: Arc<guest::Door>,
    view: watch::Receiver<View>,
}

/// All environments of this host.
#[derive(Debug)]
pub struct Environments {
    host: Arc<Host>,
    running: Mutex<BTreeMap<String, Running>>,
    wake: watch::Sender<u64>,
    untaken: untaken::Untaken,
}

/// What the result of a removal is called.
fn result_id(id: &str) -> String {
    format!("gone:{id}")
}

fn tell(host: &Host, id: &str, view: &View) {
    let data = view.data.as_ref().map(|laid| (laid, host.sizes.of(id)));
    let message = report::message(id, &view.observed, data, String::new());
    host.outbox.tell(&format!("environment {id}"), Message::Environment(message));
}

/// Remembers that nothing is left, and tells it until it is acknowledged.
async fn tell_gone(host: &Host, wanted: &Wanted, gone: &Observed) -> crate::state::Result<()> {
    let id = &wanted.order.id;
    if !wanted.order.run.is_empty() {
        // Nobody but this host's runs knows of it.
        return host.state.forget_environment(id).await;
    }
    let stored = Stored { order: wanted.order.clone(), folder: None, images: BTreeMap::new(), gone: true };
    host.state.put_environment(&stored).await?;
    let message = Message::Environment(report::message(id, gone, None, result_id(id)));
    host.outbox.result(&host.state, &result_id(id), message).await
}

impl Environments {
    /// None yet.
    #[must_use]
    pub fn new(host: Arc<Host>) -> Self {
        Self { host, running: Mutex::default(), wake: watch::Sender::new(0), untaken: untaken::Untaken::default() }
    }

    fn running(&self) -> MutexGuard<'_, BTreeMap<String, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes up what was wanted before the agent's start; what runs goes on.
    ///
    /// # Errors
    /// The state cannot be read.
    pub async fn load(&self) -> crate::state::Result<()> {
        let all = self.host.state.environments().await?;
        // What runs was walled in by the agent's last start, and must not be without a wall for an instant.
        let stored = all.iter().filter(|stored| !stored.gone).map(|stored| stored.order.id.clone());
        let found = data::all(&self.host.pool).into_iter().map(|(id, _)| id);
        let known = stored.chain(found).filter_map(|id| id.parse::<EnvironmentId>().ok());
        self.host.firewall.add(known.map(|id| id.short())).await;
        for stored in all {
            if !stored.gone {
                // The pool may have another device number after a reboot.
                let uploaded = stored.order.upload.then(|| crate::upload::folder(&self.host.pool, &stored.order.id));
                let folder = uploaded.and_then(Result::ok).or(stored.folder);
                self.set(Wanted { order: stored.order, folder, images: stored.images, halted: false }, true);
            }
        }
        if self.host.state.lost() {
            self.rebuild().await;
        }
        Ok(())
    }

    /// The state was lost: what manifests name is held as it is until the coordinator says what is wanted.
    async fn rebuild(&self) {
        for (id, manifest) in data::all(&self.host.pool) {
            match manifest {
                Some(_) => tracing::warn!(environment = %id, "found without an order; it stays as it is"),
                None => tracing::warn!(environment = %id, "data without a readable manifest; it is kept"),
            }
        }
    }

    fn set(&self, wanted: Wanted, first: bool) {
        let mut running = self.running();
        let id = wanted.order.id.clone();
        if let Some(held) = running.get(&id)
            && held.view.has_changed().is_ok()
        {
            held.wanted.send_if_modified(|old| {
                let changed = *old != wanted;
                *old = wanted;
                changed
            });
            return;
        }
        let observed = report::bare(wanted.order.generation, EnvironmentState::Starting, None);
        let (view, seen) = watch::channel(View::new(observed));
        let (sender, receiver) = watch::channel(wanted);
        let (poke, poked) = watch::channel(0);
        let door = Arc::new(guest::Door::default());
        let actor = actor::Actor::new(Arc::clone(&self.host), receiver, (self.wake.subscribe(), poked), view, first);
        let actor = actor::Actor { door: Arc::clone(&door), ..actor };
        tokio::spawn(actor.run());
        running.insert(id, Running { wanted: sender, poke, door, view: seen });
    }

    /// Takes an order of the coordinator. A lower generation is refused, an equal one is answered with the report.
    pub async fn order(&self, order: v1::EnvironmentOrder) {
        let (id, generation) = (order.id.clone(), order.generation);
        let taken = self.take(order.clone()).await;
        let Err(why) = taken else { return self.untaken.forget(&id, generation) };
        // What cannot be remembered is not begun; it is when there is room.
        let again = why.passes && self.untaken.keep(order.clone());
        let state = if again && !order.up { EnvironmentState::Stopping } else { EnvironmentState::Failed };
        tracing::warn!(environment = %id, %why, again, "an order was not taken");
        let observed = report::bare(generation, state, Some((why.code, why.text)));
        tell(&self.host, &id, &View::new(observed));
    }

    /// Takes orders again that could not be taken, for as long as it is polled.
    pub async fn keep_taking(&self) {
        loop {
            tokio::time::sleep(untaken::AGAIN).await;
            for order in self.untaken.all() {
                self.order(order).await;
            }
        }
    }

    async fn take(&self, order: v1::EnvironmentOrder) -> Result<(), Failure> {
        if order.id.parse::<EnvironmentId>().is_err() {
            return Err(Failure::lasting("E_ID", format!("{:?} is not an environment id", order.id)));
        }
        let held = self.wanted(&order.id);
        let first = held.as_ref().is_none_or(|held| warm::is_slot(&held.order.run));
        let asked = first.then(|| order.clone());
        if let Some(held) = &held {
            // Whatever the agent has made of its own slot so far, from now on it is the coordinator's.
            let handed_out = warm::is_slot(&held.order.run) && order.run.is_empty();
            if order.generation < held.order.generation && !handed_out {
                return Ok(());
            }
            if order.generation == held.order.generation && !handed_out {
                self.tell(&order.id);
                return Ok(());
            }
        } else if self.running().len() >= MAX_ENVIRONMENTS {
            let text = format!("this host holds {MAX_ENVIRONMENTS} environments already");
            return Err(Failure::lasting("E_TOO_MANY", text));
        } else if order.up {
            self.admit()?;
        }
        // After a loss of the state the manifest still knows what was granted for this very environment.
        let known =
            || data::Manifest::read(&self.host.pool, &order.id).ok().flatten().and_then(|manifest| manifest.folder);
        let mut folder = held.and_then(|held| held.folder).or_else(known);
        if order.up && order.upload {
            let failed = |why: std::io::Error| Failure::passing("E_POOL", format!("the uploaded folder: {why}"));
            folder = Some(crate::upload::folder(&self.host.pool, &order.id).map_err(failed)?);
        }
        if order.up && !order.grant.is_empty() {
            let now = crate::clock::now();
            let spent = self.host.state.spend_grant(&order.grant, &order.id, now).await?;
            folder = Some(spent.or(folder).ok_or_else(|| {
                let text = "the grant of the folder is unknown, expired or spent; run `muster env up` again";
                Failure::lasting("E_GRANT", text)
            })?);
        }
        self.hold(Wanted { order, folder, images: BTreeMap::new(), halted: false }).await?;
        if let Some(order) = asked {
            warm::asked(&self.host, &order).await;
        }
        Ok(())
    }

    /// Whether the policy allows one more: the coordinator cannot change it. Slots make room.
    fn admit(&self) -> Result<(), Failure> {
        let Some(limit) = self.host.policy.max_environments() else { return Ok(()) };
        let running = self.running();
        let held = running.values().filter(|one| {
            let order = &one.wanted.borrow().order;
            order.up && !warm::is_slot(&order.run)
        });
        let held = held.count();
        if held < usize::try_from(limit).unwrap_or(usize::MAX) {
            return Ok(());
        }
        let text = format!(
            "this host has {held} of the {limit} environments that its policy allows; `muster env down` one of them"
        );
        Err(Failure::lasting("E_QUOTA_HOST", text))
    }

    /// Wants an environment (of a run: with a checkout, and images of its own). It is durable when this returns.
    ///
    /// # Errors
    /// The state cannot be written.
    pub async fn hold(&self, wanted: Wanted) -> Result<(), Failure> {
        let stored = Stored {
            order: wanted.order.clone(),
            folder: wanted.folder.clone(),
            images: wanted.images.clone(),
            gone: false,
        };
        self.host.state.put_environment(&stored).await?;
        self.set(wanted, false);
        Ok(())
    }

    /// Wants nothing of an environment to be left; its generation rises by one.
    ///
    /// # Errors
    /// The state cannot be written.
    pub async fn drop(&self, id: &str) -> Result<(), Failure> {
        let Some(mut wanted) = self.wanted(id) else { return Ok(()) };
        if wanted.order.up {
            wanted.order.up = false;
            wanted.order.generation += 1;
            self.hold(wanted).await?;
        }
        Ok(())
    }

    /// What is wanted of an environment.
    #[must_use]
    pub fn wanted(&self, id: &str) -> Option<Wanted> {
        self.running().get(id).map(|running| running.wanted.borrow().clone())
    }

    /// How an environment stands, now and at each change. It ends when nothing is left.
    #[must_use]
    pub fn watch(&self, id: &str) -> Option<watch::Receiver<View>> {
        self.running().get(id).map(|running| running.view.clone())
    }

    /// For the Hello: ids and generations. Environments of runs are the host's own business.
    #[must_use]
    pub fn applied(&self) -> Vec<v1::Applied> {
        let running = self.running();
        let known = running.iter().map(|(id, running)| (id, running.wanted.borrow()));
        known
            .filter(|(_, wanted)| wanted.order.run.is_empty())
            .map(|(id, wanted)| v1::Applied {
                id: id.clone(),
                generation: wanted.order.generation,
                release: String::new(),
            })
            .collect()
    }

    fn tell(&self, id: &str) {
        // Of a slot nobody wants to know before it is somebody's.
        let known = |running: &&Running| !warm::is_slot(&running.wanted.borrow().order.run);
        let told = self.running().get(id).filter(known).map(|running| running.view.borrow().clone());
        if let Some(view) = told.filter(|view| view.observed.state != EnvironmentState::Gone) {
            tell(&self.host, id, &view);
        }
    }

    /// Tells how all environments stand.
    pub fn tell_all(&self) {
        for applied in self.applied() {
            self.tell(&applied.id);
        }
    }

    /// The coordinator said what this host should have: what it has beyond is removed.
    pub async fn welcomed(&self, environments: &[String], runs: &[String]) {
        let keep: BTreeSet<&String> = environments.iter().collect();
        let runs: BTreeSet<&String> = runs.iter().collect();
        let held: Vec<(String, String)> = {
            let running = self.running();
            running.iter().map(|(id, one)| (id.clone(), one.wanted.borrow().order.run.clone())).collect()
        };
        let known: BTreeSet<String> = held.iter().map(|(id, _)| id.clone()).collect();
        // Those that seeds are made in are the seeds' own business.
        let stays = |id: &String, run: &String| match run.as_str() {
            "" => keep.contains(id),
            // The agent knows itself how many slots it wants; of those that it has forgotten only what was handed out stays.
            run if warm::is_slot(run) => keep.contains(id) || known.contains(id),
            _ => runs.contains(run) || crate::seeds::is_one(run) || crate::changes::is_one(run),
        };
        for (id, run) in &held {
            if !stays(id, run)
                && let Err(why) = self.drop(id).await
            {
                tracing::warn!(environment = %id, %why, "a surplus environment cannot be removed");
            }
        }
        // Nobody compares with what is not even held.
        self.forgotten(|id, run| stays(id, run) && !crate::changes::is_one(run)).await;
        self.tell_all();
        self.offer_again();
    }

    /// Data whose order this agent does not know (any more): what nobody wants is removed, if its manifest can be read.
    async fn forgotten(&self, stays: impl Fn(&String, &String) -> bool) {
        for (id, manifest) in data::all(&self.host.pool) {
            let Some(manifest) = manifest else { continue };
            if stays(&id, &manifest.run) || self.running().contains_key(&id) {
                continue;
            }
            let order =
                v1::EnvironmentOrder { id: id.clone(), name: manifest.name, run: manifest.run, ..Default::default() };
            tracing::warn!(environment = %id, "nobody knows of this environment any more; it is removed");
            if let Err(why) = self.hold(Wanted { order, folder: None, images: BTreeMap::new(), halted: false }).await {
                tracing::warn!(environment = %id, %why, "it cannot be removed yet");
            }
        }
    }

    /// A result was stored by the coordinator; whether it was one of environments.
    ///
    /// # Errors
    /// The state cannot be written.
    pub async fn acknowledged(&self, result: &str) -> crate::state::Result<bool> {
        let Some(id) = result.strip_prefix("gone:") else { return Ok(false) };
        self.host.state.forget_environment(id).await?;
        let mut running = self.running();
        // It may have been wanted again since.
        if running.get(id).is_some_and(|one| one.view.has_changed().is_err()) {
            running.remove(id);
        }
        Ok(true)
    }

    /// Somebody wants something of an environment: if it sleeps, it wakes.
    pub fn poke(&self, id: &str) {
        if let Some(running) = self.running().get(id) {
            running.poke.send_modify(|count| *count += 1);
        }
    }

    /// Keeps an environment awake for as long as the answer lives; none: it is not here.
    #[must_use]
    pub fn guest(&self, id: &str) -> Option<Guest> {
        self.running().get(id).map(|running| Guest::new(&running.door, running.view.clone(), false))
    }

    /// The same for somebody whose stay is no use of it.
    #[must_use]
    pub fn quiet_guest(&self, id: &str) -> Option<Guest> {
        self.running().get(id).map(|running| Guest::new(&running.door, running.view.clone(), true))
    }

    /// The stable published port of a service's container port.
    #[must_use]
    pub fn published(&self, id: &str, service: &str, port: u16) -> Option<u16> {
        let manifest = data::Manifest::read(&self.host.pool, id).ok().flatten()?;
        manifest.ports.get(&format!("{service}:{port}")).copied()
    }

    /// Wakes what is asked for, for as long as it is polled.
    pub async fn watch_wakes(&self) {
        let mut seen = 0;
        loop {
            match self.host.routes.wakes(seen).await {
                Ok((number, keys)) => {
                    seen = number;
                    let ids: BTreeSet<&str> = keys.iter().filter_map(|key| plan::environment_of(key)).collect();
                    ids.into_iter().for_each(|id| self.poke(id));
                }
                Err(why) => {
                    tracing::debug!(%why, "the relay is asked again for wakes");
                    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
                }
            }
        }
    }

    /// Environments that are ready, with the ports that their services declare.
    #[must_use]
    pub fn ready(&self) -> BTreeMap<String, BTreeMap<String, Vec<u16>>> {
        let running = self.running();
        let views = running.iter().map(|(id, one)| (id, one.view.borrow()));
        let ready = views.filter(|(_, view)| view.observed.state == EnvironmentState::Ready);
        ready
            .map(|(id, view)| {
                (id.clone(), view.specs.iter().map(|(name, spec)| (name.clone(), spec.ports.clone())).collect())
            })
            .collect()
    }

    /// Has everything looked at again.
    pub fn wake(&self) {
        self.wake.send_modify(|count| *count += 1);
    }

    /// The stack of an environment, with its own credentials.
    ///
    /// # Errors
    /// It is not wanted here, or its files cannot be read.
    pub fn stack(&self, id: &str) -> Result<domain::stack::Stack, Failure> {
        let missing = || Failure::lasting("E_ENV_NOT_FOUND", "the environment is not on this host");
        let wanted = self.wanted(id).ok_or_else(missing)?;
        plan::read(&self.host, &wanted).map(|plan| plan.stack)
    }

    /// Ids of the environments whose `run` is one of these.
    #[must_use]
    pub fn of_runs(&self, one: impl Fn(&str) -> bool) -> Vec<String> {
        let running = self.running();
        let of = running.iter().filter(|(_, running)| one(&running.wanted.borrow().order.run));
        of.map(|(id, _)| id.clone()).collect()
    }

    /// Ids of all environments that are wanted or being removed.
    #[must_use]
    pub fn ids(&self) -> BTreeSet<String> {
        self.running().keys().cloned().collect()
    }
}
