//! The ledger.

use domain::event::Actor;
use proto::v1;
use proto::v1::events_server::Events;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::error::status;
use super::watch::{Answers, stop};
use super::{Api, principal};
use crate::app::events;
use crate::store::event::EventRow;

fn message(row: EventRow) -> v1::Event {
    let actor = match row.actor {
        Actor::Principal(_, name) => name,
        Actor::Host(name) => format!("host {name}"),
        Actor::Coordinator => "coordinator".to_owned(),
    };
    v1::Event {
        seq: row.seq,
        id: row.id.to_string(),
        at: row.at.0,
        actor,
        kind: row.kind,
        noun: row.subject.0,
        subject: row.subject.1,
        scope: row.scope,
        text: row.text,
        reason: row.reason,
    }
}

#[tonic::async_trait]
impl Events for Api {
    type WatchStream = Answers<v1::Event>;

    async fn list(&self, request: Request<v1::ListEventsRequest>) -> Result<Response<v1::ListEventsResponse>, Status> {
        let principal = principal(&request)?;
        let ask = request.get_ref();
        let filter = events::filter(&principal, ask.after_seq, ask.since, &ask.scope, ask.limit).map_err(status)?;
        let rows = events::list(&self.app, &filter).await.map_err(status)?;
        Ok(Response::new(v1::ListEventsResponse { events: rows.into_iter().map(message).collect() }))
    }

    async fn watch(&self, request: Request<v1::ListEventsRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let principal = principal(&request)?;
        let ask = request.get_ref();
        let filter = events::filter(&principal, ask.after_seq, ask.since, &ask.scope, ask.limit).map_err(status)?;
        let (sender, receiver) = mpsc::channel(64);
        let api = self.clone();
        let mut after = ask.after_seq;
        tokio::spawn(async move {
            let mut seq = api.app.store.seq();
            loop {
                seq.mark_unchanged();
                let rows = match events::after(&api.app, &filter, after).await {
                    Ok(rows) => rows,
                    Err(error) => {
                        let _ = sender.send(Err(status(error))).await;
                        return;
                    }
                };
                let more = rows.len() >= events::MAX as usize;
                for row in rows {
                    after = row.seq;
                    if sender.send(Ok(message(row))).await.is_err() {
                        return;
                    }
                }
                if more {
                    continue;
                }
                tokio::select! {
                    () = sender.closed() => return,
                    () = api.app.stopping.cancelled() => {
                        let _ = sender.send(Err(status(stop()))).await;
                        return;
                    }
                    _ = seq.changed() => {}
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}
