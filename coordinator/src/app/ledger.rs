//! Events: every change says who did what to what, in the change's own transaction.

use domain::authorize::Principal;
use domain::event::{Actor, NewEvent};
use domain::ids::EventId;
use domain::name::Name;

use super::Ctx;
use crate::store::{self, Tx};

/// An event being made.
#[derive(Clone, Debug)]
pub struct Event {
    actor: Actor,
    kind: &'static str,
    subject: (&'static str, String),
    scope: String,
    text: String,
    reason: String,
}

impl Event {
    /// `kind` is dotted, noun first; `id` is the subject's id or name.
    pub fn new(actor: Actor, kind: &'static str, id: impl ToString) -> Self {
        let noun = kind.split('.').next().unwrap_or(kind);
        Self {
            actor,
            kind,
            subject: (noun, id.to_string()),
            scope: String::new(),
            text: String::new(),
            reason: String::new(),
        }
    }

    /// The target, app or environment it belongs to.
    #[must_use]
    pub fn scope(mut self, scope: impl ToString) -> Self {
        self.scope = scope.to_string();
        self
    }

    /// One line for people, cut to 500 characters.
    #[must_use]
    pub fn text(mut self, text: impl AsRef<str>) -> Self {
        self.text = super::text::line(text.as_ref(), 500);
        self
    }

    /// A stable reason code.
    #[must_use]
    pub fn reason(mut self, reason: impl ToString) -> Self {
        self.reason = reason.to_string();
        self
    }

    /// Appends it to the ledger of a project, within a transaction.
    ///
    /// # Errors
    /// What the store says.
    pub async fn append(self, ctx: &Ctx, tx: &mut dyn Tx, project: &str) -> store::Result<u64> {
        let event = NewEvent {
            id: EventId::new(ctx.ids.uuid()),
            at: ctx.now(),
            actor: self.actor,
            kind: self.kind,
            subject: self.subject,
            scope: self.scope,
            text: self.text,
            reason: self.reason,
        };
        tx.event_append(project, &event).await
    }
}

/// A principal as an actor.
#[must_use]
pub fn by(principal: &Principal) -> Actor {
    Actor::Principal(principal.id, principal.name.to_string())
}

/// A host's agent as an actor.
#[must_use]
pub fn host(name: &Name) -> Actor {
    Actor::Host(name.to_string())
}
