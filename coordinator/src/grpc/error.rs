//! Refusals as gRPC answers: mapped here and nowhere else.

use tonic::metadata::MetadataValue;
use tonic::{Code as Grpc, Status};

use crate::error::{Error, Kind};

/// Metadata key under which programs find the reason code.
pub const REASON: &str = "muster-reason";
/// Headers have a limit; a long list of problems is cut.
const MAX_TEXT: usize = 6 << 10;

/// The answer: `E_CODE: text`, and the code alone in [`REASON`].
#[must_use]
pub fn status(error: Error) -> Status {
    let code = match error.code.kind {
        Kind::Invalid => Grpc::InvalidArgument,
        Kind::NotFound => Grpc::NotFound,
        Kind::Exists => Grpc::AlreadyExists,
        Kind::Precondition => Grpc::FailedPrecondition,
        Kind::Aborted => Grpc::Aborted,
        Kind::Unauthenticated => Grpc::Unauthenticated,
        Kind::Denied => Grpc::PermissionDenied,
        Kind::Unavailable => Grpc::Unavailable,
        Kind::Exhausted => Grpc::ResourceExhausted,
        Kind::Internal => Grpc::Internal,
    };
    let reason = error.reason();
    let mut text = error.to_string();
    if text.len() > MAX_TEXT {
        let mut end = MAX_TEXT;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push_str(" …");
    }
    let mut status = Status::new(code, text);
    if let Ok(value) = MetadataValue::try_from(reason) {
        status.metadata_mut().insert(REASON, value);
    }
    status
}
