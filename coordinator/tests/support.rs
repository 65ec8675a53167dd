//! A coordinator in this process, and what calls it.

use std::sync::Arc;
use std::time::Duration;

use coordinator::app::api_tokens::{self, Create};
use coordinator::config::Config;
use coordinator::serve::{self, Listeners, Running};
use coordinator::store::{NoFaults, PROJECT, Store};
use domain::authorize::{Grant, Principal, Role, Scope};
use domain::ids::PrincipalId;
use domain::name::Name;
use domain::quota::Limits;
use proto::v1;
use proto::v1::agents_client::AgentsClient;
use proto::v1::join_tokens_client::JoinTokensClient;
use rcgen::{CertificateParams, KeyPair};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};
use transport::{Identity, Options, Trust};

pub const MUSTER_YAML: &str = "\
app: bot
processes:
  web: { command: [serve], ports: [8000], health: { http: /health } }
stack: compose.yaml
tests:
  unit: { command: [pytest], service: web }
targets:
  production:
    members: app=bot,env=production
    expose: { web: 8080, mode: http }
    rollout: { min_healthy_time: 1s, bake_time: 0s, final_bake_time: 0s, waves: [100%] }
";
pub const COMPOSE: &str = "services:\n  redis:\n    image: redis:7\n    ports: [\"6379\"]\n";
pub const COMMIT: &str = "4f1c2e04f1c2e04f1c2e04f1c2e04f1c2e04f1c2";
pub const IMAGE: &str = "registry.example/bot@sha256:1111111111111111111111111111111111111111111111111111111111111111";

/// A coordinator on a port of its own.
pub struct Server {
    pub running: Running,
    pub admin: String,
    _folder: tempfile::TempDir,
}

impl Server {
    pub async fn start() -> Self {
        Self::over(Store::memory(Arc::new(NoFaults)).await).await
    }

    pub async fn over(store: Store) -> Self {
        Self::with(store, Limits::default()).await
    }

    /// One that gives each developer so much.
    pub async fn limited(quotas: Limits) -> Self {
        Self::with(Store::memory(Arc::new(NoFaults)).await, quotas).await
    }

    async fn with(store: Store, quotas: Limits) -> Self {
        transport::install_provider();
        let folder = tempfile::tempdir().unwrap();
        let listener = async || TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listeners = Listeners { grpc: listener().await, http: listener().await };
        let config = Config { max_archive_bytes: 1 << 20, quotas, ..Config::in_folder(folder.path()) };
        let running = serve::start_over(&config, listeners, store).await.unwrap();
        let admin = std::fs::read_to_string(folder.path().join("admin.token")).unwrap_or_default();
        Self { running, admin: admin.trim().to_owned(), _folder: folder }
    }

    pub fn trust(&self) -> Trust {
        Trust::Ca(self.running.ca.clone())
    }

    /// A connection without a certificate.
    pub async fn channel(&self) -> Channel {
        self.connect(None).await
    }

    pub async fn connect(&self, identity: Option<&Identity>) -> Channel {
        let endpoint = self.running.address.to_string();
        transport::connect(&endpoint, &self.trust(), identity, Options::default()).await.unwrap()
    }

    /// A principal with a token.
    pub async fn token(&self, principal: &str, role: &str, scope: &str) -> String {
        let create = Create { principal, role, scope, ttl: 0 };
        let (_, token) =
            api_tokens::create(&self.running.api.app, &self.admin_principal(), &create, None).await.unwrap();
        token.reveal()
    }

    fn admin_principal(&self) -> Principal {
        Principal {
            id: PrincipalId::new(uuid::Uuid::from_u128(1)),
            name: Name::new("principal", "tests").unwrap(),
            project: PROJECT.to_owned(),
            grant: Grant { role: Role::Admin, scope: Scope::Project },
        }
    }

    /// Applies the app `bot` and registers a build of it.
    pub async fn bot(&self) -> v1::Build {
        let mut apps = v1::apps_client::AppsClient::new(self.channel().await);
        let apply = v1::ApplyAppRequest {
            manifest: MUSTER_YAML.to_owned(),
            repository: "https://git.example/bot.git".to_owned(),
            ..v1::ApplyAppRequest::default()
        };
        apps.apply(as_(&self.admin, apply)).await.unwrap();
        self.build(COMMIT, MUSTER_YAML).await.unwrap()
    }

    pub async fn build(&self, commit: &str, manifest: &str) -> Result<v1::Build, Status> {
        let head = v1::RegisterBuildHead {
            app: "bot".to_owned(),
            commit: commit.to_owned(),
            manifest: manifest.to_owned(),
            image: IMAGE.to_owned(),
            ..v1::RegisterBuildHead::default()
        };
        self.register(vec![v1::register_build_request::Part::Head(head)]).await
    }

    pub async fn register(&self, parts: Vec<v1::register_build_request::Part>) -> Result<v1::Build, Status> {
        let mut builds = v1::builds_client::BuildsClient::new(self.channel().await);
        let stream = tokio_stream::iter(parts.into_iter().map(|part| v1::RegisterBuildRequest { part: Some(part) }));
        Ok(builds.register(as_(&self.admin, stream)).await?.into_inner())
    }

    pub async fn join_token(&self, host: &str, labels: &str) -> String {
        let labels = domain::label::parse_labels(labels).unwrap();
        let ask = v1::CreateJoinTokenRequest { host: host.to_owned(), labels, ..Default::default() };
        let mut tokens = JoinTokensClient::new(self.channel().await);
        tokens.create(as_(&self.admin, ask)).await.unwrap().into_inner().secret
    }

    /// A host that has joined.
    pub async fn host(&self, name: &str, labels: &str) -> Host {
        let token = self.join_token(name, labels).await;
        let key = KeyPair::generate().unwrap();
        let ask = v1::JoinRequest { token, csr: csr(&key), facts: Some(facts()) };
        let joined = AgentsClient::new(self.channel().await).join(ask).await.unwrap().into_inner();
        Host::new(joined, &key)
    }

    /// The ledger's events of a kind, oldest first.
    pub async fn events(&self, kind: &str) -> Vec<v1::Event> {
        let mut events = v1::events_client::EventsClient::new(self.channel().await);
        let ask = v1::ListEventsRequest { limit: 1000, ..Default::default() };
        let all = events.list(as_(&self.admin, ask)).await.unwrap().into_inner().events;
        all.into_iter().filter(|event| event.kind == kind).collect()
    }
}

/// A request with a token.
pub fn as_<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    if !token.is_empty() {
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    }
    request
}

/// The reason code of a refusal, as programs see it.
pub fn reason(status: &Status) -> String {
    let reason = status.metadata().get("muster-reason").map(|value| value.to_str().unwrap().to_owned());
    reason.unwrap_or_else(|| format!("{:?} {}", status.code(), status.message()))
}

pub fn csr(key: &KeyPair) -> Vec<u8> {
    CertificateParams::default().serialize_request(key).unwrap().der().to_vec()
}

pub fn facts() -> v1::Facts {
    v1::Facts {
        agent_version: "0.1.0".to_owned(),
        boot_id: "boot-1".to_owned(),
        platform: "linux/amd64".to_owned(),
        memory_bytes: 8 << 30,
        memory_available_bytes: 4 << 30,
        disk_bytes: 100 << 30,
        disk_available_bytes: 50 << 30,
        cpus: 2,
        engine_version: "28.2".to_owned(),
        ..v1::Facts::default()
    }
}

/// A joined host with its certificate.
#[derive(Clone, Debug)]
pub struct Host {
    pub id: String,
    pub identity: Identity,
}

impl Host {
    pub fn new(joined: v1::JoinResponse, key: &KeyPair) -> Self {
        let identity = Identity::new(joined.chain, key.serialize_der()).unwrap();
        Self { id: joined.host_id, identity }
    }

    /// Opens a session and says Hello.
    pub async fn session(&self, server: &Server, hello: v1::Hello) -> Session {
        let mut client = AgentsClient::new(server.connect(Some(&self.identity)).await);
        let (sender, receiver) = mpsc::channel(64);
        let session = async {
            let hello = v1::AgentMessage { message: Some(v1::agent_message::Message::Hello(hello)) };
            sender.send(hello).await.unwrap();
            client.session(ReceiverStream::new(receiver)).await.unwrap().into_inner()
        };
        let incoming = session.await;
        Session { sender, incoming, client }
    }

    /// A session that is ready for orders.
    pub async fn ready(&self, server: &Server) -> Session {
        let mut session = self.session(server, hello()).await;
        let welcome = session.next().await;
        assert!(matches!(welcome.message, Some(v1::coordinator_message::Message::Welcome(_))), "{welcome:?}");
        session
    }
}

pub fn hello() -> v1::Hello {
    v1::Hello {
        agent_version: "0.1.0".to_owned(),
        facts: Some(facts()),
        process_id: "1".to_owned(),
        ..Default::default()
    }
}

/// An open session, the agent's side.
pub struct Session {
    pub sender: mpsc::Sender<v1::AgentMessage>,
    pub incoming: Streaming<v1::CoordinatorMessage>,
    pub client: AgentsClient<Channel>,
}

impl Session {
    pub async fn send(&self, message: v1::agent_message::Message) {
        self.sender.send(v1::AgentMessage { message: Some(message) }).await.unwrap();
    }

    /// The next message; a test that waits for one which never comes ends.
    pub async fn next(&mut self) -> v1::CoordinatorMessage {
        self.try_next().await.unwrap().expect("the session ended")
    }

    pub async fn try_next(&mut self) -> Result<Option<v1::CoordinatorMessage>, Status> {
        tokio::time::timeout(Duration::from_secs(10), self.incoming.message()).await.expect("no message within 10 s")
    }
}

/// Asks again until it is so.
pub async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    for _ in 0..1000 {
        if let Some(found) = look().await {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not within 10 s: {what}");
}
