//! Adopt-or-create: names are deterministic, so after a crash or a lost answer the same call finds what it made.

use super::{ContainerSpec, Engine, Error, Labels, NetworkSpec, Result, Run, VolumeSpec};
use crate::subnets::{Block, Subnets, routes};

/// A container that is there now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ensured {
    /// The engine's id.
    pub id: String,
    /// What it does.
    pub run: Run,
}

/// Makes the container of `spec`, or finds it. One of ours with the same name from another spec is replaced.
///
/// # Errors
/// [`Error::NameTaken`] for a foreign container of that name; otherwise as the engine says.
pub async fn container(engine: &dyn Engine, spec: &ContainerSpec) -> Result<Ensured> {
    for _ in 0..3 {
        match engine.create(spec).await {
            Ok(id) => return Ok(Ensured { id, run: Run::Created }),
            Err(Error::NameInUse(_)) => {}
            Err(other) => return Err(other),
        }
        // Gone in between: try again.
        let Some(found) = engine.inspect(&spec.name).await? else { continue };
        match found.labels {
            Some(labels) if labels == spec.labels() => return Ok(Ensured { id: found.id, run: found.run }),
            Some(labels) if labels.host == spec.host => engine.remove(&found.id).await?,
            _ => return Err(Error::NameTaken { kind: "container", name: spec.name.clone() }),
        }
    }
    Err(Error::Refused(format!("container {} keeps appearing and disappearing", spec.name)))
}

/// What a network is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network<'a> {
    /// Its name.
    pub name: &'a str,
    /// Whose it is.
    pub labels: Labels,
    /// Without a way out.
    pub internal: bool,
    /// Name of the bridge; none: the engine chooses one.
    pub bridge: Option<String>,
    /// It has addresses for so many containers at least.
    pub containers: usize,
}

/// Makes a network with addresses that nothing on this host uses, or finds it.
///
/// # Errors
/// [`Error::NameTaken`] for a foreign network of that name; [`Error::Refused`] when no addresses are left.
pub async fn network(engine: &dyn Engine, wanted: &Network<'_>, subnets: Subnets) -> Result<()> {
    if found_network(engine, wanted).await? {
        return Ok(());
    }
    let mut taken: Vec<Block> = engine.subnets().await?.iter().filter_map(|text| text.parse().ok()).collect();
    taken.extend(routes(&std::fs::read_to_string("/proc/net/route").unwrap_or_default()));
    let mut last = Error::Refused("no free addresses are left in `subnets`".to_owned());
    // Another agent may take the block at the same instant; the engine then refuses and the next one is tried.
    for block in subnets.free(wanted.name, wanted.containers, &taken).take(16) {
        let spec = NetworkSpec {
            name: wanted.name.to_owned(),
            labels: wanted.labels.clone(),
            internal: wanted.internal,
            subnet: block.to_string(),
            bridge: wanted.bridge.clone(),
        };
        match engine.create_network(&spec).await {
            Ok(()) => return Ok(()),
            Err(Error::NameInUse(_)) if found_network(engine, wanted).await? => return Ok(()),
            Err(why @ Error::Refused(_)) => last = why,
            Err(other) => return Err(other),
        }
    }
    Err(last)
}

async fn found_network(engine: &dyn Engine, wanted: &Network<'_>) -> Result<bool> {
    match engine.network(wanted.name).await? {
        None => Ok(false),
        Some(Some(labels)) if labels.host == wanted.labels.host && labels.slot == wanted.labels.slot => Ok(true),
        Some(_) => Err(Error::NameTaken { kind: "network", name: wanted.name.to_owned() }),
    }
}

/// Makes a volume, or finds it.
///
/// # Errors
/// [`Error::NameTaken`] for a foreign volume of that name.
pub async fn volume(engine: &dyn Engine, spec: &VolumeSpec) -> Result<()> {
    match engine.volume(&spec.name).await? {
        None => engine.create_volume(spec).await,
        Some(Some(labels)) if labels.host == spec.labels.host => Ok(()),
        Some(_) => Err(Error::NameTaken { kind: "volume", name: spec.name.clone() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::fake::{Fake, Fault, Op};

    fn spec(host: &str) -> ContainerSpec {
        ContainerSpec {
            name: "muster-web".to_owned(),
            host: host.to_owned(),
            image: "app:1".to_owned(),
            ..ContainerSpec::default()
        }
    }

    #[tokio::test]
    async fn a_create_whose_answer_was_lost_is_adopted() {
        let fake = Fake::new();
        fake.fail(Op::Create, Fault::AnswerLost);
        assert!(matches!(container(&fake, &spec("a")).await, Err(Error::Away(_))));
        container(&fake, &spec("a")).await.expect("adopted");
        assert_eq!(fake.names(), ["muster-web"]);
    }

    #[tokio::test]
    async fn another_spec_of_ours_is_replaced_and_a_foreign_container_is_never_touched() {
        let fake = Fake::new();
        let first = container(&fake, &spec("a")).await.expect("made");
        let mut other = spec("a");
        other.image = "app:2".to_owned();
        let second = container(&fake, &other).await.expect("replaced");
        assert_ne!(first.id, second.id);
        let taken = container(&fake, &spec("b")).await;
        assert_eq!(taken, Err(Error::NameTaken { kind: "container", name: "muster-web".to_owned() }));
        assert_eq!(fake.ids(), [second.id]);
    }

    #[tokio::test]
    async fn networks_of_two_agents_get_different_addresses() {
        let fake = Fake::new();
        let subnets: Subnets = "198.18.0.0/22".parse().expect("a block");
        for name in ["n1", "n2", "n3", "n4"] {
            let labels =
                Labels { host: "h".to_owned(), slot: name.to_owned(), part: String::new(), spec: String::new() };
            let wanted = Network { name, labels, internal: true, bridge: None, containers: 253 };
            network(&fake, &wanted, subnets).await.expect("made");
            network(&fake, &wanted, subnets).await.expect("found");
        }
        let mut blocks = fake.subnets().await.expect("listed");
        blocks.sort();
        blocks.dedup();
        assert_eq!(blocks.len(), 4);
    }
}
