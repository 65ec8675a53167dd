//! Test runs of this host: once each, to their true verdict, also over the agent's death.
//!
//! A run's folder holds its record; the record's stage says where a restart goes on. Only the command's own
//! stage cannot be repeated, and there the job (a process of its own) is asked what became of it.

mod command;
mod container;
mod drive;
mod outcome;
mod prepare;
mod record;
mod sweep;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use domain::ids::RunId;
use proto::v1;
use proto::v1::agent_message::Message;
use tokio::sync::watch;
use tonic::transport::Channel;

use crate::environments::failure::Failure;
use crate::environments::{Environments, View, Wanted};
use crate::host::Host;
use crate::job::{Launcher, ProcessSpec};
use crate::mirror::Mirrors;
use crate::session::hello::MAX_RUNS;
use crate::spool::Outlet;
use record::{Folder, Record, Stage};

/// Where runs get their fresh environments: this host's environments, or others in tests.
#[async_trait]
pub trait Places: Send + Sync + std::fmt::Debug {
    /// Wants an environment; durable when it returns.
    async fn up(&self, wanted: Wanted) -> Result<(), Failure>;
    /// How it stands, at each change; it ends when nothing is left. None: there is none.
    fn watch(&self, id: &str) -> Option<watch::Receiver<View>>;
    /// Wants nothing of it to be left.
    async fn down(&self, id: &str) -> Result<(), Failure>;
}

#[async_trait]
impl Places for Environments {
    async fn up(&self, wanted: Wanted) -> Result<(), Failure> {
        self.hold(wanted).await
    }

    fn watch(&self, id: &str) -> Option<watch::Receiver<View>> {
        Self::watch(self, id)
    }

    async fn down(&self, id: &str) -> Result<(), Failure> {
        self.drop(id).await
    }
}

/// What runs work with.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The host.
    pub host: Arc<Host>,
    /// Its environments.
    pub places: Arc<dyn Places>,
    /// Where logs are sent.
    pub logs: Arc<dyn Outlet>,
    /// The connection to the coordinator, while there is one.
    pub channel: watch::Receiver<Option<Channel>>,
    /// The agent's folder: mirrors and runs lie below.
    pub state_dir: PathBuf,
    /// The container engine's Unix socket, for the jobs.
    pub engine: PathBuf,
    /// How a job is started.
    pub launcher: Launcher,
    /// Run this instead of a container of the engine: for tests of everything around it.
    pub substitute: Option<ProcessSpec>,
}

/// All runs of this host.
#[derive(Debug)]
pub struct Runs {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    setup: Setup,
    mirrors: Mirrors,
    active: Mutex<BTreeMap<String, Active>>,
}

#[derive(Debug)]
struct Active {
    cancel: watch::Sender<bool>,
    /// The coordinator has the result.
    acknowledged: watch::Sender<bool>,
    /// What the coordinator said about the seed of its stack.
    seed: watch::Sender<Option<v1::RunSeed>>,
    /// Told last; none once it is a result, which the outbox keeps.
    told: Option<v1::RunReport>,
}

impl Shared {
    fn active(&self) -> MutexGuard<'_, BTreeMap<String, Active>> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn folder(&self, id: &str) -> Folder {
        Folder::new(self.setup.state_dir.join("runs").join(id))
    }

    /// What the coordinator says about the seed of a run's stack; none: the run has ended.
    fn seed(&self, id: &str) -> Option<watch::Receiver<Option<v1::RunSeed>>> {
        self.active().get(id).map(|active| active.seed.subscribe())
    }

    /// Tells how a run stands.
    fn tell(&self, report: v1::RunReport) {
        if let Some(active) = self.active().get_mut(&report.id) {
            active.told = Some(report.clone());
        }
        self.setup.host.outbox.tell(&format!("run {}", report.id), Message::Run(report));
    }
}

/// The id of a run's result.
fn result_id(id: &str) -> String {
    format!("run:{id}")
}

impl Runs {
    /// None yet.
    #[must_use]
    pub fn new(setup: Setup) -> Self {
        let mirrors = Mirrors::new(&setup.state_dir);
        Self { shared: Arc::new(Shared { setup, mirrors, active: Mutex::default() }) }
    }

    /// Takes up the runs of the time before the agent's start. Must be called before orders are taken.
    ///
    /// # Errors
    /// The folder of runs cannot be read.
    pub async fn load(&self) -> std::io::Result<()> {
        for (id, record) in record::all(&self.shared.setup.state_dir.join("runs"))? {
            if record.stage != Stage::Acknowledged {
                tracing::info!(run = %id, stage = ?record.stage, "the run goes on");
                self.begin(id, record);
            }
        }
        Ok(())
    }

    /// Takes an order of the coordinator. The same run ordered again changes nothing; it never begins twice.
    pub async fn order(&self, order: v1::RunOrder) {
        let id = order.id.clone();
        if id.parse::<RunId>().is_err() {
            tracing::warn!(run = %id, "an order without a run id");
            return;
        }
        if order.cancel {
            return self.cancel(&order).await;
        }
        let said = self.shared.active().get(&id).map(|active| active.seed.clone());
        if let Some(said) = said {
            if order.seed.is_some() {
                said.send_replace(order.seed);
            }
            return self.tell_again(&id);
        }
        let folder = self.shared.folder(&id);
        match folder.read() {
            // Acknowledged long ago: an order that crossed the acknowledgement.
            Ok(Some(_)) => {}
            Ok(None) if self.shared.active().len() >= MAX_RUNS => {
                self.refuse(&order, v1::Verdict::Errored, "E_TOO_MANY", "this host has too many runs").await;
            }
            Ok(None) => {
                let record = Record::new(order.clone());
                match folder.write(&record) {
                    Ok(()) => self.begin(id, record),
                    Err(why) => self.refuse(&order, v1::Verdict::Errored, "E_RUN_FOLDER", &why.to_string()).await,
                }
            }
            Err(why) => self.refuse(&order, v1::Verdict::Errored, "E_RUN_FOLDER", &why.to_string()).await,
        }
    }

    async fn cancel(&self, order: &v1::RunOrder) {
        let held = self.shared.active().get(&order.id).map(|active| active.cancel.clone());
        match held {
            Some(cancel) => {
                cancel.send_replace(true);
            }
            // It never came here, and will not begin.
            None if matches!(self.shared.folder(&order.id).read(), Ok(None)) => {
                self.refuse(order, v1::Verdict::Cancelled, "E_RUN_CANCELLED", "cancelled before it began").await;
            }
            None => {}
        }
    }

    /// A run that ends before it has begun. It is remembered as ended, so that a late order does not begin it.
    async fn refuse(&self, order: &v1::RunOrder, verdict: v1::Verdict, code: &str, text: &str) {
        let report = outcome::refused(&order.id, verdict, code, text);
        let mut record = Record::new(order.clone());
        record.end(&report);
        if let Err(why) = self.shared.folder(&order.id).write(&record) {
            tracing::error!(run = %order.id, %why, "the run's end cannot be remembered");
        }
        let host = &self.shared.setup.host;
        if let Err(why) = host.outbox.result(&host.state, &result_id(&order.id), Message::Run(report)).await {
            tracing::error!(run = %order.id, %why, "the run's result cannot be kept");
        }
    }

    fn begin(&self, id: String, record: Record) {
        let (cancel, cancelled) = watch::channel(record.cancel);
        let (acknowledged, acks) = watch::channel(false);
        let seed = watch::Sender::new(record.order.seed.clone());
        self.shared.active().insert(id.clone(), Active { cancel, acknowledged, seed, told: None });
        let drive = drive::Drive::new(Arc::clone(&self.shared), id.clone(), record, cancelled, acks);
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            drive.run().await;
            shared.active().remove(&id);
        });
    }

    fn tell_again(&self, id: &str) {
        let told = self.shared.active().get(id).and_then(|active| active.told.clone());
        if let Some(report) = told {
            self.shared.setup.host.outbox.tell(&format!("run {id}"), Message::Run(report));
        }
    }

    /// Tells how all runs stand.
    pub fn tell_all(&self) {
        let ids: Vec<String> = self.shared.active().keys().cloned().collect();
        for id in ids {
            self.tell_again(&id);
        }
    }

    /// For the Hello: runs that are known and whose result is not acknowledged.
    #[must_use]
    pub fn running(&self) -> Vec<String> {
        self.shared.active().keys().cloned().collect()
    }

    /// The coordinator said which runs this host should have: what it has beyond is ended.
    pub async fn welcomed(&self, runs: &[String]) {
        let keep: BTreeSet<&String> = runs.iter().collect();
        let active = self.shared.active();
        for (id, one) in active.iter().filter(|(id, _)| !keep.contains(id)) {
            tracing::info!(run = %id, "the coordinator does not want the run any more");
            one.cancel.send_replace(true);
            one.acknowledged.send_replace(true);
        }
        drop(active);
        self.tell_all();
    }

    /// A result was stored by the coordinator; whether it was one of runs.
    ///
    /// # Errors
    /// The record cannot be written.
    pub async fn acknowledged(&self, result: &str) -> std::io::Result<bool> {
        let Some(id) = result.strip_prefix("run:") else { return Ok(false) };
        let held = self.shared.active().get(id).map(|active| active.acknowledged.clone());
        match held {
            Some(acknowledged) => {
                acknowledged.send_replace(true);
            }
            None => self.shared.folder(id).acknowledge()?,
        }
        Ok(true)
    }
}
