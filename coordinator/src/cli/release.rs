//! `muster release`.

use std::process::ExitCode;

use clap::Subcommand;
use proto::v1;

use super::client::Client;
use super::error::Error;
use super::output::{Output, dash, short};
use super::{repository, time};

/// Verbs of `muster release`.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Releases of a target, newest first
    List {
        /// APP/TARGET, or TARGET inside the app's repository
        target: String,
    },
    /// One release
    Show {
        /// APP/TARGET, or TARGET inside the app's repository
        target: String,
        /// Its number
        number: u64,
    },
}

/// Carries out a verb.
///
/// # Errors
/// See [`Error`].
pub async fn run(command: Command, client: &Client, output: &Output) -> Result<ExitCode, Error> {
    let mut releases = client.releases();
    match command {
        Command::List { target } => {
            let target = repository::target(&target)?;
            let list = releases.list(v1::ListReleasesRequest { target }).await?.into_inner();
            output.show(&list, || {
                let row = |release: &v1::Release| {
                    vec![
                        release.number.to_string(),
                        release.commit.chars().take(7).collect(),
                        short(&release.build),
                        format!("r{}", release.config_revision),
                        dash(release.members.join(" ")),
                        time::stamp(release.created_at),
                    ]
                };
                let rows: Vec<_> = list.releases.iter().map(row).collect();
                output.table(&["RELEASE", "COMMIT", "BUILD", "CONFIG", "MEMBERS", "MADE (UTC)"], &rows);
            })?;
        }
        Command::Show { target, number } => {
            let target = repository::target(&target)?;
            let release = releases.show(v1::ShowReleaseRequest { target, number }).await?.into_inner();
            output.show(&release, || {
                output.line(&format!(
                    "{} release {}  made {} UTC",
                    release.target,
                    release.number,
                    time::stamp(release.created_at)
                ));
                output.line(&format!("  commit     {}", release.commit));
                output.line(&format!("  build      {}", release.build));
                output.line(&format!("  digest     {}", release.digest));
                output.line(&format!("  processes  {}", release.processes.join(" ")));
                output.line(&format!("  members    {}", dash(release.members.join(" "))));
                output.line(&format!("  config     r{}", release.config_revision));
                let mut config: Vec<_> = release.config.iter().collect();
                config.sort();
                for (key, value) in config {
                    output.line(&format!("    {key}={value}"));
                }
            })?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
