//! `muster env logs`.

use std::collections::BTreeMap;

use proto::v1;

use super::client::{Client, resume};
use super::error::Error;
use super::output::Output;

/// A line that has not ended is printed from this length on, in bytes.
const MOST_HELD: usize = 16 << 20;

/// Prints logs; with `follow` until nothing is left of the environment, over whatever is restarted meanwhile.
pub(super) async fn run(client: &Client, output: &Output, request: v1::EnvironmentLogsRequest) -> Result<(), Error> {
    let mut got = Got::default();
    if !request.follow {
        return attempt(client, output, request, &mut got).await;
    }
    resume(async || {
        let request = v1::EnvironmentLogsRequest { since: got.go_on(), ..request.clone() };
        match attempt(client, output, request, &mut got).await {
            Err(why) if got.blind => Ok(Err(why)),
            other => other.map(Ok),
        }
    })
    .await?
}

async fn attempt(
    client: &Client,
    output: &Output,
    request: v1::EnvironmentLogsRequest,
    got: &mut Got,
) -> Result<(), Error> {
    let follow = request.follow;
    let mut stream = client.environments().logs(request).await?.into_inner();
    while let Some(chunk) = stream.message().await? {
        let end = chunk.end;
        if let Some(lines) = got.take(chunk) {
            print(output, got, &lines)?;
        }
        if end {
            for rest in got.rest() {
                print(output, got, &rest)?;
            }
            if output.is_json() {
                output.json(&v1::LogChunk { offset: got.printed, end, ..v1::LogChunk::default() })?;
            }
            return Ok(());
        }
    }
    if follow {
        return Err(Error::Status(tonic::Status::unavailable("E_STREAM_ENDED: the coordinator ended the stream")));
    }
    Ok(())
}

fn print(output: &Output, got: &mut Got, lines: &v1::LogChunk) -> Result<(), Error> {
    if output.is_json() {
        return output.json(lines);
    }
    output.bytes(&got.prefixed(lines));
    Ok(())
}

/// What came so far: of a connection that broke only whole lines count.
#[derive(Debug, Default)]
struct Got {
    /// By source, and whether of standard error.
    outputs: BTreeMap<(String, bool), Held>,
    /// Bytes that were given to be printed.
    printed: u64,
    /// Lines came of which nobody said when they were written (an agent or coordinator before this version): it
    /// cannot be gone on from them.
    blind: bool,
    /// The source of a printed line that has not ended.
    open: Option<String>,
}

#[derive(Debug, Default)]
struct Held {
    /// When its last whole line was written; 0: not known.
    at: u64,
    /// The beginning of the next.
    rest: Vec<u8>,
}

impl Got {
    /// Begins anew after the last whole lines, which it answers.
    fn go_on(&mut self) -> Vec<v1::LogPlace> {
        self.outputs.values_mut().for_each(|held| held.rest.clear());
        let known = self.outputs.iter().filter(|(_, held)| held.at != 0);
        known
            .map(|((source, error), held)| v1::LogPlace { source: source.clone(), error: *error, at: held.at })
            .collect()
    }

    /// The lines that are whole with this chunk.
    fn take(&mut self, chunk: v1::LogChunk) -> Option<v1::LogChunk> {
        if chunk.data.is_empty() && chunk.at == 0 {
            return None;
        }
        let held = self.outputs.entry((chunk.source.clone(), chunk.error)).or_default();
        held.rest.extend_from_slice(&chunk.data);
        if chunk.at != 0 {
            held.at = chunk.at;
        }
        let ended = held.rest.iter().rposition(|byte| *byte == b'\n').map(|last| last + 1);
        self.blind |= ended.is_some() && chunk.at == 0;
        let length = ended.or_else(|| Some(held.rest.len()).filter(|length| *length >= MOST_HELD))?;
        let rest = held.rest.split_off(length);
        let data = std::mem::replace(&mut held.rest, rest);
        Some(self.counted(v1::LogChunk { data: data.into(), ..chunk }))
    }

    /// The log has ended: lines without an end.
    fn rest(&mut self) -> Vec<v1::LogChunk> {
        let outputs = std::mem::take(&mut self.outputs);
        let rests = outputs.into_iter().filter(|(_, held)| !held.rest.is_empty());
        rests
            .map(|((source, error), held)| {
                let data = held.rest.into();
                self.counted(v1::LogChunk { source, error, data, ..v1::LogChunk::default() })
            })
            .collect()
    }

    /// Offsets count what is printed: each connection has its own.
    fn counted(&mut self, lines: v1::LogChunk) -> v1::LogChunk {
        let offset = self.printed;
        self.printed += lines.data.len() as u64;
        v1::LogChunk { offset, end: false, ..lines }
    }

    /// The lines as people see them, each with its source.
    fn prefixed(&mut self, lines: &v1::LogChunk) -> Vec<u8> {
        let mut text = Vec::with_capacity(lines.data.len() + 64);
        for line in lines.data.split_inclusive(|byte| *byte == b'\n') {
            let open = self.open.take();
            if open.as_ref() != Some(&lines.source) {
                text.extend_from_slice(if open.is_some() { b"\n" } else { b"" });
                text.extend_from_slice(format!("{} | ", lines.source).as_bytes());
            }
            text.extend_from_slice(line);
            self.open = Some(lines.source.clone()).filter(|_| !line.ends_with(b"\n"));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(source: &str, at: u64, data: &str) -> v1::LogChunk {
        let data = data.to_owned().into();
        v1::LogChunk { source: source.to_owned(), at, data, ..v1::LogChunk::default() }
    }

    fn printed(got: &mut Got, chunk: v1::LogChunk) -> String {
        let lines = got.take(chunk);
        lines.map(|lines| String::from_utf8(got.prefixed(&lines)).unwrap()).unwrap_or_default()
    }

    #[test]
    fn a_line_is_printed_when_it_is_whole_and_anew_after_a_break_within_it() {
        let mut got = Got::default();
        assert_eq!(printed(&mut got, chunk("web", 7, "one\ntwo\n")), "web | one\nweb | two\n");
        assert_eq!(printed(&mut got, chunk("web", 0, "thr")), "");
        assert_eq!(printed(&mut got, chunk("db", 5, "ready\n")), "db | ready\n");
        assert_eq!(printed(&mut got, v1::LogChunk { error: true, ..chunk("db", 3, "") }), "");
        let place = |source: &str, error, at| v1::LogPlace { source: source.to_owned(), error, at };
        assert_eq!(got.go_on(), [place("db", false, 5), place("db", true, 3), place("web", false, 7)]);
        assert_eq!(printed(&mut got, chunk("web", 0, "thr")), "");
        assert_eq!(printed(&mut got, chunk("web", 8, "ee\n")), "web | three\n");
        assert!(!got.blind);
    }

    #[test]
    fn a_last_line_without_an_end_stays_so() {
        let mut got = Got::default();
        assert_eq!(printed(&mut got, chunk("db", 0, "no end")), "");
        assert_eq!(printed(&mut got, chunk("web", 0, "nor here")), "");
        let text: Vec<u8> = got.rest().iter().flat_map(|rest| got.prefixed(rest)).collect();
        assert_eq!(String::from_utf8(text).unwrap(), "db | no end\nweb | nor here");
    }

    #[test]
    fn offsets_count_over_breaks_what_was_printed() {
        let mut got = Got::default();
        let offset = |got: &mut Got, chunk| got.take(chunk).map(|lines| lines.offset);
        assert_eq!(offset(&mut got, chunk("web", 7, "one\n")), Some(0));
        assert_eq!(offset(&mut got, chunk("web", 0, "tw")), None);
        got.go_on();
        assert_eq!(offset(&mut got, chunk("web", 8, "two\n")), Some(4));
    }

    #[test]
    fn lines_of_unknown_instants_cannot_be_gone_on_from() {
        let mut got = Got::default();
        assert_eq!(printed(&mut got, chunk("web", 0, "of an older agent\n")), "web | of an older agent\n");
        assert!(got.blind);
    }
}
