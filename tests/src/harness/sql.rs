//! Asking a PostgreSQL, as a client of its own.

use std::path::PathBuf;
use std::process::Command;
use std::sync::LazyLock;

use super::host::Host;

/// The client itself: Debian's `psql` is a Perl program that looks for it, which takes three times as long as the question.
fn client() -> &'static str {
    static CLIENT: LazyLock<String> = LazyLock::new(|| {
        let installed = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
        let clients = installed.map(|version| version.path().join("bin/psql")).filter(|path| path.exists());
        let newest: PathBuf = clients.max().unwrap_or_else(|| PathBuf::from("psql"));
        newest.to_string_lossy().into_owned()
    });
    &CLIENT
}

/// What it answers, without headings.
///
/// # Errors
/// What the client says.
pub fn query(url: &str, sql: &str) -> Result<String, String> {
    let done = Command::new(client()).args([url, "-XAtqc", sql]).output().map_err(|why| why.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if done.status.success() { Ok(text(&done.stdout)) } else { Err(text(&done.stderr)) }
}

/// The same asked in a host's own network namespace.
///
/// # Errors
/// What the client says.
pub fn query_on(host: &Host, url: &str, sql: &str) -> Result<String, String> {
    host.command(&[client(), url, "-XAtqc", sql])
}
