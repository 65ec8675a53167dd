//! A service in the form in which both readers are compared.

use std::collections::BTreeMap;

use domain::health::{HealthCheck, Probe};
use domain::stack::{Condition, Mount, MountSource, Service};
use serde_json::{Map, Value, json};

/// The same fields as `compose_config.py` gives. What the other one leaves out because it is the default is left out.
pub fn service(service: &Service, theirs: &Value) -> Value {
    json!({
        "image": service.image,
        "command": service.command,
        "entrypoint": service.entrypoint,
        "environment": service.environment,
        "ports": sorted(service.ports.clone()),
        "expose": sorted(service.expose.clone()),
        "mounts": sorted_by_text(service.mounts.iter().map(mount).collect()),
        "depends_on": depends(service),
        "healthcheck": service.healthcheck.as_ref().map(|check| health(check, &theirs["healthcheck"])),
        "working_dir": service.working_dir,
        "user": service.user,
        "restarts": service.restart,
        "stop_signal": service.stop_signal,
        "stop_grace_period": service.stop_grace_period.map(nanos),
        "memory": service.memory,
        "milli_cpus": service.milli_cpus,
        "pids": service.pids_limit,
        "shm": service.shm_bytes,
        "init": service.init,
        "read_only": service.read_only,
        "build": build(service),
        "files": sorted_by_text(
            service.files.iter().map(|file| json!([file.target, file.name, file.mode])).collect()
        ),
        "aliases": sorted(service.aliases.clone()),
        "cap_add": sorted(service.cap_add.clone()),
        "cap_drop": sorted(service.cap_drop.clone()),
        "ulimits": service
            .ulimits
            .iter()
            .map(|(name, limit)| (name.clone(), json!([limit.soft, limit.hard])))
            .collect::<Map<_, _>>(),
        "extra_hosts": service.extra_hosts,
        "group_add": service.group_add,
        "no_new_privileges": service.no_new_privileges,
        "sysctls": service.sysctls,
    })
}

fn sorted<T: Ord>(mut items: Vec<T>) -> Vec<T> {
    items.sort();
    items.dedup();
    items
}

fn sorted_by_text(mut items: Vec<Value>) -> Vec<Value> {
    let key = |item: &Value| {
        item.as_array().map(|parts| parts.iter().map(|part| part.as_str().unwrap_or_default().to_owned()).collect())
    };
    items.sort_by_key(|item| key(item).unwrap_or_else(Vec::<String>::new));
    items
}

fn mount(mount: &Mount) -> Value {
    let (kind, source) = match &mount.source {
        MountSource::Volume(name) => ("volume", name.as_str()),
        MountSource::Folder(path) => ("bind", path.as_str()),
        MountSource::Anonymous => ("anonymous", ""),
        MountSource::Tmpfs => ("tmpfs", ""),
    };
    json!([kind, source, mount.target, mount.read_only])
}

fn depends(service: &Service) -> BTreeMap<&String, &'static str> {
    let text = |condition: &Condition| match condition {
        Condition::Started => "service_started",
        Condition::Healthy => "service_healthy",
        Condition::Completed => "service_completed_successfully",
    };
    service.depends_on.iter().map(|(name, condition)| (name, text(condition))).collect()
}

fn nanos(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_nanos()).expect("a short time")
}

/// Only the times that the file names: the others have defaults of their own on both sides.
fn health(check: &HealthCheck, theirs: &Value) -> Value {
    let argv = match &check.probe {
        Probe::Command { argv } => argv.clone(),
        _ => Vec::new(),
    };
    let all = [
        ("test", json!(argv)),
        ("interval", json!(nanos(check.interval))),
        ("timeout", json!(nanos(check.timeout))),
        ("start_period", json!(nanos(check.start_period))),
        ("retries", json!(check.failures)),
    ];
    let named = all.into_iter().filter(|(key, _)| *key == "test" || theirs.get(key).is_some());
    Value::Object(named.map(|(key, value)| (key.to_owned(), value)).collect())
}

fn build(service: &Service) -> Value {
    service.build.as_ref().map_or(Value::Null, |build| {
        json!({
            "context": build.context,
            "dockerfile": build.dockerfile,
            "target": build.target,
            "args": build.args,
        })
    })
}
