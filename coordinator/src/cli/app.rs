//! `muster app`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use proto::v1;

use super::client::{Client, Key};
use super::context::text;
use super::error::Error;
use super::output::{Output, dash};
use super::{repository, time};

/// Verbs of `muster app`.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Read muster.yaml without a server, and tell all its problems at once
    Check(Check),
    /// Give muster.yaml to the coordinator; targets come from here
    Apply {
        /// Default: the one in this folder or the nearest above
        #[arg(long, short)]
        file: Option<PathBuf>,
        /// Where test hosts fetch commits from: https, ssh, or a path they allow
        #[arg(long, default_value = "")]
        repository: String,
    },
    /// All apps
    List,
    /// One app with its targets
    Show {
        /// Default: the app of the muster.yaml around here
        app: Option<String>,
    },
}

/// Flags of `muster app check`.
#[derive(Args, Debug)]
pub struct Check {
    /// Default: the one in this folder or the nearest above
    #[arg(long, short)]
    file: Option<PathBuf>,
}

fn manifest_path(given: Option<PathBuf>) -> Result<PathBuf, Error> {
    given
        .or_else(repository::find_manifest)
        .ok_or_else(|| Error::usage("E_NO_APP", "no muster.yaml here or above; name it with --file"))
}

/// Reads the file and tells its problems.
///
/// # Errors
/// The file cannot be read, or has problems.
pub fn check(check: &Check) -> Result<ExitCode, Error> {
    let path = manifest_path(check.file.clone())?;
    let app = repository::read_manifest(&path)?;
    println!(
        "{}: app {}, {} processes, {} tests, {} targets; no problems",
        path.display(),
        app.name,
        app.processes.len(),
        app.tests.len(),
        app.targets.len()
    );
    Ok(ExitCode::SUCCESS)
}

/// Carries out a verb.
///
/// # Errors
/// See [`Error`].
pub async fn run(command: Command, client: &Client, output: &Output) -> Result<ExitCode, Error> {
    let mut apps = client.apps();
    match command {
        Command::Check(args) => return check(&args),
        Command::Apply { file, repository } => {
            let path = manifest_path(file)?;
            let request = v1::ApplyAppRequest {
                manifest: text(&path)?,
                file: path.display().to_string(),
                repository,
                idempotency_key: Key::made(),
            };
            let applied = apps.apply(request).await?.into_inner();
            output.show(&applied, || {
                let app = applied.app.clone().unwrap_or_default();
                let what = if applied.changed { "applied" } else { "unchanged" };
                output.line(&format!("{}: {what}", app.name));
                print_app(&app, output);
            })?;
        }
        Command::List => {
            let list = apps.list(v1::ListAppsRequest {}).await?.into_inner();
            output.show(&list, || {
                let row = |app: &v1::App| {
                    let targets: Vec<String> = app.targets.iter().map(|t| t.name.clone()).collect();
                    vec![
                        app.name.clone(),
                        dash(app.processes.join(" ")),
                        dash(app.tests.join(" ")),
                        dash(targets.join(" ")),
                        dash(app.repository.clone()),
                        time::stamp(app.applied_at),
                    ]
                };
                let rows: Vec<_> = list.apps.iter().map(row).collect();
                output.table(&["APP", "PROCESSES", "TESTS", "TARGETS", "REPOSITORY", "APPLIED (UTC)"], &rows);
            })?;
        }
        Command::Show { app } => {
            let app = repository::app(app.as_ref())?;
            let app = apps.show(v1::ShowAppRequest { app }).await?.into_inner();
            output.show(&app, || {
                output.line(&format!("{}  applied {} UTC", app.name, time::stamp(app.applied_at)));
                print_app(&app, output);
            })?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn print_app(app: &v1::App, output: &Output) {
    output.line(&format!("  processes   {}", dash(app.processes.join(" "))));
    output.line(&format!("  tests       {}", dash(app.tests.join(" "))));
    output.line(&format!("  repository  {}", dash(app.repository.clone())));
    for target in &app.targets {
        let release = if target.release == 0 { "none".to_owned() } else { target.release.to_string() };
        let members = if target.member_names.is_empty() {
            format!("no host has {}", target.members)
        } else {
            target.member_names.join(" ")
        };
        output.line(&format!(
            "  {}/{}  release {release}, config r{}, members {members}",
            app.name, target.name, target.config_revision
        ));
        if let Some(lock) = &target.lock {
            output.line(&format!(
                "    locked by {} until {} UTC: {}",
                lock.holder,
                time::stamp(lock.expires_at),
                lock.reason
            ));
        }
    }
}
