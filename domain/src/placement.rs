//! Where something new goes, and why not anywhere else.

use std::fmt;

use crate::host::{Host, Liveness};
use crate::ids::HostId;
use crate::label::Selector;
use crate::name::Name;

/// Which hosts are asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Among {
    /// This one and no other.
    Host(HostId),
    /// Those with these labels.
    Labels(Selector),
}

/// What is to be placed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Request {
    /// Which hosts are asked.
    pub among: Among,
    /// Bytes of memory that must be available; 0: not known.
    pub memory_bytes: u64,
    /// Bytes of disk that must be free; 0: not known.
    pub disk_bytes: u64,
}

/// A host that is asked.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// The host.
    pub host: &'a Host,
    /// Whether it is heard from, now.
    pub liveness: Liveness,
    /// Environments and runs that it has already: the least busy one wins.
    pub load: u32,
    /// Bytes of memory that its environments have.
    pub memory_bytes: u64,
}

/// Why a host cannot take it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum WhyNot {
    /// It lacks these labels, as `key=value`.
    Labels(Vec<String>),
    /// It is being emptied.
    Draining,
    /// It is not heard from, never was, or its results are still coming in.
    NotReady(Liveness),
    /// Its container engine does not answer.
    NoEngine,
    /// It has too little memory available.
    Memory {
        /// Bytes needed.
        needs: u64,
        /// Bytes available.
        has: u64,
    },
    /// Its policy allows no more environments.
    Environments {
        /// Those it has.
        has: u32,
        /// Those it may have.
        limit: u32,
    },
    /// Its policy allows environments no more memory.
    EnvironmentMemory {
        /// Bytes needed.
        needs: u64,
        /// Bytes that they have.
        has: u64,
        /// Bytes that they may have.
        limit: u64,
    },
    /// It has too little disk.
    Disk {
        /// Bytes needed.
        needs: u64,
        /// Bytes free.
        has: u64,
    },
}

impl fmt::Display for WhyNot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: &u64| bytes >> 20;
        match self {
            Self::Labels(missing) => write!(f, "lacks {}", missing.join(",")),
            Self::Draining => f.write_str("is draining"),
            Self::NotReady(Liveness::Unreachable) => f.write_str("is unreachable"),
            Self::NotReady(Liveness::Joined) => f.write_str("has joined and never been heard from"),
            Self::NotReady(Liveness::Syncing | Liveness::Ready) => f.write_str("is syncing"),
            Self::NoEngine => f.write_str("has no container engine that answers"),
            Self::Memory { needs, has } => {
                write!(f, "has {} MiB of memory available, {} MiB are needed", mib(has), mib(needs))
            }
            Self::Environments { has, limit } => {
                write!(f, "has {has} of the {limit} environments that its policy allows")
            }
            Self::EnvironmentMemory { needs, has, limit } => write!(
                f,
                "has environments of {} MiB, of {} MiB that its policy allows, and {} MiB are needed",
                mib(has),
                mib(limit),
                mib(needs)
            ),
            Self::Disk { needs, has } => write!(f, "has {} MiB of disk free, {} MiB are needed", mib(has), mib(needs)),
        }
    }
}

/// No host can take it; one line per host that was asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Nowhere(pub Vec<(Name, WhyNot)>);

impl Nowhere {
    /// Whether a policy of a host whose labels fit is all that stands in the way of some host.
    #[must_use]
    pub fn is_quota(&self) -> bool {
        let quota = |why: &WhyNot| matches!(why, WhyNot::Environments { .. } | WhyNot::EnvironmentMemory { .. });
        self.is_only(quota)
    }

    /// Whether an engine that does not answer is all that stands in the way of some host whose labels fit.
    #[must_use]
    pub fn is_engine(&self) -> bool {
        self.is_only(|why| *why == WhyNot::NoEngine)
    }

    fn is_only(&self, what: impl Fn(&WhyNot) -> bool) -> bool {
        self.0.iter().any(|(_, why)| what(why))
            && self.0.iter().all(|(_, why)| what(why) || matches!(why, WhyNot::Labels(_)))
    }

    /// What two questions with different labels came to: a host that fits one of them is not said to lack the other's.
    #[must_use]
    pub fn and(mut self, later: Self) -> Self {
        for (name, why) in later.0 {
            match self.0.iter_mut().find(|(known, _)| *known == name) {
                Some((_, known)) if matches!(known, WhyNot::Labels(_)) => *known = why,
                Some(_) => {}
                None => self.0.push((name, why)),
            }
        }
        self
    }

    /// Whether waiting can help: some host has the labels, and is away, busy or draining only for now.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        self.0.iter().any(|(_, why)| !matches!(why, WhyNot::Labels(_)))
    }
}

impl fmt::Display for Nowhere {
    /// Hosts whose labels fit come first; at most five are named.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("there is no host");
        }
        let by_labels = |(_, why): &&(Name, WhyNot)| matches!(why, WhyNot::Labels(_));
        let near = self.0.iter().filter(|line| !by_labels(line));
        let far = self.0.iter().filter(by_labels);
        for (n, (host, why)) in near.chain(far).take(5).enumerate() {
            let before = if n == 0 { "" } else { "; " };
            write!(f, "{before}{host} {why}")?;
        }
        if self.0.len() > 5 {
            write!(f, "; and {} more", self.0.len() - 5)?;
        }
        Ok(())
    }
}

/// The least busy host that can take it; among equals the one with most memory available, then by name.
///
/// # Errors
/// Says of each host why not.
pub fn place(request: &Request, hosts: &[Candidate<'_>]) -> Result<HostId, Nowhere> {
    let asked = hosts.iter().filter(|candidate| match &request.among {
        Among::Host(id) => candidate.host.id == *id,
        Among::Labels(_) => true,
    });
    let mut refused = Vec::new();
    let mut fitting = Vec::new();
    for candidate in asked {
        match why_not(request, candidate) {
            None => fitting.push(candidate),
            Some(why) => refused.push((candidate.host.name.clone(), why)),
        }
    }
    let best = fitting.into_iter().min_by_key(|candidate| {
        let memory = candidate.host.facts.memory_available_bytes;
        (candidate.load, std::cmp::Reverse(memory), candidate.host.name.clone())
    });
    best.map(|candidate| candidate.host.id).ok_or(Nowhere(refused))
}

fn why_not(request: &Request, candidate: &Candidate<'_>) -> Option<WhyNot> {
    let host = candidate.host;
    if let Among::Labels(selector) = &request.among {
        let missing = selector.missing(&host.labels);
        if !missing.is_empty() {
            return Some(WhyNot::Labels(missing));
        }
    }
    if host.draining {
        return Some(WhyNot::Draining);
    }
    if candidate.liveness != Liveness::Ready {
        return Some(WhyNot::NotReady(candidate.liveness));
    }
    if host.facts.engine_version.is_empty() {
        return Some(WhyNot::NoEngine);
    }
    let (most, limit) = (host.facts.max_environments, host.facts.max_environment_bytes);
    if most > 0 && candidate.load >= most {
        return Some(WhyNot::Environments { has: candidate.load, limit: most });
    }
    let held = candidate.memory_bytes;
    if limit > 0 && (held >= limit || held.saturating_add(request.memory_bytes) > limit) {
        return Some(WhyNot::EnvironmentMemory { needs: request.memory_bytes, has: held, limit });
    }
    let (memory, disk) = (host.facts.memory_available_bytes, host.facts.disk_available_bytes);
    if memory < request.memory_bytes {
        return Some(WhyNot::Memory { needs: request.memory_bytes, has: memory });
    }
    if disk < request.disk_bytes {
        return Some(WhyNot::Disk { needs: request.disk_bytes, has: disk });
    }
    None
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::host::Facts;
    use crate::label::parse_labels;
    use crate::time::Timestamp;

    fn host(number: u128, name: &str, labels: &str) -> Host {
        Host {
            id: HostId::new(Uuid::from_u128(number)),
            name: Name::new("host", name).unwrap(),
            labels: parse_labels(labels).unwrap(),
            draining: false,
            facts: Facts {
                engine_version: "28".into(),
                memory_available_bytes: 4 << 30,
                disk_available_bytes: 40 << 30,
                ..Facts::default()
            },
            joined_at: Timestamp(0),
            seen_at: None,
            liveness: Liveness::Ready,
        }
    }

    fn request(selector: &str) -> Request {
        Request { among: Among::Labels(Selector::parse(selector).unwrap()), memory_bytes: 1 << 30, disk_bytes: 0 }
    }

    fn ready(host: &Host, load: u32) -> Candidate<'_> {
        Candidate { host, liveness: Liveness::Ready, load, memory_bytes: 0 }
    }

    #[test]
    fn the_least_busy_host_with_the_labels_is_taken() {
        let (a, b, c) = (host(1, "a", "role=test"), host(2, "b", "role=test"), host(3, "c", "role=web"));
        let hosts = [ready(&a, 2), ready(&b, 1), ready(&c, 0)];
        assert_eq!(place(&request("role=test"), &hosts), Ok(b.id));
    }

    #[test]
    fn each_host_says_why_not() {
        let mut draining = host(1, "a", "role=test");
        draining.draining = true;
        let away = host(2, "b", "role=test");
        let mut small = host(3, "c", "role=test");
        small.facts.memory_available_bytes = 1 << 20;
        let other = host(4, "d", "");
        let mut engineless = host(5, "e", "role=test");
        engineless.facts.engine_version.clear();
        let hosts = [
            ready(&draining, 0),
            Candidate { liveness: Liveness::Unreachable, ..ready(&away, 0) },
            ready(&small, 0),
            ready(&other, 0),
            ready(&engineless, 0),
        ];
        let nowhere = place(&request("role=test"), &hosts).unwrap_err();
        assert_eq!(
            nowhere.to_string(),
            "a is draining; b is unreachable; c has 1 MiB of memory available, 1024 MiB are needed; \
             e has no container engine that answers; d lacks role=test"
        );
        assert!(nowhere.may_pass());
    }

    #[test]
    fn a_host_that_fits_one_of_two_questions_says_why_not_instead_of_the_labels_it_lacks() {
        let mut own = host(1, "a", "owner=asha");
        own.facts.engine_version.clear();
        let other = host(2, "b", "owner=bo");
        let hosts = [ready(&own, 0), ready(&other, 0)];
        let ask = |selector| place(&request(selector), &hosts).unwrap_err();
        let nowhere = ask("owner=asha").and(ask("role=dev"));
        assert_eq!(nowhere.to_string(), "a has no container engine that answers; b lacks role=dev");
        assert!(nowhere.is_engine() && !ask("role=dev").is_engine());
    }

    #[test]
    fn a_named_host_is_taken_or_nobody() {
        let (a, b) = (host(1, "a", ""), host(2, "b", ""));
        let asked = Request { among: Among::Host(b.id), memory_bytes: 0, disk_bytes: 0 };
        assert_eq!(place(&asked, &[ready(&a, 0), ready(&b, 9)]), Ok(b.id));
        let away = Candidate { liveness: Liveness::Syncing, ..ready(&b, 0) };
        assert_eq!(place(&asked, &[ready(&a, 0), away]).unwrap_err().to_string(), "b is syncing");
    }

    #[test]
    fn a_hosts_policy_limits_environments_and_their_memory() {
        let mut a = host(1, "a", "role=test");
        (a.facts.max_environments, a.facts.max_environment_bytes) = (2, 2 << 30);
        let said =
            |candidate| place(&request("role=test"), &[candidate]).map_err(|why| (why.is_quota(), why.to_string()));
        let with = |load, memory_bytes| Candidate { memory_bytes, ..ready(&a, load) };
        assert_eq!(said(with(1, 1 << 30)), Ok(a.id));
        let full = "a has 2 of the 2 environments that its policy allows".to_owned();
        assert_eq!(said(with(2, 0)), Err((true, full)));
        let (_, memory) = said(with(1, (1 << 30) + 1)).unwrap_err();
        assert_eq!(
            memory,
            "a has environments of 1024 MiB, of 2048 MiB that its policy allows, and 1024 MiB are needed"
        );
    }
}
