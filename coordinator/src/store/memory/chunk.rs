//! Chunks in memory.

use async_trait::async_trait;
use domain::ids::SeedId;
use domain::release::Digest;

use super::super::chunk::{ChunkReads, ChunkRow, ChunkWrites, SegmentRow};
use super::super::error::{Error, Result};
use super::MemoryTx;

#[async_trait]
impl ChunkReads for MemoryTx {
    async fn chunk_list(&mut self, hashes: &[Digest]) -> Result<Vec<ChunkRow>> {
        Ok(hashes.iter().filter_map(|hash| self.state.chunks.get(hash)).cloned().collect())
    }

    async fn chunk_segment_exists(&mut self, segment: &str) -> Result<bool> {
        Ok(self.state.chunk_segments.get(&segment.to_owned()).is_some())
    }

    async fn chunk_segments_of(&mut self, seed: SeedId) -> Result<Vec<String>> {
        let refs = self.state.chunk_refs.iter().filter(|(key, ())| key.0 == seed);
        Ok(refs.map(|(key, ())| key.1.clone()).collect())
    }

    async fn chunk_seeds_of(&mut self, segment: &str) -> Result<Vec<SeedId>> {
        let refs = self.state.chunk_refs.iter().filter(|(key, ())| key.1 == segment);
        Ok(refs.map(|(key, ())| key.0).collect())
    }

    async fn chunk_segments_unused(&mut self, limit: u32) -> Result<Vec<String>> {
        let needed = |segment: &String| self.state.chunk_refs.iter().any(|(key, ())| key.1 == *segment);
        let unused = self.state.chunk_segments.iter().map(|(name, _)| name).filter(|name| !needed(name));
        Ok(unused.take(usize::try_from(limit).unwrap_or(usize::MAX)).cloned().collect())
    }
}

#[async_trait]
impl ChunkWrites for MemoryTx {
    async fn chunk_segment_put(&mut self, row: &SegmentRow, chunks: &[ChunkRow]) -> Result<()> {
        if self.state.chunk_segments.get(&row.segment).is_some() {
            return Err(Error::exists("chunk_segments", &row.segment));
        }
        self.state.chunk_segments.put(row.segment.clone(), row.clone());
        for chunk in chunks {
            if self.state.chunks.get(&chunk.hash).is_none() {
                self.state.chunks.put(chunk.hash.clone(), chunk.clone());
            }
        }
        Ok(())
    }

    async fn chunk_segment_delete(&mut self, segment: &str) -> Result<()> {
        let chunks = self.state.chunks.rows().filter(|row| row.segment == segment);
        let chunks: Vec<Digest> = chunks.map(|row| row.hash.clone()).collect();
        for hash in chunks {
            self.state.chunks.delete(&hash);
        }
        let refs = self.state.chunk_refs.iter().filter(|(key, ())| key.1 == segment);
        let refs: Vec<_> = refs.map(|(key, ())| key.clone()).collect();
        for key in refs {
            self.state.chunk_refs.delete(&key);
        }
        self.state.chunk_segments.delete(&segment.to_owned());
        Ok(())
    }

    async fn chunk_ref_put(&mut self, seed: SeedId, segment: &str) -> Result<()> {
        self.state.chunk_refs.put((seed, segment.to_owned()), ());
        Ok(())
    }

    async fn chunk_ref_delete(&mut self, seed: SeedId) -> Result<()> {
        let refs = self.state.chunk_refs.iter().filter(|(key, ())| key.0 == seed);
        let refs: Vec<_> = refs.map(|(key, ())| key.clone()).collect();
        for key in refs {
            self.state.chunk_refs.delete(&key);
        }
        Ok(())
    }
}
