//! When an unused environment goes to sleep, why it does not, and when it ends: pure, asked again and again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::stack::{Idle, Stack, Ttl};
use crate::time::{Timestamp, format_duration};

/// A warning comes so long before the end, or half of the `ttl` if that is shorter.
pub const NOTICE: Duration = Duration::from_secs(86_400);

/// How deep an environment sleeps.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Tier {
    /// Its services run.
    #[default]
    Awake,
    /// They are frozen: in memory, without a turn on a CPU.
    Frozen,
    /// They are stopped; data, ports and credentials are there.
    Asleep,
}

/// Traffic of a published port.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PortUse {
    /// The service behind it.
    pub service: String,
    /// Connections open.
    pub open: u64,
    /// Connections and requests that wait for it.
    pub waiting: u64,
    /// Last byte or request.
    pub last_used: Option<Timestamp>,
    /// Some of those who are connected.
    pub peers: Vec<String>,
}

/// A transaction that is under way in a store, whoever began it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Transaction {
    /// The store.
    pub service: String,
    /// Who, as the store tells it.
    pub by: String,
}

/// How an environment is used.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    /// When it was looked at. What is decided from it is decided as of then: a store that was not worth asking a moment
    /// before the limit may have an open transaction at it.
    pub seen: Timestamp,
    /// Last use that is known otherwise: made, woken, ordered, a command run in it.
    pub last_used: Timestamp,
    /// Its published ports.
    pub ports: Vec<PortUse>,
    /// Open transactions.
    pub transactions: Vec<Transaction>,
    /// Commands that somebody runs in it.
    pub guests: u64,
}

impl Usage {
    /// The last use of any kind.
    #[must_use]
    pub fn last(&self) -> Timestamp {
        self.ports.iter().filter_map(|port| port.last_used).fold(self.last_used, Timestamp::max)
    }
}

/// What to do with an environment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Turn {
    /// Nothing.
    Stay,
    /// Freeze its services.
    Freeze,
    /// Stop its services.
    Stop,
}

/// Whether it is time for a deeper sleep. A connection that waits and an open transaction keep awake; an open
/// connection without traffic does not.
#[must_use]
pub fn turn(idle: Idle, tier: Tier, usage: &Usage) -> Turn {
    if usage.guests > 0 || usage.ports.iter().any(|port| port.waiting > 0) || !usage.transactions.is_empty() {
        return Turn::Stay;
    }
    let unused = usage.seen.since(usage.last());
    let due = |after: Option<Duration>| after.is_some_and(|after| unused >= after);
    match tier {
        Tier::Awake | Tier::Frozen if due(idle.stop) => Turn::Stop,
        Tier::Awake if due(idle.freeze) => Turn::Freeze,
        _ => Turn::Stay,
    }
}

/// How often use is looked at: often enough that sleep comes at most a quarter of its limit late.
#[must_use]
pub fn look_every(idle: Idle) -> Option<Duration> {
    let first = idle.freeze.into_iter().chain(idle.stop).min()?;
    Some((first / 4).clamp(Duration::from_millis(50), Duration::from_secs(30)))
}

/// Whether open transactions would be the only reason to stay awake: stores are asked only then.
#[must_use]
pub fn worth_asking(idle: Idle, usage: &Usage) -> bool {
    turn(idle, Tier::Awake, usage) != Turn::Stay
}

/// Why an environment is awake or asleep, in a line without its state: `2 connections to postgres (from 127.0.0.1:40222)`.
#[must_use]
pub fn why(idle: Idle, tier: Tier, usage: &Usage) -> String {
    let limit = |name: &str, after: Option<Duration>| {
        let after = after.map(format_duration).unwrap_or_default();
        format!("not used for {after} (idle.{name})")
    };
    match tier {
        Tier::Frozen => return limit("freeze", idle.freeze),
        Tier::Asleep => return limit("stop", idle.stop),
        Tier::Awake => {}
    }
    let mut reasons: Vec<String> = usage
        .transactions
        .iter()
        .map(|one| format!("a transaction in {}{}", one.service, parenthesis(one.by.clone())))
        .collect();
    match usage.guests {
        0 => {}
        1 => reasons.push("a command runs in it".to_owned()),
        many => reasons.push(format!("{many} commands run in it")),
    }
    for port in usage.ports.iter().filter(|port| port.open > 0) {
        let plural = if port.open == 1 { "connection" } else { "connections" };
        let from =
            parenthesis(if port.peers.is_empty() { String::new() } else { format!("from {}", port.peers.join(", ")) });
        reasons.push(format!("{} {plural} to {}{from}", port.open, port.service));
    }
    match (reasons.is_empty(), idle.freeze, idle.stop) {
        (false, _, _) => reasons.join("; "),
        (true, Some(after), _) => format!("used within the last {}", format_duration(after)),
        (true, None, Some(after)) => format!("used within the last {}; never frozen", format_duration(after)),
        (true, None, None) => "never put to sleep (idle: never)".to_owned(),
    }
}

fn parenthesis(text: String) -> String {
    if text.is_empty() { text } else { format!(" ({text})") }
}

/// Services in the order of stopping: all of one group at once, who depends on others before them.
#[must_use]
pub fn stop_order(stack: &Stack) -> Vec<Vec<String>> {
    let mut left: BTreeSet<&String> = stack.services.keys().collect();
    let mut groups = Vec::new();
    while !left.is_empty() {
        let needed: BTreeSet<&String> = left
            .iter()
            .filter_map(|name| stack.services.get(*name))
            .flat_map(|service| service.depends_on.keys())
            .collect();
        let mut group: Vec<String> =
            left.iter().filter(|name| !needed.contains(*name)).map(|name| (*name).clone()).collect();
        if group.is_empty() {
            // A circle, which no stack file that was read has: all at once.
            group = left.iter().map(|name| (*name).clone()).collect();
        }
        left.retain(|name| !group.contains(name));
        groups.push(group);
    }
    groups
}

/// What is known of an environment's end.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tenure {
    /// Its last use.
    pub last_used: Timestamp,
    /// Kept until then, whatever its use.
    pub keep_until: Option<Timestamp>,
    /// The end that was warned of, and when.
    pub warned: Option<(Timestamp, Timestamp)>,
}

/// What to do about an environment's end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expiry {
    /// Nothing yet.
    Keep,
    /// Say that it ends then.
    Warn(Timestamp),
    /// End it.
    Remove,
}

impl Tenure {
    /// When it ends if it is not used any more.
    #[must_use]
    pub fn ends(&self, ttl: Ttl) -> Timestamp {
        let unused = self.last_used.plus(ttl.0);
        self.keep_until.map_or(unused, |until| until.max(unused))
    }

    /// Whether to warn of the end, or to end it. Nothing ends without a warning a notice before, also after a long
    /// absence of whoever asks; a use after a warning takes it back.
    #[must_use]
    pub fn expiry(&self, ttl: Ttl, now: Timestamp) -> Expiry {
        let ends = self.ends(ttl);
        let notice = NOTICE.min(ttl.0 / 2);
        match self.warned {
            Some((of, at)) if of == ends => {
                if now >= ends && now.since(at) >= notice {
                    Expiry::Remove
                } else {
                    Expiry::Keep
                }
            }
            _ if now.plus(notice) >= ends => Expiry::Warn(ends),
            _ => Expiry::Keep,
        }
    }
}

/// Services to restart or to build again, each with the generation that asked for it, as far as that is not done.
#[must_use]
pub fn still_to_do(asked: &BTreeMap<String, u64>, done: &BTreeMap<String, u64>) -> BTreeSet<String> {
    asked
        .iter()
        .filter(|(service, generation)| done.get(*service).is_none_or(|done| done < *generation))
        .map(|(service, _)| service.clone())
        .collect()
}

#[cfg(test)]
mod tests;
