//! Where environments and seeds go.

use domain::authorize::{Principal, Role};
use domain::label::Selector;
use domain::placement::{Among, Candidate, Nowhere, Request, place};

use super::environment_data::Beginning;
use super::{Ctx, quotas, seed_copies};
use crate::error::{Code, Error, Result};
use crate::store::View;
use crate::store::host::HostRow;

/// What a host is chosen for.
#[derive(Clone, Debug)]
pub(super) struct Wish<'a> {
    /// The host that was asked for.
    pub(super) named: Option<HostRow>,
    /// That host gave a grant for a folder.
    pub(super) granted: bool,
    /// Bytes of memory that must be available.
    pub(super) memory: u64,
    /// It must lie there.
    pub(super) seed: Option<&'a Beginning>,
}

/// The host that gave the grant, the one asked for, the caller's own box, or one for everybody (`role=dev`); where its
/// seed lies.
pub(super) async fn choose<V: View + ?Sized>(
    ctx: &Ctx,
    view: &mut V,
    principal: &Principal,
    wish: &Wish<'_>,
) -> Result<HostRow> {
    if let Some(row) = &wish.named
        && !wish.granted
        && row.host.labels.get("owner").is_some_and(|owner| owner != principal.name.as_str())
        && principal.grant.role < Role::Admin
    {
        let text = format!("{} is somebody else's box; leave --host out, or ask its owner", row.host.name);
        return Err(Error::new(Code::PERMISSION_DENIED, text));
    }
    let hosts = view.host_list(&principal.project).await?;
    let mut candidates = Vec::new();
    for row in &hosts {
        let held = view.environment_list_of_host(row.host.id).await?;
        let load = u32::try_from(held.len()).unwrap_or(u32::MAX);
        let memory_bytes = held.iter().map(quotas::memory).fold(0, u64::saturating_add);
        candidates.push(Candidate { host: &row.host, liveness: ctx.liveness(row), load, memory_bytes });
    }
    let request = |among| Request { among, memory_bytes: wish.memory, disk_bytes: 0 };
    let selector = |text: &str| Selector::parse(text).map(Among::Labels);
    let lies = match wish.seed {
        Some(seed) => Some(seed_copies::lies(ctx, view, &seed.row).await?),
        None => None,
    };
    // Where its seed lies, else where that can be brought.
    let place = |request: &Request| {
        let Some(lies) = &lies else { return place(request, &candidates) };
        let (near, all): (Vec<_>, _) =
            (candidates.iter().filter(|one| lies.on.contains(&one.host.id)).copied().collect(), &candidates);
        place(request, &near).or_else(|nowhere| if lies.travels { place(request, all) } else { Err(nowhere) })
    };
    let chosen = match &wish.named {
        Some(row) => place(&request(Among::Host(row.host.id))),
        None => {
            let own = selector(&format!("owner={}", principal.name)).ok();
            let shared = selector("role=dev").ok();
            let nowhere = Err(Nowhere(Vec::new()));
            own.into_iter().chain(shared).fold(nowhere, |before, among| {
                before.or_else(|before| place(&request(among)).map_err(|later| before.and(later)))
            })
        }
    };
    let id = chosen.map_err(|nowhere| match wish.seed {
        _ if nowhere.is_quota() => {
            let text = format!(
                "no host can take it: {nowhere}; `muster env list --all` shows what they have, `muster env down NAME` frees one"
            );
            Error::new(Code::QUOTA_HOST, text)
        }
        _ if nowhere.is_engine() => {
            let text = format!("no host can take it now: {nowhere}; start the engine there");
            Error::new(Code::ENV_ENGINE_AWAY, text)
        }
        Some(seed) if lies.is_some_and(|lies| !lies.travels) => elsewhere(seed, &hosts, &nowhere),
        _ => {
            let text = format!(
                "no host can take it: {nowhere}. An environment goes to a host labelled owner={} or role=dev, or to \
                 --host",
                principal.name
            );
            Error::new(Code::ENV_NO_HOST, text)
        }
    })?;
    hosts.into_iter().find(|row| row.host.id == id).ok_or_else(|| Error::internal("placement chose no host"))
}

/// Why it cannot go where its seed lies, and why the seed does not come.
fn elsewhere(seed: &Beginning, hosts: &[HostRow], nowhere: &Nowhere) -> Error {
    let lies = hosts.iter().find(|row| row.host.id == seed.row.seed.host);
    let lies = lies.map_or("a host that was removed", |row| row.host.name.as_str());
    let text = format!(
        "{} lies on {lies}, which is not heard from and so cannot bring it elsewhere ({nowhere}); start the agent there",
        seed.address
    );
    Error::new(Code::SEED_ELSEWHERE, text)
}
