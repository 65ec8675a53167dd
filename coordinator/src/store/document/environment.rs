//! Stored shape of what was observed of an environment's services.

use std::collections::BTreeMap;

use domain::environment::{Isolation, ServiceObserved, ServiceState};
use domain::time::Timestamp;

use super::document;

document!(ServiceObserved => ServiceShape {
    name: String,
    state: ServiceState,
    detail: String,
    ready_after_micros: Option<u64>,
    addresses: BTreeMap<u16, String>,
    variables: BTreeMap<String, String>,
    last_lines: Vec<String>,
    #[serde(default)]
    isolation: Option<Isolation>,
});

document!(Isolation => IsolationShape {
    at: Timestamp,
    tried: u32,
    reached: Vec<String>,
    problem: String,
});
