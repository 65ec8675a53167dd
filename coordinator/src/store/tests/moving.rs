//! Copies of seeds, and the chunks they are made of.

use std::collections::BTreeSet;
use std::time::Duration;

use domain::ids::{HostId, SeedId};
use domain::release::Digest;
use domain::seed::{Place, SeedCopy, SeedState};

use super::super::PROJECT;
use super::super::chunk::{ChunkRow, SegmentRow};
use super::super::error::Error;
use super::super::seed_copy::SeedCopyRow;
use super::bed::Bed;
use super::nouns::{CONFLICT, code};
use super::samples::{at, digest, uuid};

fn copy(seed: u128, place: Place, host: u128) -> SeedCopyRow {
    let copy = SeedCopy::new(SeedId::new(uuid(seed)), place, HostId::new(uuid(host)), digest('7'), at(1));
    SeedCopyRow { project: PROJECT.to_owned(), copy, version: 0 }
}

pub(super) async fn copies_of_a_seed_are_found_by_seed_and_by_who_has_work(bed: &Bed) {
    let store = bed.open().await;
    let work = store.write(|tx| {
        Box::pin(async move {
            let mut pushed = copy(1, Place::Store, 1);
            let pulled = copy(1, Place::Host(HostId::new(uuid(2))), 2);
            pushed.version = tx.seed_copy_put(&pushed).await?;
            tx.seed_copy_put(&pulled).await?;
            tx.seed_copy_put(&copy(9, Place::Store, 1)).await?;
            let stale = pushed.clone();
            let changing = &mut pushed.copy;
            (changing.state, changing.index, changing.moved) = (SeedState::Ready, Some(digest('8')), 77);
            changing.reason = Some(("E_SEED".to_owned(), "why".to_owned()));
            (changing.took, changing.host) = (Some(Duration::from_micros(5)), HostId::new(uuid(3)));
            "there".clone_into(&mut changing.detail);
            pushed.version = tx.seed_copy_put(&pushed).await?;
            assert_eq!(code(tx.seed_copy_put(&stale).await), CONFLICT);
            let seed = SeedId::new(uuid(1));
            assert_eq!(tx.seed_copy_get(seed, Place::Store).await?, Some(pushed.clone()));
            assert_eq!(tx.seed_copy_get(seed, Place::Host(HostId::new(uuid(7)))).await?, None);
            let places = |rows: Vec<SeedCopyRow>| rows.into_iter().map(|row| row.copy.place).collect::<Vec<_>>();
            let there = Place::Host(HostId::new(uuid(2)));
            assert_eq!(places(tx.seed_copy_list(seed).await?), [there, Place::Store]);
            assert_eq!(places(tx.seed_copy_list_pending(HostId::new(uuid(2))).await?), [there]);
            assert_eq!(places(tx.seed_copy_list_pending(HostId::new(uuid(3))).await?), []);
            assert_eq!(tx.seed_copy_list_of_host(HostId::new(uuid(3))).await?, [pushed]);
            assert!(tx.seed_copy_delete(seed, there).await?);
            assert!(!tx.seed_copy_delete(seed, there).await?);
            assert_eq!(places(tx.seed_copy_list(seed).await?), [Place::Store]);
            Ok::<_, Error>(())
        })
    });
    work.await.unwrap();
}

fn hash(number: usize) -> Digest {
    Digest::parse(&format!("{number:064x}")).unwrap()
}

fn segment(name: &str, hashes: impl IntoIterator<Item = usize>) -> (SegmentRow, Vec<ChunkRow>) {
    let row = SegmentRow { segment: name.to_owned(), bytes: 1000, created_at: at(1) };
    let chunk = |number: usize| ChunkRow {
        hash: hash(number),
        segment: name.to_owned(),
        begins: number as u64 * 10,
        length: 10,
        packed: number.is_multiple_of(2),
    };
    (row, hashes.into_iter().map(chunk).collect())
}

pub(super) async fn chunks_are_found_until_their_segment_goes(bed: &Bed) {
    let store = bed.open().await;
    let work = store.write(|tx| {
        Box::pin(async move {
            let (first, chunks) = segment("a", 0..100);
            tx.chunk_segment_put(&first, &chunks).await?;
            // What lies somewhere already stays there.
            let (second, more) = segment("b", 90..110);
            tx.chunk_segment_put(&second, &more).await?;
            let all: Vec<Digest> = (0..120).map(hash).collect();
            let found: BTreeSet<(String, Digest)> =
                tx.chunk_list(&all).await?.into_iter().map(|row| (row.segment, row.hash)).collect();
            let wanted = (0..110).map(|number| ((if number < 100 { "a" } else { "b" }).to_owned(), hash(number)));
            assert_eq!(found, wanted.collect());
            assert_eq!(tx.chunk_list(&[hash(3)]).await?, [chunks[3].clone()]);
            assert_eq!(tx.chunk_list(&[]).await?, []);
            assert!(tx.chunk_segment_exists("a").await?);
            tx.chunk_segment_delete("a").await?;
            assert!(!tx.chunk_segment_exists("a").await?);
            assert_eq!(tx.chunk_list(&all).await?.len(), 10);
            Ok::<_, Error>(())
        })
    });
    work.await.unwrap();
}

pub(super) async fn a_segment_is_unused_once_no_seed_needs_it(bed: &Bed) {
    let store = bed.open().await;
    let work = store.write(|tx| {
        Box::pin(async move {
            let (one, two) = (SeedId::new(uuid(1)), SeedId::new(uuid(2)));
            for name in ["a", "b", "c"] {
                let (row, chunks) = segment(name, []);
                tx.chunk_segment_put(&row, &chunks).await?;
            }
            for (seed, name) in [(one, "a"), (one, "a"), (two, "a"), (two, "b")] {
                tx.chunk_ref_put(seed, name).await?;
            }
            assert_eq!(tx.chunk_segments_of(two).await?, ["a", "b"]);
            assert_eq!(tx.chunk_seeds_of("a").await?, [one, two]);
            assert_eq!(tx.chunk_segments_unused(10).await?, ["c"]);
            tx.chunk_ref_delete(two).await?;
            assert_eq!(tx.chunk_segments_unused(10).await?, ["b", "c"]);
            assert_eq!(tx.chunk_segments_unused(1).await?, ["b"]);
            tx.chunk_segment_delete("a").await?;
            assert_eq!(tx.chunk_seeds_of("a").await?, []);
            assert_eq!(tx.chunk_segments_of(one).await?, Vec::<String>::new());
            Ok::<_, Error>(())
        })
    });
    work.await.unwrap();
}
