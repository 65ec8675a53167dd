//! `muster seed`.

use std::process::ExitCode;

use clap::Subcommand;
use proto::v1;

use super::client::{Client, resume};
use super::error::Error;
use super::output::Output;
use super::seed_import::{self, Import};
use super::seed_view::{address, failure, made, moved, moving, print, print_list, progress};
use super::terminal::Block;

/// Verbs of `muster seed`.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Make a seed of dumps and other files, for environments to begin with
    // Its own --version is the seed's.
    #[command(disable_version_flag = true)]
    Import(Box<Import>),
    /// Seeds, and snapshots of yours
    List {
        /// Also snapshots
        #[arg(long, short)]
        snapshots: bool,
        /// Also snapshots of others
        #[arg(long, short)]
        all: bool,
    },
    /// One seed with its volumes
    Show {
        /// NAME, NAME@VERSION, OWNER/NAME for a snapshot, or id
        seed: String,
    },
    /// Bring it into the coordinator's store; `env up` on a host that lacks it does so by itself
    Push {
        /// NAME, NAME@VERSION, OWNER/NAME for a snapshot, or id
        seed: String,
        /// Do not wait until it is there
        #[arg(long)]
        detach: bool,
    },
    /// Bring it to a host that lacks it; `env up` does so by itself
    Pull {
        /// NAME, NAME@VERSION, OWNER/NAME for a snapshot, or id
        seed: String,
        /// Default: your own box
        #[arg(long)]
        host: Option<String>,
        /// Do not wait until it is there
        #[arg(long)]
        detach: bool,
    },
    /// Remove a seed or snapshot that no environment began with
    Rm {
        /// NAME, NAME@VERSION, OWNER/NAME for a snapshot, or id
        seed: String,
        /// Do not wait until its host has removed it
        #[arg(long)]
        detach: bool,
    },
}

/// Carries out a verb.
///
/// # Errors
/// See [`Error`].
pub async fn run(command: Command, client: &Client, output: &Output) -> Result<ExitCode, Error> {
    let mut seeds = client.seeds();
    match command {
        Command::Import(import) => return seed_import::run(*import, client, output).await,
        Command::List { snapshots, all } => {
            let list = seeds.list(v1::ListSeedsRequest { snapshots: snapshots || all, all }).await?.into_inner();
            output.show(&list, || print_list(&list.seeds, output))?;
        }
        Command::Show { seed } => {
            let seed = seeds.show(v1::ShowSeedRequest { seed }).await?.into_inner();
            output.show(&seed, || print(&seed, output))?;
        }
        Command::Push { seed, detach } => {
            let going = seeds.push(v1::ShowSeedRequest { seed }).await?.into_inner();
            return arrived(going, detach, client, output).await;
        }
        Command::Pull { seed, host, detach } => {
            let ask = v1::PullSeedRequest { seed, host: host.unwrap_or_default() };
            let going = seeds.pull(ask).await?.into_inner();
            return arrived(going, detach, client, output).await;
        }
        Command::Rm { seed, detach } => {
            let going = seeds.remove(v1::ShowSeedRequest { seed }).await?.into_inner();
            let gone = if detach { going } else { wait(client, output, &going.id).await? };
            let kept = gone.state() == v1::SeedState::Ready;
            output.show(&gone, || match gone.state() {
                v1::SeedState::Ready => failure(&gone),
                v1::SeedState::Removing => output.line(&format!("{}: is being removed", address(&gone))),
                _ => output.line(&format!("{}: removed", address(&gone))),
            })?;
            return Ok(if kept { ExitCode::FAILURE } else { ExitCode::SUCCESS });
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Waits until nothing of it is on the way any more.
async fn arrived(going: v1::Seed, detach: bool, client: &Client, output: &Output) -> Result<ExitCode, Error> {
    let under_way = |seed: &v1::Seed| seed.copies.iter().any(|copy| copy.state() == v1::SeedState::Making);
    let mut seed = going;
    if !detach && under_way(&seed) {
        let mut block = Block::new(output);
        let id = seed.id.clone();
        seed = resume(async || {
            let mut stream = client.seeds().watch(v1::ShowSeedRequest { seed: id.clone() }).await?.into_inner();
            while let Some(seed) = stream.message().await? {
                if !under_way(&seed) {
                    return Ok(seed);
                }
                if !output.is_json() {
                    block.draw(moving(&seed));
                }
            }
            Err(Error::Status(tonic::Status::unavailable("E_STREAM_ENDED: the coordinator ended the stream")))
        })
        .await?;
    }
    let failed = seed.copies.iter().any(|copy| copy.state() == v1::SeedState::Failed);
    output.show(&seed, || moved(&seed).iter().for_each(|line| output.line(line)))?;
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Waits until its host has nothing to do for it.
///
/// # Errors
/// See [`Error`].
pub async fn wait(client: &Client, output: &Output, id: &str) -> Result<v1::Seed, Error> {
    let mut block = Block::new(output);
    resume(async || {
        let mut stream = client.seeds().watch(v1::ShowSeedRequest { seed: id.to_owned() }).await?.into_inner();
        while let Some(seed) = stream.message().await? {
            if !matches!(seed.state(), v1::SeedState::Making | v1::SeedState::Removing) {
                return Ok(seed);
            }
            if !output.is_json() {
                block.draw(progress(&seed));
            }
        }
        Err(Error::Status(tonic::Status::unavailable("E_STREAM_ENDED: the coordinator ended the stream")))
    })
    .await
}

/// Tells how the making of a seed ended.
///
/// # Errors
/// It cannot be printed.
pub fn told(seed: &v1::Seed, output: &Output) -> Result<ExitCode, Error> {
    let ready = seed.state() == v1::SeedState::Ready;
    output.show(seed, || if ready { output.line(&made(seed)) } else { failure(seed) })?;
    Ok(if ready { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
