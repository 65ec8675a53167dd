//! A run from wherever its record says it stands to its end.

use std::sync::Arc;
use std::time::Duration;

use domain::run::Ended;
use proto::v1::agent_message::Message;
use tokio::sync::watch;

use super::outcome::Outcome;
use super::record::{Folder, Record, Stage};
use super::{Shared, command, container, prepare, sweep};
use crate::environments::failure::Failure;
use crate::spool::Spool;

/// Pause before something that must succeed is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// How long a connected coordinator may store nothing of a log before the result is told without the rest.
const LOG_PATIENCE: Duration = Duration::from_secs(20);

/// One run's task.
pub(super) struct Drive {
    shared: Arc<Shared>,
    id: String,
    record: Record,
    folder: Folder,
    cancel: watch::Receiver<bool>,
    acknowledged: watch::Receiver<bool>,
    spool: Option<Spool>,
}

impl Drive {
    pub(super) fn new(
        shared: Arc<Shared>,
        id: String,
        record: Record,
        cancel: watch::Receiver<bool>,
        acknowledged: watch::Receiver<bool>,
    ) -> Self {
        let folder = shared.folder(&id);
        Self { shared, id, record, folder, cancel, acknowledged, spool: None }
    }

    /// Runs until the coordinator has the result and nothing is left.
    pub(super) async fn run(mut self) {
        loop {
            match self.record.stage {
                Stage::Preparing => self.prepare().await,
                Stage::Command => self.command().await,
                Stage::Ended => return self.finish().await,
                Stage::Acknowledged => return,
            }
        }
    }

    async fn prepare(&mut self) {
        // A restart finds what an earlier attempt made; the fresh environment is really fresh.
        self.clean().await;
        sweep::leftovers(&self.shared).await;
        let prepared = tokio::select! {
            biased;
            () = is_true(self.cancel.clone()) => Err(Outcome::early(Ended::Cancelled)),
            prepared = prepare::run(&self.shared, &mut self.record, &self.folder) => prepared.map_err(Outcome::failed),
        };
        let spec = match prepared {
            Ok(spec) => spec,
            Err(outcome) => return self.conclude(outcome).await,
        };
        if let Err(why) = command::write(&self.folder, &spec) {
            return self.conclude(Outcome::failed(Failure::lasting("E_RUN_FOLDER", why))).await;
        }
        self.record.stage = Stage::Command;
        self.save().await;
    }

    async fn command(&mut self) {
        let mut cancel = self.cancel.clone();
        self.send_log();
        let followed = command::follow(&self.shared, &self.record, &self.folder, &mut cancel).await;
        self.record.cancel |= *cancel.borrow();
        let outcome = match followed {
            Ok(state) => {
                let (record, folder) = (self.record.clone(), self.folder.clone());
                let read = tokio::task::spawn_blocking(move || Outcome::of(state, &record, &folder)).await;
                read.unwrap_or_else(|why| Outcome::failed(Failure::lasting("E_RUN_REPORT", why.to_string())))
            }
            Err(why) => Outcome::failed(Failure::lasting("E_RUN_JOB", why)),
        };
        self.conclude(outcome).await;
    }

    fn send_log(&mut self) {
        let logs = Arc::clone(&self.shared.setup.logs);
        self.spool = Some(Spool::begin(logs, &format!("run:{}", self.id), "run", &self.folder.log()));
    }

    async fn conclude(&mut self, outcome: Outcome) {
        let report = outcome.message(&self.record);
        tracing::info!(run = %self.id, verdict = ?report.verdict(), "the run ended");
        self.record.end(&report);
        self.save().await;
    }

    /// Tells the result and removes everything, side by side; both survive a restart.
    async fn finish(&mut self) {
        // After a restart the log is still to be sent.
        if self.spool.is_none() && self.folder.log().exists() {
            self.send_log();
        }
        tokio::join!(self.report(), self.clean());
        is_true(self.acknowledged.clone()).await;
        self.spool = None;
        while let Err(why) = self.folder.acknowledge() {
            tracing::warn!(run = %self.id, %why, "the run's folder cannot be cleared");
            tokio::time::sleep(RETRY).await;
        }
    }

    /// The result follows the whole log: whoever follows the log ends when the run is finished.
    async fn report(&self) {
        let setup = &self.shared.setup;
        if let Some(spool) = &self.spool {
            spool.ended();
            let channel = setup.channel.clone();
            tokio::select! {
                stored = spool.stored(move || channel.borrow().is_some(), LOG_PATIENCE) => if !stored {
                    tracing::warn!(run = %self.id, "the coordinator does not take the log; its end may be missing");
                },
                () = is_true(self.acknowledged.clone()) => return,
            }
        }
        let host = &setup.host;
        let report = self.record.result.clone();
        while let Err(why) =
            host.outbox.result(&host.state, &super::result_id(&self.id), Message::Run(report.clone())).await
        {
            tracing::error!(run = %self.id, %why, "the run's result cannot be kept");
            tokio::time::sleep(RETRY).await;
        }
        if let Some(active) = self.shared.active().get_mut(&self.id) {
            active.told = None;
        }
    }

    /// Removes the container, the environment and the checkout; ends when they are gone.
    async fn clean(&self) {
        while let Err(why) = self.clean_once().await {
            tracing::warn!(run = %self.id, %why, "not everything of the run is removed yet");
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn clean_once(&self) -> Result<(), Failure> {
        let setup = &self.shared.setup;
        let name = container::name(&self.id);
        if let Some(found) = setup.host.engine.inspect(&name).await?
            && found.labels.is_some_and(|labels| labels.host == setup.host.id)
        {
            setup.host.engine.remove(&found.id).await?;
        }
        if let Some(environment) = &self.record.environment {
            setup.places.down(environment).await?;
            if let Some(mut view) = setup.places.watch(environment) {
                // Its end is the end of the watch, too.
                view.wait_for(|view| view.observed.state == domain::environment::EnvironmentState::Gone).await.ok();
            }
        }
        let folder = self.folder.clone();
        let tree = folder.tree();
        let removed = tokio::task::spawn_blocking(move || crate::files::remove_all(&tree)).await;
        let failed = |why: String| Failure::passing("E_RUN_FOLDER", format!("{}: {why}", folder.tree().display()));
        removed.map_err(|why| failed(why.to_string()))?.map_err(|why| failed(why.to_string()))
    }

    /// A stage that is not durable is not entered: it waits for the disk.
    async fn save(&self) {
        while let Err(why) = self.folder.write(&self.record) {
            tracing::error!(run = %self.id, %why, "the run's record cannot be written");
            tokio::time::sleep(RETRY).await;
        }
    }
}

/// Waits until it is true; for ever if nobody can make it so any more.
async fn is_true(mut flag: watch::Receiver<bool>) {
    if flag.wait_for(|set| *set).await.is_err() {
        std::future::pending().await
    }
}
