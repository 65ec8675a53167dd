//! Logs: every line gets an instant of its own, a second after the one before.

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};

use super::super::{Error, LogPiece, LogQuery, Result, Run};
use super::{Fake, Op, World};

const SECOND: u64 = 1_000_000_000;
/// The instant of the first line, in seconds.
const FIRST: u64 = 1_700_000_000;

/// Where somebody is who reads a log.
#[derive(Debug)]
struct Reader {
    fake: Fake,
    id: String,
    next: usize,
    since: u64,
    /// It reads until the container's end of this number; none: what there is.
    end: Option<usize>,
}

impl Fake {
    /// The container of that name writes; without an end of the line it is a piece.
    pub fn say(&self, name: &str, error: bool, text: &str) {
        let mut world = self.world();
        let id = world.find(name).map(|one| one.id.clone());
        if let Some(id) = id {
            world.say(&id, error, text);
        }
        drop(world);
        self.written.send_replace(());
    }

    pub(super) fn read_log(&self, id: &str, query: LogQuery) -> Result<BoxStream<'static, Result<LogPiece>>> {
        let world = self.world();
        let found = world.find(id).ok_or_else(|| Error::NotFound(id.to_owned()))?;
        let next = query.tail.map_or(0, |tail| found.log.len().saturating_sub(tail as usize));
        let end = (query.follow && found.run == Run::Running).then_some(found.ends.len());
        let (id, since) = (found.id.clone(), query.since.saturating_mul(SECOND));
        drop(world);
        let reader = Reader { fake: self.clone(), id, next, since, end };
        Ok(stream::unfold(Some(reader), read).boxed())
    }
}

async fn read(reader: Option<Reader>) -> Option<(Result<LogPiece>, Option<Reader>)> {
    let mut reader = reader?;
    let mut written = reader.fake.written.subscribe();
    loop {
        written.mark_unchanged();
        if let Some(why) = reader.broken() {
            return Some((Err(why), None));
        }
        match reader.look()? {
            Some(piece) => return Some((Ok(piece), Some(reader))),
            None => written.changed().await.ok()?,
        }
    }
}

impl Reader {
    /// A scripted fault ends the stream.
    fn broken(&self) -> Option<Error> {
        let fault = self.fake.world().faults.get_mut(&Op::Log).and_then(std::collections::VecDeque::pop_front);
        fault.map(|_| Error::Away("scripted".to_owned()))
    }

    /// The next piece; `Some(None)`: not yet, none: it was the last one.
    fn look(&mut self) -> Option<Option<LogPiece>> {
        let world = self.fake.world();
        let found = world.boxes.get(&self.id)?;
        let end = match self.end {
            None => Some(found.log.len()),
            Some(number) => found.ends.get(number).copied(),
        };
        let pieces = &found.log[..end.unwrap_or(found.log.len())];
        let next = pieces.iter().enumerate().skip(self.next).find(|(_, piece)| piece.at >= self.since);
        if let Some((index, piece)) = next {
            self.next = index + 1;
            return Some(Some(piece.clone()));
        }
        end.is_none().then_some(None)
    }
}

impl World {
    pub(super) fn say(&mut self, id: &str, error: bool, text: &str) {
        let at = (FIRST + self.lines) * SECOND;
        let Some(found) = self.boxes.get_mut(id) else { return };
        found.log.push(LogPiece { at, error, data: Bytes::copy_from_slice(text.as_bytes()) });
        // Pieces of a line have one instant.
        self.lines += u64::from(text.ends_with('\n'));
    }
}
