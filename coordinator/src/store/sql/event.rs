//! The ledger in SQL.

use async_trait::async_trait;
use domain::event::{Actor, NewEvent};

use super::super::error::{Error, Result};
use super::super::event::{EventFilter, EventReads, EventRow, EventWrites};
use super::{Columns, FromRow, SqlTx, Value, values};

impl FromRow for EventRow {
    const TABLE: &'static str = "events";
    const KEY: &'static [&'static str] = &["seq"];

    fn from_row(row: &Columns<'_>) -> Result<Self> {
        Ok(Self {
            seq: row.number("seq")?,
            id: row.parse("id")?,
            project: row.text("project")?,
            at: row.at("happened_at")?,
            actor: actor(row)?,
            kind: row.text("kind")?,
            subject: (row.text("noun")?, row.text("subject")?),
            scope: row.text("scope")?,
            text: row.text("message")?,
            reason: row.text("reason")?,
        })
    }
}

/// The counter's row.
struct Seq(u64);

impl FromRow for Seq {
    const TABLE: &'static str = "ledger";
    const KEY: &'static [&'static str] = &[];

    fn from_row(row: &Columns<'_>) -> Result<Self> {
        row.number("seq").map(Self)
    }
}

fn actor(row: &Columns<'_>) -> Result<Actor> {
    let name = row.text("actor_name")?;
    match row.text("actor")?.as_str() {
        "principal" => Ok(Actor::Principal(row.parse("principal")?, name)),
        "host" => Ok(Actor::Host(name)),
        "coordinator" => Ok(Actor::Coordinator),
        other => Err(row.corrupt("actor", format!("{other:?} is not known"))),
    }
}

fn actor_values(actor: &Actor) -> Vec<Value> {
    match actor {
        Actor::Principal(id, name) => values!["principal", *id, name],
        Actor::Host(name) => values!["host", None::<String>, name],
        Actor::Coordinator => values!["coordinator", None::<String>, ""],
    }
}

fn filter_values(filter: &EventFilter) -> Vec<Value> {
    values![&filter.project, filter.after, filter.since, filter.scope.clone(), filter.limit]
}

/// Which events pass; a scope also lets through what lies under it (`bot` and `bot/production`).
macro_rules! passing {
    ($order:literal) => {
        concat!(
            "SELECT * FROM events WHERE project = $1 AND seq > $2 AND ($3 IS NULL OR happened_at >= $3) \
             AND ($4 IS NULL OR scope = $4 OR substr(scope, 1, length($4) + 1) = $4 || '/') ORDER BY seq ",
            $order,
            " LIMIT $5"
        )
    };
}

#[async_trait]
impl EventReads for SqlTx {
    async fn event_list_after(&mut self, filter: &EventFilter) -> Result<Vec<EventRow>> {
        self.list(passing!("ASC"), filter_values(filter)).await
    }

    async fn event_list_last(&mut self, filter: &EventFilter) -> Result<Vec<EventRow>> {
        let mut rows: Vec<EventRow> = self.list(passing!("DESC"), filter_values(filter)).await?;
        rows.reverse();
        Ok(rows)
    }

    async fn event_seq(&mut self) -> Result<u64> {
        let seq: Option<Seq> = self.one("SELECT seq FROM ledger WHERE id = 1", values![]).await?;
        seq.map(|Seq(seq)| seq).ok_or_else(no_counter)
    }
}

fn no_counter() -> Error {
    Error::Corrupt { table: "ledger", key: "1".to_owned(), what: "the counter's row is gone".to_owned() }
}

#[async_trait]
impl EventWrites for SqlTx {
    async fn event_append(&mut self, project: &str, event: &NewEvent) -> Result<u64> {
        // The row stays locked until the commit: no later number can be committed before this one.
        let sql = "UPDATE ledger SET seq = seq + 1 WHERE id = 1 RETURNING seq";
        let Some(Seq(seq)) = self.one(sql, values![]).await? else { return Err(self.broke(no_counter())) };
        let mut values = values![
            seq,
            event.id,
            project,
            event.at,
            event.kind,
            event.subject.0,
            &event.subject.1,
            &event.scope,
            &event.text,
            &event.reason,
        ];
        values.extend(actor_values(&event.actor));
        let sql = "INSERT INTO events (seq, id, project, happened_at, kind, noun, subject, scope, message, reason, \
                   actor, principal, actor_name) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)";
        self.execute("events", sql, values).await?;
        self.seq = Some(seq);
        Ok(seq)
    }
}
