//! Sessions of agents: who may, who wins, what is sent, what is acknowledged.

use domain::ids::Fence;
use proto::v1;
use proto::v1::agent_message::Message as Up;
use proto::v1::coordinator_message::Message as Down;

use crate::support::{COMPOSE, Server, as_, facts, hello, reason, until};

async fn host_state(server: &Server, host: &str) -> v1::Host {
    let mut hosts = v1::hosts_client::HostsClient::new(server.channel().await);
    hosts.show(as_(&server.admin, v1::ShowHostRequest { host: host.to_owned() })).await.unwrap().into_inner()
}

#[tokio::test]
async fn a_host_is_syncing_until_its_backlog_is_stored_and_gets_no_order_before() {
    let server = Server::start().await;
    let host = server.host("box", "role=dev").await;
    let mut session = host.session(&server, v1::Hello { backlog: 1, ..hello() }).await;
    assert!(matches!(session.next().await.message, Some(Down::Welcome(_))));
    assert_eq!(host_state(&server, "box").await.liveness(), v1::Liveness::Syncing);
    let result = v1::RunReport {
        id: uuid::Uuid::nil().to_string(),
        state: v1::RunState::Finished.into(),
        result: "r1".to_owned(),
        ..Default::default()
    };
    session.send(Up::Run(result)).await;
    assert_eq!(session.next().await.message, Some(Down::Ack("r1".to_owned())));
    until("the host is ready", async || {
        (host_state(&server, "box").await.liveness() == v1::Liveness::Ready).then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_newest_session_of_a_host_wins() {
    let server = Server::start().await;
    let host = server.host("box", "").await;
    let mut older = host.ready(&server).await;
    let newer = host.ready(&server).await;
    let ended = older.try_next().await.unwrap_err();
    assert_eq!(reason(&ended), "E_SESSION_REPLACED");
    assert_eq!(host_state(&server, "box").await.liveness(), v1::Liveness::Ready);
    drop(newer);
}

/// What a host has heard of, other than this coordinator's own fence.
type Change = fn(Fence) -> Fence;

#[tokio::test]
async fn a_coordinator_that_an_agent_knows_to_be_stale_orders_nothing_and_says_why() {
    let newer = |own: Fence| Fence { epoch: own.epoch + 1, ..own };
    let other = |own: Fence| Fence { incarnation_id: uuid::Uuid::from_u128(99), ..own };
    let cases: [(Change, _, _, _); 3] = [
        (newer, 0, "newer coordinator", true),
        (|own| own, 1_000_000, "old copy", true),
        (other, 0, "another store", false),
    ];
    for (fence, ledger_seq, expected, everywhere) in cases {
        let server = Server::start().await;
        let (host, second) = (server.host("box", "").await, server.host("box-2", "").await);
        let mut open = second.ready(&server).await;
        let fence = fence(server.running.api.app.store.fence());
        let told = v1::Hello { fence: Some(fence.into()), ledger_seq, ..hello() };
        let mut session = host.session(&server, told).await;
        let Some(Down::Refused(why)) = session.next().await.message else { panic!("not refused") };
        assert_eq!(why.code, "E_STALE_COORDINATOR");
        assert!(why.text.contains(expected), "{}", why.text);
        assert_eq!(reason(&session.try_next().await.unwrap_err()), "E_STALE_COORDINATOR");
        assert_eq!(server.events("host.refused_coordinator").await.len(), 1);
        assert_eq!(host_state(&server, "box").await.liveness(), v1::Liveness::Joined);
        // What this cluster has told one host binds it towards all; another cluster's word does not.
        if everywhere {
            assert_eq!(reason(&open.try_next().await.unwrap_err()), "E_STALE_COORDINATOR");
        } else {
            assert_eq!(host_state(&server, "box-2").await.liveness(), v1::Liveness::Ready);
        }
    }
}

#[tokio::test]
async fn what_is_no_session_ends_it() {
    let server = Server::start().await;
    let host = server.host("box", "").await;
    let heartbeat = v1::Heartbeat { sequence: 1, facts: Some(facts()) };
    let mut client = v1::agents_client::AgentsClient::new(server.connect(Some(&host.identity)).await);
    let first = v1::AgentMessage { message: Some(Up::Heartbeat(heartbeat)) };
    let mut answers = client.session(tokio_stream::iter([first])).await.unwrap().into_inner();
    assert_eq!(reason(&answers.message().await.unwrap_err()), "E_SESSION_PROTOCOL");
    let large = v1::Hello { runs: vec!["x".repeat(1000); 1100], ..hello() };
    let mut session = host.session(&server, large).await;
    assert_eq!(reason(&session.try_next().await.unwrap_err()), "E_SESSION_PROTOCOL");
    let mut session = host.ready(&server).await;
    session.send(Up::Hello(hello())).await;
    assert_eq!(reason(&session.try_next().await.unwrap_err()), "E_SESSION_PROTOCOL");
}

#[tokio::test]
async fn orders_are_derived_again_for_each_session_and_acknowledged_results_are_stored() {
    let server = Server::start().await;
    let host = server.host("box", "role=dev").await;
    let mut session = host.ready(&server).await;
    let mut environments = v1::environments_client::EnvironmentsClient::new(server.channel().await);
    let up = v1::UpEnvironmentRequest {
        name: "mine".to_owned(),
        stack_file: COMPOSE.to_owned(),
        ..v1::UpEnvironmentRequest::default()
    };
    let made = environments.up(as_(&server.admin, up)).await.unwrap().into_inner();
    let Some(Down::Environment(order)) = session.next().await.message else { panic!("no order") };
    assert_eq!(
        (order.id.as_str(), order.generation, order.up, order.owner.as_str()),
        (made.id.as_str(), 1, true, "admin")
    );
    // The agent was killed before it did anything: the next session gets the order again.
    let mut session = host.session(&server, hello()).await;
    let Some(Down::Welcome(welcome)) = session.next().await.message else { panic!("no welcome") };
    assert_eq!(welcome.environments, std::slice::from_ref(&made.id));
    let Some(Down::Environment(again)) = session.next().await.message else { panic!("no order") };
    assert_eq!(again, order);
    let down = v1::DownEnvironmentRequest { environment: "mine".to_owned() };
    environments.down(as_(&server.admin, down)).await.unwrap();
    let Some(Down::Environment(order)) = session.next().await.message else { panic!("no order") };
    assert!(!order.up);
    let gone = v1::EnvironmentReport {
        id: made.id.clone(),
        generation: order.generation,
        state: v1::EnvironmentState::Gone.into(),
        result: "gone-1".to_owned(),
        ..v1::EnvironmentReport::default()
    };
    session.send(Up::Environment(gone)).await;
    assert_eq!(session.next().await.message, Some(Down::Ack("gone-1".to_owned())));
    let all = environments.list(as_(&server.admin, v1::ListEnvironmentsRequest { all: true })).await.unwrap();
    assert!(all.into_inner().environments.is_empty());
}

#[tokio::test]
async fn a_run_goes_to_a_test_host_and_its_log_and_verdict_come_back() {
    let server = Server::start().await;
    server.bot().await;
    let mut runs = v1::runs_client::RunsClient::new(server.channel().await);
    let start = v1::StartRunRequest {
        app: "bot".to_owned(),
        tests: "unit".to_owned(),
        commit: crate::support::COMMIT.to_owned(),
        ..v1::StartRunRequest::default()
    };
    let run = runs.start(as_(&server.admin, start)).await.unwrap().into_inner();
    let ask = v1::ShowRunRequest { run: run.id.clone() };
    until("it says what it waits for", async || {
        let shown = runs.show(as_(&server.admin, ask.clone())).await.unwrap().into_inner();
        shown.waiting.contains("role=test").then_some(())
    })
    .await;
    let host = server.host("test-1", "role=test").await;
    let mut session = host.ready(&server).await;
    let Some(Down::Run(order)) = session.next().await.message else { panic!("no order") };
    assert_eq!((order.id.as_str(), order.commit.as_str()), (run.id.as_str(), crate::support::COMMIT));
    let log = |offset: u64, data: &str, end: bool| v1::AgentLog {
        key: format!("run:{}", order.id),
        chunk: Some(v1::LogChunk { offset, data: data.to_owned().into(), end, ..Default::default() }),
    };
    // The second piece overlaps the first: it was sent again after a broken connection.
    let pieces = [log(0, "collected 3 ", false), log(4, "ected 3 items\n", false), log(18, "ok\n", true)];
    let _acks = session.client.logs(tokio_stream::iter(pieces)).await.unwrap();
    let finished = v1::RunReport {
        id: order.id.clone(),
        state: v1::RunState::Finished.into(),
        verdict: v1::Verdict::Passed.into(),
        exited: true,
        took_micros: 5,
        result: "done".to_owned(),
        ..v1::RunReport::default()
    };
    session.send(Up::Run(finished)).await;
    assert_eq!(session.next().await.message, Some(Down::Ack("done".to_owned())));
    let follow = v1::RunLogsRequest { run: run.id.clone(), offset: 0, follow: true };
    let mut chunks = runs.logs(as_(&server.admin, follow)).await.unwrap().into_inner();
    let mut text = Vec::new();
    while let Some(chunk) = chunks.message().await.unwrap() {
        text.extend_from_slice(&chunk.data);
    }
    assert_eq!(String::from_utf8(text).unwrap(), "collected 3 items\nok\n");
    let shown = runs.show(as_(&server.admin, ask)).await.unwrap().into_inner();
    assert_eq!((shown.verdict(), shown.state()), (v1::Verdict::Passed, v1::RunState::Finished));
}
