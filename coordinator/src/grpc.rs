//! The services: check, one call, convert.

pub mod agents;
pub mod apps;
pub mod builds;
mod chunks;
pub mod environments;
pub mod error;
pub mod events;
pub mod hosts;
pub mod rollouts;
pub mod runs;
pub mod seeds;
pub mod tokens;
mod tunnels;
pub mod watch;

use std::sync::Arc;

use domain::authorize::Principal;
use proto::MAX_MESSAGE;
use proto::v1;
use tonic::service::Routes;
use tonic::{Request, Status};

use crate::app::App;
use crate::auth::{Agent, Caller};
use crate::error::{Code, Error};
use crate::sessions::Sessions;
use crate::sessions::log_orders::LogOrders;
use crate::sessions::session::Shared;
use crate::sessions::tunnels::Tunnels;
use error::status;

/// What every service works with.
#[derive(Clone, Debug)]
pub struct Api {
    /// The coordinator.
    pub app: App,
    /// Open sessions.
    pub sessions: Arc<Sessions>,
    /// Logs that clients wait for.
    pub log_orders: Arc<LogOrders>,
    /// Clients that wait for a tunnel.
    pub tunnels: Arc<Tunnels>,
}

impl Api {
    fn shared(&self) -> Shared {
        Shared { app: self.app.clone(), sessions: Arc::clone(&self.sessions), log_orders: Arc::clone(&self.log_orders) }
    }
}

/// The principal that the layer in front has authenticated.
fn principal<T>(request: &Request<T>) -> Result<Principal, Status> {
    match request.extensions().get::<Caller>() {
        Some(Caller::Principal(principal)) => Ok(principal.clone()),
        _ => Err(status(Error::new(Code::UNAUTHENTICATED, "this call needs an api-token"))),
    }
}

/// The host that the layer in front has authenticated.
fn agent<T>(request: &Request<T>) -> Result<Agent, Status> {
    match request.extensions().get::<Caller>() {
        Some(Caller::Host(agent)) => Ok(agent.clone()),
        _ => Err(status(Error::new(Code::UNAUTHENTICATED, "this call needs a host's certificate"))),
    }
}

macro_rules! service {
    ($routes:expr, $api:expr, $($module:ident :: $server:ident),+ $(,)?) => {
        $routes$(.add_service(
            v1::$module::$server::new($api.clone())
                .max_decoding_message_size(MAX_MESSAGE)
                .max_encoding_message_size(MAX_MESSAGE),
        ))+
    };
}

/// All services, with reflection and health.
///
/// # Errors
/// The descriptors cannot be read: a broken build.
pub async fn routes(api: &Api) -> Result<Routes, tonic_reflection::server::Error> {
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_service_status("", tonic_health::ServingStatus::Serving).await;
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let routes =
        Routes::new(health_service).add_service(reflection().build_v1()?).add_service(reflection().build_v1alpha()?);
    Ok(service!(
        routes,
        api,
        agents_server::AgentsServer,
        hosts_server::HostsServer,
        join_tokens_server::JoinTokensServer,
        api_tokens_server::ApiTokensServer,
        apps_server::AppsServer,
        config_server::ConfigServer,
        builds_server::BuildsServer,
        releases_server::ReleasesServer,
        environments_server::EnvironmentsServer,
        runs_server::RunsServer,
        seeds_server::SeedsServer,
        chunks_server::ChunksServer,
        rollouts_server::RolloutsServer,
        events_server::EventsServer,
    ))
}
