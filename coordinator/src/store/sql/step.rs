//! Members and steps of a rollout in SQL.

use domain::ids::{ReleaseId, RolloutId};
use domain::rollout::plan::Member;
use domain::rollout::progress::{Ordered, Previous, Step};
use domain::step::report::Durations;

use super::super::error::Result;
use super::{Columns, FromRow, SqlTx, Value, values};

/// A member and its step.
struct StepRow(Member, Step);

impl FromRow for StepRow {
    const TABLE: &'static str = "rollout_steps";
    const KEY: &'static [&'static str] = &["rollout", "ordinal"];

    fn from_row(row: &Columns<'_>) -> Result<Self> {
        let member = Member {
            ordinal: row.number("ordinal")?,
            member: row.parse("member")?,
            executor: row.parse("executor")?,
            name: row.name("name")?,
            wave: row.number("wave")?,
            processes: row.json("processes")?,
        };
        let step = Step {
            state: row.word("state")?,
            since: row.at("since")?,
            unknown_since: row.at_or_null("unknown_since")?,
            generation: row.generation("generation")?,
            ordered: ordered(row)?,
            attempt: row.number("attempt")?,
            previous: previous(row)?,
            failed: row.flag("failed")?,
            undone: row.number("undone")?,
            converging: row.flag("converging")?,
            failure: row.json_or_null("failure")?,
            durations: Durations {
                staged: row.time_or_null("staged")?,
                warm: row.time_or_null("warm")?,
                switched: row.time_or_null("switched")?,
                checked: row.time_or_null("checked")?,
                confirmed: row.time_or_null("confirmed")?,
            },
            reverted_in: row.time_or_null("reverted_in")?,
            healthy_since: row.at_or_null("healthy_since")?,
            touched_at: row.at_or_null("touched_at")?,
        };
        Ok(Self(member, step))
    }
}

fn ordered(row: &Columns<'_>) -> Result<Ordered> {
    let release = row.parse_or_null::<ReleaseId>("ordered_release")?;
    match (row.text("ordered")?.as_str(), release) {
        ("nothing", None) => Ok(Ordered::Nothing),
        ("stage", None) => Ok(Ordered::Stage),
        ("forward", None) => Ok(Ordered::Forward),
        ("confirm", None) => Ok(Ordered::Confirm),
        ("remove", None) => Ok(Ordered::Remove),
        ("revert", Some(release)) => Ok(Ordered::Revert(release)),
        ("converge", Some(release)) => Ok(Ordered::Converge(release)),
        (other, _) => Err(row.corrupt("ordered", format!("{other:?} is not known, or its release is wrong"))),
    }
}

fn ordered_values(ordered: Ordered) -> Vec<Value> {
    let (word, release) = match ordered {
        Ordered::Nothing => ("nothing", None),
        Ordered::Stage => ("stage", None),
        Ordered::Forward => ("forward", None),
        Ordered::Confirm => ("confirm", None),
        Ordered::Remove => ("remove", None),
        Ordered::Revert(release) => ("revert", Some(release)),
        Ordered::Converge(release) => ("converge", Some(release)),
    };
    values![word, release]
}

fn previous(row: &Columns<'_>) -> Result<Previous> {
    let release = row.parse_or_null::<ReleaseId>("previous_release")?;
    match (row.text("previous")?.as_str(), release) {
        ("untouched", None) => Ok(Previous::Untouched),
        ("nothing", None) => Ok(Previous::Nothing),
        ("release", Some(release)) => Ok(Previous::Release(release)),
        (other, _) => Err(row.corrupt("previous", format!("{other:?} is not known, or its release is wrong"))),
    }
}

fn previous_values(previous: Previous) -> Vec<Value> {
    let (word, release) = match previous {
        Previous::Untouched => ("untouched", None),
        Previous::Nothing => ("nothing", None),
        Previous::Release(release) => ("release", Some(release)),
    };
    values![word, release]
}

/// `$1` and `$2` are the key; `$3` to `$23` are what may change.
fn changing(rollout: RolloutId, ordinal: u32, step: &Step) -> Vec<Value> {
    let mut values = values![
        rollout,
        ordinal,
        Value::word(step.state),
        step.since,
        step.unknown_since,
        step.generation,
        step.attempt,
        step.failed,
        step.undone,
        step.converging,
        Value::json_or_null(step.failure.as_ref()),
        step.durations.staged,
        step.durations.warm,
        step.durations.switched,
        step.durations.checked,
        step.durations.confirmed,
        step.reverted_in,
        step.healthy_since,
        step.touched_at,
    ];
    values.extend(ordered_values(step.ordered));
    values.extend(previous_values(step.previous));
    values
}

impl SqlTx {
    pub(super) async fn steps(&mut self, rollout: RolloutId) -> Result<(Vec<Member>, Vec<Step>)> {
        let sql = "SELECT * FROM rollout_steps WHERE rollout = $1 ORDER BY ordinal";
        let rows: Vec<StepRow> = self.list(sql, values![rollout]).await?;
        Ok(rows.into_iter().map(|StepRow(member, step)| (member, step)).unzip())
    }

    pub(super) async fn step_insert(
        &mut self,
        project: &str,
        rollout: RolloutId,
        member: &Member,
        step: &Step,
    ) -> Result<()> {
        let mut values = changing(rollout, member.ordinal, step);
        values.extend(values![
            project,
            member.member,
            member.executor,
            &member.name,
            member.wave,
            Value::json(&member.processes),
        ]);
        self.insert(
            "rollout_steps",
            format!("{rollout}/{}", member.ordinal),
            "INSERT INTO rollout_steps (rollout, ordinal, state, since, unknown_since, generation, attempt, failed, \
             undone, converging, failure, staged, warm, switched, checked, confirmed, reverted_in, healthy_since, \
             touched_at, ordered, ordered_release, previous, previous_release, project, member, executor, name, wave, \
             processes) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, \
             $20, $21, $22, $23, $24, $25, $26, $27, $28, $29) ON CONFLICT DO NOTHING",
            values,
        )
        .await
    }

    pub(super) async fn step_update(&mut self, rollout: RolloutId, ordinal: u32, step: &Step) -> Result<()> {
        self.update(
            "rollout_steps",
            format!("{rollout}/{ordinal}"),
            "UPDATE rollout_steps SET state = $3, since = $4, unknown_since = $5, generation = $6, attempt = $7, \
             failed = $8, undone = $9, converging = $10, failure = $11, staged = $12, warm = $13, switched = $14, \
             checked = $15, confirmed = $16, reverted_in = $17, healthy_since = $18, touched_at = $19, ordered = $20, \
             ordered_release = $21, previous = $22, previous_release = $23 WHERE rollout = $1 AND ordinal = $2",
            changing(rollout, ordinal, step),
        )
        .await
    }
}
