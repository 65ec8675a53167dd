//! Image references: `[registry/]repository[:tag][@sha256:digest]`.

use std::fmt;

use domain::release::Digest;

use crate::problem::Code;

/// A checked image reference.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ImageRef {
    /// Host and port, if the reference names one.
    pub registry: Option<String>,
    /// Lower-case path, for example `library/postgres`.
    pub repository: String,
    /// Tag.
    pub tag: Option<String>,
    /// Manifest digest.
    pub digest: Option<Digest>,
}

/// Why a text is not an image reference.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ImageRefError {
    /// Outside the grammar.
    #[error("{text:?} is not an image reference: {why}; write NAME:TAG or NAME@sha256:DIGEST")]
    Grammar {
        /// What was given, cut to 80 characters.
        text: String,
        /// The part that is wrong.
        why: &'static str,
    },
    /// No digest.
    #[error("{text:?} names no digest, so what it means can change; write NAME@sha256:DIGEST")]
    NotPinned {
        /// What was given, cut to 80 characters.
        text: String,
    },
}

impl ImageRefError {
    /// The reason code.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Grammar { .. } => Code::ImageRef,
            Self::NotPinned { .. } => Code::ImageNotPinned,
        }
    }
}

impl ImageRef {
    /// The last part of the repository: `postgres` of `docker.io/library/postgres:16`.
    #[must_use]
    pub fn base_name(&self) -> &str {
        self.repository.rsplit('/').next().unwrap_or(&self.repository)
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(registry) = &self.registry {
            write!(f, "{registry}/")?;
        }
        f.write_str(&self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        self.digest.as_ref().map_or(Ok(()), |digest| write!(f, "@{digest}"))
    }
}

/// Reads an image reference of at most 512 bytes.
///
/// # Errors
/// [`ImageRefError::Grammar`].
pub fn parse(text: &str) -> Result<ImageRef, ImageRefError> {
    read(text).map_err(|why| ImageRefError::Grammar { text: text.chars().take(80).collect(), why })
}

/// Reads a reference that names exactly one image: `NAME@sha256:…`.
///
/// # Errors
/// See [`ImageRefError`].
pub fn parse_pinned(text: &str) -> Result<(ImageRef, Digest), ImageRefError> {
    let image = parse(text)?;
    let digest =
        image.digest.clone().ok_or_else(|| ImageRefError::NotPinned { text: text.chars().take(80).collect() })?;
    Ok((image, digest))
}

fn read(text: &str) -> Result<ImageRef, &'static str> {
    if text.is_empty() || text.len() > 512 {
        return Err("it must have 1 to 512 characters");
    }
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(read_digest(digest)?)),
        None => (text, None),
    };
    let name_start = rest.rfind('/').map_or(0, |slash| slash + 1);
    let (name, tag) = match rest[name_start..].split_once(':') {
        Some((last, tag)) => (&rest[..name_start + last.len()], Some(check_tag(tag)?)),
        None => (rest, None),
    };
    let (registry, repository) = match name.split_once('/') {
        Some((host, path)) if is_host(host) => (Some(check_host(host)?), path),
        _ => (None, name),
    };
    if repository.len() > 255 || !repository.split('/').all(is_component) {
        return Err("a repository is made of a-z, 0-9 and separators '.', '_', '-' between them");
    }
    Ok(ImageRef { registry, repository: repository.to_owned(), tag, digest })
}

fn read_digest(text: &str) -> Result<Digest, &'static str> {
    let wrong = "a digest is \"sha256:\" and 64 hexadecimal digits";
    if text.starts_with("sha256:") { Digest::parse(text).map_err(|_| wrong) } else { Err(wrong) }
}

fn check_tag(tag: &str) -> Result<String, &'static str> {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    let good = (1..=128).contains(&tag.len()) && tag.bytes().all(inner) && !tag.starts_with(['.', '-']);
    if good { Ok(tag.to_owned()) } else { Err("a tag has 1 to 128 letters, digits, '_', '.' and '-'") }
}

fn is_host(first: &str) -> bool {
    first == "localhost" || first.contains(['.', ':']) || first.bytes().any(|b| b.is_ascii_uppercase())
}

fn check_host(host: &str) -> Result<String, &'static str> {
    let (name, port) = host.rsplit_once(':').map_or((host, None), |(name, port)| (name, Some(port)));
    let label = |part: &str| {
        let inner = part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        !part.is_empty() && inner && !part.starts_with('-') && !part.ends_with('-')
    };
    let good_port = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
    if name.split('.').all(label) && good_port {
        Ok(host.to_owned())
    } else {
        Err("the registry is not HOST or HOST:PORT")
    }
}

fn is_component(part: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = part.as_bytes();
    let ends = bytes.first().is_some_and(|b| alphanumeric(*b)) && bytes.last().is_some_and(|b| alphanumeric(*b));
    let separator = |run: &str| matches!(run, "" | "." | "_" | "__") || run.bytes().all(|b| b == b'-');
    ends && part.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit()).all(separator)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn references_are_taken_apart_and_shown_again() {
        let pinned = format!("r.example:5000/a/b-c_d:1.2@{DIGEST}");
        for (text, registry, base, tag) in [
            ("postgres", None, "postgres", None),
            ("postgres:16-alpine", None, "postgres", Some("16-alpine")),
            ("localhost/x__y", Some("localhost"), "x__y", None),
            ("mcr.microsoft.com/azure-sql-edge:1.0.4", Some("mcr.microsoft.com"), "azure-sql-edge", Some("1.0.4")),
            (&pinned, Some("r.example:5000"), "b-c_d", Some("1.2")),
        ] {
            let image = parse(text).unwrap();
            assert_eq!(
                (image.registry.as_deref(), image.base_name(), image.tag.as_deref()),
                (registry, base, tag),
                "{text}"
            );
            assert_eq!(image.to_string(), text);
        }
    }

    #[test]
    fn what_is_no_reference_is_refused() {
        let short = "a@sha256:0123".to_owned();
        for text in [
            "",
            "-x",
            "A",
            "a b",
            "a:",
            "a:b:c",
            "/a",
            "a/",
            "a//b",
            "a@",
            "a@md5:00",
            &short,
            "../a",
            "a..b",
            "-h.x/a",
            "h.x:0/a",
            "a:$(x)",
            &"a".repeat(600),
        ] {
            assert_eq!(parse(text).unwrap_err().code(), Code::ImageRef, "{text:?}");
        }
    }

    #[test]
    fn a_pinned_reference_needs_a_digest() {
        assert_eq!(parse_pinned("a:1").unwrap_err().code(), Code::ImageNotPinned);
        let (image, digest) = parse_pinned(&format!("a@{DIGEST}")).unwrap();
        assert_eq!((image.repository.as_str(), digest.to_string().as_str()), ("a", DIGEST));
    }
}
