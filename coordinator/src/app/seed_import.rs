//! Imports: inputs are streamed into the artifact store, and a host makes a seed of them.

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;
use domain::authorize::{Action, Principal, Resource, authorize};
use domain::ids::{HostId, SeedId};
use domain::name::Name;
use domain::seed::{Seed, SeedFormat, SeedInput, free_version, is_version, nearest};

use super::idempotency::{self, Key};
use super::placing::{Wish, choose};
use super::seed_reports::forget;
use super::seeds::{self, SECRET, Sealed, SeedView};
use super::{App, apps, ledger, resolve, text};
use crate::artifacts::{Stored, Upload};
use crate::error::{Code, Error, Result};
use crate::store::artifact::ArtifactRow;
use crate::store::seed::SeedRow;
use crate::store::{Tx, View};

/// The largest number of inputs.
pub const MAX_INPUTS: usize = 64;
/// The largest input, in bytes.
pub const MAX_INPUT: u64 = 200 << 30;
const MAX_CANARIES: usize = 1000;

/// One input, before its bytes have come.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Input {
    /// The service that is fed.
    pub service: String,
    /// How.
    pub format: SeedFormat,
    /// The file's name, for messages.
    pub name: String,
    /// How many bytes will come.
    pub bytes: u64,
}

/// What the head of an import says.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Ask {
    /// The seed's name.
    pub name: String,
    /// Its version; empty: the day.
    pub version: String,
    /// The app the stack belongs to; may be empty.
    pub app: String,
    /// The stack, its variables and files, and what must not be left of its data.
    pub stack: Sealed,
    /// What comes.
    pub inputs: Vec<Input>,
    /// Make it on this host; may be empty.
    pub host: String,
}

/// What is imported, checked as far as its head goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Head {
    name: Name,
    version: Option<String>,
    app: Option<Name>,
    stack: Sealed,
    inputs: Vec<Input>,
    host: HostId,
}

/// Checks the head of an import before any byte of its inputs is taken: fields, stack, rights, the version, a host for
/// it, and room.
///
/// # Errors
/// Says which of these is not as it must be.
pub async fn head(app: &App, principal: &Principal, ask: Ask) -> Result<Head> {
    let name = Name::new("seed", &ask.name)?;
    let of_app = if ask.app.is_empty() { None } else { Some(Name::new("app", &ask.app)?) };
    let version = (!ask.version.is_empty()).then(|| ask.version.clone());
    if let Some(version) = version.as_ref().filter(|version| !is_version(version)) {
        let shown = text::line(version, 80);
        let text = format!("{shown:?} is no version; use 1 to 63 letters, digits, `.`, `_` and `-`, and not `latest`");
        return Err(Error::new(Code::FIELD, text));
    }
    let memory = check_stack(&ask)?;
    check_canaries(&ask.stack.canaries)?;
    app.artifacts.room_for(ask.inputs.iter().map(|input| input.bytes).sum())?;
    let (name, of_app, version, given) = (&name, &of_app, &version, ask.host.as_str());
    let host = app
        .store
        .read(|view| {
            Box::pin(async move {
                authorize(
                    principal,
                    Action::Create,
                    &Resource::owned(&principal.project, principal.id, of_app.as_ref()),
                )?;
                if let Some(version) = version {
                    free(view, principal, name, version).await?;
                }
                let named = if given.is_empty() { None } else { Some(resolve::host(view, principal, given).await?) };
                let wish = Wish { named, granted: false, memory, seed: None };
                choose(app, view, principal, &wish).await
            })
        })
        .await?;
    let (name, version, app) = (name.clone(), version.clone(), of_app.clone());
    Ok(Head { name, version, app, stack: ask.stack, inputs: ask.inputs, host: host.host.id })
}

/// Reads the stack, and whether its services can be fed so. Answers how much memory they may use.
fn check_stack(ask: &Ask) -> Result<u64> {
    let stack = &ask.stack;
    text::one_line("file", &stack.file, 4096)?;
    text::map_at_most("variables", &stack.variables, 1000, 256 << 10)?;
    text::map_at_most("env_files", &stack.env_files, 64, 1 << 20)?;
    if ask.inputs.len() > MAX_INPUTS {
        let text = format!("{} inputs are given, at most {MAX_INPUTS} are allowed", ask.inputs.len());
        return Err(Error::new(Code::TOO_LARGE, text));
    }
    let file = if stack.file.is_empty() { "compose.yaml" } else { &stack.file };
    let files = |path: &str| stack.env_files.get(path).cloned();
    let input = manifest::stack::Input { file, text: &stack.stack_file, variables: &stack.variables, files: &files };
    let reading = manifest::stack::read(input).map_err(|problems| apps::problems_error(Code::STACK, &problems))?;
    let services = &reading.stack.services;
    for input in &ask.inputs {
        text::one_line("the name of an input", &input.name, 255)?;
        text::one_line("the service of an input", &input.service, 255)?;
        let Some(service) = services.get(&input.service) else {
            let near = nearest(&input.service, services.keys().map(String::as_str));
            let near = near.map_or_else(|| ".".to_owned(), |near| format!("; did you mean {near}?"));
            let known: Vec<&str> = services.keys().map(String::as_str).collect();
            let text = format!("{file} has no service {:?}{near} It has {}", input.service, known.join(", "));
            return Err(Error::new(Code::SEED_SERVICE, text));
        };
        if !input.format.fits(service.store) {
            let text = format!(
                "{}: the service {} cannot be fed with {}; --format names another format",
                input.name, input.service, input.format
            );
            return Err(Error::new(Code::SEED_FORMAT, text));
        }
        if input.bytes == 0 || input.bytes > MAX_INPUT {
            let text = format!("{}: {} bytes; an input has 1 byte to {} GiB", input.name, input.bytes, MAX_INPUT >> 30);
            return Err(Error::new(if input.bytes == 0 { Code::FIELD } else { Code::TOO_LARGE }, text));
        }
    }
    Ok(services.values().filter_map(|service| service.memory).sum())
}

fn check_canaries(canaries: &[String]) -> Result<()> {
    let total: usize = canaries.iter().map(String::len).sum();
    if canaries.len() > MAX_CANARIES || total > 256 << 10 {
        let text = format!("at most {MAX_CANARIES} canaries with 256 KiB in all can be looked for");
        return Err(Error::new(Code::TOO_LARGE, text));
    }
    // Anything shorter is found in every file by chance.
    if canaries.iter().any(|value| value.len() < 6) {
        return Err(Error::new(Code::FIELD, "a canary has at least 6 bytes; shorter ones are found by chance"));
    }
    Ok(())
}

async fn versions<V: View + ?Sized>(view: &mut V, principal: &Principal, name: &Name) -> Result<BTreeSet<String>> {
    let rows = view.seed_list(&principal.project).await?.into_iter();
    let same = rows.filter(|row| !row.seed.snapshot && row.seed.name == *name && row.seed.ended_at.is_none());
    Ok(same.map(|row| row.seed.version).collect())
}

async fn free<V: View + ?Sized>(view: &mut V, principal: &Principal, name: &Name, version: &str) -> Result<()> {
    if versions(view, principal, name).await?.contains(version) {
        let text = format!("{name}@{version} is there, and never changes; give another --version, or none");
        return Err(Error::new(Code::SEED_EXISTS, text));
    }
    Ok(())
}

/// Inputs on their way in.
#[derive(Debug)]
pub struct Receiving {
    artifacts: crate::artifacts::Artifacts,
    /// What comes next: name and bytes.
    next: VecDeque<(String, u64)>,
    /// What comes now, and how much of it is left.
    current: Option<(Upload, String, u64)>,
    done: Vec<Stored>,
}

impl Receiving {
    /// Nothing has come yet.
    #[must_use]
    pub fn new(app: &App, head: &Head) -> Self {
        let next = head.inputs.iter().map(|input| (input.name.clone(), input.bytes)).collect();
        Self { artifacts: app.artifacts.clone(), next, current: None, done: Vec::new() }
    }

    /// More bytes; they may end one input and begin the next.
    ///
    /// # Errors
    /// There are more than the head has told, or the store does not take them.
    pub async fn take(&mut self, mut bytes: Bytes) -> Result<()> {
        while !bytes.is_empty() {
            let (mut upload, name, left) = match self.current.take() {
                Some(current) => current,
                None => {
                    let Some((name, size)) = self.next.pop_front() else {
                        return Err(Error::new(Code::STREAM, "more bytes came than the head of the import told"));
                    };
                    (self.artifacts.upload(size).await?, name, size)
                }
            };
            let part = bytes.split_to(usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len()));
            let left = left - part.len() as u64;
            if let Err(error) = upload.write(part).await {
                upload.abort().await;
                return Err(error);
            }
            if left > 0 {
                self.current = Some((upload, name, left));
            } else {
                self.done.push(upload.finish().await?);
            }
        }
        Ok(())
    }

    /// All inputs, in their order.
    ///
    /// # Errors
    /// Bytes are missing.
    pub async fn finish(mut self) -> Result<Vec<Stored>> {
        let missing = self.current.as_ref().map(|(_, name, left)| (name.clone(), *left));
        let missing = missing.or_else(|| self.next.front().cloned());
        if let Some((name, left)) = missing {
            self.abort().await;
            return Err(Error::new(Code::STREAM, format!("the stream ended {left} bytes before the end of {name}")));
        }
        Ok(std::mem::take(&mut self.done))
    }

    /// Forgets everything.
    pub async fn abort(self) {
        if let Some((upload, _, _)) = self.current {
            upload.abort().await;
        }
        for stored in self.done {
            stored.drop_it().await;
        }
    }
}

/// Orders the making of a seed whose inputs have come.
///
/// # Errors
/// The version was taken in between, or the store does not answer.
pub async fn import(
    app: &App,
    principal: &Principal,
    head: Head,
    stored: Vec<Stored>,
    key: Option<&Key>,
) -> Result<SeedView> {
    let inputs: Vec<SeedInput> = head.inputs.iter().zip(&stored).map(|(input, stored)| fed(input, stored)).collect();
    let kept = keep(app, principal, head, inputs.clone(), stored, key).await;
    let needed = kept.as_ref().is_ok_and(|(_, new)| *new);
    if !needed {
        // Refused, or a repeated call: what came just now is needed only if somebody else has the same.
        let digests: Vec<_> = inputs.into_iter().map(|input| input.artifact).collect();
        forget(app, &digests).await?;
    }
    let (view, _) = kept?;
    app.wake.host(view.row.seed.host);
    Ok(view)
}

fn fed(input: &Input, stored: &Stored) -> SeedInput {
    SeedInput {
        service: input.service.clone(),
        format: input.format,
        name: input.name.clone(),
        bytes: stored.bytes,
        artifact: stored.digest.clone(),
    }
}

/// The bytes first, then the rows that say they are there. Answers whether it was made by this call.
async fn keep(
    app: &App,
    principal: &Principal,
    head: Head,
    inputs: Vec<SeedInput>,
    stored: Vec<Stored>,
    key: Option<&Key>,
) -> Result<(SeedView, bool)> {
    // Nobody may take bytes away between their coming and the row that needs them.
    let _turn = app.artifacts.turn().await;
    for stored in stored {
        stored.keep().await?;
    }
    let (head, inputs) = (&head, &inputs);
    app.store
        .write(|tx| {
            Box::pin(async move {
                let resource = Resource::owned(&principal.project, principal.id, head.app.as_ref());
                authorize(principal, Action::Create, &resource)?;
                if let Some(made) = idempotency::created(tx, principal, key).await? {
                    let row = resolve::seed(tx, principal, &made).await?;
                    return Ok((seeds::view_of(tx, row, 0).await?, false));
                }
                let row = insert(app, tx, principal, head, inputs).await?;
                seeds::seal(app, tx, &row, &head.stack).await?;
                idempotency::note(app, tx, principal, key, row.seed.id).await?;
                let of: Vec<&str> = inputs.iter().map(|input| input.name.as_str()).collect();
                let text = format!("of {}", if of.is_empty() { "nothing".to_owned() } else { of.join(", ") });
                seeds::event(app, tx, ledger::by(principal), "seed.import", &row, &text).await?;
                Ok((seeds::view_of(tx, row, 0).await?, true))
            })
        })
        .await
}

async fn insert(
    app: &App,
    tx: &mut dyn Tx,
    principal: &Principal,
    head: &Head,
    inputs: &[SeedInput],
) -> Result<SeedRow> {
    let version = match &head.version {
        Some(version) => {
            free(tx, principal, &head.name, version).await?;
            version.clone()
        }
        None => free_version(&day(app.now()), &versions(tx, principal, &head.name).await?),
    };
    if tx.host_get(head.host).await?.is_none() {
        return Err(Error::new(Code::ENV_NO_HOST, "the host that was to make it was removed; import it again"));
    }
    let id = SeedId::new(app.ids.uuid());
    let mut seed = Seed::new(id, head.name.clone(), version, principal.id, head.host, app.now());
    (seed.app, seed.inputs) = (head.app.clone(), inputs.to_vec());
    let mut row = SeedRow { project: principal.project.clone(), seed, version: 0 };
    row.version = tx.seed_put(&row).await?;
    for input in inputs {
        let artifact = ArtifactRow {
            project: row.project.clone(),
            principal: Some(principal.id),
            digest: input.artifact.clone(),
            bytes: input.bytes,
            created_at: app.now(),
        };
        tx.artifact_insert(&artifact).await?;
        tx.artifact_ref_put(&input.artifact, SECRET, &row.seed.id.to_string()).await?;
    }
    Ok(row)
}

/// The day of an instant, in UTC: `2026-11-23`.
fn day(at: domain::time::Timestamp) -> String {
    let instant = time::OffsetDateTime::from_unix_timestamp_nanos(i128::from(at.0) * 1000);
    let date = instant.unwrap_or(time::OffsetDateTime::UNIX_EPOCH).date();
    format!("{:04}-{:02}-{:02}", date.year(), u8::from(date.month()), date.day())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_day_of_an_instant_is_utc() {
        assert_eq!(day(domain::time::Timestamp(1_763_942_399_999_999)), "2025-11-23");
        assert_eq!(day(domain::time::Timestamp(1_763_942_400_000_000)), "2025-11-24");
        assert_eq!(day(domain::time::Timestamp(0)), "1970-01-01");
    }
}
