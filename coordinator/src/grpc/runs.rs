//! Runs.

use domain::run::{RunState, Subject};
use proto::v1;
use proto::v1::runs_server::Runs;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::error::status;
use super::watch::{self, Answers};
use super::{Api, principal};
use crate::app::idempotency::Key;
use crate::app::logs;
use crate::app::runs::{self, RunView, Start};

fn message(view: &RunView) -> v1::Run {
    let run = &view.row.run;
    let verdict = run.verdict.map_or(v1::Verdict::Unspecified, Into::into);
    v1::Run {
        id: run.id.to_string(),
        app: run.app.to_string(),
        tests: run.tests.to_string(),
        commit: run.commit.to_string(),
        build: match run.subject {
            Subject::Tree => String::new(),
            Subject::Build(id) => id.to_string(),
        },
        owner: view.owner.clone(),
        host: view.host.clone(),
        environment: run.environment.map(|id| id.to_string()).unwrap_or_default(),
        state: v1::RunState::from(run.state).into(),
        verdict: verdict.into(),
        reason: run.reason.as_ref().map(|(code, text)| v1::Reason { code: code.clone(), text: text.clone() }),
        exit_code: run.exit_code.unwrap_or(0),
        exited: run.exit_code.is_some(),
        report: run.report.as_ref().map(Into::into),
        created_at: run.created_at.0,
        assigned_at: run.assigned_at.map_or(0, |at| at.0),
        first_line_at: run.first_line_at.map_or(0, |at| at.0),
        finished_at: run.finished_at.map_or(0, |at| at.0),
        took_micros: run.took.map_or(0, proto::convert::micros),
        waiting: view.waiting.clone(),
        seed: run.seed.as_ref().map(|seed| seed.address.clone()).unwrap_or_default(),
    }
}

#[tonic::async_trait]
impl Runs for Api {
    type WatchStream = Answers<v1::Run>;
    type LogsStream = Answers<v1::LogChunk>;

    async fn start(&self, request: Request<v1::StartRunRequest>) -> Result<Response<v1::Run>, Status> {
        let principal = principal(&request)?;
        let ask = request.into_inner();
        let key = Key::of("Runs/Start", &ask.idempotency_key, &ask).map_err(status)?;
        let start =
            Start { app: ask.app, tests: ask.tests, commit: ask.commit, build: ask.build, selector: ask.selector };
        let view = runs::start(&self.app, &principal, &start, key.as_ref()).await.map_err(status)?;
        Ok(Response::new(message(&view)))
    }

    async fn list(&self, request: Request<v1::ListRunsRequest>) -> Result<Response<v1::ListRunsResponse>, Status> {
        let principal = principal(&request)?;
        let all = runs::list(&self.app, &principal, &request.get_ref().app).await.map_err(status)?;
        Ok(Response::new(v1::ListRunsResponse { runs: all.iter().map(message).collect() }))
    }

    async fn show(&self, request: Request<v1::ShowRunRequest>) -> Result<Response<v1::Run>, Status> {
        let principal = principal(&request)?;
        let view = runs::show(&self.app, &principal, &request.get_ref().run).await.map_err(status)?;
        Ok(Response::new(message(&view)))
    }

    async fn watch(&self, request: Request<v1::ShowRunRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let principal = principal(&request)?;
        let first = runs::show(&self.app, &principal, &request.get_ref().run).await.map_err(status)?;
        let (api, id) = (self.clone(), first.row.run.id.to_string());
        let answers = watch::states(self, move || {
            let (api, principal, id) = (api.clone(), principal.clone(), id.clone());
            async move {
                let view = runs::show(&api.app, &principal, &id).await?;
                Ok((message(&view), view.row.run.state == RunState::Finished))
            }
        });
        Ok(Response::new(answers))
    }

    async fn logs(&self, request: Request<v1::RunLogsRequest>) -> Result<Response<Self::LogsStream>, Status> {
        let principal = principal(&request)?;
        let ask = request.into_inner();
        let first = runs::show(&self.app, &principal, &ask.run).await.map_err(status)?;
        let (api, id) = (self.clone(), first.row.run.id);
        let (sender, receiver) = mpsc::channel(4);
        let mut offset = ask.offset;
        tokio::spawn(async move {
            let mut changes = api.sessions.changes();
            loop {
                changes.mark_unchanged();
                // Whether it has ended is asked before the bytes: what came in between is read in the next round.
                let next = match logs::ended(&api.app, id).await {
                    Ok(ended) => logs::read(&api.app, id, offset).await.map(|bytes| (bytes, ended)),
                    Err(error) => Err(error),
                };
                let chunk = match next {
                    Err(error) => {
                        let _ = sender.send(Err(status(error))).await;
                        return;
                    }
                    Ok((Some((start, data)), _)) => {
                        let dropped = start.saturating_sub(offset);
                        offset = start + data.len() as u64;
                        let source = "run".to_owned();
                        Some(v1::LogChunk { source, offset: start, data, dropped, ..v1::LogChunk::default() })
                    }
                    Ok((None, ended)) if ended || !ask.follow => {
                        let end =
                            v1::LogChunk { source: "run".to_owned(), offset, end: true, ..v1::LogChunk::default() };
                        let _ = sender.send(Ok(end)).await;
                        return;
                    }
                    Ok((None, _)) => None,
                };
                match chunk {
                    Some(chunk) => {
                        if sender.send(Ok(chunk)).await.is_err() {
                            return;
                        }
                    }
                    None => tokio::select! {
                        () = sender.closed() => return,
                        () = api.app.stopping.cancelled() => {
                            let _ = sender.send(Err(status(watch::stop()))).await;
                            return;
                        }
                        _ = changes.changed() => {}
                        () = tokio::time::sleep(std::time::Duration::from_secs(1)) => {}
                    },
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn cancel(&self, request: Request<v1::ShowRunRequest>) -> Result<Response<v1::Run>, Status> {
        let principal = principal(&request)?;
        let view = runs::cancel(&self.app, &principal, &request.get_ref().run).await.map_err(status)?;
        Ok(Response::new(message(&view)))
    }
}
