//! `Exec` and `Forward`: a client's stream, joined with one that the environment's host dials.

use std::time::Duration;

use futures::Stream;
use proto::v1;
use proto::v1::tunnel_frame::Frame;
use proto::v1::tunnel_order::What;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::error::status;
use super::{Api, watch};
use crate::app::environments::EnvironmentView;
use crate::error::{Code, Error};
use crate::sessions::tunnels::Far;

/// A client says what it wants within.
pub(super) const START: Duration = Duration::from_secs(10);
/// The host dials within.
const DIAL: Duration = Duration::from_secs(15);
/// Frames in one direction; more wait where they come from.
const QUEUE: usize = 4;

/// What goes back to the client, or to the agent.
pub(super) type Frames = ReceiverStream<Result<v1::TunnelFrame, Status>>;

/// What a client sends after its first message.
pub(super) type Rest = std::pin::Pin<Box<dyn Stream<Item = Result<v1::TunnelFrame, Status>> + Send>>;

/// Orders a tunnel and joins both ends.
pub(super) async fn join(
    api: &Api,
    view: &EnvironmentView,
    service: String,
    what: What,
    near: Rest,
) -> Result<Frames, Status> {
    let host = view.row.environment.host;
    let id = api.app.ids.uuid().to_string();
    let order =
        v1::TunnelOrder { id: id.clone(), environment: view.row.environment.id.to_string(), service, what: Some(what) };
    let away = || {
        let text = format!("{} is not heard from now, so nothing can be reached there", view.host);
        status(Error::new(Code::HOST_UNREACHABLE, text))
    };
    let waiting = api.tunnels.open(&id, host);
    let waiting = waiting.ok_or_else(|| status(Error::new(Code::TUNNELS, "too many tunnels wait; try again later")))?;
    if api.sessions.ask(host, v1::coordinator_message::Message::Tunnel(order)).is_none() {
        return Err(away());
    }
    let far = waiting.far(DIAL).await.ok_or_else(away)?;
    let (sender, receiver) = mpsc::channel(QUEUE);
    let stopping = api.app.stopping.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = carry(far, near, &sender) => {}
            () = sender.closed() => {}
            () = stopping.cancelled() => {
                let _ = sender.send(Err(status(watch::stop()))).await;
            }
        }
    });
    Ok(ReceiverStream::new(receiver))
}

/// Both directions, until the host has said its last or the client is gone.
async fn carry(far: Far, mut near: Rest, sender: &mpsc::Sender<Result<v1::TunnelFrame, Status>>) {
    use futures::StreamExt as _;
    let Far { mut incoming, outgoing } = far;
    let inward = async {
        while let Some(Ok(frame)) = near.next().await {
            if outgoing.send(Ok(frame)).await.is_err() {
                return;
            }
        }
        // The client said its last; the host still answers, and sees the end of what it reads only with this task.
        std::future::pending::<()>().await;
    };
    let outward = async {
        loop {
            match incoming.message().await {
                Ok(Some(frame)) => {
                    let last = matches!(frame.frame, Some(Frame::Exit(_) | Frame::Refused(_)));
                    if sender.send(Ok(frame)).await.is_err() || last {
                        return;
                    }
                }
                Ok(None) => return,
                Err(_) => {
                    let text = "the connection to the host broke; what was begun there may go on";
                    let _ = sender.send(Err(status(Error::new(Code::HOST_UNREACHABLE, text)))).await;
                    return;
                }
            }
        }
    };
    tokio::select! {
        () = inward => {}
        () = outward => {}
    }
}

/// The agent's side: the first frame names the tunnel.
pub(super) async fn dial(
    api: &Api,
    host: domain::ids::HostId,
    mut incoming: Streaming<v1::TunnelFrame>,
) -> Result<Frames, Status> {
    let unknown = || status(Error::new(Code::TUNNELS, "nobody waits for this tunnel"));
    let first = tokio::time::timeout(START, incoming.message()).await.map_err(|_| unknown())??;
    let id = first.map(|frame| frame.tunnel).unwrap_or_default();
    let (outgoing, receiver) = mpsc::channel(QUEUE);
    if !api.tunnels.join(&id, host, Far { incoming, outgoing }) {
        return Err(unknown());
    }
    Ok(ReceiverStream::new(receiver))
}
