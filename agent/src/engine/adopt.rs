//! Adopt-or-create: names are deterministic, so after a crash or a lost answer the same call finds what it made.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{ContainerSpec, Engine, Error, FoundVolume, Labels, NetworkSpec, Result, Run, VolumeSpec};
use crate::subnets::{Block, Subnets, routes};

/// An engine takes a name first and shows the object when it is made, which is seconds on a busy host; whoever asked
/// for it may have been killed meanwhile. So long a name may be taken by something that is not shown.
const MAKING: Duration = Duration::from_secs(20);
/// Between two looks at it.
const LOOK: Duration = Duration::from_millis(20);

/// A container that is there now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ensured {
    /// The engine's id.
    pub id: String,
    /// What it does.
    pub run: Run,
    /// It was made by this call.
    pub fresh: bool,
}

/// Makes the container of `spec`, or finds it. One of ours with the same name from another spec is replaced.
///
/// # Errors
/// [`Error::NameTaken`] for a foreign container of that name; otherwise as the engine says.
pub async fn container(engine: &dyn Engine, spec: &ContainerSpec) -> Result<Ensured> {
    let end = Instant::now() + MAKING;
    while Instant::now() < end {
        match engine.create(spec).await {
            Ok(id) => return Ok(Ensured { id, run: Run::Created, fresh: true }),
            Err(Error::NameInUse(_)) => {}
            Err(other) => return Err(other),
        }
        // None: gone in between, or still being made. One of ours may be on its way out for a while.
        if let Some(found) = engine.inspect(&spec.name).await? {
            match found.labels {
                Some(labels) if labels == spec.labels() => {
                    return Ok(Ensured { id: found.id, run: found.run, fresh: false });
                }
                Some(labels) if labels.host == spec.host => engine.remove(&found.id).await?,
                _ => return Err(Error::NameTaken { kind: "container", name: spec.name.clone() }),
            }
        }
        sleep(LOOK).await;
    }
    Err(still_taken("container", &spec.name))
}

/// Makes the container of `spec`, or finds it, where its network may be missing: somebody removed it (`docker network
/// prune` takes what no running container is on). `ground` makes it then.
///
/// # Errors
/// See [`container`].
pub async fn grounded(
    engine: &dyn Engine,
    spec: &ContainerSpec,
    ground: impl Future<Output = Result<()>> + Send,
) -> Result<Ensured> {
    match container(engine, spec).await {
        Err(Error::NotFound(_) | Error::Refused(_)) => {
            ground.await?;
            container(engine, spec).await
        }
        other => other,
    }
}

/// Puts a container that does not run on more networks and starts it. One from before that the engine refuses to start (it
/// remembers a network that was removed, or a killed engine left something in its way) is made anew: what is to last lies
/// in its mounts. While one of `networks` is missing that `ground` does not make it stays, and with it its log. A new one
/// whose network the engine does not find is made once more: 20.10 overlooks one that it just made, seldom and under load.
///
/// # Errors
/// As the engine says, of the new one.
pub async fn started(
    engine: &dyn Engine,
    spec: &ContainerSpec,
    networks: &[String],
    made: Ensured,
    ground: impl Future<Output = Result<()>> + Send,
) -> Result<Ensured> {
    match start(engine, networks, &made.id).await {
        Err(why @ (Error::Refused(_) | Error::NotFound(_))) if !made.fresh || misses_a_network(&why) => {
            tracing::warn!(container = spec.name, %why, "the engine does not start it; it is made anew");
            // Some engines make a container for a network that is not there.
            ground.await?;
            connected(engine, networks, &made.id).await?;
            engine.remove(&made.id).await?;
            let anew = container(engine, spec).await?;
            start(engine, networks, &anew.id).await?;
            Ok(anew)
        }
        other => other.map(|()| made),
    }
}

fn misses_a_network(why: &Error) -> bool {
    matches!(why, Error::Refused(text) if text.starts_with("network ") && text.ends_with(" not found"))
}

async fn start(engine: &dyn Engine, networks: &[String], id: &str) -> Result<()> {
    connected(engine, networks, id).await?;
    engine.start(id).await
}

async fn connected(engine: &dyn Engine, networks: &[String], id: &str) -> Result<()> {
    for network in networks {
        engine.connect(id, network).await?;
    }
    Ok(())
}

fn still_taken(kind: &str, name: &str) -> Error {
    let seconds = MAKING.as_secs();
    Error::Refused(format!(
        "the engine neither shows what bears the name of {kind} {name} nor frees it for {seconds} s"
    ))
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
    /// Name of the bridge, up to 15 characters. Engines before API 1.44 make a second network of a name, but no second bridge.
    pub bridge: String,
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
            Err(Error::NameInUse(_)) => return shown_network(engine, wanted).await,
            Err(why @ Error::Refused(_)) => last = why,
            Err(other) => return Err(other),
        }
    }
    Err(last)
}

/// Waits until the network is there whose name is taken.
async fn shown_network(engine: &dyn Engine, wanted: &Network<'_>) -> Result<()> {
    let end = Instant::now() + MAKING;
    while !found_network(engine, wanted).await? {
        if Instant::now() >= end {
            return Err(still_taken("network", wanted.name));
        }
        sleep(LOOK).await;
    }
    Ok(())
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
        Some(FoundVolume::Labelled(labels)) if labels.host == spec.labels.host => Ok(()),
        Some(FoundVolume::Unfinished) => {
            engine.remove_volume(&spec.name).await?;
            engine.create_volume(spec).await
        }
        Some(_) => Err(Error::NameTaken { kind: "volume", name: spec.name.clone() }),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

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

    fn wanted(name: &str) -> Network<'_> {
        let labels = Labels { host: "h".to_owned(), slot: name.to_owned(), part: String::new(), spec: String::new() };
        Network { name, labels, internal: true, bridge: format!("br-{name}"), containers: 253 }
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
    async fn a_volume_that_a_killed_engine_left_unfinished_is_made_anew() {
        let fake = Fake::new();
        let labels = Labels { host: "h".to_owned(), slot: "e".to_owned(), part: String::new(), spec: String::new() };
        let spec = VolumeSpec { name: "muster-e-data".to_owned(), labels, folder: "/pool/data".into() };
        fake.leave_volume(&spec.name);
        volume(&fake, &spec).await.expect("made anew");
        assert_eq!(fake.volume(&spec.name).await.expect("looked"), Some(FoundVolume::Labelled(spec.labels.clone())));
        volume(&fake, &spec).await.expect("found");
        let other = VolumeSpec { labels: Labels { host: "other".to_owned(), ..spec.labels.clone() }, ..spec };
        assert!(matches!(volume(&fake, &other).await, Err(Error::NameTaken { kind: "volume", .. })));
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_engine_still_makes_for_a_killed_agent_is_waited_for() {
        let fake = Fake::new();
        let first = container(&fake, &spec("a")).await.expect("made");
        fake.hide("muster-web", 30);
        assert_eq!(container(&fake, &spec("a")).await, Ok(Ensured { fresh: false, ..first }));

        let wanted = wanted("n1");
        let subnets: Subnets = "198.18.0.0/22".parse().expect("a block");
        network(&fake, &wanted, subnets).await.expect("made");
        fake.hide("n1", 30);
        network(&fake, &wanted, subnets).await.expect("found");
        assert_eq!(fake.subnets().await.map(|all| all.len()), Ok(1));
    }

    #[tokio::test]
    async fn one_from_before_that_the_engine_refuses_to_start_is_made_anew_and_a_new_one_is_not() {
        let fake = Fake::new();
        let grounds = std::sync::atomic::AtomicU32::new(0);
        let start = async |made| {
            let ground = async {
                grounds.fetch_add(1, Relaxed);
                Ok(())
            };
            started(&fake, &spec("a"), &[], made, ground).await
        };
        let refused = || fake.fail(Op::Start, Fault::Refused("task abc1: already exists".to_owned()));
        let first = container(&fake, &spec("a")).await.expect("made");
        refused();
        assert!(matches!(start(first.clone()).await, Err(Error::Refused(_))));
        let found = container(&fake, &spec("a")).await.expect("found");
        assert_eq!(found.id, first.id);
        refused();
        let second = start(found).await.expect("made anew");
        assert_ne!(second.id, first.id);
        assert_eq!((fake.ids(), fake.running()), (vec![second.id], vec!["muster-web".to_owned()]));
        assert_eq!(grounds.into_inner(), 1, "its network is there by then");
    }

    #[tokio::test]
    async fn a_new_one_whose_network_the_engine_overlooks_is_made_once_more() {
        let fake = Fake::new();
        let start = async |made| started(&fake, &spec("a"), &[], made, async { Ok(()) }).await;
        let overlooked = || fake.fail(Op::Start, Fault::Refused("network n1 not found".to_owned()));
        let first = container(&fake, &spec("a")).await.expect("made");
        overlooked();
        let second = start(first.clone()).await.expect("made once more");
        assert_ne!(second.id, first.id);
        assert_eq!((fake.ids(), fake.running()), (vec![second.id.clone()], vec!["muster-web".to_owned()]));
        fake.remove(&second.id).await.expect("removed");

        let third = container(&fake, &spec("a")).await.expect("made");
        overlooked();
        overlooked();
        assert_eq!(start(third).await, Err(Error::Refused("network n1 not found".to_owned())), "it is missing");
    }

    #[tokio::test]
    async fn one_from_before_stays_while_a_network_of_somebody_else_is_missing() {
        let fake = Fake::new();
        let first = container(&fake, &spec("a")).await.expect("made");
        let start = async |made| started(&fake, &spec("a"), &["theirs".to_owned()], made, async { Ok(()) }).await;
        let found = container(&fake, &spec("a")).await.expect("found");
        assert_eq!(start(found.clone()).await, Err(Error::NotFound("theirs".to_owned())));
        assert_eq!(fake.ids(), [first.id.as_str()]);
        network(&fake, &wanted("theirs"), "198.18.0.0/22".parse().expect("a block")).await.expect("made");
        assert_eq!(start(found).await.map(|made| made.id), Ok(first.id));
    }

    #[tokio::test]
    async fn a_network_that_is_missing_is_made_before_its_container() {
        let fake = Fake::new();
        let asked = std::sync::atomic::AtomicBool::new(false);
        let ground = async {
            asked.store(true, Relaxed);
            Ok(())
        };
        fake.fail(Op::Create, Fault::Refused("network n1 not found".to_owned()));
        assert!(grounded(&fake, &spec("a"), ground).await.expect("made").fresh);
        assert!(asked.into_inner());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_still_taken_is_an_error_that_names_it() {
        let fake = Fake::new();
        container(&fake, &spec("a")).await.expect("made");
        fake.hide("muster-web", u32::MAX);
        let Err(Error::Refused(why)) = container(&fake, &spec("a")).await else { panic!("not refused") };
        assert!(why.contains("muster-web"), "{why}");
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
            let wanted = wanted(name);
            network(&fake, &wanted, subnets).await.expect("made");
            network(&fake, &wanted, subnets).await.expect("found");
        }
        let mut blocks = fake.subnets().await.expect("listed");
        blocks.sort();
        blocks.dedup();
        assert_eq!(blocks.len(), 4);
    }
}
