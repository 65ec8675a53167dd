//! HTTP/1.1 without redirects, with a limit on everything that is read.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::{KEEP, Kind, Said};

/// Bytes of a body that are read before the rest is left alone.
const BODY: usize = 64 << 10;

/// `GET path`: healthy on 2xx and 3xx.
pub(super) async fn get(stream: TcpStream, address: SocketAddr, path: &str) -> io::Result<Said> {
    let (status, body) = request(stream, address, path).await?;
    Ok(said((200..400).contains(&status), status, &body))
}

/// `GET /_cluster/health`: a cluster that is not red is ready, and so is one that wants a login.
///
/// A red one answers as soon as it is not, or after a quarter of `timeout`: the rest is for a Java that is asked for the first time.
pub(super) async fn elasticsearch(stream: TcpStream, address: SocketAddr, timeout: Duration) -> io::Result<Said> {
    let wait = (timeout / 4).as_millis();
    let path = format!("/_cluster/health?local=true&wait_for_status=yellow&timeout={wait}ms");
    let (status, body) = request(stream, address, &path).await?;
    let red = body.contains("\"status\":\"red\"");
    let mut said = said((status == 200 && !red) || status == 401, status, &body);
    if red {
        "the cluster's status is red".clone_into(&mut said.text);
    }
    // With status 408 before version 8, with 200 since.
    if !said.healthy && body.contains("\"timed_out\":true") {
        said.kind = Kind::Waited;
    }
    Ok(said)
}

fn said(healthy: bool, status: u16, body: &str) -> Said {
    let kept: String = body.chars().take(KEEP).collect();
    Said { healthy, status: Some(status), text: kept, kind: Kind::Answered }
}

async fn request(stream: TcpStream, address: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .max_buf_size(BODY)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(other)?;
    // Dropping the set ends the connection's task, also when the timeout drops this future.
    let mut tasks = JoinSet::new();
    tasks.spawn(connection);
    let request = http::Request::get(path)
        .header(http::header::HOST, address.to_string())
        .header(http::header::USER_AGENT, concat!("muster-agent/", env!("CARGO_PKG_VERSION")))
        .header(http::header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(other)?;
    let response = sender.send_request(request).await.map_err(other)?;
    let status = response.status().as_u16();
    let body = read(response.into_body()).await?;
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}

async fn read(mut body: hyper::body::Incoming) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        if let Some(data) = frame.map_err(other)?.data_ref() {
            let room = BODY.saturating_sub(bytes.len());
            bytes.extend_from_slice(&data[..data.len().min(room)]);
        }
        if bytes.len() >= BODY {
            break;
        }
    }
    Ok(bytes)
}

fn other(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    // hyper's own text hides the cause ("error reading a body from connection").
    let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
    io::Error::other(format!("{error}{cause}"))
}
