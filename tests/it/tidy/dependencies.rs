//! Who may use what: asked of cargo, not of Cargo.toml files, so that a feature or a renamed crate cannot hide it.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

use super::tree::{none, root};

/// Everything in the normal dependency tree of `domain`; proc-macro crates run at build time only.
const DOMAIN_TREE: [&str; 8] =
    ["domain", "proc-macro2", "quote", "syn", "thiserror", "thiserror-impl", "unicode-ident", "uuid"];

/// Crate of the registry -> the only crates of ours that may name it in `[dependencies]`.
const ONLY: [(&str, &[&str]); 14] = [
    ("sqlx", &["coordinator", "agent"]),
    ("bollard", &["agent"]),
    ("axum", &["coordinator"]),
    ("object_store", &["coordinator"]),
    ("rcgen", &["coordinator", "agent"]),
    ("sysinfo", &["agent"]),
    ("fiemap", &["agent"]),
    ("tar", &["agent"]),
    ("quick-xml", &["agent"]),
    ("saphyr-parser", &["manifest"]),
    ("prost-reflect", &["coordinator"]),
    ("clap", &["coordinator", "agent"]),
    ("notify", &["coordinator"]),
    ("ignore", &["coordinator"]),
];

/// Crate of ours -> the only crates of ours that it may use.
const LAYERS: [(&str, &[&str]); 7] = [
    ("domain", &[]),
    ("proto", &["domain"]),
    ("manifest", &["domain"]),
    ("transport", &[]),
    ("coordinator", &["domain", "proto", "manifest", "transport"]),
    ("agent", &["domain", "proto", "manifest", "transport"]),
    ("tests", &["domain", "proto", "manifest", "transport", "coordinator", "agent"]),
];

/// Normal dependencies of every package, as cargo resolves them for this platform.
struct Graph {
    names: BTreeMap<String, String>,
    normal: BTreeMap<String, Vec<String>>,
    ours: BTreeMap<String, String>,
}

impl Graph {
    fn read() -> Self {
        let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
        let out = Command::new(cargo)
            .args(["metadata", "--format-version", "1", "--offline", "--filter-platform", &platform])
            .current_dir(root())
            .output()
            .expect("cargo runs");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        let all: Value = serde_json::from_slice(&out.stdout).expect("cargo prints JSON");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let names: BTreeMap<_, _> =
            list(&all["packages"]).iter().map(|package| (text(&package["id"]), text(&package["name"]))).collect();
        let is_normal = |dependency: &Value| list(&dependency["dep_kinds"]).iter().any(|kind| kind["kind"].is_null());
        let normal = list(&all["resolve"]["nodes"])
            .iter()
            .map(|node| {
                let of = list(&node["deps"]).iter().filter(|dep| is_normal(dep)).map(|dep| text(&dep["pkg"])).collect();
                (text(&node["id"]), of)
            })
            .collect();
        let ours = list(&all["workspace_members"])
            .iter()
            .map(text)
            .map(|id| (names.get(&id).cloned().unwrap_or_default(), id))
            .collect();
        Self { names, normal, ours }
    }

    fn direct(&self, ours: &str) -> BTreeSet<String> {
        self.normal[&self.ours[ours]].iter().map(|id| self.names[id].clone()).collect()
    }
}

#[test]
fn domain_depends_on_thiserror_and_uuid_only() {
    assert_eq!(Graph::read().direct("domain"), BTreeSet::from(["thiserror".to_owned(), "uuid".to_owned()]));
}

#[test]
fn nothing_in_the_tree_of_domain_does_io_or_makes_random_numbers() {
    // `cargo tree` and not the graph above, which joins the features of the whole workspace.
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let out = Command::new(cargo)
        .args(["tree", "--package", "domain", "--edges", "normal", "--prefix", "none", "--offline"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let tree: BTreeSet<String> = String::from_utf8_lossy(&out.stdout)
        .lines()
        .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
        .collect();
    assert_eq!(tree, DOMAIN_TREE.iter().map(|name| (*name).to_owned()).collect());
}

#[test]
fn every_crate_uses_only_the_layers_below_it() {
    let graph = Graph::read();
    assert_eq!(graph.ours.len(), LAYERS.len(), "a new crate needs its line in LAYERS");
    let mut findings = Vec::new();
    for (name, may) in LAYERS {
        for used in graph.direct(name) {
            if graph.ours.contains_key(&used) && !may.contains(&used.as_str()) {
                findings.push(format!("{name} uses {used}"));
            }
        }
    }
    none("a crate uses what lies above or beside it", &findings);
}

#[test]
fn heavy_crates_stay_where_they_belong() {
    let graph = Graph::read();
    let mut findings = Vec::new();
    for (crate_name, may) in ONLY {
        for ours in graph.ours.keys().filter(|ours| *ours != "tests" && !may.contains(&ours.as_str())) {
            if graph.direct(ours).contains(crate_name) {
                findings.push(format!("{ours} uses {crate_name}; only {may:?} may"));
            }
        }
    }
    none("a crate has spread", &findings);
}

#[test]
fn there_is_one_tls_library_and_one_crypto_provider() {
    let graph = Graph::read();
    let mut findings = Vec::new();
    let mut seen = BTreeSet::new();
    let mut open: Vec<&String> = ["coordinator", "agent"].iter().map(|name| &graph.ours[*name]).collect();
    while let Some(id) = open.pop() {
        if seen.insert(id) {
            let name = &graph.names[id];
            if ["openssl", "openssl-sys", "native-tls", "aws-lc-rs", "aws-lc-sys"].contains(&name.as_str()) {
                findings.push(name.clone());
            }
            open.extend(&graph.normal[id]);
        }
    }
    none("TLS is rustls with ring; something brings another", &findings);
}
