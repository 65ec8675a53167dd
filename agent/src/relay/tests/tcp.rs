use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::rig::{LONG, LOOPBACK, Raw, Rig, until};
use crate::relay::Limits;
use crate::relay::protocol::Mode;

/// Reads to the end, then answers with the number of bytes read.
async fn counter() -> std::net::SocketAddr {
    let listener = TcpListener::bind((LOOPBACK, 0)).await.expect("a port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut buffer = vec![0; 1 << 16];
                let mut total = 0;
                while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                    total += count;
                }
                let _ = stream.write_all(total.to_string().as_bytes()).await;
            });
        }
    });
    address
}

#[tokio::test]
async fn a_direction_closed_by_the_client_leaves_the_other_open() {
    let (_dir, rig) = Rig::fresh().await;
    let port = rig.port().await;
    rig.lead(port, Mode::Tcp, 1, counter().await).await;
    let mut client = Raw::open(port).await;
    let size = 5_000_000;
    client.send(vec![b'x'; size]).await;
    client.0.shutdown().await.expect("half closed");
    assert_eq!(client.rest().await, size.to_string().into_bytes());
    until("the connection's end", || async { rig.client.stats().await.expect("an answer").ports[&port].open == 0 })
        .await;
    let stats = rig.client.stats().await.expect("an answer").ports[&port].clone();
    let release = &stats.releases["r1"];
    assert_eq!((release.connections, release.connections_open), (1, 0));
    assert_eq!((release.bytes_in, release.bytes_out), (5_000_000, 7));
    assert!(stats.last_activity_ms > 0);
    rig.stop().await;
}

#[tokio::test]
async fn an_open_connection_stays_on_the_old_release_until_its_drain_ends() {
    let (_dir, rig) = Rig::fresh().await;
    let (old, new) = (counter().await, counter().await);
    let port = rig.port().await;
    rig.lead(port, Mode::Tcp, 1, old).await;
    let mut first = Raw::open(port).await;
    first.send("abc").await;
    until("the connection", || async {
        rig.client.stats().await.expect("an answer").ports[&port].releases["r1"].bytes_in == 3
    })
    .await;
    rig.lead(port, Mode::Tcp, 2, new).await;
    let mut second = Raw::open(port).await;
    second.send("de").await;
    let drained = rig.client.drain(port, "r1", Duration::from_millis(20)).await.expect("an answer");
    assert_eq!((drained.open, drained.closed), (1, 1));
    assert_eq!(first.rest().await, b"");
    second.0.shutdown().await.expect("half closed");
    assert_eq!(second.rest().await, b"2");
    let again = rig.client.drain(port, "r1", LONG).await.expect("an answer");
    assert_eq!((again.open, again.closed), (0, 0));
    rig.stop().await;
}

#[tokio::test]
async fn an_endpoint_that_is_not_there_closes_the_connection() {
    let (_dir, rig) = Rig::fresh().await;
    let port = rig.port().await;
    let nobody = {
        let listener = TcpListener::bind((LOOPBACK, 0)).await.expect("a port");
        listener.local_addr().expect("bound")
    };
    rig.lead(port, Mode::Tcp, 1, nobody).await;
    assert_eq!(Raw::open(port).await.rest().await, b"");
    let stats = rig.client.stats().await.expect("an answer");
    assert_eq!(stats.ports[&port].releases["r1"].upstream_errors, 1);
    rig.stop().await;
}

#[tokio::test]
async fn connections_beyond_the_limit_are_closed_at_once() {
    let limits = Limits { connections_per_port: 1, ..Limits::default() };
    let (_dir, rig) = Rig::limited(limits).await;
    let port = rig.port().await;
    rig.lead(port, Mode::Tcp, 1, counter().await).await;
    let mut first = Raw::open(port).await;
    first.send("abc").await;
    assert_eq!(Raw::open(port).await.rest().await, b"");
    first.0.shutdown().await.expect("half closed");
    assert_eq!(first.rest().await, b"3");
    let stats = rig.client.stats().await.expect("an answer");
    assert_eq!((stats.ports[&port].accepted, stats.ports[&port].refused), (1, 1));
    rig.stop().await;
}
