//! Credentials: for the owner and admins, and nobody else.

use proto::v1;
use proto::v1::agent_message::Message as Up;
use proto::v1::coordinator_message::Message as Down;

use domain::quota::Limits;

use crate::support::{COMPOSE, Server, as_, reason};

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

fn ask(name: &str, stack_file: &str) -> v1::UpEnvironmentRequest {
    v1::UpEnvironmentRequest { name: name.to_owned(), stack_file: stack_file.to_owned(), ..Default::default() }
}

#[tokio::test]
async fn a_slot_of_the_same_becomes_the_next_environment_once_and_nobody_elses() {
    let server = Server::start().await;
    let host = server.host("box", "role=dev").await;
    let mut session = host.ready(&server).await;
    let key = |stack: &str| {
        let none = std::collections::BTreeMap::new();
        manifest::identity::identity(&manifest::identity::Ingredients {
            file: "",
            text: stack,
            variables: &none,
            files: &none,
            data: &domain::seed::Begin::Nothing.to_string(),
        })
    };
    let slot = "0189abcd-0000-7000-8000-00000000aaaa".to_owned();
    let slots = vec![v1::WarmSlot { id: slot.clone(), key: key(COMPOSE) }];
    let stack = v1::WarmStack { stack: "shop".to_owned(), ready: 1, wanted: 1, ..v1::WarmStack::default() };
    let stacks = vec![stack.clone()];
    session.send(Up::Warm(v1::Warm { slots, stacks })).await;
    // The session is asked in order: what it answers to this was said after the offer was taken.
    let report = v1::EnvironmentReport { id: slot.clone(), result: "told".to_owned(), ..Default::default() };
    let report = v1::EnvironmentReport { state: v1::EnvironmentState::Ready.into(), ..report };
    session.send(Up::Environment(report)).await;
    assert_eq!(session.next().await.message, Some(Down::Ack("told".to_owned())));
    let mut hosts = v1::hosts_client::HostsClient::new(server.channel().await);
    let show = v1::ShowHostRequest { host: "box".to_owned() };
    assert_eq!(hosts.show(as_(&server.admin, show)).await.unwrap().into_inner().warm, [stack]);

    let mut environments = v1::environments_client::EnvironmentsClient::new(server.channel().await);
    let other = COMPOSE.replace("redis:7", "redis:6");
    let made = environments.up(as_(&server.admin, ask("other", &other))).await.unwrap().into_inner();
    assert_ne!(made.id, slot);
    let made = environments.up(as_(&server.admin, ask("one", COMPOSE))).await.unwrap().into_inner();
    assert_eq!(made.id, slot);
    let made = environments.up(as_(&server.admin, ask("two", COMPOSE))).await.unwrap().into_inner();
    assert_ne!(made.id, slot);
}

#[tokio::test]
async fn a_developer_holds_no_more_than_the_server_allows_and_is_told_what() {
    let quotas = Limits { environments: Some(1), memory_bytes: Some(2 << 30), disk_bytes: None };
    let server = Server::limited(quotas).await;
    let host = server.host("box", "role=dev").await;
    let mut session = host.ready(&server).await;
    let (asha, ben) = (server.token("asha", "developer", "").await, server.token("ben", "developer", "").await);
    let mut environments = v1::environments_client::EnvironmentsClient::new(server.channel().await);
    environments.up(as_(&asha, ask("one", COMPOSE))).await.unwrap();
    let refused = environments.up(as_(&asha, ask("two", COMPOSE))).await.unwrap_err();
    assert_eq!(reason(&refused), "E_QUOTA_ENVIRONMENTS");
    assert!(refused.message().contains("1 of 1 environments"), "{}", refused.message());
    // The same one again is not one more, and others have their own.
    environments.up(as_(&asha, ask("one", COMPOSE))).await.unwrap();
    let large = format!("x-muster: {{ quota: {{ memory: 3g }} }}\n{COMPOSE}");
    let refused = environments.up(as_(&ben, ask("big", &large))).await.unwrap_err();
    assert_eq!(reason(&refused), "E_QUOTA_MEMORY");
    environments.up(as_(&ben, ask("small", COMPOSE))).await.unwrap();
    // What is on its way out does not count.
    let Some(Down::Environment(_)) = session.next().await.message else { panic!("no order") };
    environments.down(as_(&asha, v1::DownEnvironmentRequest { environment: "one".to_owned() })).await.unwrap();
    environments.up(as_(&asha, ask("two", COMPOSE))).await.unwrap();
}

#[tokio::test]
async fn an_environment_at_its_quota_of_disk_is_warned_and_takes_nothing_more() {
    let server = Server::start().await;
    let host = server.host("box", "role=dev").await;
    let mut session = host.ready(&server).await;
    let asha = server.token("asha", "developer", "").await;
    let mut environments = v1::environments_client::EnvironmentsClient::new(server.channel().await);
    let stack = format!("x-muster: {{ quota: {{ disk: 1000k }} }}\n{COMPOSE}");
    environments.up(as_(&asha, ask("mine", &stack))).await.unwrap();
    let Some(Down::Environment(order)) = session.next().await.message else { panic!("no order") };
    for own_bytes in [500_000, 900_000, 950_000, 2_000_000, 3_000_000] {
        let report = v1::EnvironmentReport {
            id: order.id.clone(),
            generation: order.generation,
            state: v1::EnvironmentState::Ready.into(),
            own_bytes,
            result: own_bytes.to_string(),
            ..v1::EnvironmentReport::default()
        };
        session.send(Up::Environment(report)).await;
        assert_eq!(session.next().await.message, Some(Down::Ack(own_bytes.to_string())));
    }
    let told: Vec<String> = server.events("environment.quota").await.into_iter().map(|event| event.text).collect();
    assert_eq!(
        told,
        [
            "mine holds 900.0 kB of 1.0 MB of disk",
            "mine holds 2.0 MB of 1.0 MB of disk; reset and snapshot are refused"
        ]
    );
    let reset = v1::ResetEnvironmentRequest { environment: "mine".to_owned(), ..Default::default() };
    let refused = environments.reset(as_(&asha, reset)).await.unwrap_err();
    assert_eq!(reason(&refused), "E_QUOTA_DISK");
    assert!(refused.message().contains("3.0 MB of 1.0 MB"), "{}", refused.message());
    let refused = environments.up(as_(&asha, ask("mine", &format!("{stack}# another\n")))).await.unwrap_err();
    assert_eq!(reason(&refused), "E_QUOTA_DISK");
    // A larger quota is the way out.
    let larger = stack.replace("1000k", "9m");
    environments.up(as_(&asha, ask("mine", &larger))).await.unwrap();
}
