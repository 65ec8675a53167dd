//! Seeds and snapshots.

use domain::authorize::Principal;
use domain::seed::{Place, SeedCopy, SeedState};
use proto::v1;
use proto::v1::import_seed_request::Part;
use proto::v1::seeds_server::Seeds;
use tonic::{Request, Response, Status, Streaming};

use super::error::status;
use super::watch::{self, Answers};
use super::{Api, principal};
use crate::app::idempotency::Key;
use crate::app::seed_copies;
use crate::app::seed_import::{self, Ask, Input, Receiving};
use crate::app::seeds::{self, Sealed, SeedView};
use crate::error::{Code, Error, Result as Checked};

pub(super) fn message(view: &SeedView) -> v1::Seed {
    let seed = &view.row.seed;
    let micros = |time: Option<std::time::Duration>| time.map(proto::convert::micros).unwrap_or(0);
    v1::Seed {
        id: seed.id.to_string(),
        name: seed.name.to_string(),
        version: seed.version.clone(),
        snapshot: seed.snapshot,
        owner: view.owner.clone(),
        state: v1::SeedState::from(seed.state).into(),
        reason: seed.reason.clone().map(|(code, text)| v1::Reason { code, text }),
        detail: seed.detail.clone(),
        digest: seed.digest.as_ref().map(|digest| digest.hex().to_owned()).unwrap_or_default(),
        bytes: seed.bytes,
        parts: seed.parts.iter().map(Into::into).collect(),
        hosts: hosts(view),
        created_at: seed.created_at.0,
        took_micros: micros(seed.took),
        freeze_micros: micros(seed.freeze),
        canaries: seed.canaries,
        environments: view.environments,
        masked: seed.masked,
        copies: view.copies.iter().map(|(row, host)| copy(&row.copy, host)).collect(),
    }
}

/// Where it lies: the host that made it first.
fn hosts(view: &SeedView) -> Vec<String> {
    if view.row.seed.state.ended() {
        return Vec::new();
    }
    let there = view.copies.iter().filter(|(row, _)| row.copy.state == SeedState::Ready);
    let there = there.filter(|(row, _)| row.copy.place != Place::Store).map(|(_, host)| host.clone());
    std::iter::once(view.host.clone()).chain(there).collect()
}

fn copy(copy: &SeedCopy, host: &str) -> v1::SeedCopy {
    v1::SeedCopy {
        host: if copy.place == Place::Store { String::new() } else { host.to_owned() },
        state: v1::SeedState::from(copy.state).into(),
        reason: copy.reason.clone().map(|(code, text)| v1::Reason { code, text }),
        detail: copy.detail.clone(),
        moved_bytes: copy.moved,
        took_micros: copy.took.map_or(0, proto::convert::micros),
    }
}

fn ask(head: &v1::ImportSeedHead) -> Checked<Ask> {
    let input = |input: &v1::SeedInput| {
        Ok(Input {
            service: input.service.clone(),
            format: input.format().try_into()?,
            name: input.name.clone(),
            bytes: input.bytes,
        })
    };
    Ok(Ask {
        name: head.name.clone(),
        version: head.version.clone(),
        app: head.app.clone(),
        stack: Sealed {
            stack_file: head.stack_file.clone(),
            file: head.file.clone(),
            variables: head.variables.clone(),
            env_files: head.env_files.clone(),
            canaries: head.canaries.clone(),
        },
        inputs: head.inputs.iter().map(input).collect::<Checked<_>>()?,
        host: head.host.clone(),
    })
}

impl Api {
    async fn import_stream(
        &self,
        principal: &Principal,
        mut stream: Streaming<v1::ImportSeedRequest>,
    ) -> Result<SeedView, Status> {
        let wrong = |text: &str| Error::new(Code::STREAM, text);
        let Some(v1::ImportSeedRequest { part: Some(Part::Head(mut told)) }) = stream.message().await? else {
            return Err(status(wrong("the first message of an import must be its head")));
        };
        let head = seed_import::head(&self.app, principal, ask(&told).map_err(status)?).await.map_err(status)?;
        let mut receiving = Receiving::new(&self.app, &head);
        loop {
            let piece = match stream.message().await {
                Ok(None) => break,
                Ok(Some(v1::ImportSeedRequest { part: Some(Part::Data(bytes)) })) => receiving.take(bytes).await,
                Ok(Some(_)) => Err(wrong("after the head only data may follow")),
                Err(broken) => {
                    receiving.abort().await;
                    return Err(broken);
                }
            };
            if let Err(error) = piece {
                receiving.abort().await;
                return Err(status(error));
            }
        }
        let stored = receiving.finish().await.map_err(status)?;
        for (input, stored) in told.inputs.iter_mut().zip(&stored) {
            stored.digest.hex().clone_into(&mut input.artifact);
        }
        // The same head with other bytes is another request.
        let key = Key::of("Seeds/Import", &told.idempotency_key, &told).map_err(status)?;
        seed_import::import(&self.app, principal, head, stored, key.as_ref()).await.map_err(status)
    }
}

#[tonic::async_trait]
impl Seeds for Api {
    type WatchStream = Answers<v1::Seed>;

    async fn import(&self, request: Request<Streaming<v1::ImportSeedRequest>>) -> Result<Response<v1::Seed>, Status> {
        let principal = principal(&request)?;
        let view = self.import_stream(&principal, request.into_inner()).await?;
        Ok(Response::new(message(&view)))
    }

    async fn list(&self, request: Request<v1::ListSeedsRequest>) -> Result<Response<v1::ListSeedsResponse>, Status> {
        let principal = principal(&request)?;
        let ask = request.into_inner();
        let all = seeds::list(&self.app, &principal, ask.snapshots, ask.all).await.map_err(status)?;
        Ok(Response::new(v1::ListSeedsResponse { seeds: all.iter().map(message).collect() }))
    }

    async fn show(&self, request: Request<v1::ShowSeedRequest>) -> Result<Response<v1::Seed>, Status> {
        let principal = principal(&request)?;
        let view = seeds::show(&self.app, &principal, &request.get_ref().seed).await.map_err(status)?;
        Ok(Response::new(message(&view)))
    }

    async fn watch(&self, request: Request<v1::ShowSeedRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let principal = principal(&request)?;
        // Found once by what was written; a name can stand for another one later.
        let first = seeds::show(&self.app, &principal, &request.get_ref().seed).await.map_err(status)?;
        let (api, id) = (self.clone(), first.row.seed.id.to_string());
        let answers = watch::states(self, move || {
            let (api, principal, id) = (api.clone(), principal.clone(), id.clone());
            async move {
                let view = seeds::show(&api.app, &principal, &id).await?;
                let moving = view.copies.iter().any(|(row, _)| row.copy.state == SeedState::Making);
                let end = !view.row.seed.state.pending() && !moving;
                Ok((message(&view), end))
            }
        });
        Ok(Response::new(answers))
    }

    async fn push(&self, request: Request<v1::ShowSeedRequest>) -> Result<Response<v1::Seed>, Status> {
        let principal = principal(&request)?;
        let view = seed_copies::push(&self.app, &principal, &request.get_ref().seed).await.map_err(status)?;
        Ok(Response::new(message(&view)))
    }

    async fn pull(&self, request: Request<v1::PullSeedRequest>) -> Result<Response<v1::Seed>, Status> {
        let principal = principal(&request)?;
        let ask = request.into_inner();
        let view = seed_copies::pull(&self.app, &principal, &ask.seed, &ask.host).await.map_err(status)?;
        Ok(Response::new(message(&view)))
    }

    async fn remove(&self, request: Request<v1::ShowSeedRequest>) -> Result<Response<v1::Seed>, Status> {
        let principal = principal(&request)?;
        let view = seeds::remove(&self.app, &principal, &request.get_ref().seed).await.map_err(status)?;
        Ok(Response::new(message(&view)))
    }
}
