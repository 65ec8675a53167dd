//! Documents say what is, and say nothing of the machine they were written on.

use std::collections::{BTreeMap, BTreeSet};

use super::tree::{files, none, root, rust};

const CODES: &str = "docs/reason-codes.md";

/// Reason codes that stand in the product's sources, with where they were seen first.
fn codes_in_use() -> BTreeMap<String, String> {
    let folders = ["agent/src", "coordinator/src", "domain/src", "manifest/src", "proto/src", "transport/src"];
    let mut found = BTreeMap::new();
    for file in rust(&folders).iter().filter(|file| !is_test(&file.path)) {
        let mut own = true;
        for (number, line) in file.code() {
            // Unit tests stand at the end of a file.
            own &= !line.contains("#[cfg(test)]") && !line.contains("#[cfg(all(test");
            if own {
                for code in codes(line) {
                    found.entry(code).or_insert_with(|| format!("{}:{number}", file.path));
                }
            }
        }
    }
    found
}

fn is_test(path: &str) -> bool {
    path.contains("/tests/") || path.ends_with("tests.rs")
}

/// Words `E_…` of a line; those that end in `_` are only the beginning of one.
fn codes(line: &str) -> impl Iterator<Item = String> {
    line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.len() > 3 && word.starts_with("E_") && !word.ends_with('_'))
        .filter(|word| word.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'))
        .map(str::to_owned)
}

/// Code -> the cells of its row.
fn documented() -> BTreeMap<String, Vec<String>> {
    let text = std::fs::read_to_string(root().join(CODES)).expect("docs/reason-codes.md");
    text.lines()
        .filter(|line| line.starts_with("| `E_"))
        .map(|line| {
            let mut cells = line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned());
            (cells.next().unwrap_or_default().trim_matches('`').to_owned(), cells.collect())
        })
        .collect()
}

#[test]
fn every_reason_code_is_explained() {
    let documented = documented();
    let missing: Vec<String> = codes_in_use()
        .into_iter()
        .filter(|(code, _)| !documented.contains_key(code))
        .map(|(code, place)| format!("{code}  ({place})"))
        .collect();
    none("add these to docs/reason-codes.md", &missing);
}

#[test]
fn every_explained_reason_code_exists_and_says_what_to_do() {
    let used: BTreeSet<String> = codes_in_use().into_keys().collect();
    let findings: Vec<String> = documented()
        .into_iter()
        .filter(|(code, cells)| !used.contains(code) || cells.len() != 2 || cells.iter().any(|cell| cell.len() < 6))
        .map(|(code, cells)| format!("{code}: {cells:?}"))
        .collect();
    none("docs/reason-codes.md: a code that nothing uses, or a row without meaning or advice", &findings);
}

#[test]
fn links_of_documents_lead_somewhere() {
    let mut findings = Vec::new();
    for file in files(".md") {
        let folder = root().join(&file.path).parent().map(std::path::Path::to_owned).unwrap_or_default();
        let mut in_code = false;
        for (number, line) in file.lines() {
            in_code ^= line.trim_start().starts_with("```");
            if in_code {
                continue;
            }
            for link in line.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
                let path = link.split('#').next().unwrap_or_default();
                let outside = link.contains("://") || link.starts_with("mailto:");
                if !outside && !path.is_empty() && !folder.join(path).exists() {
                    findings.push(format!("{}:{number}: {link}", file.path));
                }
                if let Some((target, anchor)) = link.split_once('#')
                    && !outside
                    && !has_heading(
                        &if target.is_empty() { root().join(&file.path) } else { folder.join(target) },
                        anchor,
                    )
                {
                    findings.push(format!("{}:{number}: {link}: no such heading", file.path));
                }
            }
        }
    }
    none("links that lead nowhere", &findings);
}

fn has_heading(path: &std::path::Path, anchor: &str) -> bool {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().filter(|line| line.starts_with('#')).any(|line| {
        let words = line.trim_start_matches('#').trim().to_lowercase();
        let slug: String = words
            .chars()
            .filter_map(|c| match c {
                ' ' => Some('-'),
                c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c),
                _ => None,
            })
            .collect();
        slug == anchor
    })
}

#[test]
fn no_file_names_a_path_or_a_registry_of_the_machine_it_was_written_on() {
    let mut words = vec![["/wo", "rk/"].concat(), ["/var/", "tmp/m"].concat(), format!("{}/", root().display())];
    words.extend(private_registries());
    let mut findings = Vec::new();
    for file in files("") {
        for (number, line) in file.lines() {
            let named = words.iter().any(|word| {
                line.match_indices(word.as_str()).any(|(at, _)| {
                    let before = line.get(..at).and_then(|text| text.chars().next_back());
                    before.is_none_or(|c| !c.is_alphanumeric() && !"._-}".contains(c))
                })
            });
            if named {
                findings.push(format!("{}:{number}", file.path));
            }
        }
    }
    none("a machine's own path or registry", &findings);
}

/// Hosts of registries that this machine's cargo and pip use instead of the public ones.
fn private_registries() -> Vec<String> {
    let home = std::env::var("HOME").unwrap_or_default();
    let cargo = std::env::var("CARGO_HOME").unwrap_or_else(|_| format!("{home}/.cargo"));
    let settings = [format!("{cargo}/config.toml"), format!("{home}/.config/pip/pip.conf"), "/etc/pip.conf".to_owned()];
    let mut texts: Vec<String> = settings.iter().filter_map(|path| std::fs::read_to_string(path).ok()).collect();
    texts.extend(
        ["PIP_INDEX_URL", "GOPROXY", "CARGO_REGISTRIES_CRATES_IO_INDEX"]
            .iter()
            .filter_map(|name| std::env::var(name).ok()),
    );
    let public = ["crates.io", "pypi.org", "golang.org", "github.com", "localhost", "127.0.0.1"];
    texts
        .iter()
        .flat_map(|text| text.split("://").skip(1))
        .filter_map(|rest| rest.split(['/', '"', '\'', ' ', '\n', ',', '|']).next())
        .filter_map(|host| host.rsplit('@').next())
        .map(|host| host.split(':').next().unwrap_or(host).to_owned())
        .filter(|host| host.contains('.') && !public.iter().any(|known| host.ends_with(known)))
        .collect()
}

#[test]
fn every_script_can_be_parsed_and_run() {
    use std::os::unix::fs::PermissionsExt;
    let mut findings = Vec::new();
    for file in files("").iter().filter(|file| file.text.starts_with("#!/usr/bin/env bash")) {
        let path = root().join(&file.path);
        let checked = std::process::Command::new("bash").arg("-n").arg(&path).output().expect("bash runs");
        if !checked.status.success() {
            findings.push(format!("{}: {}", file.path, String::from_utf8_lossy(&checked.stderr)));
        }
        if std::fs::metadata(&path).is_ok_and(|found| found.permissions().mode() & 0o111 == 0) {
            findings.push(format!("{}: not executable", file.path));
        }
    }
    none("scripts", &findings);
}
