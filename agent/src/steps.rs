//! Targets on this host: their step machines, driven over the engine and the relay.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use domain::ids::ReleaseId;
use domain::name::TargetRef;
use domain::release::Release;
use domain::step::event::Event;
use domain::step::journal::{BootId, Slot};
use proto::convert::step::Ordered;
use proto::v1;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tonic::transport::Channel;
use uuid::Uuid;

use crate::host::Host;
use crate::session::hello::MAX_TARGETS;

mod containers;
mod driver;
mod health;
mod journal;
mod news;
mod perform;
mod retain;
mod stage;
#[cfg(test)]
mod tests;
mod traffic;

use driver::Driver;
use news::{Begin, News};

#[derive(Debug)]
struct Target {
    task: AbortHandle,
    send: mpsc::UnboundedSender<News>,
    told: watch::Receiver<Option<v1::StepReport>>,
}

/// All targets on this host.
#[derive(Debug)]
pub struct Steps {
    host: Arc<Host>,
    /// Counts the agent's starts.
    run: u64,
    boot: BootId,
    channel: watch::Receiver<Option<Channel>>,
    targets: Mutex<BTreeMap<String, Target>>,
}

/// Why an order was not taken.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{0}")]
    Message(#[from] proto::convert::Error),
    #[error("{0}")]
    State(#[from] crate::state::Error),
    #[error("the order is for another host")]
    OtherHost,
    #[error("this host holds {MAX_TARGETS} targets already")]
    TooMany,
}

impl Steps {
    /// None yet. `run` counts the agent's starts; `channel` leads to the coordinator while there is a session.
    #[must_use]
    pub fn new(host: Arc<Host>, run: u64, channel: watch::Receiver<Option<Channel>>) -> Self {
        let boot = BootId(Uuid::try_parse(&host.boot_id).unwrap_or_default());
        Self { host, run, boot, channel, targets: Mutex::default() }
    }

    fn targets(&self) -> MutexGuard<'_, BTreeMap<String, Target>> {
        self.targets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes up all journals. What is overdue is settled when this returns: before the coordinator is dialled.
    ///
    /// # Errors
    /// The state cannot be read.
    pub async fn load(&self) -> crate::state::Result<()> {
        for stored in self.host.state.targets().await? {
            let Ok(target) = TargetRef::parse(&stored.target) else { continue };
            let Some(slot) = journal::decode(&stored.slot) else {
                tracing::error!(%target, "the journal cannot be read; what runs stays as it is");
                continue;
            };
            self.begin(target, slot, stored.retain).await?;
        }
        Ok(())
    }

    async fn begin(
        &self,
        target: TargetRef,
        slot: Slot,
        retain: u32,
    ) -> crate::state::Result<mpsc::UnboundedSender<News>> {
        let name = target.to_string();
        let mut releases: BTreeMap<ReleaseId, Release> = BTreeMap::new();
        for spec in self.host.state.releases(&name).await? {
            match Release::try_from(spec) {
                Ok(release) => {
                    releases.insert(release.id, release);
                }
                Err(why) => tracing::error!(%target, %why, "a remembered release cannot be read"),
            }
        }
        let (send, news) = mpsc::unbounded_channel();
        let (told, seen) = watch::channel(None);
        let begin = Begin {
            host: Arc::clone(&self.host),
            target,
            slot,
            releases,
            retain,
            run: self.run,
            boot: self.boot,
            channel: self.channel.clone(),
            told,
            send: send.clone(),
            news,
        };
        let driver = Driver::restore(begin).await;
        let task = tokio::spawn(driver.run()).abort_handle();
        self.targets().insert(name, Target { task, send: send.clone(), told: seen });
        Ok(send)
    }

    /// Takes an order; the machine refuses what is stale and answers with its report.
    pub async fn order(&self, order: v1::StepOrder) {
        let target = order.target.clone();
        if let Err(why) = self.take(order).await {
            tracing::warn!(%target, %why, "an order was not taken");
        }
    }

    async fn take(&self, message: v1::StepOrder) -> Result<(), Error> {
        let spec = message.release.clone();
        let ordered = Ordered::try_from(message)?;
        if ordered.order.executor.to_string() != self.host.id {
            return Err(Error::OtherHost);
        }
        if let Some(spec) = &spec {
            // Known before anything of it is journaled.
            self.host.state.put_release(spec).await?;
        }
        let target = ordered.order.target.clone();
        let held = self.targets().get(&target.to_string()).map(|held| held.send.clone());
        let send = match held {
            Some(send) => send,
            None if self.targets().len() >= MAX_TARGETS => return Err(Error::TooMany),
            None => self.begin(target, Slot::default(), ordered.retain_releases).await?,
        };
        let work = ordered.work.as_ref().map(proto::convert::step::OrderedRelease::work);
        let event = Box::new(Event::Order { order: ordered.order, work });
        let release = ordered.work.map(|work| Box::new(work.release));
        let _ = send.send(News::Order { event, release, retain: ordered.retain_releases });
        Ok(())
    }

    /// The newest report of each target.
    #[must_use]
    pub fn reports(&self) -> Vec<v1::StepReport> {
        self.targets().values().filter_map(|target| target.told.borrow().clone()).collect()
    }

    /// For the Hello: targets with generation and running release.
    #[must_use]
    pub fn applied(&self) -> Vec<v1::Applied> {
        let applied = |report: v1::StepReport| v1::Applied {
            id: report.target,
            generation: report.generation,
            release: report.current,
        };
        self.reports().into_iter().map(applied).collect()
    }

    /// Has every target tell its whole state.
    pub fn tell_all(&self) {
        for target in self.targets().values() {
            let _ = target.send.send(News::Tell);
        }
    }

    /// Has everything looked at again.
    pub fn wake(&self) {
        for target in self.targets().values() {
            let _ = target.send.send(News::Look);
        }
    }

    /// Ends all tasks where they are, as a kill would.
    pub fn abort(&self) {
        for target in self.targets().values() {
            target.task.abort();
        }
    }

    /// `APP/TARGET` of everything known.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.targets().keys().cloned().collect()
    }
}
