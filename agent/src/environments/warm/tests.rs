use std::path::Path;
use std::sync::Arc;

use super::super::tests::{behave, order, starts};
use super::super::{View, data};
use super::*;
use crate::engine::fake::Fake;
use crate::freezer::Memory;
use crate::host::tests::at;
use crate::routes::Table;
use crate::seeds::sealed::{Part, Sealed, volume};

const ROOM: Room = Room { enough: true, short: false };

/// An agent with a seed, and what its environments are made of.
struct Rig {
    fake: Arc<Fake>,
    routes: Arc<Table>,
    freezer: Arc<Memory>,
    folder: tempfile::TempDir,
    host: Arc<Host>,
    environments: Environments,
    seed: String,
}

async fn begin(
    fake: &Arc<Fake>,
    routes: &Arc<Table>,
    freezer: &Arc<Memory>,
    folder: &Path,
) -> (Arc<Host>, Environments) {
    let host = at(Arc::clone(fake), routes.clone(), folder, Path::new("/nowhere"), "h1").await;
    let mut host = Arc::try_unwrap(host).expect("nobody else has it");
    host.freezer = freezer.clone();
    let host = Arc::new(host);
    let environments = Environments::new(Arc::clone(&host));
    environments.load().await.expect("loaded");
    (host, environments)
}

impl Rig {
    async fn new() -> Self {
        let fake = Arc::new(Fake::new());
        behave(&fake);
        let (routes, freezer) = (Arc::new(Table::default()), Arc::new(Memory::default()));
        let folder = tempfile::tempdir().expect("a folder");
        let (host, environments) = begin(&fake, &routes, &freezer, folder.path()).await;
        let sealed = Sealed::new(vec![Part::unknown("data".to_owned())], BTreeMap::new(), false);
        let seed = host.pool.seed(&sealed.digest);
        std::fs::create_dir_all(volume(&seed, "data")).expect("made");
        std::fs::write(volume(&seed, "data").join("rows"), "1 2 3").expect("written");
        sealed.write(&seed).expect("written");
        Self { fake, routes, freezer, folder, host, environments, seed: format!("seed:{}", sealed.digest) }
    }

    /// Another start of the agent; `lost`: without what it remembered.
    async fn again(self, lost: bool) -> Self {
        let Self { fake, routes, freezer, folder, host, environments, seed } = self;
        drop(environments);
        host.state.close().await;
        drop(host);
        if lost {
            for entry in std::fs::read_dir(folder.path()).expect("listed").flatten() {
                if entry.file_name().to_string_lossy().starts_with("state.db") {
                    std::fs::remove_file(entry.path()).expect("removed");
                }
            }
        }
        let (host, environments) = begin(&fake, &routes, &freezer, folder.path()).await;
        assert!(!lost || environments.ids().is_empty(), "it remembers {:?}", environments.ids());
        Self { fake, routes, freezer, folder, host, environments, seed }
    }

    fn order(&self, id: &str) -> v1::EnvironmentOrder {
        let (data_from, owner) = (self.seed.clone(), "asha".to_owned());
        v1::EnvironmentOrder { id: id.to_owned(), data_from, owner, ..order(1) }
    }

    async fn look(&self) {
        self.environments.warm_up(crate::clock::now(), ROOM).await.expect("looked after");
    }

    async fn until(&self, id: &str, state: EnvironmentState) -> View {
        let mut view = self.environments.watch(id).expect("known");
        let reached = view.wait_for(|view| view.observed.state == state);
        tokio::time::timeout(Duration::from_secs(20), reached).await.expect("in time").expect("not ended").clone()
    }

    /// Somebody asks for an environment; a slot of the same is made. Answers the slot.
    async fn warmed(&self) -> String {
        let first = "0189abcd-0000-7000-8000-0000000000f1";
        self.environments.order(self.order(first)).await;
        self.until(first, EnvironmentState::Ready).await;
        self.look().await;
        let slot = self.environments.slots().remove(0).id;
        self.until(&slot, EnvironmentState::Frozen).await;
        self.look().await;
        slot
    }

    fn offered(&self) -> Vec<String> {
        let offered = self.host.warm.offered.lock().expect("not poisoned");
        offered.slots.iter().map(|slot| slot.id.clone()).collect()
    }

    fn of(&self, id: &str) -> Vec<String> {
        let short = &id[id.len() - 12..];
        self.fake.names().into_iter().filter(|name| name.contains(short)).collect()
    }
}

#[tokio::test]
async fn a_slot_is_handed_out_as_it_stands() {
    let rig = Rig::new().await;
    let slot = rig.warmed().await;
    assert_eq!(rig.offered(), std::slice::from_ref(&slot));
    let told = rig.host.warm.offered.lock().expect("not poisoned").stacks.clone();
    assert_eq!((told[0].ready, told[0].making, told[0].wanted, told.len()), (1, 0, 1, 1));
    assert_eq!(rig.freezer.all().len(), 2, "postgres and web");
    rig.look().await;
    assert_eq!(rig.environments.slots().len(), 1, "as many as the policy says");
    let before = data::Manifest::read(&rig.host.pool, &slot).expect("readable").expect("written");
    let (started, made) = (starts(&rig.fake), rig.of(&slot));

    rig.environments.order(rig.order(&slot)).await;
    let view = rig.until(&slot, EnvironmentState::Ready).await;
    assert_eq!((starts(&rig.fake), rig.of(&slot)), (started, made));
    assert!(rig.freezer.all().is_empty());
    let after = data::Manifest::read(&rig.host.pool, &slot).expect("readable").expect("written");
    assert_eq!((after.run.as_str(), after.owner.as_str(), after.name.as_str()), ("", "asha", "bot"));
    assert_eq!((&after.ports, &after.credentials), (&before.ports, &before.credentials));
    assert_eq!(before.run, format!("{MARK}{}", after.slot));
    let password = &view.observed.services[1].variables["POSTGRES_PASSWORD"];
    assert!(before.credentials.values().any(|one| one == password));
    assert!(after.data.contains("warm pool"), "{}", after.data);

    // It is no slot any more; another one takes its place.
    rig.look().await;
    assert!(rig.offered().is_empty());
    let slots = rig.environments.slots();
    assert!(slots.len() == 1 && slots[0].id != slot, "{slots:?}");
    assert_eq!(rig.environments.applied().len(), 2);
}

#[tokio::test]
async fn an_agent_that_lost_its_state_sweeps_no_slot_that_was_handed_out() {
    let rig = Rig::new().await;
    let slot = rig.warmed().await;
    rig.environments.order(rig.order(&slot)).await;
    rig.until(&slot, EnvironmentState::Ready).await;
    let (made, started) = (rig.of(&slot), starts(&rig.fake));
    let rig = rig.again(true).await;
    let steps = crate::steps::Steps::new(Arc::clone(&rig.host), 1, tokio::sync::watch::channel(None).1);
    crate::reconcile::sweep(&rig.host, &rig.environments, &steps).await.expect("swept");
    rig.look().await;
    assert_eq!(rig.of(&slot), made);
    rig.environments.welcomed(std::slice::from_ref(&slot), &[]).await;
    rig.environments.order(rig.order(&slot)).await;
    rig.until(&slot, EnvironmentState::Ready).await;
    assert_eq!((rig.of(&slot), starts(&rig.fake)), (made, started));
}

#[tokio::test]
async fn a_slot_whose_order_did_not_arrive_before_the_state_was_lost_is_kept_for_it() {
    let rig = Rig::new().await;
    let slot = rig.warmed().await;
    let (made, started) = (rig.of(&slot), starts(&rig.fake));
    let rig = rig.again(true).await;
    rig.environments.welcomed(std::slice::from_ref(&slot), &[]).await;
    rig.environments.order(rig.order(&slot)).await;
    rig.until(&slot, EnvironmentState::Ready).await;
    assert_eq!((rig.of(&slot), starts(&rig.fake)), (made, started));
    assert!(rig.freezer.all().is_empty(), "what was found frozen is thawed");
    let manifest = data::Manifest::read(&rig.host.pool, &slot).expect("readable").expect("written");
    assert!(manifest.run.is_empty() && !manifest.slot.is_empty());
}

#[tokio::test]
async fn a_forgotten_slot_that_nobody_has_goes_once_the_coordinator_said_so() {
    let rig = Rig::new().await;
    let slot = rig.warmed().await;
    let rig = rig.again(true).await;
    assert!(!rig.of(&slot).is_empty());
    rig.environments.welcomed(&[], &[]).await;
    let gone = async {
        while !rig.of(&slot).is_empty() || rig.host.pool.environment(&slot).exists() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), gone).await.expect("in time");
}

#[tokio::test]
async fn another_start_of_the_agent_keeps_its_slots_frozen_and_offers_them() {
    let rig = Rig::new().await;
    let slot = rig.warmed().await;
    let rig = rig.again(false).await;
    rig.environments.welcomed(&["0189abcd-0000-7000-8000-0000000000f1".to_owned()], &[]).await;
    rig.until(&slot, EnvironmentState::Frozen).await;
    rig.look().await;
    assert_eq!(rig.offered(), std::slice::from_ref(&slot));
    rig.environments.order(rig.order(&slot)).await;
    rig.until(&slot, EnvironmentState::Ready).await;
}

#[tokio::test]
async fn a_slot_of_something_else_is_made_anew() {
    let rig = Rig::new().await;
    let slot = rig.warmed().await;
    let mut other = rig.order(&slot);
    other.variables.insert("PG".to_owned(), "y".to_owned());
    rig.environments.order(other).await;
    rig.until(&slot, EnvironmentState::Ready).await;
    let manifest = data::Manifest::read(&rig.host.pool, &slot).expect("readable").expect("written");
    assert!(manifest.slot.is_empty() && !manifest.data.contains("warm"), "{}", manifest.data);
    assert_eq!(rig.fake.starts(&format!("muster-{}-postgres", &slot[24..])), 1, "the slot's own is gone");
}

#[tokio::test]
async fn slots_go_with_their_seed_and_when_the_host_needs_the_room() {
    let rig = Rig::new().await;
    let slot = rig.warmed().await;
    let short = Room { enough: false, short: true };
    rig.environments.warm_up(crate::clock::now(), short).await.expect("looked after");
    assert!(rig.environments.slots().is_empty() && rig.offered().is_empty());
    // A slot that was handed out at this very moment is made anew.
    rig.environments.order(rig.order(&slot)).await;
    rig.until(&slot, EnvironmentState::Ready).await;
    rig.look().await;
    assert_eq!(rig.environments.slots().len(), 1);
    std::fs::remove_dir_all(rig.host.pool.layout().seeds()).expect("removed");
    rig.look().await;
    assert!(rig.environments.slots().is_empty());
}

#[test]
fn what_needs_a_developers_folder_waits_for_the_developer() {
    let read = |text: &str| {
        let (variables, files) = (BTreeMap::new(), |_: &str| None);
        let input = manifest::stack::Input { file: "c", text, variables: &variables, files: &files };
        manifest::stack::read(input).expect("a good stack").stack
    };
    let stack = read(
        "services:\n  db: { image: postgres }\n  cache: { image: redis }\n  web: { image: web, volumes: [\"./src:/app\"] }\n  \
         proxy: { image: nginx, depends_on: [web] }\n  worker: { build: ., depends_on: [db] }\n  report: { image: x, depends_on: [db] }\n",
    );
    assert_eq!(before_all(&stack).into_iter().collect::<Vec<_>>(), ["cache", "db", "report"]);
}
