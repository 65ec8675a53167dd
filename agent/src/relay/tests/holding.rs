use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::rig::{App, KEY, LOOPBACK, Raw, Rig, config, get, route, until};
use crate::relay::Limits;
use crate::relay::protocol::{Confirmation, Confirmed, Mode};

const OLD_BOOT: &str = "00000000-0000-0000-0000-000000000000";

async fn held_now(rig: &Rig, count: u64) -> bool {
    rig.client.table().await.expect("an answer").entries[0].held_now == count
}

/// A port whose route is held, and the request that waits there.
async fn one_waits(rig: &Rig) -> (u16, JoinHandle<(u16, String)>) {
    let port = rig.port().await;
    let mut asleep = route(port, Mode::Http, 1, ([127, 0, 0, 1], 9).into());
    asleep.held = true;
    rig.client.set_route(asleep).await.expect("a good route");
    let waiting = tokio::spawn(get(port));
    until("a held request", || held_now(rig, 1)).await;
    (port, waiting)
}

#[tokio::test]
async fn after_a_reboot_requests_wait_for_the_agent() {
    let dir = tempfile::tempdir().expect("a folder");
    let (gone, moved) = (App::start("gone").await, App::start("moved").await);
    let mut before = config(dir.path());
    before.boot_id = OLD_BOOT.to_owned();
    let rig = Rig::start(before).await;
    let port = rig.port().await;
    rig.lead(port, Mode::Http, 1, gone.address).await;
    rig.stop().await;

    let rig = Rig::start(config(dir.path())).await;
    let view = rig.client.table().await.expect("an answer");
    assert!(view.entries[0].unconfirmed);
    assert_eq!(view.entries[0].boot_id, OLD_BOOT);
    let waiting = tokio::spawn(get(port));
    until("a held request", || held_now(&rig, 1)).await;
    let confirmation = Confirmation { port, key: KEY.to_owned(), generation: 1, endpoint: moved.address };
    let stale = Confirmation { generation: 0, ..confirmation.clone() };
    let confirmed = rig.client.confirm(&view.boot_id, vec![stale, confirmation]).await.expect("an answer");
    assert_eq!(confirmed, [Confirmed::OtherGeneration, Confirmed::Done]);
    assert_eq!(waiting.await.expect("no panic"), (200, "moved 0".to_owned()));
    assert_eq!(gone.count(), 0);
    rig.stop().await;

    let rig = Rig::start(config(dir.path())).await;
    assert_eq!(get(port).await.1, "moved 0", "the confirmation was stored");
    rig.stop().await;
}

#[tokio::test]
async fn a_held_tcp_connection_goes_on_when_the_route_is_ready() {
    let (_dir, rig) = Rig::fresh().await;
    let echo = TcpListener::bind((LOOPBACK, 0)).await.expect("a port");
    let address = echo.local_addr().expect("bound");
    let port = rig.port().await;
    let mut asleep = route(port, Mode::Tcp, 1, address);
    asleep.endpoint = None;
    asleep.held = true;
    rig.client.set_route(asleep).await.expect("a good route");
    let mut client = Raw::open(port).await;
    client.send("early").await;
    until("a held connection", || held_now(&rig, 1)).await;
    rig.lead(port, Mode::Tcp, 2, address).await;
    let (mut server, _) = echo.accept().await.expect("connected at last");
    let mut got = [0; 5];
    server.read_exact(&mut got).await.expect("what was sent early");
    server.write_all(b"late").await.expect("sent");
    drop(server);
    assert_eq!((&got, client.rest().await), (b"early", b"late".to_vec()));
    rig.stop().await;
}

#[tokio::test]
async fn what_is_held_too_long_or_too_many_is_turned_away() {
    let limits = Limits { hold: Duration::from_millis(300), held_per_port: 1, ..Limits::default() };
    let (_dir, rig) = Rig::limited(limits).await;
    let (port, waiting) = one_waits(&rig).await;
    let (status, body) = get(port).await;
    assert!(status == 503 && body.contains("E_HELD_TOO_MANY"), "{status} {body}");
    let (status, body) = waiting.await.expect("no panic");
    assert!(status == 503 && body.contains("E_HELD_TOO_LONG"), "{status} {body}");
    let stats = rig.client.stats().await.expect("an answer");
    assert_eq!((stats.ports[&port].held, stats.ports[&port].held_too_long, stats.ports[&port].held_now), (1, 2, 0));
    rig.stop().await;
}

#[tokio::test]
async fn who_wants_something_of_a_held_route_is_told_once_and_also_after_giving_up() {
    let (_dir, rig) = Rig::fresh().await;
    let app = App::start("app").await;
    let port = rig.port().await;
    rig.lead(port, Mode::Tcp, 1, app.address).await;
    let mut open = Raw::open(port).await;
    until("an open connection", async || rig.client.table().await.expect("an answer").entries[0].peers.len() == 1)
        .await;
    let mut asleep = route(port, Mode::Tcp, 2, app.address);
    asleep.release = "r1".to_owned();
    asleep.held = true;
    rig.client.set_route(asleep.clone()).await.expect("a good route");
    let nobody = rig.client.wakes(0, Duration::ZERO).await.expect("an answer");
    assert!(nobody.keys.is_empty());

    // By a connection that does not wait for the answer.
    let asked = tokio::spawn({
        let client = rig.client.clone();
        async move { client.wakes(nobody.number, Duration::from_secs(20)).await.expect("an answer") }
    });
    drop(Raw::open(port).await);
    let asked = asked.await.expect("no panic");
    assert_eq!(asked.keys, [KEY]);
    assert!(rig.client.wakes(asked.number, Duration::ZERO).await.expect("an answer").keys.is_empty());
    assert_eq!(rig.client.wakes(0, Duration::ZERO).await.expect("an answer").keys, [KEY], "for another agent");

    // By a byte on a connection from before.
    open.send("GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    let asked = rig.client.wakes(asked.number, Duration::from_secs(20)).await.expect("an answer");
    assert_eq!(asked.keys, [KEY]);

    rig.lead(port, Mode::Tcp, 3, app.address).await;
    assert!(rig.client.wakes(0, Duration::ZERO).await.expect("an answer").keys.is_empty(), "it was let go");
    rig.stop().await;
}

#[tokio::test]
async fn what_waits_for_something_that_will_not_come_is_sent_away() {
    let (_dir, rig) = Rig::fresh().await;
    let (port, waiting) = one_waits(&rig).await;
    rig.client.refuse_held(port, "somebody else's").await.expect("fine");
    assert!(held_now(&rig, 1).await);
    rig.client.refuse_held(port, KEY).await.expect("done");
    let (status, body) = waiting.await.expect("no panic");
    assert!(status == 503 && body.contains("E_WAKE_FAILED"), "{status} {body}");
    rig.stop().await;
}
