//! The wire: generated code of the package `muster.v1`, and the only conversions between messages and domain values.

/// Generated from `muster/v1/*.proto`.
#[expect(clippy::all, clippy::allow_attributes, clippy::pedantic, reason = "generated code")]
pub mod v1 {
    tonic::include_proto!("muster.v1");
}

pub mod convert;

/// All files of the package with their options, encoded: for reflection and for the table of access rules.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// The largest message either side accepts, in bytes (log and artifact chunks are far smaller).
pub const MAX_MESSAGE: usize = 4 << 20;
/// The largest chunk of an artifact or a log, in bytes.
pub const MAX_CHUNK: usize = 256 << 10;
/// The largest chunk of a seed, in plain bytes.
pub const MAX_SEED_CHUNK: usize = 256 << 10;
/// Hashes of chunks in one request.
pub const MAX_HASHES: usize = 4096;
/// The largest index of a seed, in bytes.
pub const MAX_SEED_INDEX: usize = 256 << 20;
/// The largest manifest of a seed, in bytes.
pub const MAX_SEED_MANIFEST: usize = 1 << 20;
