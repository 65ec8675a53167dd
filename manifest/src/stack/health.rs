//! `healthcheck:`.

use std::time::Duration;

use domain::health::{HealthCheck, Probe};

use crate::duration::human;
use crate::reader::{Fields, Keys, Reader, shown};
use crate::yaml::{Node, Value};

const KEYS: Keys = Keys {
    known: &["test", "interval", "timeout", "retries", "start_period", "start_interval", "disable"],
    absent: &[],
};

/// None where the check is switched off.
pub(super) fn read(r: &mut Reader, node: &Node, place: &str) -> Option<HealthCheck> {
    let place = format!("healthcheck of {place}");
    let fields = r.fields(node, &place, &KEYS)?;
    if fields.get("disable").and_then(|node| r.boolean(node, &format!("disable in {place}"))) == Some(true) {
        return None;
    }
    let Some(test) = fields.get("test") else {
        r.missing(fields.pos, "test", &place, "write test: [CMD, PROGRAM], or disable: true");
        return None;
    };
    let argv = test_argv(r, test, &format!("test in {place}"));
    // Compose's own defaults, so that a service has as long to start as it is used to.
    let (millis, seconds) = (Duration::from_millis, Duration::from_secs);
    let check = HealthCheck {
        probe: Probe::Command { argv: Vec::new() },
        interval: duration(r, fields, "interval", &place, seconds(30), millis(50), seconds(300)),
        timeout: duration(r, fields, "timeout", &place, seconds(30), millis(10), seconds(60)),
        failures: retries(r, fields, &place),
        start_period: duration(r, fields, "start_period", &place, Duration::ZERO, Duration::ZERO, seconds(600)),
    };
    if let Some(entry) = fields.entry("start_interval") {
        r.notice(entry.pos, format!("start_interval in {place} is not used: a starting service is probed often"));
    }
    argv?.map(|argv| HealthCheck { probe: Probe::Command { argv }, ..check })
}

/// The argument vector; the inner none means `NONE`.
fn test_argv(r: &mut Reader, node: &Node, place: &str) -> Option<Option<Vec<String>>> {
    // The user wrote it for a shell, as Compose documents it.
    let shell = |command: String| Some(Some(vec!["/bin/sh".to_owned(), "-c".to_owned(), command]));
    if let Value::Scalar(_) = &node.value {
        let text = r.text(node, place)?;
        return if text.is_empty() { wrong_test(r, node, place) } else { shell(text.to_owned()) };
    }
    let words = r.texts(node, place)?;
    match words.split_first() {
        Some((first, [])) if first == "NONE" => Some(None),
        Some((first, argv)) if first == "CMD" && argv.first().is_some_and(|program| !program.is_empty()) => {
            Some(Some(argv.to_vec()))
        }
        Some((first, [command])) if first == "CMD-SHELL" && !command.is_empty() => shell(command.clone()),
        _ => wrong_test(r, node, place),
    }
}

fn wrong_test<T>(r: &mut Reader, node: &Node, place: &str) -> Option<T> {
    r.value(
        node,
        format!("{place} is no health check"),
        "write [CMD, PROGRAM, ARGUMENT, …], [CMD-SHELL, \"…\"] or [NONE]",
    );
    None
}

/// What Compose allows beyond our range is cut to it, with a notice; 0 means the default, as in Docker.
fn duration(
    r: &mut Reader,
    fields: Fields<'_>,
    key: &str,
    place: &str,
    default: Duration,
    low: Duration,
    high: Duration,
) -> Duration {
    let Some(node) = fields.get(key) else { return default };
    let Some(given) = r.any_duration(node, &format!("{key} in {place}")).filter(|given| !given.is_zero()) else {
        return default;
    };
    let used = given.clamp(low, high);
    if used != given {
        r.notice(node.pos, format!("{key} in {place} is {}; {} is used", shown(node), human(used)));
    }
    used
}

fn retries(r: &mut Reader, fields: Fields<'_>, place: &str) -> u32 {
    let Some(node) = fields.get("retries") else { return 3 };
    let place = format!("retries in {place}");
    match r.number(node, &place, 0, 1_000_000) {
        None | Some(0) => 3,
        Some(given) if given > 100 => {
            r.notice(node.pos, format!("{place} is {}; 100 is used", shown(node)));
            100
        }
        Some(given) => u32::try_from(given).unwrap_or(100),
    }
}
