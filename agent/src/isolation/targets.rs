//! Where a service must not get to.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};

/// Most connections that are tried from one service.
pub const MAX: usize = 2000;
/// Ports on which stores and shells listen that no stack needs to declare.
const USUAL: [u16; 8] = [22, 80, 2375, 3306, 5432, 6379, 8080, 9200];
/// Where clouds hand out the host's own credentials.
const METADATA: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(169, 254, 169, 254), 80);

/// A running container of an environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spot {
    /// The environment's id.
    pub environment: String,
    /// The service.
    pub service: String,
    /// The container's name.
    pub name: String,
    /// A process in it.
    pub pid: u32,
    /// Its addresses on all networks.
    pub addresses: Vec<Ipv4Addr>,
    /// Ports that its stack declares.
    pub ports: Vec<u16>,
    /// It has a way out.
    pub egress: bool,
}

/// What is around.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Around {
    /// The host's own addresses, also on bridges.
    pub host: Vec<Ipv4Addr>,
    /// Ports that the host's relay published.
    pub published: BTreeSet<u16>,
    /// Where the coordinator is.
    pub coordinators: Vec<SocketAddrV4>,
    /// The host's way out.
    pub gateway: Option<Ipv4Addr>,
}

/// Everything that `from` should not get a connection to, and what each is called. What matters most comes first: of
/// more than [`MAX`] the rest is left out.
#[must_use]
pub fn of(from: &Spot, all: &[Spot], around: &Around) -> BTreeMap<SocketAddrV4, String> {
    let mut targets = Targets::default();
    targets.add(METADATA, "the metadata address");
    let outside = around.coordinators.iter().filter(|one| !one.ip().is_loopback());
    for coordinator in outside {
        if around.host.contains(coordinator.ip()) || !from.egress {
            targets.add(*coordinator, "the coordinator");
        }
    }
    if let Some(gateway) = around.gateway.filter(|_| !from.egress) {
        for port in [53, 80] {
            targets.add(SocketAddrV4::new(gateway, port), "the host's gateway");
        }
    }
    for other in all.iter().filter(|other| other.environment != from.environment) {
        for (address, port) in product(&other.addresses, other.ports.iter().chain(&USUAL)) {
            targets.add(SocketAddrV4::new(address, port), &other.name);
        }
    }
    let coordinator = around.coordinators.iter().map(SocketAddrV4::port).collect::<Vec<_>>();
    for (address, port) in product(&around.host, USUAL.iter().chain(&coordinator)) {
        targets.add(SocketAddrV4::new(address, port), "the host");
    }
    // The own gateways and the host's outward addresses before the many gateways of others.
    let mut host = around.host.clone();
    host.sort_by_key(|address| !from.addresses.iter().any(|own| u32::from(*own) >> 4 == u32::from(*address) >> 4));
    for (address, port) in product(&host, around.published.iter()) {
        targets.add(SocketAddrV4::new(address, port), "a published port");
    }
    targets.0
}

#[derive(Default)]
struct Targets(BTreeMap<SocketAddrV4, String>);

impl Targets {
    fn add(&mut self, address: SocketAddrV4, what: &str) {
        if self.0.len() < MAX {
            self.0.entry(address).or_insert_with(|| what.to_owned());
        }
    }
}

fn product<'a>(
    addresses: &'a [Ipv4Addr],
    ports: impl Iterator<Item = &'a u16> + Clone + 'a,
) -> impl Iterator<Item = (Ipv4Addr, u16)> + 'a {
    addresses.iter().flat_map(move |address| ports.clone().map(move |port| (*address, *port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spot(environment: &str, last: u8, egress: bool) -> Spot {
        Spot {
            environment: environment.to_owned(),
            service: "db".to_owned(),
            name: format!("muster-{environment}-db"),
            pid: 1,
            addresses: vec![Ipv4Addr::new(198, 18, 0, last)],
            ports: vec![7000],
            egress,
        }
    }

    fn around() -> Around {
        Around {
            host: vec![Ipv4Addr::new(192, 0, 2, 2), Ipv4Addr::new(198, 18, 0, 17)],
            published: BTreeSet::from([20_000]),
            coordinators: vec!["203.0.113.9:7443".parse().expect("an address")],
            gateway: Some(Ipv4Addr::new(192, 0, 2, 1)),
        }
    }

    #[test]
    fn everything_foreign_is_tried_and_nothing_of_the_own() {
        let (one, own, other) = (spot("a", 2, false), spot("a", 3, false), spot("b", 18, false));
        let targets = of(&one, &[one.clone(), own, other], &around());
        let has = |text: &str| targets.contains_key(&text.parse().expect("an address"));
        for wanted in [
            "169.254.169.254:80",
            "198.18.0.18:7000",
            "198.18.0.18:5432",
            "198.18.0.17:22",
            "192.0.2.2:7443",
            "192.0.2.2:20000",
            "198.18.0.17:20000",
            "203.0.113.9:7443",
            "192.0.2.1:80",
        ] {
            assert!(has(wanted), "{wanted} in {targets:?}");
        }
        let own = [Ipv4Addr::new(198, 18, 0, 2), Ipv4Addr::new(198, 18, 0, 3)];
        assert!(targets.keys().all(|target| !own.contains(target.ip())), "{targets:?}");
    }

    #[test]
    fn a_way_out_that_was_asked_for_is_no_leak() {
        let one = spot("a", 2, true);
        let targets = of(&one, std::slice::from_ref(&one), &around());
        assert!(!targets.contains_key(&"203.0.113.9:7443".parse().expect("an address")));
        assert!(!targets.keys().any(|target| *target.ip() == Ipv4Addr::new(192, 0, 2, 1)));
        assert!(targets.contains_key(&"169.254.169.254:80".parse().expect("an address")));
    }

    #[test]
    fn however_much_there_is_the_number_is_bounded() {
        let all: Vec<Spot> = (0..250).map(|number| spot(&format!("e{number}"), number, false)).collect();
        assert_eq!(of(&all[0], &all, &around()).len(), MAX);
    }
}
