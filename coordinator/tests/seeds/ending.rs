//! The end of environments that nobody uses: their data becomes a snapshot first.

use coordinator::app::environment_end::{expire, mark_key};
use domain::ids::EnvironmentId;
use proto::v1;
use proto::v1::seed_order::Work;

use super::{STACK, environments, up};
use crate::support::{Server, Session, as_, until};

/// Looks at ends until there are so many events of the kind; answers the last.
async fn ends(server: &Server, kind: &str, count: usize) -> v1::Event {
    until(kind, async || {
        expire(&server.running.api.app).await.unwrap();
        let mut events = server.events(kind).await;
        if events.len() < count {
            return None;
        }
        assert_eq!(events.len(), count, "{events:?}");
        events.pop()
    })
    .await
}

/// An environment `mine` of asha's that lives for a second.
async fn world() -> (Server, Session, String, v1::EnvironmentOrder) {
    let server = Server::start().await;
    let host = server.host("box", "role=dev").await;
    let mut session = host.ready(&server).await;
    let asha = server.token("asha", "developer", "").await;
    let ask = v1::UpEnvironmentRequest {
        name: "mine".to_owned(),
        stack_file: format!("{STACK}x-muster: {{ ttl: 1s }}\n"),
        ..v1::UpEnvironmentRequest::default()
    };
    environments(&server).await.up(as_(&asha, ask)).await.unwrap();
    let order = session.environment_order().await;
    session.tell_environment(up(&order)).await;
    (server, session, asha, order)
}

fn failed(order: &v1::SeedOrder, code: &str) -> v1::SeedReport {
    v1::SeedReport {
        id: order.id.clone(),
        state: v1::SeedState::Failed.into(),
        reason: Some(v1::Reason { code: code.to_owned(), text: "the disk is busy".to_owned() }),
        ..v1::SeedReport::default()
    }
}

#[tokio::test]
async fn at_its_ttl_an_environment_becomes_a_snapshot_and_is_removed_only_when_that_is_there() {
    let (server, mut session, asha, order) = world().await;
    let warned = ends(&server, "environment.expiring", 1).await;
    assert!(warned.text.contains("becomes a snapshot") && warned.text.contains("env keep mine"), "{}", warned.text);
    ends(&server, "environment.snapshot", 1).await;
    let work = session.seed_order().await;
    assert_eq!((work.owner.as_str(), work.name.as_str()), ("asha", "mine"));
    assert_eq!(work.work, Some(Work::Snapshot(order.id.clone())));

    session.tell_seed(failed(&work, "E_FREEZE")).await;
    let told = ends(&server, "environment.not_expired", 1).await;
    assert_eq!(told.reason, "E_FREEZE");
    assert!(told.text.contains("the disk is busy") && told.text.contains("tried again in 10m"), "{}", told.text);
    expire(&server.running.api.app).await.unwrap();
    assert_eq!(server.events("environment.not_expired").await.len(), 1, "it is told once, and not tried at once");
    let ask = v1::ShowEnvironmentRequest { environment: "mine".to_owned() };
    let shown = environments(&server).await.show(as_(&asha, ask)).await.unwrap().into_inner();
    assert_eq!(shown.state(), v1::EnvironmentState::Ready);

    // Ten minutes later.
    let key = mark_key(order.id.parse::<EnvironmentId>().unwrap());
    let later = server.running.api.app.store.write(|tx| Box::pin(async move { tx.meta_put(&key, "again 0").await }));
    later.await.unwrap();
    ends(&server, "environment.snapshot", 2).await;
    let work = session.seed_order().await;
    session.make(&work).await;
    let ended = ends(&server, "environment.expired", 1).await;
    assert!(ended.text.contains("`muster env up --from asha/mine`"), "{}", ended.text);
    let down = session.environment_order().await;
    assert_eq!((&down.id, down.up), (&order.id, false));

    let back = v1::UpEnvironmentRequest { name: "back".to_owned(), from: "asha/mine".to_owned(), ..Default::default() };
    let back = environments(&server).await.up(as_(&asha, back)).await.unwrap().into_inner();
    assert_eq!(back.seed, "asha/mine");
}

#[tokio::test]
async fn an_environment_without_data_goes_without_a_snapshot() {
    let (server, mut session, _, order) = world().await;
    ends(&server, "environment.snapshot", 1).await;
    let work = session.seed_order().await;
    session.tell_seed(failed(&work, "E_SNAPSHOT_EMPTY")).await;
    let ended = ends(&server, "environment.expired", 1).await;
    assert!(ended.text.contains("no data to keep"), "{}", ended.text);
    let down = session.environment_order().await;
    assert_eq!((down.id, down.up), (order.id, false));
}
