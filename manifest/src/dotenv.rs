//! `.env` and `env_file` texts.

use std::collections::{BTreeMap, BTreeSet};

use crate::interpolate;
use crate::problem::{Code, Problem};
use crate::reader::cut;

/// Largest text, in bytes.
const MAX_BYTES: usize = 1 << 20;

/// Reads `NAME=value` lines; `variables` are what `$NAME` means beside the names of the file itself, and win over them.
/// A name without `=` takes its value from `variables`, or is left out.
///
/// # Errors
/// Each line that is not a variable; never with its value.
pub fn parse(
    file: &str,
    text: &str,
    variables: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, Vec<Problem>> {
    let mut parser = DotEnv { file, known: variables.clone(), values: BTreeMap::new(), problems: Vec::new() };
    if text.len() > MAX_BYTES || text.contains('\0') {
        parser.problem(1, 1, "the file is larger than 1 MiB, or no text");
    } else {
        parser.lines(text.strip_prefix('\u{feff}').unwrap_or(text), variables);
    }
    if parser.problems.is_empty() { Ok(parser.values) } else { Err(parser.problems) }
}

/// Reads lines as they stand: no quotes, no comments behind a value, no variables.
///
/// # Errors
/// As [`parse`].
pub(crate) fn raw(file: &str, text: &str) -> Result<BTreeMap<String, String>, Vec<Problem>> {
    let mut parser = DotEnv { file, known: BTreeMap::new(), values: BTreeMap::new(), problems: Vec::new() };
    if text.len() > MAX_BYTES || text.contains('\0') {
        parser.problem(1, 1, "the file is larger than 1 MiB, or no text");
    }
    for (n, line) in text.lines().enumerate() {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        match line.split_once('=') {
            Some((name, value)) if is_name(name) => drop(parser.values.insert(name.to_owned(), value.to_owned())),
            _ => parser.problem(n + 1, 1, "this is no NAME=value"),
        }
    }
    if parser.problems.is_empty() { Ok(parser.values) } else { Err(parser.problems) }
}

/// Names that a text asks its surroundings for: in values, and alone on a line.
pub(crate) fn names(text: &str) -> impl Iterator<Item = String> {
    let alone = text.lines().map(str::trim).filter(|line| is_name(line)).map(str::to_owned);
    interpolate::names(text).chain(alone)
}

struct DotEnv<'a> {
    file: &'a str,
    /// What `$NAME` means at this line.
    known: BTreeMap<String, String>,
    values: BTreeMap<String, String>,
    problems: Vec<Problem>,
}

impl DotEnv<'_> {
    fn problem(&mut self, line: usize, column: usize, message: impl Into<String>) {
        if self.problems.len() >= 100 {
            return;
        }
        let fit = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        self.problems.push(Problem {
            code: Code::StackEnvFile,
            file: self.file.to_owned(),
            line: fit(line),
            column: fit(column),
            message: message.into(),
            hint: "write NAME=value on each line".to_owned(),
        });
    }

    fn lines(&mut self, text: &str, variables: &BTreeMap<String, String>) {
        let mut lines = text.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line)).enumerate();
        while let Some((n, line)) = lines.next() {
            let trimmed = line.trim_start();
            if trimmed.trim().is_empty() || trimmed.starts_with('#') {
                continue;
            }
            let stripped = trimmed.strip_prefix("export ").map_or(trimmed, str::trim_start);
            let column = line.chars().count() - stripped.chars().count() + 1;
            let (name, value) = match stripped.split_once('=') {
                Some((name, value)) => (name.trim_end(), Some(value.trim_start())),
                None => (stripped.trim_end(), None),
            };
            if !is_name(name) {
                self.problem(n + 1, column, format!("{:?} is not the name of a variable", cut(name)));
                continue;
            }
            let Some(value) = value else {
                self.values.extend(variables.get(name).map(|value| (name.to_owned(), value.clone())));
                continue;
            };
            let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''));
            let read = match quote {
                Some(quote) => {
                    // A quoted value may go over several lines.
                    let mut whole = value[1..].to_owned();
                    let mut end = end_of(&whole, 0, quote);
                    while end.is_none() {
                        let Some((_, more)) = lines.next() else { break };
                        let from = whole.len() + 1;
                        // Only the new line is searched: a file of open quotes must not take for ever.
                        whole.push('\n');
                        whole.push_str(more);
                        end = end_of(&whole, from, quote);
                    }
                    self.quoted(&whole, end, quote)
                }
                None => self.expand(unquoted(value)),
            };
            match read {
                Ok(value) => self.insert(name, value, variables),
                Err(message) => self.problem(n + 1, column, format!("the value of {name}: {message}")),
            }
        }
    }

    fn insert(&mut self, name: &str, value: String, variables: &BTreeMap<String, String>) {
        if !variables.contains_key(name) {
            self.known.insert(name.to_owned(), value.clone());
        }
        self.values.insert(name.to_owned(), value);
    }

    fn quoted(&self, whole: &str, end: Option<usize>, quote: char) -> Result<String, String> {
        let end = end.ok_or("a quote is not closed")?;
        let rest = whole[end + 1..].trim();
        if !rest.is_empty() && !rest.starts_with('#') {
            return Err("something stands behind the closing quote".to_owned());
        }
        if quote == '\'' { Ok(whole[..end].to_owned()) } else { self.expand(&unescape(&whole[..end])) }
    }

    fn expand(&self, text: &str) -> Result<String, String> {
        interpolate::text(text, &self.known, &mut BTreeSet::new()).map_err(|error| match error {
            // Its text could be a part of a secret.
            interpolate::InterpolateError::Invalid(_) => {
                "a $ that begins no variable; put the value in single quotes".to_owned()
            }
            other => other.to_string(),
        })
    }
}

/// Where the closing quote stands, from `from` on.
fn end_of(text: &str, from: usize, quote: char) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in text[from..].char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quote == '"' => escaped = true,
            c if c == quote => return Some(from + at),
            _ => {}
        }
    }
    None
}

/// `\n`, `\"` and so on; an escaped dollar sign stays one through interpolation.
fn unescape(text: &str) -> String {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('n') => out.push('\n'),
            Some('r') => out.push('\r'),
            Some('t') => out.push('\t'),
            Some('$') => out.push_str("$$"),
            Some(c @ ('"' | '\\')) => out.push(c),
            Some(c) => out.extend(['\\', c]),
            None => out.push('\\'),
        }
    }
    out
}

/// An unquoted value ends before a comment.
fn unquoted(value: &str) -> &str {
    if value.starts_with('#') {
        return "";
    }
    let end = value.match_indices('#').map(|(at, _)| at).find(|at| value[..*at].ends_with([' ', '\t']));
    value[..end.unwrap_or(value.len())].trim_end()
}

fn is_name(name: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    (1..=255).contains(&name.len()) && name.bytes().all(inner) && !name.as_bytes()[0].is_ascii_digit()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<BTreeMap<String, String>, Vec<Problem>> {
        parse(".env", text, &[("OUT".to_owned(), "o".to_owned())].into())
    }

    #[test]
    fn values_are_read_as_people_write_them() {
        for (text, value) in [
            ("A=b", "b"),
            ("A = b # c", "b"),
            ("export A=b#c", "b#c"),
            ("A=", ""),
            ("A='$X \\n' # c", "$X \\n"),
            ("A=\"a\\n\\\"b\\$X\\\"\"", "a\n\"b$X\""),
            ("A=\"a\nb\"", "a\nb"),
            ("B=1\nA=${B}2", "12"),
            ("A=$OUT", "o"),
            ("OUT=inner\nA=$OUT", "o"),
            ("# x\n\nA=b\r\n", "b"),
            ("A=${NO:-d}", "d"),
            ("A=$$5", "$5"),
            ("A=\"\\é\"", "\\é"),
        ] {
            assert_eq!(read(text).unwrap()["A"], value, "{text:?}");
        }
        assert_eq!(read("OUT\nNO").unwrap(), [("OUT".to_owned(), "o".to_owned())].into());
    }

    #[test]
    fn raw_values_stay_as_they_stand() {
        let read = raw("f", "# c\nA='$X' # no comment\n\nB=\n").unwrap();
        assert_eq!((read["A"].as_str(), read["B"].as_str(), read.len()), ("'$X' # no comment", "", 2));
        assert_eq!(raw("f", "A=1\nB\n").unwrap_err()[0].line, 2);
    }

    #[test]
    fn names_of_others_are_found() {
        assert_eq!(names("A=$B\n C \nD='${E:-x}'\n# F\n").collect::<Vec<_>>(), ["B", "E", "C"]);
    }

    #[test]
    fn each_wrong_line_is_told_without_its_value() {
        let problems = read("A=1\n  1B=hunter2\nC='hunter2\n").unwrap_err();
        let shown: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(problems.iter().map(|p| (p.line, p.column)).collect::<Vec<_>>(), [(2, 3), (3, 1)]);
        assert!(shown.iter().all(|line| !line.contains("hunter2")), "{shown:?}");
        for text in ["A=\"b\" c", "A=$", "=x", "a b=c"] {
            assert_eq!(read(text).unwrap_err()[0].code, Code::StackEnvFile, "{text:?}");
        }
    }
}
