//! Bytes of artifacts for hosts.

use std::collections::BTreeSet;
use std::ops::Range;

use domain::ids::{HostId, SeedId};
use domain::release::{Digest, Image};
use domain::run::Subject;
use domain::seed::SeedState;
use domain::step::report::Report;

use super::App;
use super::archive::{self, Source};
use super::seeds::SECRET;
use crate::error::{Code, Error, Result};
use crate::store::View;

/// Which bytes of an artifact are sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// The artifact.
    pub digest: Digest,
    /// Its ranges, in order.
    pub ranges: Vec<Range<u64>>,
    /// Two empty blocks end it: it is a part of a tar archive.
    pub end_blocks: bool,
}

/// Whether a host has an order that needs an artifact. Whatever else is in the store is not for it.
async fn allowed<V: View + ?Sized>(view: &mut V, host: HostId, digest: &Digest) -> Result<bool> {
    Ok(makes(view, host, digest).await? || runs(view, host, digest).await? || releases(view, host, digest).await?)
}

/// It is an input of a seed that the host makes now.
async fn makes<V: View + ?Sized>(view: &mut V, host: HostId, digest: &Digest) -> Result<bool> {
    for (noun, id) in view.artifact_refs(digest).await? {
        let Some(id) = id.parse::<SeedId>().ok().filter(|_| noun == SECRET) else { continue };
        let row = view.seed_get(id).await?;
        if row.is_some_and(|row| row.seed.host == host && row.seed.state == SeedState::Making) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// It is the image of a build that the host tests now.
async fn runs<V: View + ?Sized>(view: &mut V, host: HostId, digest: &Digest) -> Result<bool> {
    for row in view.run_list_of_host(host).await? {
        let Subject::Build(id) = row.run.subject else { continue };
        if view.build_get(id).await?.is_some_and(|row| is_of(&row.build.image, digest)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// It is the image of a release that the host has something of, or that a rollout can order of it.
async fn releases<V: View + ?Sized>(view: &mut V, host: HostId, digest: &Digest) -> Result<bool> {
    if view.release_list_due(host).await?.iter().any(|row| is_of(&row.release.image, digest)) {
        return Ok(true);
    }
    for member in view.member_list_of_host(host).await? {
        // It was ordered something of this target. What is of another one it only claims to have.
        for id in member.report.iter().flat_map(Report::releases) {
            let row = view.release_get(id).await?.filter(|row| row.project == member.project);
            if row.is_some_and(|row| row.release.target == member.target && is_of(&row.release.image, digest)) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

fn is_of(image: &Image, digest: &Digest) -> bool {
    image.archive.as_ref() == Some(digest)
}

/// Plans what a host is sent of an artifact: all of it, only the head of an image's archive, or the archive without some layers.
///
/// # Errors
/// A digest is malformed, there is no such artifact for this host, or a part is asked of something that is no image's archive.
pub async fn plan(app: &App, host: HostId, digest: &str, without: &[String], head_only: bool) -> Result<Plan> {
    let parse = |text: &str| Digest::parse(text).map_err(|why| Error::new(Code::FIELD, why.to_string()));
    if without.len() > 1000 {
        return Err(Error::new(Code::TOO_LARGE, "at most 1000 layers can be left out"));
    }
    let digest = parse(digest)?;
    let without = without.iter().map(|text| parse(text)).collect::<Result<BTreeSet<_>>>()?;
    let wanted = digest.clone();
    let row = app
        .store
        .read(|view| {
            Box::pin(async move {
                let allowed = allowed(view, host, &wanted).await?;
                Ok::<_, Error>(if allowed { view.artifact_get(&wanted).await? } else { None })
            })
        })
        .await?;
    let row = row
        .ok_or_else(|| Error::new(Code::ARTIFACT_NOT_FOUND, format!("there is no artifact {digest} for this host")))?;
    if without.is_empty() && !head_only {
        return Ok(Plan { digest, ranges: std::iter::once(0..row.bytes).collect(), end_blocks: false });
    }
    let read = archive::read(&Source::Artifact(&app.artifacts, &digest, row.bytes)).await?;
    let ranges = if head_only { read.head() } else { read.without(&without) };
    Ok(Plan { digest, ranges, end_blocks: true })
}
