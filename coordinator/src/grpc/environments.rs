//! Environments.

use std::collections::BTreeMap;

use domain::environment::{EnvironmentState, ServiceObserved, Source, Wanted};
use domain::stack::Ttl;
use futures::StreamExt as _;
use proto::v1;
use proto::v1::coordinator_message::Message as Order;
use proto::v1::environments_server::Environments;
use proto::v1::tunnel_frame::Frame;
use proto::v1::tunnel_order::What;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::error::status;
use super::watch::{self, Answers};
use super::{Api, principal, seeds, tunnels};
use crate::app::environments::{self, EnvironmentView, Up};
use crate::app::idempotency::Key;
use crate::app::{environment_data, environment_life};
use crate::error::{Code, Error};
use crate::sessions::log_orders;

/// Most places of a log that a client comes back with: two for each service.
const MOST_PLACES: usize = 2048;

fn service(observed: &ServiceObserved, variables: &BTreeMap<String, BTreeMap<String, String>>) -> v1::Service {
    let mut message = v1::Service::from(observed);
    message.variables = variables.get(&observed.name).cloned().unwrap_or_default();
    message
}

fn message(view: &EnvironmentView) -> v1::Environment {
    let environment = &view.row.environment;
    // What was told about an earlier generation says nothing about what is wanted now.
    let current = environment.observed.generation == environment.generation;
    let state = match (view.row.gone_at, environment.wanted) {
        (Some(_), _) => EnvironmentState::Gone,
        (None, _) if current => environment.observed.state,
        (None, Wanted::Down) => EnvironmentState::Stopping,
        (None, Wanted::Up) => EnvironmentState::Pending,
    };
    let life = environment_life::tenure(&view.row);
    let activity = environment.observed.activity.as_ref().filter(|_| current);
    let reason = environment.observed.reason.as_ref().filter(|_| current || view.row.gone_at.is_some());
    v1::Environment {
        id: environment.id.to_string(),
        name: environment.name.to_string(),
        owner: view.owner.clone(),
        app: environment.app.as_ref().map(ToString::to_string).unwrap_or_default(),
        host: view.host.clone(),
        state: v1::EnvironmentState::from(state).into(),
        wanted_up: environment.wanted == Wanted::Up,
        reason: reason.map(|(code, text)| v1::Reason { code: code.clone(), text: text.clone() }),
        services: environment.observed.services.iter().map(|observed| service(observed, &view.variables)).collect(),
        notices: environment.observed.notices.clone(),
        created_at: environment.created_at.0,
        generation: environment.generation.0,
        unknown: view.unknown,
        run: environment.run.map(|run| run.to_string()).unwrap_or_default(),
        host_id: environment.host.to_string(),
        last_used_at: life.last_used.0,
        keep_until: view.row.life.keep_until.map_or(0, |at| at.0),
        ends_at: view.row.life.ttl.map_or(0, |ttl| life.ends(Ttl(ttl)).0),
        why: activity.map(|activity| activity.why.clone()).unwrap_or_default(),
        memory_bytes: activity.map_or(0, |activity| activity.memory_bytes),
        seed: view.row.data.address.clone(),
        data: view.waits.clone().unwrap_or_else(|| view.row.data.observed.line.clone()),
        own_bytes: view.row.data.observed.own_bytes,
        shared_bytes: view.row.data.observed.shared_bytes,
        can_undo: view.row.data.undo().is_some(),
        upload: environment.source == Source::Upload,
    }
}

fn settled(message: &v1::Environment) -> bool {
    let state = message.state();
    let wanted = if message.wanted_up { v1::EnvironmentState::Ready } else { v1::EnvironmentState::Gone };
    state == wanted
        || matches!(
            state,
            v1::EnvironmentState::Failed
                | v1::EnvironmentState::Gone
                | v1::EnvironmentState::Frozen
                | v1::EnvironmentState::Asleep
        )
}

/// The first message of a client's stream, which has to come soon.
async fn first<T>(messages: &mut Streaming<T>) -> Result<Option<T>, Status> {
    let silent = |_| status(Error::new(Code::FIELD, "nothing was asked for within 10 s"));
    tokio::time::timeout(tunnels::START, messages.message()).await.map_err(silent)?
}

#[tonic::async_trait]
impl Environments for Api {
    type WatchStream = Answers<v1::Environment>;
    type LogsStream = Answers<v1::LogChunk>;
    type ExecStream = Answers<v1::TunnelFrame>;
    type ForwardStream = Answers<v1::TunnelFrame>;
    type DiffStream = Answers<v1::DataDiff>;
    type SyncStream = Answers<v1::SyncPart>;

    async fn up(&self, request: Request<v1::UpEnvironmentRequest>) -> Result<Response<v1::Environment>, Status> {
        let principal = principal(&request)?;
        let ask = request.into_inner();
        let key = Key::of("Environments/Up", &ask.idempotency_key, &ask).map_err(status)?;
        let up = Up {
            name: ask.name,
            app: ask.app,
            stack_file: ask.stack_file,
            file: ask.file,
            variables: ask.variables,
            env_files: ask.env_files,
            grant: ask.grant,
            grant_host: ask.grant_host,
            host: ask.host,
            from: ask.from,
            upload: ask.upload,
        };
        let view = environments::up(&self.app, &principal, &up, key.as_ref()).await.map_err(status)?;
        Ok(Response::new(message(&view)))
    }

    async fn down(&self, request: Request<v1::DownEnvironmentRequest>) -> Result<Response<v1::Environment>, Status> {
        let principal = principal(&request)?;
        let view = environments::down(&self.app, &principal, &request.get_ref().environment).await.map_err(status)?;
        Ok(Response::new(message(&view)))
    }

    async fn list(
        &self,
        request: Request<v1::ListEnvironmentsRequest>,
    ) -> Result<Response<v1::ListEnvironmentsResponse>, Status> {
        let principal = principal(&request)?;
        let all = environments::list(&self.app, &principal, request.get_ref().all).await.map_err(status)?;
        Ok(Response::new(v1::ListEnvironmentsResponse { environments: all.iter().map(message).collect() }))
    }

    async fn show(&self, request: Request<v1::ShowEnvironmentRequest>) -> Result<Response<v1::Environment>, Status> {
        let principal = principal(&request)?;
        let view = environments::show(&self.app, &principal, &request.get_ref().environment).await.map_err(status)?;
        Ok(Response::new(message(&view)))
    }

    async fn watch(
        &self,
        request: Request<v1::WatchEnvironmentRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let principal = principal(&request)?;
        let ask = request.into_inner();
        // Found once by what was written; a name can stand for another one later.
        let first = environments::show(&self.app, &principal, &ask.environment).await.map_err(status)?;
        let (api, id) = (self.clone(), first.row.environment.id.to_string());
        let answers = watch::states(self, move || {
            let (api, principal, id) = (api.clone(), principal.clone(), id.clone());
            async move {
                let view = environments::show(&api.app, &principal, &id).await?;
                let message = message(&view);
                let gone = message.state() == v1::EnvironmentState::Gone;
                let end = gone || (!ask.follow && settled(&message));
                Ok((message, end))
            }
        });
        Ok(Response::new(answers))
    }

    async fn keep(&self, request: Request<v1::KeepEnvironmentRequest>) -> Result<Response<v1::Environment>, Status> {
        let principal = principal(&request)?;
        let ask = request.into_inner();
        let time = proto::convert::duration(ask.for_micros);
        let view = environment_life::keep(&self.app, &principal, &ask.environment, time).await.map_err(status)?;
        self.sessions.changed();
        Ok(Response::new(message(&view)))
    }

    async fn restart(
        &self,
        request: Request<v1::RestartEnvironmentRequest>,
    ) -> Result<Response<v1::Environment>, Status> {
        let principal = principal(&request)?;
        let ask = request.get_ref();
        let view = environment_life::restart(&self.app, &principal, &ask.environment, &ask.service).await;
        Ok(Response::new(message(&view.map_err(status)?)))
    }

    async fn rebuild(
        &self,
        request: Request<v1::RebuildEnvironmentRequest>,
    ) -> Result<Response<v1::Environment>, Status> {
        let principal = principal(&request)?;
        let ask = request.get_ref();
        let view = environment_life::rebuild(&self.app, &principal, &ask.environment, &ask.service).await;
        Ok(Response::new(message(&view.map_err(status)?)))
    }

    async fn snapshot(&self, request: Request<v1::SnapshotEnvironmentRequest>) -> Result<Response<v1::Seed>, Status> {
        let principal = principal(&request)?;
        let ask = request.into_inner();
        let key = Key::of("Environments/Snapshot", &ask.idempotency_key, &ask).map_err(status)?;
        let made = environment_data::snapshot(&self.app, &principal, &ask.environment, &ask.name, key.as_ref());
        Ok(Response::new(seeds::message(&made.await.map_err(status)?)))
    }

    async fn reset(&self, request: Request<v1::ResetEnvironmentRequest>) -> Result<Response<v1::Environment>, Status> {
        let principal = principal(&request)?;
        let ask = request.into_inner();
        let view = environment_data::reset(&self.app, &principal, &ask.environment, ask.undo).await.map_err(status)?;
        Ok(Response::new(message(&view)))
    }

    async fn exec(&self, request: Request<Streaming<v1::ExecRequest>>) -> Result<Response<Self::ExecStream>, Status> {
        use v1::exec_request::Part;
        let principal = principal(&request)?;
        let mut messages = request.into_inner();
        let Some(Part::Start(start)) = first(&mut messages).await?.and_then(|first| first.part) else {
            return Err(status(Error::new(Code::FIELD, "the first message says what to run")));
        };
        let command = start.command.unwrap_or_default();
        let program = command.argv.first().cloned().unwrap_or_default();
        let view = environment_life::enter(&self.app, &principal, &start.environment, &start.service).await;
        let view = view.map_err(status)?;
        environment_life::entered(&self.app, &principal, &view, "environment.exec", &start.service, &program)
            .await
            .map_err(status)?;
        let rest = messages.filter_map(async |message| match message {
            Ok(v1::ExecRequest { part: Some(Part::Frame(frame)) }) => Some(Ok(frame)),
            Ok(_) => None,
            Err(why) => Some(Err(why)),
        });
        let frames = tunnels::join(self, &view, start.service, What::Exec(command), Box::pin(rest)).await?;
        Ok(Response::new(Box::pin(frames)))
    }

    async fn forward(
        &self,
        request: Request<Streaming<v1::ForwardRequest>>,
    ) -> Result<Response<Self::ForwardStream>, Status> {
        use v1::forward_request::Part;
        let principal = principal(&request)?;
        let mut messages = request.into_inner();
        let Some(Part::Start(start)) = first(&mut messages).await?.and_then(|first| first.part) else {
            return Err(status(Error::new(Code::FIELD, "the first message says where to connect to")));
        };
        let view = environment_life::enter(&self.app, &principal, &start.environment, &start.service).await;
        let view = view.map_err(status)?;
        // A program may connect a thousand times: the ledger has it once in a while.
        if self.tunnels.tells(principal.id, view.row.environment.id, self.app.now()) {
            let port = start.port.to_string();
            environment_life::entered(&self.app, &principal, &view, "environment.forward", &start.service, &port)
                .await
                .map_err(status)?;
        }
        let rest = messages.filter_map(async |message| match message {
            Ok(v1::ForwardRequest { part: Some(Part::Frame(frame)) }) => Some(Ok(frame)),
            Ok(_) => None,
            Err(why) => Some(Err(why)),
        });
        let frames = tunnels::join(self, &view, start.service, What::Port(start.port), Box::pin(rest)).await?;
        Ok(Response::new(Box::pin(frames)))
    }

    async fn diff(&self, request: Request<v1::DiffEnvironmentRequest>) -> Result<Response<Self::DiffStream>, Status> {
        let principal = principal(&request)?;
        let ask = request.into_inner();
        let (view, digest) =
            environment_data::compare(&self.app, &principal, &ask.environment, ask.values).await.map_err(status)?;
        let order = v1::DiffOrder {
            digest: digest.hex().to_owned(),
            seed: view.row.data.address.clone(),
            rows: ask.rows,
            values: ask.values,
            within_micros: ask.within_micros,
        };
        // Nothing follows what was asked; that is no end of it.
        let rest = Box::pin(futures::stream::pending());
        let frames = tunnels::join(self, &view, String::new(), What::Diff(order), rest).await?;
        let parts = frames.filter_map(async |frame| match frame.map(|frame| frame.frame) {
            Ok(Some(Frame::Diff(diff))) => Some(Ok(diff)),
            Ok(Some(Frame::Refused(why))) => {
                Some(Err(Status::failed_precondition(format!("{}: {}", why.code, why.text))))
            }
            Ok(_) => None,
            Err(why) => Some(Err(why)),
        });
        Ok(Response::new(Box::pin(parts)))
    }

    async fn sync(&self, request: Request<Streaming<v1::SyncRequest>>) -> Result<Response<Self::SyncStream>, Status> {
        use v1::sync_request::Part;
        let principal = principal(&request)?;
        let mut messages = request.into_inner();
        let Some(Part::Start(start)) = first(&mut messages).await?.and_then(|first| first.part) else {
            return Err(status(Error::new(Code::FIELD, "the first message says which environment")));
        };
        let view = environment_life::uploaded(&self.app, &principal, &start.environment).await.map_err(status)?;
        if self.tunnels.tells(principal.id, view.row.environment.id, self.app.now()) {
            environment_life::entered(&self.app, &principal, &view, "environment.sync", "", "")
                .await
                .map_err(status)?;
        }
        let rest = messages.filter_map(async |message| match message {
            Ok(v1::SyncRequest { part: Some(Part::Sync(part)) }) => {
                Some(Ok(v1::TunnelFrame { tunnel: String::new(), frame: Some(Frame::Sync(part)) }))
            }
            Ok(_) => None,
            Err(why) => Some(Err(why)),
        });
        let frames = tunnels::join(self, &view, String::new(), What::Sync(true), Box::pin(rest)).await?;
        let parts = frames.filter_map(async |frame| match frame.map(|frame| frame.frame) {
            Ok(Some(Frame::Sync(part))) => Some(Ok(part)),
            Ok(Some(Frame::Refused(why))) => {
                Some(Err(Status::failed_precondition(format!("{}: {}", why.code, why.text))))
            }
            Ok(_) => None,
            Err(why) => Some(Err(why)),
        });
        Ok(Response::new(Box::pin(parts)))
    }

    async fn logs(&self, request: Request<v1::EnvironmentLogsRequest>) -> Result<Response<Self::LogsStream>, Status> {
        let principal = principal(&request)?;
        let ask = request.into_inner();
        crate::app::text::one_line("service", &ask.service, 100).map_err(status)?;
        if ask.since.len() > MOST_PLACES || ask.since.iter().any(|place| place.source.len() > 100) {
            let text = format!("since: at most {MOST_PLACES} places, of sources of at most 100 bytes");
            return Err(status(Error::new(Code::TOO_LARGE, text)));
        }
        let view = environments::for_logs(&self.app, &principal, &ask.environment).await.map_err(status)?;
        let environment = &view.row.environment;
        let order = v1::LogsOrder {
            order: self.app.ids.uuid().to_string(),
            environment: environment.id.to_string(),
            service: ask.service,
            follow: ask.follow,
            tail: ask.tail,
            stop: false,
            since: ask.since,
        };
        let mut waiting = self.log_orders.open(&order.order);
        let Some(ended) = self.sessions.ask(environment.host, Order::Logs(order)) else {
            let text = format!("{} is not heard from now, so its logs cannot be read", view.host);
            return Err(status(Error::new(Code::HOST_UNREACHABLE, text)));
        };
        let (sender, receiver) = mpsc::channel(4);
        let stopping = self.app.stopping.clone();
        tokio::spawn(async move {
            loop {
                let next = tokio::select! {
                    next = waiting.next() => next.unwrap_or_else(|| Err(behind())),
                    () = sender.closed() => return,
                    () = stopping.cancelled() => Err(watch::stop()),
                    () = ended.cancelled() => Err(log_orders::lost(&view.host)),
                };
                let end = next.as_ref().map_or(true, |chunk| chunk.end);
                if next
                    .as_ref()
                    .is_ok_and(|chunk| chunk.data.is_empty() && chunk.dropped == 0 && chunk.at == 0 && !chunk.end)
                {
                    // Only says from where the agent begins.
                    continue;
                }
                if sender.send(next.map_err(status)).await.is_err() || end {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

/// What a log ends with whose client takes it more slowly than it is written.
fn behind() -> Error {
    Error::new(Code::STREAM_ENDED, "the log came faster than it was taken; the call can be made again from there")
}
