//! Reads the logs of an environment's containers, and follows services from one container (or its start) to the next.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use domain::log::{Line, Place};
use futures::StreamExt as _;
use futures::stream::{BoxStream, SelectAll};
use proto::v1;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::watch;
use tokio::time::Instant;

use super::read::{Over, Said, read};
use crate::engine::{Ended, Error, Listed, LogQuery};
use crate::environments::{Environments, View};
use crate::host::Host;

/// First pause before a log is asked for again that gave nothing; doubled with each up to [`MOST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// The longest of them.
const MOST_PAUSE: Duration = Duration::from_secs(5);
/// Between looks at an engine that does not answer.
const AGAIN: Duration = Duration::from_secs(1);

/// What is asked for.
#[derive(Debug, Clone, Default)]
pub(super) struct Ask {
    /// The environment's id.
    pub environment: String,
    /// Empty: all services.
    pub service: String,
    /// Go on with what is written later, until the environment is gone.
    pub follow: bool,
    /// So many last lines of what there is at the beginning; none: all.
    pub tail: Option<u32>,
    /// By service, what is there already.
    pub since: BTreeMap<String, Place>,
}

/// A service.
#[derive(Debug, Default)]
struct Part {
    place: Place,
    /// Only the last lines are asked for first.
    tail: Option<u32>,
    /// The container that is read, and whether it ran when that began or was started since.
    reads: Option<(String, bool)>,
    /// A line came since then.
    heard: bool,
    /// Containers that were read to their end after they had ended.
    done: BTreeSet<String>,
    pause: Duration,
    /// Not read again before this.
    due: Option<Instant>,
}

impl Part {
    /// A container (none: perhaps any) was started: it is read once more, also when it has ended by then.
    fn started(&mut self, id: Option<&String>) {
        self.done.retain(|done| id.is_some_and(|id| id != done));
        if let Some((_, ran)) = self.reads.as_mut().filter(|(reads, _)| id.is_none_or(|id| id == reads)) {
            *ran = true;
        }
    }

    fn rest(&mut self) {
        self.pause = (self.pause * 2).clamp(FIRST_PAUSE, MOST_PAUSE);
        self.due = Some(Instant::now() + self.pause);
    }
}

/// Reads logs.
pub(super) struct Reader {
    host: Arc<Host>,
    ask: Ask,
    parts: BTreeMap<String, Part>,
    readings: SelectAll<BoxStream<'static, Said>>,
    ready: VecDeque<v1::LogChunk>,
    /// Tells when containers begin; from before the first look, so that none falls into the gap.
    starts: broadcast::Receiver<Ended>,
    /// Ends when nothing is left of the environment; none: it is not known here (any more).
    view: Option<watch::Receiver<View>>,
    /// Containers are to be looked at.
    looks: bool,
    /// The next look when the engine did not answer the last one.
    again: Option<Instant>,
}

impl Reader {
    /// Begins with what there is.
    ///
    /// # Errors
    /// There is nothing to read, nor will be; or the engine does not answer, and nothing is to be followed.
    pub(super) async fn open(
        host: Arc<Host>,
        environments: &Environments,
        ask: Ask,
    ) -> Result<Self, (&'static str, String)> {
        let starts = host.watch.starts();
        let view = environments.watch(&ask.environment).filter(|_| ask.follow);
        let mut reader = Self {
            host,
            ask,
            parts: BTreeMap::new(),
            readings: SelectAll::new(),
            ready: VecDeque::new(),
            starts,
            view,
            looks: false,
            again: None,
        };
        let found = match found(&reader.host, &reader.ask).await {
            Err(_) if reader.view.is_some() => {
                reader.looks = true;
                return Ok(reader);
            }
            Err(why) => return Err((why.code(), why.to_string())),
            Ok(found) => found,
        };
        let none = match reader.ask.service.as_str() {
            "" => "it has no containers",
            _ => "there is no container of that service",
        };
        let comes = || {
            let stack = environments.stack(&reader.ask.environment).ok();
            stack.is_some_and(|stack| reader.ask.service.is_empty() || stack.services.contains_key(&reader.ask.service))
        };
        if found.is_empty() && !(reader.view.is_some() && comes()) {
            return Err(("E_LOGS_NONE", format!("{none} on this host yet")));
        }
        reader.begin_all(found, reader.ask.tail).await;
        Ok(reader)
    }

    /// The next lines, without their offset; none: that was all.
    pub(super) async fn next(&mut self) -> Option<v1::LogChunk> {
        loop {
            if let Some(lines) = self.ready.pop_front() {
                return Some(lines);
            }
            if std::mem::take(&mut self.looks) {
                self.look().await;
            }
            if self.readings.is_empty() && self.view.is_none() {
                return None;
            }
            let due = self.parts.values().filter_map(|part| part.due).chain(self.again).min();
            tokio::select! {
                Some(said) = self.readings.next() => self.take(said),
                started = self.starts.recv(), if self.view.is_some() => self.started(started),
                () = nothing_left(&mut self.view), if self.view.is_some() => self.view = None,
                () = until(due), if due.is_some() && self.ask.follow => self.looks = true,
                else => return None,
            }
        }
    }

    async fn look(&mut self) {
        let now = Instant::now();
        for part in self.parts.values_mut() {
            part.due.take_if(|due| *due <= now);
        }
        self.again = None;
        match found(&self.host, &self.ask).await {
            Ok(found) => self.begin_all(found, None).await,
            Err(_) => self.again = Some(now + AGAIN),
        }
    }

    /// Reads what is not read yet.
    async fn begin_all(&mut self, found: Vec<Listed>, tail: Option<u32>) {
        for one in found {
            let source = &one.labels.part;
            if !self.parts.contains_key(source) {
                let place = self.ask.since.get(source).copied().unwrap_or_default();
                self.parts.insert(source.clone(), Part { place, tail, ..Part::default() });
                if tail.is_none() && self.ask.tail.is_some() {
                    // It came later: whoever comes back does not want its last lines only.
                    self.say_place(source, Place::BEGINNING);
                }
            }
            self.begin(&one).await;
        }
    }

    async fn begin(&mut self, one: &Listed) {
        let Some(part) = self.parts.get_mut(&one.labels.part) else { return };
        if part.reads.is_some() || part.due.is_some() || (!one.running && part.done.contains(&one.id)) {
            return;
        }
        let follow = self.ask.follow && part.tail.is_none();
        let query = LogQuery { tail: part.tail, follow, since: part.place.second() };
        match self.host.engine.logs(&one.id, query).await {
            Ok(pieces) => {
                part.reads = Some((one.id.clone(), one.running));
                part.heard = false;
                let closes = self.ask.follow;
                self.readings.push(read(one.labels.part.clone(), pieces, part.place, closes));
            }
            // It went meanwhile.
            Err(Error::NotFound(_)) => {}
            Err(_) => part.rest(),
        }
    }

    fn take(&mut self, said: Said) {
        let Said { part: source, lines, over } = said;
        let Some(part) = self.parts.get_mut(&source) else { return };
        part.heard |= !lines.is_empty();
        self.ready.extend(lines.into_iter().map(|line| chunk(&source, line)));
        if let Some(over) = over.filter(|_| self.ask.follow) {
            self.over(&source, &over);
        }
    }

    /// A request ended: the container did, or the engine went away, or these were the last lines up to now.
    fn over(&mut self, source: &str, over: &Over) {
        let Some(part) = self.parts.get_mut(source) else { return };
        let Some((id, ran)) = part.reads.take() else { return };
        part.place = over.place;
        self.looks = true;
        if part.tail.is_some() && !over.broken {
            part.tail = None;
            part.place = over.place_of_tail;
            self.say_place(source, over.place_of_tail);
            return;
        }
        if !ran && !over.broken {
            part.done.insert(id);
            part.pause = Duration::ZERO;
        } else if part.heard {
            part.pause = Duration::ZERO;
        } else {
            part.rest();
        }
    }

    /// Tells how far a source was read, where no line does.
    fn say_place(&mut self, source: &str, place: Place) {
        for (error, at) in [(false, place.out), (true, place.error)] {
            self.ready.push_back(chunk(source, Line { error, at, data: Vec::new() }));
        }
    }

    fn started(&mut self, started: Result<Ended, RecvError>) {
        self.looks = true;
        match started {
            Ok(Some(id)) => self.parts.values_mut().for_each(|part| part.started(Some(&id))),
            // Any may have.
            Ok(None) | Err(RecvError::Lagged(_)) => self.parts.values_mut().for_each(|part| part.started(None)),
            // The agent ends.
            Err(RecvError::Closed) => self.view = None,
        }
    }
}

/// Containers that are asked for, those that run first.
async fn found(host: &Host, ask: &Ask) -> crate::engine::Result<Vec<Listed>> {
    let all = host.engine.containers(&host.id).await?;
    let part = |one: &Listed| ask.service.is_empty() || ask.service == one.labels.part;
    let mut found: Vec<_> = all.into_iter().filter(|one| one.labels.slot == ask.environment && part(one)).collect();
    found.sort_by_key(|one| !one.running);
    Ok(found)
}

fn chunk(source: &str, line: Line) -> v1::LogChunk {
    let Line { error, at, data } = line;
    v1::LogChunk { source: source.to_owned(), data: data.into(), at, error, ..v1::LogChunk::default() }
}

/// Waits until nothing is left of the environment.
async fn nothing_left(view: &mut Option<watch::Receiver<View>>) {
    if let Some(view) = view {
        while view.changed().await.is_ok() {}
    }
}

async fn until(due: Option<Instant>) {
    if let Some(due) = due {
        tokio::time::sleep_until(due).await;
    }
}
