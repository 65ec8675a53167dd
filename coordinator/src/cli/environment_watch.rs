//! `muster env up --watch`: services are built or started again when what they are made of changes here.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Instant;

use domain::stack::watch::{Again, affected};
use domain::stack::{Stack, WatchAction};
use proto::v1;

use super::client::Client;
use super::environment::{is_up, wait};
use super::environment_view::{Wanted, print_failure};
use super::error::Error;
use super::output::Output;
use super::stack::plain;
use super::sync::{Changes, Folder, Listing, Scanner, changes};
use super::time;

/// What is watched.
#[derive(Debug)]
pub struct Watching<'a> {
    /// The environment's id.
    pub environment: &'a str,
    /// Its stack.
    pub stack: &'a Stack,
    /// Lists what the stack uses of the folder.
    pub scanner: Scanner,
    /// Uploads it, where the environment is on another machine.
    pub folder: Option<Folder>,
}

/// What `develop.watch` names beside what is mounted and built from.
pub fn named(stack: &Stack) -> BTreeSet<String> {
    let rules = stack.services.values().flat_map(|service| &service.watch);
    rules.filter(|rule| rule.action != WatchAction::Sync).map(|rule| plain(&rule.path)).collect()
}

/// Watches until it is interrupted; the environment stays up.
///
/// # Errors
/// The folder cannot be read, or the coordinator stays away.
pub async fn run(mut watching: Watching<'_>, client: &Client, output: &Output) -> Result<ExitCode, Error> {
    tokio::select! {
        ended = follow(&mut watching, client, output) => ended?,
        _ = tokio::signal::ctrl_c() => {
            output.line("nothing is watched any more; the environment stays up (`muster env down` removes it)");
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn follow(watching: &mut Watching<'_>, client: &Client, output: &Output) -> Result<(), Error> {
    let mut told = Changes::of(watching.scanner.places(), |why| {
        eprintln!("changes are looked for every 2 s: the system does not tell of them ({why})");
    });
    let mut before = list(&mut watching.scanner)?;
    output.line("watching for changes; Ctrl-C ends");
    loop {
        told.next().await;
        let after = list(&mut watching.scanner)?;
        let changed = files(&before, &after);
        before = after;
        if changed.is_empty() {
            continue;
        }
        if let Some(folder) = &mut watching.folder {
            folder.step(client, watching.environment, output).await?;
        }
        for (service, again) in affected(watching.stack, &changed) {
            if let Err(why) = once(watching.environment, &service, again, &changed, client, output).await {
                // A mistake in a source is no reason to end: the next change may mend it.
                eprintln!("{service}: {why}");
            }
        }
    }
}

fn list(scanner: &mut Scanner) -> Result<Listing, Error> {
    tokio::task::block_in_place(|| scanner.list())
}

/// Files and links that are new, other or gone.
fn files(before: &Listing, after: &Listing) -> BTreeSet<String> {
    let (new, gone) = changes(before, after);
    let new = new.into_iter().filter(|entry| entry.kind() != v1::SyncKind::Folder).map(|entry| entry.path);
    new.chain(gone).collect()
}

async fn once(
    environment: &str,
    service: &str,
    again: Again,
    changed: &BTreeSet<String>,
    client: &Client,
    output: &Output,
) -> Result<(), Error> {
    let begun = Instant::now();
    let mut environments = client.environments();
    let (environment, service) = (environment.to_owned(), service.to_owned());
    let first = changed.first().cloned().unwrap_or_default();
    let more = if changed.len() > 1 { format!(" and {} more", changed.len() - 1) } else { String::new() };
    let doing = if again == Again::Rebuild { "is built again" } else { "is restarted" };
    output.line(&format!("{service} {doing}: {first}{more} changed"));
    let asked = match again {
        Again::Rebuild => {
            let request = v1::RebuildEnvironmentRequest { environment, service: service.clone() };
            environments.rebuild(request).await?
        }
        Again::Restart => {
            let request = v1::RestartEnvironmentRequest { environment, service: service.clone() };
            environments.restart(request).await?
        }
    };
    let ready = wait(client, output, &asked.into_inner().id, Wanted::Ready).await?;
    if is_up(&ready) {
        let took = proto::convert::micros(begun.elapsed());
        output.line(&format!("{service} ready in {}", time::duration(took)));
    } else {
        print_failure(&ready);
    }
    Ok(())
}
