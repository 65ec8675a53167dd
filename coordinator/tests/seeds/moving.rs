//! Seeds are brought to other hosts, with tests as the agents that push and pull.

use std::path::PathBuf;

use prost::Message as _;
use proto::v1;
use proto::v1::chunks_client::ChunksClient;
use proto::v1::put_index_request::Part;
use proto::v1::seed_order::Work;
use tonic::Status;
use tonic::transport::Channel;

use super::{DIGEST, STACK, environments, made, seeds, show, up};
use crate::support::{Host, Server, Session, as_, reason};

/// Two hosts: the seed `staging@1` is made on the first.
struct World {
    server: Server,
    boxes: [Host; 2],
    sessions: [Session; 2],
    seed: v1::Seed,
}

fn hash(bytes: &[u8]) -> Vec<u8> {
    transport::pin::sha256(bytes).to_vec()
}

fn chunk(bytes: &[u8]) -> v1::Chunk {
    v1::Chunk { hash: hash(bytes), data: bytes.to_vec().into(), packed: false }
}

impl World {
    async fn new() -> Self {
        let server = Server::start().await;
        let first = server.host("a-box", "role=dev").await;
        let mut session = first.ready(&server).await;
        let seed = made(&server, &mut session, "staging", "1").await;
        let second = server.host("b-box", "").await;
        let other = second.ready(&server).await;
        Self { server, boxes: [first, second], sessions: [session, other], seed }
    }

    async fn chunks(&self, host: usize) -> ChunksClient<Channel> {
        ChunksClient::new(self.server.connect(Some(&self.boxes[host].identity)).await)
    }

    async fn up(&self, name: &str) -> Result<v1::Environment, Status> {
        let ask = v1::UpEnvironmentRequest {
            name: name.to_owned(),
            stack_file: STACK.to_owned(),
            from: "staging".to_owned(),
            host: "b-box".to_owned(),
            ..v1::UpEnvironmentRequest::default()
        };
        Ok(environments(&self.server).await.up(as_(&self.server.admin, ask)).await?.into_inner())
    }

    async fn shown(&self, name: &str) -> v1::Environment {
        let ask = v1::ShowEnvironmentRequest { environment: name.to_owned() };
        environments(&self.server).await.show(as_(&self.server.admin, ask)).await.unwrap().into_inner()
    }

    async fn missing(&self, host: usize, seed: &str, hashes: Vec<u8>) -> Result<Vec<u8>, Status> {
        let ask = v1::MissingChunksRequest { seed: seed.to_owned(), hashes };
        Ok(self.chunks(host).await.missing(ask).await?.into_inner().hashes)
    }

    async fn put(&self, host: usize, seed: &str, chunks: Vec<v1::Chunk>) -> Result<u64, Status> {
        let message = |chunk| v1::PutChunksRequest { seed: seed.to_owned(), chunk: Some(chunk) };
        let stream = tokio_stream::iter(chunks.into_iter().map(message).collect::<Vec<_>>());
        Ok(self.chunks(host).await.put(stream).await?.into_inner().stored_bytes)
    }

    async fn put_index(&self, host: usize, seed: &str, bytes: Vec<u8>) -> Result<String, Status> {
        let head = v1::PutIndexHead { seed: seed.to_owned(), manifest: b"how to enter".to_vec() };
        let parts = [Part::Head(head), Part::Data(bytes)].map(|part| v1::PutIndexRequest { part: Some(part) });
        Ok(self.chunks(host).await.put_index(tokio_stream::iter(parts)).await?.into_inner().digest)
    }

    async fn fetch(&self, host: usize, seed: &str, hashes: Vec<u8>) -> Result<Vec<v1::Chunk>, Status> {
        let ask = v1::FetchChunksRequest { seed: seed.to_owned(), hashes };
        let mut stream = self.chunks(host).await.fetch(ask).await?.into_inner();
        let mut chunks = Vec::new();
        while let Some(chunk) = stream.message().await? {
            chunks.push(chunk);
        }
        Ok(chunks)
    }

    /// Pushes these pieces as the first host.
    async fn push(&mut self, seed: &str, pieces: &[&[u8]]) {
        let order = self.sessions[0].seed_order().await;
        assert_eq!((order.id.as_str(), order.work), (seed, Some(Work::Push(DIGEST.to_owned()))));
        let hashes: Vec<u8> = pieces.iter().flat_map(|piece| hash(piece)).collect();
        let missing = self.missing(0, seed, hashes).await.unwrap();
        let lacking = |piece: &&&[u8]| missing.chunks(32).any(|one| one == hash(piece));
        let chunks = pieces.iter().filter(lacking).map(|piece| chunk(piece)).collect::<Vec<_>>();
        if !chunks.is_empty() {
            self.put(0, seed, chunks).await.unwrap();
        }
        self.put_index(0, seed, index(pieces)).await.unwrap();
        let told = v1::SeedReport { moved_bytes: 77, ..moved(seed, v1::SeedWork::Push) };
        self.sessions[0].tell_seed(told).await;
    }

    /// The objects with chunks.
    fn segments(&self) -> Vec<PathBuf> {
        let folder = self.server.running.api.app.state_dir.clone().unwrap().join("artifacts/chunks");
        std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
    }
}

fn index(pieces: &[&[u8]]) -> Vec<u8> {
    let index = v1::SeedIndex {
        format: 1,
        hashes: pieces.iter().flat_map(|piece| hash(piece)).collect(),
        lengths: pieces.iter().map(|piece| u32::try_from(piece.len()).unwrap()).collect(),
        entries: Vec::new(),
    };
    index.encode_to_vec()
}

fn moved(seed: &str, work: v1::SeedWork) -> v1::SeedReport {
    v1::SeedReport {
        id: seed.to_owned(),
        state: v1::SeedState::Ready.into(),
        work: work.into(),
        took_micros: 5,
        ..v1::SeedReport::default()
    }
}

const PIECES: [&[u8]; 2] = [b"one piece", b"and another"];

#[tokio::test]
async fn a_seed_is_brought_to_a_host_that_lacks_it_before_its_environment_begins() {
    let mut world = World::new().await;
    let id = world.seed.id.clone();
    assert_eq!(world.up("mine").await.unwrap().host, "b-box");
    let waits = world.shown("mine").await;
    assert_eq!((waits.state(), waits.data.as_str()), (v1::EnvironmentState::Pending, "from a-box: waits for its host"));
    world.push(&id, &PIECES).await;
    let order = world.sessions[1].seed_order().await;
    assert_eq!((&order.id, order.work), (&id, Some(Work::Pull(DIGEST.to_owned()))));
    let ask = v1::FetchIndexRequest { seed: id.clone() };
    let mut stream = world.chunks(1).await.index(ask).await.unwrap().into_inner();
    let (mut manifest, mut bytes) = (Vec::new(), Vec::new());
    while let Some(piece) = stream.message().await.unwrap() {
        manifest.extend(piece.manifest);
        bytes.extend(piece.data);
    }
    assert_eq!((manifest.as_slice(), bytes), (b"how to enter".as_slice(), index(&PIECES)));
    let asked = [hash(PIECES[1]), hash(PIECES[0])].concat();
    let came = world.fetch(1, &id, asked).await.unwrap();
    assert_eq!(came, [chunk(PIECES[1]), chunk(PIECES[0])]);
    world.sessions[1].tell_seed(moved(&id, v1::SeedWork::Pull)).await;
    let order = world.sessions[1].environment_order().await;
    assert_eq!((order.name.as_str(), order.data_from), ("mine", format!("seed:{DIGEST}")));
    let seed = show(&world.server, "staging").await.unwrap();
    assert_eq!(seed.hosts, ["a-box", "b-box"]);
    let store = seed.copies.iter().find(|copy| copy.host.is_empty()).unwrap();
    assert_eq!((store.state(), store.moved_bytes), (v1::SeedState::Ready, 77));
    for kind in ["seed.pushed", "seed.pulled"] {
        assert_eq!(world.server.events(kind).await.len(), 1, "{kind}");
    }
    // It is there now: nothing has to be brought again.
    world.up("second").await.unwrap();
    assert_eq!(world.sessions[1].environment_order().await.name, "second");
}

#[tokio::test]
async fn only_a_host_that_was_told_to_may_push_or_pull_and_only_that_seed() {
    let mut world = World::new().await;
    let id = world.seed.id.clone();
    let one = hash(PIECES[0]);
    let refused = |status: Status| assert_eq!(reason(&status), "E_SEED_NOT_ORDERED");
    for host in [0, 1] {
        refused(world.missing(host, &id, one.clone()).await.unwrap_err());
        refused(world.put(host, &id, vec![chunk(PIECES[0])]).await.unwrap_err());
        refused(world.put_index(host, &id, index(&[])).await.unwrap_err());
        refused(world.fetch(host, &id, one.clone()).await.unwrap_err());
    }
    world.up("mine").await.unwrap();
    // Ordered to push is not ordered to pull, and nobody pulls before it is there.
    refused(world.missing(1, &id, one.clone()).await.unwrap_err());
    refused(world.fetch(1, &id, one.clone()).await.unwrap_err());
    refused(world.fetch(0, &id, one.clone()).await.unwrap_err());
    world.push(&id, &PIECES).await;
    refused(world.missing(0, &id, one.clone()).await.unwrap_err());
    refused(world.fetch(0, &id, one.clone()).await.unwrap_err());
    let foreign = world.fetch(1, &id, hash(b"of another seed")).await.unwrap_err();
    assert_eq!(reason(&foreign), "E_SEED_CHUNK");
    world.fetch(1, &id, one).await.unwrap();
    // People have their own verbs for this.
    let asked = v1::MissingChunksRequest { seed: id, hashes: Vec::new() };
    let mut client = ChunksClient::new(world.server.channel().await);
    let denied = client.missing(as_(&world.server.admin, asked)).await.unwrap_err();
    assert_eq!(denied.code(), tonic::Code::Unauthenticated);
}

#[tokio::test]
async fn what_does_not_hold_together_is_refused_and_nothing_of_it_is_kept() {
    let mut world = World::new().await;
    let id = world.seed.id.clone();
    let ask = v1::ShowSeedRequest { seed: "staging".to_owned() };
    seeds(&world.server).await.push(as_(&world.server.admin, ask)).await.unwrap();
    world.sessions[0].seed_order().await;
    let wrong = v1::Chunk { hash: hash(b"x"), ..chunk(b"y") };
    let bomb = v1::Chunk { packed: true, ..chunk(b"not deflate") };
    let large = chunk(&vec![7; proto::MAX_SEED_CHUNK + 1]);
    let nameless = v1::Chunk { hash: vec![1; 31], ..chunk(b"y") };
    for (chunk, expected) in
        [(wrong, "E_SEED_CHUNK"), (bomb, "E_SEED_CHUNK"), (large, "E_TOO_LARGE"), (nameless, "E_FIELD")]
    {
        assert_eq!(reason(&world.put(0, &id, vec![chunk]).await.unwrap_err()), expected);
    }
    assert!(world.segments().is_empty());
    assert_eq!(reason(&world.missing(0, &id, vec![0; 33]).await.unwrap_err()), "E_FIELD");
    let many = vec![0; (proto::MAX_HASHES + 1) * 32];
    assert_eq!(reason(&world.missing(0, &id, many).await.unwrap_err()), "E_TOO_LARGE");
    assert_eq!(reason(&world.missing(0, "staging", Vec::new()).await.unwrap_err()), "E_FIELD");
    for bytes in [index(&PIECES), b"\xff\xff".to_vec()] {
        assert_eq!(reason(&world.put_index(0, &id, bytes).await.unwrap_err()), "E_SEED_INDEX");
    }
    // An end that is told without an index is none.
    world.sessions[0].tell_seed(moved(&id, v1::SeedWork::Push)).await;
    let seed = show(&world.server, "staging").await.unwrap();
    let store = &seed.copies[0];
    assert_eq!((store.state(), store.reason.clone().unwrap().code.as_str()), (v1::SeedState::Failed, "E_SEED_INDEX"));
}

#[tokio::test]
async fn a_push_that_fails_fails_who_waits_for_it_and_the_next_attempt_begins_anew() {
    let mut world = World::new().await;
    let id = world.seed.id.clone();
    world.up("mine").await.unwrap();
    world.sessions[0].seed_order().await;
    let why = v1::Reason { code: "E_SEED_DIGEST".to_owned(), text: "other data than was sealed".to_owned() };
    let failed =
        v1::SeedReport { state: v1::SeedState::Failed.into(), reason: Some(why), ..moved(&id, v1::SeedWork::Push) };
    world.sessions[0].tell_seed(failed).await;
    let shown = world.shown("mine").await;
    assert_eq!((shown.state(), shown.reason.unwrap().code.as_str()), (v1::EnvironmentState::Failed, "E_SEED_DIGEST"));
    assert_eq!(world.server.events("seed.not_pushed").await.len(), 1);
    // The same command again.
    let again = world.up("mine").await.unwrap();
    assert_eq!((again.generation, again.state()), (2, v1::EnvironmentState::Pending));
    world.push(&id, &PIECES).await;
    world.sessions[1].seed_order().await;
    world.sessions[1].tell_seed(moved(&id, v1::SeedWork::Pull)).await;
    assert_eq!(world.sessions[1].environment_order().await.generation, 2);
}

#[tokio::test]
async fn a_flipped_byte_in_the_store_is_refused_and_pushed_anew() {
    let mut world = World::new().await;
    let id = world.seed.id.clone();
    world.up("mine").await.unwrap();
    world.push(&id, &PIECES).await;
    world.sessions[1].seed_order().await;
    let segment = world.segments().remove(0);
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[3] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    let refused = world.fetch(1, &id, hash(PIECES[0])).await.unwrap_err();
    assert_eq!(reason(&refused), "E_SEED_CHUNK");
    assert!(!segment.exists(), "nobody is given it again");
    let why = v1::Reason { code: reason(&refused), text: refused.message().to_owned() };
    let failed =
        v1::SeedReport { state: v1::SeedState::Failed.into(), reason: Some(why), ..moved(&id, v1::SeedWork::Pull) };
    world.sessions[1].tell_seed(failed).await;
    assert_eq!(world.shown("mine").await.reason.unwrap().code, "E_SEED_CHUNK");
    world.up("mine").await.unwrap();
    world.push(&id, &PIECES).await;
    world.sessions[1].seed_order().await;
    world.fetch(1, &id, PIECES.iter().flat_map(|piece| hash(piece)).collect()).await.unwrap();
}

#[tokio::test]
async fn chunks_stay_until_the_last_seed_that_needs_them_goes() {
    let mut world = World::new().await;
    let second = made(&world.server, &mut world.sessions[0], "staging", "2").await;
    let first = world.seed.id.clone();
    for id in [&first, &second.id] {
        let ask = v1::ShowSeedRequest { seed: id.clone() };
        seeds(&world.server).await.push(as_(&world.server.admin, ask)).await.unwrap();
        world.push(id, &PIECES).await;
    }
    assert_eq!(world.segments().len(), 1, "the second had nothing to send");
    let remove = |id: &str| v1::ShowSeedRequest { seed: id.to_owned() };
    let going = seeds(&world.server).await.remove(as_(&world.server.admin, remove(&first))).await.unwrap();
    assert_eq!(going.into_inner().state(), v1::SeedState::Removed, "the other has the same data on this host");
    assert_eq!(world.segments().len(), 1);
    seeds(&world.server).await.remove(as_(&world.server.admin, remove(&second.id))).await.unwrap();
    assert!(world.segments().is_empty());
    assert_eq!(world.sessions[0].seed_order().await.work, Some(Work::Remove(DIGEST.to_owned())));
}

#[tokio::test]
async fn a_seed_goes_from_all_hosts_and_outlives_the_one_that_made_it() {
    let mut world = World::new().await;
    let id = world.seed.id.clone();
    let ask = v1::PullSeedRequest { seed: "staging".to_owned(), host: "b-box".to_owned() };
    seeds(&world.server).await.pull(as_(&world.server.admin, ask)).await.unwrap();
    world.push(&id, &PIECES).await;
    world.sessions[1].seed_order().await;
    world.sessions[1].tell_seed(moved(&id, v1::SeedWork::Pull)).await;
    let mut hosts = v1::hosts_client::HostsClient::new(world.server.channel().await);
    let away = v1::RemoveHostRequest { host: "a-box".to_owned(), force: true };
    hosts.remove(as_(&world.server.admin, away)).await.unwrap();
    assert_eq!(show(&world.server, &id).await.unwrap().state(), v1::SeedState::Ready);
    world.up("mine").await.unwrap();
    let order = world.sessions[1].environment_order().await;
    world.sessions[1].tell_environment(up(&order)).await;
    let down = v1::DownEnvironmentRequest { environment: "mine".to_owned() };
    environments(&world.server).await.down(as_(&world.server.admin, down)).await.unwrap();
    let order = world.sessions[1].environment_order().await;
    let gone = v1::EnvironmentReport { state: v1::EnvironmentState::Gone.into(), ..up(&order) };
    world.sessions[1].tell_environment(gone).await;
    let remove = v1::ShowSeedRequest { seed: id.clone() };
    seeds(&world.server).await.remove(as_(&world.server.admin, remove)).await.unwrap();
    let order = world.sessions[1].seed_order().await;
    assert_eq!(order.work, Some(Work::Remove(DIGEST.to_owned())));
    let removed = v1::SeedReport { state: v1::SeedState::Removed.into(), ..moved(&id, v1::SeedWork::Unspecified) };
    world.sessions[1].tell_seed(removed).await;
    assert!(show(&world.server, &id).await.unwrap().copies.is_empty());
}

#[tokio::test]
async fn a_seed_is_not_waited_for_when_nobody_has_it_who_could_bring_it() {
    let world = World::new().await;
    let store = &world.server.running.api.app.store;
    let id: domain::ids::SeedId = world.seed.id.parse().unwrap();
    let work = store.write(|tx| {
        Box::pin(async move {
            let mut lost = tx.seed_get(id).await?.unwrap();
            let fresh = uuid::Uuid::now_v7();
            (lost.seed.id, lost.seed.host) = (domain::ids::SeedId::new(fresh), domain::ids::HostId::new(fresh));
            (lost.seed.version, lost.version) = ("9".to_owned(), 0);
            tx.seed_put(&lost).await
        })
    });
    work.await.unwrap();
    for host in ["b-box", ""] {
        let ask = v1::UpEnvironmentRequest {
            name: "mine".to_owned(),
            stack_file: STACK.to_owned(),
            from: "staging@9".to_owned(),
            host: host.to_owned(),
            ..v1::UpEnvironmentRequest::default()
        };
        let refused = environments(&world.server).await.up(as_(&world.server.admin, ask)).await.unwrap_err();
        assert_eq!(reason(&refused), "E_SEED_ELSEWHERE");
        assert!(refused.message().contains("lies on a host that was removed"), "{}", refused.message());
    }
}
