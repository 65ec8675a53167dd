//! Files of JSON lines, read in pieces of whole requests.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::path::PathBuf;

use serde_json::Value;
use tokio::sync::mpsc;

/// Bytes of a piece, unless one request alone is larger.
const PIECE: usize = 4 << 20;
/// Longest line in bytes: what Elasticsearch takes as one call.
const LONGEST: u64 = 100 << 20;

/// What belongs together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Shape {
    /// An action, and its document unless it deletes; many to a piece.
    Bulk,
    /// Two lines, one pair to a piece.
    Pairs,
}

/// Some whole requests.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Piece {
    /// Their lines.
    pub text: String,
    /// The first one's number, from 1.
    pub line: u64,
}

/// Reads the file, a few pieces ahead; ends after an error.
pub(super) fn read(path: PathBuf, shape: Shape) -> mpsc::Receiver<Result<Piece, String>> {
    let (send, receive) = mpsc::channel(2);
    tokio::task::spawn_blocking(move || {
        let put = |piece| send.blocking_send(Ok(piece)).is_ok();
        let done = File::open(path).map_err(|why| why.to_string()).and_then(|file| pieces(file, shape, put));
        if let Err(why) = done {
            // Nobody listens any more: nobody needs to know.
            let _ = send.blocking_send(Err(why));
        }
    });
    receive
}

fn pieces(file: impl io::Read, shape: Shape, put: impl Fn(Piece) -> bool) -> Result<(), String> {
    let mut lines = Lines { from: BufReader::new(file), number: 0 };
    let mut piece = Piece { text: String::new(), line: 1 };
    while let Some(head) = lines.next()? {
        let at = lines.number;
        let mut text = head;
        if shape == Shape::Pairs || has_document(&text).map_err(|why| format!("line {at}: {why}"))? {
            text +=
                &lines.next()?.ok_or_else(|| format!("line {at}: the file ends where its second line should be"))?;
        }
        if !piece.text.is_empty() && (shape == Shape::Pairs || piece.text.len() + text.len() > PIECE) {
            let next = Piece { text, line: at };
            if !put(std::mem::replace(&mut piece, next)) {
                return Ok(());
            }
        } else {
            if piece.text.is_empty() {
                piece.line = at;
            }
            piece.text += &text;
        }
    }
    if !piece.text.is_empty() {
        put(piece);
    }
    Ok(())
}

/// Whether a line with the document follows this action.
fn has_document(line: &str) -> Result<bool, String> {
    let hint = "is no bulk action; write {\"index\": {\"_index\": NAME}}, then the document";
    let action: Value = serde_json::from_str(line).map_err(|why| format!("{hint} ({why})"))?;
    match action.as_object().and_then(|action| action.keys().next()).map(String::as_str) {
        Some("index" | "create" | "update") => Ok(true),
        Some("delete") => Ok(false),
        _ => Err(hint.to_owned()),
    }
}

struct Lines<R> {
    from: BufReader<R>,
    number: u64,
}

impl<R: io::Read> Lines<R> {
    /// The next line that is not empty, with its end.
    fn next(&mut self) -> Result<Option<String>, String> {
        loop {
            let mut line = String::new();
            self.number += 1;
            let at = |why: String| format!("line {}: {why}", self.number);
            let read = (&mut self.from).take(LONGEST).read_line(&mut line).map_err(|why| at(why.to_string()))?;
            if read == 0 {
                return Ok(None);
            }
            if read as u64 == LONGEST {
                return Err(at("it is longer than 100 MB".to_owned()));
            }
            if !line.trim().is_empty() {
                if !line.ends_with('\n') {
                    line.push('\n');
                }
                return Ok(Some(line));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    fn all(text: &str, shape: Shape) -> Result<Vec<Piece>, String> {
        let found = RefCell::new(Vec::new());
        pieces(text.as_bytes(), shape, |piece| {
            found.borrow_mut().push(piece);
            true
        })?;
        Ok(found.into_inner())
    }

    #[test]
    fn pieces_are_bounded_and_never_part_an_action_from_its_document() {
        let document = format!("{{\"text\":\"{}\"}}", "x".repeat(1 << 20));
        let one = format!(
            "{{\"index\":{{\"_index\":\"a\"}}}}\n{document}\n{{\"delete\":{{\"_index\":\"a\",\"_id\":\"1\"}}}}\n\n"
        );
        let found = all(&one.repeat(9), Shape::Bulk).expect("good lines");
        assert!(found.len() > 2 && found.iter().all(|piece| piece.text.len() <= PIECE));
        assert_eq!(
            found.iter().map(|piece| piece.text.as_str()).collect::<String>(),
            one.replace("\n\n", "\n").repeat(9)
        );
        assert!(found.iter().all(|piece| !piece.text.starts_with("{\"text")));
    }

    #[test]
    fn what_is_no_action_is_told_with_its_line() {
        for (text, line) in
            [("{\"index\":{}}\n{}\nhello\n", "line 3"), ("{\"index\":{}}\n", "line 1"), ("[]", "line 1")]
        {
            let why = all(text, Shape::Bulk).expect_err("refused");
            assert!(why.starts_with(line), "{why}");
        }
        let pairs = all("{\"index\":\"a\"}\n{\"script\":1}\n{\"index\":\"b\"}\n{}", Shape::Pairs).expect("good lines");
        assert_eq!(pairs.iter().map(|pair| pair.line).collect::<Vec<_>>(), [1, 3]);
    }
}
