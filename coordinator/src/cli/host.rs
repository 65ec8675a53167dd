//! `muster host`.

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::Subcommand;
use proto::v1;

use super::client::Client;
use super::error::Error;
use super::output::{Output, dash, pairs};
use super::time;

/// Verbs of `muster host`.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// All hosts, or those with these labels
    List {
        /// KEY=VALUE,...
        #[arg(long, short = 'l', default_value = "")]
        selector: String,
    },
    /// One host with its facts
    Show {
        /// Name or id
        host: String,
    },
    /// Set labels with KEY=VALUE, take them away with KEY-
    Label {
        /// Name or id
        host: String,
        /// KEY=VALUE or KEY-
        #[arg(required = true)]
        changes: Vec<String>,
    },
    /// Place nothing new there
    Drain {
        /// Name or id
        host: String,
    },
    /// Place things there again
    Undrain {
        /// Name or id
        host: String,
    },
    /// Forget the host and revoke its certificate
    Remove {
        /// Name or id
        host: String,
        /// Also when it is reachable or holds environments or releases
        #[arg(long)]
        force: bool,
    },
}

/// Carries out a verb.
///
/// # Errors
/// See [`Error`].
pub async fn run(command: Command, client: &Client, output: &Output) -> Result<ExitCode, Error> {
    let mut hosts = client.hosts();
    match command {
        Command::List { selector } => {
            let list = hosts.list(v1::ListHostsRequest { selector }).await?.into_inner();
            output.show(&list, || print_list(&list.hosts, output))?;
        }
        Command::Show { host } => {
            let host = hosts.show(v1::ShowHostRequest { host }).await?.into_inner();
            output.show(&host, || print_host(&host, output))?;
        }
        Command::Label { host, changes } => {
            let (set, unset) = split_changes(&changes)?;
            let host = hosts.label(v1::LabelHostRequest { host, set, unset }).await?.into_inner();
            output.show(&host, || output.line(&format!("{}: {}", host.name, pairs(&host.labels))))?;
        }
        Command::Drain { host } => {
            let host = hosts.drain(v1::DrainHostRequest { host }).await?.into_inner();
            output.show(&host, || output.line(&format!("{}: draining; nothing new is placed there", host.name)))?;
        }
        Command::Undrain { host } => {
            let host = hosts.undrain(v1::DrainHostRequest { host }).await?.into_inner();
            output.show(&host, || output.line(&format!("{}: takes new work again", host.name)))?;
        }
        Command::Remove { host, force } => {
            let answer = hosts.remove(v1::RemoveHostRequest { host: host.clone(), force }).await?.into_inner();
            output.show(&answer, || output.line(&format!("{host}: removed")))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Splits `KEY=VALUE` and `KEY-`; shared with `muster config set`.
///
/// # Errors
/// A part is neither.
pub fn split_changes(changes: &[String]) -> Result<(BTreeMap<String, String>, Vec<String>), Error> {
    let mut set = BTreeMap::new();
    let mut unset = Vec::new();
    for change in changes {
        if let Some((key, value)) = change.split_once('=') {
            set.insert(key.to_owned(), value.to_owned());
        } else if let Some(key) = change.strip_suffix('-') {
            unset.push(key.to_owned());
        } else {
            return Err(Error::usage("E_USAGE", format!("{change:?}: write KEY=VALUE to set, KEY- to take away")));
        }
    }
    Ok((set, unset))
}

fn state(host: &v1::Host) -> String {
    let silent = time::duration(host.silent_micros);
    let text = match host.liveness() {
        v1::Liveness::Ready => "ready".to_owned(),
        v1::Liveness::Syncing => "syncing".to_owned(),
        v1::Liveness::Unreachable => format!("unreachable {silent}"),
        v1::Liveness::Joined | v1::Liveness::Unspecified => "joined, no session yet".to_owned(),
    };
    if host.draining { format!("{text}, draining") } else { text }
}

fn releases(host: &v1::Host) -> String {
    let one = |release: &v1::HostRelease| {
        let doubt = match (release.unknown, release.failing.is_empty()) {
            (true, _) => "?",
            (false, true) => "",
            (false, false) => " (failing)",
        };
        format!("{} {}{doubt}", release.target, release.number)
    };
    dash(host.releases.iter().map(one).collect::<Vec<_>>().join(", "))
}

fn count(n: u32) -> String {
    if n == 0 { "–".to_owned() } else { n.to_string() }
}

fn print_list(hosts: &[v1::Host], output: &Output) {
    let row = |host: &v1::Host| {
        let version = host.facts.as_ref().map(|facts| facts.agent_version.clone()).unwrap_or_default();
        let seen = if host.seen_at == 0 { "–".to_owned() } else { time::duration(host.silent_micros) };
        vec![
            host.name.clone(),
            pairs(&host.labels),
            state(host),
            dash(version),
            count(host.environments),
            count(host.runs),
            releases(host),
            seen,
        ]
    };
    let rows: Vec<Vec<String>> = hosts.iter().map(row).collect();
    output.table(&["HOST", "LABELS", "STATE", "AGENT", "ENVS", "RUNS", "RELEASES", "SEEN"], &rows);
}

/// Which pool, its room, what is in it, and why it is this one.
fn pool(facts: &v1::Facts, gib: impl Fn(u64) -> String) -> String {
    if facts.pool_backend.is_empty() {
        return dash(String::new());
    }
    format!(
        "{}, {} free of {}, {} own, {} shared ({})",
        facts.pool_backend,
        gib(facts.pool_available_bytes),
        gib(facts.pool_total_bytes),
        gib(facts.pool_own_bytes),
        gib(facts.pool_shared_bytes),
        facts.pool_why
    )
}

fn print_host(host: &v1::Host, output: &Output) {
    let facts = host.facts.clone().unwrap_or_default();
    let gib = |bytes: u64| format!("{}.{} GiB", bytes >> 30, ((bytes % (1 << 30)) * 10) >> 30);
    output.line(&format!("{}  {}", host.name, host.id));
    let pool = pool(&facts, gib);
    let lines = [
        ("state", format!("{} since {}", state(host), time::stamp(host.since))),
        ("labels", pairs(&host.labels)),
        ("joined", time::stamp(host.joined_at)),
        ("agent", dash(facts.agent_version)),
        ("engine", if facts.engine_version.is_empty() { "does not answer".to_owned() } else { facts.engine_version }),
        ("system", format!("{}, {}, {} cpus", facts.os, facts.platform, facts.cpus)),
        ("memory", format!("{} free of {}", gib(facts.memory_available_bytes), gib(facts.memory_bytes))),
        ("disk", format!("{} free of {}", gib(facts.disk_available_bytes), gib(facts.disk_bytes))),
        ("pool", pool),
        ("address", dash(facts.address)),
        ("holds", holds(host, facts.max_environments)),
        ("releases", releases(host)),
    ];
    for (name, value) in lines {
        output.line(&format!("  {name:<9} {value}"));
    }
    for release in host.releases.iter().filter(|release| !release.failing.is_empty()) {
        output.line(&format!("  {:<9} {} {}: {}", "failing", release.target, release.number, release.failing));
    }
    for stack in &host.warm {
        output.line(&format!("  {:<9} {}", "warm", warm(stack)));
    }
}

/// What runs on it of what its policy allows; slots of the warm pool give way to who asks.
fn holds(host: &v1::Host, most: u32) -> String {
    let slots: u32 = host.warm.iter().map(|stack| stack.ready.saturating_add(stack.making)).sum();
    let of = if most == 0 { String::new() } else { format!(" of {most}") };
    let slots = match slots {
        0 => String::new(),
        1 => ", and 1 slot of the warm pool in places that are free".to_owned(),
        many => format!(", and {many} slots of the warm pool in places that are free"),
    };
    format!("{} environments{of}{slots}; {} runs", host.environments, host.runs)
}

/// `shop with staging@3: 1 ready, 1 being made (2 kept)`.
fn warm(stack: &v1::WarmStack) -> String {
    let making = if stack.making == 0 { String::new() } else { format!(", {} being made", stack.making) };
    let (name, seed) = (&stack.stack, &stack.seed);
    format!("{name} with {seed}: {} ready{making} ({} kept)", stack.ready, stack.wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_counted_beside_environments() {
        let stack = v1::WarmStack { stack: "shop".into(), seed: "staging@3".into(), ready: 1, making: 1, wanted: 2 };
        assert_eq!(warm(&stack), "shop with staging@3: 1 ready, 1 being made (2 kept)");
        let host = v1::Host { environments: 3, runs: 1, warm: vec![stack], ..v1::Host::default() };
        assert_eq!(
            holds(&host, 8),
            "3 environments of 8, and 2 slots of the warm pool in places that are free; 1 runs"
        );
        assert_eq!(holds(&v1::Host::default(), 0), "0 environments; 0 runs");
    }
}
