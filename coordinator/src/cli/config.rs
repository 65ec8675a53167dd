//! `muster config`.

use std::process::ExitCode;

use clap::Subcommand;
use proto::v1;

use super::client::{Client, Key};
use super::error::Error;
use super::host::split_changes;
use super::output::Output;
use super::{repository, time};

/// Verbs of `muster config`.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Make a revision; nothing that runs changes until the next rollout
    Set {
        /// APP/TARGET, or TARGET inside the app's repository
        target: String,
        /// KEY=VALUE to set, KEY- to take away
        #[arg(required = true)]
        changes: Vec<String>,
    },
    /// All revisions, newest first
    List {
        /// APP/TARGET, or TARGET inside the app's repository
        target: String,
    },
}

/// Carries out a verb.
///
/// # Errors
/// See [`Error`].
pub async fn run(command: Command, client: &Client, output: &Output) -> Result<ExitCode, Error> {
    let mut config = client.config();
    match command {
        Command::Set { target, changes } => {
            let (set, unset) = split_changes(&changes)?;
            let target = repository::target(&target)?;
            let request = v1::SetConfigRequest { target, set, unset, idempotency_key: Key::made() };
            let made = config.set(request).await?.into_inner();
            output.show(&made, || {
                output.line(&format!(
                    "{}: config r{}; in use after the next `muster rollout start {0}`",
                    made.target, made.revision
                ));
                for change in &made.changes {
                    output.line(&format!("  {change}"));
                }
            })?;
        }
        Command::List { target } => {
            let target = repository::target(&target)?;
            let list = config.list(v1::ListConfigRequest { target }).await?.into_inner();
            output.show(&list, || {
                for revision in &list.revisions {
                    output.line(&format!(
                        "r{}  {} UTC  {}",
                        revision.revision,
                        time::stamp(revision.created_at),
                        revision.actor
                    ));
                    let mut values: Vec<_> = revision.values.iter().collect();
                    values.sort();
                    for (key, value) in values {
                        output.line(&format!("  {key}={value}"));
                    }
                }
            })?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
