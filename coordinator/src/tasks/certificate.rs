//! Renews the coordinator's own certificate, in memory, at half of its life.

use std::sync::Arc;
use std::time::Duration;

use transport::server::ServerCertificate;

use crate::ca::SERVER_LIFETIME;
use crate::error::{Error, Result};
use crate::grpc::Api;
use domain::time::Timestamp;

const EVERY: Duration = Duration::from_secs(600);

/// Looks until the coordinator stops.
pub async fn run(api: Api, certificate: Arc<ServerCertificate>, names: Vec<String>) {
    let mut made_at = api.app.now();
    loop {
        let pause = super::rest("certificate", look(&api, &certificate, &names, &mut made_at));
        tokio::select! {
            () = api.app.stopping.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

fn look(api: &Api, certificate: &ServerCertificate, names: &[String], made_at: &mut Timestamp) -> Result<Duration> {
    let now = api.app.now();
    if now.since(*made_at) >= SERVER_LIFETIME / 2 {
        let (issued, key) = api.app.ca.server(names, now).map_err(Error::internal)?;
        certificate.replace(issued.chain, key).map_err(Error::internal)?;
        *made_at = now;
        tracing::info!("the coordinator's certificate was renewed");
    }
    Ok(EVERY)
}
