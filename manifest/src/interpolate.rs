//! `$X`, `${X}`, `${X:-d}`, `${X-d}`, `${X:?e}`, `${X?e}`, `${X:+a}`, `${X+a}` and `$$`.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use crate::problem::{Code, Pos};
use crate::reader::{Reader, cut};
use crate::yaml::{Entry, Node, Scalar, Value};

/// Deepest nesting of defaults in defaults.
const MAX_DEPTH: usize = 16;
/// Longest result of one text, in bytes.
const MAX_TEXT: usize = 64 * 1024;

/// Why a text cannot be interpolated. Holds no value of a variable.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum InterpolateError {
    #[error("{0:?} is not an interpolation")]
    Invalid(String),
    #[error("the variable {name} is required: {message}")]
    Required { name: String, message: String },
    #[error("the variable {0} is required, but is not set")]
    RequiredPlain(String),
    #[error("interpolation gives more than 64 KiB")]
    TooLong,
}

/// Replaces variables in `text`; names that are not set are added to `unset`.
///
/// # Errors
/// See [`InterpolateError`].
pub(crate) fn text(
    text: &str,
    variables: &BTreeMap<String, String>,
    unset: &mut BTreeSet<String>,
) -> Result<String, InterpolateError> {
    expand(text, variables, unset, 0)
}

fn expand(
    text: &str,
    variables: &BTreeMap<String, String>,
    unset: &mut BTreeSet<String>,
    depth: usize,
) -> Result<String, InterpolateError> {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let tail = &rest[at + 1..];
        if let Some(after) = tail.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some(body) = tail.strip_prefix('{') {
            let end = closing(body).ok_or_else(|| InterpolateError::Invalid(cut(&rest[at..])))?;
            out.push_str(&braced(&body[..end], variables, unset, depth)?);
            rest = &body[end + 1..];
        } else {
            let length = name_length(tail);
            if length == 0 {
                return Err(InterpolateError::Invalid(cut(&rest[at..])));
            }
            out.push_str(&plain(&tail[..length], variables, unset));
            rest = &tail[length..];
        }
        if out.len() > MAX_TEXT {
            return Err(InterpolateError::TooLong);
        }
    }
    out.push_str(rest);
    if out.len() > MAX_TEXT && !text.is_empty() && out.len() > text.len() {
        Err(InterpolateError::TooLong)
    } else {
        Ok(out)
    }
}

fn plain(name: &str, variables: &BTreeMap<String, String>, unset: &mut BTreeSet<String>) -> String {
    variables.get(name).cloned().unwrap_or_else(|| {
        unset.insert(name.to_owned());
        String::new()
    })
}

fn braced(
    body: &str,
    variables: &BTreeMap<String, String>,
    unset: &mut BTreeSet<String>,
    depth: usize,
) -> Result<String, InterpolateError> {
    let (name, operator) = body.split_at(name_length(body));
    let invalid = || InterpolateError::Invalid(format!("${{{}}}", cut(body)));
    if name.is_empty() || depth >= MAX_DEPTH {
        return Err(invalid());
    }
    if operator.is_empty() {
        return Ok(plain(name, variables, unset));
    }
    let (counts_empty, operator) = operator.strip_prefix(':').map_or((true, operator), |operator| (false, operator));
    let value = variables.get(name).filter(|value| counts_empty || !value.is_empty());
    let word = |unset: &mut BTreeSet<String>| expand(&operator[1..], variables, unset, depth + 1);
    match (operator.chars().next(), value) {
        (Some('-' | '?'), Some(value)) => Ok(value.clone()),
        (Some('-'), None) => word(unset),
        (Some('?'), None) if operator.len() == 1 => Err(InterpolateError::RequiredPlain(name.to_owned())),
        // Shown as it stands in the file: interpolated it could hold a secret.
        (Some('?'), None) => Err(InterpolateError::Required { name: name.to_owned(), message: cut(&operator[1..]) }),
        (Some('+'), Some(_)) => word(unset),
        (Some('+'), None) => Ok(String::new()),
        _ => Err(invalid()),
    }
}

/// Bytes of a variable's name at the beginning of `text`.
fn name_length(text: &str) -> usize {
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        return 0;
    }
    text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len())
}

/// Where the `}` stands that ends `body`; inner `${…}` are skipped.
fn closing(body: &str) -> Option<usize> {
    let bytes = body.as_bytes();
    let mut depth = 0usize;
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'$' if bytes.get(at + 1) == Some(&b'$') => at += 1,
            b'$' if bytes.get(at + 1) == Some(&b'{') => {
                depth += 1;
                at += 1;
            }
            b'}' if depth == 0 => return Some(at),
            b'}' => depth -= 1,
            _ => {}
        }
        at += 1;
    }
    None
}

/// Every `$NAME` and `${NAME` of a text, also of one that is no interpolation as a whole.
pub(crate) fn names(text: &str) -> impl Iterator<Item = String> {
    text.split('$').skip(1).filter_map(|piece| {
        let piece = piece.strip_prefix('{').unwrap_or(piece);
        let length = name_length(piece);
        (length > 0).then(|| piece[..length].to_owned())
    })
}

/// Interpolates every value of a tree, after aliases were resolved; keys stay as they are, as in Compose.
/// What cannot be interpolated is told to `reader` and left as it was. Notes the names of variables with it.
pub(crate) fn tree(reader: &mut Reader, node: &Rc<Node>, variables: &BTreeMap<String, String>) -> Rc<Node> {
    if let Value::Scalar(scalar) = &node.value {
        reader.names.extend(names(&scalar.text));
    }
    let value = match &node.value {
        Value::Scalar(scalar) if scalar.text.contains('$') => match scalar_value(reader, scalar, node.pos, variables) {
            Some(scalar) => Value::Scalar(scalar),
            None => return Rc::clone(node),
        },
        Value::Scalar(_) => return Rc::clone(node),
        Value::List(items) => Value::List(items.iter().map(|item| tree(reader, item, variables)).collect()),
        Value::Map(entries) => {
            let inner = |entry: &Entry, reader: &mut Reader| entry.with(tree(reader, &entry.value, variables));
            Value::Map(entries.iter().map(|entry| inner(entry, reader)).collect())
        }
    };
    Rc::new(node.with(value))
}

fn scalar_value(
    reader: &mut Reader,
    scalar: &Scalar,
    pos: Pos,
    variables: &BTreeMap<String, String>,
) -> Option<Scalar> {
    let mut unset = BTreeSet::new();
    match text(&scalar.text, variables, &mut unset) {
        Ok(value) => {
            for name in unset {
                reader.notice(pos, format!("the variable {name} is not set; an empty text stands for it"));
            }
            Some(Scalar { text: value, plain: scalar.plain, raw: Some(scalar.text.clone()) })
        }
        Err(error) => {
            let (code, hint) = match &error {
                InterpolateError::Invalid(_) => {
                    (Code::StackInterpolation, "write $$ for a dollar sign, ${NAME} or ${NAME:-default} for a variable")
                }
                InterpolateError::TooLong => (Code::StackInterpolation, ""),
                InterpolateError::Required { .. } | InterpolateError::RequiredPlain(_) => {
                    (Code::StackVariable, "set it in .env beside the stack file, or in the environment of the command")
                }
            };
            reader.problem(code, pos, error.to_string(), hint);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expand(given: &str) -> Result<String, InterpolateError> {
        let variables = [("X", "x"), ("EMPTY", ""), ("DOLLAR", "$X")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        text(given, &variables, &mut BTreeSet::new())
    }

    #[test]
    fn all_operators_are_replaced() {
        for (given, expected) in [
            ("a", "a"),
            ("$X", "x"),
            ("$X.y", "x.y"),
            ("${X}y", "xy"),
            ("$$X", "$X"),
            ("$${X}", "${X}"),
            ("$NO", ""),
            ("${X:-d}", "x"),
            ("${NO:-d}", "d"),
            ("${EMPTY:-d}", "d"),
            ("${EMPTY-d}", ""),
            ("${NO-d}", "d"),
            ("${X:?e}", "x"),
            ("${EMPTY?e}", ""),
            ("${X:+a}", "a"),
            ("${EMPTY:+a}", ""),
            ("${EMPTY+a}", "a"),
            ("${NO+a}", ""),
            ("${NO:-${X}}", "x"),
            ("${NO:-a${NO:-b}}c", "abc"),
            ("${NO:-}", ""),
            ("${NO:-a:b}", "a:b"),
            ("$DOLLAR", "$X"),
            ("é$X", "éx"),
            ("${NO:-$${X}", "${X"),
        ] {
            assert_eq!(expand(given), Ok(expected.to_owned()), "{given:?}");
        }
    }

    #[test]
    fn what_is_no_interpolation_is_told() {
        for given in [
            "$",
            "a$",
            "$1",
            "${",
            "${}",
            "${X",
            "${X!}",
            "${1}",
            "${X:}",
            "$ ",
            "$é",
            &format!("{}x{}", "${NO:-".repeat(20), "}".repeat(20)),
        ] {
            assert!(matches!(expand(given), Err(InterpolateError::Invalid(_))), "{given:?}");
        }
        assert_eq!(
            expand("${NO:?say $X}"),
            Err(InterpolateError::Required { name: "NO".to_owned(), message: "say $X".to_owned() })
        );
        assert_eq!(expand("${EMPTY:?}"), Err(InterpolateError::RequiredPlain("EMPTY".to_owned())));
    }

    #[test]
    fn a_text_that_grows_without_end_is_refused() {
        let variables = [("B".to_owned(), "b".repeat(1024))].into();
        assert_eq!(text(&"$B".repeat(100), &variables, &mut BTreeSet::new()), Err(InterpolateError::TooLong));
    }
}
