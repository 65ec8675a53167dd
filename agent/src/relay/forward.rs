//! One request to one endpoint, over a kept connection or a fresh one.

use std::fmt;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;

use super::Limits;
use super::backend::{Backend, ConnectError, connect};
use super::body::{Done, RequestBody};
use super::http::{MAX_BUFFER, MAX_HEAD};
use super::pool::Sender;

/// Fresh connections tried when one dies before anything was sent.
const FRESH_TRIES: u32 = 2;

/// An answer's head, and what its body needs.
pub(super) struct Answered {
    pub response: Response<Incoming>,
    pub sender: Sender,
    /// Whether the request's body was sent completely.
    pub request_done: Done,
}

/// Why there is no answer.
pub(super) enum Failed {
    /// Nothing was sent: the request may go elsewhere.
    NotReached { request: Box<Request<RequestBody>>, error: ConnectError },
    /// The endpoint may have seen the request.
    Broken(hyper::Error),
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotReached { error, .. } => {
                write!(f, "the service could not be reached: {error}")
            }
            Self::Broken(error) => write!(f, "the service ended the connection before its answer: {error}"),
        }
    }
}

/// Sends a request and waits for the head of its answer.
///
/// A request is sent again only when none of it was sent before, or when it is safe by its method, has no body, and a kept
/// connection turned out to be dead: nothing that may have been processed is repeated.
pub(super) async fn forward(
    backend: &Backend,
    limits: &Limits,
    mut request: Request<RequestBody>,
) -> Result<Answered, Failed> {
    let repeatable = request.method().is_safe() && request.body().is_empty();
    while let Some(mut sender) = backend.pool().take(repeatable).await {
        let copy = repeatable.then(|| copy_of(&request, backend));
        let request_done = request.body().done();
        match sender.try_send_request(request).await {
            Ok(response) => {
                return Ok(Answered { response, sender, request_done });
            }
            Err(mut error) => match (error.take_message(), copy) {
                (Some(unsent), _) => request = unsent,
                (None, Some(copy)) if died(error.error()) => {
                    request = copy;
                    break;
                }
                (None, _) => return Err(Failed::Broken(error.into_error())),
            },
        }
    }
    forward_fresh(backend, limits, request).await
}

/// Whether the connection ended, as opposed to an answer that makes no sense.
fn died(error: &hyper::Error) -> bool {
    !(error.is_parse() || error.is_user())
}

fn copy_of(request: &Request<RequestBody>, backend: &Backend) -> Request<RequestBody> {
    let mut copy = Request::new(RequestBody::empty(Arc::clone(&backend.counters)));
    request.method().clone_into(copy.method_mut());
    request.uri().clone_into(copy.uri_mut());
    *copy.version_mut() = request.version();
    request.headers().clone_into(copy.headers_mut());
    request.extensions().clone_into(copy.extensions_mut());
    copy
}

async fn forward_fresh(
    backend: &Backend,
    limits: &Limits,
    mut request: Request<RequestBody>,
) -> Result<Answered, Failed> {
    let mut tries = 0;
    loop {
        tries += 1;
        let mut sender = match open(backend, limits).await {
            Ok(sender) => sender,
            Err(error) => {
                return Err(Failed::NotReached { request: Box::new(request), error });
            }
        };
        let request_done = request.body().done();
        match sender.try_send_request(request).await {
            Ok(response) => {
                return Ok(Answered { response, sender, request_done });
            }
            Err(mut error) => match error.take_message() {
                Some(unsent) if tries < FRESH_TRIES => request = unsent,
                _ => return Err(Failed::Broken(error.into_error())),
            },
        }
    }
}

async fn open(backend: &Backend, limits: &Limits) -> Result<Sender, ConnectError> {
    let stream = connect(backend, limits).await?;
    let handshake = hyper::client::conn::http1::Builder::new()
        .preserve_header_case(true)
        .max_buf_size(MAX_BUFFER)
        .max_header_size(MAX_HEAD)
        .handshake(TokioIo::new(stream))
        .await;
    let (sender, connection) = handshake.map_err(|error| ConnectError::Io(std::io::Error::other(error)))?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "connection to an endpoint ended");
        }
    });
    Ok(sender)
}
