//! Logs of containers, with the instant of each line.

use bollard::Docker;
use bollard::container::LogOutput;
use bollard::query_parameters::LogsOptionsBuilder;
use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::super::{LogPiece, LogQuery, Result};
use super::failed;

/// The engine keeps a longer line in pieces of so many bytes.
const PIECE: usize = 16 << 10;
/// Longest instant that is looked for, in bytes.
const INSTANT: usize = 40;

pub(super) async fn logs(client: &Docker, id: &str, query: LogQuery) -> Result<BoxStream<'static, Result<LogPiece>>> {
    let tail = query.tail.map_or_else(|| "all".to_owned(), |lines| lines.to_string());
    // What the client cannot ask for is left out by the caller.
    let since = i32::try_from(query.since).unwrap_or(0);
    let options = LogsOptionsBuilder::default().stdout(true).stderr(true).timestamps(true).since(since);
    let options = options.follow(query.follow).tail(&tail).build();
    let (client, id) = (client.clone(), id.to_owned());
    // The stream of the client borrows it; a task owns both and passes the pieces on.
    let (send, receive) = tokio::sync::mpsc::channel(256);
    tokio::spawn(async move {
        let mut lines = std::pin::pin!(client.logs(&id, Some(options)));
        loop {
            let piece = tokio::select! {
                piece = lines.next() => piece,
                // A silent container must not keep the connection of somebody who has gone.
                () = send.closed() => return,
            };
            let Some(piece) = piece else { return };
            let piece = piece.map(stamped).map_err(|why| failed(&id, why));
            if send.send(piece).await.is_err() {
                return;
            }
        }
    });
    Ok(tokio_stream::wrappers::ReceiverStream::new(receive).boxed())
}

fn stamped(output: LogOutput) -> LogPiece {
    let error = matches!(output, LogOutput::StdErr { .. });
    // Each piece has a frame of its own, but for a terminal's, where a whole line comes at once.
    let terminal = matches!(output, LogOutput::Console { .. });
    let mut rest = output.into_bytes();
    let at = unstamp(&mut rest).unwrap_or(0);
    if at == 0 || !terminal || rest.len() <= PIECE {
        return LogPiece { at, error, data: rest };
    }
    let mut data = BytesMut::with_capacity(rest.len());
    while rest.len() > PIECE {
        data.extend_from_slice(&rest.split_to(PIECE));
        unstamp(&mut rest);
    }
    data.extend_from_slice(&rest);
    LogPiece { at, error, data: data.freeze() }
}

/// Takes the instant off that stands before a line, with the space after it; in nanoseconds since 1970.
fn unstamp(line: &mut Bytes) -> Option<u64> {
    let end = line.iter().take(INSTANT).position(|byte| *byte == b' ')?;
    let text = std::str::from_utf8(&line[..end]).ok()?;
    let at = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    let _ = line.split_to(end + 1);
    u64::try_from(at.unix_timestamp_nanos()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: &str = "2026-07-01T12:00:00.000000007Z ";
    const NANOS: u64 = 1_782_907_200_000_000_007;

    #[test]
    fn the_instant_is_taken_off_a_line() {
        let message = Bytes::from(format!("{AT}a line\n"));
        let piece = stamped(LogOutput::StdErr { message });
        assert_eq!(piece, LogPiece { at: NANOS, error: true, data: Bytes::from("a line\n") });
        let elsewhere = Bytes::from("2026-07-01T14:00:00.000000007+02:00 a line\n");
        assert_eq!(stamped(LogOutput::StdOut { message: elsewhere }).at, NANOS);
        let empty = stamped(LogOutput::StdOut { message: Bytes::from(format!("{AT}\n")) });
        assert_eq!((empty.at, empty.data), (NANOS, Bytes::from("\n")));
    }

    #[test]
    fn a_long_line_of_a_terminal_has_an_instant_before_each_of_its_pieces() {
        let (one, two) = ("x".repeat(PIECE), "y".repeat(PIECE));
        let message = Bytes::from(format!("{AT}{one}{AT}{two}{AT}end\n"));
        let piece = stamped(LogOutput::Console { message });
        assert_eq!((piece.at, piece.data), (NANOS, Bytes::from(format!("{one}{two}end\n"))));
        // What only looks like one is the line's own.
        let message = Bytes::from(format!("{AT}{AT}said so\n"));
        assert_eq!(stamped(LogOutput::Console { message }).data, Bytes::from(format!("{AT}said so\n")));
    }

    #[test]
    fn a_line_without_an_instant_stays_as_it_is() {
        let piece = stamped(LogOutput::StdOut { message: Bytes::from("no instant\n") });
        assert_eq!(piece, LogPiece { at: 0, error: false, data: Bytes::from("no instant\n") });
    }
}
