//! `muster run`.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

use clap::{Args, Subcommand};
use proto::v1;

use super::client::{Client, Key, resume};
use super::error::Error;
use super::output::{Output, dash, short};
use super::{repository, time};

/// Verbs of `muster run`.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Run named tests for a commit or a build in a fresh environment on a test host
    Start(Start),
    /// Runs of an app, newest first
    List {
        /// Default: all apps
        #[arg(long, default_value = "")]
        app: String,
    },
    /// One run
    Show {
        /// Its id, or the end of it
        run: String,
    },
    /// The log of a run
    Logs {
        /// Its id, or the end of it
        run: String,
        /// Go on until the run has ended
        #[arg(long, short)]
        follow: bool,
    },
    /// End a run
    Cancel {
        /// Its id, or the end of it
        run: String,
    },
}

/// Flags of `muster run start`.
#[derive(Args, Debug)]
pub struct Start {
    /// The name of the tests in muster.yaml
    tests: String,
    /// Default: the app of the muster.yaml around here
    #[arg(long)]
    app: Option<String>,
    /// What to test; a short one is completed by git; default: HEAD
    #[arg(long, conflicts_with = "build")]
    commit: Option<String>,
    /// Test this build: only such a run satisfies a gate that asks for the build
    #[arg(long)]
    build: Option<String>,
    /// Hosts that may run it
    #[arg(long, short = 'l', default_value = "")]
    selector: String,
    /// Show the log and wait for the verdict
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    key: Key,
}

/// Carries out a verb.
///
/// # Errors
/// See [`Error`].
pub async fn run(command: Command, client: &Client, output: &Output) -> Result<ExitCode, Error> {
    match command {
        Command::Start(flags) => return start(flags, client, output).await,
        Command::List { app } => {
            let list = client.runs().list(v1::ListRunsRequest { app }).await?.into_inner();
            output.show(&list, || print_list(&list.runs, output))?;
        }
        Command::Show { run } => {
            let run = client.runs().show(v1::ShowRunRequest { run }).await?.into_inner();
            output.show(&run, || print_run(&run, output))?;
        }
        Command::Logs { run, follow } => logs(client, output, &run, follow).await?,
        Command::Cancel { run } => {
            let run = client.runs().cancel(v1::ShowRunRequest { run }).await?.into_inner();
            output.show(&run, || output.line(&format!("run {}: {}", short(&run.id), state(&run))))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn start(flags: Start, client: &Client, output: &Output) -> Result<ExitCode, Error> {
    let build = flags.build.clone().unwrap_or_default();
    let commit = if build.is_empty() { repository::full_commit(flags.commit.as_ref())? } else { String::new() };
    let request = v1::StartRunRequest {
        app: repository::app(flags.app.as_ref())?,
        tests: flags.tests,
        commit,
        build,
        selector: flags.selector,
        idempotency_key: flags.key.or_made(),
    };
    let run = resume(async || Ok(client.runs().start(request.clone()).await?.into_inner())).await?;
    if !flags.wait {
        output.show(&run, || head(&run, output))?;
        return Ok(ExitCode::SUCCESS);
    }
    if !output.is_json() {
        head(&placed(client, &run.id, output).await?, output);
        logs(client, output, &run.id, true).await?;
    }
    let ended = wait(client, &run.id, output).await?;
    output.show(&ended, || print_verdict(&ended, output))?;
    let passed = ended.verdict() == v1::Verdict::Passed;
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The run as soon as a host has it; until then, what it waits for.
async fn placed(client: &Client, id: &str, output: &Output) -> Result<v1::Run, Error> {
    watch(client, id, output, |run| !run.host.is_empty() || run.state() == v1::RunState::Finished).await
}

async fn wait(client: &Client, id: &str, output: &Output) -> Result<v1::Run, Error> {
    watch(client, id, output, |run| run.state() == v1::RunState::Finished).await
}

async fn watch(client: &Client, id: &str, output: &Output, until: impl Fn(&v1::Run) -> bool) -> Result<v1::Run, Error> {
    resume(async || {
        let request = v1::ShowRunRequest { run: id.to_owned() };
        let mut stream = client.runs().watch(request).await?.into_inner();
        let mut waiting = String::new();
        while let Some(run) = stream.message().await? {
            if until(&run) {
                return Ok(run);
            }
            if run.waiting != waiting && !run.waiting.is_empty() && !output.is_json() {
                output.line(&format!("  {}", run.waiting));
            }
            waiting = run.waiting;
        }
        Err(ended_early())
    })
    .await
}

fn ended_early() -> Error {
    Error::Status(tonic::Status::unavailable("E_STREAM_ENDED: the coordinator ended the stream"))
}

async fn logs(client: &Client, output: &Output, run: &str, follow: bool) -> Result<(), Error> {
    let offset = AtomicU64::new(0);
    resume(async || {
        let request = v1::RunLogsRequest { run: run.to_owned(), offset: offset.load(Ordering::Relaxed), follow };
        let mut stream = client.runs().logs(request).await?.into_inner();
        while let Some(chunk) = stream.message().await? {
            if chunk.dropped > 0 {
                output.line(&format!("[{} bytes of the log were dropped]", chunk.dropped));
            }
            if output.is_json() {
                output.json(&chunk)?;
            } else {
                output.bytes(&chunk.data);
            }
            offset.store(chunk.offset + chunk.data.len() as u64, Ordering::Relaxed);
            if chunk.end {
                return Ok(());
            }
        }
        if follow { Err(ended_early()) } else { Ok(()) }
    })
    .await
}

fn head(run: &v1::Run, output: &Output) {
    let commit: String = run.commit.chars().take(7).collect();
    let at = if run.host.is_empty() { run.waiting.clone() } else { run.host.clone() };
    output.line(&format!("run {} · {} · {} · {commit} · {at}", short(&run.id), run.app, run.tests));
}

fn state(run: &v1::Run) -> String {
    match run.state() {
        v1::RunState::Queued => "queued".to_owned(),
        v1::RunState::Assigned | v1::RunState::Preparing => "preparing".to_owned(),
        v1::RunState::Running => "running".to_owned(),
        v1::RunState::Finished => verdict(run).to_owned(),
        v1::RunState::Unspecified => "?".to_owned(),
    }
}

fn verdict(run: &v1::Run) -> &'static str {
    match run.verdict() {
        v1::Verdict::Passed => "passed",
        v1::Verdict::Failed => "failed",
        v1::Verdict::Errored => "error",
        v1::Verdict::TimedOut => "timed out",
        v1::Verdict::Cancelled => "cancelled",
        v1::Verdict::Interrupted => "interrupted",
        v1::Verdict::Unspecified => "?",
    }
}

fn print_list(runs: &[v1::Run], output: &Output) {
    let row = |run: &v1::Run| {
        vec![
            short(&run.id),
            run.app.clone(),
            run.tests.clone(),
            run.commit.chars().take(7).collect(),
            state(run),
            dash(run.host.clone()),
            dash(if run.took_micros > 0 { time::duration(run.took_micros) } else { String::new() }),
            run.owner.clone(),
            time::stamp(run.created_at),
        ]
    };
    let rows: Vec<_> = runs.iter().map(row).collect();
    output.table(&["RUN", "APP", "TESTS", "COMMIT", "STATE", "HOST", "TOOK", "BY", "STARTED (UTC)"], &rows);
}

fn print_run(run: &v1::Run, output: &Output) {
    head(run, output);
    if !run.seed.is_empty() {
        output.line(&format!("  data: {}", run.seed));
    }
    if run.state() == v1::RunState::Finished {
        print_verdict(run, output);
    } else {
        output.line(&format!("  {} {}", state(run), run.waiting));
    }
}

fn print_verdict(run: &v1::Run, output: &Output) {
    let took = time::duration(run.took_micros);
    let counts = run.report.as_ref().map(|report| {
        let bad = report.failed + report.errored;
        let skipped = if report.skipped > 0 { format!(", {} skipped", report.skipped) } else { String::new() };
        if bad > 0 { format!(": {bad} of {}{skipped}", report.total) } else { format!(": {}{skipped}", report.total) }
    });
    let first = match run.first_line_at.checked_sub(run.created_at).and_then(|micros| u64::try_from(micros).ok()) {
        Some(micros) if run.first_line_at > 0 => format!("; first line after {}", time::duration(micros)),
        _ => String::new(),
    };
    output.line(&format!("{}{} in {took}{first}", verdict(run), counts.unwrap_or_default()));
    for case in run.report.iter().flat_map(|report| &report.failures) {
        output.line(&format!("  {}   {}", case.name, case.message));
    }
    for warning in run.report.iter().flat_map(|report| &report.warnings) {
        output.line(&format!("  report: {warning}"));
    }
    if let Some(reason) = run.reason.as_ref().filter(|reason| !reason.code.is_empty()) {
        output.line(&format!("  {}: {}", reason.code, reason.text));
    }
}
