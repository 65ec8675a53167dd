//! Whether the host has room for what nobody asked for yet.

use crate::host::Host;

/// Memory that must stay available, as a part of all: below the first no slot is made, below the second those that are
/// there go.
const MEMORY: (u64, u64) = (4, 10);

/// What there is room for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Room {
    /// Another slot can be made.
    pub enough: bool,
    /// Slots that are there have to go.
    pub short: bool,
}

/// Looks at memory, load and the pool.
#[must_use]
pub fn look(host: &Host) -> Room {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let (floor, free) = (host.pool.floor(), host.pool.available());
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let mut room = weigh(&read("/proc/meminfo"), &read("/proc/loadavg"), processors, host.policy.warm_load());
    room.enough &= free / 2 >= floor;
    room.short |= free < floor;
    room
}

fn weigh(memory: &str, load: &str, processors: usize, most: f64) -> Room {
    let field = |name: &str| -> Option<u64> {
        let line = memory.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().trim_end_matches("kB").trim().parse().ok()
    };
    // Where nothing can be known nothing is made, and nothing removed.
    let (Some(total), Some(free)) = (field("MemTotal:"), field("MemAvailable:")) else {
        return Room { enough: false, short: false };
    };
    let load: f64 = load.split(' ').next().and_then(|text| text.parse().ok()).unwrap_or(f64::MAX);
    let processors = u32::try_from(processors).unwrap_or(u32::MAX);
    Room { enough: free >= total / MEMORY.0 && load <= most * f64::from(processors), short: free < total / MEMORY.1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(available: u64) -> String {
        format!("MemTotal:       1000 kB\nMemFree: 1 kB\nMemAvailable:   {available} kB\n")
    }

    #[test]
    fn a_busy_host_makes_no_slots_and_one_without_memory_gives_them_up() {
        let at = |available, load: &str| weigh(&memory(available), load, 2, 0.7);
        assert_eq!(at(500, "1.40 2.0 3.0"), Room { enough: true, short: false });
        assert_eq!(at(500, "1.41 0.0 0.0"), Room { enough: false, short: false });
        assert_eq!(at(249, "0.0"), Room { enough: false, short: false });
        assert_eq!(at(99, "0.0"), Room { enough: false, short: true });
        assert_eq!(weigh("", "", 2, 0.7), Room { enough: false, short: false });
    }
}
