//! Warns of environments that nobody uses, and ends them.

use std::time::Duration;

use crate::app::environment_end;
use crate::error::Result;
use crate::grpc::Api;

/// A pause while another coordinator leads.
const EVERY: Duration = Duration::from_secs(30);

/// Looks until the coordinator stops.
pub async fn run(api: Api) {
    loop {
        let pause = super::rest("environments", look(&api).await);
        tokio::select! {
            () = api.app.stopping.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

async fn look(api: &Api) -> Result<Duration> {
    if api.sessions.stale().is_some() {
        return Ok(EVERY);
    }
    environment_end::expire(&api.app).await
}
