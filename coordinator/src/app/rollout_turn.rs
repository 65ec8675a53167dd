//! One turn of a rollout: load everything, let `decide` decide, store it, and only then give orders.

use domain::event::Actor;
use domain::host::Host;
use domain::ids::RolloutId;
use domain::name::Name;
use domain::release::Release;
use domain::rollout::decision::{Decision, Note};
use domain::rollout::progress::{Ordered as OrderKind, RolloutState, StepState};
use domain::rollout::waiting::Waiting;
use domain::step::order::Order;
use domain::time::Timestamp;
use proto::convert::step::{Ordered, OrderedRelease};

use super::ledger::Event;
use super::{Ctx, rollout_view};
use crate::error::Result;
use crate::store::rollout::RolloutRow;
use crate::store::target::{LockRow, TargetRow};
use crate::store::{Tx, View};

/// What a turn comes to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Turn {
    /// The state after it.
    pub state: RolloutState,
    /// Whether anything was stored.
    pub changed: bool,
    /// The orders that stand for reachable members; all stored before.
    pub orders: Vec<Ordered>,
    /// What it waits for, or why it ended.
    pub waiting: Waiting,
    /// Look again then, if nothing wakes the loop before.
    pub wake_at: Option<Timestamp>,
    /// There is nothing left to do for this rollout.
    pub done: bool,
}

/// Moves a rollout as far as it can go now. None: there is no such rollout. Where news are `expected` nothing is looked
/// at before: that would be the same work twice, and a host waits for it.
///
/// # Errors
/// What the store says; nothing was ordered then, and the turn can be taken again.
pub async fn turn(ctx: &Ctx, id: RolloutId, expected: bool) -> Result<Option<Turn>> {
    if expected {
        return move_on(ctx, id).await;
    }
    let looked = ctx
        .store
        .read(|view| {
            Box::pin(async move {
                let Some(row) = view.rollout_get(id).await? else { return Ok(None) };
                let decision = rollout_view::look(ctx, view, &row).await?;
                if changes(&row, &decision) {
                    return Ok(Some(None));
                }
                Ok::<_, crate::error::Error>(Some(Some(result(view, &row, decision, false).await?)))
            })
        })
        .await?;
    match looked {
        None => Ok(None),
        Some(Some(turn)) => Ok(Some(turn)),
        Some(None) => move_on(ctx, id).await,
    }
}

fn changes(row: &RolloutRow, decision: &Decision) -> bool {
    decision.next != row.progress || !decision.notes.is_empty() || decision.lock.is_some()
}

async fn move_on(ctx: &Ctx, id: RolloutId) -> Result<Option<Turn>> {
    let moved = ctx
        .store
        .write(|tx| {
            Box::pin(async move {
                let Some(row) = tx.rollout_get(id).await? else { return Ok(None) };
                let decision = rollout_view::look(ctx, tx, &row).await?;
                if !changes(&row, &decision) {
                    return Ok(Some((result(tx, &row, decision, false).await?, Vec::new())));
                }
                let points = store(ctx, tx, &row, &decision).await?;
                let turn = result(tx, &row, decision, true).await?;
                Ok::<_, crate::error::Error>(Some((turn, points)))
            })
        })
        .await?;
    let Some((turn, points)) = moved else { return Ok(None) };
    for point in points {
        crate::failpoint::hit(ctx.state_dir.as_deref(), point);
    }
    Ok(Some(turn))
}

/// Stores a decision. Answers the failpoints that have been reached.
async fn store(ctx: &Ctx, tx: &mut dyn Tx, row: &RolloutRow, decision: &Decision) -> Result<Vec<&'static str>> {
    let next = &decision.next;
    let ended = next.state.is_terminal() && row.finished_at.is_none();
    let finished_at = if ended { Some(ctx.now()) } else { row.finished_at };
    if *next != row.progress {
        tx.rollout_put(row, next, finished_at).await?;
    }
    let mut points = Vec::new();
    for ((member, before), after) in row.plan.members.iter().zip(&row.progress.steps).zip(&next.steps) {
        if after.generation > before.generation {
            tx.member_generation_put(&row.project, &row.plan.target, member.member, after.generation).await?;
            if !matches!(after.ordered, OrderKind::Nothing | OrderKind::Stage) {
                points.push("rollout.order.stored");
            }
        }
        if after.state == StepState::Confirming && before.state != StepState::Confirming {
            points.push("rollout.verdict.stored");
        }
    }
    for note in &decision.notes {
        append(ctx, tx, row, note).await?;
    }
    if let Some(lock) = &decision.lock {
        let lock = LockRow {
            project: row.project.clone(),
            target: row.plan.target.clone(),
            principal: None,
            lock: lock.clone(),
            created_at: ctx.now(),
        };
        tx.lock_put(&lock).await?;
        Event::new(Actor::Coordinator, "target.locked", &row.plan.target)
            .scope(&row.plan.target)
            .text(&lock.lock.reason)
            .append(ctx, tx, &row.project)
            .await?;
    }
    if ended && next.state == RolloutState::Succeeded {
        let state = TargetRow {
            project: row.project.clone(),
            target: row.plan.target.clone(),
            release: Some(row.plan.release),
            since: ctx.now(),
        };
        tx.target_put(&state).await?;
    }
    points.dedup();
    Ok(points)
}

async fn append(ctx: &Ctx, tx: &mut dyn Tx, row: &RolloutRow, note: &Note) -> Result<()> {
    let name = |id| row.plan.member(id).map_or_else(String::new, |member| member.name.to_string());
    let event = Event::new(Actor::Coordinator, note.kind(), row.plan.rollout).scope(&row.plan.target);
    let event = match note {
        Note::WavePassed { wave } => event.text(format!("wave {}", wave + 1)),
        Note::State { from, to, reason } => {
            let why = reason.as_ref().map(ToString::to_string).unwrap_or_default();
            let code = reason.as_ref().map(|reason| reason.code.code()).unwrap_or_default();
            event.reason(code).text(format!("{} -> {} {why}", from.name(), to.name()).trim_end())
        }
        Note::Step { member, from, to, failure } => {
            let why = failure.as_ref().map(ToString::to_string).unwrap_or_default();
            let code = failure.as_ref().map(|failure| failure.cause.code()).unwrap_or_default();
            event.reason(code).text(format!("{} {} -> {} {why}", name(*member), from.name(), to.name()).trim_end())
        }
    };
    event.append(ctx, tx, &row.project).await?;
    Ok(())
}

async fn result<V: View + ?Sized>(view: &mut V, row: &RolloutRow, decision: Decision, changed: bool) -> Result<Turn> {
    let mut orders = Vec::new();
    for order in decision.commands {
        if let Some(ordered) = with_release(view, row, order).await? {
            orders.push(ordered);
        }
    }
    let done = !decision.next.needs_turns();
    Ok(Turn { state: decision.next.state, changed, orders, waiting: decision.waiting, wake_at: decision.wake_at, done })
}

async fn with_release<V: View + ?Sized>(view: &mut V, row: &RolloutRow, order: Order) -> Result<Option<Ordered>> {
    let work = match order.kind.release() {
        None => None,
        Some(id) => {
            // A release is never removed while a rollout can order it.
            let Some(release) = view.release_get(id).await? else { return Ok(None) };
            let release = release.release;
            let processes = match row.plan.member(order.member) {
                Some(member) if id == row.plan.release => member.processes.clone(),
                _ => match view.host_get(order.member).await? {
                    Some(host) => processes_on(&release, &host.host),
                    None => return Ok(None),
                },
            };
            Some(OrderedRelease { release, processes })
        }
    };
    Ok(Some(Ordered { order, work, retain_releases: row.plan.policy.retain_releases }))
}

/// The processes of a release that run on a host.
fn processes_on(release: &Release, host: &Host) -> Vec<Name> {
    let here = |process: &domain::app::Process| process.on.as_ref().is_none_or(|on| on.matches(&host.labels));
    release.processes.iter().filter(|(_, process)| here(process)).map(|(name, _)| name.clone()).collect()
}
