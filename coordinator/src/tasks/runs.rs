//! Gives queued runs to hosts.

use std::time::Duration;

use crate::app::runs;
use crate::error::Result;
use crate::grpc::Api;

const EVERY: Duration = Duration::from_secs(5);

/// Looks until the coordinator stops.
pub async fn run(api: Api) {
    loop {
        let pause = super::rest("runs", look(&api).await);
        tokio::select! {
            () = api.app.stopping.cancelled() => return,
            () = api.sessions.runs_woken() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

async fn look(api: &Api) -> Result<Duration> {
    if api.sessions.stale().is_some() {
        return Ok(EVERY);
    }
    for host in runs::assign_queued(&api.app).await? {
        api.app.wake.host(host);
    }
    Ok(EVERY)
}
