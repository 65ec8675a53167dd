//! Seeds, snapshots, and the data of environments.

use domain::ids::{HostId, PrincipalId, SeedId};
use domain::seed::{Begin, Data, SeedState};

use super::super::PROJECT;
use super::super::error::Error;
use super::bed::Bed;
use super::nouns::{CONFLICT, EXISTS, code};
use super::samples::{asha, at, digest, environment, seed, uuid};

pub(super) async fn a_seed_comes_back_whole_and_changes_by_its_version(bed: &Bed) {
    let store = bed.open().await;
    let work = store.write(|tx| {
        Box::pin(async move {
            let mut row = seed(1, "staging", "1");
            row.version = tx.seed_put(&row).await?;
            assert_eq!(tx.seed_get(row.seed.id).await?.as_ref(), Some(&row));
            let stale = row.clone();
            row.seed.state = SeedState::Ready;
            (row.seed.reason, row.seed.digest) = (None, None);
            row.seed.inputs.clear();
            (row.seed.bytes, row.seed.took) = (99, None);
            row.version = tx.seed_put(&row).await?;
            assert_eq!(tx.seed_get(row.seed.id).await?, Some(row));
            assert_eq!(code(tx.seed_put(&stale).await), CONFLICT);
            Ok::<_, Error>(())
        })
    });
    work.await.unwrap();
}

pub(super) async fn a_name_is_free_again_once_its_seed_has_ended(bed: &Bed) {
    let store = bed.open().await;
    let work = store.write(|tx| {
        Box::pin(async move {
            let mut first = seed(1, "staging", "1");
            first.version = tx.seed_put(&first).await?;
            assert_eq!(code(tx.seed_put(&seed(2, "staging", "1")).await), EXISTS);
            tx.seed_put(&seed(3, "staging", "2")).await?;
            // Snapshots have names of their own, by owner.
            let snapshot = |number, owner| {
                let mut row = seed(number, "staging", "1");
                (row.seed.snapshot, row.seed.owner) = (true, owner);
                row
            };
            tx.seed_put(&snapshot(4, asha())).await?;
            assert_eq!(code(tx.seed_put(&snapshot(5, asha())).await), EXISTS);
            tx.seed_put(&snapshot(6, PrincipalId::new(uuid(77)))).await?;
            (first.seed.state, first.seed.ended_at) = (SeedState::Failed, Some(at(9)));
            tx.seed_put(&first).await?;
            tx.seed_put(&seed(2, "staging", "1")).await?;
            assert_eq!(tx.seed_list(PROJECT).await?.len(), 5);
            assert_eq!(tx.seed_list("other").await?, []);
            Ok::<_, Error>(())
        })
    });
    work.await.unwrap();
}

pub(super) async fn only_what_a_host_has_to_do_is_pending(bed: &Bed) {
    let store = bed.open().await;
    let work = store.write(|tx| {
        Box::pin(async move {
            for (number, state) in [
                (1, SeedState::Making),
                (2, SeedState::Ready),
                (3, SeedState::Removing),
                (4, SeedState::Failed),
                (5, SeedState::Removed),
            ] {
                let mut row = seed(number, "staging", &number.to_string());
                row.seed.state = state;
                row.seed.ended_at = state.ended().then(|| at(9));
                tx.seed_put(&row).await?;
            }
            let ids = |rows: Vec<super::super::seed::SeedRow>| {
                rows.into_iter().map(|row| row.seed.id.uuid().as_u128()).collect::<Vec<_>>()
            };
            assert_eq!(ids(tx.seed_list_pending(HostId::new(uuid(1))).await?), [1, 3]);
            assert_eq!(ids(tx.seed_list_pending(HostId::new(uuid(2))).await?), []);
            assert_eq!(ids(tx.seed_list(PROJECT).await?), [1, 2, 3, 4]);
            Ok::<_, Error>(())
        })
    });
    work.await.unwrap();
}

pub(super) async fn environments_of_a_seed_are_found_until_they_are_gone(bed: &Bed) {
    let store = bed.open().await;
    let work = store.write(|tx| {
        Box::pin(async move {
            let of = SeedId::new(uuid(31));
            let mut row = environment(1, "one");
            row.version = tx.environment_put(&row).await?;
            let mut plain = environment(2, "two");
            plain.data = Data::default();
            plain.version = tx.environment_put(&plain).await?;
            assert_eq!(tx.environment_get(plain.environment.id).await?.as_ref(), Some(&plain));
            assert_eq!(tx.seed_environments(of).await?, [row.clone()]);
            plain.data = Data::of(of, "staging@1".to_owned(), digest('8'));
            plain.data.begin(Begin::Epoch(0));
            plain.version = tx.environment_put(&plain).await?;
            assert_eq!(tx.environment_list(PROJECT, None).await?, [row.clone(), plain.clone()]);
            row.gone_at = Some(at(9));
            tx.environment_put(&row).await?;
            assert_eq!(tx.seed_environments(of).await?, [plain]);
            Ok::<_, Error>(())
        })
    });
    work.await.unwrap();
}

pub(super) async fn what_needs_an_artifact_is_told(bed: &Bed) {
    let store = bed.open().await;
    let work = store.write(|tx| {
        Box::pin(async move {
            let digest = digest('9');
            assert_eq!(tx.artifact_refs(&digest).await?, []);
            tx.artifact_ref_put(&digest, "seed", "b").await?;
            tx.artifact_ref_put(&digest, "build", "a").await?;
            let refs = |all: &[(&str, &str)]| {
                all.iter().map(|(noun, id)| ((*noun).to_owned(), (*id).to_owned())).collect::<Vec<_>>()
            };
            assert_eq!(tx.artifact_refs(&digest).await?, refs(&[("build", "a"), ("seed", "b")]));
            tx.artifact_ref_delete("seed", "b").await?;
            assert_eq!(tx.artifact_refs(&digest).await?, refs(&[("build", "a")]));
            Ok::<_, Error>(())
        })
    });
    work.await.unwrap();
}
