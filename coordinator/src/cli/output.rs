//! Tables for people, stable JSON for programs.

use std::io::{IsTerminal, Write};

use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};

use super::Format;
use super::error::Error;

/// Where results go.
#[derive(Debug)]
pub struct Output {
    format: Format,
    terminal: bool,
}

impl Output {
    /// Standard output in that format.
    #[must_use]
    pub fn new(format: Format) -> Self {
        Self { format, terminal: std::io::stdout().is_terminal() }
    }

    /// Whether JSON was asked for.
    #[must_use]
    pub fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// Whether people watch: colour and redrawing are for terminals only.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        self.terminal && self.format == Format::Table
    }

    /// One line for people; a closed pipe is not an error.
    pub fn line(&self, text: &str) {
        let mut out = std::io::stdout().lock();
        if writeln!(out, "{text}").and_then(|()| out.flush()).is_err() {
            // The reader has gone, as with `| head`: what is left has nobody to read it.
            std::process::exit(0);
        }
    }

    /// Bytes as they are (logs), with control characters taken out on a terminal.
    pub fn bytes(&self, data: &[u8]) {
        let mut out = std::io::stdout().lock();
        let written = if self.terminal {
            let text = String::from_utf8_lossy(data);
            let clean: String = text.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')).collect();
            out.write_all(clean.as_bytes())
        } else {
            out.write_all(data)
        };
        if written.and_then(|()| out.flush()).is_err() {
            std::process::exit(0);
        }
    }

    /// The message as JSON, one line.
    ///
    /// # Errors
    /// The message is not of our package (cannot happen with generated types).
    pub fn json<M: prost::Message + prost::Name>(&self, message: &M) -> Result<(), Error> {
        self.line(&to_json(message)?);
        Ok(())
    }

    /// JSON if asked for, otherwise what `people` prints.
    ///
    /// # Errors
    /// As [`Output::json`].
    pub fn show<M: prost::Message + prost::Name>(&self, message: &M, people: impl FnOnce()) -> Result<(), Error> {
        if self.is_json() {
            return self.json(message);
        }
        people();
        Ok(())
    }

    /// A table with a head; columns as wide as their widest cell.
    pub fn table(&self, head: &[&str], rows: &[Vec<String>]) {
        for line in table_lines(head, rows) {
            self.line(&line);
        }
    }
}

/// Lines of a table; the last column is not padded.
#[must_use]
pub fn table_lines(head: &[&str], rows: &[Vec<String>]) -> Vec<String> {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain(head.get(column).map(|title| title.chars().count())).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let render = |cells: &[String]| {
        let mut line = String::new();
        for (column, cell) in cells.iter().enumerate() {
            line.push_str(cell);
            if column + 1 < cells.len() {
                let pad = widths.get(column).copied().unwrap_or(0).saturating_sub(cell.chars().count());
                line.push_str(&" ".repeat(pad + 2));
            }
        }
        line.trim_end().to_owned()
    };
    let titles: Vec<String> = head.iter().map(|title| (*title).to_owned()).collect();
    std::iter::once(render(&titles)).chain(rows.iter().map(|row| render(row))).collect()
}

fn to_json<M: prost::Message + prost::Name>(message: &M) -> Result<String, Error> {
    let internal = |why: String| Error::usage("E_INTERNAL", format!("cannot print {}: {why}", M::full_name()));
    let pool = DescriptorPool::decode(proto::DESCRIPTORS).map_err(|why| internal(why.to_string()))?;
    let descriptor = pool.get_message_by_name(&M::full_name()).ok_or_else(|| internal("no descriptor".to_owned()))?;
    let bytes = message.encode_to_vec();
    let dynamic = DynamicMessage::decode(descriptor, bytes.as_slice()).map_err(|why| internal(why.to_string()))?;
    let options =
        SerializeOptions::new().use_proto_field_name(true).stringify_64_bit_integers(false).skip_default_fields(false);
    let mut out = serde_json::Serializer::new(Vec::new());
    dynamic.serialize_with_options(&mut out, &options).map_err(|why| internal(why.to_string()))?;
    String::from_utf8(out.into_inner()).map_err(|why| internal(why.to_string()))
}

/// `a=1 b=2`, or `–`.
#[must_use]
pub fn pairs(map: &std::collections::BTreeMap<String, String>) -> String {
    let mut pairs: Vec<String> = map.iter().map(|(key, value)| format!("{key}={value}")).collect();
    pairs.sort();
    dash(pairs.join(" "))
}

/// `–` for an empty text.
#[must_use]
pub fn dash(text: impl Into<String>) -> String {
    let text = text.into();
    if text.is_empty() { "–".to_owned() } else { text }
}

/// The last 12 characters of an id, which tell ids apart.
#[must_use]
pub fn short(id: &str) -> String {
    let plain: String = id.chars().filter(|c| *c != '-').collect();
    plain.get(plain.len().saturating_sub(12)..).unwrap_or(&plain).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = vec![vec!["web-1".to_owned(), "ready".to_owned()], vec!["a".to_owned(), "–".to_owned()]];
        assert_eq!(table_lines(&["HOST", "STATE"], &rows), ["HOST   STATE", "web-1  ready", "a      –"]);
    }

    #[test]
    fn json_has_the_field_names_of_the_proto_files() {
        let json = to_json(&proto::v1::TargetLock { holder: "x".into(), reason: String::new(), expires_at: 7 });
        assert_eq!(json.unwrap(), r#"{"holder":"x","reason":"","expires_at":7}"#);
    }
}
