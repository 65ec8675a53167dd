//! What does not end at once: commands in containers, events.

use std::collections::HashMap;
use std::time::Duration;

use bollard::Docker;
use bollard::container::LogOutput;
use bollard::exec::{StartExecOptions, StartExecResults};
use bollard::models::{EventMessage, ExecConfig};
use bollard::query_parameters::{EventsOptionsBuilder, ResizeExecOptionsBuilder};
use futures::StreamExt as _;
use futures::stream::BoxStream;

use super::super::spec::HOST;
use super::super::{Attached, Error, Event, ExecSpec, ExecState, Executed, Result};
use super::failed;
use crate::clock;

/// Bytes of a command's output that are kept.
const KEPT: usize = 4096;

pub(super) async fn exec(client: &Docker, id: &str, argv: &[String], timeout: Duration) -> Result<Executed> {
    let config = ExecConfig {
        cmd: Some(argv.to_vec()),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        ..ExecConfig::default()
    };
    let made = client.create_exec(id, config).await.map_err(|why| failed(id, why))?;
    let started = client.start_exec(&made.id, None).await.map_err(|why| failed(id, why))?;
    let StartExecResults::Attached { mut output, .. } = started else {
        return Err(Error::Refused("the engine did not attach to the command".to_owned()));
    };
    let mut said = Vec::new();
    let read = async {
        while let Some(Ok(piece)) = output.next().await {
            let room = KEPT.saturating_sub(said.len());
            let bytes = piece.into_bytes();
            said.extend_from_slice(&bytes[..bytes.len().min(room)]);
        }
    };
    if tokio::time::timeout(timeout, read).await.is_err() {
        return Ok(Executed { status: -1, output: format!("no end within {} ms", timeout.as_millis()) });
    }
    let ended = client.inspect_exec(&made.id).await.map_err(|why| failed(id, why))?;
    let status = ended.exit_code.and_then(|code| i32::try_from(code).ok()).unwrap_or(-1);
    Ok(Executed { status, output: String::from_utf8_lossy(&said).into_owned() })
}

pub(super) async fn attach(client: &Docker, id: &str, spec: &ExecSpec) -> Result<Attached> {
    let config = ExecConfig {
        cmd: Some(spec.argv.clone()),
        env: Some(spec.environment.iter().map(|(key, value)| format!("{key}={value}")).collect()),
        tty: Some(spec.terminal),
        attach_stdin: Some(true),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        ..ExecConfig::default()
    };
    let made = client.create_exec(id, config).await.map_err(|why| failed(id, why))?;
    let options = StartExecOptions { detach: false, tty: spec.terminal, output_capacity: None };
    let started = client.start_exec(&made.id, Some(options)).await.map_err(|why| failed(id, why))?;
    let StartExecResults::Attached { output, input } = started else {
        return Err(Error::Refused("the engine did not attach to the command".to_owned()));
    };
    let output = output.map(|piece| match piece {
        Ok(LogOutput::StdErr { message }) => Ok((true, message)),
        Ok(other) => Ok((false, other.into_bytes())),
        Err(why) => Err(failed("command", why)),
    });
    Ok(Attached { exec: made.id, input, output: output.boxed() })
}

pub(super) async fn resize(client: &Docker, exec: &str, columns: u16, rows: u16) -> Result<()> {
    let options = ResizeExecOptionsBuilder::default().w(i32::from(columns)).h(i32::from(rows)).build();
    client.resize_exec(exec, options).await.map_err(|why| failed(exec, why))
}

pub(super) async fn executed(client: &Docker, exec: &str) -> Result<ExecState> {
    let found = client.inspect_exec(exec).await.map_err(|why| failed(exec, why))?;
    let status = found.exit_code.and_then(|code| i32::try_from(code).ok()).filter(|_| found.running == Some(false));
    let pid = found.pid.and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid > 0);
    Ok(ExecState { status, pid })
}

pub(super) async fn events(client: &Docker, host: &str) -> Result<BoxStream<'static, Event>> {
    // Makes sure that somebody answers, and asks for everything since then: nothing falls into the gap.
    let since = clock::now().0 / 1_000_000 - 1;
    client.ping().await.map_err(|why| failed("events", why))?;
    let filters = HashMap::from([
        ("type".to_owned(), vec!["container".to_owned()]),
        ("event".to_owned(), ["start", "die", "destroy"].map(str::to_owned).to_vec()),
        ("label".to_owned(), vec![format!("{HOST}={host}")]),
    ]);
    let options = EventsOptionsBuilder::default().since(&since.to_string()).filters(&filters).build();
    let events = client.events(Some(options));
    Ok(events
        .take_while(|event| std::future::ready(event.is_ok()))
        .filter_map(|event| std::future::ready(event.ok().and_then(told)))
        .boxed())
}

fn told(event: EventMessage) -> Option<Event> {
    let id = event.actor?.id?;
    Some(if event.action.as_deref() == Some("start") { Event::Started(id) } else { Event::Ended(id) })
}
