//! The calls.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;

use super::super::{
    About, Attached, BuildSpec, ByteStream, Cgroups, Container, ContainerSpec, Engine, Error, Event, ExecSpec,
    ExecState, Executed, FoundVolume, Image, Labels, Listed, LogPiece, LogQuery, MountSpec, NetworkSpec, Result, Run,
    VolumeSpec,
};
use super::{Fake, Op, lost, serve};

#[async_trait]
impl Engine for Fake {
    async fn about(&self) -> Result<About> {
        let gone = self.enter(Op::About).await?;
        lost(gone, About { version: "fake".to_owned(), api: "1.41".to_owned() })
    }

    async fn cgroups(&self) -> Result<Cgroups> {
        Ok(self.world().cgroups.clone())
    }

    async fn image(&self, reference: &str) -> Result<Option<Image>> {
        self.enter(Op::Look).await?;
        let world = self.world();
        if world.images.is_empty() {
            return Ok(Some(Image { id: format!("sha256:{reference}"), ..Image::default() }));
        }
        Ok(world.images.get(reference).or_else(|| world.images.values().find(|one| one.id == reference)).cloned())
    }

    async fn images(&self) -> Result<Vec<Image>> {
        self.enter(Op::Look).await?;
        Ok(self.world().images.values().cloned().collect())
    }

    async fn pull(&self, reference: &str) -> Result<()> {
        let gone = self.enter(Op::Image).await?;
        let mut world = self.world();
        world.calls.push(format!("pull {reference}"));
        world.images.insert(reference.to_owned(), Image { id: format!("sha256:{reference}"), ..Image::default() });
        lost(gone, ())
    }

    async fn load(&self, mut archive: ByteStream) -> Result<()> {
        let gone = self.enter(Op::Image).await?;
        let mut bytes = Vec::new();
        while let Some(piece) = archive.next().await {
            bytes.extend_from_slice(&piece.map_err(|why| Error::Refused(why.to_string()))?);
        }
        let (references, image) = serve::read_archive(&bytes).map_err(Error::Refused)?;
        let mut world = self.world();
        world.calls.push(format!("load {}", references.join(" ")));
        for reference in references {
            world.images.insert(reference, image.clone());
        }
        lost(gone, ())
    }

    async fn build(&self, spec: &BuildSpec, mut context: ByteStream) -> Result<()> {
        let gone = self.enter(Op::Image).await?;
        while let Some(piece) = context.next().await {
            piece.map_err(|why| Error::Refused(why.to_string()))?;
        }
        let mut world = self.world();
        world.calls.push(format!("build {}", spec.tag));
        world.images.insert(spec.tag.clone(), Image { id: format!("sha256:{}", spec.tag), ..Image::default() });
        lost(gone, ())
    }

    async fn untag(&self, reference: &str) -> Result<()> {
        self.enter(Op::Image).await?;
        self.world().images.remove(reference);
        Ok(())
    }

    async fn create_network(&self, spec: &NetworkSpec) -> Result<()> {
        let gone = self.enter(Op::Object).await?;
        let mut world = self.world();
        if world.networks.contains_key(&spec.name) {
            return Err(Error::NameInUse(spec.name.clone()));
        }
        if world.networks.values().any(|other| other.subnet == spec.subnet) {
            return Err(Error::Refused("Pool overlaps with other one on this address space".to_owned()));
        }
        world.calls.push(format!("network {}", spec.name));
        world.networks.insert(spec.name.clone(), spec.clone());
        lost(gone, ())
    }

    async fn network(&self, name: &str) -> Result<Option<Option<Labels>>> {
        self.enter(Op::Look).await?;
        let mut world = self.world();
        if world.hides(name) {
            return Ok(None);
        }
        Ok(world.networks.get(name).map(|spec| Some(spec.labels.clone())))
    }

    async fn subnets(&self) -> Result<Vec<String>> {
        self.enter(Op::Look).await?;
        Ok(self.world().networks.values().map(|spec| spec.subnet.clone()).collect())
    }

    async fn networks(&self, host: &str) -> Result<Vec<(String, Labels)>> {
        self.enter(Op::Look).await?;
        let world = self.world();
        let own = world.networks.values().filter(|spec| spec.labels.host == host);
        Ok(own.map(|spec| (spec.name.clone(), spec.labels.clone())).collect())
    }

    async fn remove_network(&self, name: &str) -> Result<()> {
        let gone = self.enter(Op::Remove).await?;
        self.world().networks.remove(name);
        lost(gone, ())
    }

    async fn create_volume(&self, spec: &VolumeSpec) -> Result<()> {
        let gone = self.enter(Op::Object).await?;
        let mut world = self.world();
        world.calls.push(format!("volume {}", spec.name));
        if !world.unfinished.contains(&spec.name) {
            world.volumes.entry(spec.name.clone()).or_insert_with(|| spec.clone());
        }
        lost(gone, ())
    }

    async fn volume(&self, name: &str) -> Result<Option<FoundVolume>> {
        self.enter(Op::Look).await?;
        let world = self.world();
        if world.unfinished.contains(name) {
            return Ok(Some(FoundVolume::Unfinished));
        }
        Ok(world.volumes.get(name).map(|spec| FoundVolume::Labelled(spec.labels.clone())))
    }

    async fn volumes(&self, host: &str) -> Result<Vec<(String, Labels)>> {
        self.enter(Op::Look).await?;
        let world = self.world();
        let own = world.volumes.values().filter(|spec| spec.labels.host == host);
        Ok(own.map(|spec| (spec.name.clone(), spec.labels.clone())).collect())
    }

    async fn remove_volume(&self, name: &str) -> Result<()> {
        let gone = self.enter(Op::Remove).await?;
        let mut world = self.world();
        world.volumes.remove(name);
        world.unfinished.remove(name);
        lost(gone, ())
    }

    async fn create(&self, spec: &ContainerSpec) -> Result<String> {
        let gone = self.enter(Op::Create).await?;
        let mut world = self.world();
        if world.find(&spec.name).is_some() {
            return Err(Error::NameInUse(spec.name.clone()));
        }
        world.calls.push(format!("create {}", spec.name));
        let id = world.add(spec.clone(), Some(spec.labels()));
        lost(gone, id)
    }

    async fn connect(&self, id: &str, network: &str) -> Result<()> {
        let world = self.world();
        world.find(id).ok_or_else(|| Error::NotFound(id.to_owned()))?;
        world.networks.contains_key(network).then_some(()).ok_or_else(|| Error::NotFound(network.to_owned()))
    }

    async fn start(&self, id: &str) -> Result<()> {
        let gone = self.enter(Op::Start).await?;
        let (name, address, behaviour) = {
            let mut world = self.world();
            let found = world.find(id).ok_or_else(|| Error::NotFound(id.to_owned()))?;
            let (key, name, image) = (found.id.clone(), found.spec.name.clone(), found.spec.image.clone());
            if found.run == Run::Running {
                return lost(gone, ());
            }
            let behaviour = world.behaviours.get(&image).cloned().unwrap_or_default();
            world.calls.push(format!("start {name}"));
            // An engine gives each start another address.
            let other = world.address();
            let Some(found) = world.boxes.get_mut(&key) else { return Err(Error::NotFound(key)) };
            found.run = Run::Running;
            found.starts += 1;
            if found.starts > 1 {
                found.address = other;
            }
            let (address, started) = (found.address, (found.spec.host.clone(), Event::Started(key.clone())));
            for line in &behaviour.says {
                world.say(&key, false, &format!("{line}\n"));
            }
            drop(world);
            self.tell(started);
            (name, address, behaviour)
        };
        let servers = serve::begin(address, &behaviour).await.map_err(|why| Error::Refused(why.to_string()))?;
        if let Some(found) = self.world().boxes.get_mut(id) {
            found.servers = servers;
        }
        if let Some(code) = behaviour.exits {
            self.exit(&name, code);
        }
        lost(gone, ())
    }

    async fn stop(&self, id: &str, _grace: Duration) -> Result<()> {
        let gone = self.enter(Op::Stop).await?;
        let running = {
            let mut world = self.world();
            let found = world.find(id).map(|one| (one.spec.name.clone(), one.run));
            if let Some((name, _)) = &found {
                world.calls.push(format!("stop {name}"));
            }
            found
        };
        if let Some((name, Run::Running)) = running {
            self.exit(&name, 143);
        }
        lost(gone, ())
    }

    async fn remove(&self, id: &str) -> Result<()> {
        let gone = self.enter(Op::Remove).await?;
        let removed = {
            let mut world = self.world();
            let key = world.find(id).map(|one| one.id.clone());
            let removed = key.and_then(|key| world.boxes.remove(&key));
            if let Some(one) = &removed {
                world.calls.push(format!("remove {}", one.spec.name));
            }
            removed
        };
        if let Some(one) = removed {
            self.tell((one.spec.host.clone(), Event::Ended(one.id.clone())));
        }
        lost(gone, ())
    }

    async fn inspect(&self, name: &str) -> Result<Option<Container>> {
        self.enter(Op::Look).await?;
        let mut world = self.world();
        if world.hides(name) {
            return Ok(None);
        }
        Ok(world.find(name).map(|one| Container {
            id: one.id.clone(),
            name: one.spec.name.clone(),
            labels: one.labels.clone(),
            run: one.run,
            pid: (one.run == Run::Running).then_some(1),
            addresses: one.addresses(),
            started_at: if one.starts == 0 { String::new() } else { format!("start {}", one.starts) },
            out_of_memory: false,
            bound: one.spec.mounts.iter().any(|mount| matches!(mount, MountSpec::Bind { .. })),
            image: one.spec.image_id.clone(),
        }))
    }

    async fn containers(&self, host: &str) -> Result<Vec<Listed>> {
        self.enter(Op::Look).await?;
        let world = self.world();
        let own = world.boxes.values().filter_map(|one| Some((one, one.labels.clone()?)));
        Ok(own
            .filter(|(_, labels)| labels.host == host)
            .map(|(one, labels)| Listed {
                id: one.id.clone(),
                name: one.spec.name.clone(),
                labels,
                running: one.run == Run::Running,
            })
            .collect())
    }

    async fn logs(&self, id: &str, query: LogQuery) -> Result<BoxStream<'static, Result<LogPiece>>> {
        self.enter(Op::Look).await?;
        self.read_log(id, query)
    }

    async fn exec(&self, id: &str, _argv: &[String], _timeout: Duration) -> Result<Executed> {
        self.enter(Op::Look).await?;
        let world = self.world();
        let found = world.find(id).ok_or_else(|| Error::NotFound(id.to_owned()))?;
        if found.run != Run::Running {
            return Err(Error::Refused(format!("container {id} is not running")));
        }
        let status = world.behaviours.get(&found.spec.image).map_or(0, |behaviour| behaviour.executes);
        Ok(Executed { status, output: String::new() })
    }

    /// Says its argument list, and ends as the image's behaviour says.
    async fn attach(&self, id: &str, spec: &ExecSpec) -> Result<Attached> {
        let done = self.exec(id, &spec.argv, Duration::ZERO).await?;
        let said = Bytes::from(format!("{}\n", spec.argv.join(" ")));
        let output = futures::stream::iter([Ok((false, said))]).boxed();
        Ok(Attached { exec: done.status.to_string(), input: Box::pin(tokio::io::sink()), output })
    }

    async fn resize(&self, _exec: &str, _columns: u16, _rows: u16) -> Result<()> {
        Ok(())
    }

    async fn executed(&self, exec: &str) -> Result<ExecState> {
        Ok(ExecState { status: exec.parse().ok(), pid: None })
    }

    async fn events(&self, host: &str) -> Result<BoxStream<'static, Event>> {
        if self.world().away {
            return Err(Error::Away("scripted".to_owned()));
        }
        let events = tokio_stream::wrappers::BroadcastStream::new(self.events.subscribe());
        *self.world().watching.entry(host.to_owned()).or_default() += 1;
        self.subscribed.notify_waiters();
        let host = host.to_owned();
        Ok(events
            .filter_map(move |event| {
                let own = event.ok().filter(|(of, _)| *of == host).map(|(_, event)| event);
                std::future::ready(own)
            })
            .boxed())
    }
}
