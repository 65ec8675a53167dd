//! What is true of PostgreSQL only: one leader among many, by a lease and a fence.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use super::super::testing::PostgresServer;
use super::super::{Error, Leadership, Store};
use super::bed::{Bed, leadership};
use super::samples::host;
use super::transactions::{hosts, put_host};

/// Starts a server on this thread and runs `test` beside it.
pub(super) fn with_server<F: Future<Output = ()>>(test: impl FnOnce(Arc<PostgresServer>) -> F) {
    let server = Arc::new(PostgresServer::start().unwrap_or_else(|error| panic!("{error}")));
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(2).enable_all().build().unwrap().block_on(test(server));
}

#[test]
fn leaders_take_turns() {
    with_server(|server| async move {
        a_take_over_waits_for_an_open_write_and_fences_the_old_leader(&server).await;
        a_standby_is_told_who_leads(&server).await;
        a_leader_that_stops_gives_the_lease_back(&server).await;
        a_renewed_lease_is_kept(&server).await;
        a_leader_that_cannot_renew_writes_nothing(&server).await;
        two_that_start_on_an_empty_database_both_find_a_schema(&server).await;
        a_schema_that_needs_a_newer_binary_is_refused(&server).await;
        a_password_is_not_repeated(&server).await;
    });
}

/// Address, server and schema.
fn parts(bed: &Bed) -> (&str, &PostgresServer, &str) {
    match bed {
        Bed::Postgres { url, server, schema } => (url, server, schema),
        _ => panic!("not a PostgreSQL bed"),
    }
}

async fn expire(bed: &Bed) {
    bed.sql("UPDATE leader_renewal SET expires_at = 0").await;
}

/// The regression test of the fence. With a look that takes no row lock, the take-over would not wait, and the old
/// leader's row would be committed after it.
async fn a_take_over_waits_for_an_open_write_and_fences_the_old_leader(server: &Arc<PostgresServer>) {
    let bed = Bed::postgres(server);
    let (url, server, _) = parts(&bed);
    let old = bed.open().await;
    let (reached, here) = tokio::sync::oneshot::channel();
    let (go_on, wait) = tokio::sync::oneshot::channel::<()>();
    let writer = old.clone();
    let open_write = tokio::spawn(async move {
        let write = writer.write(|tx| {
            Box::pin(async move {
                reached.send(()).unwrap();
                wait.await.unwrap();
                tx.host_put(&host(1, "web-1")).await
            })
        });
        write.await
    });
    here.await.unwrap();
    expire(&bed).await;
    let address = url.to_owned();
    let taking = tokio::spawn(async move { Store::postgres(&address, &leadership("two")).await });
    // The take-over stands behind the open write, in the database.
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
    while server.sql("postgres", waiting).unwrap() != "1" {
        assert!(!taking.is_finished(), "the take-over must wait");
        tokio::task::yield_now().await;
    }
    go_on.send(()).unwrap();
    assert_eq!(open_write.await.unwrap().unwrap(), 1, "a write that was first is made");
    let new = taking.await.unwrap().unwrap();
    assert_eq!(new.fence().epoch, old.fence().epoch + 1);

    let refused = put_host(&old, 2, "web-2").await.unwrap_err();
    assert_eq!(refused.code(), "E_NOT_LEADER");
    assert!(refused.to_string().contains("two"), "{refused}");
    assert!(!*old.leading().borrow());
    assert_eq!(hosts(&new).await, 1, "the old leader's write is not there");
    put_host(&new, 3, "web-3").await.unwrap();
    old.close().await;
    put_host(&new, 4, "web-4").await.expect("the old one's end does not end the new one's lease");
    new.close().await;
}

async fn a_standby_is_told_who_leads(server: &Arc<PostgresServer>) {
    let bed = Bed::postgres(server);
    let leader = bed.open().await;
    let standby = Leadership { wait: Some(Duration::ZERO), ..leadership("two") };
    let refused = Store::postgres(parts(&bed).0, &standby).await.unwrap_err();
    assert!(matches!(&refused, Error::NotLeader { leader: Some(leader) } if leader == "one"), "{refused}");
    leader.close().await;
}

async fn a_leader_that_stops_gives_the_lease_back(server: &Arc<PostgresServer>) {
    let bed = Bed::postgres(server);
    bed.open().await.close().await;
    let at_once = Leadership { wait: Some(Duration::ZERO), ..leadership("two") };
    let next = Store::postgres(parts(&bed).0, &at_once).await.unwrap();
    assert_eq!(next.fence().epoch, 2);
    next.close().await;
}

async fn a_renewed_lease_is_kept(server: &Arc<PostgresServer>) {
    let bed = Bed::postgres(server);
    let (url, server, schema) = parts(&bed);
    let short = Leadership { lease: Duration::from_secs(2), ..leadership("one") };
    let leader = Store::postgres(url, &short).await.unwrap();
    let ends = format!("SELECT expires_at FROM {schema}.leader_renewal");
    let ends = || server.sql("postgres", &ends).unwrap().parse::<i64>().unwrap();
    let first = ends();
    while ends() <= first {
        tokio::task::yield_now().await;
    }
    put_host(&leader, 1, "web-1").await.unwrap();
    leader.close().await;
}

async fn a_leader_that_cannot_renew_writes_nothing(server: &Arc<PostgresServer>) {
    let bed = Bed::postgres(server);
    let (url, ..) = parts(&bed);
    let short = Leadership { lease: Duration::from_millis(500), ..leadership("one") };
    let leader = Store::postgres(url, &short).await.unwrap();
    let mut leading = leader.leading();
    bed.sql("UPDATE leader_renewal SET epoch = epoch + 1").await;
    leading.wait_for(|leading| !*leading).await.unwrap();
    assert_eq!(put_host(&leader, 1, "web-1").await.unwrap_err().code(), "E_NOT_LEADER");
    assert_eq!(hosts(&leader).await, 0, "it still reads");
    leader.close().await;
}

async fn two_that_start_on_an_empty_database_both_find_a_schema(server: &Arc<PostgresServer>) {
    let bed = Bed::postgres(server);
    let (url, ..) = parts(&bed);
    let mut tasks = tokio::task::JoinSet::new();
    for address in ["one", "two"] {
        let url = url.to_owned();
        tasks.spawn(async move {
            let store = Store::postgres(&url, &leadership(address)).await.unwrap();
            let fence = store.fence();
            store.close().await;
            fence
        });
    }
    let mut fences = tasks.join_all().await;
    fences.sort_unstable();
    assert_eq!((fences[0].epoch, fences[1].epoch), (1, 2));
    assert_eq!(fences[0].incarnation_id, fences[1].incarnation_id);
}

async fn a_schema_that_needs_a_newer_binary_is_refused(server: &Arc<PostgresServer>) {
    let bed = Bed::postgres(server);
    bed.open().await.close().await;
    bed.sql("UPDATE meta SET value = '900' WHERE key = 'min_reader'").await;
    let refused = Store::postgres(parts(&bed).0, &leadership("one")).await.unwrap_err();
    assert_eq!(refused.code(), "E_SCHEMA_TOO_NEW");
}

async fn a_password_is_not_repeated(server: &Arc<PostgresServer>) {
    let wrong = server.url("none").replace("postgres@", "postgres:hunter2@");
    for url in [wrong.as_str(), "nonsense://u:hunter2@h/x", "postgres://u:hunter2@[/x"] {
        let refused = Store::postgres(url, &leadership("one")).await.unwrap_err();
        assert!(!refused.to_string().contains("hunter2"), "{refused}");
        assert!(!format!("{refused:?}").contains("hunter2"), "{refused:?}");
    }
}
