//! Credentials: for the owner and admins, and nobody else.

use proto::v1;
use proto::v1::agent_message::Message as Up;
use proto::v1::coordinator_message::Message as Down;

use crate::support::{COMPOSE, Server, as_};

#[tokio::test]
async fn only_the_owner_and_admins_see_the_credentials_and_they_lie_sealed() {
    let server = Server::start().await;
    let host = server.host("box", "owner=asha").await;
    let mut session = host.ready(&server).await;
    let (asha, ben) = (server.token("asha", "developer", "").await, server.token("ben", "developer", "").await);
    let deployer = server.token("dora", "deployer", "").await;
    let mut environments = v1::environments_client::EnvironmentsClient::new(server.channel().await);
    let up = v1::UpEnvironmentRequest { name: "mine".to_owned(), stack_file: COMPOSE.to_owned(), ..Default::default() };
    let made = environments.up(as_(&asha, up)).await.unwrap().into_inner();
    assert_eq!(made.host, "box");
    let Some(Down::Environment(order)) = session.next().await.message else { panic!("no order") };
    let secret = "redis://:hunter2hunter2@127.0.0.1:20410";
    let service = v1::Service {
        name: "redis".to_owned(),
        state: v1::ServiceState::Ready.into(),
        variables: [("REDIS_URL".to_owned(), secret.to_owned())].into(),
        ..v1::Service::default()
    };
    let report = v1::EnvironmentReport {
        id: order.id.clone(),
        generation: order.generation,
        state: v1::EnvironmentState::Ready.into(),
        services: vec![service],
        result: "ready".to_owned(),
        ..v1::EnvironmentReport::default()
    };
    session.send(Up::Environment(report)).await;
    assert_eq!(session.next().await.message, Some(Down::Ack("ready".to_owned())));
    for (token, sees) in [(&asha, true), (&server.admin, true), (&ben, false), (&deployer, false)] {
        let ask = v1::ShowEnvironmentRequest { environment: "asha/mine".to_owned() };
        let shown = environments.show(as_(token, ask)).await.unwrap().into_inner();
        assert_eq!(shown.state(), v1::EnvironmentState::Ready);
        let told = shown.services[0].variables.get("REDIS_URL").map(String::as_str);
        assert_eq!(told, sees.then_some(secret));
        let all = environments.list(as_(token, v1::ListEnvironmentsRequest { all: true })).await.unwrap().into_inner();
        assert!(all.environments[0].services[0].variables.is_empty());
    }
    let id = order.id.clone();
    let store = &server.running.api.app.store;
    let sealed =
        store.read(|view| Box::pin(async move { view.secret_get("environment", &id).await })).await.unwrap().unwrap();
    assert!(!sealed.sealed.windows(7).any(|window| window == b"hunter2"));
    let denied = environments.down(as_(&ben, v1::DownEnvironmentRequest { environment: "asha/mine".to_owned() })).await;
    assert_eq!(denied.unwrap_err().code(), tonic::Code::PermissionDenied);
}

#[tokio::test]
async fn the_same_idempotency_key_makes_one_environment_and_another_request_under_it_is_refused() {
    let server = Server::start().await;
    let host = server.host("box", "role=dev").await;
    let _session = host.ready(&server).await;
    let mut environments = v1::environments_client::EnvironmentsClient::new(server.channel().await);
    let up = |name: &str| v1::UpEnvironmentRequest {
        name: name.to_owned(),
        stack_file: COMPOSE.to_owned(),
        idempotency_key: "build-812".to_owned(),
        variables: (0..50).map(|n| (format!("V{n}"), n.to_string())).collect(),
        ..v1::UpEnvironmentRequest::default()
    };
    let first = environments.up(as_(&server.admin, up("one"))).await.unwrap().into_inner();
    let again = environments.up(as_(&server.admin, up("one"))).await.unwrap().into_inner();
    assert_eq!(first.id, again.id);
    let other = environments.up(as_(&server.admin, up("two"))).await.unwrap_err();
    assert_eq!(crate::support::reason(&other), "E_IDEMPOTENCY_KEY_REUSED");
    let all = environments.list(as_(&server.admin, v1::ListEnvironmentsRequest { all: true })).await.unwrap();
    assert_eq!(all.into_inner().environments.len(), 1);
}
