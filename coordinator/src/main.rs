//! `muster`: the server, and the command line of it.

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use coordinator::cli;
use coordinator::config::{Config, Flags, LogFormat};
use tokio::signal::unix::{SignalKind, signal};

/// Environments, test runs and rollouts for a fleet of hosts.
#[derive(Parser, Debug)]
#[command(name = "muster", version, about, propagate_version = true)]
struct Arguments {
    #[command(flatten)]
    global: cli::Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand, Debug)]
enum Command {
    /// Run the coordinator
    Serve(Box<Flags>),
    #[command(flatten)]
    Client(cli::Command),
}

fn main() -> ExitCode {
    transport::install_provider();
    let arguments = Arguments::parse();
    if matches!(arguments.command, Command::Serve(_)) {
        // Beside busy workloads orders and verdicts would stand in line. Without the right to it all works, only later.
        let _ = rustix::process::setpriority_process(None, -10);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(why) => {
            eprintln!("E_INTERNAL: no runtime: {why}");
            return ExitCode::FAILURE;
        }
    };
    match arguments.command {
        Command::Serve(flags) => runtime.block_on(serve(*flags)),
        Command::Client(command) => runtime.block_on(cli::run(command, arguments.global)),
    }
}

async fn serve(flags: Flags) -> ExitCode {
    let config = match Config::load(flags) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    log_to_stderr(&config);
    // The state holds what environments were given: files of it are nobody else's.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    match coordinator::serve(&config, asked_to_stop()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// SIGTERM or SIGINT.
async fn asked_to_stop() {
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}

fn log_to_stderr(config: &Config) {
    let filter = tracing_subscriber::EnvFilter::try_new(&config.log).unwrap_or_else(|_| "info".into());
    let colours = std::io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours);
    match config.log_format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().init(),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_flags_of_all_subcommands_are_consistent() {
        super::Arguments::command().debug_assert();
    }
}
