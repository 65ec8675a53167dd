use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::rig::{App, LONG, LOOPBACK, Raw, Rig, get};
use crate::relay::protocol::Mode;

async fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    String::from_utf8(head).ok()
}

/// An endpoint whose connections are handled by `each`, told the connection's number from 0.
async fn endpoint<F>(each: impl Fn(TcpStream, u64) -> F + Send + 'static) -> (std::net::SocketAddr, Arc<AtomicU64>)
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind((LOOPBACK, 0)).await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let connections = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(each(stream, counter.fetch_add(1, SeqCst)));
        }
    });
    (address, connections)
}

#[tokio::test]
async fn an_endpoint_that_is_not_there_is_a_502_with_its_reason() {
    let (_dir, rig) = Rig::fresh().await;
    let app = App::start("app").await;
    let port = rig.port().await;
    rig.lead(port, Mode::Http, 1, app.address).await;
    app.end().await;
    let (status, body) = get(port).await;
    assert!(status == 502 && body.contains("E_UPSTREAM_UNREACHABLE"), "{status} {body}");
    let stats = rig.client.stats().await.expect("an answer");
    let release = &stats.ports[&port].releases["r1"];
    assert_eq!((release.requests, release.responses_5xx, release.upstream_errors), (1, 1, 1));
    rig.stop().await;
}

#[tokio::test]
async fn kept_connections_are_reused_and_one_closed_while_idle_fails_no_request() {
    let (_dir, rig) = Rig::fresh().await;
    // Closes after each second answer, without a word.
    let (address, connections) = endpoint(|mut stream, _| async move {
        for _ in 0..2 {
            if read_head(&mut stream).await.is_none() {
                return;
            }
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        }
    })
    .await;
    let port = rig.port().await;
    rig.lead(port, Mode::Http, 1, address).await;
    let mut client = Raw::open(port).await;
    for number in 0..20 {
        assert_eq!(client.get().await, (200, "ok".to_owned()), "request {number}");
    }
    assert!((10..20).contains(&connections.load(SeqCst)), "{connections:?}");
    rig.stop().await;
}

#[tokio::test]
async fn a_request_that_may_have_been_processed_is_never_repeated() {
    let (_dir, rig) = Rig::fresh().await;
    let heads = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&heads);
    // Answers the first request of a connection, and ends after the head of the second.
    let (address, _) = endpoint(move |mut stream, _| {
        let seen = Arc::clone(&seen);
        async move {
            for number in 0..2 {
                if read_head(&mut stream).await.is_none() {
                    return;
                }
                seen.fetch_add(1, SeqCst);
                if number == 0 {
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
                }
            }
        }
    })
    .await;
    let port = rig.port().await;
    rig.lead(port, Mode::Http, 1, address).await;
    let mut client = Raw::open(port).await;
    assert_eq!(client.get().await.0, 200);
    client.send("POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 0\r\n\r\n").await;
    let (status, _, body) = client.answer().await;
    assert!(status == 502 && String::from_utf8_lossy(&body).contains("E_UPSTREAM_FAILED"));
    assert_eq!(heads.load(SeqCst), 2, "the POST arrived once");
    assert_eq!(client.get().await.0, 200);
    assert_eq!(client.get().await.0, 200, "a GET on a dead kept connection is sent again");
    assert_eq!(heads.load(SeqCst), 5);
    rig.stop().await;
}

#[tokio::test]
async fn the_app_sees_the_request_as_it_was_but_for_the_hop() {
    let (_dir, rig) = Rig::fresh().await;
    let (heads, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let (address, _) = endpoint(move |mut stream, _| {
        let heads = heads.clone();
        async move {
            while let Some(head) = read_head(&mut stream).await {
                let _ = heads.send(head);
                let answer = "HTTP/1.1 201 Created\r\nX-Odd-Case: 1\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nContent-Length: 0\r\n\r\n";
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        }
    })
    .await;
    let port = rig.port().await;
    rig.lead(port, Mode::Http, 1, address).await;
    let mut client = Raw::open(port).await;
    client.send("GET /a%20b?c=d HTTP/1.1\r\nHost: My.App:99\r\nX-OddCase: v\r\nConnection: keep-alive, x-secret\r\nX-Secret: 1\r\nX-Forwarded-For: 9.9.9.9\r\n\r\n").await;
    let (status, head, _) = client.answer().await;
    assert_eq!(status, 201);
    assert!(
        head.contains("X-Odd-Case: 1") && !head.contains("X-Hop") && !head.to_lowercase().contains("date:"),
        "{head}"
    );
    let request = seen.recv().await.expect("a head");
    assert!(request.starts_with("GET /a%20b?c=d HTTP/1.1\r\n"), "{request}");
    assert!(request.contains("\r\nHost: My.App:99\r\n") && request.contains("\r\nX-OddCase: v\r\n"), "{request}");
    assert!(request.contains("9.9.9.9, 127.0.0.1") && !request.contains("Secret"), "{request}");

    client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.answer().await.0, 201);
    assert!(seen.recv().await.expect("a head").starts_with("HEAD / "));
    let mut old = Raw::open(port).await;
    old.send("GET http://other.test/x HTTP/1.0\r\n\r\n").await;
    assert!(old.rest().await.starts_with(b"HTTP/1.0 201"));
    let request = seen.recv().await.expect("a head");
    assert!(request.starts_with("GET /x HTTP/1.1\r\n") && request.contains("other.test"), "{request}");
    rig.stop().await;
}

#[tokio::test]
async fn a_client_that_expects_100_gets_it_and_chunks_and_trailers_pass() {
    let (_dir, rig) = Rig::fresh().await;
    let (address, _) = endpoint(|mut stream, _| async move {
        let head = read_head(&mut stream).await.unwrap_or_default().to_lowercase();
        let mut body = Vec::new();
        while !body.ends_with(b"\r\n\r\n") {
            body.push(stream.read_u8().await.expect("a chunked body"));
        }
        let same = head.contains("transfer-encoding: chunked") && body == b"5\r\nhello\r\n0\r\nX-Sum: 7\r\n\r\n".to_ascii_lowercase();
        let lower = body.to_ascii_lowercase();
        let fits = same || (head.contains("chunked") && lower == b"5\r\nhello\r\n0\r\nx-sum: 7\r\n\r\n");
        let text = if fits { "fits" } else { "odd" };
        let answer = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-end\r\n\r\n4\r\n{text:4}\r\n0\r\nx-end: 9\r\n\r\n");
        let _ = stream.write_all(answer.as_bytes()).await;
    })
    .await;
    let port = rig.port().await;
    rig.lead(port, Mode::Http, 1, address).await;
    let mut client = Raw::open(port).await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nTE: trailers\r\nConnection: TE\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    assert_eq!(client.head().await.0, 100);
    client.send("5\r\nhello\r\n0\r\nX-Sum: 7\r\n\r\n").await;
    let (status, head) = client.head().await;
    assert!(status == 200 && head.to_lowercase().contains("transfer-encoding: chunked"), "{head}");
    let mut body = Vec::new();
    while !body.ends_with(b"\r\n\r\n") {
        body.push(client.0.read_u8().await.expect("a chunked answer"));
    }
    let text = String::from_utf8_lossy(&body).to_lowercase();
    assert!(text.contains("fits") && text.contains("x-end: 9"), "{text}");
    rig.stop().await;
}

#[tokio::test]
async fn fifty_megabytes_pass_in_both_directions() {
    let (_dir, rig) = Rig::fresh().await;
    let app = App::start("app").await;
    let port = rig.port().await;
    rig.lead(port, Mode::Http, 1, app.address).await;
    let size = 50_000_000;
    let mut client = Raw::open(port).await;
    client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n")).await;
    client.send(vec![b'x'; size]).await;
    assert_eq!(client.answer().await.2, format!("app {size}").into_bytes());
    client.send(format!("GET /big/{size} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
    assert_eq!(client.answer().await.2.len(), size);
    let stats = rig.client.stats().await.expect("an answer");
    let release = &stats.ports[&port].releases["r1"];
    assert!(release.bytes_in == 50_000_000 && release.bytes_out > 50_000_000);
    rig.stop().await;
}

#[tokio::test]
async fn a_body_nobody_reads_is_not_piled_up() {
    let (_dir, rig) = Rig::fresh().await;
    let (address, _) = endpoint(|mut stream, _| async move {
        let _ = read_head(&mut stream).await;
        std::future::pending::<()>().await;
    })
    .await;
    let port = rig.port().await;
    rig.lead(port, Mode::Http, 1, address).await;
    let mut client = Raw::open(port).await;
    let size = 200_000_000_usize;
    client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n")).await;
    let chunk = vec![b'x'; 1 << 20];
    let mut sent = 0;
    // What the kernel's buffers of three sockets take, and no more.
    while tokio::time::timeout(Duration::from_millis(500), client.0.write_all(&chunk)).await.is_ok() {
        sent += chunk.len();
        assert!(sent < 64 << 20, "{sent} bytes were taken");
    }
    rig.stop().await;
}

#[tokio::test]
async fn a_client_that_leaves_ends_its_request_at_the_app() {
    let (_dir, rig) = Rig::fresh().await;
    let (ended, mut end) = tokio::sync::mpsc::unbounded_channel();
    let (address, _) = endpoint(move |mut stream, _| {
        let ended = ended.clone();
        async move {
            let _ = read_head(&mut stream).await;
            let _ = ended.send(false);
            let _ = ended.send(matches!(stream.read(&mut [0; 16]).await, Ok(0) | Err(_)));
        }
    })
    .await;
    let port = rig.port().await;
    rig.lead(port, Mode::Http, 1, address).await;
    let mut client = Raw::open(port).await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(end.recv().await, Some(false));
    drop(client);
    let gone = tokio::time::timeout(LONG, end.recv()).await;
    assert_eq!(gone.expect("the relay closes"), Some(true));
    rig.stop().await;
}
