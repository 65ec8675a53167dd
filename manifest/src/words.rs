//! Splits a command that was written as one text into its arguments, as Compose does.

/// Why a text is not a list of words.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum WordsError {
    /// A quote or a backslash at the end.
    #[error("a quote is not closed")]
    Open,
    /// A character that only a shell would understand; no shell is run.
    #[error("no shell reads this command, so {0:?} would have no meaning")]
    Shell(char),
}

/// Splits at blanks; quotes and backslashes keep characters together.
///
/// # Errors
/// See [`WordsError`].
pub(crate) fn split(text: &str) -> Result<Vec<String>, WordsError> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (Some('\''), c) => word.get_or_insert_default().push(c),
            (_, '\\') => word.get_or_insert_default().push(chars.next().ok_or(WordsError::Open)?),
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, ' ' | '\t' | '\r' | '\n') => words.extend(word.take()),
            (None, ';' | '&' | '|' | '<' | '>' | '(' | ')' | '`') => return Err(WordsError::Shell(c)),
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err(WordsError::Open);
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_as_compose_splits_them() {
        for (text, words) in [
            ("npm run  start", vec!["npm", "run", "start"]),
            ("sh -c \"a; b\" ''", vec!["sh", "-c", "a; b", ""]),
            (r#"a\ b "c \"d\"" '\e'"#, vec!["a b", "c \"d\"", "\\e"]),
            ("--x='1 2'", vec!["--x=1 2"]),
            ("", vec![]),
        ] {
            assert_eq!(split(text), Ok(words.into_iter().map(str::to_owned).collect()), "{text:?}");
        }
        assert_eq!(split("a 'b"), Err(WordsError::Open));
        assert_eq!(split("a \\"), Err(WordsError::Open));
        assert_eq!(split("a | b"), Err(WordsError::Shell('|')));
    }
}
