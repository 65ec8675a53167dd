//! All subcommands but `serve`: gRPC clients of a running coordinator. Uses `proto` and `transport` only.

mod api_token;
mod app;
mod build;
mod client;
mod config;
mod context;
mod environment;
mod environment_connect;
mod environment_data;
mod environment_diff;
mod environment_logs;
mod environment_view;
mod environment_watch;
mod error;
mod events;
mod host;
mod join_token;
#[cfg(unix)]
mod local;
mod login;
mod output;
mod release;
mod repository;
mod rollout;
mod rollout_view;
mod run;
mod screen;
mod seed;
mod seed_import;
mod seed_view;
mod stack;
mod stack_check;
mod sync;
mod terminal;
mod time;
mod tunnel;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};

pub use error::Error;

use client::Client;
use output::Output;

/// How results are printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// For programs: the message as protobuf JSON, with its field names as in the `.proto` files.
    Json,
}

/// Flags of every subcommand that calls the coordinator.
#[derive(Args, Debug, Clone)]
pub struct Global {
    /// The coordinator, HOST:PORT; instead of the login context's
    #[arg(long, global = true, env = "MUSTER_SERVER", value_name = "HOST:PORT")]
    server: Option<String>,
    /// File with the coordinator's CA certificate (PEM); instead of the login context's
    #[arg(long, global = true, env = "MUSTER_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
    /// File with the api-token; instead of MUSTER_TOKEN or the login context's
    #[arg(long, global = true, env = "MUSTER_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The login context's file
    #[arg(long, global = true, env = "MUSTER_CONTEXT", value_name = "FILE")]
    context: Option<PathBuf>,
    /// How results are printed
    #[arg(long, short, global = true, value_enum, default_value = "table")]
    output: Format,
}

/// The nouns.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Keep address, CA and api-token in the login context
    Login(login::Login),
    /// Machines with an agent
    #[command(subcommand)]
    Host(host::Command),
    /// One-time secrets with which hosts join
    #[command(subcommand)]
    JoinToken(join_token::Command),
    /// Secrets with which people and services call
    #[command(subcommand)]
    ApiToken(api_token::Command),
    /// Things released, described by muster.yaml
    #[command(subcommand)]
    App(app::Command),
    /// Settings of a target, by revision
    #[command(subcommand)]
    Config(config::Command),
    /// Environments: running copies of stacks
    #[command(subcommand)]
    Env(environment::Command),
    /// Data that environments begin with, and snapshots of it
    #[command(subcommand)]
    Seed(seed::Command),
    /// What came out of an app at one commit
    #[command(subcommand)]
    Build(build::Command),
    /// What is rolled out
    #[command(subcommand)]
    Release(release::Command),
    /// Executions of tests
    #[command(subcommand)]
    Run(run::Command),
    /// Moving the members of a target to a release
    #[command(subcommand)]
    Rollout(rollout::Command),
    /// The ledger: who did what to what, when, why
    Events(events::Events),
    /// What the exit status says
    #[command(hide = true, long_about = error::EXIT_CODES)]
    ExitCodes,
}

/// Carries out one subcommand; the exit code is documented in `muster help exit-codes`.
pub async fn run(command: Command, global: Global) -> ExitCode {
    let output = Output::new(global.output);
    match dispatch(command, &global, &output).await {
        Ok(code) => code,
        Err(error) => {
            error.print();
            error.exit_code()
        }
    }
}

async fn dispatch(command: Command, global: &Global, output: &Output) -> Result<ExitCode, Error> {
    match command {
        Command::Login(login) => login::run(login, global, output).await,
        Command::App(app::Command::Check(check)) => app::check(&check),
        Command::Env(environment::Command::Check(check)) => stack_check::run(&check, output),
        Command::ExitCodes => {
            output.line(error::EXIT_CODES);
            Ok(ExitCode::SUCCESS)
        }
        other => {
            let client = Client::connect(global).await?;
            call(other, &client, output).await
        }
    }
}

async fn call(command: Command, client: &Client, output: &Output) -> Result<ExitCode, Error> {
    match command {
        Command::Host(command) => host::run(command, client, output).await,
        Command::JoinToken(command) => join_token::run(command, client, output).await,
        Command::ApiToken(command) => api_token::run(command, client, output).await,
        Command::App(command) => app::run(command, client, output).await,
        Command::Config(command) => config::run(command, client, output).await,
        Command::Env(command) => environment::run(command, client, output).await,
        Command::Seed(command) => seed::run(command, client, output).await,
        Command::Build(command) => build::run(command, client, output).await,
        Command::Release(command) => release::run(command, client, output).await,
        Command::Run(command) => run::run(command, client, output).await,
        Command::Rollout(command) => rollout::run(command, client, output).await,
        Command::Events(events) => events::run(events, client, output).await,
        Command::Login(_) | Command::ExitCodes => Ok(ExitCode::SUCCESS),
    }
}
