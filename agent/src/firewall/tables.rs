//! The kernel's filter tables: through `iptables`, whichever of its two backends the host has, or in memory for tests.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use super::rules::Family;

/// Longest time that one call may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long the tools wait for each other.
const WAIT: &str = "5";
/// Where they lie on hosts whose services do not have these folders in their path.
const FOLDERS: &str = "/usr/sbin:/sbin:/usr/bin:/bin";

/// The filter tables of both protocols.
#[async_trait]
pub trait Tables: Send + Sync + std::fmt::Debug {
    /// Whether the host speaks this protocol at all.
    fn has(&self, family: Family) -> bool;
    /// All lines of the filter table as `iptables -S` prints them, or why they cannot be read.
    async fn read(&self, family: Family) -> Result<Vec<String>, String>;
    /// Applies a text for `iptables-restore --noflush`: all of it or, with the reason, nothing.
    async fn write(&self, family: Family, text: &str) -> Result<(), String>;
}

/// The real ones.
#[derive(Debug, Default, Clone, Copy)]
pub struct Iptables;

#[async_trait]
impl Tables for Iptables {
    fn has(&self, family: Family) -> bool {
        family == Family::V4 || std::path::Path::new("/proc/net/if_inet6").exists()
    }

    async fn read(&self, family: Family) -> Result<Vec<String>, String> {
        let program = match family {
            Family::V4 => "iptables",
            Family::V6 => "ip6tables",
        };
        let printed = run(program, &["-w", WAIT, "-S"], "").await?;
        Ok(printed.lines().map(str::to_owned).collect())
    }

    async fn write(&self, family: Family, text: &str) -> Result<(), String> {
        let program = match family {
            Family::V4 => "iptables-restore",
            Family::V6 => "ip6tables-restore",
        };
        run(program, &["-w", WAIT, "--noflush"], text).await.map(drop)
    }
}

async fn run(program: &str, arguments: &[&str], input: &str) -> Result<String, String> {
    let failed = |why: std::io::Error| match why.kind() {
        std::io::ErrorKind::NotFound => format!("{program} is not installed"),
        _ => format!("{program}: {why}"),
    };
    let path = std::env::var("PATH").map_or_else(|_| FOLDERS.to_owned(), |path| format!("{path}:{FOLDERS}"));
    let work = async {
        let mut child = Command::new(program)
            .args(arguments)
            .env("PATH", path)
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        if let Some(mut stdin) = child.stdin.take() {
            // It may have ended already; then its status says why.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
        let ended = child.wait_with_output().await.map_err(failed)?;
        if ended.status.success() {
            return Ok(String::from_utf8_lossy(&ended.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&ended.stderr);
        let line = said.lines().find(|line| !line.trim().is_empty()).unwrap_or("it failed and said nothing");
        Err(format!("{program}: {}", line.trim().chars().take(300).collect::<String>()))
    };
    tokio::time::timeout(TIMEOUT, work).await.unwrap_or_else(|_| Err(format!("{program} does not end")))
}

/// Tables in memory, which understand what [`super::rules`] writes.
#[derive(Debug, Default, Clone)]
pub struct Memory(Arc<Mutex<Held>>);

#[derive(Debug, Default)]
struct Held {
    refuses: Option<String>,
    chains: BTreeMap<Family, BTreeMap<String, Vec<String>>>,
    writes: u32,
}

impl Memory {
    fn held(&self) -> std::sync::MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on every call fails so; or works again.
    pub fn refuse(&self, why: Option<&str>) {
        self.held().refuses = why.map(str::to_owned);
    }

    /// How often something was written.
    #[must_use]
    pub fn writes(&self) -> u32 {
        self.held().writes
    }

    /// Somebody deletes all rules that contain `part`.
    pub fn delete(&self, part: &str) {
        for chains in self.held().chains.values_mut() {
            for rules in chains.values_mut() {
                rules.retain(|rule| !rule.contains(part));
            }
        }
    }
}

#[async_trait]
impl Tables for Memory {
    fn has(&self, _family: Family) -> bool {
        true
    }

    async fn read(&self, family: Family) -> Result<Vec<String>, String> {
        // As the real ones: others get their turn meanwhile.
        tokio::task::yield_now().await;
        let mut held = self.held();
        if let Some(why) = &held.refuses {
            return Err(why.clone());
        }
        let chains = held.chains.entry(family).or_default();
        let names = chains.keys().filter(|name| name.starts_with("MUSTER-")).map(|name| format!("-N {name}"));
        Ok(names.chain(chains.values().flatten().cloned()).collect())
    }

    async fn write(&self, family: Family, text: &str) -> Result<(), String> {
        let mut held = self.held();
        if let Some(why) = &held.refuses {
            return Err(why.clone());
        }
        held.writes += 1;
        let chains = held.chains.entry(family).or_default();
        for line in text.lines() {
            let mut words = line.split(' ');
            let (verb, name) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            let rule = |line: &str| format!("-A{}", line.get(2..).unwrap_or_default());
            match verb {
                "-A" => chains.entry(name.to_owned()).or_default().push(line.to_owned()),
                "-I" => chains.entry(name.to_owned()).or_default().insert(0, rule(line).replacen(" 1 ", " ", 1)),
                "-D" => chains.entry(name.to_owned()).or_default().retain(|held| *held != rule(line)),
                "-X" => drop(chains.remove(name)),
                _ => {
                    if let Some(chain) = verb.strip_prefix(':') {
                        chains.insert(chain.to_owned(), Vec::new());
                    }
                }
            }
        }
        Ok(())
    }
}
