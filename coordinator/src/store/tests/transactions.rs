//! All or nothing, one at a time, and a fence.

use super::super::{Error, PROJECT, Store};
use super::bed::Bed;
use super::samples::{asha, event, host};

enum Failed {
    Store(Error),
    OnPurpose,
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

pub(super) async fn a_failed_closure_leaves_nothing(bed: &Bed) {
    let store = bed.open().await;
    let failed = store
        .write(|tx| {
            Box::pin(async move {
                tx.host_put(&host(1, "web-1")).await?;
                tx.meta_put("k", "v").await?;
                tx.event_append(PROJECT, &event(1, "")).await?;
                Err::<(), _>(Failed::OnPurpose)
            })
        })
        .await;
    match failed {
        Err(Failed::OnPurpose) => {}
        Err(Failed::Store(error)) => panic!("{error}"),
        Ok(()) => panic!("it must fail"),
    }
    let left = store
        .read(|tx| {
            Box::pin(async move {
                let hosts = tx.host_list_all().await?;
                Ok::<_, Error>((hosts, tx.meta_get("k").await?, tx.event_seq().await?))
            })
        })
        .await
        .unwrap();
    assert_eq!(left, (vec![], None, 0));
    assert_eq!(*store.seq().borrow(), 0);
    store.close().await;
}

pub(super) async fn a_dropped_write_leaves_nothing(bed: &Bed) {
    let store = bed.open().await;
    let (reached, here) = tokio::sync::oneshot::channel();
    let write = store.write(|tx| {
        Box::pin(async move {
            tx.host_put(&host(1, "web-1")).await?;
            reached.send(()).unwrap();
            std::future::pending::<()>().await;
            Ok::<_, Error>(())
        })
    });
    tokio::select! {
        _ = write => panic!("it never ends by itself"),
        told = here => told.unwrap(),
    }
    assert_eq!(hosts(&store).await, 0);
    put_host(&store, 2, "web-1").await.unwrap();
    assert_eq!(hosts(&store).await, 1);
    store.close().await;
}

pub(super) async fn a_refused_row_does_not_break_the_transaction(bed: &Bed) {
    let store = bed.open().await;
    put_host(&store, 1, "web-1").await.unwrap();
    store
        .write(|tx| {
            Box::pin(async move {
                let again = tx.host_put(&host(2, "web-1")).await;
                assert_eq!(again.map_err(|error| error.code()), Err("E_STORE_EXISTS"));
                tx.host_put(&host(3, "web-3")).await
            })
        })
        .await
        .unwrap();
    assert_eq!(hosts(&store).await, 2);
    store.close().await;
}

pub(super) async fn writes_run_one_at_a_time_and_see_earlier_ones(bed: &Bed) {
    let store = bed.open().await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..30 {
        let store = store.clone();
        tasks.spawn(async move {
            let add = store.write(|tx| {
                Box::pin(async move {
                    let count: u32 = tx.meta_get("count").await?.map_or(0, |text| text.parse().unwrap());
                    tx.meta_put("count", &(count + 1).to_string()).await
                })
            });
            add.await.unwrap();
        });
    }
    tasks.join_all().await;
    let count = store.read(|tx| Box::pin(tx.meta_get("count"))).await.unwrap();
    assert_eq!(count.as_deref(), Some("30"));
    store.close().await;
}

pub(super) async fn a_snapshot_does_not_change_under_its_reader(bed: &Bed) {
    let store = bed.open().await;
    if matches!(bed, Bed::Memory(_)) {
        // There a snapshot is the lock itself: a writer waits for it.
        return;
    }
    let other = store.clone();
    let (before, after) = store
        .read(|tx| {
            Box::pin(async move {
                let before = tx.host_list_all().await?.len();
                put_host(&other, 1, "web-1").await?;
                Ok::<_, Error>((before, tx.host_list_all().await?.len()))
            })
        })
        .await
        .unwrap();
    assert_eq!((before, after), (0, 0));
    assert_eq!(hosts(&store).await, 1);
    store.close().await;
}

pub(super) async fn closures_may_borrow(bed: &Bed) {
    let store = bed.open().await;
    let row = host(1, "web-1");
    let mut seen = Vec::new();
    let borrowed = &row;
    let seen_by_closure = &mut seen;
    store
        .write(|tx| {
            Box::pin(async move {
                seen_by_closure.push(tx.host_put(borrowed).await?);
                Ok::<_, Error>(())
            })
        })
        .await
        .unwrap();
    assert_eq!(seen, [1]);
    store.close().await;
}

pub(super) async fn reopening_raises_the_epoch_and_keeps_the_incarnation(bed: &Bed) {
    let store = bed.open().await;
    let first = store.fence();
    assert_eq!((first.incarnation, first.epoch), (1, 1));
    assert!(!first.incarnation_id.is_nil());
    put_host(&store, 1, "web-1").await.unwrap();
    store.write(|tx| Box::pin(async move { tx.event_append(PROJECT, &event(1, "")).await })).await.unwrap();
    store.close().await;
    assert!(put_host(&store, 9, "web-9").await.is_err(), "a closed store takes nothing");
    drop(store);
    let store = bed.open().await;
    let second = store.fence();
    assert_eq!((second.incarnation_id, second.epoch), (first.incarnation_id, 2));
    assert_eq!(hosts(&store).await, 1);
    assert_eq!(*store.seq().borrow(), 1, "watchers resume from where the ledger is");
    store.close().await;
}

pub(super) async fn put_host(store: &Store, number: u128, called: &str) -> Result<u64, Error> {
    let row = host(number, called);
    assert_eq!(row.principal, Some(asha()));
    store.write(|tx| Box::pin(async move { tx.host_put(&row).await })).await
}

pub(super) async fn hosts(store: &Store) -> usize {
    store.read(|tx| Box::pin(async move { tx.host_list_all().await })).await.unwrap().len()
}
