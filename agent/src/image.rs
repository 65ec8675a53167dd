//! Images of releases: pulled by digest from a registry, or fetched from the coordinator as an archive of which only
//! the layers travel that this host lacks. What arrives is checked against the hashes that name it.

use std::collections::BTreeSet;

use domain::release::Image;
use futures::{StreamExt as _, TryStreamExt as _};
use proto::v1;
use tokio::sync::watch;
use tonic::transport::Channel;

use crate::engine::{self, Engine};
use crate::fetch;
use crate::host::Host;

pub mod archive;

use archive::Head;

/// Largest head of an archive in bytes.
const MAX_HEAD: usize = 16 << 20;

/// Why an image cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The host's policy forbids its registry.
    #[error("{0}")]
    Denied(#[from] crate::policy::Denied),
    /// The engine does not do it.
    #[error("{0}")]
    Engine(#[from] engine::Error),
    /// It cannot be fetched now.
    #[error("the archive cannot be fetched: {0}")]
    Fetch(String),
    /// It is not what it should be.
    #[error("{0}")]
    Content(String),
}

/// The name under which an image from an archive stands on this host: its identity, in any image store.
#[must_use]
pub fn local_name(config_digest: &str) -> String {
    format!("muster-release:{config_digest}")
}

/// The name from which containers of a build are made.
#[must_use]
pub fn reference(image: &Image) -> Option<String> {
    match (&image.reference, &image.config_digest) {
        (Some(reference), _) => Some(reference.clone()),
        (None, Some(digest)) => Some(local_name(digest.hex())),
        (None, None) => None,
    }
}

/// Makes sure that the image is on this host and is the one it should be. Answers its identity on this engine.
///
/// # Errors
/// See [`Error`].
pub async fn stage(host: &Host, image: &Image, ways: watch::Receiver<Option<Channel>>) -> Result<String, Error> {
    let name = reference(image)
        .ok_or_else(|| Error::Content("the build names neither a registry nor an archive".to_owned()))?;
    if let Some(found) = host.engine.image(&name).await? {
        return checked(image, found);
    }
    match (&image.reference, &image.archive) {
        (Some(reference), _) => {
            host.policy.pull(reference)?;
            host.engine.pull(reference).await?;
        }
        (None, Some(archive)) => {
            load(host.engine.as_ref(), image, archive.hex(), &name, ways).await?;
        }
        (None, None) => return Err(Error::Content("the build names no archive".to_owned())),
    }
    let found = host.engine.image(&name).await?;
    checked(image, found.ok_or_else(|| Error::Content(format!("{name} was loaded and is not there")))?)
}

/// Where the engine's id is the configuration's digest, it must be the build's. Other stores have other ids; there
/// the name was given only after the content was checked.
fn checked(image: &Image, found: engine::Image) -> Result<String, Error> {
    let Some(wanted) = &image.config_digest else { return Ok(found.id) };
    let by_archive = image.reference.is_none();
    if found.id == wanted.to_string()
        || by_archive
        || found.repo_digests.iter().any(|digest| digest.ends_with(&found.id))
    {
        Ok(found.id)
    } else {
        Err(Error::Content(format!("the registry's image has the configuration {}, the build {wanted}", found.id)))
    }
}

async fn load(
    engine: &dyn Engine,
    image: &Image,
    archive: &str,
    name: &str,
    ways: watch::Receiver<Option<Channel>>,
) -> Result<(), Error> {
    let ask = |without: Vec<String>, head_only| {
        let request = v1::FetchRequest { digest: archive.to_owned(), offset: 0, without, head_only };
        fetch::fetch(ways.clone(), request, |_| {})
    };
    let mut stream = ask(Vec::new(), true).boxed();
    let mut bytes = Vec::new();
    while let Some(data) = stream.next().await {
        bytes.extend_from_slice(&data.map_err(|why| Error::Fetch(why.text))?);
        if bytes.len() > MAX_HEAD {
            return Err(Error::Content("the archive's head is larger than 16 MiB".to_owned()));
        }
    }
    let head = Head::read(&bytes).map_err(Error::Content)?;
    if let Some(wanted) = &image.config_digest
        && head.config_digest != wanted.hex()
    {
        return Err(Error::Content(format!(
            "the archive's configuration is sha256:{}, the build's {wanted}",
            head.config_digest
        )));
    }
    let present = present_layers(engine, &head.diff_ids).await?;
    let without: Vec<String> = head.diff_ids[..present].to_vec();
    let skipped: BTreeSet<String> = without.iter().cloned().collect();
    let incoming = ask(without, false).map_err(std::io::Error::other);
    let (verified, outcome) = archive::verify(incoming.boxed(), head, skipped, name.to_owned());
    let loaded = engine.load(verified).await;
    // Our own check says more than the engine's error about a stream that we cut off.
    outcome.await.map_err(|_| Error::Fetch("the check was ended".to_owned()))?.map_err(Error::Content)?;
    Ok(loaded?)
}

/// How many of the lowest layers an image on this host has: layers are known by all those below them.
async fn present_layers(engine: &dyn Engine, wanted: &[String]) -> Result<usize, Error> {
    let images = engine.images().await?;
    let common = |image: &engine::Image| image.diff_ids.iter().zip(wanted).take_while(|(a, b)| a == b).count();
    Ok(images.iter().map(common).max().unwrap_or(0))
}
