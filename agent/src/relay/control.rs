//! The control socket: only our own user and root may speak to it.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use futures::{SinkExt, StreamExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio_util::codec::{Framed, LinesCodec};

use super::protocol::{Code, MAX_REQUEST_BYTES, Refusal, Reply};
use super::state::Relay;

/// Most control connections at once.
const MOST_CONNECTIONS: usize = 256;

/// Listens on `path`, replacing what a dead relay left there; readable and writable by the owner alone from the start.
///
/// # Errors
/// When the path cannot be made, for example because it is longer than 107 bytes.
pub(super) fn listen(path: &Path) -> io::Result<UnixListener> {
    let beside = path.with_extension("new");
    let _ = fs::remove_file(&beside);
    let listener = UnixListener::bind(&beside)?;
    fs::set_permissions(&beside, Permissions::from_mode(0o600))?;
    fs::rename(&beside, path)?;
    Ok(listener)
}

/// Answers requests until the relay stops.
pub(super) async fn serve(relay: Arc<Relay>, listener: UnixListener) {
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let relay = Arc::clone(&relay);
                tokio::spawn(async move {
                    if let Err(error) = converse(&relay, stream).await {
                        tracing::debug!(%error, "control connection ended");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "accept on the control socket failed");
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        }
    }
}

async fn converse(relay: &Relay, stream: UnixStream) -> io::Result<()> {
    let peer = stream.peer_cred()?.uid();
    if peer != 0 && peer != rustix::process::geteuid().as_raw() {
        tracing::warn!(uid = peer, "refused a control connection of another user");
        return Ok(());
    }
    let mut lines = Framed::new(stream, LinesCodec::new_with_max_length(MAX_REQUEST_BYTES));
    while let Some(line) = lines.next().await {
        let (reply, last) = match line {
            Ok(line) => (answer(relay, &line).await, false),
            Err(error) => (invalid(&error), true),
        };
        let text = serde_json::to_string(&reply)?;
        lines.send(text).await.map_err(io::Error::other)?;
        if last {
            break;
        }
    }
    Ok(())
}

async fn answer(relay: &Relay, line: &str) -> Reply {
    match serde_json::from_str(line) {
        Ok(request) => match relay.handle(request).await {
            Ok(answer) => Reply::Ok(answer),
            Err(refusal) => Reply::Refused(refusal),
        },
        Err(error) => invalid(&error),
    }
}

fn invalid(error: &dyn std::fmt::Display) -> Reply {
    Reply::Refused(Refusal::new(Code::Invalid, format!("the request is not understood: {error}")))
}
