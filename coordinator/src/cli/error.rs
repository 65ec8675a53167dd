//! What went wrong, and the exit status that says so.

use std::process::ExitCode;

use tonic::Code;

/// The documented exit codes, as `muster help exit-codes` prints them.
pub const EXIT_CODES: &str = "Exit codes:
  0   done
  1   failed: a run that did not pass, a rollout that ended otherwise than wanted, an internal error
  2   usage: a flag, a file or a value is wrong
  3   not found
  4   conflict: it exists already, it is locked, something else goes on there
  5   denied: no api-token, a wrong one, or its role or scope is too small
  6   reverted: the rollout failed and every touched member is back on its release
  69  unavailable: the coordinator cannot be reached";

/// Why a subcommand did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The coordinator refused or failed.
    #[error("{}", .0.message())]
    Status(tonic::Status),
    /// The coordinator cannot be reached.
    #[error(
        "E_COORDINATOR_UNREACHABLE: {server} does not answer: {why}. Is `muster serve` running there, and is the port open?"
    )]
    Unreachable {
        /// Its address.
        server: String,
        /// What the connection says.
        why: String,
    },
    /// A flag, a file or a value is wrong.
    #[error("{code}: {text}")]
    Usage {
        /// Stable reason code.
        code: &'static str,
        /// What, where and what to do.
        text: String,
    },
}

impl Error {
    /// A wrong flag, file or value.
    pub fn usage(code: &'static str, text: impl Into<String>) -> Self {
        Self::Usage { code, text: text.into() }
    }

    /// A file that cannot be read or written.
    pub fn file(path: &std::path::Path, why: &std::io::Error) -> Self {
        Self::usage("E_FILE", format!("{}: {why}", path.display()))
    }

    /// Whether the same call may go through later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Status(status) => {
                matches!(status.code(), Code::Unavailable | Code::Aborted if !status.message().starts_with("E_CONFLICT"))
                    || is_broken_connection(status)
            }
            Self::Unreachable { .. } => true,
            Self::Usage { .. } => false,
        }
    }

    /// Whether the coordinator itself said it, with a reason code.
    #[must_use]
    pub fn is_answer(&self) -> bool {
        matches!(self, Self::Status(status) if status.message().starts_with("E_"))
    }

    /// On standard error, whole.
    pub fn print(&self) {
        eprintln!("{self}");
    }

    /// See [`EXIT_CODES`].
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        let code = match self {
            Self::Usage { .. } => 2,
            Self::Unreachable { .. } => 69,
            Self::Status(status) => match status.code() {
                Code::InvalidArgument | Code::OutOfRange => 2,
                Code::NotFound => 3,
                Code::AlreadyExists | Code::FailedPrecondition | Code::Aborted => 4,
                Code::Unauthenticated | Code::PermissionDenied => 5,
                Code::Unavailable => 69,
                _ => 1,
            },
        };
        ExitCode::from(code)
    }
}

/// tonic reports a connection that broke in the middle of a stream as `Unknown` or `Internal` with a transport source.
fn is_broken_connection(status: &tonic::Status) -> bool {
    matches!(status.code(), Code::Unknown | Code::Internal | Code::Cancelled)
        && (std::error::Error::source(status).is_some() || status.message().contains("h2 protocol error"))
}

impl From<tonic::Status> for Error {
    fn from(status: tonic::Status) -> Self {
        Self::Status(status)
    }
}
