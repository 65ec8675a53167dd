//! What is told of an environment.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use domain::environment::diff::{Diff, Failure as Exit};
use domain::environment::{EnvironmentState, Observed, ServiceObserved, ServiceState};
use domain::ids::Generation;
use domain::stack::Condition;
use proto::v1;

use super::lay::Laid;
use super::part::Part;
use super::plan::Plan;
use super::variables;
use crate::host::Host;
use crate::pool::Usage;

/// How an environment stands.
#[must_use]
pub fn observed(host: &Host, plan: &Plan, parts: &BTreeMap<String, Part>, diff: &Diff) -> Observed {
    let unprepared = parts.iter().find_map(|(name, part)| Some((name, part.failure.as_ref()?)));
    let reason = match (&diff.failure, unprepared) {
        (Some(exit), _) => Some(exited(exit, parts)),
        (None, Some((name, failure))) => Some((failure.code.clone(), format!("{name}: {}", failure.text))),
        (None, None) => None,
    };
    let state = match (&diff.failure, diff.ready) {
        (Some(_), _) => EnvironmentState::Failed,
        (None, true) => EnvironmentState::Ready,
        (None, false) => EnvironmentState::Starting,
    };
    let services: Vec<_> =
        plan.stack.services.keys().map(|name| service(host, plan, name, parts.get(name), diff)).collect();
    let reason = reason.or_else(|| reached(&services));
    Observed {
        generation: Generation(plan.wanted.order.generation),
        state,
        reason,
        services,
        notices: plan
            .notices
            .iter()
            .cloned()
            .chain(host.firewall.notice())
            .chain(host.parents.notice(&plan.id))
            .chain(host.owners.notices(&plan.id))
            .collect(),
        activity: None,
    }
}

/// It works, and something of it gets to where it should not.
fn reached(services: &[ServiceObserved]) -> Option<(String, String)> {
    let from = services.iter().filter_map(|service| {
        let reached = &service.isolation.as_ref()?.reached;
        (!reached.is_empty()).then(|| format!("{} reaches {}", service.name, reached.join(", ")))
    });
    let text = from.collect::<Vec<_>>().join("; ");
    (!text.is_empty()).then(|| ("E_ISOLATION".to_owned(), text))
}

fn exited(exit: &Exit, parts: &BTreeMap<String, Part>) -> (String, String) {
    let part = parts.get(&exit.service);
    if exit.code.is_none()
        && let Some(failure) = part.and_then(|part| part.failure.as_ref())
    {
        return (failure.code.clone(), format!("{}: {}", exit.service, failure.text));
    }
    let what = match (exit.crash_loop, exit.code) {
        (true, _) => "keeps ending and is restarted".to_owned(),
        (false, Some(code)) => format!("exited with {code}"),
        (false, None) => "could not be started".to_owned(),
    };
    let waited = exit.dependent.as_ref().map(|one| format!(" while {one} waited for it")).unwrap_or_default();
    let lines = part.map(|part| part.last_lines.as_slice()).unwrap_or_default();
    let said = if lines.is_empty() {
        "; it wrote nothing".to_owned()
    } else {
        format!("; its last lines:\n{}", lines.join("\n"))
    };
    (exit.reason_code().to_owned(), format!("{} {what}{waited}{said}", exit.service))
}

fn service(host: &Host, plan: &Plan, name: &str, part: Option<&Part>, diff: &Diff) -> ServiceObserved {
    let declared = plan.stack.services.get(name);
    let standing = diff.services.get(name);
    let mut addresses = BTreeMap::new();
    let mut connection = BTreeMap::new();
    for (index, port) in declared.iter().flat_map(|service| &service.ports).enumerate() {
        let Some(published) = plan.published(name, *port) else { continue };
        let address = SocketAddr::new(host.listen_address, published);
        addresses.insert(*port, address.to_string());
        if let (0, Some(service)) = (index, declared) {
            connection = variables::of(name, service, address);
        }
    }
    let waits = standing.and_then(|standing| standing.waits_for.as_ref()).map(|(on, condition)| {
        let until = match condition {
            Condition::Started => "started",
            Condition::Healthy => "ready",
            Condition::Completed => "done",
        };
        format!("waits until {on} is {until}")
    });
    ServiceObserved {
        name: name.to_owned(),
        state: standing.map_or(ServiceState::Waiting, |standing| standing.state),
        detail: waits.or_else(|| part.map(|part| part.detail.clone())).unwrap_or_default(),
        ready_after_micros: part.and_then(|part| part.ready_after).map(proto::convert::micros),
        addresses,
        variables: connection,
        last_lines: part.map(|part| part.last_lines.clone()).unwrap_or_default(),
        isolation: host.isolation.of(&plan.id, name),
    }
}

/// An environment of which only a state and a reason are known.
#[must_use]
pub fn bare(generation: u64, state: EnvironmentState, reason: Option<(String, String)>) -> Observed {
    Observed {
        generation: Generation(generation),
        state,
        reason,
        services: Vec::new(),
        notices: Vec::new(),
        activity: None,
    }
}

/// As it travels; `result` is set when an acknowledgement is wanted. Who knows nothing of the data says nothing of it.
#[must_use]
pub fn message(id: &str, observed: &Observed, data: Option<(&Laid, Usage)>, result: String) -> v1::EnvironmentReport {
    let (data, usage) = data.map(|(laid, usage)| (laid.clone(), usage)).unwrap_or_default();
    v1::EnvironmentReport {
        data: data.said,
        own_bytes: usage.own_bytes,
        shared_bytes: usage.shared_bytes,
        kept_epochs: data.kept,
        id: id.to_owned(),
        generation: observed.generation.0,
        state: v1::EnvironmentState::from(observed.state).into(),
        reason: observed.reason.clone().map(|(code, text)| v1::Reason { code, text }),
        services: observed.services.iter().map(Into::into).collect(),
        notices: observed.notices.clone(),
        result,
        last_used_at: observed.activity.as_ref().map_or(0, |activity| activity.last_used.0),
        why: observed.activity.as_ref().map(|activity| activity.why.clone()).unwrap_or_default(),
        memory_bytes: observed.activity.as_ref().map_or(0, |activity| activity.memory_bytes),
    }
}

/// An environment that sleeps.
#[must_use]
pub fn resting(host: &Host, plan: &Plan, state: EnvironmentState) -> Observed {
    let nothing = Diff { start: Vec::new(), services: BTreeMap::new(), failure: None, ready: false };
    let mut services: Vec<ServiceObserved> =
        plan.stack.services.keys().map(|name| service(host, plan, name, None, &nothing)).collect();
    for service in &mut services {
        let (state, detail) = match state {
            EnvironmentState::Frozen => (ServiceState::Ready, "frozen"),
            _ => (ServiceState::Waiting, "stopped; a connection starts it"),
        };
        service.state = state;
        detail.clone_into(&mut service.detail);
    }
    let generation = Generation(plan.wanted.order.generation);
    Observed { generation, state, reason: None, services, notices: plan.notices.clone(), activity: None }
}
