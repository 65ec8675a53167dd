//! The ledger: rows of events, in the order of their commits.

use async_trait::async_trait;
use domain::event::{Actor, NewEvent};
use domain::ids::EventId;
use domain::time::Timestamp;

use super::error::Result;

/// An event with its place in the ledger.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EventRow {
    /// Its place: 1, 2, 3 …, in the order of commits, without a gap when it was written.
    pub seq: u64,
    /// Its id.
    pub id: EventId,
    /// The project.
    pub project: String,
    /// When.
    pub at: Timestamp,
    /// Who.
    pub actor: Actor,
    /// Dotted, noun first.
    pub kind: String,
    /// The noun and id or name of what it is about.
    pub subject: (String, String),
    /// The target, app or environment it belongs to; empty if none.
    pub scope: String,
    /// One line for people.
    pub text: String,
    /// Stable reason code; empty if none.
    pub reason: String,
}

/// Which events are wanted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EventFilter {
    /// The project.
    pub project: String,
    /// Only those after this place.
    pub after: u64,
    /// Only those at or after this instant.
    pub since: Option<Timestamp>,
    /// Only those of this target, app (its targets included) or environment.
    pub scope: Option<String>,
    /// At most so many.
    pub limit: u32,
}

impl EventFilter {
    /// The project's events from the beginning, at most 100.
    #[must_use]
    pub fn of(project: &str) -> Self {
        Self { project: project.to_owned(), after: 0, since: None, scope: None, limit: 100 }
    }
}

/// Reading the ledger.
#[async_trait]
pub trait EventReads: Send {
    /// The first `limit` events that the filter lets through, oldest first: how a watch resumes.
    async fn event_list_after(&mut self, filter: &EventFilter) -> Result<Vec<EventRow>>;
    /// The last `limit` events that the filter lets through, oldest first.
    async fn event_list_last(&mut self, filter: &EventFilter) -> Result<Vec<EventRow>>;
    /// Place of the last event ever written; 0: none.
    async fn event_seq(&mut self) -> Result<u64>;
}

/// Writing the ledger.
#[async_trait]
pub trait EventWrites: Send {
    /// Appends an event and answers its place.
    async fn event_append(&mut self, project: &str, event: &NewEvent) -> Result<u64>;
}

impl EventRow {
    /// An event at its place.
    pub(crate) fn new(seq: u64, project: &str, event: &NewEvent) -> Self {
        Self {
            seq,
            id: event.id,
            project: project.to_owned(),
            at: event.at,
            actor: event.actor.clone(),
            kind: event.kind.to_owned(),
            subject: (event.subject.0.to_owned(), event.subject.1.clone()),
            scope: event.scope.clone(),
            text: event.text.clone(),
            reason: event.reason.clone(),
        }
    }
}

impl EventFilter {
    /// Whether an event after `after` is wanted.
    pub(crate) fn passes(&self, row: &EventRow) -> bool {
        let within = |scope: &String| {
            row.scope.strip_prefix(scope.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        row.project == self.project
            && self.since.is_none_or(|since| row.at >= since)
            && self.scope.as_ref().is_none_or(within)
    }
}
