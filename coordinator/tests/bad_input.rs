//! Bad input: one case per reason code, each with its exact code and with the state unchanged.

use std::collections::BTreeMap;

use proto::v1;
use proto::v1::register_build_request::Part;
use tonic::transport::Channel;

use crate::support::{COMMIT, Host, MUSTER_YAML, Server, as_};

/// Everything a case works with.
struct World {
    server: Server,
    channel: Channel,
    admin: String,
    host: Host,
    _session: crate::support::Session,
    rollout: String,
    finished_run: String,
}

impl World {
    async fn new() -> Self {
        let server = Server::start().await;
        server.bot().await;
        let host = server.host("web-1", "app=bot,env=production,role=dev").await;
        let session = host.ready(&server).await;
        let channel = server.channel().await;
        let admin = server.admin.clone();
        let mut world = Self {
            server,
            channel,
            admin,
            host,
            _session: session,
            rollout: String::new(),
            finished_run: String::new(),
        };
        world.finished_run = world.run_that_ended().await;
        world.rollout = world.rollout_that_ended().await;
        world
    }

    async fn run_that_ended(&self) -> String {
        let mut runs = v1::runs_client::RunsClient::new(self.channel.clone());
        let start = v1::StartRunRequest {
            app: "bot".into(),
            tests: "unit".into(),
            commit: COMMIT.into(),
            ..Default::default()
        };
        let run = runs.start(as_(&self.admin, start)).await.unwrap().into_inner();
        runs.cancel(as_(&self.admin, v1::ShowRunRequest { run: run.id.clone() })).await.unwrap();
        run.id
    }

    async fn rollout_that_ended(&self) -> String {
        let mut rollouts = v1::rollouts_client::RolloutsClient::new(self.channel.clone());
        let start = v1::StartRolloutRequest { target: "bot/production".into(), ..Default::default() };
        let made = rollouts.start(as_(&self.admin, start)).await.unwrap().into_inner();
        let cancel = v1::ChangeRolloutRequest { rollout: made.id.clone(), ..Default::default() };
        rollouts.cancel(as_(&self.admin, cancel)).await.unwrap();
        let mut watch = rollouts
            .watch(as_(&self.admin, v1::RolloutRequest { rollout: made.id.clone() }))
            .await
            .unwrap()
            .into_inner();
        while watch.message().await.unwrap().is_some() {}
        made.id
    }

    /// What nothing that is refused may change: every noun as it is listed.
    async fn state(&self) -> String {
        let (channel, admin) = (&self.channel, &self.admin);
        let mut hosts = v1::hosts_client::HostsClient::new(channel.clone())
            .list(as_(admin, v1::ListHostsRequest::default()))
            .await
            .unwrap()
            .into_inner();
        for host in &mut hosts.hosts {
            (host.seen_at, host.silent_micros) = (0, 0);
        }
        let apps =
            v1::apps_client::AppsClient::new(channel.clone()).list(as_(admin, v1::ListAppsRequest {})).await.unwrap();
        let ask = v1::ListConfigRequest { target: "bot/production".into() };
        let config = v1::config_client::ConfigClient::new(channel.clone()).list(as_(admin, ask)).await.unwrap();
        let builds = v1::builds_client::BuildsClient::new(channel.clone())
            .list(as_(admin, v1::ListBuildsRequest::default()))
            .await
            .unwrap();
        let ask = v1::ListEnvironmentsRequest { all: true };
        let environments =
            v1::environments_client::EnvironmentsClient::new(channel.clone()).list(as_(admin, ask)).await.unwrap();
        let runs = v1::runs_client::RunsClient::new(channel.clone())
            .list(as_(admin, v1::ListRunsRequest::default()))
            .await
            .unwrap();
        let rollouts = v1::rollouts_client::RolloutsClient::new(channel.clone())
            .list(as_(admin, v1::ListRolloutsRequest::default()))
            .await
            .unwrap();
        let tokens = v1::api_tokens_client::ApiTokensClient::new(channel.clone())
            .list(as_(admin, v1::ListApiTokensRequest {}))
            .await
            .unwrap();
        let joins = v1::join_tokens_client::JoinTokensClient::new(channel.clone())
            .list(as_(admin, v1::ListJoinTokensRequest {}))
            .await
            .unwrap();
        format!(
            "{hosts:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?}",
            apps.into_inner(),
            config.into_inner(),
            builds.into_inner(),
            environments.into_inner(),
            runs.into_inner(),
            rollouts.into_inner(),
            tokens.into_inner(),
            joins.into_inner()
        )
    }
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn head(change: impl FnOnce(&mut v1::RegisterBuildHead)) -> Part {
    let mut head = v1::RegisterBuildHead {
        app: "bot".into(),
        commit: COMMIT.into(),
        manifest: MUSTER_YAML.into(),
        ..Default::default()
    };
    change(&mut head);
    Part::Head(head)
}

/// Calls with a message, and hands back how it was refused.
macro_rules! refused {
    ($world:expr, $module:ident :: $client:ident . $method:ident ( $message:expr )) => {
        v1::$module::$client::new($world.channel.clone())
            .max_encoding_message_size(64 << 20)
            .$method(as_(&$world.admin, $message))
            .await
            .map(|_| ())
            .unwrap_err()
    };
}

macro_rules! case {
    ($world:expr, $seen:expr, $code:literal, $status:expr) => {
        let before = $world.state().await;
        let status: Status = $status;
        assert_eq!(reason(&status), $code, "{}", status.message());
        assert!(status.message().starts_with(concat!($code, ": ")), "{}", status.message());
        assert_eq!($world.state().await, before, "{} changed the state", $code);
        $seen.push($code);
    };
}

mod builds;
mod rollouts;
mod tokens;
