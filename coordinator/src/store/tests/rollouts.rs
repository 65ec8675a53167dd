//! Rollouts: the frozen plan in rows, and one active rollout per target.

use std::sync::Arc;
use std::time::Duration;

use domain::ids::{HostId, ReleaseId, RolloutId};
use domain::rollout::plan::{Kind, Plan};
use domain::rollout::progress::{Deadline, Ordered, Previous, Progress, RolloutState, StepState};

use super::super::rollout::RolloutRow;
use super::super::{Error, PROJECT, Store};
use super::bed::Bed;
use super::samples::{at, far, host, release, rollout, target, uuid};

async fn insert(store: &Store, row: RolloutRow) -> Result<(), Error> {
    store.write(|tx| Box::pin(async move { tx.rollout_insert(&row).await })).await
}

async fn put(store: &Store, before: &RolloutRow, next: &Progress) -> Result<u64, Error> {
    store.write(|tx| Box::pin(async move { tx.rollout_put(before, next, Some(at(99))).await })).await
}

async fn get(store: &Store, number: u128) -> RolloutRow {
    let id = RolloutId::new(uuid(number));
    store.read(|tx| Box::pin(async move { tx.rollout_get(id).await })).await.unwrap().unwrap()
}

async fn of_rollout(store: &Store, number: u128) -> Vec<HostId> {
    let id = RolloutId::new(uuid(number));
    let rows = store.read(|tx| Box::pin(async move { tx.host_list_of_rollout(id).await })).await.unwrap();
    rows.into_iter().map(|row| row.host.id).collect()
}

pub(super) async fn everything_of_a_rollout_comes_back(bed: &Bed) {
    let store = bed.open().await;
    let mut row = rollout(1, 1, RolloutState::Queued);
    let of = RolloutId::new(uuid(77));
    row.plan = Arc::new(Plan { kind: Kind::Revert { of }, ..Plan::clone(&row.plan) });
    insert(&store, row.clone()).await.unwrap();
    assert_eq!(get(&store, 1).await, row);

    let executors = of_rollout(&store, 1).await;
    assert!(executors.is_empty(), "none is known yet");
    for number in [51, 50, 7] {
        store
            .write(|tx| Box::pin(async move { tx.host_put(&host(number, &format!("web-{number}"))).await }))
            .await
            .unwrap();
    }
    assert_eq!(of_rollout(&store, 1).await, [HostId::new(uuid(50)), HostId::new(uuid(51))]);

    let next = far();
    assert_eq!(put(&store, &row, &next).await.unwrap(), 2);
    let stored = get(&store, 1).await;
    let wanted = RolloutRow { progress: next.clone(), finished_at: Some(at(99)), version: 2, ..row };
    assert_eq!(stored, wanted);

    let mut later = next;
    later.progress_by = Deadline::At(at(50));
    later.holders.clear();
    later.steps[1].ordered = Ordered::Confirm;
    later.steps[1].failure = None;
    put(&store, &stored, &later).await.unwrap();
    assert_eq!(get(&store, 1).await.progress, later);
    store.close().await;
}

pub(super) async fn what_a_host_can_be_ordered_is_due(bed: &Bed) {
    let store = bed.open().await;
    let mut foreign = release(4, 'd');
    foreign.release.target = target("bot/staging");
    for row in [release(1, 'a'), release(2, 'b'), release(3, 'c'), foreign] {
        store.write(|tx| Box::pin(async move { tx.release_insert(&row).await })).await.unwrap();
    }
    let due = async |host: u128| {
        let host = HostId::new(uuid(host));
        let rows = store.read(|tx| Box::pin(async move { tx.release_list_due(host).await })).await.unwrap();
        rows.into_iter().map(|row| row.release.number).collect::<Vec<_>>()
    };
    assert_eq!(due(1).await, [0; 0], "nothing is under way");
    let row = rollout(1, 1, RolloutState::Queued);
    insert(&store, row.clone()).await.unwrap();
    for host in [1, 2, 3, 50, 51, 52] {
        assert_eq!(due(host).await, [2], "what its members and executors go to");
    }
    assert_eq!(due(9).await, [0; 0], "it is no member");
    // What the second had, and what the third goes back to.
    let mut next = Progress { state: RolloutState::Reverting, ..row.progress.clone() };
    next.steps[1].previous = Previous::Release(ReleaseId::new(uuid(101)));
    next.steps[2].ordered = Ordered::Revert(ReleaseId::new(uuid(103)));
    put(&store, &row, &next).await.unwrap();
    assert_eq!((due(1).await, due(2).await, due(3).await), (vec![2], vec![1, 2], vec![2, 3]));
    // It ends with a member away, and another that says it had something of another target.
    let before = get(&store, 1).await;
    let mut next = Progress { state: RolloutState::Reverted, ..next };
    next.steps[0].previous = Previous::Release(ReleaseId::new(uuid(104)));
    (next.steps[1].state, next.steps[1].ordered) = (StepState::Parked, Ordered::Converge(ReleaseId::new(uuid(101))));
    put(&store, &before, &next).await.unwrap();
    assert_eq!((due(1).await, due(2).await), (vec![2], vec![1, 2]));
    let before = get(&store, 1).await;
    next.steps[1].state = StepState::Reverted;
    put(&store, &before, &next).await.unwrap();
    assert_eq!(due(2).await, [0; 0], "all is done");
    store.close().await;
}

pub(super) async fn of_two_started_at_once_one_is_active(bed: &Bed) {
    let store = bed.open().await;
    let mut tasks = tokio::task::JoinSet::new();
    for number in 1..=2 {
        let store = store.clone();
        tasks.spawn(async move {
            // What `rollout start` does: look, then queue or go.
            let start = store.write(|tx| {
                Box::pin(async move {
                    let active = tx.rollout_active(PROJECT, &target("bot/production")).await?;
                    let state = if active.is_some() { RolloutState::Queued } else { RolloutState::Preflight };
                    tx.rollout_insert(&rollout(number, 1, state)).await?;
                    Ok::<_, Error>(state)
                })
            });
            start.await.unwrap()
        });
    }
    let mut states = tasks.join_all().await;
    states.sort_unstable();
    assert_eq!(states, [RolloutState::Queued, RolloutState::Preflight]);
    let (active, queued) = store
        .read(|tx| {
            Box::pin(async move {
                let of = target("bot/production");
                let active = tx.rollout_active(PROJECT, &of).await?.unwrap();
                Ok::<_, Error>((active, tx.rollout_list_queued(PROJECT, &of).await?))
            })
        })
        .await
        .unwrap();
    assert_eq!(queued.len(), 1);
    assert_ne!(active.plan.rollout, queued[0].plan.rollout);
    store.close().await;
}

pub(super) async fn a_second_active_one_is_refused(bed: &Bed) {
    let store = bed.open().await;
    insert(&store, rollout(1, 1, RolloutState::Running)).await.unwrap();
    let second = insert(&store, rollout(2, 2, RolloutState::Preflight)).await;
    assert_eq!(second.map_err(|error| error.code()), Err("E_STORE_EXISTS"));
    let queued = rollout(2, 2, RolloutState::Queued);
    insert(&store, queued.clone()).await.unwrap();
    let next = Progress { state: RolloutState::Preflight, ..queued.progress.clone() };
    let started = put(&store, &queued, &next).await;
    assert_eq!(started.map_err(|error| error.code()), Err("E_STORE_EXISTS"));
    let first = get(&store, 1).await;
    let ended = Progress { state: RolloutState::Succeeded, ..first.progress.clone() };
    put(&store, &first, &ended).await.unwrap();
    put(&store, &queued, &next).await.unwrap();
    let mut elsewhere = rollout(3, 3, RolloutState::Running);
    elsewhere.plan = Arc::new(Plan { target: target("bot/staging"), ..Plan::clone(&elsewhere.plan) });
    insert(&store, elsewhere).await.unwrap();
    store.close().await;
}

pub(super) async fn a_stale_turn_is_refused(bed: &Bed) {
    let store = bed.open().await;
    let row = rollout(1, 1, RolloutState::Running);
    insert(&store, row.clone()).await.unwrap();
    let mut one = row.progress.clone();
    one.steps[0].state = StepState::Staged;
    let mut other = row.progress.clone();
    other.steps[1].state = StepState::Staged;
    put(&store, &row, &one).await.unwrap();
    let stale = put(&store, &row, &other).await;
    assert_eq!(stale.map_err(|error| error.code()), Err("E_STORE_CONFLICT"));
    assert_eq!(get(&store, 1).await.progress, one);
    let short = Progress { steps: vec![], ..one };
    let short = put(&store, &get(&store, 1).await, &short).await;
    assert_eq!(short.map_err(|error| error.code()), Err("E_STORE_VALUE"));
    let unknown = put(&store, &rollout(9, 1, RolloutState::Queued), &other).await;
    assert_eq!(unknown.map_err(|error| error.code()), Err("E_STORE_CONFLICT"));
    store.close().await;
}

pub(super) async fn the_queue_is_in_order(bed: &Bed) {
    let store = bed.open().await;
    for (number, seconds) in [(3, 1), (1, 2), (2, 2)] {
        insert(&store, rollout(number, seconds, RolloutState::Queued)).await.unwrap();
    }
    let (queued, last, of_target) = store
        .read(|tx| {
            Box::pin(async move {
                let of = target("bot/production");
                let queued = tx.rollout_list_queued(PROJECT, &of).await?;
                let last = tx.rollout_list(PROJECT, None, 2).await?;
                Ok::<_, Error>((queued, last, tx.rollout_list(PROJECT, Some(&of), 9).await?))
            })
        })
        .await
        .unwrap();
    let ids = |rows: &[RolloutRow]| -> Vec<u128> { rows.iter().map(|row| row.plan.rollout.uuid().as_u128()).collect() };
    assert_eq!(ids(&queued), [3, 1, 2]);
    assert_eq!(ids(&last), [2, 1]);
    assert_eq!(ids(&of_target), [2, 1, 3]);
    assert_eq!(queued[0], rollout(3, 1, RolloutState::Queued));
    store.close().await;
}

pub(super) async fn turning_ones_are_listed_until_they_are_done(bed: &Bed) {
    let store = bed.open().await;
    let row = rollout(1, 1, RolloutState::Running);
    insert(&store, row.clone()).await.unwrap();
    let turning = || async { store.read(|tx| Box::pin(async move { tx.rollout_list_turning().await })).await.unwrap() };
    assert_eq!(turning().await, [row.plan.rollout]);
    let mut parked = Progress { state: RolloutState::RevertIncomplete, ..row.progress.clone() };
    parked.steps[2].state = StepState::Parked;
    put(&store, &row, &parked).await.unwrap();
    assert_eq!(turning().await, [row.plan.rollout], "a parked member is still to be converged");
    let row = get(&store, 1).await;
    let mut done = row.progress.clone();
    done.steps[2].state = StepState::Reverted;
    done.steps[2].reverted_in = Some(Duration::from_secs(1));
    put(&store, &row, &done).await.unwrap();
    assert_eq!(turning().await, []);
    store.close().await;
}
