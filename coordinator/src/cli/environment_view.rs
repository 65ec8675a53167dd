//! Environments as lines of text.

use proto::v1;

use super::output::{Output, dash};
use super::seed_view::size;
use super::time;

/// What a wait is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wanted {
    /// All services ready.
    Ready,
    /// Nothing left.
    Gone,
}

/// Which environment of whom on which host.
pub fn head(environment: &v1::Environment) -> String {
    let app = if environment.app.is_empty() { &environment.name } else { &environment.app };
    format!("{app} · environment {}/{} on {}", environment.owner, environment.name, environment.host)
}

fn service_state(state: v1::ServiceState) -> &'static str {
    match state {
        v1::ServiceState::Unspecified => "?",
        v1::ServiceState::Waiting => "waiting",
        v1::ServiceState::Pulling => "pulling",
        v1::ServiceState::Starting => "starting",
        v1::ServiceState::Ready => "ready",
        v1::ServiceState::Done => "done",
        v1::ServiceState::Exited => "exited",
        v1::ServiceState::CrashLoop => "crash loop",
    }
}

fn service_line(service: &v1::Service, width: usize) -> String {
    let ready = if service.ready_after_micros > 0 { time::duration(service.ready_after_micros) } else { String::new() };
    format!("  {:<width$}  {:<9} {ready:<7}  {}", service.name, service_state(service.state()), service.detail)
        .trim_end()
        .to_owned()
}

/// What its data began with, and how it came.
fn data_line(environment: &v1::Environment) -> Option<String> {
    let from = if environment.seed.is_empty() { "data".to_owned() } else { format!("seed {}", environment.seed) };
    let known = !environment.seed.is_empty() || !environment.data.is_empty();
    known.then(|| format!("  {from}    {}", environment.data).trim_end().to_owned())
}

/// Bytes of its own, and those it shares with its seed.
fn disk(environment: &v1::Environment) -> String {
    match (environment.own_bytes, environment.shared_bytes) {
        (0, 0) => dash(""),
        (own, 0) => size(own),
        (own, shared) => format!("{} + {} shared", size(own), size(shared)),
    }
}

/// What is known of each service, or what is waited for.
pub fn progress(environment: &v1::Environment, wanted: Wanted) -> Vec<String> {
    let mut lines = vec![head(environment)];
    if wanted == Wanted::Gone {
        lines.push(format!("  {}", state(environment)));
        return lines;
    }
    lines.extend(data_line(environment));
    let width = environment.services.iter().map(|service| service.name.chars().count()).max().unwrap_or(0);
    lines.extend(environment.services.iter().map(|service| service_line(service, width)));
    lines.extend(environment.notices.iter().map(|notice| format!("  notice: {notice}")));
    if environment.services.is_empty() {
        let silent = if environment.unknown { ", which is not heard from" } else { "" };
        lines.push(format!("  waiting for {}{silent}", environment.host));
    }
    lines
}

/// What is drawn while it is waited for: also why it does not go on.
pub fn waiting(environment: &v1::Environment, wanted: Wanted) -> Vec<String> {
    use v1::EnvironmentState::{Pending, Starting, Stopping};
    let mut lines = progress(environment, wanted);
    let reason = environment.reason.as_ref().filter(|reason| !reason.code.is_empty());
    if let Some(reason) = reason.filter(|_| matches!(environment.state(), Pending | Starting | Stopping)) {
        // One line: the block is drawn again in place.
        lines.push(format!("  {}: {}", reason.code, reason.text.lines().next().unwrap_or_default()));
    }
    lines
}

fn state(environment: &v1::Environment) -> String {
    let word = match environment.state() {
        v1::EnvironmentState::Unspecified => "?",
        v1::EnvironmentState::Pending => "pending",
        v1::EnvironmentState::Starting => "starting",
        v1::EnvironmentState::Ready => "ready",
        v1::EnvironmentState::Failed => "failed",
        v1::EnvironmentState::Stopping => "stopping",
        v1::EnvironmentState::Gone => "gone",
        v1::EnvironmentState::Frozen => "frozen",
        v1::EnvironmentState::Asleep => "asleep",
    };
    if environment.unknown { format!("unknown (last: {word})") } else { word.to_owned() }
}

/// Why it failed, with the last lines of what died, on standard error.
pub fn print_failure(environment: &v1::Environment) {
    for service in environment.services.iter().filter(|service| !service.last_lines.is_empty()) {
        eprintln!("  {}   {}; its last lines:", service.name, service.detail);
        for line in &service.last_lines {
            eprintln!("             {line}");
        }
    }
    if let Some(reason) = &environment.reason {
        eprintln!("{}: {}", reason.code, reason.text);
    }
    eprintln!("  `muster env logs {0}` shows more; `muster env down {0}` removes it", environment.name);
}

fn masked(value: &str, secret: &[&str]) -> String {
    secret.iter().filter(|secret| !secret.is_empty()).fold(value.to_owned(), |text, secret| text.replace(secret, "•••"))
}

/// Where its services are reached; passwords are masked.
pub fn print_addresses(environment: &v1::Environment, output: &Output) {
    for service in &environment.services {
        let secret: Vec<&str> = service
            .variables
            .iter()
            .filter(|(key, _)| key.ends_with("_PASSWORD"))
            .map(|(_, value)| value.as_str())
            .collect();
        let url = service.variables.iter().find(|(key, _)| key.ends_with("_URL")).map(|(_, url)| masked(url, &secret));
        let mut addresses: Vec<_> = service.addresses.iter().collect();
        addresses.sort();
        let shown = url.or_else(|| addresses.first().map(|(_, address)| (*address).clone()));
        if let Some(shown) = shown {
            output.line(&format!("  {:<10} {shown}", service.name));
        }
    }
    output
        .line(&format!("  {:<10} muster env show {1} --variables    muster env logs {1} -f", "more", environment.name));
}

/// What connections from inside its services found; none: nothing was tried yet.
fn isolation(environment: &v1::Environment) -> Option<String> {
    let found: Vec<_> = environment.services.iter().filter_map(|service| service.isolation.as_ref()).collect();
    let at = found.iter().map(|one| one.at).max()?;
    let problem = found.iter().find(|one| !one.problem.is_empty()).map(|one| &one.problem);
    let tried: u32 = found.iter().filter(|one| one.problem.is_empty()).map(|one| one.tried).sum();
    let from = found.iter().filter(|one| one.problem.is_empty()).count();
    let services = if from == 1 { "service" } else { "services" };
    let reached: usize = found.iter().map(|one| one.reached.len()).sum();
    let (word, result) = match (reached, problem) {
        (0, None) => ("proven", "none got through".to_owned()),
        (0, Some(why)) => ("not proven", format!("none got through; some could not be tried: {why}")),
        (some, _) => ("BROKEN", format!("{some} got through")),
    };
    let at = time::clock(at);
    Some(format!("isolation  {word} {at}: {tried} connections tried from {from} {services}, {result}"))
}

/// One environment whole, or its variables alone.
pub fn print(environment: &v1::Environment, variables: bool, output: &Output) {
    if variables {
        let mut all: Vec<_> = environment.services.iter().flat_map(|service| &service.variables).collect();
        all.sort();
        for (key, value) in all {
            output.line(&format!("{key}={value}"));
        }
        return;
    }
    output.line(&head(environment));
    output.line(&format!(
        "  {} since {} UTC, id {}",
        state(environment),
        time::stamp(environment.created_at),
        environment.id
    ));
    if !environment.why.is_empty() {
        output.line(&format!("  {}: {}", awake(environment), environment.why));
    }
    if environment.ends_at > 0 {
        output.line(&format!("  {}", kept_line(environment)));
    }
    for line in progress(environment, Wanted::Ready).iter().skip(1) {
        output.line(line);
    }
    if let Some(line) = isolation(environment) {
        output.line(&format!("  {line}"));
    }
    if environment.own_bytes + environment.shared_bytes > 0 {
        let undo = if environment.can_undo { "; `muster env undo` takes the last reset back" } else { "" };
        output.line(&format!("  disk {}{undo}", disk(environment)));
    }
    if let Some(reason) = environment.reason.as_ref().filter(|reason| !reason.code.is_empty()) {
        output.line(&format!("  {}: {}", reason.code, reason.text));
    }
    output.line("");
    print_addresses(environment, output);
}

fn awake(environment: &v1::Environment) -> &'static str {
    use v1::EnvironmentState::{Asleep, Frozen};
    if matches!(environment.state(), Asleep | Frozen) { "asleep" } else { "awake" }
}

/// Until when it is kept.
pub fn kept_line(environment: &v1::Environment) -> String {
    let name = format!("{}/{}", environment.owner, environment.name);
    match (environment.keep_until, environment.ends_at) {
        (0, 0) => format!("{name}: it does not end by itself"),
        (0, ends) => format!("{name}: removed at {} UTC if nobody uses it", time::stamp(ends)),
        (kept, _) => format!("{name}: kept until {} UTC at least", time::stamp(kept)),
    }
}

fn memory(bytes: u64) -> String {
    if bytes == 0 { "–".to_owned() } else { format!("{} MB", bytes.div_ceil(1_000_000)) }
}

/// All as a table.
pub fn print_list(environments: &[v1::Environment], output: &Output) {
    let row = |environment: &v1::Environment| {
        vec![
            environment.name.clone(),
            environment.owner.clone(),
            environment.host.clone(),
            state(environment),
            dash(environment.seed.clone()),
            disk(environment),
            time::ago(environment.created_at),
            if environment.last_used_at > 0 { time::ago(environment.last_used_at) } else { dash(String::new()) },
            memory(environment.memory_bytes),
            dash(environment.why.clone()),
        ]
    };
    let rows: Vec<_> = environments.iter().map(row).collect();
    output.table(&["ENVIRONMENT", "OWNER", "HOST", "STATE", "SEED", "DISK", "AGE", "IDLE", "MEMORY", "WHY"], &rows);
}
