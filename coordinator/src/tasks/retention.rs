//! Removes what is old.

use std::time::Duration;

use crate::app::App;
use crate::error::{Error, Result};
use crate::grpc::Api;
use crate::store::retention::Keep;

const EVERY: Duration = Duration::from_secs(3600);
/// An archive that no build names any more is kept for a while: a registration may be under way.
const UNUSED: Duration = Duration::from_secs(86_400);

/// Looks until the coordinator stops.
pub async fn run(api: Api, keep: Keep) {
    loop {
        let more = once(&api.app, &keep).await;
        let pause = super::rest("retention", more.map(|more| if more { Duration::from_secs(1) } else { EVERY }));
        tokio::select! {
            () = api.app.stopping.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Removes one batch. Answers whether there is more.
async fn once(app: &App, keep: &Keep) -> Result<bool> {
    let now = app.now();
    let removed =
        app.store.write(|tx| Box::pin(async move { Ok::<_, Error>(tx.retention_run(now, keep).await?) })).await?;
    for path in &removed.log_paths {
        app.artifacts.remove_path(path).await?;
    }
    let micros = i64::try_from(UNUSED.as_micros()).unwrap_or(i64::MAX);
    let before = domain::time::Timestamp(now.0.saturating_sub(micros));
    let unused = app
        .store
        .read(|view| Box::pin(async move { Ok::<_, Error>(view.artifact_list_unused(before, 100).await?) }))
        .await?;
    let _turn = app.artifacts.turn().await;
    for row in &unused {
        let digest = &row.digest;
        // The row first: a row never names bytes that are not there.
        let gone =
            app.store.write(|tx| Box::pin(async move { Ok::<_, Error>(tx.artifact_delete(digest).await?) })).await?;
        if gone {
            app.artifacts.remove(digest).await?;
        }
    }
    Ok(removed.more || unused.len() == 100)
}
