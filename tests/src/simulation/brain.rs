//! The shipping coordinator in the world: its `app/` and `tasks/` over the store in memory. Only the stream of each
//! session is made up here; what a session does with a message is what `sessions/session.rs` does.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use coordinator::app::reports::{self, Stale};
use coordinator::app::{Ctx, Seen, rollouts};
use coordinator::auth::Agent;
use coordinator::clock::{Clock, Ids};
use coordinator::error::{Error, Result};
use coordinator::sessions::{Entry, Sessions};
use coordinator::store::app::AppRow;
use coordinator::store::host::HostRow;
use coordinator::store::release::ReleaseRow;
use coordinator::store::{Faults, Memory, PROJECT, Store};
use domain::app::{App, Driver, TargetSpec};
use domain::authorize::{Grant, Principal, Role, Scope};
use domain::hello::Fenced;
use domain::host::UNREACHABLE_AFTER;
use domain::ids::{Fence, PrincipalId, RolloutId};
use domain::name::TargetRef;
use domain::rollout::plan::Plan;
use domain::rollout::progress::Progress;
use domain::step::report::Report;
use domain::time::Timestamp;
use futures::FutureExt;
use proto::convert::step::Reported;
use uuid::Uuid;

use super::Micros;
use super::faults::{Fault, Rates};
use super::rng::Rng;
use super::scenario::{Scenario, id};

/// The coordinator's wall clock: set by the world before each event.
#[derive(Debug, Default)]
pub struct WallClock(AtomicI64);

impl Clock for WallClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::Relaxed))
    }
}

/// Ids in order.
#[derive(Debug, Default)]
struct Counted(AtomicU64);

impl Ids for Counted {
    fn uuid(&self) -> Uuid {
        id(4, self.0.fetch_add(1, Ordering::Relaxed) + 1)
    }
}

/// What becomes of commits: drawn, and counted.
pub struct Fates(Mutex<FateState>);

struct FateState {
    rng: Rng,
    rates: Rates,
    calm: bool,
    counts: BTreeMap<Fault, u64>,
    crashed: bool,
}

impl fmt::Debug for Fates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fates")
    }
}

impl Fates {
    fn lock(&self) -> MutexGuard<'_, FateState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Faults for Fates {
    fn at_commit(&self) -> coordinator::store::Fault {
        let mut state = self.lock();
        if state.calm {
            return coordinator::store::Fault::None;
        }
        let draw = state.rng.between(0, 9999);
        let aborted = state.rates.aborted;
        let lost = aborted + state.rates.answer_lost;
        let dead = lost + state.rates.crash_after;
        let (fault, fate) = if draw < aborted {
            (Fault::CommitAborted, coordinator::store::Fault::Abort)
        } else if draw < lost {
            (Fault::CommitAnswerLost, coordinator::store::Fault::LoseAnswer)
        } else if draw < dead {
            (Fault::CrashAfterCommit, coordinator::store::Fault::CrashAfterCommit)
        } else {
            return coordinator::store::Fault::None;
        };
        *state.counts.entry(fault).or_default() += 1;
        fate
    }

    fn crashed(&self) {
        self.lock().crashed = true;
    }
}

/// A rollout as it was last seen in the store.
#[derive(Clone, Debug)]
pub struct Row {
    /// Frozen.
    pub plan: Arc<Plan>,
    /// The plan's members as indices of the world.
    pub hosts: Vec<usize>,
    /// Moves.
    pub progress: Progress,
    /// Its version in the store.
    pub version: u64,
}

/// A running coordinator.
#[derive(Debug)]
struct Process {
    ctx: Ctx,
    sessions: Arc<Sessions>,
    /// By host: the session's number, its entry, and when something came last by the true clock.
    entries: BTreeMap<usize, (u64, Entry, Micros)>,
}

/// The coordinator: what survives it, and the process while it runs.
pub struct Brain {
    memory: Memory,
    /// Reads beside every coordinator, whatever becomes of it.
    reader: Store,
    fates: Arc<Fates>,
    clock: Arc<WallClock>,
    ids: Arc<Counted>,
    process: Option<Process>,
    agents: Vec<Agent>,
    principal: Principal,
    target: TargetRef,
    /// Rollouts as last seen, oldest first.
    pub rows: Vec<Row>,
    /// Reports as last stored, by host.
    stored: Vec<Option<Report>>,
    epoch: u64,
}

impl fmt::Debug for Brain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Brain(epoch {})", self.epoch)
    }
}

/// The store in memory never waits, and nothing else of the coordinator does.
pub(super) fn now<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().unwrap_or_else(|| unreachable!("nothing waits in the simulation"))
}

impl Brain {
    /// A store with the scenario's hosts, app and releases; no process yet.
    #[must_use]
    pub fn new(scenario: &Scenario) -> Self {
        let state = FateState {
            rng: Rng::new(scenario.seed ^ 0x5707),
            rates: scenario.rates.clone(),
            calm: true,
            counts: BTreeMap::new(),
            crashed: false,
        };
        let fates = Arc::new(Fates(Mutex::new(state)));
        let fingerprint = scenario.releases[0].release.digest.clone();
        let agent = |host: &domain::host::Host| Agent {
            id: host.id,
            name: host.name.clone(),
            project: PROJECT.to_owned(),
            fingerprint: fingerprint.clone(),
        };
        let memory = Memory::new(Arc::clone(&fates) as Arc<dyn Faults>);
        let brain = Self {
            reader: now(memory.open()),
            memory,
            fates,
            clock: Arc::default(),
            ids: Arc::default(),
            process: None,
            agents: scenario.hosts.iter().map(agent).collect(),
            principal: Principal {
                id: PrincipalId::new(id(5, 1)),
                name: scenario.hosts[0].name.clone(),
                project: PROJECT.to_owned(),
                grant: Grant { role: Role::Admin, scope: Scope::Project },
            },
            target: scenario.target(),
            rows: Vec::new(),
            stored: vec![None; scenario.hosts.len()],
            epoch: 0,
        };
        if let Err(error) = now(brain.furnish(&brain.reader, scenario)) {
            unreachable!("an empty store takes its first rows: {error}");
        }
        brain
    }

    async fn furnish(&self, store: &Store, scenario: &Scenario) -> Result<()> {
        let app = self.app(scenario);
        store
            .write(|tx| {
                Box::pin(async move {
                    tx.app_put(&app).await?;
                    for host in &scenario.hosts {
                        let row = HostRow {
                            project: PROJECT.to_owned(),
                            principal: None,
                            host: domain::host::Host { liveness: domain::host::Liveness::Joined, ..host.clone() },
                            since: Timestamp(0),
                            certificate: None,
                            version: 0,
                        };
                        tx.host_put(&row).await?;
                    }
                    for planned in &scenario.releases {
                        let principal = self.principal.id;
                        let row =
                            ReleaseRow { project: PROJECT.to_owned(), principal, release: planned.release.clone() };
                        tx.release_insert(&row).await?;
                    }
                    Ok::<_, Error>(())
                })
            })
            .await
    }

    fn app(&self, scenario: &Scenario) -> AppRow {
        let release = &scenario.releases[0].release;
        let spec = TargetSpec {
            members: scenario.members.clone(),
            driver: Driver::Container,
            expose: release.expose.clone(),
            policy: scenario.policy.clone(),
            gates: Vec::new(),
        };
        AppRow {
            project: PROJECT.to_owned(),
            principal: self.principal.id,
            app: App {
                name: self.target.app.clone(),
                processes: release.processes.clone(),
                stack: None,
                tests: BTreeMap::new(),
                targets: BTreeMap::from([(self.target.target.clone(), spec)]),
            },
            manifest: String::new(),
            repository: String::new(),
            applied_at: Timestamp(0),
            version: 0,
        }
    }

    /// Sets the wall clock.
    pub fn set_clock(&self, at: Timestamp) {
        self.clock.0.store(at.0, Ordering::Relaxed);
    }

    /// Commits go wrong from now on, or never again.
    pub fn calm(&self, calm: bool) {
        self.fates.lock().calm = calm;
    }

    /// Faults of commits since the last call.
    #[must_use]
    pub fn take_faults(&self) -> BTreeMap<Fault, u64> {
        std::mem::take(&mut self.fates.lock().counts)
    }

    /// It died in a commit.
    #[must_use]
    pub fn take_crash(&self) -> bool {
        std::mem::take(&mut self.fates.lock().crashed)
    }

    /// It runs.
    #[must_use]
    pub const fn up(&self) -> bool {
        self.process.is_some()
    }

    /// Takes over: the epoch rises, nobody is connected.
    pub fn start(&mut self) {
        let store = now(self.memory.open());
        self.epoch = store.fence().epoch;
        let sessions = Arc::new(Sessions::new(Arc::clone(&self.clock) as Arc<dyn Clock>));
        let ctx = Ctx {
            store,
            clock: Arc::clone(&self.clock) as Arc<dyn Clock>,
            ids: Arc::clone(&self.ids) as Arc<dyn Ids>,
            seen: Arc::clone(&sessions) as Arc<dyn Seen>,
            wake: Arc::clone(&sessions) as Arc<dyn coordinator::app::Wake>,
            state_dir: None,
        };
        self.process = Some(Process { ctx, sessions, entries: BTreeMap::new() });
    }

    /// Everything in memory is gone.
    pub fn stop(&mut self) {
        self.process = None;
    }

    /// Of the last start.
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Who orders, and the last committed place of the ledger.
    #[must_use]
    pub fn fence(&self) -> (Fence, u64) {
        let Some(process) = &self.process else { return (Fence::default(), 0) };
        let seq = *process.ctx.store.seq().borrow();
        (process.ctx.store.fence(), seq)
    }

    /// What its functions take.
    #[must_use]
    pub fn ctx(&self) -> Option<Ctx> {
        self.process.as_ref().map(|process| process.ctx.clone())
    }

    /// Who asks.
    #[must_use]
    pub const fn principal(&self) -> &Principal {
        &self.principal
    }

    /// The session of a host, as `sessions/session.rs` begins it.
    ///
    /// # Errors
    /// The session ends.
    pub fn hello(&mut self, host: usize, session: u64, fenced: Fenced, at: Micros) -> Result<Option<Stale>> {
        let Some(process) = &mut self.process else { return Ok(None) };
        let (logs, _) = tokio::sync::mpsc::channel(1);
        let entry = process.sessions.open(self.agents[host].id, logs);
        process.entries.insert(host, (session, entry, at));
        let hello = reports::Hello {
            facts: domain::host::Facts::default(),
            fenced,
            targets: [self.target.clone()].into(),
            runs: std::collections::BTreeSet::new(),
            backlog: 1,
            state_lost: false,
        };
        now(reports::hello(&process.ctx, &self.agents[host], hello))
    }

    /// The number of the open session of a host.
    #[must_use]
    pub fn session(&self, host: usize) -> Option<u64> {
        self.process.as_ref()?.entries.get(&host).map(|(number, _, _)| *number)
    }

    /// A message came in its open session.
    pub fn heard(&mut self, host: usize, at: Micros) {
        let process = self.process.as_mut();
        if let Some((_, entry, heard)) = process.and_then(|process| process.entries.get_mut(&host)) {
            entry.heard();
            *heard = at;
        }
    }

    /// A session ends.
    pub fn hang_up(&mut self, host: usize) {
        let Some(process) = &mut self.process else { return };
        let Some((_, entry, _)) = process.entries.remove(&host) else { return };
        let heard = entry.heard_at();
        drop(entry);
        if let Some(heard) = heard {
            // As in the session's task: what the store says is only logged.
            let _said = now(reports::session_ended(&process.ctx, self.agents[host].id, heard));
        }
    }

    /// A report in an open session. True: it is stored and news.
    ///
    /// # Errors
    /// What the store says: the session ends, and the agent sends it again.
    pub fn report_came(&mut self, host: usize, report: &Report) -> Result<bool> {
        let Some(process) = &self.process else { return Ok(false) };
        let told = Reported { target: self.target.clone(), report: report.clone(), result: None };
        now(reports::step(&process.ctx, &self.agents[host], told))
    }

    /// All that a host had to tell is stored.
    ///
    /// # Errors
    /// What the store says.
    pub fn synced(&self, host: usize) -> Result<()> {
        let Some(process) = &self.process else { return Ok(()) };
        let Some((_, entry, _)) = process.entries.get(&host) else { return Ok(()) };
        entry.synced();
        now(reports::liveness(&process.ctx)).map(|_| ())
    }

    /// Reads again what the store has of a host's report.
    pub fn look_at_report(&mut self, host: usize) {
        let (target, agent) = (self.target.clone(), self.agents[host].id);
        let read = self.peek(|tx| {
            Box::pin(
                async move { Ok::<_, Error>(tx.member_get(PROJECT, &target, agent).await?.and_then(|row| row.report)) },
            )
        });
        self.stored[host] = read;
    }

    /// Reads again what the store has of rollouts: those that changed, with what they were before.
    pub fn look_at_rollouts(&mut self, world: &[super::host::SimHost]) -> Vec<(usize, Option<Progress>)> {
        let target = self.target.clone();
        let mut rows = self
            .peek(|tx| Box::pin(async move { Ok::<_, Error>(tx.rollout_list(PROJECT, Some(&target), 100).await?) }));
        rows.reverse();
        let mut changed = Vec::new();
        for row in rows {
            if let Some(index) = self.index(row.plan.rollout) {
                let known = &mut self.rows[index];
                if known.version != row.version {
                    known.version = row.version;
                    changed.push((index, Some(std::mem::replace(&mut known.progress, row.progress))));
                }
                continue;
            }
            let place = |id| world.iter().position(|host| host.id == id).unwrap_or(0);
            let hosts = row.plan.members.iter().map(|member| place(member.member)).collect();
            self.rows.push(Row { plan: row.plan, hosts, progress: row.progress, version: row.version });
            changed.push((self.rows.len() - 1, None));
        }
        changed
    }

    fn peek<T: Send + Default>(
        &self,
        read: impl for<'t> FnOnce(&'t mut (dyn coordinator::store::View + '_)) -> coordinator::store::Work<'t, T, Error>
        + Send,
    ) -> T {
        now(self.reader.read(read)).unwrap_or_default()
    }

    /// The rollouts as last seen.
    pub fn rollouts(&self) -> impl Iterator<Item = (&Plan, &Progress)> {
        self.rows.iter().map(|row| (&*row.plan, &row.progress))
    }

    /// Where a rollout stands in `rows`.
    #[must_use]
    pub fn index(&self, id: RolloutId) -> Option<usize> {
        self.rows.iter().position(|row| row.plan.rollout == id)
    }

    /// A host's last stored report.
    #[must_use]
    pub fn report(&self, host: usize) -> Option<&Report> {
        self.stored[host].as_ref()
    }

    /// A report of the open session was stored by this coordinator.
    #[must_use]
    pub fn observed(&self, host: usize) -> bool {
        let seen = self.process.as_ref().and_then(|process| process.sessions.session(self.agents[host].id));
        seen.is_some_and(|seen| seen.synced)
    }

    /// Its word counts: observed, and heard from within the limit by the true clock. Judged here, not asked of the
    /// coordinator, whose own clock jumps.
    #[must_use]
    pub fn known(&self, host: usize, at: Micros) -> bool {
        let limit = u64::try_from(UNREACHABLE_AFTER.as_micros()).unwrap_or(u64::MAX);
        let entry = self.process.as_ref().and_then(|process| process.entries.get(&host));
        self.observed(host) && entry.is_some_and(|(_, _, heard)| at.saturating_sub(*heard) < limit)
    }

    /// Not heard from for longer than the limit though its session is open; by the true clock, as a timer has it.
    #[must_use]
    pub fn silent(&self, at: Micros) -> Vec<usize> {
        let Some(process) = &self.process else { return Vec::new() };
        let limit = u64::try_from(UNREACHABLE_AFTER.as_micros()).unwrap_or(u64::MAX);
        let silent = process.entries.iter().filter(|(_, (_, _, heard))| at.saturating_sub(*heard) >= limit);
        silent.map(|(host, _)| *host).collect()
    }

    /// The request of a start of a release.
    #[must_use]
    pub fn start_request(&self, release: u64, unlock: bool) -> rollouts::Start {
        rollouts::Start { target: self.target.to_string(), release, unlock, ..rollouts::Start::default() }
    }
}
