//! Calls without the command line: what programs with none of our files can send.

use proto::v1;
use tokio::runtime::{Builder, Runtime};
use tonic::codegen::InterceptedService;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Request, Status};

use super::cluster::Cluster;

/// Puts an api-token on every call.
#[derive(Clone, Debug)]
pub struct Bearer(String);

impl tonic::service::Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if !self.0.is_empty() {
            let value: MetadataValue<_> =
                format!("Bearer {}", self.0).parse().map_err(|_| Status::internal("no header"))?;
            request.metadata_mut().insert("authorization", value);
        }
        Ok(request)
    }
}

/// A channel that carries a token.
pub type Authorized = InterceptedService<Channel, Bearer>;

/// One connection as one principal; clone it for another principal's.
#[derive(Clone, Debug)]
pub struct Client {
    channel: Channel,
    bearer: Bearer,
}

macro_rules! services {
    ($($name:ident: $module:ident::$client:ident;)*) => {$(
        /// The service of that name.
        #[must_use]
        pub fn $name(&self) -> v1::$module::$client<Authorized> {
            v1::$module::$client::with_interceptor(self.channel.clone(), self.bearer.clone())
        }
    )*};
}

impl Client {
    /// As a principal that [`Cluster`] made: `admin`, `asha`, `jenkins`.
    ///
    /// # Panics
    /// There is no such principal, or no connection.
    pub async fn connect(cluster: &Cluster, principal: &str) -> Self {
        let state = cluster.folder().join("coordinator");
        let file = if principal == "admin" {
            state.join("admin.token")
        } else {
            cluster.folder().join(format!("{principal}.token"))
        };
        let token = std::fs::read_to_string(file).expect("the principal's token");
        let ca = std::fs::read_to_string(state.join("ca.pem")).expect("the CA's certificate");
        transport::install_provider();
        let channel =
            transport::connect(cluster.server(), &transport::Trust::Ca(ca), None, transport::Options::default())
                .await
                .expect("a connection");
        Self { channel, bearer: Bearer(token.trim().to_owned()) }
    }

    /// The same connection with another token; empty: with none.
    #[must_use]
    pub fn with_token(&self, token: &str) -> Self {
        Self { channel: self.channel.clone(), bearer: Bearer(token.to_owned()) }
    }

    /// The token.
    #[must_use]
    pub fn bearer(&self) -> &str {
        &self.bearer.0
    }

    /// The bare channel.
    #[must_use]
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    services! {
        hosts: hosts_client::HostsClient;
        join_tokens: join_tokens_client::JoinTokensClient;
        api_tokens: api_tokens_client::ApiTokensClient;
        apps: apps_client::AppsClient;
        config: config_client::ConfigClient;
        environments: environments_client::EnvironmentsClient;
        builds: builds_client::BuildsClient;
        releases: releases_client::ReleasesClient;
        runs: runs_client::RunsClient;
        rollouts: rollouts_client::RolloutsClient;
        events: events_client::EventsClient;
    }
}

/// What carries out asynchronous calls in a test.
///
/// # Panics
/// The operating system gives no event queue.
#[must_use]
pub fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}
