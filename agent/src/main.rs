//! `muster-agent`: the agent of one host, its relay, and the parent of what runs once.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

/// The agent of one Muster host.
#[derive(Parser)]
#[command(name = "muster-agent", version, disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the agent
    Run {
        /// Settings, a TOML file
        #[arg(long, value_name = "FILE", default_value = "/etc/muster/agent.toml")]
        config: PathBuf,
        /// Write the log as JSON, one object per line
        #[arg(long)]
        log_json: bool,
    },
    /// Run the relay that owns published ports (started by the agent, or by its own unit)
    #[command(hide = true)]
    Relay(agent::relay::Arguments),
    /// Remove the firewall chains of an agent that is gone for good
    Unwall {
        /// The host's id
        host: String,
    },
    /// Try connections from a container's network namespace (started by the agent)
    #[command(hide = true)]
    ProbeFrom {
        /// A process of the container
        pid: u32,
    },
    /// Ask about the pool of data on this host, or unmount it
    Pool(agent::pool::command::Arguments),
    /// Thaw containers when standard input ends, or after two seconds (started by the agent before it freezes them)
    #[command(hide = true)]
    Thaw {
        /// Containers as ID:PID
        containers: Vec<String>,
    },
    /// Supervise one job (started by the agent)
    #[command(hide = true)]
    Job {
        /// The job's folder
        directory: PathBuf,
    },
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Run { config, log_json } => {
            begin_log(log_json);
            run(&config)
        }
        Command::Relay(arguments) => {
            begin_log(false);
            right_of_way();
            match agent::relay::main(arguments) {
                Ok(()) => ExitCode::SUCCESS,
                Err(why) => fail(&why),
            }
        }
        Command::Unwall { host } => unwall(&host),
        Command::ProbeFrom { pid } => agent::isolation::probe::main(pid),
        Command::Pool(arguments) => pool(&arguments),
        Command::Thaw { containers } => agent::seeds::snapshot::guard_main(&containers),
        Command::Job { directory } => agent::job::main(&directory),
    }
}

fn begin_log(json: bool) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    let log = log.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()));
    if json {
        log.json().init();
    } else {
        log.init();
    }
}

fn pool(arguments: &agent::pool::command::Arguments) -> ExitCode {
    let config = match agent::config::Config::read(&arguments.config, |name| std::env::var(name).ok()) {
        Ok(config) => config,
        Err(why) => return fail(&why),
    };
    match agent::pool::command::run(arguments.verb, &config.pool) {
        Ok(said) => {
            println!("{said}");
            ExitCode::SUCCESS
        }
        Err(why) => fail(&format_args!("{}: {why}", why.code())),
    }
}

fn fail(why: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("{why}");
    ExitCode::FAILURE
}

/// What waits for an agent or a relay is a health gate, a switch or a person; the little that they compute must not stand
/// in line behind a busy workload. Without the right to it everything works, only later.
const NICE: i32 = -10;

/// For this thread and all that it starts.
fn right_of_way() {
    if let Err(why) = rustix::process::setpriority_process(None, NICE) {
        tracing::debug!(%why, "runs without right of way");
    }
}

fn run(config: &std::path::Path) -> ExitCode {
    right_of_way();
    transport::install_provider();
    let config = match agent::config::Config::read(config, |name| std::env::var(name).ok()) {
        Ok(config) => config,
        Err(why) => return fail(&why),
    };
    // Two threads: one may hash or pack while the other keeps the session alive. More would only cost memory.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).max_blocking_threads(16).enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(why) => return fail(&why),
    };
    let ended = runtime.block_on(agent::agent::run(config, stopped()));
    // What still runs in the background is abandoned: all that matters is durable.
    runtime.shutdown_background();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => fail(&why),
    }
}

fn unwall(host: &str) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(why) => return fail(&why),
    };
    match runtime.block_on(agent::firewall::clear(host, &agent::firewall::tables::Iptables)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => fail(&format!("E_FIREWALL: {why}")),
    }
}

/// Waits for TERM or INT.
async fn stopped() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}
