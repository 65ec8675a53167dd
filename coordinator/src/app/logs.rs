//! Logs of runs: segments in the artifact store, offsets in rows.

use bytes::Bytes;
use domain::ids::RunId;
use domain::run::RunState;

use super::App;
use crate::auth::Agent;
use crate::error::{Code, Error, Result};
use crate::store::log::LogSegmentRow;

/// The log's key of a run.
#[must_use]
pub fn key(run: RunId) -> String {
    format!("run:{run}")
}

/// How far a run's log is stored, if that run is the host's.
///
/// # Errors
/// It is not.
pub async fn end(app: &App, agent: &Agent, run: RunId) -> Result<u64> {
    let host = agent.id;
    app.store
        .read(|view| {
            Box::pin(async move {
                let row = view.run_get(run).await?.filter(|row| row.run.host == Some(host));
                row.ok_or_else(|| Error::new(Code::RUN_NOT_FOUND, format!("the run {run} is not this host's")))?;
                Ok(view.log_end(&key(run)).await?)
            })
        })
        .await
}

/// Appends bytes that begin at `start`, where the log ends. Answers its new end.
///
/// # Errors
/// It ends somewhere else, or the store does not take it.
pub async fn append(app: &App, agent: &Agent, run: RunId, start: u64, bytes: Bytes) -> Result<u64> {
    let length = bytes.len() as u64;
    let path = format!("logs/run/{run}/{start:020}");
    // The bytes first: a row never names bytes that are not there. Written twice they are the same.
    app.artifacts.put(&path, bytes).await?;
    let row = LogSegmentRow {
        project: agent.project.clone(),
        key: key(run),
        start,
        bytes: length,
        path,
        created_at: app.now(),
    };
    app.store.write(|tx| Box::pin(async move { Ok::<_, Error>(tx.log_segment_append(&row).await?) })).await?;
    Ok(start + length)
}

/// The next bytes at or after an offset, at most one segment: where they begin, and the bytes. None: no more yet.
///
/// # Errors
/// The store does not answer.
pub async fn read(app: &App, run: RunId, from: u64) -> Result<Option<(u64, Bytes)>> {
    let rows = app
        .store
        .read(|view| Box::pin(async move { Ok::<_, Error>(view.log_segment_list(&key(run), from, 1).await?) }))
        .await?;
    let Some(row) = rows.into_iter().next() else { return Ok(None) };
    let skip = from.saturating_sub(row.start);
    let bytes = app.artifacts.get(&row.path, skip..row.bytes).await?;
    Ok(Some((row.start + skip, bytes)))
}

/// The last bytes of a finished run's log may still be on their way for so long.
const STRAGGLERS: std::time::Duration = std::time::Duration::from_secs(3);

fn closed_key(run: RunId) -> String {
    format!("run/{run}/log-closed")
}

/// The agent has sent the whole log.
///
/// # Errors
/// The store does not answer.
pub async fn close(app: &App, run: RunId) -> Result<()> {
    app.store.write(|tx| Box::pin(async move { Ok::<_, Error>(tx.meta_put(&closed_key(run), "1").await?) })).await
}

/// Whether nothing more comes: the run is finished, and its whole log is here or had time to come.
///
/// # Errors
/// The store does not answer.
pub async fn ended(app: &App, run: RunId) -> Result<bool> {
    app.store
        .read(|view| {
            Box::pin(async move {
                let Some(row) = view.run_get(run).await? else { return Ok(true) };
                if row.run.state != RunState::Finished {
                    return Ok(false);
                }
                let late = row.run.finished_at.is_none_or(|at| app.now().since(at) > STRAGGLERS);
                Ok::<_, Error>(late || view.meta_get(&closed_key(run)).await?.is_some())
            })
        })
        .await
}
