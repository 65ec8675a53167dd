//! What to do next so that an environment is as its stack says: pure, and asked again after every change.

use std::collections::BTreeMap;

use super::ServiceState;
use crate::stack::{Condition, Service, Stack};

/// A service that was restarted so often keeps ending.
pub const CRASH_LOOP: u32 = 3;

/// What is known of a service's container.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Seen {
    /// Its image is being fetched or built.
    Preparing,
    /// It does not run and may be started: never started, removed, or made from something else than is wanted now.
    Startable,
    /// It is being made or started.
    Starting,
    /// It runs.
    Running {
        /// Its health check passed, or none is declared.
        ready: bool,
    },
    /// It ended by itself.
    Ended {
        /// Its exit status; none: it could not be started.
        code: Option<i32>,
        /// It was ready before, or was found when the agent started.
        was_ready: bool,
        /// The pause before its next start is over.
        pause_over: bool,
    },
}

/// What is known of a service.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Known {
    /// Its container.
    pub seen: Seen,
    /// Starts after an end, in a row.
    pub restarts: u32,
}

impl Known {
    /// A service of which nothing was done yet.
    pub const NEW: Self = Self { seen: Seen::Preparing, restarts: 0 };
}

/// Why an environment cannot come up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// The service that ended or could not be started.
    pub service: String,
    /// Its exit status; none: it could not be started.
    pub code: Option<i32>,
    /// A service that waited for it.
    pub dependent: Option<String>,
    /// It keeps ending and is restarted.
    pub crash_loop: bool,
}

impl Failure {
    /// The stable reason code.
    #[must_use]
    pub fn reason_code(&self) -> &'static str {
        match (self.crash_loop, &self.dependent, self.code) {
            (true, _, _) => "E_ENV_CRASH_LOOP",
            (false, _, None) => "E_ENV_SERVICE_START",
            (false, Some(_), _) => "E_ENV_DEPENDENCY_EXITED",
            (false, None, _) => "E_ENV_SERVICE_EXITED",
        }
    }
}

/// What a service stands at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Standing {
    /// Its state, as reported.
    pub state: ServiceState,
    /// The dependency it waits for.
    pub waits_for: Option<(String, Condition)>,
}

/// What to do next, and how things stand.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Diff {
    /// Services to start now, in the order of their names.
    pub start: Vec<String>,
    /// How each service stands.
    pub services: BTreeMap<String, Standing>,
    /// The first failure in the order of dependencies.
    pub failure: Option<Failure>,
    /// Every service is ready or done.
    pub ready: bool,
}

/// Compares what the stack wants with what is known. A service missing in `known` counts as [`Known::NEW`].
#[must_use]
pub fn diff(stack: &Stack, known: &BTreeMap<String, Known>) -> Diff {
    let mut diff = Diff { start: Vec::new(), services: BTreeMap::new(), failure: None, ready: true };
    for (name, service) in &stack.services {
        let one = known.get(name).copied().unwrap_or(Known::NEW);
        let standing = stand(stack, known, name, service, one, &mut diff);
        diff.ready &= matches!(standing.state, ServiceState::Ready | ServiceState::Done);
        diff.services.insert(name.clone(), standing);
    }
    diff
}

fn stand(
    stack: &Stack,
    known: &BTreeMap<String, Known>,
    name: &str,
    service: &Service,
    one: Known,
    diff: &mut Diff,
) -> Standing {
    let at = |state| Standing { state, waits_for: None };
    match one.seen {
        Seen::Preparing => at(ServiceState::Pulling),
        Seen::Starting => at(ServiceState::Starting),
        Seen::Running { ready: true } => at(ServiceState::Ready),
        Seen::Running { ready: false } => at(ServiceState::Starting),
        Seen::Startable => match unmet(known, stack, service) {
            None => {
                diff.start.push(name.to_owned());
                at(ServiceState::Starting)
            }
            Some((dependency, condition)) => {
                if let Some(failure) = hopeless(stack, known, &dependency, condition, name) {
                    keep_first(diff, failure);
                }
                Standing { state: ServiceState::Waiting, waits_for: Some((dependency, condition)) }
            }
        },
        Seen::Ended { code: Some(0), .. } if is_done(service, one) => at(ServiceState::Done),
        Seen::Ended { code, was_ready, pause_over } => {
            let again = restarts(service, code, was_ready);
            if again && pause_over {
                diff.start.push(name.to_owned());
            }
            let looping = again && one.restarts >= CRASH_LOOP;
            if looping || !was_ready || !again {
                keep_first(diff, Failure { service: name.to_owned(), code, dependent: None, crash_loop: looping });
            }
            at(if looping { ServiceState::CrashLoop } else { ServiceState::Exited })
        }
    }
}

/// A dependency's failure says more than that of those who wait for it, and one that names a dependent more than one
/// without.
fn keep_first(diff: &mut Diff, failure: Failure) {
    match &mut diff.failure {
        None => diff.failure = Some(failure),
        Some(held) if held.service == failure.service && held.dependent.is_none() && !held.crash_loop => {
            held.dependent = failure.dependent;
        }
        Some(_) => {}
    }
}

/// Ended with status 0 and not to be restarted. A database never is "done".
fn is_done(service: &Service, one: Known) -> bool {
    matches!(one.seen, Seen::Ended { code: Some(0), .. }) && !service.restart && service.store.is_none()
}

/// What could not be started although it was ready before is tried again, whatever it is: that says nothing of the service.
fn restarts(service: &Service, code: Option<i32>, was_ready: bool) -> bool {
    service.restart || (was_ready && (service.store.is_some() || code.is_none()))
}

/// The first dependency whose condition does not hold yet.
fn unmet(known: &BTreeMap<String, Known>, stack: &Stack, service: &Service) -> Option<(String, Condition)> {
    service.depends_on.iter().find_map(|(name, condition)| {
        let one = known.get(name).copied().unwrap_or(Known::NEW);
        let holds = match (condition, one.seen) {
            (Condition::Started | Condition::Healthy, Seen::Running { ready: true })
            | (Condition::Started, Seen::Running { .. } | Seen::Ended { code: Some(_), .. }) => true,
            (Condition::Completed, Seen::Ended { code: Some(0), .. }) => {
                stack.services.get(name).is_some_and(|dependency| is_done(dependency, one))
            }
            _ => false,
        };
        (!holds).then(|| (name.clone(), *condition))
    })
}

/// Whether what `dependent` waits for cannot come any more.
fn hopeless(
    stack: &Stack,
    known: &BTreeMap<String, Known>,
    dependency: &str,
    condition: Condition,
    dependent: &str,
) -> Option<Failure> {
    let service = stack.services.get(dependency)?;
    let one = known.get(dependency).copied().unwrap_or(Known::NEW);
    let Seen::Ended { code, was_ready, .. } = one.seen else { return None };
    if restarts(service, code, was_ready) && was_ready && one.restarts < CRASH_LOOP {
        return None;
    }
    let waits_for_end = condition == Condition::Completed && code == Some(0);
    (!waits_for_end).then(|| Failure {
        service: dependency.to_owned(),
        code,
        dependent: Some(dependent.to_owned()),
        crash_loop: false,
    })
}

#[cfg(test)]
mod tests;
