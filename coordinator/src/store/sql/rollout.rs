//! Rollouts in SQL: the frozen plan and its progress as rows; steps are in [`super::step`].

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use domain::ids::RolloutId;
use domain::name::TargetRef;
use domain::rollout::plan::{Kind, Plan};
use domain::rollout::progress::{Deadline, Holder, Progress};
use domain::rollout::reason::Reason;
use domain::time::Timestamp;

use super::super::document::Word;
use super::super::error::{Error, Result};
use super::super::rollout::{RolloutReads, RolloutRow, RolloutWrites};
use super::{Columns, FromRow, SqlTx, Value, next_version, values};

/// A rollout without its members and steps.
struct Head(RolloutRow);

/// An id alone.
struct Id(RolloutId);

impl FromRow for Id {
    const TABLE: &'static str = "rollouts";
    const KEY: &'static [&'static str] = &["id"];

    fn from_row(row: &Columns<'_>) -> Result<Self> {
        row.parse("id").map(Self)
    }
}

impl FromRow for Head {
    const TABLE: &'static str = "rollouts";
    const KEY: &'static [&'static str] = &["id"];

    fn from_row(row: &Columns<'_>) -> Result<Self> {
        let reverts = row.parse_or_null::<RolloutId>("reverts")?;
        let plan = Plan {
            rollout: row.parse("id")?,
            target: row.target()?,
            kind: reverts.map_or(Kind::Forward, |of| Kind::Revert { of }),
            release: row.parse("release_id")?,
            number: row.number("number")?,
            policy: row.json("policy")?,
            members: Vec::new(),
        };
        Ok(Self(RolloutRow {
            project: row.text("project")?,
            principal: row.parse("principal")?,
            plan: Arc::new(plan),
            from: row.parse_or_null("from_release")?,
            message: row.text("message")?,
            unlocked: row.flag("unlocked")?,
            created_at: row.at("created_at")?,
            finished_at: row.at_or_null("finished_at")?,
            progress: progress(row)?,
            version: row.number("version")?,
        }))
    }
}

fn progress(row: &Columns<'_>) -> Result<Progress> {
    let progress_by = match (row.at_or_null("progress_at")?, row.time_or_null("progress_left")?) {
        (Some(at), _) => Deadline::At(at),
        (None, Some(left)) => Deadline::Left(left),
        (None, None) => Deadline::Off,
    };
    Ok(Progress {
        state: row.word("state")?,
        reason: reason(row)?,
        interrupted: row.word_or_null("interrupted")?,
        holders: holders(row)?,
        cancel_asked: row.flag("cancel_asked")?,
        supersede_asked: row.flag("supersede_asked")?,
        asked_by: row.text("asked_by")?,
        wave: row.number("wave")?,
        progress_by,
        bake_until: row.at_or_null("bake_until")?,
        steps: Vec::new(),
    })
}

fn reason(row: &Columns<'_>) -> Result<Option<Reason>> {
    let Some(code) = row.word_or_null("reason_code")? else { return Ok(None) };
    Ok(Some(Reason {
        code,
        detail: row.text_or_null("reason_detail")?.unwrap_or_default(),
        text: row.text_or_null("reason_text")?.unwrap_or_default(),
    }))
}

/// Words with commas between; empty: none.
fn holders(row: &Columns<'_>) -> Result<BTreeSet<Holder>> {
    let text = row.text("holders")?;
    let words = text.split(',').filter(|word| !word.is_empty());
    let known =
        |word: &str| Holder::from_word(word).ok_or_else(|| row.corrupt("holders", format!("{word:?} is not known")));
    words.map(known).collect()
}

/// `$1` is the id; `$2` to `$18` are what may change.
fn changing(id: RolloutId, next: &Progress, finished_at: Option<Timestamp>, version: u64) -> Vec<Value> {
    let (at, left) = match next.progress_by {
        Deadline::Off => (None, None),
        Deadline::At(at) => (Some(at), None),
        Deadline::Left(left) => (None, Some(left)),
    };
    let holders: Vec<&str> = next.holders.iter().map(|holder| holder.word()).collect();
    let reason = next.reason.as_ref();
    values![
        id,
        finished_at,
        Value::word(next.state),
        next.state.is_active(),
        next.needs_turns(),
        Value::word_or_null(reason.map(|reason| reason.code)),
        reason.map(|reason| reason.detail.clone()),
        reason.map(|reason| reason.text.clone()),
        Value::word_or_null(next.interrupted),
        holders.join(","),
        next.cancel_asked,
        next.supersede_asked,
        &next.asked_by,
        next.wave,
        at,
        left,
        next.bake_until,
        version,
    ]
}

#[async_trait]
impl RolloutReads for SqlTx {
    async fn rollout_get(&mut self, id: RolloutId) -> Result<Option<RolloutRow>> {
        let head = self.one("SELECT * FROM rollouts WHERE id = $1", values![id]).await?;
        self.whole(head).await
    }

    async fn rollout_active(&mut self, project: &str, target: &TargetRef) -> Result<Option<RolloutRow>> {
        let sql = "SELECT * FROM rollouts WHERE project = $1 AND app = $2 AND target = $3 AND active = 1";
        let head = self.one(sql, values![project, &target.app, &target.target]).await?;
        self.whole(head).await
    }

    async fn rollout_list_queued(&mut self, project: &str, target: &TargetRef) -> Result<Vec<RolloutRow>> {
        let sql = "SELECT * FROM rollouts WHERE project = $1 AND app = $2 AND target = $3 AND state = 'queued' \
                   ORDER BY created_at, id";
        let heads = self.list(sql, values![project, &target.app, &target.target]).await?;
        self.all_whole(heads).await
    }

    async fn rollout_list(&mut self, project: &str, target: Option<&TargetRef>, limit: u32) -> Result<Vec<RolloutRow>> {
        let sql = "SELECT * FROM rollouts WHERE project = $1 AND ($2 IS NULL OR (app = $2 AND target = $3)) \
                   ORDER BY created_at DESC, id DESC LIMIT $4";
        let (app, name) = (target.map(|target| &target.app), target.map(|target| &target.target));
        let heads = self.list(sql, values![project, app, name, limit]).await?;
        self.all_whole(heads).await
    }

    async fn rollout_list_turning(&mut self) -> Result<Vec<RolloutId>> {
        let sql = "SELECT id FROM rollouts WHERE turning = 1 ORDER BY created_at, id";
        let ids: Vec<Id> = self.list(sql, values![]).await?;
        Ok(ids.into_iter().map(|Id(id)| id).collect())
    }
}

impl SqlTx {
    async fn whole(&mut self, head: Option<Head>) -> Result<Option<RolloutRow>> {
        let Some(Head(mut row)) = head else { return Ok(None) };
        let (members, steps) = self.steps(row.plan.rollout).await?;
        row.plan = Arc::new(Plan { members, ..Plan::clone(&row.plan) });
        row.progress.steps = steps;
        Ok(Some(row))
    }

    async fn all_whole(&mut self, heads: Vec<Head>) -> Result<Vec<RolloutRow>> {
        let mut rows = Vec::with_capacity(heads.len());
        for head in heads {
            rows.extend(self.whole(Some(head)).await?);
        }
        Ok(rows)
    }

    /// The index would refuse a second active rollout, too, but fail the whole transaction.
    async fn only_active(&mut self, row: &RolloutRow, next: &Progress, new: bool) -> Result<()> {
        if !next.state.is_active() {
            return Ok(());
        }
        let (id, target) = (row.plan.rollout, &row.plan.target);
        let sql = "SELECT id FROM rollouts \
                   WHERE project = $1 AND app = $2 AND target = $3 AND active = 1 AND id <> $4";
        let values = values![&row.project, &target.app, &target.target, id];
        if self.one::<Id>(sql, values).await?.is_none() {
            return Ok(());
        }
        // Somebody who decided on an old state is told so first, as everywhere.
        let sql = "SELECT id FROM rollouts WHERE id = $1 AND version = $2";
        match self.one::<Id>(sql, values![id, row.version]).await? {
            None if !new => Err(Error::conflict("rollouts", id)),
            _ => Err(Error::exists("rollouts", target)),
        }
    }
}

#[async_trait]
impl RolloutWrites for SqlTx {
    async fn rollout_insert(&mut self, row: &RolloutRow) -> Result<()> {
        row.whole(&row.progress)?;
        self.only_active(row, &row.progress, true).await?;
        let plan = &row.plan;
        let reverts = match plan.kind {
            Kind::Forward => None,
            Kind::Revert { of } => Some(of),
        };
        let mut values = changing(plan.rollout, &row.progress, row.finished_at, 1);
        values.extend(values![
            &row.project,
            row.principal,
            &plan.target.app,
            &plan.target.target,
            reverts,
            plan.release,
            plan.number,
            Value::json(&plan.policy),
            row.from,
            &row.message,
            row.unlocked,
            row.created_at,
        ]);
        self.insert(
            "rollouts",
            plan.rollout,
            "INSERT INTO rollouts (id, finished_at, state, active, turning, reason_code, reason_detail, reason_text, \
             interrupted, holders, cancel_asked, supersede_asked, asked_by, wave, progress_at, progress_left, \
             bake_until, version, project, principal, app, target, reverts, release_id, number, policy, from_release, \
             message, unlocked, created_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, \
             $22, $23, $24, $25, $26, $27, $28, $29, $30) ON CONFLICT DO NOTHING",
            values,
        )
        .await?;
        for (member, step) in plan.members.iter().zip(&row.progress.steps) {
            self.step_insert(&row.project, plan.rollout, member, step).await?;
        }
        Ok(())
    }

    async fn rollout_put(
        &mut self,
        before: &RolloutRow,
        next: &Progress,
        finished_at: Option<Timestamp>,
    ) -> Result<u64> {
        before.whole(next)?;
        self.only_active(before, next, false).await?;
        let id = before.plan.rollout;
        let version = next_version(before.version);
        let mut values = changing(id, next, finished_at, version);
        values.extend(values![before.version]);
        self.update(
            "rollouts",
            id,
            "UPDATE rollouts SET finished_at = $2, state = $3, active = $4, turning = $5, reason_code = $6, \
             reason_detail = $7, reason_text = $8, interrupted = $9, holders = $10, cancel_asked = $11, \
             supersede_asked = $12, asked_by = $13, wave = $14, progress_at = $15, progress_left = $16, \
             bake_until = $17, version = $18 WHERE id = $1 AND version = $19",
            values,
        )
        .await?;
        let changed = before.progress.steps.iter().zip(&next.steps).zip(&before.plan.members);
        for ((old, new), member) in changed {
            if old != new {
                self.step_update(id, member.ordinal, new).await?;
            }
        }
        Ok(version)
    }
}
