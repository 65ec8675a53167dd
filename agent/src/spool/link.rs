//! One connection's life.

use futures::StreamExt as _;
use proto::v1;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{LOOK, Shared};

pub(super) async fn run(
    shared: &Shared,
    up: mpsc::Sender<v1::AgentLog>,
    mut acks: impl futures::Stream<Item = Result<v1::AgentLogAck, tonic::Status>> + Unpin,
) -> Result<(), tonic::Status> {
    shared.entries().retain(|_, entry| {
        let goes_on = entry.restart();
        if !goes_on {
            entry.finish();
        }
        goes_on
    });
    loop {
        let (piece, files) = pick(shared);
        let waits = piece.is_none();
        let send = async {
            match piece {
                Some(piece) => up.send(piece).await.is_ok(),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            sent = send => if !sent { return Ok(()) },
            () = shared.news.notified(), if waits => {}
            () = tokio::time::sleep(LOOK), if waits && files => {}
            // A piece picked and not sent because an acknowledgement came first would be lost: so only while waiting,
            // and in between below.
            ack = acks.next(), if waits => match ack {
                Some(ack) => take(shared, &ack?),
                None => return Ok(()),
            },
        }
        while let Some(ack) = futures::FutureExt::now_or_never(acks.next()) {
            match ack {
                Some(ack) => take(shared, &ack?),
                None => return Ok(()),
            }
        }
    }
}

/// The next piece, of each log in turn; whether there are files that may grow.
fn pick(shared: &Shared) -> (Option<v1::AgentLog>, bool) {
    let now = Instant::now();
    let mut entries = shared.entries();
    let mut files = false;
    // Whoever was served longest ago is asked first.
    let mut order: Vec<(Option<Instant>, String)> =
        entries.iter().map(|(key, entry)| (entry.served(), key.clone())).collect();
    order.sort();
    for (_, key) in &order {
        let Some(entry) = entries.get_mut(key) else { continue };
        files |= entry.is_file();
        if let Some(chunk) = entry.next(now) {
            return (Some(v1::AgentLog { key: key.clone(), chunk: Some(chunk) }), files);
        }
    }
    (None, files)
}

fn take(shared: &Shared, ack: &v1::AgentLogAck) {
    let mut entries = shared.entries();
    if entries.get_mut(&ack.key).is_some_and(|entry| entry.acknowledged(ack))
        && let Some(entry) = entries.remove(&ack.key)
    {
        entry.finish();
    }
}
