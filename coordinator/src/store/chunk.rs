//! Rows of chunks: pieces of seeds in the artifact store, some in one object (a segment), and which seeds need which
//! segments.

use async_trait::async_trait;
use domain::ids::SeedId;
use domain::release::Digest;
use domain::time::Timestamp;

use super::error::Result;

/// Where a chunk lies.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChunkRow {
    /// SHA-256 of its plain bytes.
    pub hash: Digest,
    /// The segment.
    pub segment: String,
    /// Where it begins there, in bytes.
    pub begins: u64,
    /// How many bytes it has there.
    pub length: u64,
    /// It is compressed.
    pub packed: bool,
}

/// Some chunks in one object.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SegmentRow {
    /// Its name: a UUID made at the edge.
    pub segment: String,
    /// Its bytes.
    pub bytes: u64,
    /// When it was stored.
    pub created_at: Timestamp,
}

/// Reading chunks.
#[async_trait]
pub trait ChunkReads: Send {
    /// Those of these chunks that there are, in no order.
    async fn chunk_list(&mut self, hashes: &[Digest]) -> Result<Vec<ChunkRow>>;
    /// Whether there is such a segment.
    async fn chunk_segment_exists(&mut self, segment: &str) -> Result<bool>;
    /// Segments that the seed needs, by name.
    async fn chunk_segments_of(&mut self, seed: SeedId) -> Result<Vec<String>>;
    /// Seeds that need the segment, by id.
    async fn chunk_seeds_of(&mut self, segment: &str) -> Result<Vec<SeedId>>;
    /// At most `limit` segments that no seed needs, by name.
    async fn chunk_segments_unused(&mut self, limit: u32) -> Result<Vec<String>>;
}

/// Changing chunks.
#[async_trait]
pub trait ChunkWrites: Send {
    /// Notes a segment. Of its chunks those are noted that lie nowhere else.
    async fn chunk_segment_put(&mut self, row: &SegmentRow, chunks: &[ChunkRow]) -> Result<()>;
    /// Forgets a segment with its chunks, whoever needs it.
    async fn chunk_segment_delete(&mut self, segment: &str) -> Result<()>;
    /// Notes that the seed needs the segment; again is the same.
    async fn chunk_ref_put(&mut self, seed: SeedId, segment: &str) -> Result<()>;
    /// The seed needs no segment any more.
    async fn chunk_ref_delete(&mut self, seed: SeedId) -> Result<()>;
}
