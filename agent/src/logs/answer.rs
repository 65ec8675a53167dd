//! An order for logs of an environment is answered: one task per order, ended by `stop` or by dropping its handle.

use std::collections::BTreeMap;
use std::sync::Arc;

use domain::log::Place;
use proto::v1;

use super::follow::{Ask, Reader};
use super::{Error, Logs};
use crate::environments::Environments;
use crate::host::Host;

/// Answers an order, or says why not.
pub async fn answer(host: Arc<Host>, environments: Arc<Environments>, logs: Arc<Logs>, order: v1::LogsOrder) {
    let (key, id) = (format!("order:{}", order.order), order.order.clone());
    if let Err((code, text)) = stream(&host, &environments, &logs, order, &key).await {
        let reason = Some(v1::Reason { code: code.to_owned(), text });
        let refused = v1::LogsRefused { order: id, reason };
        host.outbox.tell(&key, v1::agent_message::Message::LogsRefused(refused));
    }
}

async fn stream(
    host: &Arc<Host>,
    environments: &Environments,
    logs: &Arc<Logs>,
    order: v1::LogsOrder,
    key: &str,
) -> Result<(), (&'static str, String)> {
    let mut since: BTreeMap<String, Place> = BTreeMap::new();
    for place in order.since {
        since.entry(place.source).or_default().pass(place.error, place.at);
    }
    let ask = Ask {
        environment: order.environment,
        service: order.service,
        follow: order.follow,
        tail: Some(order.tail).filter(|tail| *tail > 0 && since.is_empty()),
        since,
    };
    let mut reader = Reader::open(Arc::clone(host), environments, ask).await?;
    let failed = |why: Error| ("E_LOGS", why.to_string());
    let mut writer = logs.open(key, "", 0).await.map_err(failed)?;
    let mut offset = 0;
    loop {
        let lines = tokio::select! {
            lines = reader.next() => lines,
            // Nobody listens: that is no failure.
            () = writer.gone() => return Ok(()),
        };
        let Some(lines) = lines else { break };
        let length = lines.data.len() as u64;
        match writer.send_lines(v1::LogChunk { offset, ..lines }).await {
            Ok(()) => offset += length,
            Err(Error::Stopped | Error::Disconnected) => return Ok(()),
            Err(why) => return Err(failed(why)),
        }
    }
    let _ = writer.end("", offset).await;
    Ok(())
}
