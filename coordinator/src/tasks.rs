//! Loops that look at the whole state, when somebody wakes them and from time to time. Nothing is remembered between
//! two looks, so that a missed wake costs time and nothing else.

pub mod certificate;
pub mod environments;
pub mod liveness;
pub mod retention;
pub mod rollouts;
pub mod runs;

use std::time::Duration;

use tokio::task::JoinSet;

use crate::error::Result;
use crate::grpc::Api;
use transport::server::ServerCertificate;

/// After a failure a loop waits so long before it looks again.
pub const AFTER_ERROR: Duration = Duration::from_millis(500);

/// Starts all loops.
pub fn spawn(
    api: &Api,
    certificate: std::sync::Arc<ServerCertificate>,
    names: Vec<String>,
    keep: crate::store::retention::Keep,
) -> JoinSet<()> {
    let mut set = JoinSet::new();
    set.spawn(liveness::run(api.clone()));
    set.spawn(rollouts::run(api.clone()));
    set.spawn(runs::run(api.clone()));
    set.spawn(environments::run(api.clone()));
    set.spawn(retention::run(api.clone(), keep));
    set.spawn(certificate::run(api.clone(), certificate, names));
    set
}

/// How long a loop rests after a look; what went wrong is logged and tried again.
pub(crate) fn rest(name: &'static str, looked: Result<Duration>) -> Duration {
    looked.unwrap_or_else(|error| {
        tracing::error!(task = name, %error, "a look failed");
        AFTER_ERROR
    })
}
