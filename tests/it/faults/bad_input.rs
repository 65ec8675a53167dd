//! Bad input: each is refused with its own reason code, and changes nothing.

use std::future::Future;
use std::pin::Pin;

use proto::v1;
use tests::harness::cluster::Cluster;
use tests::harness::grpc::{Client, runtime};
use tonic::Status;

type Answer<'a> = Pin<Box<dyn Future<Output = Result<(), Status>> + 'a>>;

/// What is wrong with a call, the code that says so, and the call.
struct Case {
    what: &'static str,
    code: &'static str,
    call: fn(&Client) -> Answer<'_>,
}

macro_rules! cases {
    ($($what:literal => $code:literal, |$client:ident| $call:expr;)*) => {
        vec![$(Case { what: $what, code: $code, call: |$client| Box::pin(async move { $call.await.map(drop) }) },)*]
    };
}

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const APP: &str = "app: echo\nprocesses:\n  web: { command: [serve], ports: [8000], health: { tcp: true } }\n\
                   targets:\n  production:\n    members: app=echo\n    expose: { web: 8080, mode: tcp }\n";

fn up(stack: &str) -> v1::UpEnvironmentRequest {
    v1::UpEnvironmentRequest {
        name: "dev".to_owned(),
        stack_file: stack.to_owned(),
        file: "compose.yaml".to_owned(),
        idempotency_key: "k".to_owned(),
        ..Default::default()
    }
}

fn apply(manifest: &str) -> v1::ApplyAppRequest {
    v1::ApplyAppRequest { manifest: manifest.to_owned(), file: "muster.yaml".to_owned(), ..Default::default() }
}

fn rollout(target: &str) -> v1::StartRolloutRequest {
    v1::StartRolloutRequest { target: target.to_owned(), commit: COMMIT.to_owned(), ..Default::default() }
}

fn with_override(key: &str, value: &str) -> v1::StartRolloutRequest {
    let overrides = [(key.to_owned(), value.to_owned())].into();
    v1::StartRolloutRequest { overrides, ..rollout("echo/production") }
}

fn run(app: &str, tests: &str, commit: &str) -> v1::StartRunRequest {
    let text = str::to_owned;
    v1::StartRunRequest { app: text(app), tests: text(tests), commit: text(commit), ..Default::default() }
}

fn set(key: &str, value: &str) -> v1::SetConfigRequest {
    let set = [(key.to_owned(), value.to_owned())].into();
    v1::SetConfigRequest { target: "echo/production".to_owned(), set, ..Default::default() }
}

fn join_token(host: &str, ttl_micros: u64) -> v1::CreateJoinTokenRequest {
    v1::CreateJoinTokenRequest { host: host.to_owned(), ttl_micros, ..Default::default() }
}

fn api_token(principal: &str, role: &str, scope: &str, ttl_micros: u64) -> v1::CreateApiTokenRequest {
    let text = str::to_owned;
    v1::CreateApiTokenRequest {
        principal: text(principal),
        role: text(role),
        scope: text(scope),
        ttl_micros,
        ..Default::default()
    }
}

fn label(host: &str, key: &str, value: &str) -> v1::LabelHostRequest {
    v1::LabelHostRequest { host: host.to_owned(), set: [(key.to_owned(), value.to_owned())].into(), unset: Vec::new() }
}

fn build(app: &str, commit: &str, image: &str, manifest: &str) -> v1::RegisterBuildRequest {
    let text = str::to_owned;
    head(v1::RegisterBuildHead {
        app: text(app),
        commit: text(commit),
        image: text(image),
        manifest: text(manifest),
        file: text("muster.yaml"),
        platform: text("linux/amd64"),
        ..Default::default()
    })
}

fn head(head: v1::RegisterBuildHead) -> v1::RegisterBuildRequest {
    v1::RegisterBuildRequest { part: Some(v1::register_build_request::Part::Head(head)) }
}

fn data(bytes: &[u8]) -> v1::RegisterBuildRequest {
    v1::RegisterBuildRequest { part: Some(v1::register_build_request::Part::Data(bytes.to_vec().into())) }
}

fn stream(
    parts: Vec<v1::RegisterBuildRequest>,
) -> impl tonic::IntoStreamingRequest<Message = v1::RegisterBuildRequest> {
    tokio_stream::iter(parts)
}

fn stacks() -> Vec<Case> {
    cases! {
        "not YAML" => "E_STACK_SYNTAX", |c| c.environments().up(up("services: [unclosed"));
        "a tab of keys that Compose lacks" => "E_STACK_UNKNOWN_KEY", |c| c.environments().up(up("services:\n  a: { image: redis:7, imagee: x }\n"));
        "the host's network" => "E_STACK_REFUSED", |c| c.environments().up(up("services:\n  a: { image: redis:7, privileged: true }\n"));
        "an absolute path" => "E_STACK_REFUSED", |c| c.environments().up(up("services:\n  a: { image: redis:7, volumes: ['/etc:/x'] }\n"));
        "a path that climbs out" => "E_STACK_OUTSIDE_FOLDER", |c| c.environments().up(up("services:\n  a: { image: redis:7, volumes: ['../x:/x'] }\n"));
        "services that wait for each other" => "E_STACK_DEPENDENCY_CYCLE", |c| c.environments().up(up("services:\n  a: { image: r, depends_on: [b] }\n  b: { image: r, depends_on: [a] }\n"));
        "a dependency that is not there" => "E_STACK_DEPENDENCY_UNKNOWN", |c| c.environments().up(up("services:\n  a: { image: r, depends_on: [b] }\n"));
        "a port above 65535" => "E_STACK_PORT", |c| c.environments().up(up("services:\n  a: { image: r, ports: ['99999'] }\n"));
        "a required variable" => "E_STACK_VARIABLE", |c| c.environments().up(up("services:\n  a: { image: '${X:?set it}' }\n"));
        "an image that is none" => "E_IMAGE_REF", |c| c.environments().up(up("services:\n  a: { image: 'Not An Image' }\n"));
        "a key twice" => "E_STACK_DUPLICATE_KEY", |c| c.environments().up(up("services:\n  a: { image: r }\n  a: { image: r }\n"));
        "nested too deep" => "E_STACK_TOO_DEEP", |c| c.environments().up(up(&format!("services: {}{}", "[".repeat(80), "]".repeat(80))));
        "a volume that nothing declares" => "E_STACK_REFERENCE", |c| c.environments().up(up("services:\n  a: { image: r, volumes: ['data:/x'] }\n"));
        "an environment's name" => "E_NAME", |c| c.environments().up(v1::UpEnvironmentRequest { name: "Ümlaut".to_owned(), ..up("services:\n  a: { image: redis:7 }\n") });
        "no host" => "E_ENV_NO_HOST", |c| c.environments().up(up("services:\n  a: { image: redis:7 }\n"));
    }
}

fn manifests() -> Vec<Case> {
    cases! {
        "not YAML" => "E_MANIFEST_SYNTAX", |c| c.apps().apply(apply("app: [x"));
        "an unknown key" => "E_MANIFEST_UNKNOWN_KEY", |c| c.apps().apply(apply(&APP.replace("members", "membres")));
        "a name" => "E_MANIFEST_NAME", |c| c.apps().apply(apply(&APP.replace("app: echo", "app: Echo!")));
        "a selector" => "E_MANIFEST_SELECTOR", |c| c.apps().apply(apply(&APP.replace("app=echo", "app")));
        "a duration" => "E_MANIFEST_DURATION", |c| c.apps().apply(apply(&format!("{APP}    rollout: {{ min_healthy_time: soon }}\n")));
        "a port" => "E_MANIFEST_RANGE", |c| c.apps().apply(apply(&APP.replace("8080", "80800")));
        "a reference" => "E_MANIFEST_REFERENCE", |c| c.apps().apply(apply(&APP.replace("{ web: 8080", "{ wob: 8080")));
        "nothing in it" => "E_MANIFEST_MISSING_KEY", |c| c.apps().apply(apply("app: echo\n"));
        "larger than 1 MiB" => "E_MANIFEST_TOO_LARGE", |c| c.apps().apply(apply(&format!("{APP}# {}\n", "x".repeat(1 << 20))));
        "a repository that no git fetches" => "E_GIT_URL", |c| c.apps().apply(v1::ApplyAppRequest { repository: "ext::sh -c x".to_owned(), ..apply(APP) });
    }
}

fn requests() -> Vec<Case> {
    cases! {
        "a target without app" => "E_TARGET_REF", |c| c.rollouts().start(rollout("production"));
        "an app that is not there" => "E_APP_NOT_FOUND", |c| c.rollouts().start(rollout("nobody/production"));
        "a target that is not there" => "E_TARGET_NOT_FOUND", |c| c.rollouts().start(rollout("echo/nowhere"));
        "a commit nobody registered" => "E_BUILD_NOT_FOUND", |c| c.rollouts().start(rollout("echo/production"));
        "a short commit" => "E_GIT_COMMIT", |c| c.rollouts().start(v1::StartRolloutRequest { commit: "0123".to_owned(), ..rollout("echo/production") });
        "a commit and a build" => "E_AMBIGUOUS", |c| c.rollouts().start(v1::StartRolloutRequest { release: 1, ..rollout("echo/production") });
        "a release that is not there" => "E_RELEASE_NOT_FOUND", |c| c.rollouts().start(v1::StartRolloutRequest { commit: String::new(), release: 9, ..rollout("echo/production") });
        "an override that does not exist" => "E_OVERRIDE", |c| c.rollouts().start(with_override("max_luck", "7"));
        "an override of a wrong kind" => "E_OVERRIDE", |c| c.rollouts().start(with_override("min_healthy_time", "soon"));
        "an override that smuggles YAML" => "E_OVERRIDE", |c| c.rollouts().start(with_override("canary", "1 } , x: { y: 1"));
        "a rollout that is not there" => "E_ROLLOUT_NOT_FOUND", |c| c.rollouts().status(v1::RolloutRequest { rollout: "019a00000000".to_owned() });
        "a run of an unknown app" => "E_APP_NOT_FOUND", |c| c.runs().start(run("nobody", "unit", COMMIT));
        "a run of unknown tests" => "E_TESTS_NOT_FOUND", |c| c.runs().start(run("echo", "unit", COMMIT));
        "a run that is not there" => "E_RUN_NOT_FOUND", |c| c.runs().show(v1::ShowRunRequest { run: "019a00000000".to_owned() });
        "a setting's name" => "E_CONFIG_KEY", |c| c.config().set(set("NOT-A-NAME", "1"));
        "no setting" => "E_CONFIG_EMPTY", |c| c.config().set(v1::SetConfigRequest { target: "echo/production".to_owned(), ..Default::default() });
        "a setting that is not there" => "E_CONFIG_UNKNOWN", |c| c.config().set(v1::SetConfigRequest { target: "echo/production".to_owned(), unset: vec!["X".to_owned()], ..Default::default() });
        "a setting that is too long" => "E_TOO_LARGE", |c| c.config().set(set("LONG", &"x".repeat(2 << 20)));
        "an environment that is not there" => "E_ENV_NOT_FOUND", |c| c.environments().down(v1::DownEnvironmentRequest { environment: "nothing".to_owned() });
        "a key that is too long" => "E_IDEMPOTENCY_KEY", |c| c.rollouts().start(v1::StartRolloutRequest { idempotency_key: "k".repeat(1000), ..rollout("echo/production") });
    }
}

fn administration() -> Vec<Case> {
    cases! {
        "a host's name" => "E_NAME", |c| c.join_tokens().create(join_token("web_1", 0));
        "a lifetime of a year" => "E_TTL", |c| c.join_tokens().create(join_token("web-1", 31_536_000_000_000));
        "a label" => "E_LABELS", |c| c.join_tokens().create(v1::CreateJoinTokenRequest { labels: [("a b".to_owned(), "c".to_owned())].into(), ..join_token("web-1", 0) });
        "a selector" => "E_SELECTOR", |c| c.hosts().list(v1::ListHostsRequest { selector: "app".to_owned() });
        "a host that is not there" => "E_HOST_NOT_FOUND", |c| c.hosts().label(label("nobody", "a", "b"));
        "a role" => "E_ROLE", |c| c.api_tokens().create(api_token("eve", "root", "", 0));
        "a scope" => "E_SCOPE", |c| c.api_tokens().create(api_token("eve", "developer", "a/b/c", 0));
        "a principal's name" => "E_NAME", |c| c.api_tokens().create(api_token("", "developer", "", 0));
        "a token's lifetime" => "E_TTL", |c| c.api_tokens().create(api_token("eve", "developer", "", 1));
        "an api-token that is not there" => "E_API_TOKEN_NOT_FOUND", |c| c.api_tokens().revoke(v1::RevokeApiTokenRequest { id: "00000000-0000-7000-8000-000000000001".to_owned() });
        "a join-token that is not there" => "E_JOIN_TOKEN_NOT_FOUND", |c| c.join_tokens().revoke(v1::RevokeJoinTokenRequest { id: "00000000-0000-7000-8000-000000000001".to_owned() });
        "no token" => "E_UNAUTHENTICATED", |c| async { c.with_token("").hosts().list(v1::ListHostsRequest::default()).await };
        "a wrong token" => "E_UNAUTHENTICATED", |c| async { c.with_token("mt_000000000000_x").hosts().list(v1::ListHostsRequest::default()).await };
    }
}

fn builds() -> Vec<Case> {
    const IMAGE: &str =
        "registry.example.com/echo@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    cases! {
        "an image without digest" => "E_IMAGE_NOT_PINNED", |c| async { c.builds().register(stream(vec![build("echo", COMMIT, "echo:latest", APP)])).await };
        "a short commit" => "E_GIT_COMMIT", |c| async { c.builds().register(stream(vec![build("echo", "0123", IMAGE, APP)])).await };
        "another app's file" => "E_MANIFEST_APP", |c| async { c.builds().register(stream(vec![build("echo", COMMIT, IMAGE, &APP.replace("app: echo", "app: other"))])).await };
        "an unknown app" => "E_APP_NOT_FOUND", |c| async { c.builds().register(stream(vec![build("nobody", COMMIT, IMAGE, &APP.replace("app: echo", "app: nobody"))])).await };
        "data before the head" => "E_STREAM", |c| async { c.builds().register(stream(vec![data(b"x")])).await };
        "nothing at all" => "E_STREAM", |c| async { c.builds().register(stream(Vec::new())).await };
        "no archive" => "E_ARCHIVE", |c| async { c.builds().register(stream(vec![build("echo", COMMIT, "", APP), data(b"this is no archive")])).await };
        "a cut archive" => "E_ARCHIVE", |c| async { c.builds().register(stream(vec![build("echo", COMMIT, "", APP), data(&[0; 700])])).await };
        "a platform" => "E_PLATFORM", |c| async { c.builds().register(stream(vec![head(v1::RegisterBuildHead { app: "echo".to_owned(), commit: COMMIT.to_owned(), manifest: APP.to_owned(), image: IMAGE.to_owned(), platform: "amiga".to_owned(), ..Default::default() })])).await };
    }
}

/// Everything that a call could have changed, as the lists tell it.
fn state(cluster: &Cluster) -> Vec<String> {
    let lists: [&[&str]; 9] = [
        &["host", "list"],
        &["join-token", "list"],
        &["api-token", "list"],
        &["app", "list"],
        &["config", "list", "echo/production"],
        &["env", "list", "--all"],
        &["build", "list", "echo"],
        &["run", "list"],
        &["rollout", "list"],
    ];
    lists.iter().map(|words| cluster.muster(&[words, ["--output", "json"].as_slice()].concat()).ok().stdout).collect()
}

#[test]
fn each_is_refused_with_its_own_code_and_changes_nothing() {
    let cluster = Cluster::start();
    let file = cluster.folder().join("muster.yaml");
    std::fs::write(&file, APP).expect("muster.yaml");
    cluster.muster(&["app", "apply", "--file", &file.to_string_lossy()]).ok();
    let before = state(&cluster);
    let cases: Vec<Case> =
        [stacks(), manifests(), requests(), administration(), builds()].into_iter().flatten().collect();
    let codes: std::collections::BTreeSet<&str> = cases.iter().map(|case| case.code).collect();
    assert!(codes.len() >= 40, "{} different codes", codes.len());
    let runtime = runtime();
    let client = runtime.block_on(Client::connect(&cluster, "admin"));
    let mut wrong = Vec::new();
    for case in cases {
        let got = match runtime.block_on((case.call)(&client)) {
            Ok(()) => "it was accepted".to_owned(),
            Err(status) => reason(&status),
        };
        if got != case.code {
            wrong.push(format!("{}: {} expected, {got}", case.what, case.code));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(state(&cluster), before);
}

/// The reason code in the status's metadata, which its message must begin with.
fn reason(status: &Status) -> String {
    let told = status.metadata().get("muster-reason").and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !told.is_empty() && status.message().starts_with(&format!("{told}: ")) {
        return told.to_owned();
    }
    format!("{:?} {:?} {told:?}", status.code(), status.message())
}

#[test]
fn messages_too_large_or_malformed_are_refused_and_the_coordinator_goes_on() {
    let cluster = Cluster::start();
    let before = cluster.muster(&["app", "list", "--output", "json"]).ok().stdout;
    let runtime = runtime();
    let client = runtime.block_on(Client::connect(&cluster, "admin"));
    let huge = apply(&"x".repeat(proto::MAX_MESSAGE + 1));
    let status = runtime.block_on(client.apps().apply(huge)).expect_err("too large");
    assert!(matches!(status.code(), tonic::Code::OutOfRange | tonic::Code::ResourceExhausted), "{status:?}");
    // What no program with our .proto files could have sent: a field's length beyond the message's end.
    let status = runtime.block_on(garbage(&client)).expect_err("malformed");
    assert!(matches!(status.code(), tonic::Code::InvalidArgument | tonic::Code::Internal), "{status:?}");
    let unknown = runtime.block_on(unknown_method(&client)).expect_err("no such method");
    assert!(
        matches!(
            unknown.code(),
            tonic::Code::Unimplemented | tonic::Code::PermissionDenied | tonic::Code::Unauthenticated
        ),
        "{unknown:?}"
    );
    assert_eq!(cluster.muster(&["app", "list", "--output", "json"]).ok().stdout, before);
}

/// Bytes as they are.
#[derive(Default)]
struct Raw;

impl tonic::codec::Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;
    fn encoder(&mut self) -> Self {
        Self
    }
    fn decoder(&mut self) -> Self {
        Self
    }
}

impl tonic::codec::Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;
    fn encode(&mut self, item: Vec<u8>, buffer: &mut tonic::codec::EncodeBuf<'_>) -> Result<(), Status> {
        bytes::BufMut::put_slice(buffer, &item);
        Ok(())
    }
}

impl tonic::codec::Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;
    fn decode(&mut self, buffer: &mut tonic::codec::DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let length = bytes::Buf::remaining(buffer);
        Ok(Some(bytes::Buf::copy_to_bytes(buffer, length).to_vec()))
    }
}

async fn raw(client: &Client, path: &'static str, bytes: Vec<u8>) -> Result<(), Status> {
    let mut grpc = tonic::client::Grpc::new(client.channel());
    grpc.ready().await.map_err(|why| Status::unavailable(why.to_string()))?;
    let mut request = tonic::Request::new(bytes);
    let token = client.bearer();
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().expect("a header"));
    let path = tonic::codegen::http::uri::PathAndQuery::from_static(path);
    grpc.unary(request, path, Raw).await.map(drop)
}

async fn garbage(client: &Client) -> Result<(), Status> {
    raw(client, "/muster.v1.Apps/Apply", vec![0x0a, 0xff, 0xff, 0x7f, 0x01]).await
}

async fn unknown_method(client: &Client) -> Result<(), Status> {
    raw(client, "/muster.v1.Apps/Destroy", Vec::new()).await
}
