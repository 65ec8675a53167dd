//! Seeds and snapshots, with a test as the agent that makes them.

mod data;
mod ending;
mod import;
mod moving;
mod removal;
mod running;

use bytes::Bytes;
use proto::v1;
use proto::v1::agent_message::Message as Up;
use proto::v1::coordinator_message::Message as Down;
use proto::v1::environments_client::EnvironmentsClient;
use proto::v1::import_seed_request::Part;
use proto::v1::seeds_client::SeedsClient;
use tonic::Status;
use tonic::transport::Channel;

use crate::support::{Server, Session, as_};

pub const STACK: &str = "\
services:
  postgres:
    image: postgres:15
    environment: { POSTGRES_PASSWORD: hunter2hunter2 }
    volumes: [\"data:/var/lib/postgresql/data\"]
  redis:
    image: redis:7
volumes: { data: {} }
";
pub const DIGEST: &str = "abababababababababababababababababababababababababababababababab";

pub fn head(name: &str, version: &str) -> v1::ImportSeedHead {
    v1::ImportSeedHead {
        name: name.to_owned(),
        version: version.to_owned(),
        stack_file: STACK.to_owned(),
        file: "compose.yaml".to_owned(),
        ..v1::ImportSeedHead::default()
    }
}

pub fn input(service: &str, format: v1::SeedFormat, bytes: usize) -> v1::SeedInput {
    v1::SeedInput {
        service: service.to_owned(),
        format: format.into(),
        name: format!("{service}.dump"),
        bytes: bytes as u64,
        artifact: String::new(),
    }
}

/// Imports what `pieces` hold, one message each.
pub async fn import(
    server: &Server,
    token: &str,
    head: v1::ImportSeedHead,
    pieces: &[&[u8]],
) -> Result<v1::Seed, Status> {
    let mut parts = vec![Part::Head(head)];
    parts.extend(pieces.iter().map(|piece| Part::Data(Bytes::copy_from_slice(piece))));
    let stream = tokio_stream::iter(parts.into_iter().map(|part| v1::ImportSeedRequest { part: Some(part) }));
    Ok(seeds(server).await.import(as_(token, stream)).await?.into_inner())
}

pub async fn seeds(server: &Server) -> SeedsClient<Channel> {
    SeedsClient::new(server.channel().await)
}

pub async fn environments(server: &Server) -> EnvironmentsClient<Channel> {
    EnvironmentsClient::new(server.channel().await)
}

pub async fn show(server: &Server, seed: &str) -> Result<v1::Seed, Status> {
    let ask = v1::ShowSeedRequest { seed: seed.to_owned() };
    Ok(seeds(server).await.show(as_(&server.admin, ask)).await?.into_inner())
}

impl Session {
    /// The next message must be an order about a seed.
    pub async fn seed_order(&mut self) -> v1::SeedOrder {
        match self.next().await.message {
            Some(Down::Seed(order)) => order,
            other => panic!("no order about a seed: {other:?}"),
        }
    }

    /// The next message must be an order about an environment.
    pub async fn environment_order(&mut self) -> v1::EnvironmentOrder {
        match self.next().await.message {
            Some(Down::Environment(order)) => order,
            other => panic!("no order about an environment: {other:?}"),
        }
    }

    /// Tells of a seed, and waits until it is stored.
    pub async fn tell_seed(&mut self, report: v1::SeedReport) {
        let result = format!("{}-{}", report.id, report.state);
        self.send(Up::Seed(v1::SeedReport { result: result.clone(), ..report })).await;
        assert_eq!(self.next().await.message, Some(Down::Ack(result)));
    }

    /// Makes what was ordered.
    pub async fn make(&mut self, order: &v1::SeedOrder) {
        self.tell_seed(ready(&order.id)).await;
    }

    /// Tells of an environment, and waits until it is stored.
    pub async fn tell_environment(&mut self, report: v1::EnvironmentReport) {
        let result = format!("{}-{}", report.id, report.generation);
        self.send(Up::Environment(v1::EnvironmentReport { result: result.clone(), ..report })).await;
        assert_eq!(self.next().await.message, Some(Down::Ack(result)));
    }
}

pub fn ready(id: &str) -> v1::SeedReport {
    v1::SeedReport {
        id: id.to_owned(),
        state: v1::SeedState::Ready.into(),
        digest: DIGEST.to_owned(),
        bytes: 1 << 30,
        took_micros: 5_000_000,
        freeze_micros: 90_000,
        canaries: 2,
        masked: true,
        parts: vec![v1::SeedPart { volume: "data".to_owned(), service: "postgres".to_owned(), ..Default::default() }],
        ..v1::SeedReport::default()
    }
}

/// An environment that is up.
pub fn up(order: &v1::EnvironmentOrder) -> v1::EnvironmentReport {
    v1::EnvironmentReport {
        id: order.id.clone(),
        generation: order.generation,
        state: v1::EnvironmentState::Ready.into(),
        data: "cloned 1.0 GB in 0.11 s (reflink), own disk 0.1 MB".to_owned(),
        own_bytes: 100_000,
        shared_bytes: 1 << 30,
        ..v1::EnvironmentReport::default()
    }
}

/// A seed of that name that is ready on the session's host.
pub async fn made(server: &Server, session: &mut Session, name: &str, version: &str) -> v1::Seed {
    let seed = import(server, &server.admin, head(name, version), &[]).await.unwrap();
    let order = session.seed_order().await;
    session.make(&order).await;
    seed
}
