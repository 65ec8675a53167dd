//! `muster env snapshot`, `reset`, `undo`, `clone`.

use std::process::ExitCode;

use clap::Args;
use proto::v1;

use super::client::{Client, Key, resume};
use super::environment::{named, ready};
use super::error::Error;
use super::output::Output;
use super::seed::{told, wait};
use super::seed_view::{address, failure};
use super::stack::{self, Chosen};

/// Flags of `muster env snapshot`.
#[derive(Args, Debug)]
pub struct Snapshot {
    /// Name of the snapshot
    name: String,
    /// NAME, OWNER/NAME or id; default: as `env up` names it here
    environment: Option<String>,
    /// Do not wait until it is taken
    #[arg(long)]
    detach: bool,
    #[command(flatten)]
    key: Key,
}

/// Flags of `muster env clone`.
#[derive(Args, Debug)]
pub struct Clone {
    /// NAME, OWNER/NAME or id
    environment: String,
    /// Name of the new one
    new: String,
}

/// Takes all of its data at one instant.
///
/// # Errors
/// See [`Error`].
pub async fn snapshot(ask: Snapshot, client: &Client, output: &Output) -> Result<ExitCode, Error> {
    let request = v1::SnapshotEnvironmentRequest {
        environment: named(ask.environment)?,
        name: ask.name,
        idempotency_key: ask.key.or_made(),
    };
    let seed = order(client, &request).await?;
    if ask.detach {
        output.show(&seed, || output.line(&format!("snapshot {} is being taken", address(&seed))))?;
        return Ok(ExitCode::SUCCESS);
    }
    let seed = wait(client, output, &seed.id).await?;
    let code = told(&seed, output)?;
    if seed.state() == v1::SeedState::Ready && !output.is_json() {
        output.line(&format!("  muster env up --from {0}    muster seed rm {0}", address(&seed)));
    }
    Ok(code)
}

async fn order(client: &Client, request: &v1::SnapshotEnvironmentRequest) -> Result<v1::Seed, Error> {
    resume(async || Ok(client.environments().snapshot(request.clone()).await?.into_inner())).await
}

/// Brings its data back to what it began with, or to what it was before the last reset.
///
/// # Errors
/// See [`Error`].
pub async fn reset(
    environment: Option<String>,
    undo: bool,
    client: &Client,
    output: &Output,
) -> Result<ExitCode, Error> {
    let environment = named(environment)?;
    let begun = std::time::Instant::now();
    // Not made again when an answer is lost: it would be another reset.
    let going = client.environments().reset(v1::ResetEnvironmentRequest { environment, undo }).await?.into_inner();
    ready(client, output, &going.id, begun).await
}

/// A snapshot under a made-up name, and an environment that begins with it.
///
/// # Errors
/// See [`Error`].
pub async fn clone(ask: Clone, client: &Client, output: &Output) -> Result<ExitCode, Error> {
    let begun = std::time::Instant::now();
    let unique = uuid::Uuid::now_v7().simple().to_string();
    let request = v1::SnapshotEnvironmentRequest {
        environment: ask.environment,
        name: format!("clone-{}", &unique[20..]),
        idempotency_key: Key::made(),
    };
    let seed = order(client, &request).await?;
    let seed = wait(client, output, &seed.id).await?;
    if seed.state() != v1::SeedState::Ready {
        failure(&seed);
        return Ok(ExitCode::FAILURE);
    }
    // The snapshot brings the stack; the folder it uses, if any, only this machine can show.
    let here = stack::find(&Chosen::default()).and_then(|stack| stack.request()).unwrap_or_default();
    let up = v1::UpEnvironmentRequest {
        name: ask.new,
        from: address(&seed),
        grant: here.grant,
        grant_host: here.grant_host,
        idempotency_key: Key::made(),
        ..v1::UpEnvironmentRequest::default()
    };
    let made = resume(async || Ok(client.environments().up(up.clone()).await?.into_inner())).await?;
    ready(client, output, &made.id, begun).await
}
