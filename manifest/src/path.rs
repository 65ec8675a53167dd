//! Paths relative to a file's folder, which never lead out of it.

/// Why a path is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum PathError {
    #[error("an empty path")]
    Empty,
    #[error("a path of more than 1024 bytes")]
    TooLong,
    #[error("an absolute path")]
    Absolute,
    #[error("a path into somebody's home")]
    Home,
    #[error("a path that leaves the folder of this file")]
    Outside,
    #[error("a path with a backslash or a control character")]
    Grammar,
}

/// Normalises `./a/../b/` to `b`; the folder itself is `.`.
///
/// # Errors
/// See [`PathError`].
pub(crate) fn inside(text: &str) -> Result<String, PathError> {
    match text {
        "" => return Err(PathError::Empty),
        _ if text.len() > 1024 => return Err(PathError::TooLong),
        _ if text.contains(|c: char| c == '\\' || c.is_control()) => return Err(PathError::Grammar),
        _ if text.starts_with('/') => return Err(PathError::Absolute),
        _ if text.starts_with('~') => return Err(PathError::Home),
        _ => {}
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop().ok_or(PathError::Outside)?;
            }
            part => parts.push(part),
        }
    }
    Ok(if parts.is_empty() { ".".to_owned() } else { parts.join("/") })
}

/// Normalises a path that stands in a file of the folder `base`, itself normalised; the result is relative to where
/// `base` is relative to.
///
/// # Errors
/// See [`PathError`].
pub(crate) fn below(base: &str, text: &str) -> Result<String, PathError> {
    if base == "." || text.is_empty() || text.starts_with(['/', '~']) {
        return inside(text);
    }
    inside(&format!("{base}/{text}"))
}

/// The folder of a normalised path.
pub(crate) fn folder(path: &str) -> String {
    path.rsplit_once('/').map_or_else(|| ".".to_owned(), |(folder, _)| folder.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_in_their_folder() {
        for (text, path) in [(".", "."), ("./src/", "src"), ("a/./b", "a/b"), ("a/../b", "b"), ("./", ".")] {
            assert_eq!(inside(text), Ok(path.to_owned()), "{text:?}");
        }
        assert_eq!((below("a/b", "../c"), below(".", "./c")), (Ok("a/c".to_owned()), Ok("c".to_owned())));
        assert_eq!((below("a", "../.."), below("a", "/etc")), (Err(PathError::Outside), Err(PathError::Absolute)));
        assert_eq!((folder("a/b/c.yaml"), folder("c.yaml")), ("a/b".to_owned(), ".".to_owned()));
        for text in ["", "/etc", "~/x", "..", "a/../../b", "a\\b", "a\nb"] {
            assert!(inside(text).is_err(), "{text:?}");
        }
    }
}
