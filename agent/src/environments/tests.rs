use std::path::Path;
use std::time::Duration;

use domain::environment::ServiceState;

use super::*;
use crate::engine::fake::{Behaviour, Fake, Fault, Op};
use crate::engine::{Engine as _, Error as EngineError};
use crate::host::tests::{at, host};
use crate::routes::{Routes as _, Table};

pub(crate) const ID: &str = "0189abcd-0000-7000-8000-0123456789ab";
const SHORT: &str = "0123456789ab";
const STACK: &str = "
services:
  postgres:
    image: postgres:15
    environment: { POSTGRES_PASSWORD: \"${PG:-x}\" }
    volumes: [\"data:/var/lib/postgresql/data\"]
    ports: [\"5432:5432\"]
  migrate:
    image: migrate:1
    depends_on: { postgres: { condition: service_healthy } }
  web:
    image: web:1
    ports: [\"8000:8000\"]
    environment: { DATABASE_URL: \"postgres://postgres:${PG:-x}@postgres/x\" }
    depends_on: { migrate: { condition: service_completed_successfully } }
volumes: { data: }
";

pub(super) fn order(generation: u64) -> v1::EnvironmentOrder {
    order_of(STACK, generation)
}

/// An environment of this stack.
pub(crate) fn order_of(stack: &str, generation: u64) -> v1::EnvironmentOrder {
    v1::EnvironmentOrder {
        id: ID.to_owned(),
        generation,
        up: true,
        name: "bot".to_owned(),
        stack_file: stack.to_owned(),
        file: "compose.yaml".to_owned(),
        ..Default::default()
    }
}

pub(super) fn behave(fake: &Fake) {
    fake.behave("postgres:15", Behaviour { postgres: Some(5432), ..Behaviour::default() });
    fake.behave("migrate:1", Behaviour { exits: Some(0), ..Behaviour::default() });
}

pub(super) async fn until(environments: &Environments, reached: impl Fn(&View) -> bool) -> View {
    let mut view = environments.watch(ID).expect("known");
    let seen = view.clone();
    let waited = tokio::time::timeout(Duration::from_secs(20), view.wait_for(|view| reached(view))).await;
    match waited {
        Ok(view) => view.expect("not ended").clone(),
        Err(_) => panic!("not reached: {:#?}", seen.borrow().observed),
    }
}

pub(super) fn is(state: EnvironmentState) -> impl Fn(&View) -> bool {
    move |view| view.observed.state == state
}

pub(super) fn name(service: &str) -> String {
    format!("muster-{SHORT}-{service}")
}

/// Positions of the starts in the engine's calls.
pub(super) fn starts(fake: &Fake) -> Vec<String> {
    fake.calls().iter().filter_map(|call| call.strip_prefix("start ").map(str::to_owned)).collect()
}

#[tokio::test]
async fn services_come_up_in_order_with_credentials_and_stable_ports() {
    let fake = Arc::new(Fake::new());
    behave(&fake);
    let (host, _folder) = host(Arc::clone(&fake), Path::new("/nowhere")).await;
    let environments = Environments::new(Arc::clone(&host));
    environments.order(order(1)).await;
    let view = until(&environments, is(EnvironmentState::Ready)).await;
    assert_eq!(starts(&fake), [name("postgres"), name("migrate"), name("web")]);
    let services = &view.observed.services;
    let states: Vec<ServiceState> = services.iter().map(|service| service.state).collect();
    assert_eq!(states, [ServiceState::Done, ServiceState::Ready, ServiceState::Ready]);
    let postgres = &services[1];
    let url = &postgres.variables["POSTGRES_URL"];
    let password = &postgres.variables["POSTGRES_PASSWORD"];
    assert_eq!(*url, format!("postgresql://postgres:{password}@{}/postgres", postgres.addresses[&5432]));
    let web = fake.spec(&name("web")).expect("made");
    assert_eq!(web.environment["DATABASE_URL"], format!("postgres://postgres:{password}@postgres/x"));
    let manifest = data::Manifest::read(&host.pool, ID).expect("readable").expect("written");
    assert!(manifest.credentials.values().any(|one| one == password));
}

#[tokio::test]
async fn another_start_of_the_agent_adopts_what_runs() {
    let fake = Arc::new(Fake::new());
    behave(&fake);
    let folder = tempfile::tempdir().expect("a folder");
    let routes = Arc::new(Table::default());
    let agent = || at(Arc::clone(&fake), routes.clone(), folder.path(), Path::new("/nowhere"), "h1");
    let host = agent().await;
    let environments = Environments::new(Arc::clone(&host));
    environments.order(order(1)).await;
    let before = until(&environments, is(EnvironmentState::Ready)).await;
    let (ids, calls) = (fake.ids(), fake.calls());
    drop(environments);
    host.state.close().await;
    let environments = Environments::new(agent().await);
    environments.load().await.expect("loaded");
    let after = until(&environments, is(EnvironmentState::Ready)).await;
    assert_eq!((fake.ids(), fake.calls()), (ids, calls));
    assert_eq!(before.specs, after.specs);
}

#[tokio::test]
async fn a_dependency_that_exits_fails_at_once_with_its_last_lines() {
    let fake = Arc::new(Fake::new());
    let says = (0..30).map(|line| format!("line {line}")).collect();
    fake.behave("postgres:15", Behaviour { exits: Some(1), says, ..Behaviour::default() });
    let (host, _folder) = host(Arc::clone(&fake), Path::new("/nowhere")).await;
    let environments = Environments::new(host);
    environments.order(order(1)).await;
    let view = until(&environments, is(EnvironmentState::Failed)).await;
    let (code, text) = view.observed.reason.expect("a reason");
    assert_eq!(code, "E_ENV_DEPENDENCY_EXITED");
    assert!(text.contains("postgres exited with 1 while migrate waited for it"), "{text}");
    assert!(text.contains("line 29") && !text.contains("line 9\n"), "{text}");
    assert_eq!(view.observed.services[1].last_lines.len(), 20);
    assert_eq!(starts(&fake), [name("postgres")]);
}

#[tokio::test]
async fn lost_answers_and_an_engine_that_is_away_end_in_the_same_environment() {
    let fake = Arc::new(Fake::new());
    behave(&fake);
    fake.fail(Op::Create, Fault::AnswerLost);
    fake.fail(Op::Start, Fault::AnswerLost);
    fake.fail(Op::Object, Fault::AnswerLost);
    fake.fail(Op::Look, Fault::Away);
    let (host, _folder) = host(Arc::clone(&fake), Path::new("/nowhere")).await;
    let environments = Environments::new(host);
    environments.order(order(1)).await;
    until(&environments, is(EnvironmentState::Ready)).await;
    assert_eq!(fake.names(), [name("migrate"), name("postgres"), name("web")]);
    assert!(fake.names().iter().all(|name| fake.starts(name) == 1));
}

#[tokio::test]
async fn down_leaves_nothing_and_is_told_until_acknowledged() {
    let fake = Arc::new(Fake::new());
    behave(&fake);
    fake.add_foreign("somebody");
    let (host, _folder) = host(Arc::clone(&fake), Path::new("/nowhere")).await;
    let environments = Environments::new(Arc::clone(&host));
    environments.order(order(1)).await;
    until(&environments, is(EnvironmentState::Ready)).await;
    let mut down = order(2);
    down.up = false;
    environments.order(down).await;
    until(&environments, is(EnvironmentState::Gone)).await;
    assert_eq!(fake.names(), ["somebody"]);
    assert!(fake.objects().is_empty());
    assert!(data::all(&host.pool).is_empty());
    assert!(host.routes.entries().await.expect("listed").is_empty());
    assert!(host.routes.reservations().await.expect("listed").is_empty());
    assert_eq!(host.state.results().await.expect("read").len(), 1);
    assert!(environments.acknowledged(&result_id(ID)).await.expect("done"));
    assert!(host.state.environments().await.expect("read").is_empty());
    assert!(environments.ids().is_empty());
}

#[tokio::test]
async fn lower_generations_are_ignored_and_surplus_environments_are_removed() {
    let fake = Arc::new(Fake::new());
    behave(&fake);
    let (host, _folder) = host(Arc::clone(&fake), Path::new("/nowhere")).await;
    let environments = Environments::new(host);
    environments.order(order(5)).await;
    until(&environments, is(EnvironmentState::Ready)).await;
    let mut stale = order(4);
    stale.up = false;
    environments.order(stale).await;
    environments.welcomed(&[ID.to_owned()], &[]).await;
    assert_eq!(environments.applied()[0].generation, 5);
    assert_eq!(fake.running(), [name("postgres"), name("web")]);
    environments.welcomed(&[], &[]).await;
    until(&environments, is(EnvironmentState::Gone)).await;
    assert!(fake.names().is_empty());
}

#[tokio::test]
async fn a_lost_state_keeps_what_is_wanted_and_removes_what_nobody_knows() {
    let home = tempfile::tempdir().expect("a folder");
    let home = home.path().canonicalize().expect("resolved");
    let fake = Arc::new(Fake::new());
    behave(&fake);
    let folder = tempfile::tempdir().expect("a folder");
    let routes = Arc::new(Table::default());
    let host = at(Arc::clone(&fake), routes.clone(), folder.path(), &home, "h1").await;
    std::fs::create_dir_all(&home).expect("made");
    let granted = folder::describe(&home).expect("described");
    host.state
        .put_grant("g", &granted, 0, crate::clock::now().plus(Duration::from_secs(60)), crate::clock::now())
        .await
        .expect("stored");
    let environments = Environments::new(Arc::clone(&host));
    let mut wanted = order(1);
    wanted.grant = "g".to_owned();
    wanted.stack_file = STACK.replace("image: web:1", "image: web:1\n    volumes: [\".:/app\"]");
    environments.order(wanted.clone()).await;
    let mut other = order(1);
    other.id = "0189abcd-0000-7000-8000-00000000000b".to_owned();
    environments.order(other.clone()).await;
    until(&environments, is(EnvironmentState::Ready)).await;
    let mut view = environments.watch(&other.id).expect("known");
    view.wait_for(|view| view.observed.state == EnvironmentState::Ready).await.expect("ready");
    drop(environments);
    host.state.close().await;
    std::fs::remove_file(folder.path().join("state.db")).expect("lost");
    let ids: Vec<String> = fake.ids();
    let host = at(Arc::clone(&fake), routes, folder.path(), &home, "h1").await;
    let environments = Environments::new(host);
    environments.load().await.expect("loaded");
    environments.welcomed(&[ID.to_owned()], &[]).await;
    environments.order(wanted).await;
    until(&environments, is(EnvironmentState::Ready)).await;
    let mut view = environments.watch(&other.id).expect("known");
    view.wait_for(|view| view.observed.state == EnvironmentState::Gone).await.expect("gone");
    assert_eq!(fake.names(), [name("migrate"), name("postgres"), name("web")]);
    assert!(fake.ids().iter().all(|id| ids.contains(id)));
}

#[tokio::test]
async fn a_database_that_dies_is_restarted_on_the_same_port() {
    let fake = Arc::new(Fake::new());
    behave(&fake);
    let routes = Arc::new(Table::default());
    let folder = tempfile::tempdir().expect("a folder");
    let host = at(Arc::clone(&fake), routes.clone(), folder.path(), Path::new("/nowhere"), "h1").await;
    let environments = Environments::new(host);
    environments.order(order(1)).await;
    let before = until(&environments, is(EnvironmentState::Ready)).await;
    fake.subscribed("h1").await;
    fake.exit(&name("postgres"), 137);
    until(&environments, |view| view.observed.services[1].state == ServiceState::Exited).await;
    let after = until(&environments, is(EnvironmentState::Ready)).await;
    assert_eq!(fake.starts(&name("postgres")), 2);
    assert_eq!(before.observed.services[1].addresses, after.observed.services[1].addresses);
}

/// An engine that is killed twice: the second time while the database is on its way up, and then it refuses the start.
#[tokio::test]
async fn a_database_that_was_ready_is_started_until_it_is_again() {
    let fake = Arc::new(Fake::new());
    behave(&fake);
    let (host, _folder) = host(Arc::clone(&fake), Path::new("/nowhere")).await;
    let environments = Environments::new(Arc::clone(&host));
    environments.order(order(1)).await;
    until(&environments, is(EnvironmentState::Ready)).await;
    fake.behave("postgres:15", Behaviour { exits: Some(137), ..Behaviour::default() });
    fake.exit(&name("postgres"), 137);
    let started = |count| {
        let fake = Arc::clone(&fake);
        async move || starts(&fake).iter().filter(|one| **one == name("postgres")).count() >= count
    };
    crate::waiting::until("it was started again, and ended at once", started(2)).await;
    fake.fail(Op::Start, Fault::Refused("the engine is going down".to_owned()));
    behave(&fake);
    crate::waiting::until("it was started a third time", started(3)).await;
    until(&environments, is(EnvironmentState::Ready)).await;
}

#[tokio::test]
async fn a_relay_that_lost_its_table_is_told_again() {
    let fake = Arc::new(Fake::new());
    behave(&fake);
    let routes = Arc::new(Table::default());
    let folder = tempfile::tempdir().expect("a folder");
    let host = at(Arc::clone(&fake), routes.clone(), folder.path(), Path::new("/nowhere"), "h1").await;
    let environments = Environments::new(host);
    environments.order(order(1)).await;
    until(&environments, is(EnvironmentState::Ready)).await;
    let before = routes.entries().await.expect("listed");
    for entry in &before {
        routes.remove(entry.port, &entry.key).await.expect("removed");
    }
    environments.wake();
    let again = async {
        while routes.entries().await.expect("listed") != before {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), again).await.expect("led again");
}

#[tokio::test]
async fn a_foreign_container_of_the_same_name_is_told_and_never_touched() {
    let fake = Arc::new(Fake::new());
    behave(&fake);
    fake.add_foreign(&name("postgres"));
    let (host, _folder) = host(Arc::clone(&fake), Path::new("/nowhere")).await;
    let environments = Environments::new(host);
    environments.order(order(1)).await;
    let view = until(&environments, is(EnvironmentState::Failed)).await;
    assert_eq!(view.observed.reason.expect("a reason").0, "E_NAME_TAKEN");
    assert_eq!(fake.names(), [name("postgres")]);
}

#[tokio::test]
async fn three_agents_on_one_engine_change_nothing_of_each_other() {
    let fake = Arc::new(Fake::new());
    behave(&fake);
    fake.add_foreign("somebody");
    let mut agents = Vec::new();
    for index in 0..3 {
        let folder = tempfile::tempdir().expect("a folder");
        let routes = Arc::new(Table::default());
        let host = at(Arc::clone(&fake), routes, folder.path(), Path::new("/nowhere"), &format!("h{index}")).await;
        let environments = Arc::new(Environments::new(Arc::clone(&host)));
        let mut own = order(1);
        own.id = format!("0189abcd-0000-7000-8000-00000000000{index}");
        environments.order(own.clone()).await;
        agents.push((host, environments, own.id, folder));
    }
    for (_, environments, id, _) in &agents {
        let mut view = environments.watch(id).expect("known");
        view.wait_for(|view| view.observed.state == EnvironmentState::Ready).await.expect("ready");
    }
    let before = (fake.ids(), fake.running(), fake.objects(), fake.calls());
    for _ in 0..2 {
        for (host, environments, _, _) in &agents {
            let (_, connection) = watch::channel(None);
            let steps = crate::steps::Steps::new(Arc::clone(host), 1, connection);
            environments.wake();
            crate::reconcile::sweep(host, environments, &steps).await.expect("swept");
        }
    }
    assert_eq!((fake.ids(), fake.running(), fake.objects(), fake.calls()), before);
}

#[tokio::test]
async fn leftovers_without_data_are_swept_and_those_with_data_are_kept() {
    let fake = Arc::new(Fake::new());
    let (host, _folder) = host(Arc::clone(&fake), Path::new("/nowhere")).await;
    let kept = "0189abcd-0000-7000-8000-00000000000a";
    let spec = |id: &str| ContainerSpec {
        name: format!("c-{id}"),
        host: host.id.clone(),
        slot: id.to_owned(),
        ..ContainerSpec::default()
    };
    for id in [ID, kept] {
        fake.create(&spec(id)).await.expect("made");
    }
    // Unreadable, and still data.
    std::fs::create_dir_all(host.pool.environment(kept)).expect("made");
    let environments = Environments::new(Arc::clone(&host));
    let (_, connection) = watch::channel(None);
    let steps = crate::steps::Steps::new(Arc::clone(&host), 1, connection);
    crate::reconcile::sweep(&host, &environments, &steps).await.expect("swept");
    assert_eq!(fake.names(), [format!("c-{kept}")]);
    fake.away(true);
    let away = crate::reconcile::sweep(&host, &environments, &steps).await;
    assert!(matches!(away, Err(EngineError::Away(_))));
}

#[tokio::test]
async fn a_folder_without_a_grant_and_a_bad_stack_are_told_with_their_codes() {
    let fake = Arc::new(Fake::new());
    let (host, _folder) = host(Arc::clone(&fake), Path::new("/nowhere")).await;
    let environments = Environments::new(host);
    let mut mounts = order(1);
    mounts.stack_file = "services: { web: { image: web, volumes: [\"./src:/app\"] } }".to_owned();
    environments.order(mounts).await;
    let view = until(&environments, is(EnvironmentState::Failed)).await;
    assert_eq!(view.observed.reason.expect("a reason").0, "E_GRANT_MISSING");
    let mut bad = order(2);
    bad.stack_file = "services: { web: { imag: web } }".to_owned();
    environments.order(bad).await;
    let failed = |view: &View| view.observed.generation.0 == 2 && view.observed.state == EnvironmentState::Failed;
    let view = until(&environments, failed).await;
    let (code, text) = view.observed.reason.expect("a reason");
    assert!(code.starts_with("E_STACK_") && text.contains("compose.yaml:1:"), "{code} {text}");
    let mut unknown = order(3);
    unknown.grant = "x".to_owned();
    environments.order(unknown).await;
    let message = environments.host.outbox.next().await.message;
    assert!(matches!(message, Some(Message::Environment(_))));
}
