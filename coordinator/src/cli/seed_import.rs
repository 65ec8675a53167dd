//! `muster seed import`: what files are, and their bytes on the way to the coordinator.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clap::{Args, ValueEnum};
use proto::v1::{self, import_seed_request::Part};
use tokio_stream::wrappers::ReceiverStream;

use super::client::{Client, Key, resume};
use super::context::text;
use super::error::Error;
use super::output::Output;
use super::seed::{told, wait};
use super::seed_view::{address, size};
use super::stack::{self, Chosen};
use super::terminal::Block;

/// How an input is fed to its service.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Format {
    /// SQL as `pg_dump` and `mysqldump` write it; also .gz
    Sql,
    /// `pg_dump -Fc`
    Custom,
    /// tar or tar.gz of the files of a stopped server's data folder
    Folder,
    /// `dump.rdb` of Redis
    Rdb,
    /// Elasticsearch bulk lines
    Bulk,
    /// A script run in a container of the service's image, beside the running service
    Script,
}

/// Flags of `muster seed import`.
#[derive(Args, Debug)]
pub struct Import {
    /// The seed's name
    name: String,
    /// A file for a service; again for more; none: what the services make by themselves
    #[arg(value_name = "SERVICE=FILE")]
    inputs: Vec<String>,
    /// Default: the day, with .2, .3 … when it is taken
    #[arg(long)]
    version: Option<String>,
    #[command(flatten)]
    chosen: Chosen,
    /// What the files are; default: what their names and first bytes say
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// SQL to run after all inputs, so that nothing is seen that must not be
    #[arg(long = "mask", value_name = "SERVICE=FILE")]
    masks: Vec<String>,
    /// Values, one a line, of which no byte may be left in the seed's files
    #[arg(long, value_name = "FILE")]
    canaries: Option<PathBuf>,
    /// Make it on this host
    #[arg(long, default_value = "")]
    host: String,
    /// Do not wait until it is made
    #[arg(long)]
    detach: bool,
    #[command(flatten)]
    key: Key,
}

/// A file that is sent.
#[derive(Clone, Debug)]
struct Sent {
    path: PathBuf,
    bytes: u64,
}

/// Sends the files, and waits until the seed is made.
///
/// # Errors
/// See [`Error`].
pub async fn run(import: Import, client: &Client, output: &Output) -> Result<ExitCode, Error> {
    let detach = import.detach;
    let (head, files) = read(import)?;
    let total: u64 = files.iter().map(|file| file.bytes).sum();
    let seed = {
        let mut block = Block::new(output);
        resume(async || send(client, output, &mut block, &head, &files, total).await).await?
    };
    if detach {
        output.show(&seed, || output.line(&format!("seed {} is being made", address(&seed))))?;
        return Ok(ExitCode::SUCCESS);
    }
    let seed = wait(client, output, &seed.id).await?;
    told(&seed, output)
}

fn read(import: Import) -> Result<(v1::ImportSeedHead, Vec<Sent>), Error> {
    let stack = stack::find(&import.chosen)?.read()?.request;
    let mut inputs = Vec::new();
    let mut files = Vec::new();
    let given = import.inputs.iter().map(|given| (given, import.format.map(of_format)));
    let masks = import.masks.iter().map(|given| (given, Some(v1::SeedFormat::Mask)));
    for (given, format) in given.chain(masks) {
        let (service, path) = split(given)?;
        let bytes = std::fs::metadata(&path).map_err(|why| Error::file(&path, &why))?;
        if !bytes.is_file() {
            let text = format!("{} is no file; a folder of data is sent as a tar of it", path.display());
            return Err(Error::usage("E_FIELD", text));
        }
        let format = match format {
            Some(format) => format,
            None => guess(&path)?,
        };
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let bytes = bytes.len();
        inputs.push(v1::SeedInput { service, format: format.into(), name, bytes, artifact: String::new() });
        files.push(Sent { path, bytes });
    }
    let canaries = import.canaries.as_deref().map(text).transpose()?.unwrap_or_default();
    let head = v1::ImportSeedHead {
        name: import.name,
        version: import.version.unwrap_or_default(),
        stack_file: stack.stack_file,
        file: stack.file,
        variables: stack.variables,
        env_files: stack.env_files,
        inputs,
        canaries: canaries.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect(),
        host: import.host,
        idempotency_key: import.key.or_made(),
        app: stack.app,
    };
    Ok((head, files))
}

fn split(given: &str) -> Result<(String, PathBuf), Error> {
    match given.split_once('=') {
        Some((service, file)) if !service.is_empty() && !file.is_empty() => Ok((service.to_owned(), file.into())),
        _ => Err(Error::usage("E_FIELD", format!("{given:?}: write SERVICE=FILE"))),
    }
}

fn of_format(format: Format) -> v1::SeedFormat {
    match format {
        Format::Sql => v1::SeedFormat::Sql,
        Format::Custom => v1::SeedFormat::PgCustom,
        Format::Folder => v1::SeedFormat::Folder,
        Format::Rdb => v1::SeedFormat::Rdb,
        Format::Bulk => v1::SeedFormat::Bulk,
        Format::Script => v1::SeedFormat::Script,
    }
}

/// What a file is, by its first bytes, else by its name.
fn guess(path: &Path) -> Result<v1::SeedFormat, Error> {
    let fail = |why| Error::file(path, &why);
    let mut first = Vec::new();
    File::open(path).map_err(fail)?.take(512).read_to_end(&mut first).map_err(fail)?;
    let name = path.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    by_bytes(&first).or_else(|| by_name(&name)).ok_or_else(|| {
        let text = format!("{}: neither name nor first bytes say what it is; give --format", path.display());
        Error::usage("E_SEED_FORMAT", text)
    })
}

fn by_bytes(first: &[u8]) -> Option<v1::SeedFormat> {
    let tar = first.get(257..262) == Some(b"ustar");
    match first {
        [b'P', b'G', b'D', b'M', b'P', ..] => Some(v1::SeedFormat::PgCustom),
        [b'R', b'E', b'D', b'I', b'S', ..] => Some(v1::SeedFormat::Rdb),
        [b'#', b'!', ..] => Some(v1::SeedFormat::Script),
        _ if tar => Some(v1::SeedFormat::Folder),
        _ => None,
    }
}

fn by_name(name: &str) -> Option<v1::SeedFormat> {
    let ends = |all: &[&str]| all.iter().any(|end| name.ends_with(end));
    if ends(&[".sql", ".sql.gz"]) {
        Some(v1::SeedFormat::Sql)
    } else if ends(&[".tar", ".tar.gz", ".tgz"]) {
        Some(v1::SeedFormat::Folder)
    } else if ends(&[".ndjson", ".jsonl", ".bulk"]) {
        Some(v1::SeedFormat::Bulk)
    } else if ends(&[".rdb"]) {
        Some(v1::SeedFormat::Rdb)
    } else if ends(&[".sh"]) {
        Some(v1::SeedFormat::Script)
    } else {
        None
    }
}

async fn send(
    client: &Client,
    output: &Output,
    block: &mut Block<'_>,
    head: &v1::ImportSeedHead,
    files: &[Sent],
    total: u64,
) -> Result<v1::Seed, Error> {
    let (sender, receiver) = tokio::sync::mpsc::channel(4);
    let sent = Arc::new(AtomicU64::new(0));
    let (head, files, counter) = (head.clone(), files.to_vec(), Arc::clone(&sent));
    // Reads block: files have no readiness to wait for.
    let reader = tokio::task::spawn_blocking(move || {
        let put = |part| sender.blocking_send(v1::ImportSeedRequest { part: Some(part) }).is_ok();
        if !put(Part::Head(head)) {
            return Ok(());
        }
        for file in &files {
            if !pour(file, &counter, put)? {
                return Ok(());
            }
        }
        Ok(())
    });
    let mut seeds = client.seeds();
    let call = seeds.import(ReceiverStream::new(receiver));
    tokio::pin!(call);
    let mut tick = tokio::time::interval(Duration::from_millis(200));
    let answer = loop {
        tokio::select! {
            answer = &mut call => break answer,
            _ = tick.tick() => {
                if output.is_terminal() && total > 0 {
                    let sent = size(sent.load(Ordering::Relaxed));
                    block.draw(vec![format!("sending {sent} of {}", size(total))]);
                }
            }
        }
    };
    match reader.await {
        Ok(Err(error)) => Err(error),
        _ => Ok(answer?.into_inner()),
    }
}

/// Sends a file. False: nobody listens any more.
fn pour(file: &Sent, counter: &AtomicU64, put: impl Fn(Part) -> bool) -> Result<bool, Error> {
    let fail = |why| Error::file(&file.path, &why);
    let mut input = File::open(&file.path).map_err(fail)?;
    let mut buffer = vec![0; proto::MAX_CHUNK];
    let mut left = file.bytes;
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let n = input.read(&mut buffer[..most]).map_err(fail)?;
        if n == 0 {
            let text = format!("{} became shorter while it was sent", file.path.display());
            return Err(Error::usage("E_FILE", text));
        }
        if !put(Part::Data(bytes::Bytes::copy_from_slice(&buffer[..n]))) {
            return Ok(false);
        }
        left -= n as u64;
        counter.fetch_add(n as u64, Ordering::Relaxed);
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_bytes_win_over_names() {
        let folder = tempfile::tempdir().unwrap();
        let mut tar = vec![0; 512];
        tar[257..262].copy_from_slice(b"ustar");
        let cases: [(&str, &[u8], Option<v1::SeedFormat>); 9] = [
            ("a.dump", b"PGDMP\x01", Some(v1::SeedFormat::PgCustom)),
            ("a.sql", b"PGDMP\x01", Some(v1::SeedFormat::PgCustom)),
            ("a.sql", b"CREATE TABLE", Some(v1::SeedFormat::Sql)),
            ("A.SQL.GZ", b"\x1f\x8b", Some(v1::SeedFormat::Sql)),
            ("dump", b"REDIS0011", Some(v1::SeedFormat::Rdb)),
            ("fill", b"#!/bin/sh\n", Some(v1::SeedFormat::Script)),
            ("data", &tar, Some(v1::SeedFormat::Folder)),
            ("docs.ndjson", b"{}\n", Some(v1::SeedFormat::Bulk)),
            ("what", b"?", None),
        ];
        for (name, bytes, expected) in cases {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            assert_eq!(guess(&path).ok(), expected, "{name}");
        }
    }

    #[test]
    fn an_input_is_a_service_and_a_file() {
        assert_eq!(split("db=a=b.sql").unwrap(), ("db".to_owned(), PathBuf::from("a=b.sql")));
        for given in ["db", "=x", "db="] {
            assert!(split(given).is_err(), "{given}");
        }
    }
}
