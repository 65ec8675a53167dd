//! Apps and the settings of their targets.

use domain::app::TargetSpec;
use domain::name::Name;
use proto::v1;
use proto::v1::apps_server::Apps;
use proto::v1::config_server::Config;
use tonic::{Request, Response, Status};

use super::error::status;
use super::{Api, principal};
use crate::app::apps::{self, AppView, TargetState};
use crate::app::config::{self, Revision};
use crate::app::idempotency::Key;

fn target(name: &Name, spec: &TargetSpec, state: Option<&TargetState>) -> v1::Target {
    let lock = state.and_then(|state| state.lock.as_ref()).map(|row| v1::TargetLock {
        holder: row.lock.holder.clone(),
        reason: row.lock.reason.clone(),
        expires_at: row.lock.until.0,
    });
    let members = state.map(|state| state.members.iter().map(ToString::to_string).collect());
    v1::Target {
        name: name.to_string(),
        members: spec.members.to_string(),
        member_names: members.unwrap_or_default(),
        release: state.and_then(|state| state.release).unwrap_or(0),
        config_revision: state.map_or(0, |state| state.config_revision),
        lock,
    }
}

fn message(view: AppView) -> v1::App {
    let AppView { row, targets } = view;
    let names = |names: Vec<&Name>| names.into_iter().map(ToString::to_string).collect();
    v1::App {
        name: row.app.name.to_string(),
        targets: row.app.targets.iter().map(|(name, spec)| target(name, spec, targets.get(name))).collect(),
        processes: names(row.app.processes.keys().collect()),
        tests: names(row.app.tests.keys().collect()),
        manifest: row.manifest,
        repository: row.repository,
        applied_at: row.applied_at.0,
    }
}

#[tonic::async_trait]
impl Apps for Api {
    async fn apply(&self, request: Request<v1::ApplyAppRequest>) -> Result<Response<v1::ApplyAppResponse>, Status> {
        let principal = principal(&request)?;
        let ask = request.get_ref();
        let key = Key::of("Apps/Apply", &ask.idempotency_key, ask).map_err(status)?;
        let (view, changed) =
            apps::apply(&self.app, &principal, &ask.file, &ask.manifest, &ask.repository, key.as_ref())
                .await
                .map_err(status)?;
        Ok(Response::new(v1::ApplyAppResponse { app: Some(message(view)), changed }))
    }

    async fn list(&self, request: Request<v1::ListAppsRequest>) -> Result<Response<v1::ListAppsResponse>, Status> {
        let principal = principal(&request)?;
        let all = apps::list(&self.app, &principal).await.map_err(status)?;
        Ok(Response::new(v1::ListAppsResponse { apps: all.into_iter().map(message).collect() }))
    }

    async fn show(&self, request: Request<v1::ShowAppRequest>) -> Result<Response<v1::App>, Status> {
        let principal = principal(&request)?;
        let view = apps::show(&self.app, &principal, &request.get_ref().app).await.map_err(status)?;
        Ok(Response::new(message(view)))
    }
}

fn revision(revision: Revision) -> v1::ConfigRevision {
    v1::ConfigRevision {
        target: revision.row.target.to_string(),
        revision: revision.row.revision,
        values: revision.row.values,
        actor: revision.actor,
        created_at: revision.row.created_at.0,
        changes: revision.changes,
    }
}

#[tonic::async_trait]
impl Config for Api {
    async fn set(&self, request: Request<v1::SetConfigRequest>) -> Result<Response<v1::ConfigRevision>, Status> {
        let principal = principal(&request)?;
        let ask = request.get_ref();
        let key = Key::of("Config/Set", &ask.idempotency_key, ask).map_err(status)?;
        let made = config::set(&self.app, &principal, &ask.target, &ask.set, &ask.unset, key.as_ref()).await;
        Ok(Response::new(revision(made.map_err(status)?)))
    }

    async fn list(&self, request: Request<v1::ListConfigRequest>) -> Result<Response<v1::ListConfigResponse>, Status> {
        let principal = principal(&request)?;
        let all = config::list(&self.app, &principal, &request.get_ref().target).await.map_err(status)?;
        Ok(Response::new(v1::ListConfigResponse { revisions: all.into_iter().map(revision).collect() }))
    }
}
