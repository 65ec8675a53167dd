//! Environments that begin with a seed, snapshots of them, and going back.

use proto::v1;
use proto::v1::seed_order::Work;

use super::{DIGEST, STACK, environments, made, seeds, show, up};
use crate::support::{Server, Session, as_, reason};

fn ask(name: &str, from: &str) -> v1::UpEnvironmentRequest {
    v1::UpEnvironmentRequest {
        name: name.to_owned(),
        stack_file: STACK.to_owned(),
        from: from.to_owned(),
        ..v1::UpEnvironmentRequest::default()
    }
}

async fn bring_up(
    server: &Server,
    token: &str,
    ask: v1::UpEnvironmentRequest,
) -> Result<v1::Environment, tonic::Status> {
    Ok(environments(server).await.up(as_(token, ask)).await?.into_inner())
}

/// An environment of asha's that is up, beginning with `staging@1`.
async fn world() -> (Server, Session, String, v1::EnvironmentOrder) {
    let server = Server::start().await;
    let host = server.host("box", "role=dev").await;
    let mut session = host.ready(&server).await;
    made(&server, &mut session, "staging", "1").await;
    let asha = server.token("asha", "developer", "").await;
    bring_up(&server, &asha, ask("mine", "staging")).await.unwrap();
    let order = session.environment_order().await;
    session.tell_environment(up(&order)).await;
    (server, session, asha, order)
}

async fn reset(server: &Server, token: &str, undo: bool) -> Result<v1::Environment, tonic::Status> {
    let ask = v1::ResetEnvironmentRequest { environment: "asha/mine".to_owned(), undo };
    Ok(environments(server).await.reset(as_(token, ask)).await?.into_inner())
}

#[tokio::test]
async fn an_environment_begins_with_the_seed_of_its_stack_or_the_one_asked_for() {
    let server = Server::start().await;
    let host = server.host("box", "role=dev").await;
    let mut session = host.ready(&server).await;
    for version in ["1", "2"] {
        made(&server, &mut session, "staging", version).await;
    }
    let with = |text: &str| v1::UpEnvironmentRequest {
        stack_file: format!("{STACK}x-muster: {{ seed: {text} }}\n"),
        ..ask("e", "")
    };
    let cases = [
        ("newest", with("staging"), "staging@2"),
        ("latest", with("staging@latest"), "staging@2"),
        ("by-version", with("staging@1"), "staging@1"),
        ("asked-for", v1::UpEnvironmentRequest { from: "staging@1".to_owned(), ..with("staging") }, "staging@1"),
    ];
    for (name, ask, expected) in cases {
        let ask = v1::UpEnvironmentRequest { name: name.to_owned(), ..ask };
        let made = bring_up(&server, &server.admin, ask).await.unwrap();
        let order = session.environment_order().await;
        assert_eq!((made.seed.as_str(), order.seed.as_str()), (expected, expected), "{name}");
        assert_eq!((order.data_from, order.data_epoch), (format!("seed:{DIGEST}"), 0));
    }
    let plain = bring_up(&server, &server.admin, ask("plain", "")).await.unwrap();
    let order = session.environment_order().await;
    assert_eq!((plain.seed.as_str(), order.data_from.as_str()), ("", ""));
    assert_eq!(show(&server, "staging@1").await.unwrap().environments, 2);
}

#[tokio::test]
async fn a_seed_that_is_not_there_is_told_with_the_nearest() {
    let (server, mut session, asha, _) = world().await;
    for (from, expected) in [
        ("stagin", "did you mean staging?"),
        ("staging@7", "staging has the versions 1"),
        ("asha/nothing", "there is no snapshot asha/nothing"),
        ("nobody/x", "there is no snapshot nobody/x"),
    ] {
        let refused = bring_up(&server, &asha, ask("other", from)).await.unwrap_err();
        assert_eq!(reason(&refused), "E_SEED_UNKNOWN", "{from}");
        assert!(refused.message().contains(expected), "{}", refused.message());
    }
    super::import(&server, &asha, super::head("staging", "2"), &[]).await.unwrap();
    let order = session.seed_order().await;
    let refused = bring_up(&server, &asha, ask("other", "staging@2")).await.unwrap_err();
    assert_eq!(reason(&refused), "E_SEED_STATE");
    // The newest that is ready is meant, not one that is being made.
    assert_eq!(bring_up(&server, &asha, ask("other", "staging")).await.unwrap().seed, "staging@1");
    session.environment_order().await;
    session.make(&order).await;
    let refused = bring_up(&server, &asha, ask("other", "staging@2")).await.unwrap_err();
    assert_eq!(reason(&refused), "E_ENV_EXISTS", "data is kept, not exchanged");
    let same = bring_up(&server, &asha, ask("other", "staging")).await.unwrap();
    assert_eq!((same.seed.as_str(), same.generation), ("staging@1", 1), "a newer version changes nothing");
}

#[tokio::test]
async fn an_environment_goes_where_its_seed_lies_if_that_host_takes_it() {
    let server = Server::start().await;
    let host = server.host("a-box", "role=dev").await;
    let mut session = host.ready(&server).await;
    made(&server, &mut session, "staging", "1").await;
    // A second one that would be taken otherwise: it has nothing to do.
    let other = server.host("b-box", "role=dev").await;
    let mut second = other.ready(&server).await;
    for name in ["one", "two"] {
        assert_eq!(bring_up(&server, &server.admin, ask(name, "staging")).await.unwrap().host, "a-box");
    }
    assert_eq!(bring_up(&server, &server.admin, ask("three", "")).await.unwrap().host, "b-box");
    second.environment_order().await;
    let mut hosts = v1::hosts_client::HostsClient::new(server.channel().await);
    hosts.drain(as_(&server.admin, v1::DrainHostRequest { host: "a-box".to_owned() })).await.unwrap();
    assert_eq!(bring_up(&server, &server.admin, ask("four", "staging")).await.unwrap().host, "b-box", "it is brought");
}

#[tokio::test]
async fn a_snapshot_carries_its_stack_so_that_another_begins_with_it_alone() {
    let (server, mut session, asha, order) = world().await;
    let mut client = environments(&server).await;
    let ben = server.token("ben", "developer", "").await;
    let snapshot = |environment: &str| v1::SnapshotEnvironmentRequest {
        environment: environment.to_owned(),
        name: "bug-4711".to_owned(),
        idempotency_key: "s".to_owned(),
    };
    let denied = client.snapshot(as_(&ben, snapshot("asha/mine"))).await.unwrap_err();
    assert_eq!(denied.code(), tonic::Code::PermissionDenied);
    let taken = client.snapshot(as_(&asha, snapshot("mine"))).await.unwrap().into_inner();
    assert_eq!(client.snapshot(as_(&asha, snapshot("mine"))).await.unwrap().into_inner().id, taken.id);
    let again = v1::SnapshotEnvironmentRequest { idempotency_key: String::new(), ..snapshot("mine") };
    assert_eq!(reason(&client.snapshot(as_(&asha, again)).await.unwrap_err()), "E_SEED_EXISTS");
    let work = session.seed_order().await;
    assert_eq!((work.owner.as_str(), &work.work), ("asha", &Some(Work::Snapshot(order.id.clone()))));
    session.make(&work).await;
    let told = server.events("environment.snapshot").await;
    assert_eq!((told.len(), told[0].actor.as_str()), (1, "asha"));
    let shown = show(&server, "asha/bug-4711").await.unwrap();
    assert_eq!((shown.snapshot, shown.freeze_micros, shown.state()), (true, 90_000, v1::SeedState::Ready));
    // Ben has no stack file; the snapshot brings its own.
    let bare = v1::UpEnvironmentRequest { stack_file: String::new(), ..ask("copy", "asha/bug-4711") };
    let copy = bring_up(&server, &ben, bare).await.unwrap();
    assert_eq!((copy.owner.as_str(), copy.seed.as_str()), ("ben", "asha/bug-4711"));
    let order = session.environment_order().await;
    assert_eq!((order.stack_file.as_str(), order.data_from), (STACK, format!("seed:{DIGEST}")));
    let bare = v1::UpEnvironmentRequest { stack_file: String::new(), ..ask("copy-2", "staging") };
    let refused = bring_up(&server, &ben, bare).await.unwrap_err();
    assert!(refused.message().contains("staging@1 is a seed, not a snapshot"), "{}", refused.message());
    // Snapshots of others are listed only when asked for.
    for (token, snapshots, all, expected) in
        [(&asha, false, false, 1), (&asha, true, false, 2), (&ben, true, false, 1), (&ben, true, true, 2)]
    {
        let list = v1::ListSeedsRequest { snapshots, all };
        let found = seeds(&server).await.list(as_(token, list)).await.unwrap().into_inner().seeds;
        assert_eq!(found.len(), expected, "snapshots {snapshots}, all {all}");
    }
}

#[tokio::test]
async fn a_reset_goes_to_the_beginning_and_an_undo_to_before_it() {
    let (server, mut session, asha, first) = world().await;
    let shown = reset(&server, &asha, true).await.unwrap_err();
    assert_eq!(reason(&shown), "E_ENV_NO_UNDO");
    let after = reset(&server, &asha, false).await.unwrap();
    let order = session.environment_order().await;
    assert_eq!((order.data_from.as_str(), order.data_epoch), (&*format!("seed:{DIGEST}"), 1));
    assert_eq!((order.generation, after.generation), (first.generation + 1, first.generation + 1));
    session.tell_environment(v1::EnvironmentReport { kept_epochs: vec![0], ..up(&order) }).await;
    let ask = v1::ShowEnvironmentRequest { environment: "mine".to_owned() };
    let shown = environments(&server).await.show(as_(&asha, ask)).await.unwrap().into_inner();
    assert!(shown.can_undo);
    assert_eq!((shown.own_bytes, shown.shared_bytes, shown.seed.as_str()), (100_000, 1 << 30, "staging@1"));
    assert!(shown.data.starts_with("cloned 1.0 GB"), "{}", shown.data);
    reset(&server, &asha, true).await.unwrap();
    let order = session.environment_order().await;
    assert_eq!((order.data_from.as_str(), order.data_epoch), ("auto:0", 2));
    // A report of a failure that says nothing about data takes nothing away.
    let bare = v1::EnvironmentReport {
        id: order.id.clone(),
        generation: order.generation,
        state: v1::EnvironmentState::Failed.into(),
        ..v1::EnvironmentReport::default()
    };
    session.tell_environment(bare).await;
    reset(&server, &asha, false).await.unwrap();
    let order = session.environment_order().await;
    assert_eq!((order.data_from, order.data_epoch), (format!("seed:{DIGEST}"), 3));
    let told: Vec<String> = server.events("environment.reset").await.into_iter().map(|event| event.text).collect();
    assert_eq!(told, ["mine to staging@1", "mine back to before reset 1", "mine to staging@1"]);
}

#[tokio::test]
async fn the_data_before_a_migration_is_kept_and_an_undo_goes_back_to_it() {
    let (server, mut session, asha, _) = world().await;
    let with = |migrate: &str, redis: &str| {
        let once = format!("  migrate: {{ image: \"{migrate}\" }}\n");
        let waits = "    depends_on: { migrate: { condition: service_completed_successfully } }\n";
        let stack = STACK.replace("    image: redis:7\n", &format!("    image: {redis}\n{waits}{once}"));
        v1::UpEnvironmentRequest { stack_file: stack, ..ask("mine", "") }
    };
    let kept = |order: &v1::EnvironmentOrder, epochs: &[u64]| v1::EnvironmentReport {
        kept_epochs: epochs.to_vec(),
        ..up(order)
    };
    bring_up(&server, &asha, with("app:1", "redis:7")).await.unwrap();
    let order = session.environment_order().await;
    assert_eq!((order.data_from.as_str(), order.data_epoch), ("auto:0", 1), "a new one, on data that is there");
    session.tell_environment(kept(&order, &[0])).await;
    bring_up(&server, &asha, with("app:1", "redis:8")).await.unwrap();
    let order = session.environment_order().await;
    assert_eq!(order.data_epoch, 1, "another service changed");
    session.tell_environment(kept(&order, &[0])).await;

    let restart = v1::RestartEnvironmentRequest { environment: "mine".to_owned(), service: "migrate".to_owned() };
    environments(&server).await.restart(as_(&asha, restart)).await.unwrap();
    let order = session.environment_order().await;
    assert_eq!((order.data_from.as_str(), order.data_epoch), ("auto:1", 2));
    assert!(order.restarts.is_empty(), "it is done once: {:?}", order.restarts);
    session.tell_environment(kept(&order, &[0, 1])).await;
    reset(&server, &asha, true).await.unwrap();
    let order = session.environment_order().await;
    assert_eq!((order.data_from.as_str(), order.data_epoch), ("auto:1", 3));
    session.tell_environment(kept(&order, &[0, 1, 2])).await;

    bring_up(&server, &asha, with("app:2", "redis:8")).await.unwrap();
    assert_eq!(session.environment_order().await.data_epoch, 4);
    // The host has not told of that one yet: what it would keep is not known.
    bring_up(&server, &asha, with("app:3", "redis:8")).await.unwrap();
    let order = session.environment_order().await;
    assert_eq!((order.data_from.as_str(), order.data_epoch), ("auto:3", 4));
    let told = server.events("environment.restart").await;
    assert_eq!(told[0].text, "mine migrate; its data is kept as it was before migrate");
}

#[tokio::test]
async fn only_the_owner_resets_and_only_what_is_up() {
    let (server, mut session, asha, _) = world().await;
    let ben = server.token("ben", "developer", "").await;
    for token in [&ben, &server.admin] {
        let denied = reset(&server, token, false).await.unwrap_err();
        assert_eq!(denied.code(), tonic::Code::PermissionDenied);
    }
    let down = v1::DownEnvironmentRequest { environment: "mine".to_owned() };
    environments(&server).await.down(as_(&asha, down)).await.unwrap();
    session.environment_order().await;
    assert_eq!(reason(&reset(&server, &asha, false).await.unwrap_err()), "E_ENV_NOT_UP");
    let snapshot =
        v1::SnapshotEnvironmentRequest { environment: "mine".to_owned(), name: "s".to_owned(), ..Default::default() };
    let refused = environments(&server).await.snapshot(as_(&asha, snapshot)).await.unwrap_err();
    assert_eq!(reason(&refused), "E_ENV_NOT_UP");
}
