//! `muster build`: streams an image archive to the coordinator; calls no container engine.

use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use proto::v1::{self, register_build_request::Part};

use super::client::{Client, Key};
use super::context::text;
use super::error::Error;
use super::output::{Output, dash, short};
use super::{repository, time};

/// Verbs of `muster build`.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Make a build known: an image in a registry, or an archive as `docker save` writes it
    Register(Register),
    /// Builds of an app, newest first
    List {
        /// Default: the app of the muster.yaml around here
        app: Option<String>,
    },
}

/// Flags of `muster build register`.
#[derive(Args, Debug)]
pub struct Register {
    /// The app
    app: String,
    /// The commit it was built from; a short one is completed by git
    commit: String,
    /// muster.yaml at that commit
    #[arg(long, value_name = "FILE")]
    muster_yaml: PathBuf,
    /// REPOSITORY@sha256:DIGEST in a registry that hosts reach
    #[arg(long, value_name = "REF@DIGEST", required_unless_present = "archive", conflicts_with = "archive")]
    image: Option<String>,
    /// Image archive, `-` for standard input: `docker save IMAGE | muster build register … --archive -`
    #[arg(long, value_name = "FILE")]
    archive: Option<PathBuf>,
    /// Platform of the image
    #[arg(long, default_value = "linux/amd64")]
    platform: String,
    #[command(flatten)]
    key: Key,
}

/// Carries out a verb.
///
/// # Errors
/// See [`Error`].
pub async fn run(command: Command, client: &Client, output: &Output) -> Result<ExitCode, Error> {
    match command {
        Command::Register(register) => {
            let build = send(register, client).await?;
            output.show(&build, || {
                let bytes = if build.archive_bytes > 0 {
                    format!(", {} MB", build.archive_bytes / 1_000_000)
                } else {
                    String::new()
                };
                let commit: String = build.commit.chars().take(7).collect();
                let image = build.config_digest.get(..12).unwrap_or("to be pulled");
                output.line(&format!(
                    "build {}  {}  commit {commit}  image {image}{bytes}",
                    short(&build.id),
                    build.app
                ));
            })?;
        }
        Command::List { app } => {
            let app = repository::app(app.as_ref())?;
            let list = client.builds().list(v1::ListBuildsRequest { app }).await?.into_inner();
            output.show(&list, || {
                let row = |build: &v1::Build| {
                    let from = if build.image.is_empty() { "archive".to_owned() } else { build.image.clone() };
                    vec![
                        short(&build.id),
                        build.commit.chars().take(7).collect(),
                        dash(build.config_digest.chars().take(12).collect::<String>()),
                        from,
                        build.actor.clone(),
                        time::stamp(build.created_at),
                    ]
                };
                let rows: Vec<_> = list.builds.iter().map(row).collect();
                output.table(&["BUILD", "COMMIT", "IMAGE", "FROM", "BY", "REGISTERED (UTC)"], &rows);
            })?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn send(register: Register, client: &Client) -> Result<v1::Build, Error> {
    let head = v1::RegisterBuildHead {
        app: register.app,
        commit: repository::full_commit(Some(&register.commit))?,
        manifest: text(&register.muster_yaml)?,
        file: register.muster_yaml.display().to_string(),
        image: register.image.unwrap_or_default(),
        idempotency_key: register.key.or_made(),
        platform: register.platform,
    };
    let (sender, receiver) = tokio::sync::mpsc::channel(4);
    let archive = register.archive;
    // Reads block: standard input and files have no readiness to wait for.
    let reader = tokio::task::spawn_blocking(move || -> Result<(), Error> {
        let put = |part| sender.blocking_send(v1::RegisterBuildRequest { part: Some(part) }).is_ok();
        if !put(Part::Head(head)) {
            return Ok(());
        }
        let Some(path) = archive else { return Ok(()) };
        let mut input: Box<dyn Read> = if path.as_os_str() == "-" {
            Box::new(std::io::stdin())
        } else {
            Box::new(std::fs::File::open(&path).map_err(|why| Error::file(&path, &why))?)
        };
        let mut buffer = vec![0; proto::MAX_CHUNK];
        loop {
            let n = input.read(&mut buffer).map_err(|why| Error::file(&path, &why))?;
            if n == 0 || !put(Part::Data(bytes::Bytes::copy_from_slice(&buffer[..n]))) {
                return Ok(());
            }
        }
    });
    let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let answer = client.builds().register(stream).await;
    match reader.await {
        Ok(Err(error)) => Err(error),
        _ => Ok(answer?.into_inner()),
    }
}
