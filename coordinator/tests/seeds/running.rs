//! Runs that begin with the seed of their stack: only their host knows which that is, and asks.

use proto::v1;
use proto::v1::agent_message::Message as Up;
use proto::v1::coordinator_message::Message as Down;
use proto::v1::runs_client::RunsClient;

use super::{DIGEST, made, seeds};
use crate::support::{COMMIT, Server, Session, as_, reason, until};

async fn start(server: &Server) -> v1::Run {
    let ask = v1::StartRunRequest {
        app: "bot".to_owned(),
        tests: "unit".to_owned(),
        commit: COMMIT.to_owned(),
        selector: "role=dev".to_owned(),
        ..v1::StartRunRequest::default()
    };
    RunsClient::new(server.channel().await).start(as_(&server.admin, ask)).await.unwrap().into_inner()
}

async fn show(server: &Server, run: &str) -> v1::Run {
    let ask = v1::ShowRunRequest { run: run.to_owned() };
    RunsClient::new(server.channel().await).show(as_(&server.admin, ask)).await.unwrap().into_inner()
}

impl Session {
    async fn run_order(&mut self) -> v1::RunOrder {
        match self.next().await.message {
            Some(Down::Run(order)) => order,
            other => panic!("no order about a run: {other:?}"),
        }
    }

    /// Asks for the seed of the stack at the run's commit.
    async fn ask_seed(&mut self, run: &str, seed: &str) {
        let asked = v1::RunReport {
            id: run.to_owned(),
            state: v1::RunState::Preparing.into(),
            seed: seed.to_owned(),
            ..v1::RunReport::default()
        };
        self.send(Up::Run(asked)).await;
    }

    async fn end_run(&mut self, run: &str) {
        let result = format!("run:{run}");
        let ended = v1::RunReport {
            id: run.to_owned(),
            state: v1::RunState::Finished.into(),
            verdict: v1::Verdict::Passed.into(),
            result: result.clone(),
            ..v1::RunReport::default()
        };
        self.send(Up::Run(ended)).await;
        assert_eq!(self.next().await.message, Some(Down::Ack(result)));
    }
}

#[tokio::test]
async fn a_run_begins_with_the_version_that_is_the_newest_when_its_host_asks_and_keeps_it() {
    let server = Server::start().await;
    server.bot().await;
    let host = server.host("box", "role=dev").await;
    let mut session = host.ready(&server).await;
    made(&server, &mut session, "staging", "1").await;
    let run = start(&server).await;
    let order = session.run_order().await;
    assert_eq!((order.id.as_str(), &order.seed), (run.id.as_str(), &None), "nothing is known of its stack");
    session.ask_seed(&run.id, "staging").await;
    let order = session.run_order().await;
    let begins = v1::RunSeed { address: "staging@1".to_owned(), data_from: format!("seed:{DIGEST}"), refused: None };
    assert_eq!(order.seed, Some(begins));
    assert_eq!(show(&server, &run.id).await.seed, "staging@1");

    // It needs that version for as long as it has not ended, also when there is a newer one.
    let second = super::import(&server, &server.admin, super::head("staging", "2"), &[]).await.unwrap();
    let work = session.seed_order().await;
    session.make(&work).await;
    session.ask_seed(&run.id, "staging").await;
    let remove = |seed: &str| v1::ShowSeedRequest { seed: seed.to_owned() };
    let refused = seeds(&server).await.remove(as_(&server.admin, remove("staging@1"))).await.unwrap_err();
    assert_eq!(reason(&refused), "E_SEED_IN_USE");
    assert!(refused.message().contains("run "), "{}", refused.message());
    assert_eq!(second.version, "2");
    session.end_run(&run.id).await;
    let ended = show(&server, &run.id).await;
    assert_eq!((ended.verdict(), ended.seed.as_str()), (v1::Verdict::Passed, "staging@1"));
    seeds(&server).await.remove(as_(&server.admin, remove("staging@1"))).await.unwrap();
    assert_eq!(show(&server, &run.id).await.seed, "staging@1", "the record stays");
}

#[tokio::test]
async fn a_run_whose_seed_cannot_be_had_ends_with_the_code_of_env_up() {
    let server = Server::start().await;
    server.bot().await;
    let host = server.host("box", "role=dev").await;
    let mut session = host.ready(&server).await;
    let run = start(&server).await;
    session.run_order().await;
    for seed in ["nothing", "not a seed"] {
        session.ask_seed(&run.id, seed).await;
    }
    let order = session.run_order().await;
    let refused = order.seed.and_then(|seed| seed.refused).unwrap();
    assert_eq!(refused.code, "E_SEED_UNKNOWN");
    assert!(refused.text.contains("nothing"), "{}", refused.text);
    session.end_run(&run.id).await;
    until("the end", async || (show(&server, &run.id).await.state() == v1::RunState::Finished).then_some(())).await;
}
