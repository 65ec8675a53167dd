//! What agents call to move seeds.

use std::pin::Pin;

use bytes::BytesMut;
use domain::ids::SeedId;
use futures::Stream;
use proto::v1::chunks_server::Chunks;
use proto::v1::put_index_request::Part;
use proto::{MAX_CHUNK, MAX_SEED_INDEX, v1};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::error::status;
use super::{Api, agent};
use crate::app::chunks::{self, Receiving};
use crate::error::{Code, Error, Result as Checked};

fn seed(text: &str) -> Checked<SeedId> {
    Ok(proto::convert::id("seed", text)?)
}

fn wrong(text: &str) -> Status {
    status(Error::new(Code::STREAM, text))
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Chunks for Api {
    type IndexStream = Answers<v1::FetchIndexResponse>;
    type FetchStream = Answers<v1::Chunk>;

    async fn missing(
        &self,
        request: Request<v1::MissingChunksRequest>,
    ) -> Result<Response<v1::MissingChunksResponse>, Status> {
        let host = agent(&request)?;
        let ask = request.into_inner();
        let (id, asked) = (seed(&ask.seed).map_err(status)?, chunks::hashes(&ask.hashes).map_err(status)?);
        let missing = chunks::missing(&self.app, &host, id, asked).await.map_err(status)?;
        let hashes = missing.iter().flat_map(|hash| hex::decode(hash.hex()).unwrap_or_default()).collect();
        Ok(Response::new(v1::MissingChunksResponse { hashes }))
    }

    async fn put(
        &self,
        request: Request<Streaming<v1::PutChunksRequest>>,
    ) -> Result<Response<v1::PutChunksResponse>, Status> {
        let host = agent(&request)?;
        let mut stream = request.into_inner();
        let mut receiving: Option<Receiving> = None;
        while let Some(message) = stream.message().await? {
            let receiving = match &mut receiving {
                Some(receiving) => receiving,
                None => {
                    let id = seed(&message.seed).map_err(status)?;
                    receiving.insert(Receiving::begin(&self.app, &host, id).await.map_err(status)?)
                }
            };
            if let Some(chunk) = message.chunk {
                receiving.take(&self.app, &host, chunk).await.map_err(status)?;
            }
        }
        let receiving = receiving.ok_or_else(|| wrong("chunks of no seed came"))?;
        let stored_bytes = receiving.finish(&self.app, &host).await.map_err(status)?;
        Ok(Response::new(v1::PutChunksResponse { stored_bytes }))
    }

    async fn put_index(
        &self,
        request: Request<Streaming<v1::PutIndexRequest>>,
    ) -> Result<Response<v1::PutIndexResponse>, Status> {
        let host = agent(&request)?;
        let mut stream = request.into_inner();
        let Some(v1::PutIndexRequest { part: Some(Part::Head(head)) }) = stream.message().await? else {
            return Err(wrong("the first message of an index must be its head"));
        };
        let id = seed(&head.seed).map_err(status)?;
        let mut bytes = BytesMut::new();
        while let Some(message) = stream.message().await? {
            let Some(Part::Data(data)) = message.part else { return Err(wrong("after the head only data may follow")) };
            bytes.extend_from_slice(&data);
            if bytes.len() > MAX_SEED_INDEX {
                let text = format!("an index has at most {MAX_SEED_INDEX} bytes");
                return Err(status(Error::new(Code::TOO_LARGE, text)));
            }
        }
        let digest = chunks::put_index(&self.app, &host, id, &head.manifest, bytes.freeze()).await.map_err(status)?;
        Ok(Response::new(v1::PutIndexResponse { digest: digest.hex().to_owned() }))
    }

    async fn index(&self, request: Request<v1::FetchIndexRequest>) -> Result<Response<Self::IndexStream>, Status> {
        let host = agent(&request)?;
        let id = seed(&request.get_ref().seed).map_err(status)?;
        let (manifest, bytes) = chunks::index(&self.app, &host, id).await.map_err(status)?;
        let mut messages = vec![Ok(v1::FetchIndexResponse { manifest, data: Vec::new() })];
        let piece = |data: &[u8]| Ok(v1::FetchIndexResponse { manifest: Vec::new(), data: data.to_vec() });
        messages.extend(bytes.chunks(MAX_CHUNK).map(piece));
        Ok(Response::new(Box::pin(tokio_stream::iter(messages))))
    }

    async fn fetch(&self, request: Request<v1::FetchChunksRequest>) -> Result<Response<Self::FetchStream>, Status> {
        let host = agent(&request)?;
        let ask = request.into_inner();
        let (id, asked) = (seed(&ask.seed).map_err(status)?, chunks::hashes(&ask.hashes).map_err(status)?);
        let rows = chunks::find(&self.app, &host, id, asked).await.map_err(status)?;
        let (sender, receiver) = mpsc::channel(4);
        let app = self.app.clone();
        tokio::spawn(async move {
            for row in &rows {
                let chunk = chunks::read(&app, row).await.map_err(status);
                let failed = chunk.is_err();
                if sender.send(chunk).await.is_err() || failed {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}
