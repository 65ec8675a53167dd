//! Memory of processes that have nothing to do.

use std::time::Duration;

use tests::harness::cluster::Cluster;

use super::report::section;

const HOSTS: usize = 3;

/// Resident and proportional size in MiB.
fn memory(pid: u32) -> (f64, f64) {
    let value = |file: &str, key: &str| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_default().to_owned();
        line.split_whitespace().nth(1).and_then(|kib| kib.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
    };
    (value("status", "VmRSS:"), value("smaps_rollup", "Pss:"))
}

pub fn measure() -> String {
    let cluster = Cluster::start();
    let hosts: Vec<_> = (1..=HOSTS).map(|n| cluster.host(&format!("web-{n}")).join()).collect();
    // Several heartbeats: what joining needed has been given back or has not.
    std::thread::sleep(Duration::from_secs(20));
    let row = |name: &str, pid: u32, goal: &str| {
        let (resident, proportional) = memory(pid);
        vec![name.to_owned(), format!("{resident:.1}"), format!("{proportional:.1}"), goal.to_owned()]
    };
    let mut rows = vec![row("coordinator, SQLite, 3 hosts", cluster.coordinator.pid().expect("it runs"), "60")];
    rows.push(row("agent", hosts[0].agent.pid().expect("it runs"), "15"));
    rows.extend(hosts[0].processes("relay").iter().map(|pid| row("its relay", *pid, "")));
    section(
        "Memory, idle",
        &["process", "resident MiB", "proportional MiB", "goal"],
        &rows,
        "After 20 s with nothing to do; `VmRSS`, and `Pss` of `smaps_rollup`.",
    )
}
