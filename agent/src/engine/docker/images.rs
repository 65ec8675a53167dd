//! Images.

use std::collections::HashMap;

use bollard::Docker;
use bollard::models::ImageInspect;
use bollard::query_parameters::{
    BuildImageOptionsBuilder, CreateImageOptionsBuilder, ImportImageOptionsBuilder, ListImagesOptionsBuilder,
    RemoveImageOptionsBuilder,
};
use futures::{StreamExt as _, TryStreamExt as _};

use super::super::{BuildSpec, ByteStream, Error, Image, Result};
use super::{failed, missing_is_fine};

pub(super) async fn inspect(client: &Docker, reference: &str) -> Result<Option<Image>> {
    match client.inspect_image(reference).await.map_err(|why| failed(reference, why)) {
        Ok(found) => Ok(Some(read(found))),
        Err(Error::NotFound(_)) => Ok(None),
        Err(other) => Err(other),
    }
}

fn read(found: ImageInspect) -> Image {
    let config = found.config.unwrap_or_default();
    Image {
        id: found.id.unwrap_or_default(),
        repo_digests: found.repo_digests.unwrap_or_default(),
        diff_ids: found.root_fs.and_then(|root| root.layers).unwrap_or_default(),
        volumes: config.volumes.unwrap_or_default(),
        user: config.user.unwrap_or_default(),
        bytes: found.size.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(0),
    }
}

pub(super) async fn list(client: &Docker) -> Result<Vec<Image>> {
    let options = ListImagesOptionsBuilder::default().build();
    let all = client.list_images(Some(options)).await.map_err(|why| failed("images", why))?;
    let mut images = Vec::with_capacity(all.len());
    for one in all {
        // One that goes away in between is not there.
        images.extend(inspect(client, &one.id).await?);
    }
    Ok(images)
}

pub(super) async fn pull(client: &Docker, reference: &str) -> Result<()> {
    let options = CreateImageOptionsBuilder::default().from_image(reference);
    // Without a tag the engine would fetch all of them.
    let last = reference.rsplit('/').next().unwrap_or(reference);
    let options = if last.contains([':', '@']) { options } else { options.tag("latest") };
    let mut progress = client.create_image(Some(options.build()), None, None);
    while let Some(step) = progress.next().await {
        let step = step.map_err(|why| failed(reference, why))?;
        if let Some(message) = step.error_detail.and_then(|detail| detail.message) {
            return Err(Error::Refused(message));
        }
    }
    Ok(())
}

pub(super) async fn load(client: &Docker, archive: ByteStream) -> Result<()> {
    let options = ImportImageOptionsBuilder::default().quiet(true).build();
    let mut answers = Box::pin(client.import_image_stream(options, archive, None));
    while answers.try_next().await.map_err(|why| failed("image archive", why))?.is_some() {}
    Ok(())
}

pub(super) async fn build(client: &Docker, spec: &BuildSpec, context: ByteStream) -> Result<()> {
    let args: HashMap<String, String> = spec.args.clone().into_iter().collect();
    let mut options = BuildImageOptionsBuilder::default()
        .dockerfile(&spec.dockerfile)
        .t(&spec.tag)
        .rm(true)
        .forcerm(true)
        .buildargs(&args);
    if let Some(target) = &spec.target {
        options = options.target(target);
    }
    let body = bollard::body_try_stream(context);
    let mut steps = Box::pin(client.build_image(options.build(), None, Some(body)));
    let mut said = Vec::new();
    while let Some(step) = steps.next().await {
        match step {
            Ok(info) => said.extend(info.stream.map(|text| text.trim_end().to_owned()).filter(|text| !text.is_empty())),
            Err(why) => {
                let from = said.len().saturating_sub(20);
                let why = failed("image build", why);
                return Err(match why {
                    Error::Refused(message) => Error::Refused(format!("{message}\n{}", said[from..].join("\n"))),
                    other => other,
                });
            }
        }
    }
    Ok(())
}

pub(super) async fn untag(client: &Docker, reference: &str) -> Result<()> {
    let options = RemoveImageOptionsBuilder::default().build();
    let removed = client.remove_image(reference, Some(options), None).await;
    missing_is_fine(removed.map(|_| ()).map_err(|why| failed(reference, why)))
}
