//! Overrides of one rollout's policy: the keys and values of muster.yaml's `rollout`, read by the same code.

use std::collections::BTreeMap;

use domain::policy::Policy;

use super::text;
use crate::error::{Code, Error, Result};

/// The policy with the overrides applied.
///
/// # Errors
/// `E_OVERRIDE`: an unknown key, or a value that the key does not take.
pub fn apply(base: &Policy, overrides: &BTreeMap<String, String>) -> Result<Policy> {
    let mut policy = base.clone();
    for (key, value) in overrides {
        one(&mut policy, key, value)?;
    }
    Ok(policy)
}

fn one(policy: &mut Policy, key: &str, value: &str) -> Result<()> {
    let bad = |why: &str| {
        let given = text::line(&format!("{key}={value}"), 80);
        Error::new(Code::OVERRIDE, format!("{given:?}: {why}"))
    };
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b" %,.[]_-".contains(&b);
    if key.len() > 64
        || !key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
        || value.len() > 200
        || !value.bytes().all(allowed)
    {
        return Err(bad("write KEY=VALUE as in muster.yaml's rollout"));
    }
    let yaml = format!(
        "app: x\nprocesses: {{ p: {{}} }}\ntargets: {{ t: {{ members: a=b, rollout: {{ {key}: {value} }} }} }}\n"
    );
    let app = manifest::app::read("override", &yaml).map_err(|problems| {
        let first = problems.first().map(|problem| problem.message.clone()).unwrap_or_default();
        bad(&first)
    })?;
    let read = app.targets.into_values().next().map(|target| target.policy).ok_or_else(|| bad("it says nothing"))?;
    match key {
        "max_parallel" => policy.max_parallel = read.max_parallel,
        "canary" => policy.canary = read.canary,
        "auto_promote" => policy.auto_promote = read.auto_promote,
        "waves" => policy.waves = read.waves,
        "min_healthy_time" => policy.min_healthy_time = read.min_healthy_time,
        "healthy_deadline" => policy.healthy_deadline = read.healthy_deadline,
        "confirm_deadline" => policy.confirm_deadline = read.confirm_deadline,
        "progress_deadline" => policy.progress_deadline = read.progress_deadline,
        "bake_time" => policy.bake_time = read.bake_time,
        "final_bake_time" => policy.final_bake_time = read.final_bake_time,
        "auto_revert" => policy.auto_revert = read.auto_revert,
        "minimum_healthy_hosts" => policy.minimum_healthy_hosts = read.minimum_healthy_hosts,
        "max_fail" => policy.max_fail = read.max_fail,
        "max_unreachable" => policy.max_unreachable = read.max_unreachable,
        "on_newer" => policy.on_newer = read.on_newer,
        "retain_releases" => policy.retain_releases = read.retain_releases,
        "drain_timeout" => policy.drain_timeout = read.drain_timeout,
        "kill_timeout" => policy.kill_timeout = read.kill_timeout,
        _ => return Err(bad("this cannot be overridden")),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use domain::policy::Amount;

    use super::*;

    fn with(pairs: &[(&str, &str)]) -> Result<Policy> {
        let pairs = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        apply(&Policy::default(), &pairs)
    }

    #[test]
    fn overrides_change_what_they_name_and_nothing_else() {
        let policy = with(&[("min_healthy_time", "3s"), ("max_unreachable", "1"), ("waves", "[50%, 100%]")]).unwrap();
        let expected = Policy {
            min_healthy_time: Duration::from_secs(3),
            max_unreachable: Amount::Count(1),
            waves: vec![Amount::Percent(50), Amount::Percent(100)],
            ..Policy::default()
        };
        assert_eq!(policy, expected);
    }

    #[test]
    fn what_is_not_an_override_is_refused() {
        for (key, value) in [
            ("min_healty_time", "3s"),
            ("max_fail", "many"),
            ("canary", "1 } } }, x: {"),
            ("a: b", "c"),
            ("waves", "\n"),
            ("max_parallel", "0"),
        ] {
            assert_eq!(with(&[(key, value)]).unwrap_err().reason(), "E_OVERRIDE", "{key}={value}");
        }
    }
}
