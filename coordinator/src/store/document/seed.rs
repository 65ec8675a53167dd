//! Stored shapes of what a seed is made of, and of its data.

use domain::release::Digest;
use domain::seed::{SeedFormat, SeedInput, SeedPart, SeedState};

use super::{document, words};

words!(SeedState {
    Making = "making",
    Ready = "ready",
    Failed = "failed",
    Removing = "removing",
    Removed = "removed",
});

words!(SeedFormat {
    Sql = "sql",
    PgCustom = "custom",
    Folder = "folder",
    Rdb = "rdb",
    Bulk = "bulk",
    Script = "script",
    Mask = "mask",
});

document!(SeedInput => InputShape {
    service: String,
    format: SeedFormat,
    name: String,
    bytes: u64,
    artifact: Digest,
});

document!(SeedPart => PartShape {
    volume: String,
    service: String,
    kind: String,
    image: String,
    version: String,
    collation: String,
    bytes: u64,
    files: u64,
});
