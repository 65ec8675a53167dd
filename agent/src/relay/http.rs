//! `http` mode: each request goes to where the route leads when its head arrives.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper::{Request, Response, StatusCode, Version};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio_util::task::TaskTracker;

use super::backend::{Lease, Use};
use super::body::{Passage, Passing, RequestBody, ResponseBody};
use super::forward::{Answered, Failed, forward};
use super::framing::{Verdict, Watched};
use super::headers::{self, BadRequest};
use super::route::{NotLed, Route};
use super::websocket;

/// Longest time until a request's head is complete, idle time between requests included.
const HEAD_PATIENCE: Duration = Duration::from_secs(120);
/// Largest head of a request or answer in bytes.
pub(super) const MAX_HEAD: usize = 64 << 10;
/// Most bytes of a connection kept in memory, in each direction.
pub(super) const MAX_BUFFER: usize = 128 << 10;

/// What the requests of one client connection share.
struct Client {
    route: Arc<Route>,
    address: HeaderValue,
    verdict: Verdict,
    requests: AtomicU64,
    tasks: TaskTracker,
}

/// Serves one client connection to its end; tunnels go on in `tasks`.
pub(super) async fn serve(route: Arc<Route>, stream: TcpStream, address: IpAddr, tasks: TaskTracker) {
    let (watched, verdict) = Watched::new(stream);
    let client = Arc::new(Client {
        route: Arc::clone(&route),
        address: headers::address(address),
        verdict,
        requests: AtomicU64::new(0),
        tasks,
    });
    let service = service_fn(move |request| {
        let client = Arc::clone(&client);
        async move { Ok::<_, Infallible>(answer(&client, request).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .max_buf_size(MAX_BUFFER)
        .max_header_size(MAX_HEAD)
        .preserve_header_case(true)
        .auto_date_header(false)
        .serve_connection(TokioIo::new(watched), service)
        .with_upgrades();
    tokio::pin!(connection);
    let ended = tokio::select! {
        biased;
        ended = connection.as_mut() => ended,
        () = route.ending.cancelled() => {
            // Requests in flight are ended by their backend; this ends the idle ones.
            connection.as_mut().graceful_shutdown();
            connection.as_mut().await
        }
    };
    if let Err(error) = ended {
        if error.is_parse() {
            route.counters.bad_requests.fetch_add(1, Relaxed);
        }
        tracing::debug!(port = route.port, %error, "client connection ended");
    }
}

async fn answer(client: &Client, request: Request<Incoming>) -> Response<ResponseBody> {
    let route = &client.route;
    let started = Instant::now();
    let number = client.requests.fetch_add(1, Relaxed);
    if let Err(bad) = check(client, number, &request) {
        route.counters.bad_requests.fetch_add(1, Relaxed);
        return refuse(bad);
    }
    let lease = match route.lease(Use::Request).await {
        Ok(lease) => lease,
        Err(reason) => return not_led(reason),
    };
    let (outbound, upgrade) = prepare(client, &lease, request);
    let (response, counters) = relay(client, lease, outbound, upgrade).await;
    counters.answered(response.status().as_u16(), started.elapsed());
    response
}

fn check(client: &Client, number: u64, request: &Request<Incoming>) -> Result<(), BadRequest> {
    if client.verdict.refuses(number) {
        return Err(BadRequest::Framing);
    }
    headers::check(request.method(), request.version(), request.uri(), request.headers())
}

/// A wish to change the protocol, and the client's side of it.
struct Upgrade {
    protocol: HeaderValue,
    client: OnUpgrade,
}

fn prepare(client: &Client, lease: &Lease, mut request: Request<Incoming>) -> (Request<RequestBody>, Option<Upgrade>) {
    let wanted = headers::wanted_upgrade(request.version(), request.headers());
    // Taken in any case: it must not travel to the endpoint's connection.
    let on_upgrade = hyper::upgrade::on(&mut request);
    let (mut parts, body) = request.into_parts();
    headers::strip(&mut parts.headers);
    headers::to_origin(&mut parts.uri, &mut parts.headers);
    headers::add_client(&mut parts.headers, &client.address);
    if !parts.headers.contains_key(hyper::header::HOST)
        && let Some(endpoint) = lease.backend.endpoint
        && let Ok(host) = HeaderValue::from_str(&endpoint.to_string())
    {
        parts.headers.insert(hyper::header::HOST, host);
    }
    parts.version = Version::HTTP_11;
    let upgrade = wanted.map(|protocol| {
        headers::set_upgrade(&mut parts.headers, protocol.clone());
        Upgrade { protocol, client: on_upgrade }
    });
    let body = RequestBody::new(body, Arc::clone(&lease.backend.counters));
    (Request::from_parts(parts, body), upgrade)
}

type Counters = Arc<super::stats::ReleaseCounters>;

/// Forwards; when the route was switched before the endpoint could be reached, to the new place.
async fn relay(
    client: &Client,
    mut lease: Lease,
    mut outbound: Request<RequestBody>,
    upgrade: Option<Upgrade>,
) -> (Response<ResponseBody>, Counters) {
    loop {
        let counters = Arc::clone(&lease.backend.counters);
        let forwarded = tokio::select! {
            biased;
            forwarded = forward(&lease.backend, client.route.limits(), outbound) => forwarded,
            () = lease.backend.close.cancelled() => {
                let drained = own(StatusCode::SERVICE_UNAVAILABLE, "E_DRAINED", "the release was drained and its deadline passed");
                return (drained, counters);
            }
        };
        let failed = match forwarded {
            Ok(answered) => return (pass(client, lease, answered, upgrade), counters),
            Err(failed) => failed,
        };
        counters.upstream_errors.fetch_add(1, Relaxed);
        tracing::debug!(port = client.route.port, error = %failed, "request failed at the endpoint");
        match failed {
            Failed::NotReached { request, .. } if !client.route.is_current(&lease.backend) => {
                lease = match client.route.lease(Use::Request).await {
                    Ok(next) => next,
                    Err(reason) => return (not_led(reason), counters),
                };
                outbound = *request;
                outbound.body_mut().count_for(Arc::clone(&lease.backend.counters));
            }
            failed => return (bad_gateway(&failed), counters),
        }
    }
}

fn pass(client: &Client, lease: Lease, answered: Answered, upgrade: Option<Upgrade>) -> Response<ResponseBody> {
    let Answered { mut response, sender, request_done } = answered;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return match upgrade {
            Some(upgrade) => switch_protocols(client, lease, response, upgrade),
            None => own(StatusCode::BAD_GATEWAY, "E_UPSTREAM_FAILED", "the endpoint changed the protocol unasked"),
        };
    }
    headers::strip(response.headers_mut());
    *response.version_mut() = Version::HTTP_11;
    let passage =
        Passage { lease, route: Arc::clone(&client.route), sender, request_done, connection: client.verdict.clone() };
    response.map(|body| ResponseBody::Passing(Box::new(Passing::new(body, passage))))
}

fn switch_protocols(
    client: &Client,
    lease: Lease,
    mut response: Response<Incoming>,
    upgrade: Upgrade,
) -> Response<ResponseBody> {
    let server = hyper::upgrade::on(&mut response);
    let protocol = response.headers().get(hyper::header::UPGRADE).cloned().unwrap_or(upgrade.protocol);
    let websocket = protocol.as_bytes().eq_ignore_ascii_case(b"websocket");
    let lease = lease.upgrade();
    let route = Arc::clone(&client.route);
    client.tasks.spawn(async move {
        // Both sides exist once the head of the answer has passed; a client that is gone by then ends it.
        if let Ok((client, server)) = tokio::try_join!(upgrade.client, server) {
            websocket::tunnel(&route, lease, client, server, websocket).await;
        }
    });
    let (mut parts, _) = response.into_parts();
    headers::strip(&mut parts.headers);
    headers::set_upgrade(&mut parts.headers, protocol);
    Response::from_parts(parts, ResponseBody::Own(Full::default()))
}

fn bad_gateway(failed: &Failed) -> Response<ResponseBody> {
    let code = match failed {
        Failed::NotReached { .. } => "E_UPSTREAM_UNREACHABLE",
        Failed::Broken(_) => "E_UPSTREAM_FAILED",
    };
    own(StatusCode::BAD_GATEWAY, code, &failed.to_string())
}

fn not_led(reason: NotLed) -> Response<ResponseBody> {
    let (code, message) = match reason {
        NotLed::TooLong => ("E_HELD_TOO_LONG", "the service did not come up in time"),
        NotLed::TooMany => ("E_HELD_TOO_MANY", "too many requests wait for the service to come up"),
        NotLed::Refused => ("E_WAKE_FAILED", "the service sleeps and could not be started"),
        NotLed::Stopping => ("E_RELAY_STOPPING", "the relay is being stopped"),
        NotLed::Removed => ("E_ROUTE_REMOVED", "nothing is published here any more"),
    };
    let mut response = own(StatusCode::SERVICE_UNAVAILABLE, code, message);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

fn refuse(bad: BadRequest) -> Response<ResponseBody> {
    let (status, code) = match bad {
        BadRequest::Method => (StatusCode::NOT_IMPLEMENTED, "E_METHOD"),
        BadRequest::Host | BadRequest::Framing => (StatusCode::BAD_REQUEST, "E_BAD_REQUEST"),
    };
    let mut response = own(status, code, bad.message());
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// An answer of the relay itself.
fn own(status: StatusCode, code: &str, message: &str) -> Response<ResponseBody> {
    let text = serde_json::json!({ "code": code, "message": message }).to_string();
    let mut response = Response::new(ResponseBody::Own(Full::new(Bytes::from(text + "\n"))));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
