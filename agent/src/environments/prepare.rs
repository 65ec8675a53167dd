//! Before a service can start: its image, its volumes, and from them what its container is made from.

use std::path::PathBuf;
use std::sync::Arc;

use domain::stack::{Build, MountSource, Service, StoreKind};
use sha2::{Digest as _, Sha256};

use super::failure::Failure;
use super::plan::Plan;
use super::{context, data, folder, given};
use crate::engine::{BuildSpec, ContainerSpec, Image, MountSpec, Rights, VolumeSpec, adopt};
use crate::host::Host;
use crate::owners::Begins;
use crate::{pool, seeds};

/// Gets the image and the volumes of a service, and answers what its container is made from.
///
/// # Errors
/// See the codes of [`Failure`].
pub async fn service(host: &Arc<Host>, plan: &Arc<Plan>, name: &str) -> Result<ContainerSpec, Failure> {
    let missing = || Failure::lasting("E_STACK_REFERENCE", format!("there is no service {name}"));
    let service = plan.stack.services.get(name).ok_or_else(missing)?;
    let (reference, image) = image(host, plan, name, service).await?;
    wrote(plan, name, &image)?;
    let mut mounts = mounts(host, plan, name, service, &image).await?;
    mounts.extend(seeds::inputs(&host.pool, &plan.wanted.order.run));
    let own = data::folder(&host.pool, &plan.id);
    let mut given = service.clone();
    // Data that came from elsewhere has passwords of its own: MySQL takes the environment's at each start.
    if service.store == Some(StoreKind::Mysql) && plan.manifest.images.contains_key(name) {
        given.files.extend(seeds::mysql::files(service, plan.stack.settings.durability));
    }
    let for_seed = seeds::is_one(&plan.wanted.order.run);
    if for_seed && service.store == Some(StoreKind::Elasticsearch) {
        given.environment.extend([seeds::elastic::may_restore(service)]);
    }
    let files = given::write(&own, &given)
        .map_err(|why| Failure::passing("E_POOL", format!("the secrets and configs of {name}: {why}")))?;
    Ok(ContainerSpec {
        name: plan.container(name),
        host: host.id.clone(),
        slot: plan.id.clone(),
        part: name.to_owned(),
        image: reference,
        image_id: image.id,
        command: service.command.clone(),
        entrypoint: service.entrypoint.clone(),
        environment: given.environment,
        mounts,
        network: plan.network(),
        more_networks: service.egress.then(|| plan.outside()).into_iter().collect(),
        aliases: std::iter::once(name).chain(service.aliases.iter().map(String::as_str)).map(str::to_owned).collect(),
        ports: service.ports.clone(),
        working_dir: service.working_dir.clone(),
        user: service.user.clone(),
        stop_signal: service.stop_signal.clone(),
        memory: service.memory,
        milli_cpus: service.milli_cpus,
        init: service.init,
        read_only: service.read_only,
        shm_bytes: service.shm_bytes,
        files,
        rights: rights(service),
        cgroup_parent: None,
    })
}

/// Another build of a database may sort texts in another way, or write files that the other one cannot read.
fn wrote(plan: &Plan, name: &str, image: &Image) -> Result<(), Failure> {
    match plan.manifest.images.get(name) {
        Some(wrote) if *wrote != image.id => Err(Failure::lasting(
            "E_SEED_IMAGE",
            format!(
                "the data of {name} was written by the image {}, and the stack's is {}: its indexes may be wrong there;                  import the seed again with this image, or name the other one in the stack",
                short(wrote),
                short(&image.id)
            ),
        )),
        _ => Ok(()),
    }
}

fn short(digest: &str) -> &str {
    let plain = digest.strip_prefix("sha256:").unwrap_or(digest);
    plain.get(..12).unwrap_or(plain)
}

fn rights(service: &Service) -> Rights {
    Rights {
        cap_add: service.cap_add.clone(),
        cap_drop: service.cap_drop.clone(),
        ulimits: service.ulimits.iter().map(|(name, limit)| (name.clone(), limit.soft, limit.hard)).collect(),
        pids: service.pids_limit,
        extra_hosts: service.extra_hosts.clone(),
        sysctls: service.sysctls.clone(),
        groups: service.group_add.clone(),
        no_new_privileges: service.no_new_privileges,
    }
}

async fn image(host: &Arc<Host>, plan: &Plan, name: &str, service: &Service) -> Result<(String, Image), Failure> {
    let for_run = !plan.wanted.order.run.is_empty();
    if let Some(given) = plan.wanted.images.get(name) {
        return present(host, given)
            .await?
            .ok_or_else(|| Failure::lasting("E_IMAGE_MISSING", format!("{given} is not on this host")));
    }
    // A run tests what is in its checkout: an image that somebody built before says nothing about it.
    let builds = service.build.is_some() && (for_run || plan.rebuild.contains(name));
    if let Some(image) = service.image.as_ref().filter(|_| !builds) {
        if let Some(found) = present(host, image).await? {
            return Ok(found);
        }
        if service.build.is_none() {
            host.policy.pull(image)?;
            host.engine.pull(image).await.map_err(|why| {
                let failure = Failure::from(why);
                Failure {
                    code: "E_IMAGE_PULL".to_owned(),
                    text: format!("{image} cannot be pulled: {}", failure.text),
                    ..failure
                }
            })?;
            let gone = || Failure::passing("E_IMAGE_MISSING", format!("{image} was pulled and is gone again"));
            return present(host, image).await?.ok_or_else(gone);
        }
    }
    let Some(build) = &service.build else {
        return Err(Failure::lasting("E_STACK_MISSING_KEY", format!("service {name} has neither image nor build")));
    };
    build_image(host, plan, name, build, service.image.as_deref().filter(|_| !for_run)).await
}

async fn present(host: &Host, reference: &str) -> Result<Option<(String, Image)>, Failure> {
    Ok(host.engine.image(reference).await?.map(|image| (reference.to_owned(), image)))
}

async fn build_image(
    host: &Arc<Host>,
    plan: &Plan,
    name: &str,
    build: &Build,
    tag: Option<&str>,
) -> Result<(String, Image), Failure> {
    let failed = |text: String| Failure::lasting("E_BUILD", format!("service {name} cannot be built: {text}"));
    let folder = source(host, plan, &build.context)?;
    let dockerfile = build.dockerfile.clone().unwrap_or_else(|| "Dockerfile".to_owned());
    let packed = {
        let dockerfile = dockerfile.clone();
        tokio::task::spawn_blocking(move || context::pack(&folder, &dockerfile)).await
    };
    let packed = packed.map_err(|why| failed(why.to_string()))?.map_err(|why| failed(why.to_string()))?;
    let tag = tag.map_or_else(|| format!("muster-build:{}", identity(build, &packed.hash)), str::to_owned);
    if let Some(found) = present(host, &tag).await?.filter(|_| !plan.rebuild.contains(name)) {
        return Ok(found);
    }
    let spec = BuildSpec { tag: tag.clone(), dockerfile, target: build.target.clone(), args: build.args.clone() };
    host.engine.build(&spec, context::stream(packed.file)).await.map_err(|why| match why {
        crate::engine::Error::Refused(text) => failed(text),
        other => other.into(),
    })?;
    present(host, &tag).await?.ok_or_else(|| failed("the image is gone again".to_owned()))
}

/// Names a build by everything that goes into it.
fn identity(build: &Build, context: &str) -> String {
    let mut hash = Sha256::new();
    hash.update(context);
    for part in [build.dockerfile.as_deref().unwrap_or_default(), build.target.as_deref().unwrap_or_default()] {
        hash.update([0]);
        hash.update(part);
    }
    for (key, value) in &build.args {
        hash.update([0]);
        hash.update(key);
        hash.update([1]);
        hash.update(value);
    }
    hex::encode(&hash.finalize()[..16])
}

/// A path of the environment's sources.
pub(super) fn source(host: &Host, plan: &Plan, relative: &str) -> Result<std::path::PathBuf, Failure> {
    if plan.wanted.order.upload && !crate::upload::is_whole(&host.pool, &plan.id) {
        let text = format!("{relative} is not uploaded yet; `muster env sync {}` does that", plan.wanted.order.name);
        return Err(Failure::passing("E_SYNC_WAITING", text));
    }
    let Some(granted) = &plan.wanted.folder else {
        return Err(Failure::lasting(
            "E_GRANT_MISSING",
            format!(
                "the stack uses {relative} of its folder, and no folder of this host was granted; run `muster env up` on the host itself, in that folder"
            ),
        ));
    };
    let path = folder::resolve(granted, relative)?;
    // Checkouts for runs, and what was uploaded, are the agent's own and lie where no policy needs to allow them.
    if plan.wanted.order.run.is_empty() && !plan.wanted.order.upload {
        host.policy.mount(&path)?;
    }
    Ok(path)
}

async fn mounts(
    host: &Arc<Host>,
    plan: &Plan,
    name: &str,
    service: &Service,
    image: &Image,
) -> Result<Vec<MountSpec>, Failure> {
    let mut mounts = Vec::new();
    for (index, mount) in service.mounts.iter().enumerate() {
        let (target, read_only) = (mount.target.clone(), mount.read_only);
        mounts.push(match &mount.source {
            MountSource::Volume(volume) => {
                let name = volume_of(host, plan, volume).await?;
                MountSpec::Volume { name, target, read_only }
            }
            MountSource::Anonymous => {
                let name = volume_of(host, plan, &format!("{name}.{index}")).await?;
                MountSpec::Volume { name, target, read_only }
            }
            MountSource::Folder(relative) => {
                let path = source(host, plan, relative)?;
                MountSpec::Bind { source: seen(host, plan, service, image, path).await, target, read_only }
            }
            MountSource::Tmpfs => MountSpec::Tmpfs { target },
        });
    }
    // Folders that the image declares as volumes belong to the pool like all other data.
    for declared in &image.volumes {
        let covered =
            |mount: &domain::stack::Mount| mount.target.trim_end_matches('/') == declared.trim_end_matches('/');
        if !service.mounts.iter().any(covered) {
            let safe: String = declared.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
            let name = volume_of(host, plan, &format!("{name}.image{safe}")).await?;
            mounts.push(MountSpec::Volume { name, target: declared.clone(), read_only: false });
        }
    }
    Ok(mounts)
}

/// Where the service's container finds what lies there in a developer's folder. Checkouts of runs go with their run, and
/// what was uploaded keeps the numbers that its owners have elsewhere.
async fn seen(host: &Host, plan: &Plan, service: &Service, image: &Image, path: PathBuf) -> PathBuf {
    match &plan.wanted.folder {
        Some(granted) if plan.wanted.order.run.is_empty() && !plan.wanted.order.upload => {
            let begins = Begins::of(service.user.as_deref(), &image.user);
            host.owners.seen(&plan.id, granted, begins, &path).await
        }
        _ => path,
    }
}

async fn volume_of(host: &Arc<Host>, plan: &Plan, volume: &str) -> Result<String, Failure> {
    let (name, folder) = plan.volume(host, volume);
    if !folder.is_dir() {
        match host.pool.create_dir(folder.clone()).await {
            // Another service has the same volume.
            Ok(()) | Err(pool::Error::Exists { .. }) => {}
            Err(why) => return Err(why.into()),
        }
    }
    let spec = VolumeSpec { name: name.clone(), labels: plan.labels(host), folder };
    adopt::volume(host.engine.as_ref(), &spec).await?;
    Ok(name)
}
