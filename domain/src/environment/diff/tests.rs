use super::*;
use crate::stack::StoreKind;

fn service(depends_on: &[(&str, Condition)]) -> Service {
    Service {
        image: Some("image".to_owned()),
        depends_on: depends_on.iter().map(|(name, condition)| ((*name).to_owned(), *condition)).collect(),
        ..Service::default()
    }
}

/// `postgres` (a store) ← `migrate` (once) ← `web`.
fn stack() -> Stack {
    let mut postgres = service(&[]);
    postgres.store = Some(StoreKind::Postgres);
    let migrate = service(&[("postgres", Condition::Healthy)]);
    let web = service(&[("migrate", Condition::Completed), ("postgres", Condition::Healthy)]);
    let services = [("postgres", postgres), ("migrate", migrate), ("web", web)];
    Stack { services: services.into_iter().map(|(name, one)| (name.to_owned(), one)).collect(), ..Stack::default() }
}

fn known(seen: &[(&str, Seen)]) -> BTreeMap<String, Known> {
    seen.iter().map(|(name, seen)| ((*name).to_owned(), Known { seen: *seen, restarts: 0 })).collect()
}

const READY: Seen = Seen::Running { ready: true };

fn ended(code: i32, was_ready: bool) -> Seen {
    Seen::Ended { code: Some(code), was_ready, pause_over: false }
}

#[test]
fn services_start_in_the_order_of_their_dependencies() {
    let stack = stack();
    let all = |postgres, migrate, web| known(&[("postgres", postgres), ("migrate", migrate), ("web", web)]);
    let starts = |known| diff(&stack, &known).start;
    assert_eq!(starts(all(Seen::Startable, Seen::Startable, Seen::Startable)), ["postgres"]);
    assert!(starts(all(Seen::Starting, Seen::Startable, Seen::Startable)).is_empty());
    assert!(starts(all(Seen::Running { ready: false }, Seen::Startable, Seen::Startable)).is_empty());
    assert_eq!(starts(all(READY, Seen::Startable, Seen::Startable)), ["migrate"]);
    assert!(starts(all(READY, READY, Seen::Startable)).is_empty());
    assert_eq!(starts(all(READY, ended(0, true), Seen::Startable)), ["web"]);
    let done = diff(&stack, &all(READY, ended(0, true), READY));
    assert!(done.ready && done.start.is_empty() && done.failure.is_none());
}

#[test]
fn a_waiting_service_says_for_what() {
    let diff =
        diff(&stack(), &known(&[("postgres", Seen::Starting), ("migrate", Seen::Startable), ("web", Seen::Preparing)]));
    assert_eq!(diff.services["migrate"].waits_for, Some(("postgres".to_owned(), Condition::Healthy)));
    assert_eq!(diff.services["web"].state, ServiceState::Pulling);
    assert!(!diff.ready);
}

#[test]
fn a_dependency_that_exits_fails_at_once_and_names_who_waited() {
    let known = known(&[("postgres", ended(1, false)), ("migrate", Seen::Startable), ("web", Seen::Startable)]);
    let failure = diff(&stack(), &known).failure.expect("failed");
    assert_eq!((failure.service.as_str(), failure.code), ("postgres", Some(1)));
    assert_eq!(failure.dependent.as_deref(), Some("migrate"));
    assert_eq!(failure.reason_code(), "E_ENV_DEPENDENCY_EXITED");
}

#[test]
fn an_init_service_that_fails_stops_those_that_wait_for_its_success() {
    let known = known(&[("postgres", READY), ("migrate", ended(2, true)), ("web", Seen::Startable)]);
    let diff = diff(&stack(), &known);
    assert!(diff.start.is_empty());
    let failure = diff.failure.expect("failed");
    assert_eq!((failure.service.as_str(), failure.dependent.as_deref()), ("migrate", Some("web")));
}

#[test]
fn a_database_that_was_ready_is_restarted_after_its_pause() {
    let stack = stack();
    let with = |pause_over, restarts| {
        let mut known = known(&[("postgres", READY), ("migrate", ended(0, true)), ("web", READY)]);
        let seen = Seen::Ended { code: Some(137), was_ready: true, pause_over };
        known.insert("postgres".to_owned(), Known { seen, restarts });
        diff(&stack, &known)
    };
    assert!(with(false, 1).start.is_empty());
    assert_eq!(with(true, 1).start, ["postgres"]);
    assert_eq!(with(true, 1).failure, None);
    let looping = with(true, CRASH_LOOP);
    assert_eq!(looping.start, ["postgres"]);
    assert_eq!(looping.services["postgres"].state, ServiceState::CrashLoop);
    assert_eq!(looping.failure.map(|failure| failure.reason_code()), Some("E_ENV_CRASH_LOOP"));
}

#[test]
fn a_service_without_restart_stays_ended_and_status_0_is_done() {
    let stack = Stack { services: [("once".to_owned(), service(&[]))].into(), ..Stack::default() };
    let one = |seen| diff(&stack, &known(&[("once", seen)]));
    assert_eq!(one(ended(0, true)).services["once"].state, ServiceState::Done);
    assert!(one(ended(0, true)).ready);
    let failed = one(ended(3, true));
    assert_eq!(failed.services["once"].state, ServiceState::Exited);
    assert_eq!(failed.failure.map(|failure| failure.reason_code()), Some("E_ENV_SERVICE_EXITED"));
    let start = one(Seen::Ended { code: None, was_ready: false, pause_over: false });
    assert_eq!(start.failure.map(|failure| failure.reason_code()), Some("E_ENV_SERVICE_START"));
}

#[test]
fn what_was_ready_and_cannot_be_started_is_tried_again_after_its_pause() {
    let stack = Stack { services: [("once".to_owned(), service(&[]))].into(), ..Stack::default() };
    let with =
        |was_ready, pause_over| diff(&stack, &known(&[("once", Seen::Ended { code: None, was_ready, pause_over })]));
    assert_eq!((with(true, false).start.len(), with(true, false).failure), (0, None));
    assert_eq!(with(true, true).start, ["once"]);
    assert!(with(false, true).start.is_empty());
}
