//! From files to a seed.

use proto::v1;
use proto::v1::seed_order::Work;
use tonic::Code;

use super::{DIGEST, head, import, input, ready, seeds, show};
use crate::support::{Host, Server, Session, as_, reason};

async fn fetch(session: &mut Session, digest: &str) -> Result<Vec<u8>, tonic::Status> {
    let ask = v1::FetchRequest { digest: digest.to_owned(), ..v1::FetchRequest::default() };
    let mut chunks = session.client.fetch(ask).await?.into_inner();
    let mut all = Vec::new();
    while let Some(chunk) = chunks.message().await? {
        all.extend_from_slice(&chunk.data);
    }
    Ok(all)
}

async fn box_of(server: &Server) -> (Host, Session) {
    let host = server.host("box", "role=dev").await;
    let session = host.ready(server).await;
    (host, session)
}

#[tokio::test]
async fn an_import_is_ordered_with_its_inputs_and_becomes_a_seed() {
    let server = Server::start().await;
    let (_, mut session) = box_of(&server).await;
    let other = server.host("other", "").await;
    let mut stranger = other.ready(&server).await;
    let ask = v1::ImportSeedHead {
        inputs: vec![
            input("postgres", v1::SeedFormat::Sql, 10),
            input("redis", v1::SeedFormat::Rdb, 3),
            input("postgres", v1::SeedFormat::Mask, 4),
        ],
        canaries: vec!["asha@example.org".to_owned()],
        ..head("staging", "")
    };
    // Pieces end where they like.
    let seed = import(&server, &server.admin, ask, &[b"select", b" 1;\nRD", b"Bmask"]).await.unwrap();
    assert_eq!((seed.state(), seed.hosts.as_slice()), (v1::SeedState::Making, &["box".to_owned()][..]));
    assert_eq!(seed.version.len(), "2026-11-23".len(), "{}", seed.version);
    let order = session.seed_order().await;
    assert_eq!((&order.id, &order.name, &order.version), (&seed.id, &seed.name, &seed.version));
    let Some(Work::Import(work)) = &order.work else { panic!("{order:?}") };
    assert_eq!((work.stack_file.as_str(), work.canaries.len()), (super::STACK, 1));
    let expected: [&[u8]; 3] = [b"select 1;\n", b"RDB", b"mask"];
    for (input, expected) in work.inputs.iter().zip(expected) {
        assert_eq!(fetch(&mut session, &input.artifact).await.unwrap(), expected);
        let refused = fetch(&mut stranger, &input.artifact).await.unwrap_err();
        assert_eq!(reason(&refused), "E_ARTIFACT_NOT_FOUND", "inputs are for the importing host alone");
    }
    let progress = v1::SeedReport {
        id: order.id.clone(),
        state: v1::SeedState::Making.into(),
        detail: "restores postgres.dump".to_owned(),
        ..v1::SeedReport::default()
    };
    session.tell_seed(progress).await;
    assert_eq!(show(&server, "staging").await.unwrap().detail, "restores postgres.dump");
    session.make(&order).await;
    let shown = show(&server, &format!("staging@{}", seed.version)).await.unwrap();
    assert_eq!((shown.state(), shown.digest.as_str()), (v1::SeedState::Ready, DIGEST));
    assert_eq!((shown.bytes, shown.parts.len(), shown.canaries, shown.masked), (1 << 30, 1, 2, true));
    for input in &work.inputs {
        let gone = fetch(&mut session, &input.artifact).await.unwrap_err();
        assert_eq!(reason(&gone), "E_ARTIFACT_NOT_FOUND", "inputs are removed when the import has ended");
    }
    let imported = server.events("seed.import").await;
    assert_eq!((imported.len(), imported[0].actor.as_str()), (1, "admin"));
    let made = server.events("seed.ready").await;
    assert_eq!((made.len(), made[0].actor.as_str()), (1, "host box"));
}

#[tokio::test]
async fn an_order_is_given_again_to_each_session_until_it_has_ended() {
    let server = Server::start().await;
    let (host, mut session) = box_of(&server).await;
    let seed = import(&server, &server.admin, head("staging", "1"), &[]).await.unwrap();
    let order = session.seed_order().await;
    let mut session = host.ready(&server).await;
    assert_eq!(session.seed_order().await, order);
    let failed = v1::SeedReport {
        id: seed.id.clone(),
        state: v1::SeedState::Failed.into(),
        reason: Some(v1::Reason { code: "E_SEED_CANARY".to_owned(), text: "asha@example.org is left".to_owned() }),
        ..v1::SeedReport::default()
    };
    session.tell_seed(failed).await;
    let shown = show(&server, "staging@1").await.unwrap();
    assert_eq!((shown.state(), shown.reason.unwrap().code.as_str()), (v1::SeedState::Failed, "E_SEED_CANARY"));
    let failed = server.events("seed.failed").await;
    assert_eq!((failed.len(), failed[0].reason.as_str()), (1, "E_SEED_CANARY"));
    // A failed one gives its version free.
    let again = import(&server, &server.admin, head("staging", "1"), &[]).await.unwrap();
    assert_eq!(session.seed_order().await.id, again.id);
    // What comes late about one that has ended changes nothing.
    session.tell_seed(ready(&seed.id)).await;
    assert_eq!(show(&server, &seed.id).await.unwrap().state(), v1::SeedState::Failed);
}

#[tokio::test]
async fn without_a_version_it_is_the_day_and_a_taken_one_is_refused() {
    let server = Server::start().await;
    let (_, _session) = box_of(&server).await;
    let first = import(&server, &server.admin, head("staging", ""), &[]).await.unwrap();
    let second = import(&server, &server.admin, head("staging", ""), &[]).await.unwrap();
    assert_eq!(second.version, format!("{}.2", first.version));
    let taken = import(&server, &server.admin, head("staging", &first.version), &[]).await.unwrap_err();
    assert_eq!((reason(&taken).as_str(), taken.code()), ("E_SEED_EXISTS", Code::AlreadyExists));
    let latest = import(&server, &server.admin, head("staging", "latest"), &[]).await.unwrap_err();
    assert_eq!(reason(&latest), "E_FIELD");
}

#[tokio::test]
async fn the_same_key_imports_once_and_other_bytes_under_it_are_refused() {
    let server = Server::start().await;
    let (_, mut session) = box_of(&server).await;
    let ask = || v1::ImportSeedHead {
        inputs: vec![input("postgres", v1::SeedFormat::Sql, 4)],
        idempotency_key: "k".to_owned(),
        ..head("staging", "")
    };
    let first = import(&server, &server.admin, ask(), &[b"aaaa"]).await.unwrap();
    let again = import(&server, &server.admin, ask(), &[b"aa", b"aa"]).await.unwrap();
    assert_eq!(first.id, again.id);
    let other = import(&server, &server.admin, ask(), &[b"bbbb"]).await.unwrap_err();
    assert_eq!(reason(&other), "E_IDEMPOTENCY_KEY_REUSED");
    let order = session.seed_order().await;
    let Some(Work::Import(work)) = &order.work else { panic!("{order:?}") };
    // The repeated call has not taken away what the first one needs.
    assert_eq!(fetch(&mut session, &work.inputs[0].artifact).await.unwrap(), b"aaaa");
}

#[tokio::test]
async fn what_cannot_be_imported_is_refused_before_its_bytes_are_taken() {
    let server = Server::start().await;
    let (_, _session) = box_of(&server).await;
    let of = |inputs: Vec<v1::SeedInput>| v1::ImportSeedHead { inputs, ..head("staging", "") };
    let sql = v1::SeedFormat::Sql;
    let cases: Vec<(&str, v1::ImportSeedHead, &[&[u8]], &str)> = vec![
        (
            "a service that is not there",
            of(vec![input("postgre", sql, 1)]),
            &[b"x"],
            "E_SEED_SERVICE: compose.yaml has no service \"postgre\"; did you mean postgres?",
        ),
        ("a format that does not fit", of(vec![input("redis", sql, 1)]), &[b"x"], "E_SEED_FORMAT"),
        ("an empty input", of(vec![input("postgres", sql, 0)]), &[], "E_FIELD"),
        ("an input beyond the limit", of(vec![input("postgres", sql, 201 << 30)]), &[], "E_"),
        ("too many inputs", of(vec![input("postgres", sql, 1); 65]), &[], "E_TOO_LARGE"),
        ("too few bytes", of(vec![input("postgres", sql, 3)]), &[b"xy"], "1 bytes before the end of postgres.dump"),
        ("too many bytes", of(vec![input("postgres", sql, 1)]), &[b"xy"], "E_STREAM"),
        ("a bad name", head("Staging", ""), &[], "E_NAME"),
        ("no stack", v1::ImportSeedHead { stack_file: "services: 3".to_owned(), ..head("staging", "") }, &[], "E_"),
        (
            "an unknown host",
            v1::ImportSeedHead { host: "nowhere".to_owned(), ..head("s", "") },
            &[],
            "E_HOST_NOT_FOUND",
        ),
        ("a short canary", v1::ImportSeedHead { canaries: vec!["abc".to_owned()], ..head("s", "") }, &[], "E_FIELD"),
    ];
    for (what, ask, pieces, expected) in cases {
        let refused = import(&server, &server.admin, ask, pieces).await.unwrap_err();
        assert!(refused.message().contains(expected), "{what}: {}", refused.message());
    }
    let list = v1::ListSeedsRequest { snapshots: true, all: true };
    let all = seeds(&server).await.list(as_(&server.admin, list)).await.unwrap().into_inner();
    assert!(all.seeds.is_empty(), "{all:?}");
}

#[tokio::test]
async fn the_stack_of_an_import_lies_sealed_and_only_until_it_has_ended() {
    let server = Server::start().await;
    let (_, mut session) = box_of(&server).await;
    let seed = import(&server, &server.admin, head("staging", ""), &[]).await.unwrap();
    let secret = async || {
        let (store, id) = (&server.running.api.app.store, seed.id.clone());
        store.read(|view| Box::pin(async move { view.secret_get("seed", &id).await })).await.unwrap()
    };
    let sealed = secret().await.unwrap().sealed;
    assert!(!sealed.windows(7).any(|window| window == b"hunter2"));
    let order = session.seed_order().await;
    session.make(&order).await;
    assert_eq!(secret().await, None);
}

#[tokio::test]
async fn a_watcher_sees_how_it_ends() {
    let server = Server::start().await;
    let (_, mut session) = box_of(&server).await;
    import(&server, &server.admin, head("staging", "1"), &[]).await.unwrap();
    let ask = v1::ShowSeedRequest { seed: "staging".to_owned() };
    let mut watch = seeds(&server).await.watch(as_(&server.admin, ask)).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().state(), v1::SeedState::Making);
    let order = session.seed_order().await;
    session.make(&order).await;
    assert_eq!(watch.message().await.unwrap().unwrap().state(), v1::SeedState::Ready);
    assert_eq!(watch.message().await.unwrap(), None);
}
