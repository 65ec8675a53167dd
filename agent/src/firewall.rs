//! The agent's own firewall chains: around the bridges of all environments, made before the first container starts, and
//! put back when somebody deletes a rule. Without the right or the tools to make them that is told, never hidden.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Mutex as Turn;

use crate::subnets::Block;

pub mod rules;
pub mod tables;

use rules::{Family, Open, Wall};
use tables::Tables;

/// How often a step that somebody else's came in between of is tried.
const ATTEMPTS: u32 = 3;
/// Most rules that are named when they were put back.
const NAMED: usize = 3;

/// Whether environments are kept apart.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Standing {
    /// No environment needed it yet.
    Idle,
    /// All rules are in place.
    Enforced,
    /// Some are not, and why.
    Not(String),
}

/// What was written last.
#[derive(Debug, Default)]
struct Written {
    /// For these environments; none: it is not known to be there.
    environments: Option<BTreeSet<String>>,
    /// As the kernel printed it right after.
    lines: BTreeMap<Family, Vec<String>>,
}

/// The chains of one agent.
#[derive(Debug)]
pub struct Firewall {
    host: String,
    block: Block,
    open: Vec<Open>,
    tables: Arc<dyn Tables>,
    wanted: Mutex<BTreeSet<String>>,
    standing: Mutex<Standing>,
    written: Turn<Written>,
    /// How often rules were missing.
    put_back: AtomicU64,
    /// Which, the last time, for people.
    missed: Mutex<Option<String>>,
}

fn lock<T>(held: &Mutex<T>) -> MutexGuard<'_, T> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Firewall {
    /// Nothing is written yet. `host` is the end of the host's id, `block` where all networks of agents on this
    /// machine have their addresses, `open` what of the host environments may reach.
    #[must_use]
    pub fn new(host: String, block: Block, open: Vec<Open>, tables: Arc<dyn Tables>) -> Self {
        Self {
            host,
            block,
            open,
            tables,
            wanted: Mutex::default(),
            standing: Mutex::new(Standing::Idle),
            written: Turn::default(),
            put_back: AtomicU64::new(0),
            missed: Mutex::default(),
        }
    }

    /// How often rules were missing and were put back.
    #[must_use]
    pub fn put_back(&self) -> u64 {
        self.put_back.load(Ordering::Relaxed)
    }

    /// Whether environments are kept apart.
    #[must_use]
    pub fn standing(&self) -> Standing {
        lock(&self.standing).clone()
    }

    /// A remark for people if they are not, or were not.
    #[must_use]
    pub fn notice(&self) -> Option<String> {
        match self.standing() {
            Standing::Not(why) => Some(format!("isolation: not enforced: {why}")),
            Standing::Idle | Standing::Enforced => lock(&self.missed).clone(),
        }
    }

    /// Has the bridges of these environments kept apart (ends of ids), beside those known already. When this returns
    /// the rules are there, or [`Firewall::standing`] says why not.
    pub async fn add(&self, environments: impl IntoIterator<Item = String>) {
        lock(&self.wanted).extend(environments);
        self.settle().await;
    }

    /// An environment is gone. With the last one everything of this agent goes.
    pub async fn forget(&self, environment: &str) {
        lock(&self.wanted).remove(environment);
        self.settle().await;
    }

    /// Writes what is wanted now; whoever waited for the turn may find it done by another.
    async fn settle(&self) {
        let mut written = self.written.lock().await;
        let wanted = lock(&self.wanted).clone();
        if written.environments.as_ref() != Some(&wanted) {
            self.write(&mut written, wanted).await;
        }
    }

    /// Looks whether everything is as it was written, and puts it back otherwise. Answers what was missing.
    pub async fn check(&self) -> Option<String> {
        let mut written = self.written.lock().await;
        let wanted = lock(&self.wanted).clone();
        if wanted.is_empty() && written.environments.as_ref() == Some(&wanted) {
            return None;
        }
        let wall = self.wall(wanted.clone());
        let mut missing = Vec::new();
        for family in self.families() {
            match self.tables.read(family).await {
                Ok(now) => missing.extend(differences(&wall, &now, written.lines.get(&family))),
                // The attempt to write tells why.
                Err(_) => written.environments = None,
            }
        }
        let told = summary(&missing);
        if told.is_some() || written.environments.as_ref() != Some(&wanted) {
            self.write(&mut written, wanted).await;
        }
        told.inspect(|what| {
            self.put_back.fetch_add(1, Ordering::Relaxed);
            let at = clock();
            *lock(&self.missed) =
                Some(format!("isolation: firewall rules were missing and were put back at {at}: {what}"));
            tracing::warn!(%what, "firewall rules were missing and are put back");
        })
    }

    fn families(&self) -> impl Iterator<Item = Family> {
        [Family::V4, Family::V6].into_iter().filter(|family| self.tables.has(*family))
    }

    fn wall(&self, environments: BTreeSet<String>) -> Wall {
        Wall { host: self.host.clone(), environments, block: self.block, open: self.open.clone() }
    }

    async fn write(&self, written: &mut Written, wanted: BTreeSet<String>) {
        let wall = self.wall(wanted);
        let mut standing = if wall.environments.is_empty() { Standing::Idle } else { Standing::Enforced };
        // Whoever waits for this may be dropped in the middle: it counts once all of it is there.
        written.environments = None;
        for family in self.families() {
            match self.apply(&wall, family).await {
                Ok(lines) => {
                    written.lines.insert(family, lines);
                }
                // Tried again at the next look.
                Err(why) => {
                    standing = Standing::Not(why);
                    break;
                }
            }
        }
        if !matches!(standing, Standing::Not(_)) {
            written.environments = Some(wall.environments.clone());
        }
        if let Standing::Not(why) = &standing {
            // Without environments nobody misses them.
            if wall.environments.is_empty() {
                tracing::debug!(%why, "the firewall cannot be cleared");
                standing = Standing::Idle;
            } else {
                tracing::error!(%why, "isolation is not enforced");
            }
        }
        *lock(&self.standing) = standing;
    }

    async fn apply(&self, wall: &Wall, family: Family) -> Result<Vec<String>, String> {
        let mut last = String::new();
        for _ in 0..ATTEMPTS {
            let now = self.tables.read(family).await?;
            let text = if wall.environments.is_empty() {
                let Some(text) = wall.clear(&now) else { return Ok(Vec::new()) };
                text
            } else {
                wall.replace(family, &now)
            };
            // Somebody else may have changed something since it was read; then all of it was refused.
            crate::failpoints::effect("firewall.write");
            if let Err(why) = self.tables.write(family, &text).await {
                last = why;
                continue;
            }
            let after = self.tables.read(family).await?;
            let own = wall.own(&after);
            let expected = if wall.environments.is_empty() { 0 } else { wall.rules(family).len() };
            if own.len() == expected && (expected == 0 || wall.unhooked(&after).is_empty()) {
                return Ok(own);
            }
            "the rules that were written are not there".clone_into(&mut last);
        }
        Err(last)
    }
}

/// `12:03:11 UTC`.
fn clock() -> String {
    let seconds = crate::clock::now().0.div_euclid(1_000_000).rem_euclid(86_400);
    format!("{:02}:{:02}:{:02} UTC", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// Removes all chains of the agent of a host, whatever they hold.
///
/// # Errors
/// `host` is no id, or the tables cannot be read or written.
pub async fn clear(host: &str, tables: &dyn Tables) -> Result<(), String> {
    let id: domain::ids::HostId = host.parse().map_err(|why| format!("{why}"))?;
    let short = crate::host::short(&id.to_string());
    let wall = Wall { host: short, environments: BTreeSet::new(), block: Block::NONE, open: Vec::new() };
    for family in [Family::V4, Family::V6].into_iter().filter(|family| tables.has(*family)) {
        if let Some(text) = wall.clear(&tables.read(family).await?) {
            tables.write(family, &text).await?;
        }
    }
    Ok(())
}

/// What is not as it was written.
fn differences(wall: &Wall, now: &[String], written: Option<&Vec<String>>) -> Vec<String> {
    let own = wall.own(now);
    let written = written.map(Vec::as_slice).unwrap_or_default();
    let mut found: Vec<String> = Vec::new();
    if !written.is_empty() {
        found.extend(wall.unhooked(now).into_iter().map(|base| format!("the jump from {base}")));
    }
    let missing = written.iter().filter(|line| !own.contains(line));
    found.extend(missing.map(|line| line.trim_start_matches("-A ").to_owned()));
    if found.is_empty() && own != written {
        found.push("the order of the rules, or a surplus one".to_owned());
    }
    found
}

fn summary(missing: &[String]) -> Option<String> {
    let (named, more) = missing.split_at(missing.len().min(NAMED));
    match (named.is_empty(), more.len()) {
        (true, _) => None,
        (false, 0) => Some(named.join("; ")),
        (false, more) => Some(format!("{}; and {more} more", named.join("; "))),
    }
}

#[cfg(test)]
mod tests {
    use super::tables::Memory;
    use super::*;

    fn firewall(host: &str, tables: &Memory) -> Firewall {
        let block = "198.18.0.0/15".parse().expect("a block");
        Firewall::new(host.to_owned(), block, Vec::new(), Arc::new(tables.clone()))
    }

    #[tokio::test]
    async fn a_deleted_rule_is_named_and_put_back() {
        let tables = Memory::default();
        let firewall = firewall("0000000000aa", &tables);
        firewall.add(["00000000e001".to_owned()]).await;
        assert_eq!(firewall.standing(), Standing::Enforced);
        assert_eq!(firewall.check().await, None);
        let before = tables.read(Family::V4).await.expect("read");
        tables.delete("-IN -i mi-00000000e001");
        let told = firewall.check().await.expect("something was missing");
        assert!(told.contains("mi-00000000e001"), "{told}");
        assert_eq!(tables.read(Family::V4).await.expect("read"), before);
        assert!(firewall.notice().is_some_and(|notice| notice.contains("were put back")), "{:?}", firewall.notice());
        tables.delete("INPUT -j MUSTER");
        assert!(firewall.check().await.is_some_and(|told| told.contains("INPUT")));
        assert_eq!(firewall.check().await, None);
    }

    #[tokio::test]
    async fn the_last_environment_takes_everything_along_and_other_agents_stay() {
        let tables = Memory::default();
        let (one, two) = (firewall("0000000000aa", &tables), firewall("0000000000bb", &tables));
        one.add(["00000000e001".to_owned(), "00000000e002".to_owned()]).await;
        two.add(["00000000e003".to_owned()]).await;
        one.forget("00000000e001").await;
        assert_eq!((one.check().await, two.check().await), (None, None));
        one.forget("00000000e002").await;
        let left = tables.read(Family::V4).await.expect("read");
        assert!(left.iter().all(|line| !line.contains("0000000000aa")), "{left:?}");
        assert_eq!(two.check().await, None);
        assert_eq!(one.standing(), Standing::Idle);
    }

    #[tokio::test]
    async fn chains_of_an_agent_that_is_gone_are_cleared_by_its_id() {
        let tables = Memory::default();
        firewall("0000000000aa", &tables).add(["00000000e001".to_owned()]).await;
        firewall("0000000000bb", &tables).add(["00000000e002".to_owned()]).await;
        assert!(clear("x; reboot", &tables).await.is_err());
        clear("0189abcd-0000-7000-8000-0000000000aa", &tables).await.expect("cleared");
        for family in [Family::V4, Family::V6] {
            let left = tables.read(family).await.expect("read");
            assert!(left.iter().all(|line| !line.contains("0000000000aa")), "{left:?}");
            assert!(left.iter().any(|line| line.contains("0000000000bb")), "{left:?}");
        }
    }

    #[tokio::test]
    async fn what_cannot_be_enforced_is_told_and_tried_again() {
        let tables = Memory::default();
        tables.refuse(Some("iptables: Permission denied (you must be root)"));
        let firewall = firewall("0000000000aa", &tables);
        firewall.add(["00000000e001".to_owned()]).await;
        let notice = firewall.notice().expect("a notice");
        assert!(notice.starts_with("isolation: not enforced: iptables: Permission denied"), "{notice}");
        tables.refuse(None);
        assert_eq!(firewall.check().await, None);
        assert_eq!(firewall.notice(), None);
    }

    /// Found with the engine killed at each step of a clone: what else was being made failed, and the wall was dropped.
    #[tokio::test]
    async fn whoever_is_dropped_while_it_writes_leaves_nothing_that_passes_for_written() {
        for steps in 0..100 {
            let tables = Memory::default();
            let firewall = firewall("0000000000aa", &tables);
            firewall.add(["00000000e001".to_owned()]).await;
            let mut dropped = Box::pin(firewall.add(["00000000e002".to_owned()]));
            let mut ended = false;
            for _ in 0..steps {
                ended = ended || futures::poll!(&mut dropped).is_ready();
            }
            drop(dropped);
            firewall.add(["00000000e002".to_owned()]).await;
            let wall = firewall.wall(lock(&firewall.wanted).clone());
            for family in [Family::V4, Family::V6] {
                let own = wall.own(&tables.read(family).await.expect("read"));
                assert_eq!(own.len(), wall.rules(family).len(), "dropped after {steps} steps: {own:?}");
            }
            assert_eq!(firewall.check().await, None, "dropped after {steps} steps");
            if ended {
                assert!(steps > 4, "it was dropped in between");
                return;
            }
        }
        panic!("it does not end");
    }

    #[tokio::test]
    async fn many_at_once_are_written_in_few_steps() {
        let tables = Memory::default();
        let firewall = firewall("0000000000aa", &tables);
        let all = (0..40).map(|number| firewall.add([format!("{number:012}")]));
        futures::future::join_all(all).await;
        assert!(tables.writes() <= 8, "{} writes", tables.writes());
        assert_eq!(firewall.check().await, None);
    }
}
