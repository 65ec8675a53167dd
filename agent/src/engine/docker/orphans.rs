//! What an engine that was killed while it started a container leaves of it: containerd holds a task that a new engine
//! does not know, does not end, and that keeps the container from ever starting again (`already exists`); one that runs
//! would write to the container's data beside it. Its shim is ended; containerd then ends and forgets the task.

use std::path::Path;
use std::time::Duration;

use bollard::Docker;
use rustix::process::{Pid, Signal, kill_process};

use super::super::{Error, Result};
use super::failed;

/// How often a start is tried again, and the pause before.
const AGAIN: (usize, Duration) = (10, Duration::from_millis(200));
/// How long the shim of a container that was removed may take to end by itself.
const LINGERS: Duration = Duration::from_secs(5);

/// Starts a container; what is left of an earlier start is ended first.
pub(super) async fn start(client: &Docker, id: &str) -> Result<()> {
    let mut left = AGAIN.0;
    loop {
        let started = client.start_container(id, None).await.map_err(|why| failed(id, why));
        if left == 0 || !started.as_ref().is_err_and(|why| is_in_the_way(why, id)) {
            return started;
        }
        left -= 1;
        end(id).await;
        tokio::time::sleep(AGAIN.1).await;
    }
}

/// After a container was removed: nothing of it stays.
pub(super) async fn removed(id: &str) {
    if !shims(id).await.is_empty() {
        let id = id.to_owned();
        tokio::spawn(async move {
            tokio::time::sleep(LINGERS).await;
            end(&id).await;
        });
    }
}

/// Whether the engine was refused because of a task that it does not know.
fn is_in_the_way(why: &Error, id: &str) -> bool {
    match why {
        // 409 `id already in use`: the container's record in containerd.
        Error::NameInUse(_) => true,
        // Of what runc left of a start that was broken off: the id is not in its message. containerd removes it with the
        // failed start.
        Error::Refused(text) if text.contains("container with given ID already exists") => true,
        // Of a folder of containerd's, too.
        Error::Refused(text) => text.contains(id) && (text.contains("already exists") || text.contains("file exists")),
        _ => false,
    }
}

async fn end(id: &str) {
    for shim in shims(id).await {
        tracing::warn!(container = id, "what an engine that was killed left of it is ended");
        // It may have ended by itself.
        let _ = kill_process(shim, Signal::KILL);
    }
}

/// containerd's processes for a container; the id is the whole one, for a part could be that of another.
async fn shims(id: &str) -> Vec<Pid> {
    let id = id.to_owned();
    let found = tokio::task::spawn_blocking(move || {
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.filter(|pid| is_shim(&std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default(), &id))
            .filter_map(Pid::from_raw)
            .collect()
    });
    found.await.unwrap_or_default()
}

/// Whether a command line, as `/proc/PID/cmdline` has it, is that of `containerd-shim-runc-v2 … -id ID`.
fn is_shim(line: &[u8], id: &str) -> bool {
    let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
    let program = words.first().and_then(|word| std::str::from_utf8(word).ok()).map(Path::new);
    let name = program.and_then(Path::file_name).and_then(|name| name.to_str()).unwrap_or_default();
    name.starts_with("containerd-shim") && words.windows(2).any(|pair| pair == [b"-id", id.as_bytes()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shim_is_known_by_its_program_and_the_whole_id() {
        let shim = b"/usr/bin/containerd-shim-runc-v2\0-namespace\0moby\0-id\0abc1\0-address\0/run/c.sock\0";
        assert!(is_shim(shim, "abc1"));
        assert!(!is_shim(shim, "abc"));
        assert!(!is_shim(shim, "moby"));
        assert!(!is_shim(b"/usr/bin/grep\0-id\0abc1\0", "abc1"));
        assert!(!is_shim(b"", "abc1"));
    }

    #[test]
    fn only_a_task_of_its_own_stands_in_the_way_of_a_container() {
        let refused = |text: &str| Error::Refused(text.to_owned());
        assert!(is_in_the_way(&refused("task abc1: already exists"), "abc1"));
        assert!(is_in_the_way(&refused("failed to create task for container: task abc1: already exists"), "abc1"));
        let folder =
            "failed to start shim: mkdir /run/containerd/io.containerd.runtime.v2.task/moby/abc1: file exists: unknown";
        assert!(is_in_the_way(&refused(folder), "abc1"));
        assert!(is_in_the_way(&Error::NameInUse("abc1".to_owned()), "abc1"));
        let runc = "OCI runtime create failed: runc create failed: container with given ID already exists: unknown";
        assert!(is_in_the_way(&refused(runc), "abc1"));
        assert!(!is_in_the_way(&refused("endpoint with name web already exists in network front"), "abc1"));
        assert!(!is_in_the_way(&Error::Away("gone".to_owned()), "abc1"));
    }
}
