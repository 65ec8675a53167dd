//! Processes of this machine as `/proc` shows them.

use std::collections::{BTreeMap, BTreeSet};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

/// One line of `/proc/PID/stat`, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) parent: i32,
    pub(super) zombie: bool,
    /// Ticks since the boot: with the pid it names a process for ever.
    pub(super) started: u64,
}

/// `None` for a process that is not there (any more).
pub(super) fn stat(pid: i32) -> Option<Stat> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in parentheses and may itself hold some.
    let rest = text.rsplit_once(')')?.1;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    Some(Stat {
        parent: fields.get(1)?.parse().ok()?,
        zombie: matches!(fields.first(), Some(&("Z" | "X"))),
        started: fields.get(19)?.parse().ok()?,
    })
}

/// All living processes below `root`, without itself. A subreaper's orphans are among them.
pub(super) fn below(root: i32) -> BTreeSet<i32> {
    let mut children: BTreeMap<i32, Vec<(i32, bool)>> = BTreeMap::new();
    for pid in pids() {
        if let Some(stat) = stat(pid) {
            children.entry(stat.parent).or_default().push((pid, stat.zombie));
        }
    }
    let mut found = BTreeSet::new();
    let mut open = vec![root];
    while let Some(parent) = open.pop() {
        for (pid, zombie) in children.remove(&parent).unwrap_or_default() {
            if !zombie {
                found.insert(pid);
            }
            open.push(pid);
        }
    }
    found
}

fn pids() -> impl Iterator<Item = i32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Sends KILL to each; true if there was any.
pub(super) fn kill(pids: &BTreeSet<i32>) -> bool {
    for pid in pids {
        if let Some(pid) = Pid::from_raw(*pid) {
            kill_process(pid, Signal::KILL).ok();
        }
    }
    !pids.is_empty()
}

/// Reaps dead children of this process other than `main`, which somebody else waits for.
pub(super) fn reap_orphans(main: Option<i32>) {
    let me = rustix::process::getpid().as_raw_nonzero().get();
    for pid in pids().filter(|pid| Some(*pid) != main) {
        if stat(pid).is_some_and(|stat| stat.parent == me && stat.zombie) {
            waitpid(Pid::from_raw(pid), WaitOptions::NOHANG).ok();
        }
    }
}
