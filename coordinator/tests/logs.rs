//! Logs of environments on their way from the host to the client.

use proto::v1;
use proto::v1::coordinator_message::Message as Down;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::support::{COMPOSE, Host, Server, Session, as_, reason};

struct Stand {
    server: Server,
    host: Host,
    session: Session,
    asha: String,
}

impl Stand {
    async fn new() -> Self {
        let server = Server::start().await;
        let host = server.host("box", "owner=asha").await;
        let mut session = host.ready(&server).await;
        let asha = server.token("asha", "developer", "").await;
        let mut environments = v1::environments_client::EnvironmentsClient::new(server.channel().await);
        let up =
            v1::UpEnvironmentRequest { name: "mine".to_owned(), stack_file: COMPOSE.to_owned(), ..Default::default() };
        environments.up(as_(&asha, up)).await.unwrap();
        let Some(Down::Environment(_)) = session.next().await.message else { panic!("no order") };
        Self { server, host, session, asha }
    }

    /// A client follows; what the host is asked for.
    async fn follow(&mut self, since: Vec<v1::LogPlace>) -> (Streaming<v1::LogChunk>, v1::LogsOrder) {
        let mut environments = v1::environments_client::EnvironmentsClient::new(self.server.channel().await);
        let environment = "asha/mine".to_owned();
        let ask = v1::EnvironmentLogsRequest { environment, follow: true, since, ..Default::default() };
        let chunks = environments.logs(as_(&self.asha, ask)).await.unwrap().into_inner();
        let Some(Down::Logs(order)) = self.session.next().await.message else { panic!("no order for logs") };
        (chunks, order)
    }

    /// The host's Logs stream.
    async fn logs(&mut self) -> (mpsc::Sender<v1::AgentLog>, Streaming<v1::AgentLogAck>) {
        let (sender, receiver) = mpsc::channel(8);
        let acks = self.session.client.logs(ReceiverStream::new(receiver)).await.unwrap().into_inner();
        (sender, acks)
    }
}

fn log(order: &v1::LogsOrder, chunk: v1::LogChunk) -> v1::AgentLog {
    v1::AgentLog { key: format!("order:{}", order.order), chunk: Some(chunk) }
}

fn line(at: u64) -> v1::LogChunk {
    v1::LogChunk { source: "redis".to_owned(), data: "a line\n".into(), at, error: true, ..Default::default() }
}

/// Comes back later, and is no end.
async fn breaks(chunks: &mut Streaming<v1::LogChunk>) {
    let ended = chunks.message().await.unwrap_err();
    assert_eq!((reason(&ended).as_str(), ended.code()), ("E_HOST_UNREACHABLE", tonic::Code::Unavailable), "{ended}");
}

#[tokio::test]
async fn places_go_to_the_host_and_instants_to_the_client_also_without_a_line() {
    let mut stand = Stand::new().await;
    let since = vec![v1::LogPlace { source: "redis".to_owned(), error: true, at: 41 }];
    let (mut chunks, order) = stand.follow(since.clone()).await;
    assert_eq!((order.since.clone(), order.follow), (since, true));
    let (up, _acks) = stand.logs().await;
    let place = v1::LogChunk { source: "web".to_owned(), at: 7, ..Default::default() };
    let opening = v1::LogChunk::default();
    let end = v1::LogChunk { offset: 7, end: true, ..Default::default() };
    for chunk in [opening, line(42), place.clone(), end.clone()] {
        up.send(log(&order, chunk)).await.unwrap();
    }
    for expected in [line(42), place, end] {
        assert_eq!(chunks.message().await.unwrap(), Some(expected));
    }
    assert_eq!(chunks.message().await.unwrap(), None);
}

#[tokio::test]
async fn a_client_learns_that_its_host_went_before_and_within_the_answer() {
    let mut stand = Stand::new().await;
    let (mut asked, _) = stand.follow(Vec::new()).await;
    let (mut answered, order) = stand.follow(Vec::new()).await;
    let (up, _acks) = stand.logs().await;
    up.send(log(&order, line(1))).await.unwrap();
    assert_eq!(answered.message().await.unwrap(), Some(line(1)));
    // Another start of the agent.
    let mut newer = stand.host.ready(&stand.server).await;
    let Some(Down::Environment(_)) = newer.next().await.message else { panic!("no order") };
    breaks(&mut asked).await;
    breaks(&mut answered).await;
    stand.session = newer;

    // Its Logs stream alone.
    let (mut chunks, order) = stand.follow(Vec::new()).await;
    let (up, _acks) = stand.logs().await;
    up.send(log(&order, line(2))).await.unwrap();
    assert_eq!(chunks.message().await.unwrap(), Some(line(2)));
    drop(up);
    breaks(&mut chunks).await;
}

#[tokio::test]
async fn too_many_places_are_refused() {
    let stand = Stand::new().await;
    let mut environments = v1::environments_client::EnvironmentsClient::new(stand.server.channel().await);
    let environment = "asha/mine".to_owned();
    let ask =
        v1::EnvironmentLogsRequest { environment, since: vec![v1::LogPlace::default(); 4000], ..Default::default() };
    let refused = environments.logs(as_(&stand.asha, ask)).await.unwrap_err();
    assert_eq!(reason(&refused), "E_TOO_LARGE");
}
