//! Open sessions of agents: who is heard from, who is to be woken, and which step orders stand.
//!
//! Nothing here is kept: after a restart agents connect anew, and every order is derived from rows again.

pub mod log_orders;
pub mod orders;
pub mod session;
pub mod tunnels;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use domain::host::SessionSeen;
use domain::ids::{EnvironmentId, HostId, RolloutId};
use domain::name::TargetRef;
use domain::time::Timestamp;
use proto::convert::step::Ordered;
use proto::v1::coordinator_message::Message;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::app::{Seen, Wake, WarmStack};
use crate::clock::Clock;

/// All open sessions.
pub struct Sessions {
    started_at: Timestamp,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    rollouts: Notify,
    runs: Notify,
    changes: watch::Sender<u64>,
    stale: OnceLock<String>,
}

#[derive(Default)]
struct State {
    open: HashMap<HostId, Open>,
    next: u64,
    /// By rollout, and within it by executor and target.
    orders: BTreeMap<RolloutId, BTreeMap<(HostId, TargetRef), Arc<Ordered>>>,
}

struct Open {
    number: u64,
    heard_at: Timestamp,
    synced: bool,
    wake: Arc<Notify>,
    steps: Arc<Notify>,
    end: CancellationToken,
    asks: tokio::sync::mpsc::Sender<Message>,
    slots: Vec<(EnvironmentId, String)>,
    warm: Vec<WarmStack>,
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sessions({} open)", self.lock().open.len())
    }
}

/// What a session task holds of its entry here; dropping it closes the entry.
#[derive(Debug)]
pub struct Entry {
    sessions: Arc<Sessions>,
    /// The host.
    pub host: HostId,
    number: u64,
    /// Something that this host should have was changed.
    pub wake: Arc<Notify>,
    /// Step orders that stand for this host were changed.
    pub steps: Arc<Notify>,
    /// A newer session took over, or this one is closed.
    pub end: CancellationToken,
}

impl Sessions {
    /// None open yet; listening begins now.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            started_at: clock.now(),
            clock,
            state: Mutex::default(),
            rollouts: Notify::new(),
            runs: Notify::new(),
            changes: watch::Sender::new(0),
            stale: OnceLock::new(),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a session; an older one of the host ends.
    pub fn open(self: &Arc<Self>, host: HostId, asks: tokio::sync::mpsc::Sender<Message>) -> Entry {
        let (wake, steps, end) = (Arc::new(Notify::new()), Arc::new(Notify::new()), CancellationToken::new());
        let mut state = self.lock();
        state.next += 1;
        let number = state.next;
        let open = Open {
            number,
            heard_at: self.clock.now(),
            synced: false,
            wake: Arc::clone(&wake),
            steps: Arc::clone(&steps),
            end: end.clone(),
            asks,
            slots: Vec::new(),
            warm: Vec::new(),
        };
        if let Some(older) = state.open.insert(host, open) {
            older.end.cancel();
        }
        drop(state);
        Entry { sessions: Arc::clone(self), host, number, wake, steps, end }
    }

    /// How many are open.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lock().open.len()
    }

    /// Replaces the orders that stand for a rollout, and wakes the sessions of their hosts.
    pub fn set_orders(&self, rollout: RolloutId, orders: Vec<Ordered>) {
        let new: BTreeMap<_, _> = orders
            .into_iter()
            .map(|ordered| ((ordered.order.executor, ordered.order.target.clone()), Arc::new(ordered)))
            .collect();
        let mut state = self.lock();
        let woken: Vec<Arc<Notify>> =
            new.keys().filter_map(|(host, _)| state.open.get(host).map(|open| Arc::clone(&open.steps))).collect();
        if new.is_empty() {
            state.orders.remove(&rollout);
        } else {
            state.orders.insert(rollout, new);
        }
        drop(state);
        woken.iter().for_each(|steps| steps.notify_one());
    }

    /// The step orders that stand for a host.
    #[must_use]
    pub fn orders_of(&self, host: HostId) -> Vec<Arc<Ordered>> {
        let state = self.lock();
        let of_host = |orders: &BTreeMap<(HostId, TargetRef), Arc<Ordered>>| {
            orders.iter().filter(|((of, _), _)| *of == host).map(|(_, ordered)| Arc::clone(ordered)).collect::<Vec<_>>()
        };
        state.orders.values().flat_map(of_host).collect()
    }

    /// Asks a host for a log or a tunnel. Answers with the end of the session that was asked; none: there is none, or
    /// it takes no more.
    #[must_use]
    pub fn ask(&self, host: HostId, order: Message) -> Option<CancellationToken> {
        let state = self.lock();
        let open = state.open.get(&host).filter(|open| open.synced)?;
        open.asks.try_send(order).ok().map(|()| open.end.clone())
    }

    /// Why this coordinator may order nothing, until it is restored and started again.
    #[must_use]
    pub fn stale(&self) -> Option<String> {
        self.stale.get().cloned()
    }

    /// An agent has heard from this cluster what this store does not know: from now on nothing is ordered.
    pub fn set_stale(&self, why: &str) {
        // The first reason stays.
        let _ = self.stale.set(why.to_owned());
        let open: Vec<Arc<Notify>> = self.lock().open.values().map(|open| Arc::clone(&open.wake)).collect();
        open.iter().for_each(|wake| wake.notify_one());
    }

    /// Changes when anything that is watched may have changed.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Something that is watched may have changed.
    pub fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    /// Rollouts may have to move.
    pub async fn rollouts_woken(&self) {
        self.rollouts.notified().await;
    }

    /// Runs may have to move.
    pub async fn runs_woken(&self) {
        self.runs.notified().await;
    }
}

impl Seen for Sessions {
    fn session(&self, host: HostId) -> Option<SessionSeen> {
        self.lock().open.get(&host).map(|open| SessionSeen { heard_at: open.heard_at, synced: open.synced })
    }

    fn started_at(&self) -> Timestamp {
        self.started_at
    }

    fn slots(&self, host: HostId, key: &str) -> Vec<EnvironmentId> {
        let state = self.lock();
        let slots = state.open.get(&host).into_iter().flat_map(|open| &open.slots);
        slots.filter(|(_, made_from)| made_from == key).map(|(id, _)| *id).collect()
    }

    fn warm(&self, host: HostId) -> Vec<WarmStack> {
        self.lock().open.get(&host).map(|open| open.warm.clone()).unwrap_or_default()
    }
}

impl Wake for Sessions {
    fn host(&self, host: HostId) {
        let wake = self.lock().open.get(&host).map(|open| Arc::clone(&open.wake));
        if let Some(wake) = wake {
            wake.notify_one();
        }
        self.changed();
    }

    fn rollouts(&self) {
        self.rollouts.notify_one();
        self.changed();
    }

    fn runs(&self) {
        self.runs.notify_one();
        self.changed();
    }
}

impl Entry {
    /// The host was heard from. Answers when.
    pub fn heard(&self) -> Timestamp {
        let now = self.sessions.clock.now();
        self.with(|open| open.heard_at = now);
        now
    }

    /// Slots of its warm pool that are ready, with what they are made from; and the pool as people are shown it.
    pub fn offers(&self, slots: Vec<(EnvironmentId, String)>, warm: Vec<WarmStack>) {
        self.with(|open| (open.slots, open.warm) = (slots, warm));
    }

    /// All results from before are stored.
    pub fn synced(&self) {
        self.with(|open| open.synced = true);
    }

    /// When it was heard from last.
    #[must_use]
    pub fn heard_at(&self) -> Option<Timestamp> {
        self.sessions.lock().open.get(&self.host).filter(|open| open.number == self.number).map(|open| open.heard_at)
    }

    fn with(&self, change: impl FnOnce(&mut Open)) {
        if let Some(open) = self.sessions.lock().open.get_mut(&self.host)
            && open.number == self.number
        {
            change(open);
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.end.cancel();
        let mut state = self.sessions.lock();
        if state.open.get(&self.host).is_some_and(|open| open.number == self.number) {
            state.open.remove(&self.host);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use uuid::Uuid;

    fn sessions() -> Arc<Sessions> {
        Arc::new(Sessions::new(Arc::new(SystemClock)))
    }

    fn sender() -> tokio::sync::mpsc::Sender<Message> {
        tokio::sync::mpsc::channel(1).0
    }

    #[test]
    fn the_newest_session_of_a_host_wins_and_the_end_of_an_older_one_changes_nothing() {
        let sessions = sessions();
        let host = HostId::new(Uuid::from_u128(1));
        let older = sessions.open(host, sender());
        let newer = sessions.open(host, sender());
        assert!(older.end.is_cancelled());
        assert!(!newer.end.is_cancelled());
        older.synced();
        assert_eq!(sessions.session(host).map(|seen| seen.synced), Some(false));
        drop(older);
        assert!(sessions.session(host).is_some());
        drop(newer);
        assert!(sessions.session(host).is_none());
    }

    #[test]
    fn who_was_asked_tells_the_end_of_its_session() {
        let sessions = sessions();
        let host = HostId::new(Uuid::from_u128(1));
        let (asks, _asked) = tokio::sync::mpsc::channel(1);
        let entry = sessions.open(host, asks);
        let ask = || sessions.ask(host, Message::Ack(String::new()));
        assert!(ask().is_none(), "it is not known yet what it did before");
        entry.synced();
        let end = ask().unwrap();
        assert!(!end.is_cancelled());
        drop(entry);
        assert!(end.is_cancelled());
        assert!(ask().is_none());
    }
}
