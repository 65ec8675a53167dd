//! What came out of an app at one commit.

use domain::app::App as Definition;
use domain::authorize::{Action, Principal, Resource, authorize};
use domain::ids::BuildId;
use domain::name::Name;
use domain::release::{Build, Commit, Digest, Image};

use super::archive::{self, Source};
use super::idempotency::{self, Key};
use super::ledger::{self, Event};
use super::{App, Ctx, apps, resolve, text};
use crate::artifacts::{Stored, Upload};
use crate::error::{Code, Error, Result};
use crate::store::artifact::ArtifactRow;
use crate::store::build::BuildRow;
use crate::store::{Tx, View};

/// A build with the name of who registered it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Named {
    /// The build.
    pub row: BuildRow,
    /// Who registered it.
    pub actor: String,
}

/// What the head of a registration says.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Ask {
    /// The app.
    pub app: String,
    /// A full commit.
    pub commit: String,
    /// Name of `muster.yaml` for messages.
    pub file: String,
    /// `muster.yaml` at the commit.
    pub manifest: String,
    /// `repository@sha256:…`; empty: an archive follows.
    pub image: String,
    /// `linux/amd64`; empty: what the archive says.
    pub platform: String,
}

/// What is registered, checked as far as its head goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Head {
    definition: Definition,
    commit: Commit,
    manifest: String,
    /// `repository@sha256:…`; none: an archive follows.
    pub image: Option<String>,
    platform: Option<String>,
}

/// Checks the head of a registration and whether the caller may register builds of this app.
///
/// # Errors
/// A field is malformed, there is no such app, or the caller may not.
pub async fn head(ctx: &Ctx, principal: &Principal, ask: &Ask) -> Result<Head> {
    let Ask { app, commit, file, manifest, image, platform } = ask;
    let name = Name::new("app", app)?;
    authorize(principal, Action::Create, &Resource::app(&principal.project, &name))?;
    let commit = Commit::parse(commit)?;
    let definition = apps::read(file, manifest)?;
    if definition.name != name {
        let text = format!("muster.yaml is of the app {}, and the build is of {name}", definition.name);
        return Err(Error::new(Code::MANIFEST_APP, text));
    }
    let image = match image.as_str() {
        "" => None,
        given => {
            manifest::image_ref::parse_pinned(given).map_err(|why| {
                let text = format!("{why}; write REPOSITORY@sha256:DIGEST, or give --archive");
                Error::detailed(Code::IMAGE, why.code().as_str(), text)
            })?;
            Some(given.to_owned())
        }
    };
    let platform = match platform.as_str() {
        "" => None,
        given => {
            archive::check_platform(given)?;
            Some(given.to_owned())
        }
    };
    ctx.store.read(|view| Box::pin(async move { resolve::app(view, principal, &name).await })).await?;
    Ok(Head { definition, commit, manifest: manifest.clone(), image, platform })
}

/// Registers a build whose image hosts pull.
///
/// # Errors
/// What the store says.
pub async fn register_reference(app: &App, principal: &Principal, head: Head, key: &str) -> Result<Named> {
    let image = Image {
        reference: head.image.clone(),
        archive: None,
        archive_bytes: 0,
        config_digest: None,
        platform: head.platform.clone().unwrap_or_else(|| "linux/amd64".to_owned()),
    };
    register(app, principal, &head, image, key).await
}

/// Registers a build whose archive has been uploaded.
///
/// # Errors
/// It is no image's archive, or of another platform than the head says.
pub async fn register_archive(
    app: &App,
    principal: &Principal,
    head: Head,
    upload: Upload,
    key: &str,
) -> Result<Named> {
    let stored = upload.finish().await?;
    let read = match archive::read(&Source::Stored(&stored)).await {
        Ok(read) => read,
        Err(error) => {
            stored.drop_it().await;
            return Err(error);
        }
    };
    if let Some(platform) = head.platform.as_ref().filter(|platform| **platform != read.platform) {
        stored.drop_it().await;
        return Err(Error::new(Code::PLATFORM, format!("the archive is for {}, not {platform}", read.platform)));
    }
    let image = Image {
        reference: None,
        archive: Some(stored.digest.clone()),
        archive_bytes: stored.bytes,
        config_digest: Some(read.config_digest),
        platform: read.platform,
    };
    keep(app, principal, stored).await?;
    register(app, principal, &head, image, key).await
}

/// The bytes first, then the row that says they are there: a row never names bytes that are not.
async fn keep(app: &App, principal: &Principal, stored: Stored) -> Result<()> {
    let row = ArtifactRow {
        project: principal.project.clone(),
        principal: Some(principal.id),
        digest: stored.digest.clone(),
        bytes: stored.bytes,
        created_at: app.now(),
    };
    stored.keep().await?;
    app.store
        .write(|tx| {
            Box::pin(async move {
                tx.artifact_insert(&row).await?;
                Ok(())
            })
        })
        .await
}

fn body(head: &Head, image: &Image) -> Digest {
    let mut bytes = Vec::new();
    let archive = image.archive.as_ref().map(Digest::hex).unwrap_or_default();
    for part in [
        head.definition.name.as_str(),
        head.commit.as_str(),
        &head.manifest,
        image.reference.as_deref().unwrap_or_default(),
        archive,
        &image.platform,
    ] {
        bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
        bytes.extend_from_slice(part.as_bytes());
    }
    crate::ca::digest(&transport::pin::sha256(&bytes))
}

async fn register(app: &App, principal: &Principal, head: &Head, image: Image, key: &str) -> Result<Named> {
    let key = Key::with_body("Builds/Register", key, body(head, &image))?;
    app.store
        .write(|tx| {
            Box::pin(async move {
                let name = &head.definition.name;
                authorize(principal, Action::Create, &Resource::app(&principal.project, name))?;
                resolve::app(tx, principal, name).await?;
                if let Some(made) = idempotency::created(tx, principal, key.as_ref()).await? {
                    return by_id(tx, principal, &made).await;
                }
                let same = |row: &BuildRow| row.build.image == image && row.build.manifest == head.manifest;
                let known = tx.build_list_at(&principal.project, name, &head.commit).await?.into_iter().find(same);
                if let Some(row) = known {
                    idempotency::note(app, tx, principal, key.as_ref(), row.build.id).await?;
                    return named(tx, row).await;
                }
                let build = Build {
                    id: BuildId::new(app.ids.uuid()),
                    app: name.clone(),
                    commit: head.commit.clone(),
                    processes: head.definition.processes.clone(),
                    image: image.clone(),
                    manifest: head.manifest.clone(),
                    created_at: app.now(),
                };
                let row = BuildRow { project: principal.project.clone(), principal: principal.id, build };
                insert(app, tx, principal, &row).await?;
                idempotency::note(app, tx, principal, key.as_ref(), row.build.id).await?;
                named(tx, row).await
            })
        })
        .await
}

async fn insert(ctx: &Ctx, tx: &mut dyn Tx, principal: &Principal, row: &BuildRow) -> Result<()> {
    tx.build_insert(row).await?;
    let build = &row.build;
    if let Some(archive) = &build.image.archive {
        tx.artifact_ref_put(archive, "build", &build.id.to_string()).await?;
    }
    Event::new(ledger::by(principal), "build.registered", build.id)
        .scope(&build.app)
        .text(format!("{} at {}", build.app, build.commit.short()))
        .append(ctx, tx, &principal.project)
        .await?;
    Ok(())
}

async fn named<V: View + ?Sized>(view: &mut V, row: BuildRow) -> Result<Named> {
    let actor = view.principal_get(row.principal).await?.map(|row| row.name.to_string()).unwrap_or_default();
    Ok(Named { row, actor })
}

/// A build by its id.
///
/// # Errors
/// There is none in the caller's project.
pub async fn by_id<V: View + ?Sized>(view: &mut V, principal: &Principal, given: &str) -> Result<Named> {
    text::at_most("build", given, 64)?;
    let id: BuildId = given.parse()?;
    let row = view.build_get(id).await?.filter(|row| row.project == principal.project).ok_or_else(|| {
        Error::new(Code::BUILD_NOT_FOUND, format!("there is no build {id}; `muster build list` shows the last"))
    })?;
    named(view, row).await
}

/// The last 100 builds that the caller may see, newest first, of one app or of all.
///
/// # Errors
/// The app's name is none, or the caller may not see it.
pub async fn list(ctx: &Ctx, principal: &Principal, app: &str) -> Result<Vec<Named>> {
    let app = match app {
        "" => None,
        given => Some(Name::new("app", given)?),
    };
    if let Some(app) = &app {
        authorize(principal, Action::Read, &Resource::app(&principal.project, app))?;
    }
    ctx.store
        .read(|view| {
            Box::pin(async move {
                let mut all = Vec::new();
                for row in view.build_list(&principal.project, app.as_ref(), 100).await? {
                    if authorize(principal, Action::Read, &Resource::app(&row.project, &row.build.app)).is_ok() {
                        all.push(named(view, row).await?);
                    }
                }
                Ok(all)
            })
        })
        .await
}
