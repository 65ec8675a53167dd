//! Faults that the store in memory makes on demand.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use super::super::{Error, Fault, Faults, Memory, PROJECT, Store};
use super::samples::event;
use super::transactions::{hosts, put_host};

#[derive(Default)]
struct Planned {
    faults: Mutex<Vec<Fault>>,
    crashes: AtomicU32,
}

impl Faults for Planned {
    fn at_commit(&self) -> Fault {
        self.faults.lock().unwrap().pop().unwrap_or_default()
    }

    fn crashed(&self) {
        self.crashes.fetch_add(1, Ordering::Relaxed);
    }
}

async fn planned(fault: Fault) -> (Memory, Store, Arc<Planned>) {
    let faults = Arc::new(Planned::default());
    let memory = Memory::new(Arc::clone(&faults) as Arc<dyn Faults>);
    let store = memory.open().await;
    faults.faults.lock().unwrap().push(fault);
    (memory, store, faults)
}

#[tokio::test]
async fn an_aborted_commit_is_not_made() {
    let (_, store, _) = planned(Fault::Abort).await;
    let refused = put_host(&store, 1, "web-1").await;
    assert_eq!(refused.map_err(|error| error.code()), Err("E_STORE_UNAVAILABLE"));
    assert_eq!(hosts(&store).await, 0);
    put_host(&store, 1, "web-1").await.unwrap();
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_made() {
    let (_, store, _) = planned(Fault::LoseAnswer).await;
    let lost = put_host(&store, 1, "web-1").await;
    assert_eq!(lost.map_err(|error| error.code()), Err("E_STORE_UNAVAILABLE"));
    assert_eq!(hosts(&store).await, 1);
    assert_eq!(put_host(&store, 1, "web-1").await.map_err(|error| error.code()), Err("E_STORE_EXISTS"));
}

#[tokio::test]
async fn after_a_crash_the_handle_is_dead_and_the_change_is_there() {
    let (memory, store, faults) = planned(Fault::CrashAfterCommit).await;
    assert!(put_host(&store, 1, "web-1").await.is_err());
    assert_eq!(faults.crashes.load(Ordering::Relaxed), 1);
    assert!(put_host(&store, 2, "web-2").await.is_err());
    let next = memory.open().await;
    assert_eq!(hosts(&next).await, 1);
}

#[tokio::test]
async fn a_write_that_changes_nothing_asks_for_no_fault() {
    let (_, store, faults) = planned(Fault::Abort).await;
    let looked = store.write(|tx| Box::pin(async move { tx.event_seq().await })).await;
    assert_eq!(looked.unwrap(), 0);
    assert_eq!(faults.faults.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_handle_that_was_replaced_is_fenced_off() {
    let (memory, old, _) = planned(Fault::None).await;
    let new = memory.open().await;
    assert_eq!(put_host(&old, 1, "web-1").await.map_err(|error| error.code()), Err("E_NOT_LEADER"));
    assert!(!*old.leading().borrow());
    put_host(&new, 1, "web-1").await.unwrap();
}

#[test]
fn nothing_ever_waits() {
    use futures::FutureExt as _;
    let opened = Store::memory(Arc::new(super::super::NoFaults)).now_or_never();
    let store = opened.expect("it opens at once");
    for number in 1..=500 {
        let write = store.write(|tx| {
            Box::pin(async move {
                tx.event_append(PROJECT, &event(number, "")).await?;
                Ok::<_, Error>(())
            })
        });
        write.now_or_never().expect("it writes at once").unwrap();
    }
    assert_eq!(*store.seq().borrow(), 500);
}
