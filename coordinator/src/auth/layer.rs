//! The tower layer in front of every handler (tonic's interceptors do not see the method).

use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use http::{Request, Response, header};
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service};
use transport::Peer;

use super::denials::Denials;
use super::rules::Rules;
use super::{Caller, Denial};
use crate::app::App;
use crate::error::{self, Error};
use crate::grpc::error::status;

/// Makes [`Authenticate`] services.
#[derive(Clone, Debug)]
pub struct AuthLayer {
    app: App,
    rules: Arc<Rules>,
    denials: Arc<Denials>,
}

impl AuthLayer {
    /// A layer with these rules.
    #[must_use]
    pub fn new(app: App, rules: Rules) -> Self {
        Self { app, rules: Arc::new(rules), denials: Arc::default() }
    }
}

impl<S> Layer<S> for AuthLayer {
    type Service = Authenticate<S>;

    fn layer(&self, inner: S) -> Authenticate<S> {
        Authenticate { inner, shared: self.clone() }
    }
}

/// Authenticates every call, and puts the [`super::Caller`] into its extensions.
#[derive(Clone, Debug)]
pub struct Authenticate<S> {
    inner: S,
    shared: AuthLayer,
}

impl<S> Service<Request<Body>> for Authenticate<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let ready = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, ready);
        let AuthLayer { app, rules, denials } = self.shared.clone();
        Box::pin(async move {
            let method = request.uri().path().to_owned();
            let peer = request.extensions().get::<Peer>().cloned();
            let bearer = request
                .headers()
                .get(header::AUTHORIZATION)
                .and_then(|value| value.to_str().ok())
                .and_then(|value| value.strip_prefix("Bearer ").or_else(|| value.strip_prefix("bearer ")))
                .map(str::to_owned);
            match super::authenticate(&app, &rules, &method, bearer.as_deref(), peer.as_ref()).await {
                Ok(caller) => {
                    // Nothing behind this layer sees a token.
                    request.headers_mut().remove(header::AUTHORIZATION);
                    request.extensions_mut().insert(caller.clone());
                    let response = inner.call(request).await?;
                    if let Some(denial) = denied_inside(&response, caller) {
                        denials.record(&app, &method, &from(peer.as_ref()), &denial).await;
                    }
                    Ok(response)
                }
                Err(denial) => {
                    denials.record(&app, &method, &from(peer.as_ref()), &denial).await;
                    Ok(status(denial.error).into_http())
                }
            }
        })
    }
}

fn from(peer: Option<&Peer>) -> String {
    peer.map_or_else(|| "unknown".to_owned(), |peer| peer.address.to_string())
}

/// What a handler denied after loading: scope and owner are decided there.
fn denied_inside(response: &Response<Body>, caller: Caller) -> Option<Denial> {
    let status = Status::from_header_map(response.headers())?;
    if status.code() != Code::PermissionDenied {
        return None;
    }
    let who = match caller {
        Caller::Principal(principal) => Some(Box::new(principal)),
        Caller::Host(_) | Caller::Anybody => None,
    };
    let cause = status.message().to_owned();
    Some(Denial { error: Error::new(error::Code::PERMISSION_DENIED, cause.clone()), cause, who })
}
