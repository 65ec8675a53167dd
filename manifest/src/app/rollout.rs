//! `rollout:` of a target.

use std::time::Duration;

use domain::policy::{Amount, OnNewer, Policy};

use crate::duration;
use crate::problem::Code;
use crate::reader::{Fields, Keys, Reader, shown};
use crate::yaml::Node;

/// Most members that an amount may count.
const MAX_COUNT: u32 = 100_000;
/// Most waves.
const MAX_WAVES: usize = 100;

pub(super) const KEYS: Keys = Keys {
    known: &[
        "max_parallel",
        "canary",
        "auto_promote",
        "waves",
        "min_healthy_time",
        "healthy_deadline",
        "confirm_deadline",
        "progress_deadline",
        "bake_time",
        "final_bake_time",
        "auto_revert",
        "minimum_healthy_hosts",
        "max_fail",
        "max_unreachable",
        "on_newer",
        "retain_releases",
        "drain_timeout",
        "kill_timeout",
    ],
    absent: &[("health_check", "write `health:` to the process")],
};

pub(super) fn read(r: &mut Reader, node: &Node) -> Option<Policy> {
    let fields = r.fields(node, "rollout", &KEYS)?;
    let mut policy = Policy::default();
    amounts(r, fields, &mut policy);
    durations(r, fields, &mut policy);
    for (key, value) in [("auto_promote", &mut policy.auto_promote), ("auto_revert", &mut policy.auto_revert)] {
        if let Some(given) = fields.get(key).and_then(|node| r.boolean(node, key)) {
            *value = given;
        }
    }
    if let Some(given) = fields.get("retain_releases").and_then(|node| r.number(node, "retain_releases", 1, 100)) {
        policy.retain_releases = u32::try_from(given).unwrap_or(policy.retain_releases);
    }
    if let Some(given) = fields.get("on_newer").and_then(|node| on_newer(r, node)) {
        policy.on_newer = given;
    }
    check_deadlines(r, fields, &policy);
    Some(policy)
}

fn amounts(r: &mut Reader, fields: Fields<'_>, policy: &mut Policy) {
    for (key, value, least) in [
        ("max_parallel", &mut policy.max_parallel, 1),
        ("canary", &mut policy.canary, 1),
        ("max_fail", &mut policy.max_fail, 0),
    ] {
        if let Some(given) = fields.get(key).and_then(|node| amount(r, node, key, least)) {
            *value = given;
        }
    }
    if let Some(node) = fields.get("minimum_healthy_hosts") {
        policy.minimum_healthy_hosts = amount(r, node, "minimum_healthy_hosts", 0);
    }
    if let Some(node) = fields.get("max_unreachable") {
        if r.text(node, "max_unreachable") == Some("park") {
            r.unsupported(node.pos, "max_unreachable: park", "write a number or a percentage");
        } else if let Some(given) = amount(r, node, "max_unreachable", 0) {
            policy.max_unreachable = given;
        }
    }
    if let Some(node) = fields.get("waves") {
        policy.waves = waves(r, node);
    }
}

fn waves(r: &mut Reader, node: &Node) -> Vec<Amount> {
    let items = r.list(node, "waves").unwrap_or_default();
    if items.is_empty() && matches!(&node.value, crate::yaml::Value::List(_)) {
        r.value(node, "waves is empty", "write at least one size, for example [100%]");
    }
    if items.len() > MAX_WAVES {
        let message = format!("waves has {} sizes", items.len());
        r.problem(Code::ManifestRange, node.pos, message, format!("at most {MAX_WAVES}; the last one repeats"));
    }
    items.iter().take(MAX_WAVES).filter_map(|item| amount(r, item, "waves", 1)).collect()
}

/// A number, or a number with `%`.
fn amount(r: &mut Reader, node: &Node, key: &str, least: u32) -> Option<Amount> {
    let text = r.text(node, key)?;
    let (digits, percent) = text.strip_suffix('%').map_or((text, false), |digits| (digits, true));
    let good = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    let (Some(number), most) =
        (good.then(|| digits.parse::<u32>().unwrap_or(u32::MAX)), if percent { 100 } else { MAX_COUNT })
    else {
        return r.wrong_type(node, key, "a number of members or a percentage such as 25%");
    };
    if !(least..=most).contains(&number) {
        let unit = if percent { "%" } else { "" };
        let hint = format!("it must be from {least}{unit} to {most}{unit}");
        r.problem(Code::ManifestRange, node.pos, format!("{key} is {}", shown(node)), hint);
        return None;
    }
    Some(if percent { Amount::Percent(number) } else { Amount::Count(number) })
}

fn durations(r: &mut Reader, fields: Fields<'_>, policy: &mut Policy) {
    let seconds = Duration::from_secs;
    let hours = |n: u64| seconds(n * 3600);
    for (key, value, low, high) in [
        ("min_healthy_time", &mut policy.min_healthy_time, Duration::ZERO, hours(1)),
        ("healthy_deadline", &mut policy.healthy_deadline, seconds(1), hours(24)),
        ("confirm_deadline", &mut policy.confirm_deadline, seconds(1), hours(1)),
        ("progress_deadline", &mut policy.progress_deadline, seconds(1), hours(168)),
        ("bake_time", &mut policy.bake_time, Duration::ZERO, hours(24)),
        ("final_bake_time", &mut policy.final_bake_time, Duration::ZERO, hours(24)),
        ("drain_timeout", &mut policy.drain_timeout, Duration::ZERO, hours(1)),
        ("kill_timeout", &mut policy.kill_timeout, Duration::ZERO, hours(1)),
    ] {
        if let Some(given) = fields.get(key).and_then(|node| r.duration(node, key, low, high)) {
            *value = given;
        }
    }
}

fn on_newer(r: &mut Reader, node: &Node) -> Option<OnNewer> {
    match r.text(node, "on_newer")? {
        "queue" => Some(OnNewer::Queue),
        "supersede" => Some(OnNewer::Supersede),
        _ => {
            r.value(node, format!("on_newer is {}", shown(node)), "use queue or supersede");
            None
        }
    }
}

/// A deadline that cannot be met would fail every rollout.
fn check_deadlines(r: &mut Reader, fields: Fields<'_>, policy: &Policy) {
    let place = |keys: [&str; 2]| keys.iter().find_map(|key| fields.get(key)).map_or(fields.pos, |node| node.pos);
    let show = duration::human;
    if policy.healthy_deadline <= policy.min_healthy_time {
        let message = format!(
            "healthy_deadline ({}) is not longer than min_healthy_time ({}), so no step could ever end well",
            show(policy.healthy_deadline),
            show(policy.min_healthy_time)
        );
        r.problem(
            Code::ManifestConflict,
            place(["healthy_deadline", "min_healthy_time"]),
            message,
            "make healthy_deadline longer",
        );
    }
    if policy.progress_deadline < policy.healthy_deadline {
        let message = format!(
            "progress_deadline ({}) is shorter than healthy_deadline ({})",
            show(policy.progress_deadline),
            show(policy.healthy_deadline)
        );
        r.problem(
            Code::ManifestConflict,
            place(["progress_deadline", "healthy_deadline"]),
            message,
            "make progress_deadline at least as long",
        );
    }
}
