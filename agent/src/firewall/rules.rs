//! The text of the agent's own chains, in the form in which the kernel's tools print rules. Nothing here touches them.
//!
//! Docker keeps bridges apart in FORWARD only. Every container reaches its gateway, and through it whatever listens on
//! the host; so what comes in from a bridge of ours is dropped unless it is a reply or was declared.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use crate::subnets::Block;

/// Which of the two Internet protocols.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6; no bridge of ours has it, so nothing of it passes.
    V6,
}

/// A port of the host that environments may reach, written `53/udp`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Open {
    port: u16,
    udp: bool,
}

impl FromStr for Open {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is not a port such as 53/udp or 8080/tcp");
        let (port, protocol) = text.split_once('/').ok_or_else(bad)?;
        let port = port.parse().ok().filter(|port| *port > 0).ok_or_else(bad)?;
        match protocol {
            "tcp" => Ok(Self { port, udp: false }),
            "udp" => Ok(Self { port, udp: true }),
            _ => Err(bad()),
        }
    }
}

impl fmt::Display for Open {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.port, if self.udp { "udp" } else { "tcp" })
    }
}

/// Name of an environment's bridge without a way out; `short` is the end of the environment's id. 15 characters.
#[must_use]
pub fn inner(short: &str) -> String {
    format!("mi-{short}")
}

/// Name of an environment's bridge with a way out. 15 characters.
#[must_use]
pub fn outer(short: &str) -> String {
    format!("mo-{short}")
}

/// What is to be kept apart on a host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wall {
    /// The end of the host's id: chains of several agents in one network namespace differ by it.
    pub host: String,
    /// Ends of the ids of all environments.
    pub environments: BTreeSet<String>,
    /// Where all agents' networks that environments should not reach have their addresses.
    pub block: Block,
    /// Ports of the host that environments may reach.
    pub open: Vec<Open>,
}

/// Chains that rules of ours are reached from; the second one of the last two where Docker made it: it comes first.
const BASES: [&str; 3] = ["INPUT", "FORWARD", "DOCKER-USER"];
const REPLIES: &str = "-m conntrack --ctstate RELATED,ESTABLISHED -j RETURN";

impl Wall {
    /// From an environment to the host.
    fn input(&self) -> String {
        format!("MUSTER-{}-IN", self.host)
    }

    /// What of the host an environment may reach.
    fn open_chain(&self) -> String {
        format!("MUSTER-{}-TO", self.host)
    }

    /// From an environment past the host, and the other way round.
    fn forward(&self) -> String {
        format!("MUSTER-{}-FWD", self.host)
    }

    fn chains(&self, family: Family) -> Vec<String> {
        match family {
            Family::V4 => vec![self.input(), self.open_chain(), self.forward()],
            Family::V6 => vec![self.input(), self.forward()],
        }
    }

    /// All rules of the agent's own chains.
    #[must_use]
    pub fn rules(&self, family: Family) -> Vec<String> {
        let (input, to, forward) = (self.input(), self.open_chain(), self.forward());
        let mut rules = Vec::new();
        if family == Family::V4 {
            rules.push(format!("-A {input} {REPLIES}"));
            rules.extend(self.open.iter().map(|open| {
                let protocol = if open.udp { "udp" } else { "tcp" };
                format!("-A {to} -p {protocol} -m {protocol} --dport {} -j RETURN", open.port)
            }));
            rules.push(format!("-A {to} -j DROP"));
            rules.push(format!("-A {forward} {REPLIES}"));
        }
        for short in &self.environments {
            for bridge in [inner(short), outer(short)] {
                rules.push(match family {
                    Family::V4 => format!("-A {input} -i {bridge} -g {to}"),
                    Family::V6 => format!("-A {input} -i {bridge} -j DROP"),
                });
                // Nothing new comes from elsewhere, be it another bridge or a neighbour of the host.
                rules.push(format!("-A {forward} ! -i {bridge} -o {bridge} -j DROP"));
            }
            match family {
                Family::V4 => rules.extend(self.way_out(short)),
                Family::V6 => {
                    for bridge in [inner(short), outer(short)] {
                        rules.push(format!("-A {forward} -i {bridge} ! -o {bridge} -j DROP"));
                    }
                }
            }
        }
        rules
    }

    /// What may not pass although there is a way out.
    fn way_out(&self, short: &str) -> Vec<String> {
        let (forward, inner, outer) = (self.forward(), inner(short), outer(short));
        vec![
            format!("-A {forward} -i {inner} ! -o {inner} -j DROP"),
            // The metadata service of clouds hands out the host's own credentials.
            format!("-A {forward} -d 169.254.0.0/16 -i {outer} -j DROP"),
            // Whatever was published by somebody's `docker run -p` has had its destination changed by now.
            format!("-A {forward} -i {outer} -m conntrack --ctstate DNAT -j DROP"),
            format!("-A {forward} -d {} -i {outer} ! -o {outer} -j DROP", self.block),
            format!("-A {forward} -i {outer} -o docker0 -j DROP"),
            format!("-A {forward} -i {outer} -o br-+ -j DROP"),
        ]
    }

    /// The chain that forwarded packets come to first.
    fn forward_base(now: &[String]) -> &'static str {
        if now.iter().any(|line| line == "-N DOCKER-USER") { "DOCKER-USER" } else { "FORWARD" }
    }

    fn hooks(&self, now: &[String]) -> [(&'static str, String); 2] {
        [("INPUT", self.input()), (Self::forward_base(now), self.forward())]
    }

    /// What of `now`, the lines of the whole filter table, is this agent's own.
    #[must_use]
    pub fn own(&self, now: &[String]) -> Vec<String> {
        let prefix = format!("-A MUSTER-{}-", self.host);
        now.iter().filter(|line| line.starts_with(&prefix)).cloned().collect()
    }

    /// Chains that should lead to ours and do not, or not before rules of others could decide.
    #[must_use]
    pub fn unhooked(&self, now: &[String]) -> Vec<String> {
        let is_hooked = |(base, chain): &(&'static str, String)| {
            let own = format!("-A {base} -j {chain}");
            let begins = format!("-A {base} ");
            let first = now.iter().filter(|line| line.starts_with(&begins));
            let ours = format!("-A {base} -j MUSTER-");
            let mut leading = first.take_while(|line| line.starts_with(&ours));
            leading.any(|line| *line == own)
        };
        self.hooks(now).iter().filter(|hook| !is_hooked(hook)).map(|(base, _)| (*base).to_owned()).collect()
    }

    fn jumps<'a>(&'a self, now: &'a [String]) -> impl Iterator<Item = &'a str> {
        let targets = [self.input(), self.forward()];
        now.iter().filter_map(move |line| {
            let rule = line.strip_prefix("-A ")?;
            let (base, target) = rule.split_once(" -j ")?;
            (BASES.contains(&base) && targets.iter().any(|own| own == target)).then_some(rule)
        })
    }

    /// Text for `iptables-restore --noflush` that makes everything so in one step.
    #[must_use]
    pub fn replace(&self, family: Family, now: &[String]) -> String {
        let mut text = String::from("*filter\n");
        for chain in self.chains(family) {
            text.push_str(&format!(":{chain} - [0:0]\n"));
        }
        for rule in self.rules(family) {
            text.push_str(&rule);
            text.push('\n');
        }
        if !self.unhooked(now).is_empty() {
            for jump in self.jumps(now) {
                text.push_str(&format!("-D {jump}\n"));
            }
            for (base, chain) in self.hooks(now) {
                text.push_str(&format!("-I {base} 1 -j {chain}\n"));
            }
        }
        text.push_str("COMMIT\n");
        text
    }

    /// Text that removes the agent's chains; none if there are none.
    #[must_use]
    pub fn clear(&self, now: &[String]) -> Option<String> {
        let prefix = format!("-N MUSTER-{}-", self.host);
        let chains: Vec<&str> =
            now.iter().filter(|line| line.starts_with(&prefix)).filter_map(|line| line.strip_prefix("-N ")).collect();
        if chains.is_empty() {
            return None;
        }
        let mut text = String::from("*filter\n");
        for chain in &chains {
            text.push_str(&format!(":{chain} - [0:0]\n"));
        }
        for jump in self.jumps(now) {
            text.push_str(&format!("-D {jump}\n"));
        }
        for chain in &chains {
            text.push_str(&format!("-X {chain}\n"));
        }
        text.push_str("COMMIT\n");
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wall(environments: &[&str]) -> Wall {
        Wall {
            host: "0000000000aa".to_owned(),
            environments: environments.iter().map(|short| (*short).to_owned()).collect(),
            block: "198.18.0.0/15".parse().expect("a block"),
            open: vec!["53/udp".parse().expect("a port")],
        }
    }

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(|line| line.trim().to_owned()).collect()
    }

    #[test]
    fn the_rules_of_one_environment() {
        let expected = lines(
            "-A MUSTER-0000000000aa-IN -m conntrack --ctstate RELATED,ESTABLISHED -j RETURN
             -A MUSTER-0000000000aa-TO -p udp -m udp --dport 53 -j RETURN
             -A MUSTER-0000000000aa-TO -j DROP
             -A MUSTER-0000000000aa-FWD -m conntrack --ctstate RELATED,ESTABLISHED -j RETURN
             -A MUSTER-0000000000aa-IN -i mi-00000000e001 -g MUSTER-0000000000aa-TO
             -A MUSTER-0000000000aa-FWD ! -i mi-00000000e001 -o mi-00000000e001 -j DROP
             -A MUSTER-0000000000aa-IN -i mo-00000000e001 -g MUSTER-0000000000aa-TO
             -A MUSTER-0000000000aa-FWD ! -i mo-00000000e001 -o mo-00000000e001 -j DROP
             -A MUSTER-0000000000aa-FWD -i mi-00000000e001 ! -o mi-00000000e001 -j DROP
             -A MUSTER-0000000000aa-FWD -d 169.254.0.0/16 -i mo-00000000e001 -j DROP
             -A MUSTER-0000000000aa-FWD -i mo-00000000e001 -m conntrack --ctstate DNAT -j DROP
             -A MUSTER-0000000000aa-FWD -d 198.18.0.0/15 -i mo-00000000e001 ! -o mo-00000000e001 -j DROP
             -A MUSTER-0000000000aa-FWD -i mo-00000000e001 -o docker0 -j DROP
             -A MUSTER-0000000000aa-FWD -i mo-00000000e001 -o br-+ -j DROP",
        );
        assert_eq!(wall(&["00000000e001"]).rules(Family::V4), expected);
    }

    #[test]
    fn nothing_of_the_other_protocol_passes_any_bridge() {
        let rules = wall(&["00000000e001"]).rules(Family::V6);
        for bridge in ["mi-00000000e001", "mo-00000000e001"] {
            for way in [format!("-IN -i {bridge}"), format!("-FWD -i {bridge} ! -o {bridge}")] {
                assert!(rules.iter().any(|rule| rule.ends_with(&format!("{way} -j DROP"))), "{way} in {rules:?}");
            }
        }
        assert!(rules.iter().all(|rule| rule.ends_with("-j DROP")), "{rules:?}");
    }

    #[test]
    fn names_fit_into_what_the_kernel_allows() {
        let wall = wall(&["00000000e001"]);
        assert!(wall.chains(Family::V4).iter().all(|chain| chain.len() <= 28));
        assert_eq!((inner("00000000e001").len(), outer("00000000e001").len()), (15, 15));
    }

    #[test]
    fn a_jump_behind_a_rule_of_others_is_moved_and_one_behind_another_agents_stays() {
        let wall = wall(&[]);
        let (own, other) = ("-j MUSTER-0000000000aa", "-j MUSTER-0000000000bb");
        let behind = lines(&format!(
            "-N DOCKER-USER\n-A INPUT -p tcp -j ACCEPT\n-A INPUT {own}-IN\n-A DOCKER-USER {other}-FWD\n-A DOCKER-USER {own}-FWD"
        ));
        assert_eq!(wall.unhooked(&behind), ["INPUT"]);
        let text = wall.replace(Family::V4, &behind);
        assert!(text.contains(&format!("-D INPUT {own}-IN\n")) && text.contains(&format!("-I INPUT 1 {own}-IN\n")));
        assert!(!text.contains("0000000000bb"), "{text}");
        let beside = lines(&format!("-A INPUT {other}-IN\n-A INPUT {own}-IN\n-A FORWARD {own}-FWD"));
        assert!(wall.unhooked(&beside).is_empty());
        assert!(!wall.replace(Family::V4, &beside).contains("-D "));
    }

    #[test]
    fn once_docker_has_its_chain_the_jump_moves_there() {
        let wall = wall(&[]);
        let own = "-j MUSTER-0000000000aa";
        let now = lines(&format!("-N DOCKER-USER\n-A INPUT {own}-IN\n-A FORWARD -j DOCKER-USER\n-A FORWARD {own}-FWD"));
        assert_eq!(wall.unhooked(&now), ["DOCKER-USER"]);
        let text = wall.replace(Family::V4, &now);
        assert!(text.contains(&format!("-D FORWARD {own}-FWD\n")), "{text}");
        assert!(text.contains(&format!("-I DOCKER-USER 1 {own}-FWD\n")), "{text}");
    }

    #[test]
    fn clearing_removes_the_own_chains_and_no_others() {
        let wall = wall(&[]);
        let (own, other) = ("MUSTER-0000000000aa", "MUSTER-0000000000bb");
        let now = lines(&format!(
            "-N {own}-FWD\n-N {own}-IN\n-N {other}-IN\n-A INPUT -j {other}-IN\n-A INPUT -j {own}-IN\n-A FORWARD -j {own}-FWD"
        ));
        let text = wall.clear(&now).expect("something to clear");
        assert_eq!(
            text,
            format!(
                "*filter\n:{own}-FWD - [0:0]\n:{own}-IN - [0:0]\n-D INPUT -j {own}-IN\n-D FORWARD -j {own}-FWD\n-X {own}-FWD\n-X {own}-IN\nCOMMIT\n"
            )
        );
        assert_eq!(wall.clear(&lines(&format!("-N {other}-IN"))), None);
    }

    #[test]
    fn ports_are_read_strictly() {
        assert_eq!("8080/tcp".parse::<Open>().map(|open| open.to_string()), Ok("8080/tcp".to_owned()));
        for bad in ["53", "0/udp", "53/sctp", "x/tcp", "70000/tcp", "53/udp -j ACCEPT"] {
            assert!(bad.parse::<Open>().is_err(), "{bad}");
        }
    }
}
