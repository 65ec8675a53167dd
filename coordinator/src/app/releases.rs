//! What is rolled out: immutable, numbered per target.

use std::collections::BTreeMap;

use domain::app::TargetSpec;
use domain::authorize::{Action, Principal, Resource, authorize};
use domain::ids::ReleaseId;
use domain::name::{Name, TargetRef};
use domain::release::{Build, Digest, Release};
use domain::time::Timestamp;
use prost::Message;
use uuid::Uuid;

use super::{Ctx, resolve};
use crate::error::{Code, Error, Result};
use crate::store::View;
use crate::store::config::ConfigRow;
use crate::store::release::ReleaseRow;

/// A release with the members that run it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReleaseView {
    /// The release.
    pub row: ReleaseRow,
    /// Names of the hosts that run it, as far as known.
    pub members: Vec<Name>,
}

/// The release that a build with these settings is on a target: the one that is there already when nothing in it
/// differs, or a new one, not yet stored, with the next number.
///
/// # Errors
/// What the store says.
pub async fn of<V: View + ?Sized>(
    ctx: &Ctx,
    view: &mut V,
    project: &str,
    target: &TargetRef,
    spec: &TargetSpec,
    build: &Build,
    config: Option<&ConfigRow>,
) -> Result<(Release, bool)> {
    let mut release = Release {
        id: ReleaseId::new(Uuid::nil()),
        target: target.clone(),
        number: 0,
        build: build.id,
        commit: build.commit.clone(),
        image: build.image.clone(),
        processes: build.processes.clone(),
        expose: spec.expose.clone(),
        config_revision: config.map_or(0, |row| row.revision),
        config: config.map(|row| row.values.clone()).unwrap_or_default(),
        digest: crate::ca::digest(&[0; 32]),
        created_at: Timestamp(0),
    };
    release.digest = digest(&release);
    if let Some(known) = view.release_by_digest(project, target, &release.digest).await? {
        return Ok((known.release, false));
    }
    release.id = ReleaseId::new(ctx.ids.uuid());
    release.number = view.release_newest(project, target).await?.map_or(1, |row| row.release.number + 1);
    release.created_at = ctx.now();
    Ok((release, true))
}

/// Over target, build, processes, published ports and settings; the revision's number does not count.
fn digest(release: &Release) -> Digest {
    let blank = Release { config_revision: 0, ..release.clone() };
    let message = proto::v1::ReleaseSpec::from(&blank);
    crate::ca::digest(&transport::pin::sha256(&message.encode_to_vec()))
}

async fn views<V: View + ?Sized>(
    view: &mut V,
    project: &str,
    target: &TargetRef,
    rows: Vec<ReleaseRow>,
) -> Result<Vec<ReleaseView>> {
    let mut running: BTreeMap<ReleaseId, Vec<Name>> = BTreeMap::new();
    for member in view.member_list(project, target).await? {
        let Some(current) = member.report.and_then(|report| report.current) else { continue };
        if let Some(host) = view.host_get(member.host).await? {
            running.entry(current).or_default().push(host.host.name);
        }
    }
    let one = |row: ReleaseRow| ReleaseView { members: running.remove(&row.release.id).unwrap_or_default(), row };
    Ok(rows.into_iter().map(one).collect())
}

/// The last 100 releases of a target, newest first.
///
/// # Errors
/// There is no such target, or the caller may not see it.
pub async fn list(ctx: &Ctx, principal: &Principal, target: &str) -> Result<Vec<ReleaseView>> {
    let parsed = TargetRef::parse(target)?;
    authorize(principal, Action::Read, &Resource::target(&principal.project, &parsed))?;
    ctx.store
        .read(|view| {
            Box::pin(async move {
                let (target, _) = resolve::target(view, principal, target).await?;
                let rows = view.release_list(&principal.project, &target, 100).await?;
                views(view, &principal.project, &target, rows).await
            })
        })
        .await
}

/// One release of a target.
///
/// # Errors
/// There is none of this number, or the caller may not see it.
pub async fn show(ctx: &Ctx, principal: &Principal, target: &str, number: u64) -> Result<ReleaseView> {
    let parsed = TargetRef::parse(target)?;
    authorize(principal, Action::Read, &Resource::target(&principal.project, &parsed))?;
    ctx.store
        .read(|view| {
            Box::pin(async move {
                let (target, _) = resolve::target(view, principal, target).await?;
                let row = by_number(view, principal, &target, number).await?;
                let mut all = views(view, &principal.project, &target, vec![row]).await?;
                all.pop().ok_or_else(|| Error::internal("a release is gone"))
            })
        })
        .await
}

/// A release by its number.
///
/// # Errors
/// There is none.
pub async fn by_number<V: View + ?Sized>(
    view: &mut V,
    principal: &Principal,
    target: &TargetRef,
    number: u64,
) -> Result<ReleaseRow> {
    view.release_by_number(&principal.project, target, number).await?.ok_or_else(|| {
        let text = format!("{target} has no release {number}; `muster release list {target}` shows what it has");
        Error::new(Code::RELEASE_NOT_FOUND, text)
    })
}
