//! `muster events`: the ledger.

use std::collections::VecDeque;
use std::process::ExitCode;

use clap::Args;
use proto::v1;

use super::client::{Client, resume};
use super::error::Error;
use super::output::{Output, short};
use super::time;

/// Flags of `muster events`.
#[derive(Args, Debug)]
pub struct Events {
    /// Go on with what comes
    #[arg(long, short)]
    follow: bool,
    /// Only what is younger, for example 10m
    #[arg(long)]
    since: Option<String>,
    /// Only this target, app or environment
    #[arg(long, default_value = "")]
    scope: String,
    /// At most so many, the newest (1-1000); without it 100, and with --since all
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST)))]
    limit: Option<u32>,
}

/// So many are asked for at once, which is what the coordinator gives.
const MOST: u32 = 1000;
/// So many are shown of a ledger of which nothing is asked for.
const FEW: u32 = 100;

/// Prints events; with `--follow` for ever, without a gap over restarts of the coordinator.
///
/// # Errors
/// See [`Error`].
pub async fn run(events: Events, client: &Client, output: &Output) -> Result<ExitCode, Error> {
    let since = match &events.since {
        Some(text) => time::now_micros().saturating_sub_unsigned(time::parse("--since", text)?),
        None => 0,
    };
    let limit = if since == 0 { events.limit.unwrap_or(FEW) } else { MOST };
    let mut request = v1::ListEventsRequest { after_seq: 0, since, scope: events.scope.clone(), limit };
    // Of a limit the newest are held back until there are no more.
    let mut held = VecDeque::new();
    loop {
        let page = client.events().list(request.clone()).await?.into_inner().events;
        let more = since != 0 && page.len() >= limit as usize;
        for event in page {
            request.after_seq = request.after_seq.max(event.seq);
            match events.limit {
                None => print(&event, output)?,
                Some(limit) => {
                    held.push_back(event);
                    if held.len() > limit as usize {
                        held.pop_front();
                    }
                }
            }
        }
        if !more {
            break;
        }
    }
    for event in &held {
        print(event, output)?;
    }
    if !events.follow {
        return Ok(ExitCode::SUCCESS);
    }
    let last = std::sync::atomic::AtomicU64::new(request.after_seq);
    resume(async || {
        let after_seq = last.load(std::sync::atomic::Ordering::Relaxed);
        let mut stream =
            client.events().watch(v1::ListEventsRequest { after_seq, ..request.clone() }).await?.into_inner();
        while let Some(event) = stream.message().await? {
            last.store(event.seq, std::sync::atomic::Ordering::Relaxed);
            print(&event, output)?;
        }
        Err(Error::Status(tonic::Status::unavailable("E_STREAM_ENDED: the coordinator ended the stream")))
    })
    .await
}

fn print(event: &v1::Event, output: &Output) -> Result<(), Error> {
    output.show(event, || {
        // A name stays whole; of an id the end is enough to tell it from others.
        let subject = if event.subject.len() == 36 { short(&event.subject) } else { event.subject.clone() };
        let reason = if event.reason.is_empty() { String::new() } else { format!("{}: ", event.reason) };
        output.line(&format!(
            "{}  {:<22} {:<20} {:<12} {reason}{}",
            time::clock(event.at),
            event.kind,
            subject,
            event.actor,
            event.text
        ));
    })
}
