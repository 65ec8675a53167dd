//! Api-tokens.

use domain::authorize::{Grant, Principal, Scope};
use proto::v1;
use proto::v1::api_tokens_server::ApiTokens;
use tonic::{Request, Response, Status};

use super::error::status;
use super::{Api, principal};
use crate::app::api_tokens::{self, Create, Named};
use crate::app::idempotency::Key;

fn scope(grant: &Grant) -> String {
    match &grant.scope {
        Scope::Project => String::new(),
        Scope::App(app) => app.to_string(),
        Scope::Target(target) => target.to_string(),
    }
}

fn message(named: Named) -> v1::ApiToken {
    v1::ApiToken {
        id: named.token.id.to_string(),
        principal: named.principal.to_string(),
        role: named.token.grant.role.as_str().to_owned(),
        scope: scope(&named.token.grant),
        created_at: named.token.created_at.0,
        expires_at: named.token.expires_at.0,
        revoked: named.token.revoked_at.is_some(),
        principal_id: named.token.principal.to_string(),
    }
}

fn who(principal: &Principal) -> v1::ApiToken {
    v1::ApiToken {
        principal: principal.name.to_string(),
        role: principal.grant.role.as_str().to_owned(),
        scope: scope(&principal.grant),
        principal_id: principal.id.to_string(),
        ..v1::ApiToken::default()
    }
}

#[tonic::async_trait]
impl ApiTokens for Api {
    async fn create(
        &self,
        request: Request<v1::CreateApiTokenRequest>,
    ) -> Result<Response<v1::CreateApiTokenResponse>, Status> {
        let principal = principal(&request)?;
        let ask = request.get_ref();
        let key = Key::of("ApiTokens/Create", &ask.idempotency_key, ask).map_err(status)?;
        let create = Create { principal: &ask.principal, role: &ask.role, scope: &ask.scope, ttl: ask.ttl_micros };
        let (named, token) = api_tokens::create(&self.app, &principal, &create, key.as_ref()).await.map_err(status)?;
        let answer = v1::CreateApiTokenResponse { token: Some(message(named)), secret: token.reveal() };
        Ok(Response::new(answer))
    }

    async fn list(
        &self,
        request: Request<v1::ListApiTokensRequest>,
    ) -> Result<Response<v1::ListApiTokensResponse>, Status> {
        let principal = principal(&request)?;
        let all = api_tokens::list(&self.app, &principal).await.map_err(status)?;
        Ok(Response::new(v1::ListApiTokensResponse { tokens: all.into_iter().map(message).collect() }))
    }

    async fn revoke(&self, request: Request<v1::RevokeApiTokenRequest>) -> Result<Response<v1::Empty>, Status> {
        let principal = principal(&request)?;
        api_tokens::revoke(&self.app, &principal, &request.get_ref().id).await.map_err(status)?;
        Ok(Response::new(v1::Empty {}))
    }

    async fn who_am_i(&self, request: Request<v1::Empty>) -> Result<Response<v1::ApiToken>, Status> {
        Ok(Response::new(who(&principal(&request)?)))
    }
}
