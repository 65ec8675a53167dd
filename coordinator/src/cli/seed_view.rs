//! Seeds and snapshots as lines of text.

use proto::v1;

use super::output::{Output, dash};
use super::time;

/// `NAME@VERSION`, or `OWNER/NAME` for a snapshot.
#[must_use]
pub fn address(seed: &v1::Seed) -> String {
    if seed.snapshot { format!("{}/{}", seed.owner, seed.name) } else { format!("{}@{}", seed.name, seed.version) }
}

/// `0.1 MB`, `37 MB`, `1.9 GB`.
#[must_use]
pub fn size(bytes: u64) -> String {
    // Tenths, rounded to the nearest.
    let tenths = |unit: u64| {
        let tenths = bytes.saturating_add(unit / 20) / (unit / 10);
        format!("{}.{}", tenths / 10, tenths % 10)
    };
    match bytes {
        0 => "0 MB".to_owned(),
        1..10_000_000 => format!("{} MB", tenths(1_000_000)),
        10_000_000..1_000_000_000 => format!("{} MB", (bytes + 500_000) / 1_000_000),
        _ => format!("{} GB", tenths(1_000_000_000)),
    }
}

fn state(seed: &v1::Seed) -> &'static str {
    match seed.state() {
        v1::SeedState::Unspecified => "?",
        v1::SeedState::Making => "making",
        v1::SeedState::Ready => "ready",
        v1::SeedState::Failed => "failed",
        v1::SeedState::Removing => "removing",
        v1::SeedState::Removed => "removed",
    }
}

fn kind(seed: &v1::Seed) -> &'static str {
    if seed.snapshot { "snapshot" } else { "seed" }
}

/// What is being done for it.
#[must_use]
pub fn progress(seed: &v1::Seed) -> Vec<String> {
    let head = format!("{} {} on {}", kind(seed), address(seed), seed.hosts.join(", "));
    let detail = if seed.detail.is_empty() { state(seed) } else { &seed.detail };
    vec![head, format!("  {detail}")]
}

/// What is being moved of it.
#[must_use]
pub fn moving(seed: &v1::Seed) -> Vec<String> {
    let mut lines = vec![format!("{} {}", kind(seed), address(seed))];
    lines.extend(moved(seed).into_iter().map(|line| format!("  {line}")));
    lines
}

/// One line for each copy of it.
#[must_use]
pub fn moved(seed: &v1::Seed) -> Vec<String> {
    let line = |copy: &v1::SeedCopy| {
        let place = if copy.host.is_empty() { "the store" } else { &copy.host };
        match (copy.state(), &copy.reason) {
            (v1::SeedState::Ready, _) => {
                let took = time::duration(copy.took_micros);
                format!("in {place}: {} moved in {took}", size(copy.moved_bytes))
            }
            (v1::SeedState::Failed, Some(reason)) => format!("not in {place}: {}: {}", reason.code, reason.text),
            (v1::SeedState::Removing, _) => format!("in {place}: is being removed"),
            _ => format!("to {place}: {}", copy.detail),
        }
    };
    seed.copies.iter().map(line).collect()
}

/// One line about a seed that is ready.
#[must_use]
pub fn made(seed: &v1::Seed) -> String {
    let mut line = format!("{} {}: {}", kind(seed), address(seed), size(seed.bytes));
    if seed.took_micros > 0 {
        line.push_str(&format!(" in {}", time::duration(seed.took_micros)));
    }
    if seed.freeze_micros > 0 {
        line.push_str(&format!(", stood still for {}", time::duration(seed.freeze_micros)));
    }
    if seed.masked {
        line.push_str(", masked");
    }
    if seed.canaries > 0 {
        line.push_str(&format!(", none of {} canaries left", seed.canaries));
    }
    line
}

/// Why it failed, or is still there, on standard error.
pub fn failure(seed: &v1::Seed) {
    match &seed.reason {
        Some(reason) => eprintln!("{}: {}: {}", reason.code, address(seed), reason.text),
        None => eprintln!("{}: {}", address(seed), state(seed)),
    }
}

/// One seed whole.
pub fn print(seed: &v1::Seed, output: &Output) {
    output.line(&format!("{} {} · {} on {}", kind(seed), address(seed), state(seed), dash(seed.hosts.join(", "))));
    output.line(&format!("  made {} UTC by {}, id {}", time::stamp(seed.created_at), seed.owner, seed.id));
    if !seed.detail.is_empty() {
        output.line(&format!("  {}", seed.detail));
    }
    if let Some(reason) = seed.reason.as_ref().filter(|reason| !reason.code.is_empty()) {
        output.line(&format!("  {}: {}", reason.code, reason.text));
    }
    if !seed.digest.is_empty() {
        output.line(&format!("  {}", made(seed)));
        output.line(&format!("  sha256:{}", seed.digest));
        output.line(&format!("  {} environments began with it", seed.environments));
    }
    for line in moved(seed) {
        output.line(&format!("  {line}"));
    }
    if seed.parts.is_empty() {
        return;
    }
    output.line("");
    let row = |part: &v1::SeedPart| {
        let engine = format!("{} {}", part.kind, part.version).trim().to_owned();
        let collation = if part.collation.is_empty() { String::new() } else { format!("libc {}", part.collation) };
        vec![
            part.volume.clone(),
            part.service.clone(),
            dash(engine),
            dash(collation),
            size(part.bytes),
            part.files.to_string(),
        ]
    };
    let rows: Vec<_> = seed.parts.iter().map(row).collect();
    output.table(&["VOLUME", "SERVICE", "ENGINE", "COLLATION", "SIZE", "FILES"], &rows);
}

/// All as a table.
pub fn print_list(seeds: &[v1::Seed], output: &Output) {
    let row = |seed: &v1::Seed| {
        vec![
            address(seed),
            state(seed).to_owned(),
            if seed.bytes == 0 { dash("") } else { size(seed.bytes) },
            dash(seed.hosts.join(", ")),
            seed.environments.to_string(),
            time::ago(seed.created_at),
            seed.owner.clone(),
        ]
    };
    let rows: Vec<_> = seeds.iter().map(row).collect();
    output.table(&["SEED", "STATE", "SIZE", "HOST", "ENVIRONMENTS", "AGE", "BY"], &rows);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_in_the_tour() {
        for (bytes, shown) in [
            (0, "0 MB"),
            (100_000, "0.1 MB"),
            (9_940_000, "9.9 MB"),
            (37_400_000, "37 MB"),
            (1_900_000_000, "1.9 GB"),
            (u64::MAX, "18446744073.7 GB"),
        ] {
            assert_eq!(size(bytes), shown);
        }
    }

    #[test]
    fn what_was_checked_stands_in_the_line() {
        let seed = v1::Seed {
            name: "staging".to_owned(),
            version: "1".to_owned(),
            bytes: 1_900_000_000,
            took_micros: 34_000_000,
            masked: true,
            canaries: 2,
            ..v1::Seed::default()
        };
        assert_eq!(made(&seed), "seed staging@1: 1.9 GB in 34.0 s, masked, none of 2 canaries left");
    }
}
