//! Seeds go when nobody needs them any more.

use proto::v1;
use proto::v1::seed_order::Work;

use super::{DIGEST, STACK, environments, head, import, made, seeds, show, up};
use crate::support::{Server, as_, reason};

async fn remove(server: &Server, token: &str, seed: &str) -> Result<v1::Seed, tonic::Status> {
    let ask = v1::ShowSeedRequest { seed: seed.to_owned() };
    Ok(seeds(server).await.remove(as_(token, ask)).await?.into_inner())
}

#[tokio::test]
async fn a_seed_is_removed_by_its_host_once_nothing_began_with_it() {
    let server = Server::start().await;
    let host = server.host("box", "role=dev").await;
    let mut session = host.ready(&server).await;
    made(&server, &mut session, "staging", "1").await;
    let ask = v1::UpEnvironmentRequest {
        name: "mine".to_owned(),
        stack_file: STACK.to_owned(),
        from: "staging".to_owned(),
        ..v1::UpEnvironmentRequest::default()
    };
    environments(&server).await.up(as_(&server.admin, ask)).await.unwrap();
    let order = session.environment_order().await;
    session.tell_environment(up(&order)).await;
    let refused = remove(&server, &server.admin, "staging").await.unwrap_err();
    assert_eq!(reason(&refused), "E_SEED_IN_USE");
    assert!(refused.message().contains("admin/mine"), "{}", refused.message());
    let down = v1::DownEnvironmentRequest { environment: "mine".to_owned() };
    environments(&server).await.down(as_(&server.admin, down)).await.unwrap();
    let order = session.environment_order().await;
    session.tell_environment(v1::EnvironmentReport { state: v1::EnvironmentState::Gone.into(), ..up(&order) }).await;
    let ben = server.token("ben", "developer", "").await;
    let denied = remove(&server, &ben, "staging").await.unwrap_err();
    assert_eq!(denied.code(), tonic::Code::PermissionDenied);
    let going = remove(&server, &server.admin, "staging").await.unwrap();
    assert_eq!(going.state(), v1::SeedState::Removing);
    let order = session.seed_order().await;
    assert_eq!(order.work, Some(Work::Remove(DIGEST.to_owned())));
    // Its host cannot: it is there as before, and can be tried again in the same session.
    let why = v1::Reason { code: "E_POOL".to_owned(), text: "busy".to_owned() };
    let told =
        |state: v1::SeedState| v1::SeedReport { id: order.id.clone(), state: state.into(), ..Default::default() };
    session.tell_seed(v1::SeedReport { reason: Some(why), ..told(v1::SeedState::Failed) }).await;
    let shown = show(&server, "staging").await.unwrap();
    assert_eq!((shown.state(), shown.reason.unwrap().code.as_str()), (v1::SeedState::Ready, "E_POOL"));
    remove(&server, &server.admin, "staging@1").await.unwrap();
    assert_eq!(session.seed_order().await, order);
    session.tell_seed(told(v1::SeedState::Removed)).await;
    assert_eq!(reason(&show(&server, "staging").await.unwrap_err()), "E_SEED_UNKNOWN");
    assert_eq!(show(&server, &order.id).await.unwrap().state(), v1::SeedState::Removed);
    assert_eq!(server.events("seed.removed").await.len(), 1);
}

#[tokio::test]
async fn one_of_several_versions_must_be_named_and_one_that_is_made_stays() {
    let server = Server::start().await;
    let host = server.host("box", "role=dev").await;
    let mut session = host.ready(&server).await;
    made(&server, &mut session, "staging", "1").await;
    import(&server, &server.admin, head("staging", "2"), &[]).await.unwrap();
    assert_eq!(reason(&remove(&server, &server.admin, "staging").await.unwrap_err()), "E_AMBIGUOUS");
    assert_eq!(reason(&remove(&server, &server.admin, "staging@2").await.unwrap_err()), "E_SEED_STATE");
    let going = remove(&server, &server.admin, "staging@1").await.unwrap();
    assert_eq!(going.state(), v1::SeedState::Removing);
}

#[tokio::test]
async fn a_host_that_holds_seeds_is_removed_by_force_only_and_they_with_it() {
    let server = Server::start().await;
    let host = server.host("box", "role=dev").await;
    let mut session = host.ready(&server).await;
    let first = made(&server, &mut session, "staging", "1").await;
    let second = import(&server, &server.admin, head("staging", "2"), &[]).await.unwrap();
    let mut hosts = v1::hosts_client::HostsClient::new(server.channel().await);
    let ask = |force| v1::RemoveHostRequest { host: "box".to_owned(), force };
    assert!(hosts.remove(as_(&server.admin, ask(false))).await.is_err());
    hosts.remove(as_(&server.admin, ask(true))).await.unwrap();
    assert_eq!(show(&server, &first.id).await.unwrap().state(), v1::SeedState::Removed);
    assert_eq!(show(&server, &second.id).await.unwrap().state(), v1::SeedState::Failed);
}
