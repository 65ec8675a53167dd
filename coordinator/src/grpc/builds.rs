//! Builds and releases.

use bytes::Bytes;
use domain::authorize::Principal;
use proto::v1;
use proto::v1::builds_server::Builds;
use proto::v1::register_build_request::Part;
use proto::v1::releases_server::Releases;
use tonic::{Request, Response, Status, Streaming};

use super::error::status;
use super::{Api, principal};
use crate::app::builds::{self, Head, Named};
use crate::app::releases::{self, ReleaseView};
use crate::error::{Code, Error, Result as Checked};

fn message(named: Named) -> v1::Build {
    let build = named.row.build;
    let hex =
        |digest: Option<domain::release::Digest>| digest.map(|digest| digest.hex().to_owned()).unwrap_or_default();
    v1::Build {
        id: build.id.to_string(),
        app: build.app.to_string(),
        commit: build.commit.to_string(),
        image: build.image.reference.unwrap_or_default(),
        archive: hex(build.image.archive),
        archive_bytes: build.image.archive_bytes,
        config_digest: hex(build.image.config_digest),
        platform: build.image.platform,
        created_at: build.created_at.0,
        actor: named.actor,
    }
}

impl Api {
    async fn register_stream(
        &self,
        principal: &Principal,
        mut stream: Streaming<v1::RegisterBuildRequest>,
    ) -> Result<Named, Status> {
        let wrong = |text: &str| status(Error::new(Code::STREAM, text));
        let Some(v1::RegisterBuildRequest { part: Some(Part::Head(ask)) }) = stream.message().await? else {
            return Err(wrong("the first message of a registration must be its head"));
        };
        let key = ask.idempotency_key;
        let (app, commit, file) = (ask.app, ask.commit, ask.file);
        let ask = builds::Ask { app, commit, file, manifest: ask.manifest, image: ask.image, platform: ask.platform };
        let head = builds::head(&self.app, principal, &ask).await.map_err(status)?;
        if head.image.is_some() {
            if stream.message().await?.is_some() {
                return Err(wrong("a registration with an image takes no archive"));
            }
            return builds::register_reference(&self.app, principal, head, &key).await.map_err(status);
        }
        self.register_archive(principal, head, &key, stream).await
    }

    async fn register_archive(
        &self,
        principal: &Principal,
        head: Head,
        key: &str,
        mut stream: Streaming<v1::RegisterBuildRequest>,
    ) -> Result<Named, Status> {
        let mut upload = self.app.artifacts.upload(self.app.max_archive_bytes).await.map_err(status)?;
        loop {
            let piece: Checked<Option<Bytes>> = match stream.message().await {
                Ok(None) => Ok(None),
                Ok(Some(v1::RegisterBuildRequest { part: Some(Part::Data(bytes)) })) => Ok(Some(bytes)),
                Ok(Some(_)) => Err(Error::new(Code::STREAM, "after the head only data may follow")),
                Err(broken) => {
                    upload.abort().await;
                    return Err(broken);
                }
            };
            let written = match piece {
                Ok(None) => break,
                Ok(Some(bytes)) => upload.write(bytes).await,
                Err(error) => Err(error),
            };
            if let Err(error) = written {
                upload.abort().await;
                return Err(status(error));
            }
        }
        builds::register_archive(&self.app, principal, head, upload, key).await.map_err(status)
    }
}

#[tonic::async_trait]
impl Builds for Api {
    async fn register(
        &self,
        request: Request<Streaming<v1::RegisterBuildRequest>>,
    ) -> Result<Response<v1::Build>, Status> {
        let principal = principal(&request)?;
        let named = self.register_stream(&principal, request.into_inner()).await?;
        Ok(Response::new(message(named)))
    }

    async fn list(&self, request: Request<v1::ListBuildsRequest>) -> Result<Response<v1::ListBuildsResponse>, Status> {
        let principal = principal(&request)?;
        let all = builds::list(&self.app, &principal, &request.get_ref().app).await.map_err(status)?;
        Ok(Response::new(v1::ListBuildsResponse { builds: all.into_iter().map(message).collect() }))
    }
}

fn release(view: ReleaseView) -> v1::Release {
    let release = view.row.release;
    v1::Release {
        id: release.id.to_string(),
        target: release.target.to_string(),
        number: release.number,
        build: release.build.to_string(),
        commit: release.commit.to_string(),
        config_revision: release.config_revision,
        config: release.config,
        digest: release.digest.hex().to_owned(),
        processes: release.processes.keys().map(ToString::to_string).collect(),
        created_at: release.created_at.0,
        members: view.members.iter().map(ToString::to_string).collect(),
    }
}

#[tonic::async_trait]
impl Releases for Api {
    async fn list(
        &self,
        request: Request<v1::ListReleasesRequest>,
    ) -> Result<Response<v1::ListReleasesResponse>, Status> {
        let principal = principal(&request)?;
        let all = releases::list(&self.app, &principal, &request.get_ref().target).await.map_err(status)?;
        Ok(Response::new(v1::ListReleasesResponse { releases: all.into_iter().map(release).collect() }))
    }

    async fn show(&self, request: Request<v1::ShowReleaseRequest>) -> Result<Response<v1::Release>, Status> {
        let principal = principal(&request)?;
        let ask = request.get_ref();
        let view = releases::show(&self.app, &principal, &ask.target, ask.number).await.map_err(status)?;
        Ok(Response::new(release(view)))
    }
}
