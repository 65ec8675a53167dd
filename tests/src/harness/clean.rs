//! Removing what a cluster made: processes by their command line, Docker objects by their host's label, its folder.

use std::path::{Path, PathBuf};
use std::sync::Once;

use rustix::process::{Pid, Signal, kill_process};

use super::condition::{SOON, until};
use super::docker::Engine;

/// Label of what a test starts beside Muster.
pub const LABEL: &str = "io.muster.it";

/// Folders of clusters begin so; the id of their process follows.
pub const PREFIX: &str = "muster-it-";

/// Processes whose command line names something in `folder`, zombies apart.
#[must_use]
pub fn processes(folder: &Path) -> Vec<u32> {
    // With its end: the folder of cluster 1 begins the one of cluster 10.
    let needle = format!("{}/", folder.display());
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_string_lossy().parse::<u32>().ok())
        .filter(|pid| *pid != std::process::id())
        .filter(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(&needle)
        })
        .collect()
}

/// Ends a process of ours at once.
pub fn kill(pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, Signal::KILL);
    }
}

/// The host's id, once it has joined; `state` is its agent's state folder.
#[must_use]
pub fn host_id(state: &Path) -> Option<String> {
    let text = std::fs::read_to_string(state.join("identity.json")).ok()?;
    let identity: serde_json::Value = serde_json::from_str(&text).ok()?;
    identity["host_id"].as_str().filter(|id| !id.is_empty()).map(str::to_owned)
}

/// Ids of the hosts whose state lies in `folder/HOST/state`.
#[must_use]
pub fn host_ids(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    entries.flatten().filter_map(|entry| host_id(&entry.path().join("state"))).collect()
}

/// Where the cluster of this number, or what stands for one, has its files.
#[must_use]
pub fn folder(number: u32) -> PathBuf {
    std::env::temp_dir().join(format!("{PREFIX}{}-{number}", std::process::id()))
}

/// Value of [`LABEL`] of what belongs to it.
#[must_use]
pub fn name(folder: &Path) -> String {
    folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Everything of the cluster in `folder`, on this machine's engine.
pub fn cluster(folder: &Path) {
    // Relays and jobs outlive their agents on purpose; a killed parent may still start one.
    until(SOON, "the cluster's processes end", || {
        let left = processes(folder);
        left.iter().for_each(|pid| kill(*pid));
        left.is_empty()
    });
    let engine = Engine::default();
    for id in host_ids(folder) {
        engine.remove_all(&format!("io.muster.host={id}"));
        unwall(&id);
        unmount(&views(&id));
    }
    engine.remove_all(&format!("{LABEL}={}", name(folder)));
    unmount(folder);
    if let Err(why) = std::fs::remove_dir_all(folder) {
        eprintln!("cleaning up {}: {why}", folder.display());
    }
}

/// Where a host's agent mounts developers' folders for containers.
#[must_use]
pub fn views(host: &str) -> PathBuf {
    Path::new("/run/muster/folders").join(host.get(host.len().saturating_sub(12)..).unwrap_or_default())
}

/// Unmounts what is mounted below, the pools of its hosts for example; a mount in them before what it lies in.
fn unmount(folder: &Path) {
    for point in mounted(folder).iter().rev() {
        let ended = std::process::Command::new("umount").arg(point).output();
        if !ended.as_ref().is_ok_and(|out| out.status.success()) {
            eprintln!("cleaning up: umount {point}: {ended:?}");
        }
    }
}

/// What is mounted below a folder.
#[must_use]
pub fn mounted(folder: &Path) -> Vec<String> {
    let start = format!("{}/", folder.display());
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = table.lines().filter_map(|line| line.split(' ').nth(4)).filter(|point| point.starts_with(&start));
    let mut points: Vec<String> = points.map(str::to_owned).collect();
    points.sort_unstable();
    points
}

/// Removes the firewall chains that a killed agent left.
fn unwall(host: &str) {
    let ended = std::process::Command::new(super::binaries::agent()).args(["unwall", host]).output();
    if !ended.as_ref().is_ok_and(|out| out.status.success()) {
        eprintln!("cleaning up: unwall {host}: {ended:?}");
    }
}

/// Clusters of test runs that were killed; once per process.
pub fn sweep() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let Ok(entries) = std::fs::read_dir(std::env::temp_dir()) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let pid = name
                .strip_prefix(PREFIX)
                .and_then(|rest| rest.split('-').next())
                .and_then(|pid| pid.parse::<u32>().ok());
            if pid.is_some_and(|pid| !PathBuf::from(format!("/proc/{pid}")).exists()) {
                cluster(&entry.path());
            }
        }
    });
}
