//! Who is heard from, as written to the store when it changes.

use std::time::Duration;

use crate::app::reports;
use crate::error::Result;
use crate::grpc::Api;

const EVERY: Duration = Duration::from_millis(500);

/// Looks until the coordinator stops.
pub async fn run(api: Api) {
    loop {
        let pause = super::rest("liveness", look(&api).await);
        tokio::select! {
            () = api.app.stopping.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

async fn look(api: &Api) -> Result<Duration> {
    if reports::liveness(&api.app).await? {
        api.app.wake.rollouts();
        api.app.wake.runs();
    }
    Ok(EVERY)
}
