//! Memory of processes that have nothing to do.

use std::time::Duration;

use tests::harness::cluster::Cluster;

use super::report::section;

const HOSTS: usize = 3;

/// Resident, proportional and own size in MiB. Own is what no file stands behind: heap and stacks.
fn memory(pid: u32) -> [f64; 3] {
    let value = |file: &str, key: &str| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_default().to_owned();
        line.split_whitespace().nth(1).and_then(|kib| kib.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
    };
    [value("status", "VmRSS:"), value("smaps_rollup", "Pss:"), value("status", "RssAnon:")]
}

pub fn measure() -> String {
    let cluster = Cluster::start();
    let hosts: Vec<_> = (1..=HOSTS).map(|n| cluster.host(&format!("web-{n}")).join()).collect();
    // Several heartbeats: what joining needed has been given back or has not.
    std::thread::sleep(Duration::from_secs(20));
    let row = |name: &str, pid: u32, goal: &str| {
        let sizes = memory(pid).map(|size| format!("{size:.1}"));
        std::iter::once(name.to_owned()).chain(sizes).chain([goal.to_owned()]).collect::<Vec<_>>()
    };
    let mut rows = vec![row("coordinator, SQLite, 3 hosts", cluster.coordinator.pid().expect("it runs"), "60")];
    rows.push(row("agent", hosts[0].agent.pid().expect("it runs"), "15"));
    rows.extend(hosts[0].processes("relay").iter().map(|pid| row("its relay", *pid, "")));
    section(
        "Memory, idle",
        &["process", "resident MiB", "proportional MiB", "own MiB", "goal (resident)"],
        &rows,
        "After 20 s with nothing to do; `VmRSS`, `Pss` of `smaps_rollup`, and `RssAnon`: heap and stacks. The rest of what is resident are pages of \
         the programs' own files, which the kernel keeps in its cache once for all processes and takes back when it needs them.",
    )
}
