//! `muster env sync`: keeps the folder of an environment elsewhere in step with the one here.

mod scan;
mod watch;

use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use proto::v1;
use proto::v1::sync_part::Part;
use tokio::sync::mpsc;
use tonic::Streaming;

use super::client::{Client, resume};
use super::error::Error;
use super::output::Output;
use super::stack::{self, Chosen};
use super::time;
pub use scan::{Listing, Scanner, changes};
pub use watch::Changes;

/// Bytes of one message.
const CHUNK: usize = 64 << 10;
/// Entries of one message.
const ENTRIES: usize = 500;
/// Messages that are ready before they are sent, 2 MiB at most.
const AHEAD: usize = 32;
/// An environment that was only just wanted is known to its host within.
const PATIENCE: Duration = Duration::from_secs(30);

/// Flags of `muster env sync`.
#[derive(Args, Debug)]
pub struct Sync {
    /// NAME, OWNER/NAME or id; default: as `env up` names it here
    environment: Option<String>,
    #[command(flatten)]
    chosen: Chosen,
    /// Do not go on with what changes later
    #[arg(long)]
    once: bool,
}

/// Carries out `muster env sync`.
///
/// # Errors
/// See [`Error`].
pub async fn run(ask: Sync, client: &Client, output: &Output) -> Result<ExitCode, Error> {
    let stack = stack::find(&ask.chosen)?;
    let environment = ask.environment.unwrap_or_else(|| stack.default_name());
    let used = stack.used()?;
    let mut folder = Folder::open(stack.folder(), &used)?;
    let done = folder.once(client, &environment, output).await?;
    if output.is_json() {
        output.json(&done)?;
    }
    if ask.once {
        folder.close().await;
    } else {
        tokio::select! {
            kept = folder.keep(client, &environment, output) => kept?,
            _ = tokio::signal::ctrl_c() => {}
        }
    }
    Ok(if done.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A folder here that is kept in step elsewhere.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    scanner: Scanner,
    /// What the other side has, as far as is known here.
    sent: Option<Listing>,
    told: BTreeSet<String>,
    session: Option<Session>,
}

#[derive(Debug)]
struct Session {
    up: mpsc::Sender<v1::SyncRequest>,
    down: Streaming<v1::SyncPart>,
}

impl Folder {
    /// Those parts of a folder.
    ///
    /// # Errors
    /// There are none.
    pub fn open(path: &Path, used: &BTreeSet<String>) -> Result<Self, Error> {
        if used.is_empty() {
            let text = "the stack mounts nothing of its folder and builds nothing from it: there is nothing to upload";
            return Err(Error::usage("E_SYNC_NOTHING", text));
        }
        let scanner = Scanner::new(path, used);
        Ok(Self { path: path.to_owned(), scanner, sent: None, told: BTreeSet::new(), session: None })
    }

    /// Brings everything there into step.
    ///
    /// # Errors
    /// The environment or its host is not reached, or refuses.
    pub async fn once(&mut self, client: &Client, environment: &str, output: &Output) -> Result<v1::SyncDone, Error> {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.round(client, environment, output).await {
                Ok(done) => return Ok(done.unwrap_or_default()),
                // Its host has not heard of it yet.
                Err(Error::Status(status))
                    if status.message().starts_with("E_ENV_NOT_FOUND: this host") && Instant::now() < until =>
                {
                    self.session = None;
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                Err(why) => return Err(why),
            }
        }
    }

    /// Says that nothing follows, and waits until the host has let go.
    pub async fn close(&mut self) {
        let Some(mut session) = self.session.take() else { return };
        let end = async {
            session.send(Part::End(true)).await?;
            while session.down.message().await?.is_some() {}
            Ok::<_, Error>(())
        };
        // It ends by itself otherwise.
        let _ = tokio::time::timeout(Duration::from_secs(5), end).await;
    }

    /// Goes on with each change.
    ///
    /// # Errors
    /// As [`Folder::once`], after two minutes of trying.
    pub async fn keep(&mut self, client: &Client, environment: &str, output: &Output) -> Result<(), Error> {
        let mut changes = self.watch();
        output.line(&format!("watching {}; Ctrl-C ends", self.path.display()));
        // What changed before it was watched.
        loop {
            self.step(client, environment, output).await?;
            changes.next().await;
        }
    }

    /// Tells when something may have changed.
    #[must_use]
    pub fn watch(&self) -> Changes {
        Changes::of(self.scanner.places(), |why| {
            eprintln!("changes are looked for every 2 s: the system does not tell of them ({why})");
        })
    }

    /// Sends what changed since the last time, if anything did. After a break everything is compared again.
    ///
    /// # Errors
    /// As [`Folder::once`], after two minutes of trying.
    pub async fn step(&mut self, client: &Client, environment: &str, output: &Output) -> Result<(), Error> {
        let done = resume(async || {
            let done = self.round(client, environment, output).await;
            if done.is_err() {
                self.session = None;
                self.sent = None;
            }
            done
        });
        match done.await? {
            Some(done) if output.is_json() => output.json(&done),
            _ => Ok(()),
        }
    }

    /// One round; none: nothing changed.
    async fn round(
        &mut self,
        client: &Client,
        environment: &str,
        output: &Output,
    ) -> Result<Option<v1::SyncDone>, Error> {
        let begun = Instant::now();
        let listing = tokio::task::block_in_place(|| self.scanner.list())?;
        for notice in listing.notices.difference(&self.told) {
            eprintln!("{notice}");
        }
        self.told.clone_from(&listing.notices);
        let (entries, removed, whole) = match &self.sent {
            None => (listing.entries.values().cloned().collect(), Vec::new(), true),
            Some(sent) => {
                let (entries, removed) = changes(sent, &listing);
                (entries, removed, false)
            }
        };
        if !whole && entries.is_empty() && removed.is_empty() {
            return Ok(None);
        }
        if self.session.is_none() {
            self.session = Some(Session::open(client, environment).await?);
        }
        let Some(session) = &mut self.session else { return Ok(None) };
        let first = entries.iter().find(|entry| entry.kind() == v1::SyncKind::File).map(|entry| entry.path.clone());
        let named = first.or_else(|| removed.first().cloned()).unwrap_or_default();
        let done = session.round(&self.path, entries, removed, whole).await?;
        self.sent = Some(listing);
        if !done.problems.is_empty() {
            // Sent again with the next change.
            self.sent = None;
        }
        done.problems.iter().for_each(|problem| eprintln!("{problem}"));
        if !output.is_json() {
            output.line(&told(&done, if whole { "" } else { &named }, begun.elapsed()));
        }
        Ok(Some(done))
    }
}

/// `3 files (1.2 kB) sent, 1 removed in 20 ms: src/app.py …`.
fn told(done: &v1::SyncDone, named: &str, took: Duration) -> String {
    let files = if done.files == 1 { "1 file".to_owned() } else { format!("{} files", done.files) };
    let mut line = format!("{files} ({}) sent", super::seed_view::size(done.bytes));
    if done.removed > 0 {
        line.push_str(&format!(", {} removed", done.removed));
    }
    line.push_str(&format!(" in {}", time::duration(proto::convert::micros(took))));
    if !named.is_empty() {
        line.push_str(&format!(": {named}"));
        if u64::from(done.files) + u64::from(done.removed) > 1 {
            line.push_str(" …");
        }
    }
    line
}

fn ended() -> Error {
    Error::Status(tonic::Status::unavailable("E_STREAM_ENDED: the upload broke off"))
}

impl Session {
    async fn open(client: &Client, environment: &str) -> Result<Self, Error> {
        let (up, requests) = mpsc::channel(AHEAD);
        let start = v1::SyncStart { environment: environment.to_owned() };
        let first = v1::SyncRequest { part: Some(v1::sync_request::Part::Start(start)) };
        up.send(first).await.map_err(|_| ended())?;
        let requests = tokio_stream::wrappers::ReceiverStream::new(requests);
        let down = client.environments().sync(requests).await?.into_inner();
        Ok(Self { up, down })
    }

    async fn send(&self, part: Part) -> Result<(), Error> {
        self.up.send(request(part)).await.map_err(|_| ended())
    }

    async fn next(&mut self) -> Result<Part, Error> {
        loop {
            if let Some(part) = self.down.message().await?.ok_or_else(ended)?.part {
                return Ok(part);
            }
        }
    }

    async fn round(
        &mut self,
        folder: &Path,
        entries: Vec<v1::SyncEntry>,
        removed: Vec<String>,
        whole: bool,
    ) -> Result<v1::SyncDone, Error> {
        for some in entries.chunks(ENTRIES) {
            let list = v1::SyncList { entries: some.to_vec(), whole, ..v1::SyncList::default() };
            self.tell(list).await?;
        }
        for some in removed.chunks(ENTRIES) {
            self.tell(v1::SyncList { removed: some.to_vec(), whole, ..v1::SyncList::default() }).await?;
        }
        self.tell(v1::SyncList { whole, last: true, ..v1::SyncList::default() }).await?;
        let mut wanted = Vec::new();
        loop {
            match self.next().await? {
                Part::Wanted(some) => {
                    wanted.extend(some.paths);
                    if some.last {
                        break;
                    }
                }
                Part::Done(done) => return Ok(done),
                _ => {}
            }
        }
        let listed: BTreeSet<&str> = entries.iter().map(|entry| entry.path.as_str()).collect();
        // Nothing leaves this folder because somebody asks for it.
        if let Some(path) = wanted.iter().find(|path| !listed.contains(path.as_str())) {
            return Err(Error::usage("E_SYNC_PROTOCOL", format!("the host asks for {path:?}, which was not listed")));
        }
        self.contents(folder, wanted).await?;
        loop {
            if let Part::Done(done) = self.next().await? {
                return Ok(done);
            }
        }
    }

    /// A broken stream is explained by its other half.
    async fn tell(&mut self, list: v1::SyncList) -> Result<(), Error> {
        if self.send(Part::List(list)).await.is_ok() {
            return Ok(());
        }
        match self.down.message().await {
            Err(status) => Err(status.into()),
            Ok(_) => Err(ended()),
        }
    }

    async fn contents(&self, folder: &Path, wanted: Vec<String>) -> Result<(), Error> {
        let (up, folder) = (self.up.clone(), folder.to_owned());
        // It ends by itself when nobody takes its pieces any more.
        let sending = tokio::task::spawn_blocking(move || wanted.iter().all(|path| send_content(&folder, path, &up)));
        if sending.await.unwrap_or(false) { Ok(()) } else { Err(ended()) }
    }
}

fn request(part: Part) -> v1::SyncRequest {
    v1::SyncRequest { part: Some(v1::sync_request::Part::Sync(v1::SyncPart { part: Some(part) })) }
}

/// Sends a file in pieces; a small one is one. False: nobody takes them. What has gone since ends where it is: the host keeps
/// what it has, and the next round tells it.
fn send_content(folder: &Path, path: &str, up: &mpsc::Sender<v1::SyncRequest>) -> bool {
    let mut file = std::fs::File::open(folder.join(path)).ok();
    loop {
        let mut data = Vec::new();
        let read = file.as_mut().is_some_and(|file| file.take(CHUNK as u64).read_to_end(&mut data).is_ok());
        let last = !read || data.len() < CHUNK;
        let piece = v1::SyncContent { path: path.to_owned(), data: data.into(), last };
        if up.blocking_send(request(Part::Content(piece))).is_err() {
            return false;
        }
        if last {
            return true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_is_told_in_a_line() {
        let done = v1::SyncDone { files: 2, bytes: 1200, removed: 1, problems: Vec::new() };
        let line = told(&done, "src/a.py", Duration::from_millis(20));
        assert!(
            line.starts_with("2 files (") && line.ends_with(": src/a.py …") && line.contains(", 1 removed in "),
            "{line}"
        );
        let done = v1::SyncDone { files: 1, ..v1::SyncDone::default() };
        assert!(told(&done, "", Duration::ZERO).starts_with("1 file ("));
    }
}
