//! Every method × role × own and other, against a table in the repository. A method that is not in the table, or a rule
//! that changes, fails.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use bytes::{Buf, BufMut};
use coordinator::auth::rules::Rules;
use coordinator::error::Error;
use coordinator::store::PROJECT;
use coordinator::store::environment::{EnvironmentRow, Life};
use coordinator::store::run::RunRow;
use coordinator::store::seed::SeedRow;
use domain::environment::{Environment, Observed, Source, Wanted};
use domain::ids::{EnvironmentId, Generation, RunId, SeedId};
use domain::name::Name;
use domain::release::Commit;
use domain::run::{Run, RunState, Subject};
use domain::seed::Seed;
use prost::Message;
use proto::v1;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use uuid::Uuid;

use crate::support::{COMMIT, COMPOSE, Host, MUSTER_YAML, Server, as_};

const TABLE: &str = include_str!("authz.txt");

/// Who calls: a column of the table.
struct Caller {
    column: &'static str,
    token: String,
    channel: Channel,
}

/// Whose things are called upon: asha has an environment and a run; the target is bot/production.
struct World {
    _server: Server,
    environment: String,
    run: String,
    rollout: String,
    seed: String,
}

impl World {
    async fn new() -> (Self, Vec<Caller>) {
        let server = Server::start().await;
        server.bot().await;
        let host = server.host("box", "app=bot,env=production,role=dev").await;
        server.host("victim", "").await;
        let session = host.ready(&server).await;
        let rollout = start_rollout(&server).await;
        drop(session);
        let callers = callers(&server, &host).await;
        let asha = owner(&server).await;
        let (environment, run, seed) = (Uuid::now_v7(), Uuid::now_v7(), SeedId::new(Uuid::now_v7()));
        let host = host.id.parse().unwrap();
        let app = Name::new("app", "bot").unwrap();
        let name = Name::new("seed", "made").unwrap();
        let mut made = Seed::new(seed, name, "1".to_owned(), asha, host, server.running.api.app.now());
        // One that its host still makes: nobody takes it away while the others ask.
        made.app = Some(app.clone());
        let made = SeedRow { project: PROJECT.to_owned(), seed: made, version: 0 };
        let rows = (
            EnvironmentRow {
                project: PROJECT.to_owned(),
                environment: Environment {
                    id: EnvironmentId::new(environment),
                    name: app.clone(),
                    owner: asha,
                    app: Some(app.clone()),
                    host,
                    run: None,
                    stack_file: COMPOSE.to_owned(),
                    variables: BTreeMap::new(),
                    source: Source::None,
                    generation: Generation(1),
                    wanted: Wanted::Up,
                    observed: Observed::nothing(),
                    created_at: server.running.api.app.now(),
                },
                file: String::new(),
                env_files: BTreeMap::new(),
                data: domain::seed::Data::default(),
                gone_at: None,
                life: Life::default(),
                version: 0,
            },
            RunRow {
                project: PROJECT.to_owned(),
                run: open_run(run, asha, &server),
                detail: String::new(),
                version: 0,
            },
        );
        let store = &server.running.api.app.store;
        store
            .write(|tx| {
                Box::pin(async move {
                    tx.environment_put(&rows.0).await?;
                    tx.run_put(&rows.1).await?;
                    tx.seed_put(&made).await?;
                    Ok::<_, Error>(())
                })
            })
            .await
            .unwrap();
        let (environment, run, seed) = (environment.to_string(), run.to_string(), seed.to_string());
        (Self { environment, run, rollout, seed, _server: server }, callers)
    }
}

fn open_run(id: Uuid, owner: domain::ids::PrincipalId, server: &Server) -> Run {
    Run {
        id: RunId::new(id),
        app: Name::new("app", "bot").unwrap(),
        tests: Name::new("tests", "unit").unwrap(),
        subject: Subject::Tree,
        commit: Commit::parse(COMMIT).unwrap(),
        repository: "https://git.example/bot.git".to_owned(),
        manifest: MUSTER_YAML.to_owned(),
        owner,
        host: None,
        environment: None,
        seed: None,
        state: RunState::Queued,
        cancel: true,
        verdict: None,
        reason: None,
        exit_code: None,
        report: None,
        created_at: server.running.api.app.now(),
        assigned_at: None,
        first_line_at: None,
        finished_at: None,
        took: None,
    }
}

async fn start_rollout(server: &Server) -> String {
    let mut rollouts = v1::rollouts_client::RolloutsClient::new(server.channel().await);
    let start = v1::StartRolloutRequest { target: "bot/production".into(), ..Default::default() };
    rollouts.start(as_(&server.admin, start)).await.unwrap().into_inner().id
}

async fn owner(server: &Server) -> domain::ids::PrincipalId {
    let name = Name::new("principal", "asha").unwrap();
    let store = &server.running.api.app.store;
    let row = store.read(|view| Box::pin(async move { view.principal_by_name(PROJECT, &name).await })).await;
    row.unwrap().unwrap().id
}

async fn callers(server: &Server, host: &Host) -> Vec<Caller> {
    let plain = server.channel().await;
    let with_certificate = server.connect(Some(&host.identity)).await;
    let caller = |column, token: String| Caller { column, token, channel: plain.clone() };
    vec![
        caller("nobody", String::new()),
        Caller { column: "host", token: String::new(), channel: with_certificate },
        caller("viewer", server.token("vera", "viewer", "").await),
        caller("dev-own", server.token("asha", "developer", "").await),
        caller("dev-other", server.token("ben", "developer", "").await),
        caller("dev-scoped", server.token("asha", "developer", "other").await),
        caller("deployer", server.token("dora", "deployer", "").await),
        caller("dep-target", server.token("jenkins", "deployer", "bot/production").await),
        caller("dep-scoped", server.token("carl", "deployer", "bot/staging").await),
        caller("admin", server.admin.clone()),
    ]
}

/// A request of each method that would do something.
fn request(world: &World, path: &str) -> Vec<u8> {
    let (target, nobody) = ("bot/production".to_owned(), Uuid::from_u128(9).to_string());
    let environment = world.environment.clone();
    let (run, rollout) = (v1::ShowRunRequest { run: world.run.clone() }, world.rollout.clone());
    let change = v1::ChangeRolloutRequest { rollout: rollout.clone(), ..Default::default() };
    match path.strip_prefix("/muster.v1.").unwrap_or(path) {
        "Agents/Join" => v1::JoinRequest::default().encode_to_vec(),
        "Agents/Renew" => v1::RenewRequest::default().encode_to_vec(),
        "Agents/Session" => v1::AgentMessage::default().encode_to_vec(),
        "Agents/Logs" => v1::AgentLog::default().encode_to_vec(),
        "Agents/Fetch" => v1::FetchRequest::default().encode_to_vec(),
        "Hosts/List" => v1::ListHostsRequest::default().encode_to_vec(),
        "Hosts/Show" => v1::ShowHostRequest { host: "box".into() }.encode_to_vec(),
        "Hosts/Label" => v1::LabelHostRequest { host: "box".into(), ..Default::default() }.encode_to_vec(),
        "Hosts/Drain" | "Hosts/Undrain" => v1::DrainHostRequest { host: "victim".into() }.encode_to_vec(),
        "Hosts/Remove" => v1::RemoveHostRequest { host: "victim".into(), force: true }.encode_to_vec(),
        "JoinTokens/Create" => v1::CreateJoinTokenRequest { host: "new".into(), ..Default::default() }.encode_to_vec(),
        "JoinTokens/List" => v1::ListJoinTokensRequest {}.encode_to_vec(),
        "JoinTokens/Revoke" => v1::RevokeJoinTokenRequest { id: nobody }.encode_to_vec(),
        "ApiTokens/Create" => {
            v1::CreateApiTokenRequest { principal: "new".into(), role: "viewer".into(), ..Default::default() }
                .encode_to_vec()
        }
        "ApiTokens/List" => v1::ListApiTokensRequest {}.encode_to_vec(),
        "ApiTokens/Revoke" => v1::RevokeApiTokenRequest { id: nobody }.encode_to_vec(),
        "ApiTokens/WhoAmI" => v1::Empty {}.encode_to_vec(),
        "Apps/Apply" => v1::ApplyAppRequest { manifest: MUSTER_YAML.into(), ..Default::default() }.encode_to_vec(),
        "Apps/List" => v1::ListAppsRequest {}.encode_to_vec(),
        "Apps/Show" => v1::ShowAppRequest { app: "bot".into() }.encode_to_vec(),
        "Config/Set" => {
            let set = [("A".to_owned(), "1".to_owned())].into();
            v1::SetConfigRequest { target, set, ..Default::default() }.encode_to_vec()
        }
        "Config/List" => v1::ListConfigRequest { target }.encode_to_vec(),
        "Builds/Register" => {
            let head = v1::RegisterBuildHead {
                app: "bot".into(),
                commit: COMMIT.into(),
                manifest: MUSTER_YAML.into(),
                image: crate::support::IMAGE.into(),
                ..Default::default()
            };
            v1::RegisterBuildRequest { part: Some(v1::register_build_request::Part::Head(head)) }.encode_to_vec()
        }
        "Builds/List" => v1::ListBuildsRequest { app: "bot".into() }.encode_to_vec(),
        "Releases/List" => v1::ListReleasesRequest { target }.encode_to_vec(),
        "Releases/Show" => v1::ShowReleaseRequest { target, number: 1 }.encode_to_vec(),
        "Environments/Up" => {
            v1::UpEnvironmentRequest { app: "bot".into(), stack_file: COMPOSE.into(), ..Default::default() }
                .encode_to_vec()
        }
        "Environments/Down" => v1::DownEnvironmentRequest { environment }.encode_to_vec(),
        "Environments/List" => v1::ListEnvironmentsRequest { all: true }.encode_to_vec(),
        "Environments/Show" => v1::ShowEnvironmentRequest { environment }.encode_to_vec(),
        "Environments/Watch" => v1::WatchEnvironmentRequest { environment, follow: false }.encode_to_vec(),
        "Agents/Tunnel" => v1::TunnelFrame::default().encode_to_vec(),
        "Environments/Exec" => {
            let start = v1::ExecStart { environment, ..Default::default() };
            v1::ExecRequest { part: Some(v1::exec_request::Part::Start(start)) }.encode_to_vec()
        }
        "Environments/Forward" => {
            let start = v1::ForwardStart { environment, ..Default::default() };
            v1::ForwardRequest { part: Some(v1::forward_request::Part::Start(start)) }.encode_to_vec()
        }
        "Environments/Keep" => v1::KeepEnvironmentRequest { environment, for_micros: 1_000_000 }.encode_to_vec(),
        "Environments/Restart" => v1::RestartEnvironmentRequest { environment, service: String::new() }.encode_to_vec(),
        "Environments/Rebuild" => v1::RebuildEnvironmentRequest { environment, service: "web".into() }.encode_to_vec(),
        "Environments/Snapshot" => {
            v1::SnapshotEnvironmentRequest { environment, name: "snap".into(), ..Default::default() }.encode_to_vec()
        }
        "Environments/Reset" => v1::ResetEnvironmentRequest { environment, undo: false }.encode_to_vec(),
        "Environments/Diff" => v1::DiffEnvironmentRequest { environment, ..Default::default() }.encode_to_vec(),
        "Environments/Sync" => {
            let start = v1::SyncStart { environment };
            v1::SyncRequest { part: Some(v1::sync_request::Part::Start(start)) }.encode_to_vec()
        }
        "Environments/Logs" => v1::EnvironmentLogsRequest { environment, ..Default::default() }.encode_to_vec(),
        "Seeds/Import" => {
            let head = v1::ImportSeedHead {
                name: "staging".into(),
                app: "bot".into(),
                stack_file: COMPOSE.into(),
                ..Default::default()
            };
            v1::ImportSeedRequest { part: Some(v1::import_seed_request::Part::Head(head)) }.encode_to_vec()
        }
        "Seeds/List" => v1::ListSeedsRequest { snapshots: true, all: true }.encode_to_vec(),
        "Seeds/Pull" => v1::PullSeedRequest { seed: world.seed.clone(), host: String::new() }.encode_to_vec(),
        "Seeds/Show" | "Seeds/Watch" | "Seeds/Remove" | "Seeds/Push" => {
            v1::ShowSeedRequest { seed: world.seed.clone() }.encode_to_vec()
        }
        "Runs/Start" => {
            let ask = v1::StartRunRequest {
                app: "bot".into(),
                tests: "unit".into(),
                commit: COMMIT.into(),
                ..Default::default()
            };
            ask.encode_to_vec()
        }
        "Runs/List" => v1::ListRunsRequest { app: "bot".into() }.encode_to_vec(),
        "Runs/Show" | "Runs/Watch" | "Runs/Cancel" => run.encode_to_vec(),
        "Runs/Logs" => v1::RunLogsRequest { run: run.run, ..Default::default() }.encode_to_vec(),
        "Rollouts/Plan" | "Rollouts/Start" => v1::StartRolloutRequest { target, ..Default::default() }.encode_to_vec(),
        "Rollouts/List" => v1::ListRolloutsRequest { target }.encode_to_vec(),
        "Rollouts/Status" | "Rollouts/Watch" => v1::RolloutRequest { rollout }.encode_to_vec(),
        "Rollouts/Pause" | "Rollouts/Resume" | "Rollouts/Cancel" | "Rollouts/Revert" => change.encode_to_vec(),
        "Events/List" | "Events/Watch" => v1::ListEventsRequest::default().encode_to_vec(),
        // Health, reflection and what does not exist.
        _ => Vec::new(),
    }
}

/// Calls a method by its path; the message is bytes.
async fn call(caller: &Caller, path: &str, message: Vec<u8>) -> Option<Status> {
    let mut grpc = Grpc::new(caller.channel.clone());
    grpc.ready().await.unwrap();
    let mut request = as_(&caller.token, tokio_stream::iter([message]));
    request.set_timeout(std::time::Duration::from_secs(10));
    let request: Request<_> = request;
    grpc.streaming(request, path.parse().unwrap(), Bytes).await.err()
}

fn shown(status: Option<&Status>) -> &'static str {
    match status.map(Status::code) {
        Some(Code::Unauthenticated) => "who?",
        Some(Code::PermissionDenied) => "no",
        _ => "yes",
    }
}

#[tokio::test]
async fn every_method_lets_in_exactly_whom_the_table_says() {
    let (world, callers) = World::new().await;
    let rules = Rules::load().unwrap();
    let mut paths: Vec<String> = rules.iter().map(|(path, _)| path.to_owned()).collect();
    paths.push("/muster.v1.Hosts/DoesNotExist".to_owned());
    let columns: Vec<&str> = callers.iter().map(|caller| caller.column).collect();
    let mut table =
        format!("{:<58}{}\n", "method", columns.iter().map(|column| format!("{column:<11}")).collect::<String>());
    for path in &paths {
        let mut row = String::new();
        for caller in &callers {
            let status = call(caller, path, request(&world, path)).await;
            let _ = write!(row, "{:<11}", shown(status.as_ref()));
        }
        let _ = writeln!(table, "{:<58}{}", path.trim_start_matches('/'), row);
    }
    let table: String = table.lines().map(|line| format!("{}\n", line.trim_end())).collect();
    if std::env::var_os("MUSTER_WRITE_TABLES").is_some() {
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/authz.txt"), &table).unwrap();
    }
    assert_eq!(
        table, TABLE,
        "the access of a method has changed; look at it, then MUSTER_WRITE_TABLES=1 cargo test -p coordinator"
    );
}

#[tokio::test]
async fn a_denied_call_is_in_the_ledger_and_a_flood_of_them_does_not_fill_it() {
    let server = Server::start().await;
    let caller = Caller { column: "nobody", token: "mt_0".to_owned(), channel: server.channel().await };
    for _ in 0..100 {
        assert!(call(&caller, "/muster.v1.Hosts/List", Vec::new()).await.is_some());
    }
    let events = server.events("auth.denied").await;
    assert_eq!(events.len(), 50);
    assert_eq!((events[0].reason.as_str(), events[0].subject.as_str()), ("E_UNAUTHENTICATED", "/muster.v1.Hosts/List"));
    assert!(events[0].text.starts_with("malformed api-token"), "{}", events[0].text);
}

#[tokio::test]
async fn what_a_handler_denies_by_scope_or_owner_is_in_the_ledger_with_its_actor() {
    let server = Server::start().await;
    server.bot().await;
    let token = server.token("carl", "deployer", "bot/staging").await;
    let caller = Caller { column: "dep-scoped", token, channel: server.channel().await };
    let ask = v1::StartRolloutRequest { target: "bot/production".into(), ..Default::default() };
    let status = call(&caller, "/muster.v1.Rollouts/Start", ask.encode_to_vec()).await.unwrap();
    assert_eq!(status.code(), Code::PermissionDenied);
    let events = server.events("auth.denied").await;
    assert_eq!((events.len(), events[0].actor.as_str(), events[0].reason.as_str()), (1, "carl", "E_PERMISSION_DENIED"));
}

/// Messages as they are on the wire.
#[derive(Clone, Copy)]
struct Bytes;

impl Codec for Bytes {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let mut item = vec![0; buffer.remaining()];
        buffer.copy_to_slice(&mut item);
        Ok(Some(item))
    }
}
