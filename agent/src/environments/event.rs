//! What an environment's task is told.

use std::sync::Arc;

use domain::environment::life::Usage;
use tokio::sync::mpsc;

use super::failure::Failure;
use super::health;
use super::launch::Launched;
use crate::engine::watch::End;
use crate::engine::{ContainerSpec, last_lines};
use crate::host::Host;

/// Log lines that are kept of a service that ended.
pub(super) const LINES: u32 = 20;

/// News for the loop.
#[derive(Debug)]
pub(super) enum Event {
    /// Network, ports and manifest are there.
    Grounded(Result<(), Failure>),
    Prepared(String, Result<Box<ContainerSpec>, Failure>),
    Launched(String, u64, Result<Launched, Failure>),
    Health(String, u64, health::Change),
    Ended {
        service: String,
        instance: u64,
        code: Option<i32>,
        lines: Vec<String>,
        out_of_memory: bool,
        /// It may not have ended by itself.
        engine_was_away: bool,
    },
    PauseOver(String, u64),
    /// How the environment is used, and how much memory it has.
    Used(Usage, u64),
}

/// Tells when a container ends, with its last words.
pub(super) async fn watch_end(
    host: Arc<Host>,
    send: mpsc::UnboundedSender<Event>,
    service: String,
    instance: u64,
    id: String,
) {
    let End { code, engine_was_away } = host.watch.end(&id).await;
    let lines = if code.is_some() { last_lines(host.engine.as_ref(), &id, LINES).await } else { Vec::new() };
    let found = host.engine.inspect(&id).await;
    let out_of_memory = matches!(found, Ok(Some(found)) if found.out_of_memory);
    let _ = send.send(Event::Ended { service, instance, code, lines, out_of_memory, engine_was_away });
}
