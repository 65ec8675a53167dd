use super::super::protocol::Mode;
use super::*;

const BOOT: &str = "boot-1";

fn spec(port: u16, generation: u64) -> RouteSpec {
    RouteSpec {
        port,
        bind: [127, 0, 0, 1].into(),
        mode: Mode::Http,
        key: "target:bot/production:web".to_owned(),
        release: "r1".to_owned(),
        generation,
        endpoint: Some(([172, 17, 0, 2], 8080).into()),
        held: false,
    }
}

fn code(result: Result<Change, Refusal>) -> Option<Code> {
    result.err().map(|refusal| refusal.code)
}

#[test]
fn an_older_generation_is_stale_and_the_same_one_is_idempotent() {
    let mut table = Table::default();
    table.set(spec(80, 5), BOOT);
    assert_eq!(code(table.check_set(&spec(80, 4), BOOT)), Some(Code::StaleGeneration));
    assert_eq!(table.check_set(&spec(80, 5), BOOT), Ok(Change::None));
    assert_eq!(table.check_set(&spec(80, 6), BOOT), Ok(Change::Switch));
}

#[test]
fn the_same_generation_with_other_content_conflicts() {
    let mut table = Table::default();
    table.set(spec(80, 5), BOOT);
    let other = RouteSpec { release: "r2".to_owned(), ..spec(80, 5) };
    assert_eq!(code(table.check_set(&other, BOOT)), Some(Code::GenerationConflict));
}

#[test]
fn the_same_generation_after_a_reboot_is_a_confirmation() {
    let mut table = Table::default();
    table.set(spec(80, 5), BOOT);
    assert_eq!(table.check_set(&spec(80, 5), "boot-2"), Ok(Change::Switch));
}

#[test]
fn a_port_of_another_key_is_taken_by_route_or_reservation() {
    let mut table = Table::default();
    table.set(spec(80, 5), BOOT);
    table.reservations.insert("env:1:postgres".to_owned(), 81);
    for port in [80, 81] {
        let other = RouteSpec { key: "other".to_owned(), ..spec(port, 9) };
        assert_eq!(code(table.check_set(&other, BOOT)), Some(Code::PortTaken));
    }
    assert_eq!(table.check_remove(80, "other", 9).map_err(|r| r.code), Err(Code::PortTaken));
}

#[test]
fn an_order_older_than_the_removal_does_not_bring_the_route_back() {
    let mut table = Table::default();
    table.set(spec(80, 5), BOOT);
    assert_eq!(table.check_remove(80, &spec(80, 5).key, 4).map_err(|r| r.code), Err(Code::StaleGeneration));
    assert_eq!(table.check_remove(80, &spec(80, 5).key, 6), Ok(true));
    table.remove(80, &spec(80, 5).key, 6);
    assert_eq!(code(table.check_set(&spec(80, 6), BOOT)), Some(Code::StaleGeneration));
    assert_eq!(table.check_set(&spec(80, 7), BOOT), Ok(Change::New));
}

#[test]
fn bad_fields_are_invalid() {
    let good = spec(80, 1);
    let own = ([127, 0, 0, 1], 80).into();
    let cases = [
        RouteSpec { port: 0, ..good.clone() },
        RouteSpec { key: String::new(), ..good.clone() },
        RouteSpec { key: "a\nb".to_owned(), ..good.clone() },
        RouteSpec { release: "x".repeat(MAX_NAME_BYTES + 1), ..good.clone() },
        RouteSpec { endpoint: None, ..good.clone() },
        RouteSpec { endpoint: Some(([0, 0, 0, 0], 1).into()), ..good.clone() },
        RouteSpec { endpoint: Some(([10, 0, 0, 1], 0).into()), ..good.clone() },
        RouteSpec { endpoint: Some(own), ..good.clone() },
        RouteSpec { endpoint: Some(own), bind: [0, 0, 0, 0].into(), ..good.clone() },
    ];
    for case in cases {
        assert_eq!(code(Table::default().check_set(&case, BOOT)), Some(Code::Invalid), "{case:?}");
    }
    let held = RouteSpec { endpoint: None, held: true, ..good };
    assert_eq!(Table::default().check_set(&held, BOOT), Ok(Change::New));
}

#[test]
fn a_confirmation_replaces_the_address_of_its_own_generation_only() {
    let mut table = Table::default();
    table.set(spec(80, 5), BOOT);
    let mut confirmation =
        Confirmation { port: 80, key: spec(80, 5).key, generation: 4, endpoint: ([172, 17, 0, 9], 8080).into() };
    assert_eq!(table.confirm(&confirmation, "boot-2"), Ok(Confirmed::OtherGeneration));
    assert_eq!(table.entries[&80].boot_id, BOOT);
    confirmation.generation = 5;
    assert_eq!(table.confirm(&confirmation, "boot-2"), Ok(Confirmed::Done));
    assert_eq!(table.entries[&80].route.endpoint, Some(confirmation.endpoint));
    assert_eq!(table.entries[&80].boot_id, "boot-2");
    confirmation.endpoint = ([127, 0, 0, 1], 80).into();
    assert!(table.confirm(&confirmation, "boot-2").is_err());
    confirmation.port = 81;
    assert_eq!(table.confirm(&confirmation, "boot-2"), Ok(Confirmed::Unknown));
}
