//! The warm pool: *slots*, environments of the agent's own that were brought up and frozen before anybody asked.
//!
//! A slot is an environment like any other, with an id, credentials, networks and data of its own; its `run` says what
//! it is made from. The coordinator is told which slots are ready, and gives a new environment the id of one that is made
//! from the same. So handing out renames nothing: the order names the slot, its manifest is changed (fsync), it is thawed.
//! An order for a slot that is gone meanwhile is an order for an environment that is not there yet.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use domain::environment::EnvironmentState;
use domain::stack::{MountSource, Stack};
use domain::time::Timestamp;
use proto::v1;
use proto::v1::agent_message::Message;
use tokio::sync::Notify;

use super::data::Manifest;
use super::{Environments, Wanted, down, ground, plan};
use crate::host::Host;
use crate::pool::Kind;

mod room;
mod templates;

use room::Room;
use templates::Template;

/// What the `run` of a slot begins with.
const MARK: &str = "warm:";
/// How often it is looked whether slots are missing or too many.
const EVERY: Duration = Duration::from_secs(5);
/// The same while somebody waits for an environment: slots are made in the moments between.
const BUSY: Duration = Duration::from_millis(500);
/// From news to a look: an environment that is just handed out comes before the slot after it.
const SETTLE: Duration = Duration::from_millis(300);
/// Stacks that slots are kept for: those that were asked for last.
const HOT: usize = 4;
/// A stack that nobody asked for in so long is not hot.
const HOT_FOR: Duration = Duration::from_hours(24);
/// After a slot that could not be made.
const PAUSE: Duration = Duration::from_mins(10);

/// Whether an environment's `run` says that it is a slot.
#[must_use]
pub fn is_slot(run: &str) -> bool {
    run.starts_with(MARK)
}

/// What a slot is made from.
fn made_from(run: &str) -> Option<&str> {
    run.strip_prefix(MARK)
}

/// What an order's environment is made from.
fn identity(order: &v1::EnvironmentOrder) -> String {
    manifest::identity::identity(&manifest::identity::Ingredients {
        file: &order.file,
        text: &order.stack_file,
        variables: &order.variables,
        files: &order.env_files,
        data: &order.data_from,
    })
}

/// What is known of hot stacks, and of slots that could not be made.
#[derive(Debug, Default)]
pub struct Warm {
    failed: Mutex<BTreeMap<String, Instant>>,
    offered: Mutex<v1::Warm>,
    news: Notify,
}

impl Warm {
    fn failed(&self) -> MutexGuard<'_, BTreeMap<String, Instant>> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something of a slot changed.
    pub fn changed(&self) {
        self.news.notify_one();
    }

    /// Whether a slot of this kind could not be made a while ago.
    fn pauses(&self, key: &str) -> bool {
        let mut failed = self.failed();
        failed.retain(|_, at| at.elapsed() < PAUSE);
        failed.contains_key(key)
    }
}

/// A slot as it stands.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Slot {
    id: String,
    key: String,
    state: EnvironmentState,
}

/// Remembers that somebody wants an environment like this one.
pub(super) async fn asked(host: &Host, order: &v1::EnvironmentOrder) {
    let fresh = order.up && order.run.is_empty() && order.data_epoch == 0 && order.data_from.starts_with("seed:");
    if !fresh || slots_wanted(host) == 0 {
        return;
    }
    if let Err(why) = templates::put(host, identity(order), order, crate::clock::now()).await {
        tracing::warn!(%why, "that a stack is hot cannot be remembered");
    }
    host.warm.changed();
}

/// Slots of each hot stack. Unless the policy says so, none where data is copied: a slot would take all its bytes again.
fn slots_wanted(host: &Host) -> usize {
    let default = u32::from(host.pool.kind() != Kind::Copy);
    usize::try_from(host.policy.warm().unwrap_or(default)).unwrap_or(0)
}

/// Services that can run before anybody asked: those without anything of a developer's folder, also in what they depend on.
fn before_all(stack: &Stack) -> BTreeSet<String> {
    let foldered = |name: &str| {
        stack.services.get(name).is_none_or(|service| {
            service.build.is_some() || service.mounts.iter().any(|mount| matches!(mount.source, MountSource::Folder(_)))
        })
    };
    let mut left: BTreeSet<String> = stack.services.keys().filter(|name| !foldered(name)).cloned().collect();
    loop {
        let stays = |name: &String| {
            stack.services.get(name).is_some_and(|service| service.depends_on.keys().all(|on| left.contains(on)))
        };
        let next: BTreeSet<String> = left.iter().filter(|name| stays(name)).cloned().collect();
        if next.len() == left.len() {
            return left;
        }
        left = next;
    }
}

/// The order for a new slot; none: nothing of the stack can run before somebody asks for it.
fn slot(host: &Host, template: &Template) -> Option<v1::EnvironmentOrder> {
    let mut order = template.order.clone();
    order.id = uuid::Uuid::now_v7().to_string();
    order.generation = 0;
    order.run = format!("{MARK}{}", template.key);
    "warm".clone_into(&mut order.name);
    (order.owner, order.app, order.grant) = (String::new(), String::new(), String::new());
    (order.restarts, order.rebuilds) = (BTreeMap::new(), BTreeMap::new());
    order.upload = false;
    let wanted = Wanted { order: order.clone(), folder: None, images: BTreeMap::new(), halted: false };
    let stack = plan::read(host, &wanted).ok()?.stack;
    let early = before_all(&stack);
    if !early.iter().any(|name| stack.services.get(name).is_some_and(|service| service.store.is_some())) {
        return None;
    }
    if early.len() < stack.services.len() {
        order.only_services = early.into_iter().collect();
    }
    Some(order)
}

/// A hot stack as people are shown it, without slots yet.
fn shown(template: &Template, wanted: usize) -> v1::WarmStack {
    let order = &template.order;
    let named = order.stack_file.lines().find_map(|line| line.strip_prefix("name:"));
    let named = named.map(|name| name.trim().trim_matches(['"', '\'']).to_owned()).filter(|name| !name.is_empty());
    let file = if order.file.is_empty() { "compose.yaml" } else { &order.file };
    let stack = Some(order.app.clone()).filter(|app| !app.is_empty()).or(named).unwrap_or_else(|| file.to_owned());
    v1::WarmStack {
        stack,
        seed: order.seed.clone(),
        wanted: u32::try_from(wanted).unwrap_or(u32::MAX),
        ..Default::default()
    }
}

/// Whether an order makes an environment of what was a slot until now. Then its manifest says so when this returns, and
/// no sweep takes it for a slot again; one that is made from something else is removed first.
///
/// # Errors
/// The disk refuses, or what it was cannot be removed yet.
pub(super) async fn hand_out(
    host: &std::sync::Arc<Host>,
    order: &v1::EnvironmentOrder,
) -> Result<bool, super::failure::Failure> {
    if !order.up || !order.run.is_empty() {
        return Ok(false);
    }
    // What cannot be read is told by whoever reads it next.
    let Some(mut manifest) = Manifest::read(&host.pool, &order.id).ok().flatten() else { return Ok(false) };
    let Some(key) = made_from(&manifest.run).map(str::to_owned) else { return Ok(false) };
    if key != identity(order) {
        tracing::warn!(environment = %order.id, "the slot is made from something else; it is made anew");
        down::remove(host, order).await?;
        return Ok(true);
    }
    manifest.run.clear();
    manifest.slot = key;
    manifest.name.clone_from(&order.name);
    manifest.owner.clone_from(&order.owner);
    manifest.app.clone_from(&order.app);
    manifest.data = format!("from the warm pool, {}", manifest.data);
    host.failpoints.hit("warm.handing_out");
    ground::write(host, &manifest, &order.id).await?;
    host.parents.raise(&order.id).await;
    host.warm.changed();
    tracing::info!(environment = %order.id, "a slot was handed out");
    Ok(false)
}

impl Environments {
    /// Slots that are wanted, oldest first.
    fn slots(&self) -> Vec<Slot> {
        let running = self.running();
        let slots = running.iter().filter_map(|(id, one)| {
            let wanted = one.wanted.borrow();
            let key = made_from(&wanted.order.run).filter(|_| wanted.order.up)?.to_owned();
            Some(Slot { id: id.clone(), key, state: one.view.borrow().observed.state })
        });
        slots.collect()
    }

    /// Some environment that somebody waits for is on its way up.
    fn busy(&self) -> bool {
        let running = self.running();
        running.values().any(|one| {
            let state = one.view.borrow().observed.state;
            matches!(state, EnvironmentState::Pending | EnvironmentState::Starting | EnvironmentState::Stopping)
        })
    }

    /// Keeps slots of hot stacks for as long as it is polled.
    pub async fn keep_warm(&self) {
        loop {
            let pause = if self.busy() { BUSY } else { EVERY };
            if tokio::time::timeout(pause, self.host.warm.news.notified()).await.is_ok() {
                tokio::time::sleep(SETTLE).await;
            }
            if let Err(why) = self.warm_up(crate::clock::now(), room::look(&self.host)).await {
                tracing::warn!(%why, "the warm pool is looked after later");
            }
        }
    }

    /// One look: surplus slots go, ready ones are offered, at most one is made.
    async fn warm_up(&self, now: Timestamp, room: Room) -> Result<(), super::failure::Failure> {
        let host = &self.host;
        let (wanted, slots) = (slots_wanted(host), self.slots());
        if wanted == 0 && slots.is_empty() {
            return Ok(());
        }
        let since = Timestamp(now.0.saturating_sub(proto::convert::micros(HOT_FOR).cast_signed()));
        let hot: Vec<Template> = templates::hot(host, since).await?.into_iter().take(HOT).collect();
        // Who asked comes before who may ask.
        let others = self.ids().len().saturating_sub(slots.len());
        let most = host.policy.max_environments().and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::MAX);
        let mut places = most.saturating_sub(others);
        let mut kept: BTreeMap<&str, usize> = BTreeMap::new();
        let mut ready = Vec::new();
        let mut stacks: Vec<(&str, v1::WarmStack)> =
            hot.iter().map(|template| (template.key.as_str(), shown(template, wanted))).collect();
        for slot in &slots {
            let count = kept.entry(slot.key.as_str()).or_default();
            let is_hot = hot.iter().any(|template| template.key == slot.key);
            let broken = matches!(slot.state, EnvironmentState::Failed | EnvironmentState::Asleep);
            if broken {
                host.warm.failed().insert(slot.key.clone(), Instant::now());
            }
            if broken || !is_hot || *count >= wanted || room.short || places == 0 {
                self.drop(&slot.id).await?;
                continue;
            }
            *count += 1;
            places -= 1;
            let stack = stacks.iter_mut().find(|(key, _)| *key == slot.key).map(|(_, stack)| stack);
            if slot.state == EnvironmentState::Frozen {
                ready.push(v1::WarmSlot { id: slot.id.clone(), key: slot.key.clone() });
                stack.into_iter().for_each(|stack| stack.ready += 1);
            } else {
                stack.into_iter().for_each(|stack| stack.making += 1);
            }
        }
        self.offer(v1::Warm { slots: ready, stacks: stacks.into_iter().map(|(_, stack)| stack).collect() });
        let missing = |template: &&Template| {
            kept.get(template.key.as_str()).copied().unwrap_or(0) < wanted && !host.warm.pauses(&template.key)
        };
        if let Some(template) = hot.iter().find(missing).filter(|_| room.enough && places > 0 && !self.busy()) {
            match slot(host, template) {
                Some(order) => {
                    tracing::info!(environment = %order.id, seed = %order.seed, "a warm slot is made");
                    self.hold(Wanted { order, folder: None, images: BTreeMap::new(), halted: false }).await?;
                }
                None => templates::forget(host, &template.key).await?,
            }
        }
        Ok(())
    }

    fn offer(&self, ready: v1::Warm) {
        let mut offered = self.host.warm.offered.lock().unwrap_or_else(PoisonError::into_inner);
        if *offered != ready {
            for slot in ready.slots.iter().filter(|slot| !offered.slots.contains(slot)) {
                tracing::info!(environment = %slot.id, "a slot is offered");
            }
            *offered = ready;
            drop(offered);
            self.offer_again();
        }
    }

    /// Tells which slots are ready.
    pub(super) fn offer_again(&self) {
        let warm = self.host.warm.offered.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.host.outbox.tell("warm", Message::Warm(warm));
    }
}

#[cfg(test)]
mod tests;
