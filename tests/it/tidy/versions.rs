//! Versions below which a dependency has a known fault that would hurt here.

use super::tree::{none, root};

/// Crate, the least version, and why.
const AT_LEAST: [(&str, &str, &str); 13] = [
    ("h2", "0.4.16", "floods of resets and window updates"),
    ("rustls", "0.23.18", "a panic of the acceptor"),
    ("rustls-webpki", "0.103.13", "name constraints and revocation"),
    ("ring", "0.17.12", "a panic on overflow"),
    ("quick-xml", "0.41.0", "exponential entity expansion"),
    ("tar", "0.4.45", "links that leave the folder"),
    ("tracing-subscriber", "0.3.20", "escape sequences in logs"),
    ("bytes", "1.11.1", "overflow in reserve"),
    ("time", "0.3.47", "unbounded recursion"),
    ("tokio", "1.43.1", "a data race of broadcast"),
    ("sqlx", "0.9.0", "the Any driver as we use it"),
    ("idna", "1.0.3", "punycode that decodes to ASCII"),
    ("crossbeam-channel", "0.5.15", "a double free"),
];

fn locked() -> Vec<(String, String, String)> {
    let text = std::fs::read_to_string(root().join("Cargo.lock")).expect("Cargo.lock is part of the repository");
    let value = |block: &str, key: &str| {
        let start = format!("{key} = \"");
        let line = block.lines().find_map(|line| line.strip_prefix(&start)).unwrap_or_default();
        line.trim_end_matches('"').to_owned()
    };
    let packages: Vec<_> = text
        .split("[[package]]")
        .skip(1)
        .map(|block| (value(block, "name"), value(block, "version"), value(block, "source")))
        .collect();
    assert!(packages.len() > 100, "Cargo.lock was not understood: {} packages", packages.len());
    packages
}

fn number(version: &str) -> Vec<u64> {
    let plain = version.split(['-', '+']).next().unwrap_or_default();
    plain.split('.').map(|part| part.parse().unwrap_or_else(|_| panic!("{version} is no version"))).collect()
}

#[test]
fn no_dependency_is_older_than_its_known_faults() {
    let findings: Vec<String> = locked()
        .iter()
        .flat_map(|(name, version, _)| {
            AT_LEAST
                .iter()
                .filter(move |(wanted, least, _)| wanted == name && number(version) < number(least))
                .map(move |(_, least, why)| format!("{name} {version}: at least {least} ({why})"))
        })
        .collect();
    none("Cargo.lock", &findings);
}

#[test]
fn sqlite_is_the_version_that_keeps_committed_pages() {
    let all = locked();
    let found: Vec<&str> =
        all.iter().filter(|(name, _, _)| name == "libsqlite3-sys").map(|(_, version, _)| version.as_str()).collect();
    assert_eq!(found, ["0.37.0"]);
}

#[test]
fn every_dependency_comes_from_crates_io() {
    let findings: Vec<String> = locked()
        .into_iter()
        .filter(|(_, _, source)| {
            !source.is_empty() && source != "registry+https://github.com/rust-lang/crates.io-index"
        })
        .map(|(name, _, source)| format!("{name}: {source}"))
        .collect();
    none("Cargo.lock names another registry", &findings);
}

#[test]
fn no_archived_yaml_library_is_used() {
    let names: Vec<String> = locked().into_iter().map(|(name, _, _)| name).collect();
    let found: Vec<&String> =
        names.iter().filter(|name| ["serde_yaml", "serde_yml", "yaml-rust"].contains(&name.as_str())).collect();
    assert!(found.is_empty(), "{found:?}");
}
