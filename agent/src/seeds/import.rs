//! Making a seed from inputs.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use domain::environment::EnvironmentState;
use domain::stack::{MountSource, StoreKind};
use proto::v1;
use proto::v1::SeedFormat;
use tokio::sync::watch;
use uuid::Uuid;

use super::feed::{Finished, Running, is_laid};
use super::scan::Canaries;
use super::sealed::volume;
use super::stack::{self, Store};
use super::{Made, Setup, doublewrite, elastic, inputs, seal};
use crate::environments::failure::Failure;
use crate::environments::{View, Wanted};
use crate::pool;

/// How long the stores may take to start.
const READY: Duration = Duration::from_secs(600);

/// Makes a seed as ordered. What it needed on the way is gone when this returns.
pub(super) async fn run(setup: &Setup, order: &v1::SeedOrder, head: &v1::ImportSeedHead) -> Result<Made, Failure> {
    let canaries = Canaries::new(&head.canaries).map_err(|why| Failure::lasting("E_SEED_CANARY", why))?;
    let stores = stack::stores(head)?;
    let import = Import {
        setup,
        order,
        head,
        stores,
        folder: super::folder(&setup.host.pool, &order.id),
        environment: Uuid::now_v7().to_string(),
    };
    let made = import.make(&canaries).await;
    import.clean().await;
    made
}

struct Import<'a> {
    setup: &'a Setup,
    order: &'a v1::SeedOrder,
    head: &'a v1::ImportSeedHead,
    stores: BTreeMap<String, Store>,
    /// Where inputs lie.
    folder: PathBuf,
    /// Id of the environment in which the seed is made.
    environment: String,
}

impl Import<'_> {
    fn tell(&self, detail: &str) {
        self.setup.tell(&self.order.id, detail);
    }

    async fn make(&self, canaries: &Canaries) -> Result<Made, Failure> {
        inputs::fetch(self.setup, self.order, self.head, &self.folder).await?;
        self.lay().await?;
        let view = self.up().await?;
        // With the passwords that this very environment has.
        let own = stack::of(self.setup.environments.stack(&self.environment)?);
        let mut finished = BTreeMap::new();
        for (name, store) in &own {
            finished.insert(name.clone(), self.fill(&view, name, store, canaries).await?);
        }
        self.tell("stopping the stores cleanly");
        self.rest().await?;
        let masked = self.head.inputs.iter().any(|input| input.format() == SeedFormat::Mask);
        let order = &self.order.id;
        let (writers, kinds) = (seal::writers(&view.specs), self.kinds());
        let described = seal::Described { writers, kinds, finished, masked, order, freeze: Duration::ZERO };
        let from = self.setup.host.pool.environment(&self.environment);
        if masked {
            self.forget(&from)?;
        }
        self.tell("reading the sealed files");
        seal::run(&self.setup.host, &from, &described, canaries).await
    }

    /// What stopped stores keep of before in places of which they know no more.
    fn forget(&self, from: &Path) -> Result<(), Failure> {
        for (name, store) in self.stores.iter().filter(|(_, store)| store.kind == StoreKind::Mysql) {
            let folder = volume(from, &data_volume(name, store));
            tokio::task::block_in_place(|| doublewrite::empty(&folder))
                .map_err(|why| Failure::passing("E_SEED_SEAL", format!("{name}: its doublewrite buffer: {why}")))?;
        }
        Ok(())
    }

    fn kinds(&self) -> BTreeMap<String, StoreKind> {
        self.stores.iter().map(|(name, store)| (name.clone(), store.kind)).collect()
    }

    /// Unpacks the inputs that a store finds at its start.
    async fn lay(&self) -> Result<(), Failure> {
        if self.stores.values().any(|store| store.kind == StoreKind::Elasticsearch) {
            elastic::open(&self.folder).map_err(|why| Failure::passing("E_POOL", why.to_string()))?;
        }
        for (number, input) in self.head.inputs.iter().enumerate().filter(|(_, input)| is_laid(input.format())) {
            self.tell(&format!("unpacking {}", input.name));
            let to = volume(&self.folder, &data_volume(&input.service, &self.stores[&input.service]));
            match self.setup.host.pool.create_dir(to.clone()).await {
                Ok(()) | Err(pool::Error::Exists { .. }) => {}
                Err(why) => return Err(why.into()),
            }
            let (from, rdb) = (inputs::path(&self.folder, number), input.format() == SeedFormat::Rdb);
            let elastic = self.stores[&input.service].kind == StoreKind::Elasticsearch;
            let aside = inputs::repository(&self.folder, number);
            let unpacked = tokio::task::spawn_blocking(move || {
                if rdb {
                    std::fs::copy(&from, to.join("dump.rdb")).map(|_| ())
                } else if elastic {
                    std::fs::create_dir(&aside)?;
                    untar(&from, &aside)?;
                    elastic::place(&aside, &to).map(|_| ())
                } else {
                    untar(&from, &to)
                }
            });
            let failed = |why: String| Failure::lasting("E_SEED_INPUT", format!("{}: {why}", input.name));
            unpacked.await.map_err(|why| failed(why.to_string()))?.map_err(|why| failed(why.to_string()))?;
        }
        Ok(())
    }

    /// Brings up the stack's stores.
    async fn up(&self) -> Result<View, Failure> {
        self.tell("starting the stores");
        let places = &self.setup.environments;
        places.hold(self.wanted(false)).await?;
        let gone = || Failure::lasting("E_SEED_ENVIRONMENT", "the seed's environment is gone while it was being made");
        let seen = places.watch(&self.environment).ok_or_else(gone)?;
        let ready = async {
            let mut seen = seen;
            loop {
                let view = seen.borrow_and_update().clone();
                match view.observed.state {
                    EnvironmentState::Ready => return Ok(view),
                    EnvironmentState::Failed => {
                        let (code, text) = view.observed.reason.unwrap_or_default();
                        return Err(Failure::lasting(&code, format!("the seed's environment: {text}")));
                    }
                    EnvironmentState::Gone => return Err(gone()),
                    _ => {}
                }
                seen.changed().await.map_err(|_| gone())?;
            }
        };
        let late = |_| Failure::lasting("E_SEED_ENVIRONMENT", format!("the stores were not ready within {READY:?}"));
        tokio::time::timeout(READY, ready).await.map_err(late)?
    }

    fn wanted(&self, halted: bool) -> Wanted {
        let order = v1::EnvironmentOrder {
            id: self.environment.clone(),
            generation: 1,
            up: true,
            name: format!("seed-{}", self.order.name),
            owner: self.order.owner.clone(),
            stack_file: self.head.stack_file.clone(),
            file: self.head.file.clone(),
            variables: self.head.variables.clone(),
            env_files: self.head.env_files.clone(),
            run: format!("{}{}", super::MARK, self.order.id),
            data_from: format!("import:{}", self.order.id),
            only_services: self.stores.keys().cloned().collect(),
            ..Default::default()
        };
        Wanted { order, folder: None, images: BTreeMap::new(), halted }
    }

    async fn fill(&self, view: &View, name: &str, store: &Store, canaries: &Canaries) -> Result<Finished, Failure> {
        let host = &self.setup.host;
        let lost = || Failure::lasting("E_SEED_ENVIRONMENT", format!("the container of {name} is gone"));
        let spec = view.specs.get(name).ok_or_else(lost)?;
        let found = host.engine.inspect(&spec.name).await?.ok_or_else(lost)?;
        let address = found.addresses.get(&spec.network).copied().ok_or_else(lost)?;
        let running = Running { host, name, store, container: found.id, address, folder: &self.folder };
        let of_service = |mask: bool| {
            let inputs = self.head.inputs.iter().enumerate();
            inputs.filter(move |(_, one)| one.service == name && (one.format() == SeedFormat::Mask) == mask)
        };
        running.begin().await?;
        for (number, input) in of_service(false) {
            self.tell(&format!("feeding {} to {name}", input.name));
            running.feed(number, input.format(), &input.name).await?;
        }
        let mut masked = false;
        for (number, input) in of_service(true) {
            self.tell(&format!("masking {name} with {}", input.name));
            running.feed(number, SeedFormat::Mask, &input.name).await?;
            masked = true;
        }
        self.tell(&format!("sealing {name}"));
        running.finish(masked, canaries).await
    }

    /// Waits until everything is stopped.
    async fn rest(&self) -> Result<(), Failure> {
        let places = &self.setup.environments;
        let gone = || Failure::lasting("E_SEED_ENVIRONMENT", "the seed's environment is gone while it was being made");
        let mut seen: watch::Receiver<View> = places.watch(&self.environment).ok_or_else(gone)?;
        places.hold(self.wanted(true)).await?;
        seen.wait_for(|view| view.halted).await.map_err(|_| gone())?;
        Ok(())
    }

    async fn clean(&self) {
        let places = &self.setup.environments;
        if let Err(why) = (**places).drop(&self.environment).await {
            tracing::warn!(seed = %self.order.id, %why, "the seed's environment stays until the agent starts again");
        } else if let Some(mut view) = places.watch(&self.environment) {
            view.wait_for(|view| view.observed.state == EnvironmentState::Gone).await.ok();
        }
        if let Err(why) = Arc::clone(&self.setup.host.pool).remove(self.folder.clone()).await {
            tracing::warn!(seed = %self.order.id, %why, "the seed's inputs stay until the agent starts again");
        }
    }
}

/// Where images of this kind keep their data.
fn data_path(store: &Store) -> &'static str {
    let image = store.service.image.as_deref().unwrap_or_default();
    match store.kind {
        StoreKind::Postgres => "/var/lib/postgresql/data",
        StoreKind::Mysql => "/var/lib/mysql",
        StoreKind::Redis => "/data",
        StoreKind::Elasticsearch if image.contains("opensearch") => "/usr/share/opensearch/data",
        StoreKind::Elasticsearch => "/usr/share/elasticsearch/data",
    }
}

/// The stack's name of the volume with a store's data.
fn data_volume(name: &str, store: &Store) -> String {
    let path = data_path(store);
    let holds = |target: &str| path.starts_with(target.trim_end_matches('/'));
    for (index, mount) in store.service.mounts.iter().enumerate().filter(|(_, mount)| holds(&mount.target)) {
        match &mount.source {
            MountSource::Volume(volume) => return volume.clone(),
            MountSource::Anonymous => return format!("{name}.{index}"),
            MountSource::Folder(_) | MountSource::Tmpfs => {}
        }
    }
    format!("{name}.image{}", path.replace('/', "-"))
}

/// Unpacks a tar, compressed or not; what lies in its only top folder becomes the volume's content.
fn untar(from: &Path, to: &Path) -> io::Result<()> {
    use std::io::{Read as _, Seek as _};
    let mut file = std::fs::File::open(from)?;
    let mut magic = [0; 2];
    let packed = file.read(&mut magic)? == 2 && magic == [0x1f, 0x8b];
    file.rewind()?;
    let reader: Box<dyn io::Read> = if packed {
        Box::new(flate2::read::MultiGzDecoder::new(io::BufReader::new(file)))
    } else {
        Box::new(io::BufReader::new(file))
    };
    let mut archive = tar::Archive::new(reader);
    archive.set_preserve_permissions(true);
    archive.set_preserve_ownerships(true);
    archive.set_unpack_xattrs(true);
    // Names that lead out of the folder are left out by the library.
    archive.unpack(to)?;
    lift(to)
}

fn lift(folder: &Path) -> io::Result<()> {
    let entries: Vec<_> = std::fs::read_dir(folder)?.collect::<Result<_, _>>()?;
    let [only] = entries.as_slice() else { return Ok(()) };
    if !only.file_type()?.is_dir() {
        return Ok(());
    }
    let aside = folder.join(".muster-unpacked");
    std::fs::rename(only.path(), &aside)?;
    for entry in std::fs::read_dir(&aside)? {
        let entry = entry?;
        std::fs::rename(entry.path(), folder.join(entry.file_name()))?;
    }
    std::fs::remove_dir(aside)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(yaml: &str) -> Store {
        let head = v1::ImportSeedHead { stack_file: yaml.to_owned(), ..Default::default() };
        stack::stores(&head).expect("stores").remove("db").expect("one")
    }

    #[test]
    fn the_volume_of_a_stores_data_is_found() {
        let named =
            store("services: { db: { image: postgres, volumes: [\"d:/var/lib/postgresql/data\"] } }\nvolumes: { d: }");
        assert_eq!(data_volume("db", &named), "d");
        let parent =
            store("services: { db: { image: postgres, volumes: [\"d:/var/lib/postgresql\"] } }\nvolumes: { d: }");
        assert_eq!(data_volume("db", &parent), "d");
        let other = store("services: { db: { image: redis, volumes: [\"/elsewhere\", \"/data\"] } }");
        assert_eq!(data_volume("db", &other), "db.1");
        assert_eq!(data_volume("db", &store("services: { db: { image: redis } }")), "db.image-data");
    }

    #[test]
    fn a_tar_is_unpacked_without_its_top_folder() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir_all(folder.path().join("data/base")).expect("made");
        std::fs::write(folder.path().join("data/base/1"), "x").expect("written");
        let path = folder.path().join("data.tar");
        let mut tar = tar::Builder::new(std::fs::File::create(&path).expect("made"));
        tar.append_dir_all("data", folder.path().join("data")).expect("packed");
        tar.finish().expect("packed");
        drop(tar);
        let to = folder.path().join("volume");
        std::fs::create_dir(&to).expect("made");
        untar(&path, &to).expect("unpacked");
        assert_eq!(std::fs::read_to_string(to.join("base/1")).expect("read"), "x");
    }
}
