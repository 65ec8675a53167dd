//! `muster env check`: the shipping binary, without a server.

use std::path::Path;
use std::process::{Command, Output};

/// Runs `muster env check` in a folder with these files.
fn check(files: &[(&str, &str)], arguments: &[&str]) -> (Output, String) {
    let folder = tempfile::tempdir().expect("a folder");
    for (path, text) in files {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(path, text).expect("written");
    }
    run(folder.path(), arguments)
}

fn run(folder: &Path, arguments: &[&str]) -> (Output, String) {
    let out = Command::new(env!("CARGO_BIN_EXE_muster"))
        .args(["env", "check"])
        .args(arguments)
        .current_dir(folder)
        .env_remove("COMPOSE_FILE")
        .env_remove("COMPOSE_PROFILES")
        .output()
        .expect("muster starts");
    let text = String::from_utf8(out.stdout.clone()).expect("a text");
    (out, text)
}

const BAD: &str = "services:\n  web: { image: a, pid: host, restart: always }\n  db: { imgae: b }\n";
const OVER: &str = "services:\n  web: { cpus: many }\n";

#[test]
fn all_problems_and_notices_of_all_files_are_told_at_once() {
    let (out, text) = check(&[("compose.yaml", BAD), ("compose.override.yaml", OVER)], &[]);
    assert_eq!(out.status.code(), Some(2), "{text}");
    for line in [
        "compose.yaml:2:20: error: E_STACK_REFUSED \"pid\"",
        "compose.yaml:3:9: error: E_STACK_UNKNOWN_KEY unknown key \"imgae\"",
        "compose.override.yaml:2:16: error: E_STACK_VALUE cpus of service web",
        "compose.yaml:2:40: notice: restart of service web",
        "compose.yaml: 4 problems, 1 notice",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
}

#[test]
fn files_that_were_named_are_read_together_and_others_each_alone() {
    let good = "services: { web: { image: a } }\n";
    let files = [("a/compose.yaml", good), ("a/more.yaml", OVER), ("a/compose.override.yaml", BAD), ("b.yaml", good)];
    let (out, text) = check(&files, &["-f", "a/compose.yaml"]);
    assert_eq!((out.status.code(), text.as_str()), (Some(0), "compose.yaml: 1 service, no problems, no notices\n"));
    let (out, text) = check(&files, &["-f", "a/compose.yaml", "-f", "a/more.yaml"]);
    assert_eq!(out.status.code(), Some(2));
    assert!(text.starts_with("more.yaml:2:16: error: E_STACK_VALUE"), "{text}");
    let (out, text) = check(&files, &["b.yaml", "a/compose.yaml"]);
    assert_eq!(out.status.code(), Some(0), "{text}");
    assert!(text.contains("b.yaml: 1 service") && text.contains("a/compose.yaml: 1 service"), "{text}");
    let (out, _) = check(&files, &["-f", "a/compose.yaml", "-f", "b.yaml"]);
    assert!(String::from_utf8_lossy(&out.stderr).contains("E_STACK_OUTSIDE_FOLDER"));
}

#[test]
fn compose_file_names_the_files_in_the_environment_or_beside_the_caller() {
    let good = "services: { web: { image: a } }\n";
    let files =
        [(".env", "COMPOSE_FILE=one.yaml:two.yaml\n"), ("one.yaml", good), ("two.yaml", OVER), ("compose.yaml", good)];
    let (_, text) = check(&files, &[]);
    assert!(text.contains("two.yaml:2:16: error") && text.contains("one.yaml: 1 problem"), "{text}");
    assert_eq!(check(&files, &["-f", "compose.yaml"]).0.status.code(), Some(0));
}

#[test]
fn profiles_are_asked_for_by_name() {
    let files = [("compose.yaml", "services:\n  web: { image: a }\n  tool: { image: b, profiles: [ops] }\n")];
    assert!(check(&files, &[]).1.contains("1 service, no problems, 1 notice"));
    assert!(check(&files, &["--profile", "ops"]).1.contains("2 services, no problems, no notices"));
}

#[test]
#[cfg(unix)]
fn links_that_lead_out_of_the_folder_are_not_followed() {
    let outside = tempfile::tempdir().expect("a folder");
    std::fs::write(outside.path().join("key"), "hunter2").expect("written");
    let folder = tempfile::tempdir().expect("a folder");
    let stack = "services: { web: { image: a, secrets: [k] } }\nsecrets: { k: { file: key } }\n";
    std::fs::write(folder.path().join("compose.yaml"), stack).expect("written");
    std::os::unix::fs::symlink(outside.path().join("key"), folder.path().join("key")).expect("linked");
    let (out, text) = run(folder.path(), &[]);
    assert_eq!(out.status.code(), Some(2));
    assert!(text.contains("E_STACK_FILE"), "{text}");
    std::fs::write(folder.path().join("real"), "x").expect("written");
    std::fs::remove_file(folder.path().join("key")).expect("removed");
    std::os::unix::fs::symlink("real", folder.path().join("key")).expect("linked");
    assert_eq!(run(folder.path(), &[]).0.status.code(), Some(0));
}

#[test]
fn programs_get_one_object_per_stack() {
    let (out, text) = check(&[("compose.yaml", BAD)], &["--output", "json"]);
    assert_eq!(out.status.code(), Some(2));
    let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(value["problems"][0]["code"], "E_STACK_REFUSED");
    assert_eq!((&value["problems"][0]["line"], &value["problems"][0]["column"]), (&2.into(), &20.into()));
    assert_eq!(value["notices"].as_array().map(Vec::len), Some(1));
}
