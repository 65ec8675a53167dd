//! `muster rollout`.

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use proto::v1;

use super::client::{Client, Key, resume};
use super::error::Error;
use super::output::{Output, dash, short};
use super::terminal::Block;
use super::{repository, rollout_view, time};

/// Verbs of `muster rollout`.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// What `start` would do
    Plan(What),
    /// Move the members of a target to a release, and wait for the outcome
    Start(Start),
    /// State of one rollout
    Status {
        /// Its id, the end of it, or APP/TARGET for its newest
        rollout: String,
        /// Why it waits, or why it ended as it did: the gate, the last probe answers, the app's last log lines
        #[arg(long)]
        why: bool,
    },
    /// Follow one rollout until it has ended
    Watch {
        /// Its id, the end of it, or APP/TARGET for its newest
        rollout: String,
    },
    /// Start nothing new; what is in flight finishes
    Pause(Change),
    /// Go on
    Resume(Change),
    /// Take touched members back, then end
    Cancel(Change),
    /// Go back: a running one at once; after a finished one, by a new rollout
    Revert(Change),
    /// Rollouts of a target, newest first
    List {
        /// APP/TARGET, or TARGET inside the app's repository; default: all
        #[arg(default_value = "")]
        target: String,
    },
}

/// What is rolled out where.
#[derive(Args, Debug)]
pub struct What {
    /// APP/TARGET, or TARGET inside the app's repository
    target: String,
    /// Commit; a short one is completed by git; default: the build that was registered last
    commit: Option<String>,
    /// Build id, or the end of one
    #[arg(long, conflicts_with = "commit")]
    build: Option<String>,
    /// Number of an earlier release of the target
    #[arg(long, conflicts_with_all = ["commit", "build"])]
    release: Option<u64>,
    /// Setting of the policy for this rollout only, for example `--set max_parallel=2`
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    /// Members allowed to be away
    #[arg(long, value_name = "N|N%")]
    max_unreachable: Option<String>,
}

/// Flags of `muster rollout start`.
#[derive(Args, Debug)]
pub struct Start {
    #[command(flatten)]
    what: What,
    /// Why, for the ledger
    #[arg(long, default_value = "")]
    reason: String,
    /// Start although the target is locked
    #[arg(long)]
    unlock: bool,
    /// Do not wait for the outcome
    #[arg(long)]
    detach: bool,
    #[command(flatten)]
    key: Key,
}

/// A rollout, and why it is changed.
#[derive(Args, Debug)]
pub struct Change {
    /// Its id, the end of it, or APP/TARGET for its newest
    rollout: String,
    /// Why, for the ledger
    #[arg(long, default_value = "")]
    reason: String,
    /// Do not wait for the outcome
    #[arg(long)]
    detach: bool,
}

/// Carries out a verb.
///
/// # Errors
/// See [`Error`].
pub async fn run(command: Command, client: &Client, output: &Output) -> Result<ExitCode, Error> {
    let mut rollouts = client.rollouts();
    match command {
        Command::Plan(what) => {
            let plan = rollouts.plan(request(&what)?).await?.into_inner();
            output.show(&plan, || lines(output, &rollout_view::plan(&plan)))?;
            Ok(if plan.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(4) })
        }
        Command::Start(flags) => start(flags, client, output).await,
        Command::Status { rollout, why } => {
            let rollout = rollouts.status(v1::RolloutRequest { rollout }).await?.into_inner();
            output.show(&rollout, || {
                let mut shown = rollout_view::status(&rollout);
                if why {
                    if !rollout_view::has_ended(rollout.state()) {
                        // What it waits for is the first line of the reasons.
                        shown.pop();
                    }
                    shown.extend(rollout_view::why(&rollout));
                }
                lines(output, &shown);
            })?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Watch { rollout } => watch(client, output, &rollout).await,
        Command::Pause(change) => {
            let rollout = rollouts.pause(change_request(&change)).await?.into_inner();
            output.show(&rollout, || lines(output, &rollout_view::status(&rollout)))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Resume(change) => {
            let detach = change.detach;
            let rollout = rollouts.resume(change_request(&change)).await?.into_inner();
            follow(client, output, &rollout, detach).await
        }
        Command::Cancel(change) => {
            let detach = change.detach;
            let rollout = rollouts.cancel(change_request(&change)).await?.into_inner();
            ended_as_asked(follow_to_end(client, output, &rollout, detach).await?)
        }
        Command::Revert(change) => {
            let detach = change.detach;
            let rollout = rollouts.revert(change_request(&change)).await?.into_inner();
            ended_as_asked(follow_to_end(client, output, &rollout, detach).await?)
        }
        Command::List { target } => {
            let target = if target.is_empty() { target } else { repository::target(&target)? };
            let list = rollouts.list(v1::ListRolloutsRequest { target }).await?.into_inner();
            output.show(&list, || print_list(&list.rollouts, output))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn lines(output: &Output, lines: &[String]) {
    for line in lines {
        output.line(line);
    }
}

fn request(what: &What) -> Result<v1::StartRolloutRequest, Error> {
    let mut overrides = BTreeMap::new();
    for setting in &what.overrides {
        let (key, value) = setting
            .split_once('=')
            .ok_or_else(|| Error::usage("E_USAGE", format!("--set {setting:?}: write KEY=VALUE")))?;
        overrides.insert(key.to_owned(), value.to_owned());
    }
    if let Some(amount) = &what.max_unreachable {
        overrides.insert("max_unreachable".to_owned(), amount.clone());
    }
    let commit = match &what.commit {
        Some(commit) => repository::full_commit(Some(commit))?,
        None => String::new(),
    };
    Ok(v1::StartRolloutRequest {
        target: repository::target(&what.target)?,
        commit,
        build: what.build.clone().unwrap_or_default(),
        release: what.release.unwrap_or(0),
        overrides,
        ..v1::StartRolloutRequest::default()
    })
}

fn change_request(change: &Change) -> v1::ChangeRolloutRequest {
    v1::ChangeRolloutRequest {
        rollout: change.rollout.clone(),
        reason: change.reason.clone(),
        idempotency_key: Key::made(),
    }
}

async fn start(flags: Start, client: &Client, output: &Output) -> Result<ExitCode, Error> {
    let request = v1::StartRolloutRequest {
        reason: flags.reason,
        unlock: flags.unlock,
        idempotency_key: flags.key.or_made(),
        ..request(&flags.what)?
    };
    let rollout = resume(async || Ok(client.rollouts().start(request.clone()).await?.into_inner())).await?;
    follow(client, output, &rollout, flags.detach).await
}

async fn follow(client: &Client, output: &Output, rollout: &v1::Rollout, detach: bool) -> Result<ExitCode, Error> {
    let ended = follow_to_end(client, output, rollout, detach).await?;
    Ok(ended.map_or(ExitCode::SUCCESS, |rollout| exit_code(rollout.state())))
}

async fn watch(client: &Client, output: &Output, rollout: &str) -> Result<ExitCode, Error> {
    let ended = watch_to_end(client, output, rollout).await?;
    Ok(exit_code(ended.state()))
}

async fn follow_to_end(
    client: &Client,
    output: &Output,
    rollout: &v1::Rollout,
    detach: bool,
) -> Result<Option<v1::Rollout>, Error> {
    if detach {
        output.show(rollout, || lines(output, &rollout_view::status(rollout)))?;
        return Ok(None);
    }
    watch_to_end(client, output, &rollout.id).await.map(Some)
}

async fn watch_to_end(client: &Client, output: &Output, rollout: &str) -> Result<v1::Rollout, Error> {
    let mut block = Block::new(output);
    let ended = resume(async || {
        let request = v1::RolloutRequest { rollout: rollout.to_owned() };
        let mut stream = client.rollouts().watch(request).await?.into_inner();
        while let Some(rollout) = stream.message().await? {
            if output.is_json() {
                output.json(&rollout)?;
            } else {
                let mut shown = rollout_view::status(&rollout);
                if !output.is_terminal() {
                    rollout_view::without_running_figures(&mut shown);
                }
                block.draw(shown);
            }
            if rollout_view::has_ended(rollout.state()) {
                return Ok(rollout);
            }
        }
        Err(Error::Status(tonic::Status::unavailable("E_STREAM_ENDED: the coordinator ended the stream")))
    })
    .await?;
    if !output.is_json() && ended.state() != v1::RolloutState::Succeeded {
        lines(output, &rollout_view::why(&ended));
    }
    Ok(ended)
}

/// After `cancel` and `revert`, the end that was asked for is a success.
fn ended_as_asked(ended: Option<v1::Rollout>) -> Result<ExitCode, Error> {
    let good = ended.is_none_or(|rollout| {
        matches!(
            rollout.state(),
            v1::RolloutState::Cancelled | v1::RolloutState::Reverted | v1::RolloutState::Succeeded
        )
    });
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn exit_code(state: v1::RolloutState) -> ExitCode {
    match state {
        v1::RolloutState::Succeeded => ExitCode::SUCCESS,
        v1::RolloutState::Reverted => ExitCode::from(6),
        _ => ExitCode::FAILURE,
    }
}

fn print_list(rollouts: &[v1::Rollout], output: &Output) {
    let row = |rollout: &v1::Rollout| {
        let from = if rollout.from_release == 0 { "–".to_owned() } else { rollout.from_release.to_string() };
        vec![
            short(&rollout.id),
            rollout.target.clone(),
            format!("{from} → {}", rollout.release),
            rollout_view::state(rollout.state()).to_owned(),
            dash(rollout.reason_code.clone()),
            rollout.actor.clone(),
            time::stamp(rollout.created_at),
        ]
    };
    let rows: Vec<_> = rollouts.iter().map(row).collect();
    output.table(&["ROLLOUT", "TARGET", "RELEASE", "STATE", "REASON", "BY", "STARTED (UTC)"], &rows);
}
