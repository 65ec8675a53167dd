use super::*;
use crate::stack::{Condition, Service};

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);

fn at(minutes: u32) -> Timestamp {
    Timestamp(0).plus(MINUTE * minutes)
}

fn used(minutes: u32) -> Usage {
    Usage { last_used: at(minutes), ..Usage::default() }
}

fn port(open: u64, waiting: u64, last_used: Option<Timestamp>) -> PortUse {
    PortUse { service: "postgres".to_owned(), open, waiting, last_used, peers: vec!["127.0.0.1:40222".to_owned()] }
}

#[test]
fn sleep_comes_with_time_and_only_without_use() {
    let idle = Idle::default();
    let never = Idle { freeze: None, stop: None };
    let stop_only = Idle { freeze: None, stop: Some(MINUTE) };
    let by_port = |open, waiting, last| Usage { ports: vec![port(open, waiting, last)], ..used(0) };
    let transaction =
        Usage { transactions: vec![Transaction { service: "postgres".to_owned(), by: String::new() }], ..used(0) };
    let table = [
        (idle, Tier::Awake, used(0), 9, Turn::Stay),
        (idle, Tier::Awake, used(0), 10, Turn::Freeze),
        (idle, Tier::Frozen, used(0), 119, Turn::Stay),
        (idle, Tier::Frozen, used(0), 120, Turn::Stop),
        (idle, Tier::Awake, used(0), 120, Turn::Stop),
        (idle, Tier::Asleep, used(0), 9_000, Turn::Stay),
        (idle, Tier::Awake, by_port(1, 0, Some(at(5))), 14, Turn::Stay),
        // An open connection without traffic does not keep awake, a waiting one and a transaction do.
        (idle, Tier::Awake, by_port(1, 0, Some(at(5))), 15, Turn::Freeze),
        (idle, Tier::Awake, by_port(1, 1, None), 15, Turn::Stay),
        (idle, Tier::Awake, transaction, 200, Turn::Stay),
        (idle, Tier::Awake, Usage { guests: 1, ..used(0) }, 200, Turn::Stay),
        (never, Tier::Awake, used(0), 9_000, Turn::Stay),
        (stop_only, Tier::Awake, used(0), 1, Turn::Stop),
        // A clock that was set back is no reason.
        (idle, Tier::Awake, used(100), 10, Turn::Stay),
    ];
    for (idle, tier, usage, now, expected) in table {
        let usage = Usage { seen: at(now), ..usage };
        assert_eq!(turn(idle, tier, &usage), expected, "{tier:?} at {now}: {usage:?}");
    }
}

#[test]
fn stores_are_asked_only_when_nothing_else_keeps_awake() {
    let idle = Idle::default();
    let seen = |minutes| Usage { seen: at(minutes), ..used(0) };
    assert!(!worth_asking(idle, &seen(9)));
    assert!(worth_asking(idle, &seen(10)));
    assert_eq!(look_every(idle), Some(Duration::from_secs(30)));
    assert_eq!(look_every(Idle { freeze: None, stop: None }), None);
    let short = Idle { freeze: Some(Duration::from_millis(400)), stop: None };
    assert_eq!(look_every(short), Some(Duration::from_millis(100)));
}

#[test]
fn a_line_says_why() {
    let idle = Idle::default();
    let two = Usage { ports: vec![port(2, 0, None), port(0, 0, None)], ..used(0) };
    assert_eq!(why(idle, Tier::Awake, &two), "2 connections to postgres (from 127.0.0.1:40222)");
    let open = Usage {
        transactions: vec![Transaction { service: "postgres".to_owned(), by: "psql from 10.0.0.1".to_owned() }],
        ..used(0)
    };
    assert_eq!(why(idle, Tier::Awake, &open), "a transaction in postgres (psql from 10.0.0.1)");
    assert_eq!(why(idle, Tier::Awake, &Usage { guests: 1, ..used(0) }), "a command runs in it");
    assert_eq!(why(idle, Tier::Awake, &used(0)), "used within the last 10m");
    assert_eq!(why(idle, Tier::Frozen, &two), "not used for 10m (idle.freeze)");
    assert_eq!(why(idle, Tier::Asleep, &two), "not used for 2h (idle.stop)");
    assert_eq!(why(Idle { freeze: None, stop: None }, Tier::Awake, &used(0)), "never put to sleep (idle: never)");
}

#[test]
fn who_depends_on_others_is_stopped_before_them() {
    let service = |on: &[&str]| Service {
        depends_on: on.iter().map(|name| ((*name).to_owned(), Condition::Started)).collect(),
        ..Service::default()
    };
    let mut stack = Stack::default();
    for (name, on) in [("web", &["postgres", "redis"][..]), ("worker", &["web"]), ("postgres", &[]), ("redis", &[])] {
        stack.services.insert(name.to_owned(), service(on));
    }
    assert_eq!(stop_order(&stack), [vec!["worker"], vec!["web"], vec!["postgres", "redis"]]);
    assert!(stop_order(&Stack::default()).is_empty());
}

#[test]
fn nothing_ends_without_a_warning_and_a_use_takes_it_back() {
    let ttl = Ttl(DAY * 14);
    let day = |days: u32| Timestamp(0).plus(DAY * days);
    let tenure = |keep_until, warned| Tenure { last_used: day(0), keep_until, warned };
    let table = [
        (tenure(None, None), 12, Expiry::Keep),
        (tenure(None, None), 13, Expiry::Warn(day(14))),
        (tenure(None, Some((day(14), day(13)))), 13, Expiry::Keep),
        (tenure(None, Some((day(14), day(13)))), 14, Expiry::Remove),
        // Whoever asks was away for long.
        (tenure(None, None), 60, Expiry::Warn(day(14))),
        (tenure(None, Some((day(14), day(60)))), 60, Expiry::Keep),
        (tenure(None, Some((day(14), day(60)))), 61, Expiry::Remove),
        // Used, or kept, after a warning.
        (Tenure { last_used: day(13), ..tenure(None, Some((day(14), day(13)))) }, 14, Expiry::Keep),
        (tenure(Some(day(30)), Some((day(14), day(13)))), 20, Expiry::Keep),
        (tenure(Some(day(30)), None), 29, Expiry::Warn(day(30))),
        (tenure(Some(day(3)), None), 5, Expiry::Keep),
    ];
    for (tenure, now, expected) in table {
        assert_eq!(tenure.expiry(ttl, day(now)), expected, "{tenure:?} on day {now}");
    }
    let short = Ttl(Duration::from_secs(10));
    let used = Tenure { last_used: Timestamp(0), ..Tenure::default() };
    let second = |seconds| Timestamp(0).plus(Duration::from_secs(seconds));
    assert_eq!(used.expiry(short, second(4)), Expiry::Keep);
    assert_eq!(used.expiry(short, second(5)), Expiry::Warn(second(10)));
}

#[test]
fn what_was_asked_for_later_than_done_is_still_to_do() {
    let map = |pairs: &[(&str, u64)]| pairs.iter().map(|(name, at)| ((*name).to_owned(), *at)).collect();
    let left = still_to_do(&map(&[("web", 3), ("db", 2), ("new", 1)]), &map(&[("web", 2), ("db", 2)]));
    assert_eq!(left.into_iter().collect::<Vec<_>>(), ["new", "web"]);
}
