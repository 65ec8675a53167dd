//! Bad input: one case per reason code, each with its exact code and with the state unchanged.

use std::collections::BTreeMap;

use domain::ids::{EnvironmentId, RolloutId, RunId};
use proto::v1;
use proto::v1::register_build_request::Part;
use tonic::transport::Channel;
use tonic::{Code, Status};
use uuid::Uuid;

use crate::support::{COMMIT, COMPOSE, Host, MUSTER_YAML, Server, as_, csr, reason};

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

#[tokio::test]
async fn malformed_names_references_and_tokens_are_refused_and_change_nothing() {
    let world = World::new().await;
    let w = &world;
    let mut seen = Vec::new();
    let nobody = Uuid::from_u128(77).to_string();

    // Names, references, selectors, labels.
    case!(
        w,
        seen,
        "E_NAME",
        refused!(
            w,
            join_tokens_client::JoinTokensClient
                .create(v1::CreateJoinTokenRequest { host: "../web".into(), ..Default::default() })
        )
    );
    case!(
        w,
        seen,
        "E_LABELS",
        refused!(
            w,
            hosts_client::HostsClient.label(v1::LabelHostRequest {
                host: "web-1".into(),
                set: map(&[("a", "b,c=d")]),
                unset: vec![]
            })
        )
    );
    case!(
        w,
        seen,
        "E_SELECTOR",
        refused!(w, hosts_client::HostsClient.list(v1::ListHostsRequest { selector: "role".into() }))
    );
    case!(
        w,
        seen,
        "E_HOST_NOT_FOUND",
        refused!(w, hosts_client::HostsClient.show(v1::ShowHostRequest { host: "web-9".into() }))
    );
    case!(
        w,
        seen,
        "E_HOST_EXISTS",
        refused!(
            w,
            join_tokens_client::JoinTokensClient
                .create(v1::CreateJoinTokenRequest { host: "web-1".into(), ..Default::default() })
        )
    );
    case!(
        w,
        seen,
        "E_HOST_REACHABLE",
        refused!(w, hosts_client::HostsClient.remove(v1::RemoveHostRequest { host: "web-1".into(), force: false }))
    );
    case!(
        w,
        seen,
        "E_TARGET_REF",
        refused!(
            w,
            rollouts_client::RolloutsClient
                .start(v1::StartRolloutRequest { target: "bot".into(), ..Default::default() })
        )
    );
    case!(
        w,
        seen,
        "E_TARGET_NOT_FOUND",
        refused!(
            w,
            rollouts_client::RolloutsClient
                .start(v1::StartRolloutRequest { target: "bot/moon".into(), ..Default::default() })
        )
    );
    case!(
        w,
        seen,
        "E_APP_NOT_FOUND",
        refused!(w, apps_client::AppsClient.show(v1::ShowAppRequest { app: "unknown".into() }))
    );
    case!(
        w,
        seen,
        "E_TOO_LARGE",
        refused!(w, hosts_client::HostsClient.list(v1::ListHostsRequest { selector: "a".repeat(5000) }))
    );

    // Tokens.
    case!(
        w,
        seen,
        "E_ROLE",
        refused!(
            w,
            api_tokens_client::ApiTokensClient.create(v1::CreateApiTokenRequest {
                principal: "asha".into(),
                role: "root".into(),
                ..Default::default()
            })
        )
    );
    case!(
        w,
        seen,
        "E_SCOPE",
        refused!(
            w,
            api_tokens_client::ApiTokensClient.create(v1::CreateApiTokenRequest {
                principal: "asha".into(),
                role: "developer".into(),
                scope: "a/b/c".into(),
                ..Default::default()
            })
        )
    );
    case!(
        w,
        seen,
        "E_TTL",
        refused!(
            w,
            api_tokens_client::ApiTokensClient.create(v1::CreateApiTokenRequest {
                principal: "asha".into(),
                role: "developer".into(),
                ttl_micros: u64::MAX,
                ..Default::default()
            })
        )
    );
    case!(
        w,
        seen,
        "E_IDEMPOTENCY_KEY",
        refused!(
            w,
            api_tokens_client::ApiTokensClient.create(v1::CreateApiTokenRequest {
                principal: "asha".into(),
                role: "developer".into(),
                idempotency_key: "a b".into(),
                ..Default::default()
            })
        )
    );
    case!(
        w,
        seen,
        "E_ID",
        refused!(w, api_tokens_client::ApiTokensClient.revoke(v1::RevokeApiTokenRequest { id: "' OR 1=1 --".into() }))
    );
    case!(
        w,
        seen,
        "E_API_TOKEN_NOT_FOUND",
        refused!(w, api_tokens_client::ApiTokensClient.revoke(v1::RevokeApiTokenRequest { id: nobody.clone() }))
    );
    case!(
        w,
        seen,
        "E_JOIN_TOKEN_NOT_FOUND",
        refused!(w, join_tokens_client::JoinTokensClient.revoke(v1::RevokeJoinTokenRequest { id: nobody.clone() }))
    );

    // Who calls.
    let anonymous =
        v1::hosts_client::HostsClient::new(w.channel.clone()).list(v1::ListHostsRequest::default()).await.unwrap_err();
    case!(w, seen, "E_UNAUTHENTICATED", anonymous);
    let viewer = w.server.token("vera", "viewer", "").await;
    let drain = v1::DrainHostRequest { host: "web-1".into() };
    let denied = v1::hosts_client::HostsClient::new(w.channel.clone()).drain(as_(&viewer, drain)).await.unwrap_err();
    case!(w, seen, "E_PERMISSION_DENIED", denied);
    let mut agents = v1::agents_client::AgentsClient::new(w.channel.clone());
    case!(
        w,
        seen,
        "E_JOIN_TOKEN_INVALID",
        agents.join(v1::JoinRequest { token: "jt_x".into(), ..Default::default() }).await.unwrap_err()
    );
    case!(
        w,
        seen,
        "E_CERTIFICATE",
        agents.renew(v1::RenewRequest { csr: csr(&rcgen::KeyPair::generate().unwrap()) }).await.unwrap_err()
    );
    let mut as_host = v1::agents_client::AgentsClient::new(w.server.connect(Some(&w.host.identity)).await);
    case!(w, seen, "E_CSR", as_host.renew(v1::RenewRequest { csr: b"not a request".to_vec() }).await.unwrap_err());
    case!(
        w,
        seen,
        "E_ARTIFACT_NOT_FOUND",
        as_host.fetch(v1::FetchRequest { digest: "0".repeat(64), ..Default::default() }).await.unwrap_err()
    );
    case!(
        w,
        seen,
        "E_FIELD",
        as_host.fetch(v1::FetchRequest { digest: "../../key".into(), ..Default::default() }).await.unwrap_err()
    );
    assert_eq!(seen.len(), 24);
}

#[tokio::test]
async fn malformed_apps_builds_and_settings_are_refused_and_change_nothing() {
    let world = World::new().await;
    let w = &world;
    let mut seen = Vec::new();

    // muster.yaml: the finer code of its first problem.
    let apply = |manifest: &str, repository: &str| v1::ApplyAppRequest {
        manifest: manifest.into(),
        repository: repository.into(),
        ..Default::default()
    };
    case!(w, seen, "E_MANIFEST_SYNTAX", refused!(w, apps_client::AppsClient.apply(apply("app: [", ""))));
    case!(
        w,
        seen,
        "E_MANIFEST_UNKNOWN_KEY",
        refused!(
            w,
            apps_client::AppsClient.apply(apply(&MUSTER_YAML.replace("min_healthy_time", "min_healty_time"), ""))
        )
    );
    case!(
        w,
        seen,
        "E_MANIFEST_DURATION",
        refused!(
            w,
            apps_client::AppsClient
                .apply(apply(&MUSTER_YAML.replace("min_healthy_time: 1s", "min_healthy_time: soon"), ""))
        )
    );
    case!(
        w,
        seen,
        "E_MANIFEST_SELECTOR",
        refused!(
            w,
            apps_client::AppsClient.apply(apply(&MUSTER_YAML.replace("app=bot,env=production", "everything"), ""))
        )
    );
    case!(
        w,
        seen,
        "E_MANIFEST_TOO_LARGE",
        refused!(w, apps_client::AppsClient.apply(apply(&format!("{MUSTER_YAML}# {}", "x".repeat(2 << 20)), "")))
    );
    case!(w, seen, "E_GIT_URL", refused!(w, apps_client::AppsClient.apply(apply(MUSTER_YAML, "ext::sh -c id"))));

    // Settings.
    let set = |pairs: &[(&str, &str)], unset: &[&str]| v1::SetConfigRequest {
        target: "bot/production".into(),
        set: map(pairs),
        unset: unset.iter().map(ToString::to_string).collect(),
        ..Default::default()
    };
    case!(w, seen, "E_CONFIG_KEY", refused!(w, config_client::ConfigClient.set(set(&[("LD PRELOAD", "x")], &[]))));
    case!(w, seen, "E_CONFIG_EMPTY", refused!(w, config_client::ConfigClient.set(set(&[], &[]))));
    case!(w, seen, "E_CONFIG_UNKNOWN", refused!(w, config_client::ConfigClient.set(set(&[], &["NEVER_SET"]))));
    case!(w, seen, "E_AMBIGUOUS", refused!(w, config_client::ConfigClient.set(set(&[("A", "1")], &["A"]))));
    case!(
        w,
        seen,
        "E_TOO_LARGE",
        refused!(w, config_client::ConfigClient.set(set(&[("A", &"x".repeat(40_000))], &[])))
    );

    // Builds.
    let register = async |parts: Vec<Part>| w.server.register(parts).await.unwrap_err();
    case!(w, seen, "E_STREAM", register(vec![Part::Data(vec![1].into())]).await);
    case!(w, seen, "E_GIT_COMMIT", register(vec![head(|head| head.commit = "4f1c2e0".into())]).await);
    case!(
        w,
        seen,
        "E_MANIFEST_APP",
        register(vec![head(|head| head.manifest = MUSTER_YAML.replace("app: bot", "app: other"))]).await
    );
    case!(
        w,
        seen,
        "E_IMAGE_NOT_PINNED",
        register(vec![head(|head| head.image = "registry.example/bot:latest".into())]).await
    );
    case!(w, seen, "E_IMAGE_REF", register(vec![head(|head| head.image = "Not An Image".into())]).await);
    case!(w, seen, "E_PLATFORM", register(vec![head(|head| head.platform = "Linux on amd64".into())]).await);
    case!(w, seen, "E_ARCHIVE", register(vec![head(|_| ()), Part::Data(b"no archive".to_vec().into())]).await);
    case!(
        w,
        seen,
        "E_ARCHIVE_TOO_LARGE",
        register(vec![head(|_| ()), Part::Data(vec![0; (1 << 20) + 1].into())]).await
    );
    case!(w, seen, "E_STREAM", register(vec![head(|_| ()), head(|_| ())]).await);

    // A message beyond the limit never reaches a handler.
    let before = w.state().await;
    let huge = refused!(w, apps_client::AppsClient.apply(apply(&"x".repeat(5 << 20), "")));
    assert_eq!(huge.code(), Code::OutOfRange);
    assert_eq!(w.state().await, before);
    assert_eq!(seen.len(), 20);
}

#[tokio::test]
async fn malformed_environments_runs_and_rollouts_are_refused_and_change_nothing() {
    let world = World::new().await;
    let w = &world;
    let mut seen = Vec::new();

    // Environments.
    let up = |name: &str, stack: &str, host: &str| v1::UpEnvironmentRequest {
        name: name.into(),
        stack_file: stack.into(),
        host: host.into(),
        ..Default::default()
    };
    case!(
        w,
        seen,
        "E_STACK_SYNTAX",
        refused!(w, environments_client::EnvironmentsClient.up(up("a", "services: {", "")))
    );
    case!(
        w,
        seen,
        "E_STACK_MISSING_KEY",
        refused!(w, environments_client::EnvironmentsClient.up(up("a", "services:\n  web: {}\n", "")))
    );
    case!(
        w,
        seen,
        "E_STACK_DEPENDENCY_UNKNOWN",
        refused!(
            w,
            environments_client::EnvironmentsClient.up(up(
                "a",
                "services:\n  web: { image: x, depends_on: [y] }\n",
                ""
            ))
        )
    );
    case!(w, seen, "E_FIELD", refused!(w, environments_client::EnvironmentsClient.up(up("", COMPOSE, ""))));
    case!(
        w,
        seen,
        "E_ENV_NOT_FOUND",
        refused!(
            w,
            environments_client::EnvironmentsClient
                .show(v1::ShowEnvironmentRequest { environment: "nobody/none".into() })
        )
    );
    case!(
        w,
        seen,
        "E_ENV_NOT_FOUND",
        refused!(
            w,
            environments_client::EnvironmentsClient
                .down(v1::DownEnvironmentRequest { environment: EnvironmentId::new(Uuid::nil()).to_string() })
        )
    );
    w.server.host("away", "").await;
    case!(w, seen, "E_ENV_NO_HOST", refused!(w, environments_client::EnvironmentsClient.up(up("a", COMPOSE, "away"))));

    // Runs.
    let run = |tests: &str, commit: &str, build: &str| v1::StartRunRequest {
        app: "bot".into(),
        tests: tests.into(),
        commit: commit.into(),
        build: build.into(),
        ..Default::default()
    };
    case!(w, seen, "E_TESTS_NOT_FOUND", refused!(w, runs_client::RunsClient.start(run("nightly", COMMIT, ""))));
    case!(w, seen, "E_GIT_COMMIT", refused!(w, runs_client::RunsClient.start(run("unit", "--upload-pack=id", ""))));
    case!(w, seen, "E_FIELD", refused!(w, runs_client::RunsClient.start(run("unit", "", ""))));
    case!(
        w,
        seen,
        "E_AMBIGUOUS",
        refused!(w, runs_client::RunsClient.start(run("unit", COMMIT, &Uuid::nil().to_string())))
    );
    case!(
        w,
        seen,
        "E_BUILD_NOT_FOUND",
        refused!(w, runs_client::RunsClient.start(run("unit", "", &Uuid::nil().to_string())))
    );
    case!(
        w,
        seen,
        "E_RUN_NOT_FOUND",
        refused!(w, runs_client::RunsClient.show(v1::ShowRunRequest { run: RunId::new(Uuid::nil()).to_string() }))
    );
    case!(
        w,
        seen,
        "E_RUN_ENDED",
        refused!(w, runs_client::RunsClient.cancel(v1::ShowRunRequest { run: w.finished_run.clone() }))
    );

    // Rollouts.
    let start = |change: &dyn Fn(&mut v1::StartRolloutRequest)| {
        let mut ask = v1::StartRolloutRequest { target: "bot/production".into(), ..Default::default() };
        change(&mut ask);
        ask
    };
    case!(
        w,
        seen,
        "E_BUILD_NOT_FOUND",
        refused!(w, rollouts_client::RolloutsClient.start(start(&|ask| ask.commit = "0".repeat(40))))
    );
    case!(
        w,
        seen,
        "E_RELEASE_NOT_FOUND",
        refused!(w, rollouts_client::RolloutsClient.start(start(&|ask| ask.release = 99)))
    );
    case!(
        w,
        seen,
        "E_OVERRIDE",
        refused!(
            w,
            rollouts_client::RolloutsClient.start(start(&|ask| ask.overrides = map(&[("max_parallel", "all")])))
        )
    );
    case!(
        w,
        seen,
        "E_MINIMUM_HEALTHY_IMPOSSIBLE",
        refused!(
            w,
            rollouts_client::RolloutsClient.start(start(&|ask| ask.overrides = map(&[("minimum_healthy_hosts", "5")])))
        )
    );
    case!(
        w,
        seen,
        "E_ROLLOUT_NOT_FOUND",
        refused!(
            w,
            rollouts_client::RolloutsClient
                .status(v1::RolloutRequest { rollout: RolloutId::new(Uuid::nil()).to_string() })
        )
    );
    case!(
        w,
        seen,
        "E_ROLLOUT_ENDED",
        refused!(
            w,
            rollouts_client::RolloutsClient
                .pause(v1::ChangeRolloutRequest { rollout: w.rollout.clone(), ..Default::default() })
        )
    );
    case!(
        w,
        seen,
        "E_NO_PREVIOUS",
        refused!(
            w,
            rollouts_client::RolloutsClient
                .revert(v1::ChangeRolloutRequest { rollout: w.rollout.clone(), ..Default::default() })
        )
    );
    assert_eq!(seen.len(), 21);
}
