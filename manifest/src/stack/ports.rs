//! `ports:` and `expose:`.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use crate::problem::Code;
use crate::reader::{Keys, Reader, shown};
use crate::yaml::{Node, Value};

/// Most ports of a service.
const MAX_PORTS: usize = 100;

const LONG: Keys =
    Keys { known: &["target", "published", "protocol", "mode", "host_ip", "app_protocol", "name"], absent: &[] };

/// One mapping.
struct Mapping {
    container: RangeInclusive<u16>,
    /// A host port or address was asked for.
    host: bool,
    udp: bool,
}

/// The published container ports; what host side was asked for is told once.
pub(super) fn published(r: &mut Reader, node: &Node, place: &str) -> Vec<u16> {
    let place = format!("ports of {place}");
    let mut ports = Vec::new();
    let mut host = false;
    for item in r.list(node, &place).unwrap_or_default() {
        let Some(mapping) = mapping(r, item, &place) else { continue };
        if mapping.udp {
            r.notice(
                item.pos,
                format!("{} in {place} is not published: only TCP is; the stack itself reaches it", shown(item)),
            );
            continue;
        }
        host |= mapping.host;
        add(&mut ports, mapping.container);
    }
    if host {
        r.notice(
            node.pos,
            format!("{place}: the host's side is not taken; each published port gets a stable address from Muster"),
        );
    }
    limited(r, node, &place, ports)
}

/// Ports that only the stack reaches.
pub(super) fn exposed(r: &mut Reader, node: &Node, place: &str) -> Vec<u16> {
    let place = format!("expose of {place}");
    let mut ports = Vec::new();
    for item in r.list(node, &place).unwrap_or_default() {
        let Some(text) = r.text(item, &place) else { continue };
        match protocol(text).and_then(|(text, udp)| range(text).map(|range| (range, udp))) {
            Some((range, false)) => add(&mut ports, range),
            Some((_, true)) => {}
            None => wrong(r, item, &place),
        }
    }
    limited(r, node, &place, ports)
}

fn add(ports: &mut Vec<u16>, range: RangeInclusive<u16>) {
    for port in range.take(MAX_PORTS + 1) {
        if !ports.contains(&port) && ports.len() <= MAX_PORTS {
            ports.push(port);
        }
    }
}

fn limited(r: &mut Reader, node: &Node, place: &str, ports: Vec<u16>) -> Vec<u16> {
    if ports.len() > MAX_PORTS {
        r.problem(Code::StackRange, node.pos, format!("{place} are more than {MAX_PORTS}"), "name those that are used");
    }
    ports
}

fn wrong(r: &mut Reader, node: &Node, place: &str) {
    let hint = "write \"CONTAINER\", \"HOST:CONTAINER\" or \"ADDRESS:HOST:CONTAINER\", each from 1 to 65535 or a range such as 3000-3005";
    r.problem(Code::StackPort, node.pos, format!("{place} has {}", shown(node)), hint);
}

fn mapping(r: &mut Reader, node: &Node, place: &str) -> Option<Mapping> {
    if let Value::Map(_) = &node.value {
        return long(r, node, place);
    }
    let text = r.text(node, place)?;
    let mapping = short(text);
    if mapping.is_none() {
        wrong(r, node, place);
    }
    mapping
}

fn short(text: &str) -> Option<Mapping> {
    let (text, udp) = protocol(text)?;
    let (rest, container) = match text.rsplit_once(':') {
        Some((rest, container)) => (Some(rest), range(container)?),
        None => (None, range(text)?),
    };
    let Some(rest) = rest else { return Some(Mapping { container, host: false, udp }) };
    let (address, host) = match rest.rsplit_once(':') {
        Some((address, host)) => (Some(address), host),
        None => (None, rest),
    };
    if let Some(address) = address {
        let bare = address.strip_prefix('[').and_then(|a| a.strip_suffix(']')).unwrap_or(address);
        bare.parse::<IpAddr>().ok()?;
    }
    if !host.is_empty() {
        let host = if host == "0" { 0..=0 } else { range(host)? };
        if host.len() != container.len() && container.len() != 1 {
            return None;
        }
    }
    Some(Mapping { container, host: true, udp })
}

fn long(r: &mut Reader, node: &Node, place: &str) -> Option<Mapping> {
    let fields = r.fields(node, place, &LONG)?;
    let Some(target) = fields.get("target") else {
        r.missing(node.pos, "target", place, "write the container's port");
        return None;
    };
    let container = r.port(target, &format!("target in {place}"))?;
    let mut host = fields.get("host_ip").is_some();
    if let Some(published) = fields.get("published") {
        host = true;
        let text = r.text(published, place)?;
        if !text.is_empty() && text != "0" && range(text).is_none() {
            wrong(r, published, place);
        }
    }
    let udp = match fields.get("protocol") {
        None => false,
        Some(node) => match r.text(node, place)? {
            "tcp" => false,
            "udp" => true,
            _ => {
                r.problem(Code::StackPort, node.pos, format!("protocol in {place} is {}", shown(node)), "use tcp");
                return None;
            }
        },
    };
    Some(Mapping { container: container..=container, host, udp })
}

/// The text without its protocol, and whether that was UDP.
fn protocol(text: &str) -> Option<(&str, bool)> {
    match text.split_once('/') {
        None => Some((text, false)),
        Some((text, "tcp")) => Some((text, false)),
        Some((text, "udp")) => Some((text, true)),
        Some(_) => None,
    }
}

/// `80` or `3000-3005`.
fn range(text: &str) -> Option<RangeInclusive<u16>> {
    let port = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| text.parse::<u16>().ok()).flatten().filter(|port| *port > 0)
    };
    match text.split_once('-') {
        None => port(text).map(|port| port..=port),
        Some((first, last)) => Some(port(first)?..=port(last)?).filter(|range| !range.is_empty()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_are_read_in_their_short_forms() {
        for (text, first, last, host, udp) in [
            ("80", 80, 80, false, false),
            ("8080:80", 80, 80, true, false),
            ("127.0.0.1:8080:80", 80, 80, true, false),
            ("[::1]:8080:80/tcp", 80, 80, true, false),
            ("53:53/udp", 53, 53, true, true),
            ("3000-3002", 3000, 3002, false, false),
            ("9000-9001:80-81", 80, 81, true, false),
            ("127.0.0.1::80", 80, 80, true, false),
            ("9000-9005:80", 80, 80, true, false),
        ] {
            let mapping = short(text).expect(text);
            assert_eq!(
                (*mapping.container.start(), *mapping.container.end(), mapping.host, mapping.udp),
                (first, last, host, udp),
                "{text}"
            );
        }
        for text in [
            "",
            "0",
            "70000",
            "80:",
            "a:80",
            "80/sctp",
            "1.2.3:1:80",
            "3-1",
            "1-3:80-81",
            "x:80:80",
            "80 80",
            "+80",
            "-1",
        ] {
            assert!(short(text).is_none(), "{text:?}");
        }
    }
}
