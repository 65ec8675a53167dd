use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

use super::rig::{App, KEY, LONG, Raw, Rig, get, until};
use crate::relay::client::ClientError;
use crate::relay::protocol::{Code, Mode};

/// Requests on one connection until told to stop; each has to succeed.
async fn work(port: u16, stop: Arc<AtomicBool>, done: Arc<AtomicU64>) -> u64 {
    let mut connection = Raw::open(port).await;
    let mut count = 0;
    while !stop.load(SeqCst) {
        if count % 2 == 0 {
            let (status, body) = connection.get().await;
            assert!(status == 200 && body.ends_with(" 0"), "{status} {body}");
        } else {
            connection.send("POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 5\r\n\r\nhello").await;
            let (status, _, body) = connection.answer().await;
            assert!(status == 200 && body.ends_with(b" 5"), "{status} {body:?}");
        }
        count += 1;
        done.fetch_add(1, SeqCst);
    }
    count
}

async fn until_closed(rig: &Rig, port: u16) {
    until("the end of all connections", || async {
        rig.client.stats().await.expect("an answer").ports[&port].open == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn switches_under_keep_alive_load_fail_no_request() {
    let (_dir, rig) = Rig::fresh().await;
    let (old, new) = (App::start("old").await, App::start("new").await);
    let port = rig.port().await;
    rig.lead(port, Mode::Http, 1, old.address).await;
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let clients: Vec<_> = (0..4).map(|_| tokio::spawn(work(port, Arc::clone(&stop), Arc::clone(&done)))).collect();
    for generation in 2..=20 {
        let (name, address) = if generation % 2 == 0 { ("new", new.address) } else { ("old", old.address) };
        rig.lead(port, Mode::Http, generation, address).await;
        assert_eq!(get(port).await, (200, format!("{name} 0")), "a request after the switch");
        let reached = done.load(SeqCst) + 20;
        until("more requests", || async { done.load(SeqCst) >= reached }).await;
    }
    stop.store(true, SeqCst);
    let mut total = 19;
    for client in clients {
        total += client.await.expect("no request failed");
    }
    until_closed(&rig, port).await;
    let stats = rig.client.stats().await.expect("an answer");
    assert_eq!(old.count() + new.count(), total);
    assert_eq!((stats.ports[&port].open, stats.ports[&port].bad_requests), (0, 0));
    assert!(stats.ports[&port].releases.len() <= 9, "old counters are forgotten");
    for release in stats.ports[&port].releases.values() {
        assert_eq!((release.upstream_errors, release.in_flight), (0, 0));
        assert_eq!(release.requests, release.responses_2xx);
        assert_eq!(release.latency_buckets.iter().sum::<u64>(), release.requests);
    }
    rig.stop().await;
}

#[tokio::test]
async fn a_slow_post_ends_where_it_began_and_a_drain_waits_for_it() {
    let (_dir, rig) = Rig::fresh().await;
    let (mut old, new) = (App::start("old").await, App::start("new").await);
    let port = rig.port().await;
    rig.lead(port, Mode::Http, 1, old.address).await;
    let mut connection = Raw::open(port).await;
    connection.send("POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 10\r\n\r\nhello").await;
    old.heads.recv().await.expect("the head arrives");
    rig.lead(port, Mode::Http, 2, new.address).await;
    assert_eq!(get(port).await.1, "new 0");

    let client = rig.client.clone();
    let drain = tokio::spawn(async move { client.drain(port, "r1", LONG).await });
    connection.send("world").await;
    let (status, _, body) = connection.answer().await;
    assert_eq!((status, body), (200, b"old 10".to_vec()));
    let drained = drain.await.expect("no panic").expect("an answer");
    assert_eq!(drained.closed, 0);
    assert_eq!(connection.get().await.1, "new 0", "the same connection follows the switch");
    rig.stop().await;
}

#[tokio::test]
async fn a_drain_ends_an_answer_that_does_not_come() {
    let (_dir, rig) = Rig::fresh().await;
    let (mut old, new) = (App::start("old").await, App::start("new").await);
    let port = rig.port().await;
    rig.lead(port, Mode::Http, 1, old.address).await;
    let mut connection = Raw::open(port).await;
    connection.send("POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 10\r\n\r\nhello").await;
    old.heads.recv().await.expect("the head arrives");
    rig.lead(port, Mode::Http, 2, new.address).await;
    let drained = rig.client.drain(port, "r1", std::time::Duration::from_millis(20)).await.expect("an answer");
    assert_eq!((drained.open, drained.closed), (1, 1));
    let (status, _, body) = connection.answer().await;
    assert_eq!(status, 503);
    assert!(String::from_utf8_lossy(&body).contains("E_DRAINED"));
    rig.stop().await;
}

#[tokio::test]
async fn a_drain_ends_an_answer_that_nobody_takes() {
    let (_dir, rig) = Rig::fresh().await;
    let (old, new) = (App::start("old").await, App::start("new").await);
    let port = rig.port().await;
    rig.lead(port, Mode::Http, 1, old.address).await;
    let mut stalled = Raw::open(port).await;
    stalled.send("GET /big/50000000 HTTP/1.1\r\nHost: app\r\n\r\n").await;
    assert_eq!(stalled.head().await.0, 200);
    rig.lead(port, Mode::Http, 2, new.address).await;
    let drained = rig.client.drain(port, "r1", std::time::Duration::from_millis(50)).await.expect("an answer");
    assert_eq!((drained.open, drained.closed), (1, 1));
    until_closed(&rig, port).await;
    let stats = rig.client.stats().await.expect("an answer");
    assert_eq!((stats.ports[&port].releases["r1"].in_flight, stats.ports[&port].open), (0, 0));
    rig.stop().await;
}

#[tokio::test]
async fn the_current_release_is_not_drained_unless_held() {
    let (_dir, rig) = Rig::fresh().await;
    let app = App::start("app").await;
    let port = rig.port().await;
    rig.lead(port, Mode::Http, 1, app.address).await;
    match rig.client.drain(port, "r1", LONG).await {
        Err(ClientError::Refused(refusal)) => assert_eq!(refusal.code, Code::ReleaseCurrent),
        other => panic!("{other:?}"),
    }
    let mut held = super::rig::route(port, Mode::Http, 2, app.address);
    held.held = true;
    held.release = "r1".to_owned();
    rig.client.set_route(held.clone()).await.expect("a good route");
    assert_eq!(rig.client.drain(port, "r1", LONG).await.expect("idle").closed, 0);
    held.held = false;
    held.generation = 3;
    rig.client.set_route(held).await.expect("a good route");
    assert_eq!(get(port).await.1, "app 0");
    rig.stop().await;
}

#[tokio::test]
async fn a_removed_route_refuses_and_closes_its_connections() {
    let (_dir, rig) = Rig::fresh().await;
    let app = App::start("app").await;
    let port = rig.port().await;
    rig.lead(port, Mode::Http, 1, app.address).await;
    let mut connection = Raw::open(port).await;
    assert_eq!(connection.get().await.0, 200);
    rig.client.remove_route(port, KEY, 1).await.expect("removed");
    assert_eq!(connection.rest().await, b"");
    assert!(tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err());
    assert_eq!(rig.port().await, port, "the automatic port stays the key's");
    rig.lead(port, Mode::Http, 2, app.address).await;
    assert_eq!(get(port).await.0, 200);
    rig.stop().await;
}
