//! Reading the ledger.

use domain::authorize::{Action, Principal, Resource, Scope, authorize};
use domain::time::Timestamp;

use super::{Ctx, text};
use crate::error::Result;
use crate::store::event::{EventFilter, EventRow};

/// At most so many events in one answer.
pub const MAX: u32 = 1000;

/// Which events a caller asks for.
///
/// # Errors
/// The scope is malformed, or the caller may not see it.
pub fn filter(principal: &Principal, after: u64, since: i64, scope: &str, limit: u32) -> Result<EventFilter> {
    authorize(principal, Action::Read, &Resource::project(&principal.project))?;
    text::one_line("scope", scope, 160)?;
    let asked = (!scope.is_empty()).then(|| scope.to_owned());
    // A caller whose token holds for one app or target sees that one's events.
    let scope = match &principal.grant.scope {
        Scope::Project => asked,
        Scope::App(app) => asked
            .filter(|asked| asked == app.as_str() || asked.starts_with(&format!("{app}/")))
            .or_else(|| Some(app.to_string())),
        Scope::Target(target) => Some(target.to_string()),
    };
    Ok(EventFilter {
        project: principal.project.clone(),
        after,
        since: (since > 0).then_some(Timestamp(since)),
        scope,
        limit: if limit == 0 { 100 } else { limit.min(MAX) },
    })
}

/// The events after a place, or the last ones when no place and no instant is given; oldest first.
///
/// # Errors
/// What the store says.
pub async fn list(ctx: &Ctx, filter: &EventFilter) -> Result<Vec<EventRow>> {
    let filter = filter.clone();
    ctx.store
        .read(|view| {
            Box::pin(async move {
                let rows = if filter.after == 0 && filter.since.is_none() {
                    view.event_list_last(&filter).await?
                } else {
                    view.event_list_after(&filter).await?
                };
                Ok(rows)
            })
        })
        .await
}

/// The events after a place, oldest first.
///
/// # Errors
/// What the store says.
pub async fn after(ctx: &Ctx, filter: &EventFilter, seq: u64) -> Result<Vec<EventRow>> {
    let filter = EventFilter { after: seq, limit: MAX, ..filter.clone() };
    ctx.store.read(|view| Box::pin(async move { Ok(view.event_list_after(&filter).await?) })).await
}
