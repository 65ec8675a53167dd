//! Chunks in SQL.

use async_trait::async_trait;
use domain::ids::SeedId;
use domain::release::Digest;

use super::super::chunk::{ChunkReads, ChunkRow, ChunkWrites, SegmentRow};
use super::super::error::Result;
use super::{Columns, FromRow, SqlTx, Value, values};

/// Hashes that are looked for at once.
const AT_ONCE: usize = 32;

impl FromRow for ChunkRow {
    const TABLE: &'static str = "chunks";
    const KEY: &'static [&'static str] = &["hash"];

    fn from_row(row: &Columns<'_>) -> Result<Self> {
        Ok(Self {
            hash: row.digest("hash")?,
            segment: row.text("segment")?,
            begins: row.number("begins")?,
            length: row.number("length")?,
            packed: row.flag("packed")?,
        })
    }
}

struct Segment(String);

impl FromRow for Segment {
    const TABLE: &'static str = "chunk_segments";
    const KEY: &'static [&'static str] = &["segment"];

    fn from_row(row: &Columns<'_>) -> Result<Self> {
        row.text("segment").map(Self)
    }
}

struct Needs(SeedId);

impl FromRow for Needs {
    const TABLE: &'static str = "chunk_refs";
    const KEY: &'static [&'static str] = &["seed"];

    fn from_row(row: &Columns<'_>) -> Result<Self> {
        row.parse("seed").map(Self)
    }
}

fn names(rows: Vec<Segment>) -> Vec<String> {
    rows.into_iter().map(|Segment(name)| name).collect()
}

#[async_trait]
impl ChunkReads for SqlTx {
    async fn chunk_list(&mut self, hashes: &[Digest]) -> Result<Vec<ChunkRow>> {
        let sql = "SELECT * FROM chunks WHERE hash IN ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, \
                   $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $26, $27, $28, $29, $30, $31, $32)";
        let mut found = Vec::new();
        for some in hashes.chunks(AT_ONCE) {
            // One statement for any number: the last of them fills it up.
            let Some(last) = some.last() else { continue };
            let filled = some.iter().chain(std::iter::repeat(last)).take(AT_ONCE);
            let rows: Vec<ChunkRow> = self.list(sql, filled.map(Value::from).collect()).await?;
            found.extend(rows);
        }
        Ok(found)
    }

    async fn chunk_segment_exists(&mut self, segment: &str) -> Result<bool> {
        let found: Option<Segment> =
            self.one("SELECT segment FROM chunk_segments WHERE segment = $1", values![segment]).await?;
        Ok(found.is_some())
    }

    async fn chunk_segments_of(&mut self, seed: SeedId) -> Result<Vec<String>> {
        let sql = "SELECT segment FROM chunk_refs WHERE seed = $1 ORDER BY segment";
        self.list(sql, values![seed]).await.map(names)
    }

    async fn chunk_seeds_of(&mut self, segment: &str) -> Result<Vec<SeedId>> {
        let sql = "SELECT seed FROM chunk_refs WHERE segment = $1 ORDER BY seed";
        let rows: Vec<Needs> = self.list(sql, values![segment]).await?;
        Ok(rows.into_iter().map(|Needs(seed)| seed).collect())
    }

    async fn chunk_segments_unused(&mut self, limit: u32) -> Result<Vec<String>> {
        let sql = "SELECT segment FROM chunk_segments WHERE NOT EXISTS (SELECT 1 FROM chunk_refs \
                   WHERE chunk_refs.segment = chunk_segments.segment) ORDER BY segment LIMIT $1";
        self.list(sql, values![limit]).await.map(names)
    }
}

#[async_trait]
impl ChunkWrites for SqlTx {
    async fn chunk_segment_put(&mut self, row: &SegmentRow, chunks: &[ChunkRow]) -> Result<()> {
        let sql = "INSERT INTO chunk_segments (segment, bytes, created_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
        self.insert("chunk_segments", &row.segment, sql, values![&row.segment, row.bytes, row.created_at]).await?;
        for chunk in chunks {
            let sql = "INSERT INTO chunks (hash, segment, begins, length, packed) VALUES ($1, $2, $3, $4, $5) \
                       ON CONFLICT DO NOTHING";
            let values = values![&chunk.hash, &chunk.segment, chunk.begins, chunk.length, chunk.packed];
            self.execute("chunks", sql, values).await?;
        }
        Ok(())
    }

    async fn chunk_segment_delete(&mut self, segment: &str) -> Result<()> {
        self.execute("chunks", "DELETE FROM chunks WHERE segment = $1", values![segment]).await?;
        self.execute("chunk_refs", "DELETE FROM chunk_refs WHERE segment = $1", values![segment]).await?;
        self.execute("chunk_segments", "DELETE FROM chunk_segments WHERE segment = $1", values![segment]).await?;
        Ok(())
    }

    async fn chunk_ref_put(&mut self, seed: SeedId, segment: &str) -> Result<()> {
        let sql = "INSERT INTO chunk_refs (seed, segment) VALUES ($1, $2) ON CONFLICT DO NOTHING";
        self.execute("chunk_refs", sql, values![seed, segment]).await?;
        Ok(())
    }

    async fn chunk_ref_delete(&mut self, seed: SeedId) -> Result<()> {
        self.execute("chunk_refs", "DELETE FROM chunk_refs WHERE seed = $1", values![seed]).await?;
        Ok(())
    }
}
