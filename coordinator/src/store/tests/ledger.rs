//! The ledger's order is the order of commits.

use domain::event::Actor;

use super::super::event::{EventFilter, EventRow};
use super::super::{Error, PROJECT, Store};
use super::bed::Bed;
use super::samples::{at, event};

async fn append(store: &Store, number: u128, scope: &'static str) -> u64 {
    let event = event(number, scope);
    store.write(|tx| Box::pin(async move { tx.event_append(PROJECT, &event).await })).await.unwrap()
}

async fn after(store: &Store, filter: EventFilter) -> Vec<EventRow> {
    store.read(|tx| Box::pin(async move { tx.event_list_after(&filter).await })).await.unwrap()
}

fn seqs(rows: &[EventRow]) -> Vec<u64> {
    rows.iter().map(|row| row.seq).collect()
}

pub(super) async fn numbers_are_in_the_order_of_commits(bed: &Bed) {
    let store = bed.open().await;
    let mut tasks = tokio::task::JoinSet::new();
    for number in 1..=20 {
        let store = store.clone();
        tasks.spawn(async move {
            let event = event(number, "");
            let both = store.write(|tx| {
                Box::pin(async move {
                    // What this write found committed before is below its own number.
                    let before = tx.event_list_last(&EventFilter::of(PROJECT)).await?.last().map_or(0, |row| row.seq);
                    Ok::<_, Error>((before, tx.event_append(PROJECT, &event).await?))
                })
            });
            both.await.unwrap()
        });
    }
    let mut pairs = tasks.join_all().await;
    pairs.sort_unstable();
    let wanted: Vec<(u64, u64)> = (1..=20).map(|seq| (seq - 1, seq)).collect();
    assert_eq!(pairs, wanted);
    store.close().await;
}

pub(super) async fn readers_never_see_a_gap(bed: &Bed) {
    let store = bed.open().await;
    let writer = store.clone();
    let writing = tokio::spawn(async move {
        for number in 1..=40 {
            append(&writer, number, "").await;
        }
    });
    let mut have = 0;
    let mut seq = store.seq();
    while have < 40 {
        seq.wait_for(|last| *last > have).await.unwrap();
        let rows = after(&store, EventFilter { after: have, ..EventFilter::of(PROJECT) }).await;
        for row in rows {
            assert_eq!(row.seq, have + 1);
            have = row.seq;
        }
    }
    writing.await.unwrap();
    store.close().await;
}

pub(super) async fn a_failed_write_takes_no_number(bed: &Bed) {
    let store = bed.open().await;
    assert_eq!(append(&store, 1, "").await, 1);
    let failed = store.write(|tx| {
        Box::pin(async move {
            tx.event_append(PROJECT, &event(2, "")).await?;
            Err::<(), _>(Error::Unusable { what: "on purpose".to_owned() })
        })
    });
    assert!(failed.await.is_err());
    assert_eq!(append(&store, 3, "").await, 2);
    store.close().await;
}

pub(super) async fn filters_select_and_resume(bed: &Bed) {
    let store = bed.open().await;
    for (number, scope) in (1..).zip(["bot", "bot/production", "bots", "bot/staging", ""]) {
        append(&store, number, scope).await;
    }
    let mut other = event(6, "bot");
    other.actor = Actor::Host("web-1".to_owned());
    let of_host = other.clone();
    store.write(|tx| Box::pin(async move { tx.event_append("other", &of_host).await })).await.unwrap();
    other.actor = Actor::Coordinator;
    other.id = event(7, "").id;
    store.write(|tx| Box::pin(async move { tx.event_append("other", &other).await })).await.unwrap();

    let all = EventFilter::of(PROJECT);
    assert_eq!(seqs(&after(&store, all.clone()).await), [1, 2, 3, 4, 5]);
    assert_eq!(seqs(&after(&store, EventFilter { after: 2, limit: 2, ..all.clone() }).await), [3, 4]);
    let scoped = |scope: &str| EventFilter { scope: Some(scope.to_owned()), ..EventFilter::of(PROJECT) };
    assert_eq!(seqs(&after(&store, scoped("bot")).await), [1, 2, 4]);
    assert_eq!(seqs(&after(&store, scoped("bot/staging")).await), [4]);
    assert_eq!(seqs(&after(&store, EventFilter { since: Some(at(4)), ..all.clone() }).await), [4, 5]);
    let last = EventFilter { limit: 2, ..all };
    let last = store.read(|tx| Box::pin(async move { tx.event_list_last(&last).await })).await.unwrap();
    assert_eq!(seqs(&last), [4, 5]);

    let whole = &after(&store, scoped("bot/staging")).await[0];
    assert_eq!(*whole, EventRow::new(4, PROJECT, &event(4, "bot/staging")));
    let actors: Vec<Actor> = after(&store, EventFilter::of("other")).await.into_iter().map(|row| row.actor).collect();
    assert_eq!(actors, [Actor::Host("web-1".to_owned()), Actor::Coordinator]);
    store.close().await;
}

pub(super) async fn watchers_are_woken(bed: &Bed) {
    let store = bed.open().await;
    let mut seq = store.seq();
    let writer = store.clone();
    let waiting = tokio::spawn(async move { *seq.wait_for(|last| *last >= 1).await.unwrap() });
    append(&writer, 1, "").await;
    assert_eq!(waiting.await.unwrap(), 1);
    store.close().await;
}
