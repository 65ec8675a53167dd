//! `environment:`, `env_file:`, and other maps of texts.

use std::collections::BTreeMap;

use super::Scope;
use crate::dotenv;
use crate::path;
use crate::problem::Code;
use crate::reader::{Fields, Keys, Reader, cut, shown};
use crate::yaml::{Node, Scalar, Value};

const ENV_FILE: Keys = Keys { known: &["path", "required", "format"], absent: &[] };

/// The variables of a service: those of its files, under its own.
pub(super) fn read(r: &mut Reader, fields: Fields<'_>, place: &str, scope: &Scope<'_>) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    if let Some(node) = fields.get("env_file") {
        files(r, node, place, scope, &mut variables);
    }
    if let Some(node) = fields.get("environment") {
        for (name, value) in pairs(r, node, &format!("environment of {place}")) {
            variables.insert(name, value);
        }
    }
    variables
}

/// A map, or a list of `NAME=value`; a name alone takes its value from the variables, or is left out.
pub(super) fn pairs(r: &mut Reader, node: &Node, place: &str) -> BTreeMap<String, String> {
    let mut pairs = BTreeMap::new();
    let variables = r.variables(node.pos);
    let mut asked = std::collections::BTreeSet::new();
    let mut from_outside = |name: &str| {
        asked.insert(name.to_owned());
        variables.get(name).cloned()
    };
    match &node.value {
        Value::List(items) => {
            for item in items {
                let Some(text) = r.text(item, place) else { continue };
                let (name, value) = match text.split_once('=') {
                    Some((name, value)) => (name, Some(value.to_owned())),
                    None => (text, from_outside(text)),
                };
                if check_name(r, item, name, place) {
                    pairs.extend(value.map(|value| (name.to_owned(), value)));
                }
            }
        }
        _ => {
            for entry in r.entries(node, place).unwrap_or_default() {
                let value = match &entry.value.value {
                    // A variable that is set to nothing gives an empty text, not a name alone.
                    Value::Scalar(scalar) if entry.value.is_null() && scalar.raw.is_none() => from_outside(&entry.key),
                    Value::Scalar(scalar) => Some(as_compose_writes(scalar)),
                    _ => r.wrong_type(&entry.value, &format!("{} in {place}", cut(&entry.key)), "a text"),
                };
                if check_name(r, &entry.value, &entry.key, place) {
                    pairs.extend(value.map(|value| (entry.key.clone(), value)));
                }
            }
        }
    }
    r.names.extend(asked);
    pairs
}

fn check_name(r: &mut Reader, node: &Node, name: &str, place: &str) -> bool {
    let good =
        (1..=255).contains(&name.len()) && !name.contains(|c: char| c == '=' || c.is_control() || c.is_whitespace());
    if !good {
        // In the list form the text may hold a secret behind the name.
        r.problem(
            Code::StackName,
            node.pos,
            format!("a name in {place} is not that of a variable"),
            "write NAME: value or NAME=value",
        );
    }
    good
}

/// Compose reads plain numbers as numbers and writes them anew: `1.50` becomes `1.5`, `0x10` becomes `16`.
fn as_compose_writes(scalar: &Scalar) -> String {
    let text = scalar.text.as_str();
    // An interpolated value was a text when Compose read the file.
    if !scalar.plain || scalar.raw.is_some() {
        return text.to_owned();
    }
    match text {
        "True" | "TRUE" => return "true".to_owned(),
        "False" | "FALSE" => return "false".to_owned(),
        _ => {}
    }
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) {
        return text.to_owned();
    }
    let digits = text.replace('_', "");
    integer(&digits).or_else(|| float(&digits)).unwrap_or_else(|| text.to_owned())
}

fn integer(text: &str) -> Option<String> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let (radix, digits) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &digits[2..]),
        [b'0', b'o' | b'O', ..] => (8, &digits[2..]),
        [b'0', b'b' | b'B', ..] => (2, &digits[2..]),
        [b'0', _, ..] => (8, &digits[1..]),
        _ => (10, digits),
    };
    if digits.starts_with(['+', '-']) {
        return None;
    }
    let number = u64::from_str_radix(digits, radix).ok()?;
    Some(if negative && number != 0 { format!("-{number}") } else { number.to_string() })
}

fn float(text: &str) -> Option<String> {
    let inner = |b: u8| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-');
    let number: f64 = text.bytes().all(inner).then(|| text.parse().ok()).flatten()?;
    if !number.is_finite() {
        return None;
    }
    // From six digits before the point on, and below a ten-thousandth, an exponent of at least two digits is written.
    let scientific = format!("{number:e}");
    let (mantissa, exponent) = scientific.split_once('e')?;
    let exponent: i32 = exponent.parse().ok()?;
    if number == 0.0 || (-4..6).contains(&exponent) {
        return Some(number.to_string());
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    Some(format!("{mantissa}e{sign}{:02}", exponent.abs()))
}

fn files(r: &mut Reader, node: &Node, place: &str, scope: &Scope<'_>, variables: &mut BTreeMap<String, String>) {
    let place = format!("env_file of {place}");
    match &node.value {
        Value::List(items) => {
            for item in items {
                file(r, item, &place, scope, variables);
            }
        }
        _ => file(r, node, &place, scope, variables),
    }
}

fn file(r: &mut Reader, node: &Node, place: &str, scope: &Scope<'_>, variables: &mut BTreeMap<String, String>) {
    let (path_node, required, raw) = match &node.value {
        Value::Map(_) => {
            let Some(fields) = r.fields(node, place, &ENV_FILE) else { return };
            let Some(path) = fields.get("path") else {
                r.missing(node.pos, "path", place, "");
                return;
            };
            let required = fields.get("required").and_then(|node| r.boolean(node, "required")).unwrap_or(true);
            (path.as_ref(), required, fields.get("format").is_some_and(|node| is_raw(r, node, place)))
        }
        _ => (node, true, false),
    };
    let Some(text) = r.text(path_node, place) else { return };
    let path = match path::below(r.base(path_node.pos), text) {
        Ok(path) => path,
        Err(error) => {
            super::service::outside(r, path_node, place, &error.to_string());
            return;
        }
    };
    match (scope.files)(&path) {
        Some(text) => {
            let read = if raw {
                dotenv::raw(&r.named(&path), &text)
            } else {
                r.names.extend(dotenv::names(&text));
                dotenv::parse(&r.named(&path), &text, &r.variables(path_node.pos))
            };
            match read {
                Ok(given) => variables.extend(given),
                Err(problems) => r.foreign(problems),
            }
        }
        None if required => {
            let message = format!("{place} is {}, which does not exist", shown(path_node));
            r.problem(Code::StackEnvFile, path_node.pos, message, "make it, or write { path: FILE, required: false }");
        }
        None => {}
    }
}

/// Lines as they stand, instead of those of a `.env` file.
fn is_raw(r: &mut Reader, node: &Node, place: &str) -> bool {
    let place = format!("format in {place}");
    let text = r.text(node, &place);
    if text.is_some_and(|text| text != "raw") {
        r.value(node, format!("{place} is {}", shown(node)), "use raw, or leave it out");
    }
    text == Some("raw")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_numbers_are_written_as_compose_writes_them() {
        for (text, expected) in [
            ("1", "1"),
            ("1.50", "1.5"),
            ("1.0", "1"),
            ("0x10", "16"),
            ("010", "8"),
            ("0o17", "15"),
            ("-5", "-5"),
            ("+5", "5"),
            ("1e3", "1000"),
            ("1.5e-7", "1.5e-07"),
            ("1e6", "1e+06"),
            ("123456.5", "123456.5"),
            ("3.7", "3.7"),
            ("1.2.3", "1.2.3"),
            ("True", "true"),
            ("yes", "yes"),
            ("08", "8"),
            (".5", "0.5"),
            ("1_000", "1000"),
            ("2020-01-01", "2020-01-01"),
            ("9999999999999999999999", "1e+22"),
            ("e", "e"),
            ("-", "-"),
            ("", ""),
        ] {
            let scalar = Scalar { text: text.to_owned(), plain: true, raw: None };
            assert_eq!(as_compose_writes(&scalar), expected, "{text:?}");
        }
    }
}
