//! Docker Engine over its Unix socket.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::stream::BoxStream;
use tokio::sync::OnceCell;

use super::{
    About, Attached, BuildSpec, ByteStream, Cgroups, Container, ContainerSpec, Engine, Error, Event, ExecSpec,
    ExecState, Executed, FoundVolume, Image, Labels, Listed, LogPiece, LogQuery, NetworkSpec, Result, VolumeSpec,
};

use crate::failpoints::effect;

mod containers;
mod images;
mod logs;
mod objects;
mod orphans;
mod streams;

/// Longest time one call may take until its answer begins. Stopping a container adds its grace.
const TIMEOUT: u64 = 120;

/// Docker Engine. Connects at the first call, and agrees on a protocol version then.
#[derive(Debug)]
pub struct Docker {
    socket: PathBuf,
    client: OnceCell<bollard::Docker>,
    /// The engine's version, and when it told it.
    version: Mutex<Option<(Instant, String)>>,
}

/// So long a version is believed: an engine starts programs each time it tells it.
const BELIEVED: Duration = Duration::from_secs(600);

impl Docker {
    /// The engine behind a Unix socket; it need not answer yet.
    #[must_use]
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned(), client: OnceCell::new(), version: Mutex::default() }
    }

    async fn client(&self) -> Result<&bollard::Docker> {
        self.client
            .get_or_try_init(|| async {
                let path = self.socket.to_string_lossy();
                let client = bollard::Docker::connect_with_unix(&path, TIMEOUT, bollard::API_DEFAULT_VERSION)
                    .map_err(|why| failed(&path, why))?;
                // Distributions ship clients newer than engines and the other way round.
                client.negotiate_version().await.map_err(|why| failed(&path, why))
            })
            .await
    }
}

/// What an error of the client means; `what` names the object.
fn failed(what: &str, why: bollard::errors::Error) -> Error {
    use bollard::errors::Error as B;
    match why {
        B::DockerResponseServerError { status_code: 404, message } if message.contains("No such") => {
            Error::NotFound(what.to_owned())
        }
        B::DockerResponseServerError { status_code: 409, message } if message.contains("already in use") => {
            Error::NameInUse(what.to_owned())
        }
        B::DockerResponseServerError { message, .. } | B::DockerStreamError { error: message } => {
            Error::Refused(message.chars().take(1000).collect())
        }
        B::JsonDataError { message, .. } => Error::Refused(format!("unreadable answer: {message}")),
        other => Error::Away(cause(&other)),
    }
}

/// The innermost error: what the layers around it say is where it passed, which helps nobody.
fn cause(why: &dyn std::error::Error) -> String {
    why.source().map_or_else(|| why.to_string(), cause)
}

/// A missing object is what was wanted.
fn missing_is_fine(result: Result<()>) -> Result<()> {
    match result {
        Err(Error::NotFound(_)) => Ok(()),
        other => other,
    }
}

#[async_trait]
impl Engine for Docker {
    async fn about(&self) -> Result<About> {
        let client = self.client().await?;
        let api = client.client_version().to_string();
        let known = || self.version.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(why) = client.ping().await {
            // Another one may answer next.
            known().take();
            return Err(failed("ping", why));
        }
        if let Some((told, version)) = known().clone()
            && told.elapsed() < BELIEVED
        {
            return Ok(About { version, api });
        }
        let version = client.version().await.map_err(|why| failed("version", why))?.version.unwrap_or_default();
        known().replace((Instant::now(), version.clone()));
        Ok(About { version, api })
    }

    async fn cgroups(&self) -> Result<Cgroups> {
        let told = self.client().await?.info().await.map_err(|why| failed("info", why))?;
        Ok(Cgroups {
            driver: told.cgroup_driver.map(|driver| driver.to_string()).unwrap_or_default(),
            version: told.cgroup_version.map(|version| version.to_string()).unwrap_or_default(),
        })
    }

    async fn image(&self, reference: &str) -> Result<Option<Image>> {
        images::inspect(self.client().await?, reference).await
    }

    async fn images(&self) -> Result<Vec<Image>> {
        images::list(self.client().await?).await
    }

    async fn pull(&self, reference: &str) -> Result<()> {
        images::pull(self.client().await?, reference).await
    }

    async fn load(&self, archive: ByteStream) -> Result<()> {
        images::load(self.client().await?, archive).await
    }

    async fn build(&self, spec: &BuildSpec, context: ByteStream) -> Result<()> {
        images::build(self.client().await?, spec, context).await
    }

    async fn untag(&self, reference: &str) -> Result<()> {
        images::untag(self.client().await?, reference).await
    }

    async fn create_network(&self, spec: &NetworkSpec) -> Result<()> {
        effect("network.create");
        objects::create_network(self.client().await?, spec).await
    }

    async fn network(&self, name: &str) -> Result<Option<Option<Labels>>> {
        objects::network(self.client().await?, name).await
    }

    async fn subnets(&self) -> Result<Vec<String>> {
        objects::subnets(self.client().await?).await
    }

    async fn networks(&self, host: &str) -> Result<Vec<(String, Labels)>> {
        objects::networks(self.client().await?, host).await
    }

    async fn remove_network(&self, name: &str) -> Result<()> {
        effect("network.remove");
        objects::remove_network(self.client().await?, name).await
    }

    async fn create_volume(&self, spec: &VolumeSpec) -> Result<()> {
        effect("volume.create");
        objects::create_volume(self.client().await?, spec).await
    }

    async fn volume(&self, name: &str) -> Result<Option<FoundVolume>> {
        objects::volume(self.client().await?, name).await
    }

    async fn volumes(&self, host: &str) -> Result<Vec<(String, Labels)>> {
        objects::volumes(self.client().await?, host).await
    }

    async fn remove_volume(&self, name: &str) -> Result<()> {
        effect("volume.remove");
        objects::remove_volume(self.client().await?, name).await
    }

    async fn create(&self, spec: &ContainerSpec) -> Result<String> {
        effect("container.create");
        containers::create(self.client().await?, spec).await
    }

    async fn connect(&self, id: &str, network: &str) -> Result<()> {
        effect("container.connect");
        objects::connect(self.client().await?, id, network).await
    }

    async fn start(&self, id: &str) -> Result<()> {
        effect("container.start");
        orphans::start(self.client().await?, id).await
    }

    async fn stop(&self, id: &str, grace: Duration) -> Result<()> {
        effect("container.stop");
        containers::stop(self.client().await?, id, grace).await
    }

    async fn remove(&self, id: &str) -> Result<()> {
        effect("container.remove");
        containers::remove(self.client().await?, id).await?;
        orphans::removed(id).await;
        Ok(())
    }

    async fn inspect(&self, name: &str) -> Result<Option<Container>> {
        containers::inspect(self.client().await?, name).await
    }

    async fn containers(&self, host: &str) -> Result<Vec<Listed>> {
        containers::list(self.client().await?, host).await
    }

    async fn logs(&self, id: &str, query: LogQuery) -> Result<BoxStream<'static, Result<LogPiece>>> {
        logs::logs(self.client().await?, id, query).await
    }

    async fn exec(&self, id: &str, argv: &[String], timeout: Duration) -> Result<Executed> {
        effect("container.exec");
        streams::exec(self.client().await?, id, argv, timeout).await
    }

    async fn attach(&self, id: &str, spec: &ExecSpec) -> Result<Attached> {
        streams::attach(self.client().await?, id, spec).await
    }

    async fn resize(&self, exec: &str, columns: u16, rows: u16) -> Result<()> {
        streams::resize(self.client().await?, exec, columns, rows).await
    }

    async fn executed(&self, exec: &str) -> Result<ExecState> {
        streams::executed(self.client().await?, exec).await
    }

    async fn events(&self, host: &str) -> Result<BoxStream<'static, Event>> {
        streams::events(self.client().await?, host).await
    }
}
