//! When a service counts as ready: by a protocol probe for databases, otherwise by its declared check.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::health::{HealthCheck, Probe};
use domain::stack::{Service, StoreKind};
use tokio::sync::mpsc;

use crate::host::Host;
use crate::probe::{self, Ask};

/// Between two connects to a port that is not open yet.
const CONNECT: Duration = Duration::from_millis(20);
/// Shortest and longest pause between commands before the first success.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// Between two looks at a MySQL that is ready.
const MYSQL: Duration = Duration::from_secs(30);

/// How readiness is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gate {
    /// Running is enough.
    Running,
    /// By the agent, over the network.
    Ask(Ask, HealthCheck),
    /// By a command in the container, once its port is open.
    Command(Vec<String>, HealthCheck, Option<u16>),
}

/// How this service is asked.
#[must_use]
pub fn gate(service: &Service) -> Gate {
    let first = service.ports.first().or_else(|| service.expose.first()).copied();
    let declared = service.healthcheck.clone();
    if let Some(kind) = service.store {
        return Gate::Ask(Ask::store(kind), declared.unwrap_or_else(|| usual(kind)));
    }
    let Some(check) = declared else { return Gate::Running };
    match (&check.probe, Ask::of(&check.probe, first)) {
        (_, Some(ask)) => Gate::Ask(ask, check),
        (Probe::Command { argv }, None) => Gate::Command(argv.clone(), check, first),
        _ => Gate::Running,
    }
}

/// How often a store is asked whose file does not say.
fn usual(kind: StoreKind) -> HealthCheck {
    let mut check = HealthCheck::new(Probe::Container);
    if kind == StoreKind::Mysql {
        // It writes a warning for each connection that nobody logs in on.
        check.interval = MYSQL;
    }
    check
}

/// A change of a service's health.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// It passes now.
    pub healthy: bool,
    /// The answer, for people.
    pub text: String,
}

/// Tells each change of health until the receiver is gone. The first failing answers of a start are told too, as text.
pub async fn follow(host: Arc<Host>, gate: Gate, container: String, address: IpAddr, tell: mpsc::Sender<Change>) {
    let (check, mut answers) = match gate {
        Gate::Running => {
            let _ = tell.send(Change { healthy: true, text: "running".to_owned() }).await;
            return tell.closed().await;
        }
        Gate::Ask(ask, check) => (check.clone(), Answers::Probe(host.prober.watch(ask, &check, address))),
        Gate::Command(argv, check, port) => {
            let port = port.map(|port| SocketAddr::new(address, port));
            (
                check.clone(),
                Answers::Command { host, container, argv, check, port, pause: PAUSES.0, passed: false, last: None },
            )
        }
    };
    let (mut healthy, mut failing) = (false, 0_u32);
    while let Some((passes, text)) = answers.next().await {
        failing = if passes { 0 } else { failing.saturating_add(1) };
        let now = passes || (healthy && failing < check.failures);
        if now != healthy || !now {
            healthy = now;
            if tell.send(Change { healthy, text }).await.is_err() {
                return;
            }
        }
    }
}

enum Answers {
    Probe(probe::Watch),
    Command {
        host: Arc<Host>,
        container: String,
        argv: Vec<String>,
        check: HealthCheck,
        port: Option<SocketAddr>,
        pause: Duration,
        passed: bool,
        last: Option<Instant>,
    },
}

impl Answers {
    async fn next(&mut self) -> Option<(bool, String)> {
        match self {
            Self::Probe(watch) => watch.next().await.map(|answer| (answer.healthy, answer.text)),
            Self::Command { host, container, argv, check, port, pause, passed, last } => {
                if let Some(took) = last.map(|at| at.elapsed()) {
                    let wait = if *passed { check.interval } else { (*pause).max(took * 10).min(PAUSES.1) };
                    tokio::time::sleep(wait).await;
                    *pause = (*pause * 2).min(PAUSES.1);
                }
                if let Some(port) = port.take() {
                    // Once: a program that has opened its port is worth a command.
                    while !probe::open(port, check.timeout).await.healthy {
                        tokio::time::sleep(CONNECT).await;
                    }
                }
                let began = Instant::now();
                let answer = match host.engine.exec(container, argv, check.timeout).await {
                    Ok(done) if done.status == 0 => (true, "the health check passes".to_owned()),
                    Ok(done) => {
                        let said: String = done.output.trim().chars().take(200).collect();
                        (false, format!("the health check ended with {}: {said}", done.status))
                    }
                    Err(why) => (false, why.to_string()),
                };
                *last = Some(began);
                *passed |= answer.0;
                Some(answer)
            }
        }
    }
}
