//! What the kernel says about the host's own addresses.

use std::net::Ipv4Addr;

/// The host's own IPv4 addresses, every bridge's gateway among them, from the text of `/proc/net/fib_trie`; without
/// loopback, which each network namespace has for itself.
#[must_use]
pub fn own(text: &str) -> Vec<Ipv4Addr> {
    let mut found = Vec::new();
    let mut last: Option<Ipv4Addr> = None;
    for line in text.lines().map(str::trim) {
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address.parse().ok();
        } else if line == "/32 host LOCAL"
            && let Some(address) = last.filter(|address| !address.is_loopback())
            && !found.contains(&address)
        {
            found.push(address);
        }
    }
    found
}

/// The host's own way out, from the text of `/proc/net/route`.
#[must_use]
pub fn gateway(text: &str) -> Option<Ipv4Addr> {
    text.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (to, via, mask) = (fields.get(1)?, fields.get(2)?, fields.get(7)?);
        let via = Ipv4Addr::from(u32::from_be(u32::from_str_radix(via, 16).ok()?));
        (*to == "00000000" && *mask == "00000000" && !via.is_unspecified()).then_some(via)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_addresses_are_those_that_the_kernel_calls_local() {
        let text = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n     |-- 192.0.2.0\n        /24 link UNICAST\n     \
                    |-- 192.0.2.2\n        /32 host LOCAL\n     |-- 127.0.0.1\n        /32 host LOCAL\nLocal:\n     \
                    |-- 192.0.2.2\n        /32 host LOCAL\n     |-- 192.0.2.255\n        /32 link BROADCAST\n";
        assert_eq!(own(text), [Ipv4Addr::new(192, 0, 2, 2)]);
    }

    #[test]
    fn the_way_out_is_that_of_the_default_route() {
        let head = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n";
        let link = "br\t000012C6\t00000000\t0001\t0\t0\t0\t00FFFFFF\n";
        let out = "eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\n";
        assert_eq!(gateway(&format!("{head}{link}{out}")), Some(Ipv4Addr::new(192, 0, 2, 1)));
        assert_eq!(gateway(&format!("{head}{link}")), None);
    }
}
