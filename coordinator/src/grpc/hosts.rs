//! Hosts and join-tokens.

use proto::v1;
use proto::v1::hosts_server::Hosts;
use proto::v1::join_tokens_server::JoinTokens;
use tonic::{Request, Response, Status};

use super::error::status;
use super::{Api, principal};
use crate::app::WarmStack;
use crate::app::hosts::{self, HostRelease, HostView};
use crate::app::idempotency::Key;
use crate::app::join_tokens;

fn message(api: &Api, view: HostView) -> v1::Host {
    let HostView { row, liveness, seen_at, environments, runs, releases, warm } = view;
    let unknown = liveness == domain::host::Liveness::Unreachable;
    let release = |one: HostRelease| v1::HostRelease {
        target: one.target.to_string(),
        number: one.number,
        unknown,
        failing: one.failing.unwrap_or_default(),
    };
    let stack = |one: WarmStack| v1::WarmStack {
        stack: one.stack,
        seed: one.seed,
        ready: one.ready,
        making: one.making,
        wanted: one.wanted,
    };
    v1::Host {
        id: row.host.id.to_string(),
        name: row.host.name.to_string(),
        labels: row.host.labels,
        draining: row.host.draining,
        facts: Some((&row.host.facts).into()),
        joined_at: row.host.joined_at.0,
        seen_at: seen_at.map_or(0, |at| at.0),
        since: row.since.0,
        liveness: v1::Liveness::from(liveness).into(),
        environments,
        runs,
        releases: releases.into_iter().map(release).collect(),
        silent_micros: seen_at.map_or(0, |at| proto::convert::micros(api.app.now().since(at))),
        warm: warm.into_iter().map(stack).collect(),
    }
}

#[tonic::async_trait]
impl Hosts for Api {
    async fn list(&self, request: Request<v1::ListHostsRequest>) -> Result<Response<v1::ListHostsResponse>, Status> {
        let principal = principal(&request)?;
        let all = hosts::list(&self.app, &principal, &request.get_ref().selector).await.map_err(status)?;
        let hosts = all.into_iter().map(|view| message(self, view)).collect();
        Ok(Response::new(v1::ListHostsResponse { hosts }))
    }

    async fn show(&self, request: Request<v1::ShowHostRequest>) -> Result<Response<v1::Host>, Status> {
        let principal = principal(&request)?;
        let view = hosts::show(&self.app, &principal, &request.get_ref().host).await.map_err(status)?;
        Ok(Response::new(message(self, view)))
    }

    async fn label(&self, request: Request<v1::LabelHostRequest>) -> Result<Response<v1::Host>, Status> {
        let principal = principal(&request)?;
        let ask = request.get_ref();
        let view = hosts::label(&self.app, &principal, &ask.host, &ask.set, &ask.unset).await.map_err(status)?;
        Ok(Response::new(message(self, view)))
    }

    async fn drain(&self, request: Request<v1::DrainHostRequest>) -> Result<Response<v1::Host>, Status> {
        let principal = principal(&request)?;
        let view = hosts::drain(&self.app, &principal, &request.get_ref().host, true).await.map_err(status)?;
        Ok(Response::new(message(self, view)))
    }

    async fn undrain(&self, request: Request<v1::DrainHostRequest>) -> Result<Response<v1::Host>, Status> {
        let principal = principal(&request)?;
        let view = hosts::drain(&self.app, &principal, &request.get_ref().host, false).await.map_err(status)?;
        Ok(Response::new(message(self, view)))
    }

    async fn remove(&self, request: Request<v1::RemoveHostRequest>) -> Result<Response<v1::Empty>, Status> {
        let principal = principal(&request)?;
        let ask = request.get_ref();
        hosts::remove(&self.app, &principal, &ask.host, ask.force).await.map_err(status)?;
        Ok(Response::new(v1::Empty {}))
    }
}

fn token_message(named: join_tokens::Named) -> v1::JoinToken {
    v1::JoinToken {
        id: named.token.id.to_string(),
        host: named.token.host.to_string(),
        labels: named.token.labels,
        created_at: named.token.created_at.0,
        expires_at: named.token.expires_at.0,
        used_by: named.used_by.unwrap_or_default(),
    }
}

#[tonic::async_trait]
impl JoinTokens for Api {
    async fn create(
        &self,
        request: Request<v1::CreateJoinTokenRequest>,
    ) -> Result<Response<v1::CreateJoinTokenResponse>, Status> {
        let principal = principal(&request)?;
        let ask = request.get_ref();
        let key = Key::of("JoinTokens/Create", &ask.idempotency_key, ask).map_err(status)?;
        let (named, secret) =
            join_tokens::create(&self.app, &principal, &ask.host, &ask.labels, ask.ttl_micros, key.as_ref())
                .await
                .map_err(status)?;
        let answer = v1::CreateJoinTokenResponse { token: Some(token_message(named)), secret: secret.reveal() };
        Ok(Response::new(answer))
    }

    async fn list(
        &self,
        request: Request<v1::ListJoinTokensRequest>,
    ) -> Result<Response<v1::ListJoinTokensResponse>, Status> {
        let principal = principal(&request)?;
        let all = join_tokens::list(&self.app, &principal).await.map_err(status)?;
        Ok(Response::new(v1::ListJoinTokensResponse { tokens: all.into_iter().map(token_message).collect() }))
    }

    async fn revoke(&self, request: Request<v1::RevokeJoinTokenRequest>) -> Result<Response<v1::Empty>, Status> {
        let principal = principal(&request)?;
        join_tokens::revoke(&self.app, &principal, &request.get_ref().id).await.map_err(status)?;
        Ok(Response::new(v1::Empty {}))
    }
}
