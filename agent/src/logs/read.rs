//! One request to the engine for one container's log.

use domain::log::{Line, Lines, Place};
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};

use super::CHUNK;
use crate::engine::{LogPiece, Result};

/// Pieces that are taken at once when they are there: a log that is read from its beginning is no chunk per line.
const AT_ONCE: usize = 256;

/// What the engine gave.
#[derive(Debug)]
pub(super) struct Said {
    /// Of which service.
    pub part: String,
    /// Lines that are new, as many together as fit into a chunk.
    pub lines: Vec<Line>,
    /// Nothing comes after this.
    pub over: Option<Over>,
}

/// How a request ended.
#[derive(Debug)]
pub(super) struct Over {
    /// Up to where everything was given.
    pub place: Place,
    /// The same when only the last lines were asked for.
    pub place_of_tail: Place,
    /// The engine broke it off: there may be more.
    pub broken: bool,
}

/// Reads `pieces`, and leaves out what was read up to `from`. `closes`: a last line without an end gets one.
pub(super) fn read(
    part: String,
    pieces: BoxStream<'static, Result<LogPiece>>,
    from: Place,
    closes: bool,
) -> BoxStream<'static, Said> {
    let begun = (pieces.ready_chunks(AT_ONCE), Lines::after(from));
    stream::unfold(Some(begun), move |reading| {
        let part = part.clone();
        async move {
            let (mut pieces, mut lines) = reading?;
            let mut given = Vec::new();
            let Some(some) = pieces.next().await else {
                let place_of_tail = lines.place_of_tail();
                let (mut rest, place) = lines.end();
                for line in rest.iter_mut().filter(|_| closes) {
                    line.data.push(b'\n');
                }
                let over = Over { place, place_of_tail, broken: false };
                return Some((Said { part, lines: rest, over: Some(over) }, None));
            };
            for piece in some {
                let Ok(piece) = piece else {
                    let over = Over { place: lines.place(), place_of_tail: lines.place_of_tail(), broken: true };
                    return Some((Said { part, lines: given, over: Some(over) }, None));
                };
                if let Some(line) = lines.take(piece.error, piece.at, &piece.data) {
                    join(&mut given, line);
                }
            }
            Some((Said { part, lines: given, over: None }, Some((pieces, lines))))
        }
    })
    .boxed()
}

/// Puts a line to the one before where both are whole, of the same output, and fit into a chunk.
fn join(given: &mut Vec<Line>, line: Line) {
    if let Some(last) = given.last_mut()
        && last.error == line.error
        && last.at != 0
        && line.at != 0
        && last.data.len() + line.data.len() <= CHUNK
    {
        last.data.extend_from_slice(&line.data);
        last.at = line.at;
        return;
    }
    given.push(line);
}
