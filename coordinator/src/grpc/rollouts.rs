//! Rollouts.

use domain::rollout::plan::Member;
use domain::rollout::progress::{Holder, Previous, RolloutState, Step, StepState};
use domain::time::Timestamp;
use proto::convert::micros;
use proto::v1;
use proto::v1::rollouts_server::Rollouts;
use tonic::{Request, Response, Status};

use super::error::status;
use super::watch::{self, Answers};
use super::{Api, principal};
use crate::app::idempotency::Key;
use crate::app::rollout_view::{self, RolloutView};
use crate::app::rollouts::{self, Ask, Planned, Start};

fn state(state: RolloutState) -> v1::RolloutState {
    match state {
        RolloutState::Queued => v1::RolloutState::Queued,
        RolloutState::Preflight => v1::RolloutState::Preflight,
        RolloutState::Running => v1::RolloutState::Running,
        RolloutState::Baking => v1::RolloutState::Baking,
        RolloutState::Paused => v1::RolloutState::Paused,
        RolloutState::Reverting => v1::RolloutState::Reverting,
        RolloutState::Succeeded => v1::RolloutState::Succeeded,
        RolloutState::Reverted => v1::RolloutState::Reverted,
        RolloutState::RevertIncomplete => v1::RolloutState::RevertIncomplete,
        RolloutState::Cancelled => v1::RolloutState::Cancelled,
        RolloutState::Superseded => v1::RolloutState::Superseded,
    }
}

fn step_state(state: StepState) -> v1::StepState {
    match state {
        StepState::Pending => v1::StepState::Pending,
        StepState::Staged => v1::StepState::Staged,
        StepState::Starting => v1::StepState::Starting,
        StepState::Warm => v1::StepState::Warm,
        StepState::Switched => v1::StepState::Switched,
        StepState::Checking => v1::StepState::Checking,
        StepState::Confirming => v1::StepState::Confirming,
        StepState::Healthy => v1::StepState::Healthy,
        StepState::Reverting => v1::StepState::Reverting,
        StepState::Reverted => v1::StepState::Reverted,
        StepState::Failed => v1::StepState::Failed,
        StepState::Parked => v1::StepState::Parked,
    }
}

/// `6.2 of 10 s`, while a member must stay healthy.
fn detail(view: &RolloutView, step: &Step) -> String {
    match (step.state, step.healthy_since) {
        (StepState::Checking, Some(since)) => {
            let wanted = view.row.plan.policy.min_healthy_time;
            let so_far = view.now.since(since).min(wanted);
            format!("{:.1} of {} s", so_far.as_secs_f64(), wanted.as_secs_f64())
        }
        _ => String::new(),
    }
}

fn step(view: &RolloutView, member: &Member, step: &Step) -> v1::Step {
    let time = |duration: Option<std::time::Duration>| duration.map_or(0, micros);
    let previous = match step.previous {
        Previous::Release(id) => view.numbers.get(&id).copied().unwrap_or(0),
        Previous::Untouched | Previous::Nothing => 0,
    };
    v1::Step {
        member: member.name.to_string(),
        executor: member.executor.to_string(),
        wave: member.wave + 1,
        state: step_state(step.state).into(),
        unknown: step.unknown_since.is_some(),
        generation: step.generation.0,
        attempt: step.attempt,
        previous,
        touched: step.touched(),
        staged_micros: time(step.durations.staged),
        warm_micros: time(step.durations.warm),
        switched_micros: time(step.durations.switched),
        checked_micros: time(step.durations.checked),
        confirmed_micros: time(step.durations.confirmed),
        reverted_micros: time(step.reverted_in),
        failure: step.failure.as_ref().map(|failure| (&**failure).into()),
        detail: detail(view, step),
    }
}

fn message(view: &RolloutView) -> v1::Rollout {
    let (plan, progress) = (&view.row.plan, &view.row.progress);
    let steps = plan.members.iter().zip(&progress.steps).map(|(member, at)| step(view, member, at));
    let (reason_code, reason_text) = match &progress.reason {
        None => (String::new(), String::new()),
        Some(reason) => (reason.code.code().to_owned(), reason.text.clone()),
    };
    let lock = view
        .lock
        .as_ref()
        .map(|row| v1::TargetLockInfo { reason: row.lock.reason.clone(), expires_at: row.lock.until.0 });
    v1::Rollout {
        id: plan.rollout.to_string(),
        target: plan.target.to_string(),
        state: state(progress.state).into(),
        release: plan.number,
        from_release: view.from.unwrap_or(0),
        commit: view.commit.clone(),
        reason_code,
        reason_text,
        steps: steps.collect(),
        waiting: view.waiting.clone(),
        created_at: view.row.created_at.0,
        finished_at: view.row.finished_at.unwrap_or(Timestamp(0)).0,
        actor: view.actor.clone(),
        message: view.row.message.clone(),
        lock,
        pauses: progress.holders.iter().map(|holder: &Holder| holder.name().to_owned()).collect(),
        wave: progress.wave + 1,
        waves: plan.waves(),
    }
}

fn asked(ask: &v1::StartRolloutRequest) -> Start {
    Start {
        target: ask.target.clone(),
        commit: ask.commit.clone(),
        build: ask.build.clone(),
        release: ask.release,
        reason: ask.reason.clone(),
        unlock: ask.unlock,
        overrides: ask.overrides.clone(),
    }
}

fn planned(planned: &Planned) -> v1::PlanRolloutResponse {
    let mut problems = Vec::new();
    if let Err(error) = &planned.plan {
        problems.push(v1::Reason { code: error.code().to_owned(), text: error.to_string() });
    }
    if let Some(row) = &planned.lock {
        let text = format!(
            "{} is locked by {}: {}; --unlock goes on in spite of it",
            planned.target, row.lock.holder, row.lock.reason
        );
        problems.push(v1::Reason { code: "E_TARGET_LOCKED".to_owned(), text });
    }
    let mut waves: Vec<v1::PlannedWave> = Vec::new();
    let mut checked = Vec::new();
    let mut about = std::time::Duration::ZERO;
    if let Ok(plan) = &planned.plan {
        waves.resize_with(plan.waves() as usize, v1::PlannedWave::default);
        for member in &plan.members {
            if let Some(wave) = waves.get_mut(member.wave as usize) {
                wave.members.push(member.name.to_string());
            }
        }
        checked.push(format!("{} members match", plan.members.len()));
        let parallel = plan.policy.max_parallel.of(plan.size()).max(1) as usize;
        for wave in &waves {
            let rounds = u32::try_from(wave.members.len().div_ceil(parallel)).unwrap_or(u32::MAX);
            about += plan.policy.min_healthy_time * rounds + plan.policy.bake_time;
        }
        about = about.saturating_sub(plan.policy.bake_time) + plan.policy.final_bake_time;
    }
    v1::PlanRolloutResponse {
        target: planned.target.to_string(),
        release: planned.release.number,
        from_release: planned.from.as_ref().map_or(0, |release| release.number),
        build: planned.release.build.to_string(),
        commit: planned.release.commit.to_string(),
        config_revision: planned.release.config_revision,
        waves,
        changes: planned.changes.clone(),
        checked,
        about_micros: micros(about),
        problems,
    }
}

impl Api {
    async fn change(
        &self,
        request: Request<v1::ChangeRolloutRequest>,
        asked: Ask,
    ) -> Result<Response<v1::Rollout>, Status> {
        let principal = principal(&request)?;
        let ask = request.get_ref();
        let view = rollouts::change(&self.app, &principal, &ask.rollout, asked, &ask.reason).await.map_err(status)?;
        Ok(Response::new(message(&view)))
    }
}

#[tonic::async_trait]
impl Rollouts for Api {
    type WatchStream = Answers<v1::Rollout>;

    async fn plan(
        &self,
        request: Request<v1::StartRolloutRequest>,
    ) -> Result<Response<v1::PlanRolloutResponse>, Status> {
        let principal = principal(&request)?;
        let plan = rollouts::plan(&self.app, &principal, &asked(request.get_ref())).await.map_err(status)?;
        Ok(Response::new(planned(&plan)))
    }

    async fn start(&self, request: Request<v1::StartRolloutRequest>) -> Result<Response<v1::Rollout>, Status> {
        let principal = principal(&request)?;
        let ask = request.get_ref();
        let key = Key::of("Rollouts/Start", &ask.idempotency_key, ask).map_err(status)?;
        let view = rollouts::start(&self.app, &principal, &asked(ask), key.as_ref()).await.map_err(status)?;
        Ok(Response::new(message(&view)))
    }

    async fn list(
        &self,
        request: Request<v1::ListRolloutsRequest>,
    ) -> Result<Response<v1::ListRolloutsResponse>, Status> {
        let principal = principal(&request)?;
        let all = rollout_view::list(&self.app, &principal, &request.get_ref().target).await.map_err(status)?;
        Ok(Response::new(v1::ListRolloutsResponse { rollouts: all.iter().map(message).collect() }))
    }

    async fn status(&self, request: Request<v1::RolloutRequest>) -> Result<Response<v1::Rollout>, Status> {
        let principal = principal(&request)?;
        let view = rollout_view::show(&self.app, &principal, &request.get_ref().rollout).await.map_err(status)?;
        Ok(Response::new(message(&view)))
    }

    async fn watch(&self, request: Request<v1::RolloutRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let principal = principal(&request)?;
        let first = rollout_view::show(&self.app, &principal, &request.get_ref().rollout).await.map_err(status)?;
        let (api, id) = (self.clone(), first.row.plan.rollout.to_string());
        let answers = watch::states(self, move || {
            let (api, principal, id) = (api.clone(), principal.clone(), id.clone());
            async move {
                let view = rollout_view::show(&api.app, &principal, &id).await?;
                Ok((message(&view), view.row.progress.state.is_terminal()))
            }
        });
        Ok(Response::new(answers))
    }

    async fn pause(&self, request: Request<v1::ChangeRolloutRequest>) -> Result<Response<v1::Rollout>, Status> {
        self.change(request, Ask::Pause).await
    }

    async fn resume(&self, request: Request<v1::ChangeRolloutRequest>) -> Result<Response<v1::Rollout>, Status> {
        self.change(request, Ask::Resume).await
    }

    async fn cancel(&self, request: Request<v1::ChangeRolloutRequest>) -> Result<Response<v1::Rollout>, Status> {
        self.change(request, Ask::Cancel).await
    }

    async fn revert(&self, request: Request<v1::ChangeRolloutRequest>) -> Result<Response<v1::Rollout>, Status> {
        let principal = principal(&request)?;
        let ask = request.get_ref();
        let key = Key::of("Rollouts/Revert", &ask.idempotency_key, ask).map_err(status)?;
        let view =
            rollouts::revert(&self.app, &principal, &ask.rollout, &ask.reason, key.as_ref()).await.map_err(status)?;
        Ok(Response::new(message(&view)))
    }
}
