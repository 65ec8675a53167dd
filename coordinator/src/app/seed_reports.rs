//! What hosts tell about seeds and snapshots.

use domain::release::Digest;
use domain::seed::SeedState;
use proto::convert::seed::Reported;
use proto::v1::SeedWork;

use super::seeds::{SECRET, end, event};
use super::{App, ledger, seed_copy_reports, text};
use crate::auth::Agent;
use crate::error::{Code, Error, Result};
use crate::store::seed::SeedRow;

/// The largest number of volumes that a host tells of.
const MAX_PARTS: usize = 256;

/// Takes in what a host tells about a seed.
///
/// # Errors
/// What the store says.
pub async fn report(app: &App, agent: &Agent, told: Reported) -> Result<()> {
    if of_copy(app, agent, &told).await? {
        return seed_copy_reports::report(app, agent, told).await;
    }
    let inputs = app
        .store
        .write(|tx| {
            Box::pin(async move {
                let row = tx.seed_get(told.id).await?.filter(|row| row.seed.host == agent.id);
                let Some(mut row) = row else { return Ok(Vec::new()) };
                let before = row.clone();
                let Some(kind) = take_in(app, &mut row, told) else {
                    if row != before {
                        tx.seed_put(&row).await?;
                    }
                    return Ok(Vec::new());
                };
                row.version = tx.seed_put(&row).await?;
                let id = row.seed.id.to_string();
                tx.artifact_ref_delete(SECRET, &id).await?;
                // The stack of a snapshot is needed by what begins with it.
                if !row.seed.snapshot || row.seed.state.ended() {
                    tx.secret_delete(SECRET, &id).await?;
                }
                let why = row.seed.reason.as_ref().map(|(_, why)| why.clone()).unwrap_or_default();
                event(app, tx, ledger::host(&agent.name), kind, &row, &why).await?;
                Ok::<_, Error>(before.seed.inputs.into_iter().map(|input| input.artifact).collect())
            })
        })
        .await?;
    forget(app, &inputs).await
}

/// Whether it is about a copy: moved, or removed by another host than the one that made it.
async fn of_copy(app: &App, agent: &Agent, told: &Reported) -> Result<bool> {
    let id = told.id;
    let row = app.store.read(|view| Box::pin(async move { Ok::<_, Error>(view.seed_get(id).await?) })).await?;
    Ok(told.work != SeedWork::Unspecified || row.is_none_or(|row| row.seed.host != agent.id))
}

/// Changes the seed to what its host tells. Answers the kind of the event, if something has ended.
fn take_in(app: &App, row: &mut SeedRow, told: Reported) -> Option<&'static str> {
    let bounded = |(code, why): (String, String)| (text::line(&code, 80), text::line(&why, 1000));
    let seed = &mut row.seed;
    match (seed.state, told.state) {
        (SeedState::Making, SeedState::Making) | (SeedState::Removing, SeedState::Removing) => {
            seed.detail = text::line(&told.detail, 200);
            None
        }
        (SeedState::Making, SeedState::Ready) => {
            let Some(digest) = told.digest else {
                seed.reason = Some((Code::SESSION_PROTOCOL.code.to_owned(), "its host told no digest".to_owned()));
                end(app, row, SeedState::Failed);
                return Some("seed.failed");
            };
            seed.state = SeedState::Ready;
            seed.reason = None;
            seed.detail = text::line(&told.detail, 200);
            seed.digest = Some(digest);
            seed.bytes = told.bytes.min(i64::MAX.unsigned_abs());
            seed.parts = told.parts.into_iter().take(MAX_PARTS).collect();
            (seed.took, seed.freeze) = (told.took, told.freeze);
            (seed.canaries, seed.masked) = (told.canaries, told.masked);
            Some("seed.ready")
        }
        (SeedState::Making, SeedState::Failed) => {
            seed.reason = told.reason.map(bounded);
            end(app, row, SeedState::Failed);
            Some("seed.failed")
        }
        (SeedState::Removing, SeedState::Removed) => {
            end(app, row, SeedState::Removed);
            Some("seed.removed")
        }
        (SeedState::Removing, SeedState::Failed) => {
            seed.state = SeedState::Ready;
            seed.detail.clear();
            seed.reason = told.reason.map(bounded);
            Some("seed.not_removed")
        }
        _ => None,
    }
}

/// Removes inputs that nobody needs any more: they can hold what the seed must not.
///
/// # Errors
/// What the store says.
pub(super) async fn forget(app: &App, inputs: &[Digest]) -> Result<()> {
    if inputs.is_empty() {
        return Ok(());
    }
    let _turn = app.artifacts.turn().await;
    for digest in inputs {
        let gone = app
            .store
            .write(|tx| {
                Box::pin(async move {
                    let gone = tx.artifact_delete(digest).await? || tx.artifact_get(digest).await?.is_none();
                    Ok::<_, Error>(gone)
                })
            })
            .await?;
        if gone {
            app.artifacts.remove(digest).await?;
        }
    }
    Ok(())
}
