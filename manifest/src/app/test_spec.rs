//! `tests:` of `muster.yaml`.

use std::collections::BTreeMap;
use std::time::Duration;

use domain::app::TestSpec;
use domain::name::Name;

use super::{argv, name, required};
use crate::path;
use crate::problem::Code;
use crate::reader::{Keys, Reader, shown};
use crate::yaml::Node;

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30 * 60);
const DEFAULT_NO_OUTPUT: Duration = Duration::from_secs(5 * 60);
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(24 * 3600);

pub(super) const KEYS: Keys = Keys {
    known: &["command", "service", "reports", "timeout", "no_output"],
    absent: &[
        ("shards", "name several tests instead"),
        ("retry", "start the run again"),
        ("flaky", "its outcome counts"),
        ("quarantine", "its outcome counts"),
        ("environment", "write it to the service in the stack file"),
    ],
};

const REPORTS: Keys = Keys { known: &["junit"], absent: &[("coverage", "only junit is read")] };

pub(super) fn read(r: &mut Reader, node: &Node, place: &str) -> Option<TestSpec> {
    let fields = r.fields(node, place, &KEYS)?;
    let command = required(r, fields, "command", place, "write a list: [pytest, -q]");
    let command = command.and_then(|node| argv(r, node, &format!("command of {place}")));
    let service = fields.get("service").map(|node| {
        let text = r.text(node, &format!("service of {place}"))?;
        name(r, "service", text, node.pos)
    });
    let junit = fields.get("reports").map(|node| reports(r, node, place));
    let mut limit =
        |key: &str| fields.get(key).map(|node| r.duration(node, &format!("{key} of {place}"), SHORTEST, LONGEST));
    let (timeout, no_output) = (limit("timeout"), limit("no_output"));
    let timeout = timeout.unwrap_or(Some(DEFAULT_TIMEOUT))?;
    let no_output = no_output.unwrap_or(Some(DEFAULT_NO_OUTPUT.min(timeout)))?;
    if let Some(node) = fields.get("no_output").filter(|_| no_output > timeout) {
        let message = format!("no_output of {place} is longer than its timeout");
        r.problem(Code::ManifestConflict, node.pos, message, "it would never end anything; make it shorter");
    }
    Some(TestSpec {
        command: command?,
        service: service.map_or(Some(None), |service| service.map(Some))?,
        junit: junit.unwrap_or(Some(None))?,
        timeout,
        no_output,
    })
}

/// Without a stack file no service exists in which a test could run.
pub(super) fn check_stack(r: &mut Reader, node: &Node, tests: &BTreeMap<Name, TestSpec>) {
    for (name, test) in tests {
        if let Some(service) = &test.service {
            let message = format!("tests {name} runs in the service {service}, but there is no stack");
            r.problem(Code::ManifestConflict, node.pos, message, "add `stack: compose.yaml`");
        }
    }
}

fn reports(r: &mut Reader, node: &Node, place: &str) -> Option<Option<String>> {
    let place = format!("reports of {place}");
    let fields = r.fields(node, &place, &REPORTS)?;
    let Some(node) = fields.get("junit") else { return Some(None) };
    let text = r.text(node, &format!("junit in {place}"))?;
    match path::inside(text) {
        Ok(glob) => Some(Some(glob)),
        Err(error) => {
            r.value(
                node,
                format!("junit in {place} is {}: {error}", shown(node)),
                "write a path inside the checkout, for example reports/*.xml",
            );
            None
        }
    }
}
