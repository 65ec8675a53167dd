//! Who listens on a port, as far as `/proc` tells.

use std::fs;
use std::path::Path;

/// Most processes looked at.
const MOST_PROCESSES: usize = 20_000;
const LISTEN: &str = "0A";

/// Name and id of a process of this network namespace that listens on `port`; `None` when it cannot be found.
pub(super) fn of_port(port: u16) -> Option<String> {
    let inode = ["tcp", "tcp6"].iter().find_map(|table| {
        let text = fs::read_to_string(Path::new("/proc/self/net").join(table)).ok()?;
        listening_inode(&text, port)
    })?;
    let wanted = format!("socket:[{inode}]");
    for process in fs::read_dir("/proc").ok()?.flatten().take(MOST_PROCESSES) {
        let name = process.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        if has_descriptor(&process.path(), &wanted) {
            let command = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some(format!("`{}` (process {pid})", command.trim()));
        }
    }
    None
}

fn listening_inode(table: &str, port: u16) -> Option<u64> {
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let (_, local) = fields.get(1)?.rsplit_once(':')?;
        let listens = fields.get(3) == Some(&LISTEN) && u16::from_str_radix(local, 16) == Ok(port);
        listens.then(|| fields.get(9)?.parse().ok()).flatten()
    })
}

fn has_descriptor(process: &Path, wanted: &str) -> bool {
    fs::read_dir(process.join("fd")).is_ok_and(|descriptors| {
        descriptors.flatten().any(|one| fs::read_link(one.path()).is_ok_and(|target| target.as_os_str() == wanted))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_of_this_process_is_named() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let holder = of_port(port).expect("found");
        assert!(holder.contains(&std::process::id().to_string()), "{holder}");
    }

    #[test]
    fn an_odd_table_has_no_listener() {
        assert_eq!(listening_inode("", 80), None);
        assert_eq!(listening_inode("head\n0: x\n1: 0100007F:0050 00:0 01 a b c d e 77\n", 80), None);
        assert_eq!(listening_inode("head\n1: 0100007F:0050 00:0 0A a b c d e 77\n", 80), Some(77));
    }
}
