//! The same stacks through this reader and through `docker-compose config`: what both understand must be the same.

mod cases;
mod shape;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use cases::Case;

/// The interpreter that the package installs the command for.
const PYTHON: &str = "/usr/bin/python3";

/// Where the two differ, and why that is right: case, service, field, reason.
const DIFFERENT: [(&str, &str, &str, &str); 2] = [
    ("links", "cache", "aliases", "the other name of a link belongs to the service here, to the link there"),
    ("secret-variables", "web", "files", "docker-compose 1.29 knows no secrets from variables and no configs as text"),
];

/// Stacks that are refused here and read there.
const REFUSED: [(&str, &str); 3] = [
    ("pihole-cloudflared-DoH", "dns, capabilities over the host"),
    ("portainer", "the engine's socket"),
    ("wasmedge-mysql-nginx", "another runtime"),
];

/// What `docker-compose config` says about each case; none where it is not installed.
fn theirs(cases: &[Case]) -> Option<Vec<Value>> {
    let given: Vec<Value> = cases
        .iter()
        .map(|case| json!({ "folder": case.folder, "files": case.theirs, "variables": case.variables }))
        .collect();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/compose_config.py");
    let found = Command::new(PYTHON).args(["-c", "import compose"]).stderr(Stdio::null()).status();
    if !found.is_ok_and(|status| status.success()) {
        let wanted = std::env::var("MUSTER_TEST_REAL").is_ok_and(|real| real == "1");
        assert!(!wanted, "docker-compose 1.29 is not installed; scripts/packages.sh docker-compose=docker-compose");
        return None;
    }
    let mut child = Command::new(PYTHON)
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("docker-compose starts");
    let text = serde_json::to_vec(&given).expect("JSON");
    child.stdin.take().expect("a pipe").write_all(&text).expect("written");
    let out = child.wait_with_output().expect("docker-compose ends");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    Some(serde_json::from_slice(&out.stdout).expect("JSON"))
}

/// How much was compared.
#[derive(Default)]
struct Score {
    files: usize,
    refused: usize,
    services: usize,
    fields: usize,
    used: Vec<&'static str>,
    wrong: Vec<String>,
}

impl Score {
    fn compare(&mut self, case: &Case, theirs: &Value) {
        let theirs = match theirs.get("services").and_then(Value::as_object) {
            Some(services) => services,
            None => return self.wrong.push(format!("{}: docker-compose says {}", case.name, theirs["error"])),
        };
        let ours = match case.read() {
            Ok(reading) => reading.stack,
            Err(problems) => {
                self.refused += 1;
                if !REFUSED.iter().any(|(name, _)| *name == case.name) {
                    self.wrong.push(format!("{} is refused: {problems:#?}", case.name));
                }
                return;
            }
        };
        if REFUSED.iter().any(|(name, _)| *name == case.name) {
            self.wrong.push(format!("{} should be refused", case.name));
        }
        self.files += 1;
        let active: Vec<&str> = case.profiles();
        let wanted: BTreeMap<&String, &Value> = theirs
            .iter()
            .filter(|(_, service)| {
                let profiles = service["profiles"].as_array().cloned().unwrap_or_default();
                profiles.is_empty() || profiles.iter().any(|one| active.contains(&one.as_str().unwrap_or_default()))
            })
            .collect();
        let names: Vec<&String> = ours.services.keys().collect();
        let other: Vec<&String> = wanted.keys().copied().collect();
        if names != other {
            return self.wrong.push(format!("{}: services {names:?}, there {other:?}", case.name));
        }
        for (name, theirs) in wanted {
            self.services += 1;
            let ours = shape::service(&ours.services[name], theirs);
            self.service(case, name, &ours, theirs);
        }
    }

    fn service(&mut self, case: &Case, name: &str, ours: &Value, theirs: &Value) {
        for (field, ours) in ours.as_object().expect("a map") {
            self.fields += 1;
            let theirs = &theirs[field];
            if ours == theirs {
                continue;
            }
            let known = DIFFERENT.iter().find(|(c, s, f, _)| *c == case.name && *s == name && f == field);
            match known {
                Some((.., reason)) => self.used.push(reason),
                None => self.wrong.push(format!("{}: {field} of {name}: {ours}, there {theirs}", case.name)),
            }
        }
    }
}

#[test]
fn what_docker_compose_understands_is_understood_alike() {
    let cases = cases::all();
    let Some(theirs) = theirs(&cases) else {
        println!("notice: docker-compose is not installed; nothing was compared");
        return;
    };
    let mut score = Score::default();
    for (case, theirs) in cases.iter().zip(&theirs) {
        score.compare(case, theirs);
    }
    println!(
        "{} of {} stacks read as docker-compose 1.29 reads them ({} refused for a reason): {} services, {} fields, {} differences with a reason",
        score.files,
        cases.len(),
        score.refused,
        score.services,
        score.fields,
        score.used.len()
    );
    assert!(score.wrong.is_empty(), "{}", score.wrong.join("\n"));
    assert_eq!(score.refused, REFUSED.len());
    assert_eq!(score.used.len(), DIFFERENT.len(), "a difference with a reason is gone");
    assert!(score.files >= 40 && score.fields >= 1500, "too little was compared");
}
