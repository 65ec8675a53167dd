//! The connection to the coordinator, with the api-token on every call.

use std::time::Duration;

use proto::v1;
use tokio::time::Instant;
use tonic::codegen::InterceptedService;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::transport::Channel;

use super::Global;
use super::context;
use super::error::Error;

/// A channel that carries the token.
pub type Authorized = InterceptedService<Channel, Bearer>;

/// Puts the token on every call.
#[derive(Clone)]
pub struct Bearer(MetadataValue<Ascii>);

impl std::fmt::Debug for Bearer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Bearer")
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: tonic::Request<()>) -> Result<tonic::Request<()>, tonic::Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

/// Clients of all services over one connection.
#[derive(Debug, Clone)]
pub struct Client {
    channel: Channel,
    bearer: Bearer,
}

macro_rules! services {
    ($($(#[$doc:meta])* $name:ident: $module:ident::$client:ident;)*) => {$(
        $(#[$doc])*
        pub fn $name(&self) -> v1::$module::$client<Authorized> {
            v1::$module::$client::with_interceptor(self.channel.clone(), self.bearer.clone())
                .max_decoding_message_size(proto::MAX_MESSAGE)
                .max_encoding_message_size(proto::MAX_MESSAGE)
        }
    )*};
}

impl Client {
    /// Connects with what the flags, the environment and the login context say.
    ///
    /// # Errors
    /// Something is missing, or the coordinator cannot be reached or is not who it should be.
    pub async fn connect(global: &Global) -> Result<Self, Error> {
        let context = context::load(global)?;
        let token = format!("Bearer {}", context.token);
        let mut value: MetadataValue<Ascii> = token
            .parse()
            .map_err(|_| Error::usage("E_TOKEN_MALFORMED", "the api-token has characters that no token has"))?;
        value.set_sensitive(true);
        let trust = transport::Trust::Ca(context.ca.clone());
        let channel = transport::connect(&context.server, &trust, None, transport::Options::default())
            .await
            .map_err(|why| Error::Unreachable { server: context.server.clone(), why: why.to_string() })?;
        Ok(Self { channel, bearer: Bearer(value) })
    }

    services! {
        /// Machines with an agent.
        hosts: hosts_client::HostsClient;
        /// Join-tokens.
        join_tokens: join_tokens_client::JoinTokensClient;
        /// Api-tokens.
        api_tokens: api_tokens_client::ApiTokensClient;
        /// Apps.
        apps: apps_client::AppsClient;
        /// Config revisions.
        config: config_client::ConfigClient;
        /// Environments.
        environments: environments_client::EnvironmentsClient;
        /// Builds.
        builds: builds_client::BuildsClient;
        /// Releases.
        releases: releases_client::ReleasesClient;
        /// Seeds and snapshots.
        seeds: seeds_client::SeedsClient;
        /// Runs.
        runs: runs_client::RunsClient;
        /// Rollouts.
        rollouts: rollouts_client::RolloutsClient;
        /// The ledger.
        events: events_client::EventsClient;
    }
}

/// So long a client goes on trying while the coordinator is away (it restarts in seconds).
const PATIENCE: Duration = Duration::from_secs(120);

/// A call that lasted so long had got through: patience begins anew with its end. Longer than an attempt to connect.
const HELD: Duration = Duration::from_secs(10);
/// First pause between attempts; doubled with each.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// Makes a call again while the coordinator is away, or says that it cannot do it now: reads, watches, and calls with an idempotency key.
///
/// # Errors
/// What the call says, or that the coordinator stayed away.
pub async fn resume<T>(mut call: impl AsyncFnMut() -> Result<T, Error>) -> Result<T, Error> {
    let mut until = Instant::now() + PATIENCE;
    let mut pause = FIRST_PAUSE;
    let mut told = false;
    loop {
        let began = Instant::now();
        let result = call().await;
        if began.elapsed() >= HELD {
            (until, pause, told) = (Instant::now() + PATIENCE, FIRST_PAUSE, false);
        }
        match result {
            Err(error) if error.is_transient() && Instant::now() < until => {
                if !told {
                    let away = if error.is_answer() { "not now" } else { "the coordinator does not answer" };
                    eprintln!("{away}; trying again for {} s ({error})", PATIENCE.as_secs());
                    told = true;
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(2));
            }
            other => return other,
        }
    }
}

/// The flag under which a repeated call finds its first result.
#[derive(clap::Args, Debug)]
pub struct Key {
    /// A repeated call with the same key finds the first one's result
    #[arg(long)]
    idempotency_key: Option<String>,
}

impl Key {
    /// One that nobody else has.
    #[must_use]
    pub fn made() -> String {
        uuid::Uuid::now_v7().to_string()
    }

    /// The caller's own if given.
    #[must_use]
    pub fn or_made(self) -> String {
        self.idempotency_key.unwrap_or_else(Self::made)
    }
}
