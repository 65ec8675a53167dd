//! The second port: `/healthz`, for load balancers and supervisors.

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::net::TcpListener;

use crate::error::Error;
use crate::grpc::Api;

/// Serves until the coordinator stops.
///
/// # Errors
/// The listener is broken.
pub async fn serve(api: Api, listener: TcpListener) -> std::io::Result<()> {
    let stopping = api.app.stopping.clone();
    let router = Router::new().route("/healthz", get(healthz)).with_state(api);
    axum::serve(listener, router).with_graceful_shutdown(stopping.cancelled_owned()).await
}

/// 200 while the store answers and this coordinator leads.
async fn healthz(State(api): State<Api>) -> (StatusCode, &'static str) {
    let app = &api.app;
    if app.stopping.is_cancelled() {
        return (StatusCode::SERVICE_UNAVAILABLE, "stopping\n");
    }
    if !*app.store.leading().borrow() {
        return (StatusCode::SERVICE_UNAVAILABLE, "not the leader\n");
    }
    if api.sessions.stale().is_some() {
        return (StatusCode::SERVICE_UNAVAILABLE, "the store is an old copy; see the log\n");
    }
    let answers = app.store.read(|view| Box::pin(async move { Ok::<_, Error>(view.event_seq().await?) })).await;
    match answers {
        Ok(_) => (StatusCode::OK, "ok\n"),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "the store does not answer\n"),
    }
}
