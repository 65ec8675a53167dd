//! Where sources come from: git URLs and commits, checked before git sees them.

use domain::release::{Commit, CommitError};

use crate::problem::Code;

/// Whether paths of the machine itself are allowed as a repository.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LocalPaths {
    /// `/srv/x.git` and `file:///srv/x.git` are fine.
    Allowed,
    /// Only what comes over the network.
    Refused,
}

/// A git URL that is safe to give to git as an argument.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct GitUrl(String);

/// Why a text is not a git URL that Muster fetches from.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "{text:?} is not a repository to fetch from: {why}; write https://HOST/PATH, ssh://USER@HOST/PATH or USER@HOST:PATH"
)]
pub struct GitUrlError {
    /// What was given, cut to 80 characters; a password in it is left out.
    pub text: String,
    /// The part that is wrong.
    pub why: &'static str,
}

impl GitUrlError {
    /// The reason code.
    #[must_use]
    pub fn code(&self) -> Code {
        Code::GitUrl
    }
}

impl GitUrl {
    /// Checks a URL of at most 1024 bytes.
    ///
    /// # Errors
    /// Another transport (`ext::`, `git://`, `http://`), a leading `-`, a password, a path where none is allowed.
    pub fn parse(text: &str, local: LocalPaths) -> Result<Self, GitUrlError> {
        match check(text, local) {
            Ok(()) => Ok(Self(text.to_owned())),
            Err(why) => Err(GitUrlError { text: without_password(text), why }),
        }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Reads a full commit id; the error's code is [`Code::GitCommit`].
///
/// # Errors
/// The text is something else: a branch, a short id.
pub fn parse_commit(text: &str) -> Result<Commit, CommitError> {
    Commit::parse(text)
}

fn check(text: &str, local: LocalPaths) -> Result<(), &'static str> {
    if text.is_empty() || text.len() > 1024 {
        return Err("it must have 1 to 1024 characters");
    }
    if text.contains(|c: char| c.is_control() || c.is_whitespace()) {
        return Err("it has a blank or a control character");
    }
    if text.starts_with('-') {
        return Err("git would take it for an option");
    }
    if let Some(rest) = text.strip_prefix("https://") {
        return check_https(rest);
    }
    if let Some(rest) = text.strip_prefix("ssh://") {
        return check_ssh(rest);
    }
    let path = text.strip_prefix("file://").unwrap_or(text);
    if path.starts_with('/') {
        return check_local(path, local);
    }
    if text.contains("::") || text.contains("://") {
        return Err("this transport is not allowed");
    }
    check_scp(text)
}

fn check_https(rest: &str) -> Result<(), &'static str> {
    let (authority, path) = rest.split_once('/').ok_or("it has no path")?;
    if authority.contains('@') {
        return Err("a URL must not carry a user or a password");
    }
    check_host(authority)?;
    check_path(path)
}

fn check_ssh(rest: &str) -> Result<(), &'static str> {
    let (authority, path) = rest.split_once('/').ok_or("it has no path")?;
    let (user, host) = authority.rsplit_once('@').unwrap_or(("git", authority));
    check_user(user)?;
    check_host(host)?;
    check_path(path)
}

fn check_scp(text: &str) -> Result<(), &'static str> {
    let (authority, path) = text.split_once(':').ok_or("it names no host")?;
    let (user, host) = authority.rsplit_once('@').ok_or("it names no user before the host")?;
    check_user(user)?;
    check_host(host)?;
    check_path(path)
}

fn check_local(path: &str, local: LocalPaths) -> Result<(), &'static str> {
    match local {
        LocalPaths::Refused => Err("a path of this machine is not allowed here"),
        LocalPaths::Allowed if climbs(path) => Err("the path has \"..\""),
        LocalPaths::Allowed => Ok(()),
    }
}

fn check_user(user: &str) -> Result<(), &'static str> {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    if user.contains(':') {
        return Err("a URL must not carry a password");
    }
    let good = !user.is_empty() && !user.starts_with('-') && user.bytes().all(inner);
    if good { Ok(()) } else { Err("the user has other characters than letters, digits, '_', '.' and '-'") }
}

fn check_host(host: &str) -> Result<(), &'static str> {
    let (name, port) = host.rsplit_once(':').map_or((host, None), |(name, port)| (name, Some(port)));
    let label = |part: &str| {
        let inner = part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
        !part.is_empty() && inner && !part.starts_with('-')
    };
    let good_port = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
    if name.split('.').all(label) && good_port { Ok(()) } else { Err("the host is not HOST or HOST:PORT") }
}

fn check_path(path: &str) -> Result<(), &'static str> {
    if path.trim_start_matches('/').is_empty() {
        return Err("it has no path");
    }
    if path.starts_with('-') || path.split('/').any(|part| part.starts_with('-')) || climbs(path) {
        return Err("a part of the path begins with '-' or is \"..\"");
    }
    if path.contains("::") { Err("this transport is not allowed") } else { Ok(()) }
}

/// A part of the path leads upwards, also where git or the server decodes it, or takes `\` for `/`.
fn climbs(path: &str) -> bool {
    let decoded = decode(path.as_bytes());
    [path.as_bytes(), &decoded]
        .into_iter()
        .any(|path| path.split(|b| matches!(b, b'/' | b'\\' | b'?' | b'#')).any(|part| part == b".."))
}

/// The bytes with each `%XX` replaced.
fn decode(text: &[u8]) -> Vec<u8> {
    let hex = |digits: &[u8]| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok();
    let (mut out, mut at) = (Vec::with_capacity(text.len()), 0);
    while let Some(&byte) = text.get(at) {
        let coded = text.get(at + 1..at + 3).filter(|_| byte == b'%').and_then(hex);
        out.push(coded.unwrap_or(byte));
        at += if coded.is_some() { 3 } else { 1 };
    }
    out
}

fn without_password(text: &str) -> String {
    let (scheme, rest) = text.split_once("://").map_or(("", text), |(scheme, rest)| (scheme, rest));
    let host_end = rest.find('/').unwrap_or(rest.len());
    let safe = match rest[..host_end].rfind('@') {
        Some(at) => format!("…{}", &rest[at..]),
        None => rest.to_owned(),
    };
    let separator = if scheme.is_empty() { "" } else { "://" };
    format!("{scheme}{separator}{safe}").chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_known_transports_are_taken() {
        for text in [
            "https://git.example/a/b.git",
            "https://git.example:8443/a",
            "ssh://git@git.example:2222/a/b",
            "git@git.example:a/b.git",
            "git@host:~u/x",
            "https://git.example/a..b/%2",
        ] {
            assert_eq!(GitUrl::parse(text, LocalPaths::Refused).as_ref().map(GitUrl::as_str), Ok(text));
        }
        for text in ["/srv/x.git", "file:///srv/x.git"] {
            assert!(GitUrl::parse(text, LocalPaths::Allowed).is_ok(), "{text}");
            assert_eq!(GitUrl::parse(text, LocalPaths::Refused).unwrap_err().code(), Code::GitUrl);
        }
    }

    #[test]
    fn what_could_run_something_or_leak_something_is_refused() {
        for text in [
            "",
            "-uhttps://x/y",
            "ext::sh -c x",
            "ext::sh",
            "fd::17",
            "git://h/p",
            "http://h/p",
            "ftp://h/p",
            "./x",
            "../x",
            "x",
            "host:path",
            "https://u:p@h/p",
            "https://t@h/p",
            "https:///p",
            "https://h",
            "https://h/",
            "ssh://-oProxyCommand=x/p",
            "ssh://u:p@h/p",
            "ssh://u@-h/p",
            "-x@h:p",
            "u@-h:p",
            "u@h:-p",
            "u@h:",
            "u@h:a/../b",
            "u@h:ext::x",
            "https://h/a b",
            "https://h/a\nb",
            "file://host/p",
            "/a/../b",
            "/a/..",
            "file:///a/%2e%2e/b",
            "ssh://h/a/.%2E/b",
            "https://h/a/%2e%2e/b",
            "https://h/a/b%2f..%2fc",
            "https://h/a/x\\..\\b",
            "https://h/a/..?b",
            "https://h@evil/a",
            "ssh://h:22@evil/a",
        ] {
            assert!(GitUrl::parse(text, LocalPaths::Allowed).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_password_is_never_told_again() {
        let error = GitUrl::parse("https://user:hunter2@h/p", LocalPaths::Refused).unwrap_err().to_string();
        assert!(!error.contains("hunter2") && !error.contains("user:"), "{error}");
    }

    #[test]
    fn a_commit_is_a_full_id() {
        assert!(parse_commit(&"4f1c2e0a".repeat(5)).is_ok());
        for text in ["", "main", "4f1c2e0", "-4f1c2e0", &"G".repeat(40)] {
            assert!(parse_commit(text).is_err(), "{text:?}");
        }
    }
}
