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

/// Sends back what it gets, until its client has said all.
async fn echo() -> std::net::SocketAddr {
    let listener = TcpListener::bind((LOOPBACK, 0)).await.expect("a port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    });
    address
}

#[tokio::test]
async fn much_passes_unchanged_in_both_directions_with_pauses_and_a_slow_reader() {
    let (_dir, rig) = Rig::fresh().await;
    let port = rig.port().await;
    rig.lead(port, Mode::Tcp, 1, echo().await).await;
    // No two pieces are equal, so nothing can be lost, doubled or moved unseen.
    let sent: Vec<u8> = (0..2_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let client = Raw::open(port).await.0;
    let (mut from, mut to) = client.into_split();
    let expected = sent.clone();
    let (question, mut asked) = tokio::sync::mpsc::channel::<usize>(1);
    let writer = tokio::spawn(async move {
        // One part at once, a few small ones, each after the answer to the one before, and the rest.
        let mut at = 0;
        while let Some(count) = asked.recv().await {
            to.write_all(&sent[at..at + count]).await.expect("sent");
            at += count;
        }
        to.shutdown().await.expect("half closed");
        at
    });
    let mut got = Vec::new();
    for count in [3_000_000, 5, 700, 5, 4_000_000] {
        question.send(count).await.expect("the writer runs");
        let end = got.len() + count;
        // Slowly at first: what is on its way has to wait in every buffer.
        for _ in 0..200 {
            got.push(from.read_u8().await.expect("a byte"));
            if got.len() == end {
                break;
            }
        }
        let begun = got.len();
        got.resize(end, 0);
        from.read_exact(&mut got[begun..]).await.expect("the rest");
    }
    drop(question);
    assert_eq!(writer.await.expect("written"), got.len());
    assert_eq!(from.read(&mut [0]).await.expect("an end"), 0);
    assert!(got == expected[..got.len()], "the bytes differ");
    let stats = rig.client.stats().await.expect("an answer").ports[&port].clone();
    let release = &stats.releases["r1"];
    let count = u64::try_from(got.len()).expect("a count");
    assert_eq!((release.bytes_in, release.bytes_out), (count, count));
    rig.stop().await;
}
