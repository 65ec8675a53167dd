//! The keys of a service: honoured, not used, refused, not in this version.

use crate::problem::Code;
use crate::reader::{Fields, Keys, Reader};
use crate::yaml::{Node, Value};

/// All that are read; those of [`UNUSED`] and [`REFUSED`] stand here too, so that they are no unknown keys.
pub(super) const SERVICE: Keys = Keys {
    known: &[
        "image",
        "build",
        "command",
        "entrypoint",
        "environment",
        "env_file",
        "ports",
        "expose",
        "volumes",
        "tmpfs",
        "depends_on",
        "healthcheck",
        "working_dir",
        "user",
        "restart",
        "stop_signal",
        "stop_grace_period",
        "mem_limit",
        "deploy",
        "cpus",
        "init",
        "read_only",
        "shm_size",
        "networks",
        "secrets",
        "configs",
        "extends",
        "profiles",
        "links",
        "cap_add",
        "cap_drop",
        "ulimits",
        "pids_limit",
        "extra_hosts",
        "group_add",
        "security_opt",
        "scale",
        "sysctls",
        "develop",
        // UNUSED
        "dns",
        "dns_opt",
        "dns_search",
        "blkio_config",
        "cpu_count",
        "cpu_percent",
        "cpu_rt_period",
        "cpu_rt_runtime",
        "cpuset",
        "memswap_limit",
        "mem_swappiness",
        "platform",
        "container_name",
        "hostname",
        "domainname",
        "labels",
        "label_file",
        "annotations",
        "logging",
        "attach",
        "tty",
        "stdin_open",
        "pull_policy",
        "pull_refresh_after",
        "mem_reservation",
        "cpu_shares",
        // REFUSED
        "privileged",
        "network_mode",
        "pid",
        "ipc",
        "uts",
        "userns_mode",
        "cgroup",
        "cgroup_parent",
        "devices",
        "device_cgroup_rules",
        "gpus",
        "credential_spec",
        "provider",
        "runtime",
        "use_api_socket",
        "oom_kill_disable",
        "oom_score_adj",
        "isolation",
        "volumes_from",
    ],
    absent: &[
        ("external_links", "services reach each other by name within one environment"),
        ("mac_address", "leave it out"),
        ("models", "run the model as a service"),
        ("pre_start", "use a service with depends_on: service_completed_successfully"),
        ("post_start", "use a service of its own"),
        ("pre_stop", "handle stop_signal in the program"),
        ("cpu_period", "use cpus"),
        ("cpu_quota", "use cpus"),
        ("storage_opt", "leave it out"),
    ],
};

/// Read past with a notice: what they change cannot be seen from inside a stack, or is done by Muster.
pub(super) const UNUSED: &[(&str, &str)] = &[
    ("platform", "images of the host's own platform are used"),
    ("container_name", "Muster names containers; other services reach this one by its service name"),
    ("hostname", "a container's host name is its service's name"),
    ("domainname", "a container's host name is its service's name"),
    ("labels", "Muster's own labels stand on its containers"),
    ("label_file", "Muster's own labels stand on its containers"),
    ("annotations", "Muster's own labels stand on its containers"),
    ("logging", "Muster keeps the logs"),
    ("attach", "`muster env logs` shows all services"),
    ("tty", "no terminal is attached"),
    ("stdin_open", "no terminal is attached"),
    ("pull_policy", "an image is pulled when the host lacks it"),
    ("pull_refresh_after", "an image is pulled when the host lacks it"),
    ("mem_reservation", "only limits are set"),
    ("cpu_shares", "only limits are set"),
    ("dns", "names are resolved by Muster"),
    ("dns_opt", "names are resolved by Muster"),
    ("dns_search", "names are resolved by Muster"),
    ("blkio_config", "only mem_limit, cpus and pids_limit are set"),
    ("cpu_count", "only mem_limit, cpus and pids_limit are set"),
    ("cpu_percent", "only mem_limit, cpus and pids_limit are set"),
    ("cpu_rt_period", "only mem_limit, cpus and pids_limit are set"),
    ("cpu_rt_runtime", "only mem_limit, cpus and pids_limit are set"),
    ("cpuset", "only mem_limit, cpus and pids_limit are set"),
    ("memswap_limit", "only mem_limit, cpus and pids_limit are set"),
    ("mem_swappiness", "only mem_limit, cpus and pids_limit are set"),
];

/// What would reach outside the environment, or weaken the wall around it.
pub(super) const REFUSED: &[(&str, &str)] = &[
    ("privileged", "it would give the container the whole host"),
    ("network_mode", "an environment has networks of its own"),
    ("pid", "it would share processes with others"),
    ("ipc", "it would share memory with others"),
    ("uts", "it would share the host's name"),
    ("userns_mode", "it would weaken the isolation from the host"),
    ("cgroup", "it would leave the environment's limits"),
    ("cgroup_parent", "it would leave the environment's limits"),
    ("devices", "it would give the container devices of the host"),
    ("device_cgroup_rules", "it would give the container devices of the host"),
    ("gpus", "it would give the container devices of the host"),
    ("credential_spec", "it would use credentials of the host"),
    ("provider", "it would run a program on the host"),
    ("runtime", "it would run the container in another way than its host does"),
    ("use_api_socket", "it would give the container the engine, and so the whole host"),
    ("oom_kill_disable", "it could stop the host"),
    ("oom_score_adj", "it would put others at risk when memory runs out"),
    ("isolation", "it would run the container in another way than its host does"),
    ("volumes_from", "it would mount what other services do not show; name the volumes"),
];

/// Tells refused keys, and notices for unused ones.
pub(super) fn check(r: &mut Reader, fields: Fields<'_>, place: &str) {
    for (key, why) in REFUSED {
        if let Some(entry) = fields.entry(key).filter(|entry| !is_harmless(key, &entry.value)) {
            r.problem(Code::StackRefused, entry.pos, format!("{key:?} of {place} is refused: {why}"), "remove it");
        }
    }
    for (key, why) in UNUSED {
        if let Some(entry) = fields.entry(key) {
            r.notice(entry.pos, format!("{key:?} of {place} is not used: {why}"));
        }
    }
}

/// What says nothing more than the default.
fn is_harmless(key: &str, node: &Node) -> bool {
    match &node.value {
        Value::List(items) => items.is_empty(),
        Value::Map(entries) => entries.is_empty(),
        Value::Scalar(scalar) => {
            let text = scalar.text.as_str();
            node.is_null()
                || matches!(text, "false" | "False" | "FALSE")
                || (key == "ipc" && matches!(text, "private" | "shareable"))
                || (key == "network_mode" && text == "bridge")
                || (key == "cgroup" && text == "private")
                || (key == "oom_score_adj" && text == "0")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unused_and_refused_key_is_known() {
        for (key, _) in UNUSED.iter().chain(REFUSED) {
            assert!(SERVICE.known.contains(key), "{key}");
        }
        for (key, _) in SERVICE.absent {
            assert!(!SERVICE.known.contains(key), "{key}");
        }
    }
}
