//! One line of the ledger: who did what to what, when, why.

use crate::ids::{EventId, PrincipalId};
use crate::time::Timestamp;

/// Who did it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Actor {
    /// A person or a service.
    Principal(PrincipalId, String),
    /// A host's agent.
    Host(String),
    /// The coordinator itself.
    Coordinator,
}

/// An event before it has its place in the ledger.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewEvent {
    /// Its id.
    pub id: EventId,
    /// When.
    pub at: Timestamp,
    /// Who.
    pub actor: Actor,
    /// Dotted, noun first: `rollout.paused`, `host.unreachable`.
    pub kind: &'static str,
    /// The noun and id or name of what it is about, for example (`rollout`, id).
    pub subject: (&'static str, String),
    /// The target, app or environment it belongs to, for filters; empty if none.
    pub scope: String,
    /// One line for people.
    pub text: String,
    /// Stable reason code; empty if none.
    pub reason: String,
}
