use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::rig::{App, LONG, LOOPBACK, Raw, Rig, get, until};
use crate::relay::protocol::Mode;

const ASK: &str = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
const CLOSE: [u8; 4] = [0x88, 2, 3, 0xe9];

/// An app that changes the protocol and hands the connection over.
async fn upgrading(protocol: &'static str) -> (SocketAddr, mpsc::UnboundedReceiver<TcpStream>) {
    let listener = TcpListener::bind((LOOPBACK, 0)).await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let (give, take) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.expect("a head"));
            }
            let text = String::from_utf8(head).expect("text").to_lowercase();
            assert!(text.contains("connection: upgrade\r\n") && text.contains("sec-websocket-key"), "{text}");
            let answer = format!(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\nX-Ws: 1\r\n\r\n"
            );
            stream.write_all(answer.as_bytes()).await.expect("written");
            let _ = give.send(stream);
        }
    });
    (address, take)
}

async fn connect(rig: &Rig, port: u16, app: &mut mpsc::UnboundedReceiver<TcpStream>) -> (Raw, TcpStream) {
    let mut client = Raw::open(port).await;
    client.send(ASK).await;
    let (status, head) = client.head().await;
    let head = head.to_lowercase();
    assert_eq!(status, 101, "{head}");
    assert!(head.contains("upgrade: websocket") && head.contains("connection: upgrade") && head.contains("x-ws: 1"));
    let server = app.recv().await.expect("upgraded");
    until("an open upgrade", || async {
        let stats = rig.client.stats().await.expect("an answer");
        stats.ports[&port].releases["r1"].upgrades_open == 1
    })
    .await;
    (client, server)
}

#[tokio::test]
async fn a_websocket_stays_on_its_release_and_gets_a_close_frame_at_the_deadline() {
    let (_dir, rig) = Rig::fresh().await;
    let (address, mut app) = upgrading("websocket").await;
    let new = App::start("new").await;
    let port = rig.port().await;
    rig.lead(port, Mode::Http, 1, address).await;
    let (mut client, mut server) = connect(&rig, port, &mut app).await;
    rig.lead(port, Mode::Http, 2, new.address).await;
    assert_eq!(get(port).await.1, "new 0");
    let mut got = [0; 4];
    server.write_all(&[0x81, 2, b'h', b'i']).await.expect("sent");
    client.0.read_exact(&mut got).await.expect("passed on");
    assert_eq!(got, [0x81, 2, b'h', b'i']);
    client.send([0x81, 0x80, 1, 2, 3, 4]).await;
    let mut got = [0; 6];
    server.read_exact(&mut got).await.expect("passed on");
    assert_eq!(got, [0x81, 0x80, 1, 2, 3, 4]);

    let rig_client = rig.client.clone();
    let drain = tokio::spawn(async move { rig_client.drain(port, "r1", Duration::from_millis(30)).await });
    assert_eq!(client.rest().await, CLOSE);
    drop(client);
    let mut last = Vec::new();
    server.read_to_end(&mut last).await.expect("a clean end");
    assert_eq!(last, [0x88, 0x82, 0, 0, 0, 0, 3, 0xe9]);
    drop(server);
    let drained = drain.await.expect("no panic").expect("an answer");
    assert_eq!((drained.open, drained.closed), (1, 1));
    let stats = rig.client.stats().await.expect("an answer");
    let release = &stats.ports[&port].releases["r1"];
    assert_eq!((release.upgrades, release.upgrades_open, release.in_flight, release.responses_1xx), (1, 0, 0, 1));
    rig.stop().await;
}

#[tokio::test]
async fn a_frame_that_is_passing_ends_before_the_close_frame() {
    let (_dir, rig) = Rig::fresh().await;
    let (address, mut app) = upgrading("websocket").await;
    let new = App::start("new").await;
    let port = rig.port().await;
    rig.lead(port, Mode::Http, 1, address).await;
    let (mut client, mut server) = connect(&rig, port, &mut app).await;
    server.write_all(&[0x82, 5, b'a', b'b']).await.expect("sent");
    let mut got = [0; 4];
    client.0.read_exact(&mut got).await.expect("passed on");
    rig.lead(port, Mode::Http, 2, new.address).await;
    let rig_client = rig.client.clone();
    let drain = tokio::spawn(async move { rig_client.drain(port, "r1", Duration::ZERO).await });
    // The app is told at once, in the direction where nothing is passing.
    let mut told = [0; 8];
    server.read_exact(&mut told).await.expect("a close frame");
    server.write_all(b"cde\x81\x01x").await.expect("sent");
    assert_eq!(client.rest().await, [b"cde".as_slice(), &CLOSE].concat());
    drop((client, server));
    assert_eq!(drain.await.expect("no panic").expect("an answer").closed, 1);
    rig.stop().await;
}

#[tokio::test]
async fn a_drain_ends_as_soon_as_the_websocket_does() {
    let (_dir, rig) = Rig::fresh().await;
    let (address, mut app) = upgrading("websocket").await;
    let new = App::start("new").await;
    let port = rig.port().await;
    rig.lead(port, Mode::Http, 1, address).await;
    let (client, server) = connect(&rig, port, &mut app).await;
    rig.lead(port, Mode::Http, 2, new.address).await;
    let rig_client = rig.client.clone();
    let drain = tokio::spawn(async move { rig_client.drain(port, "r1", LONG).await });
    drop((client, server));
    assert_eq!(drain.await.expect("no panic").expect("an answer").closed, 0);
    rig.stop().await;
}

#[tokio::test]
async fn a_refused_upgrade_is_an_ordinary_answer_and_h2c_is_not_asked_for() {
    let (_dir, rig) = Rig::fresh().await;
    let mut app = App::start("app").await;
    let port = rig.port().await;
    rig.lead(port, Mode::Http, 1, app.address).await;
    let mut client = Raw::open(port).await;
    client.send(ASK).await;
    assert_eq!(client.answer().await.0, 200);
    assert!(app.heads.recv().await.expect("seen").headers().contains_key("upgrade"));
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n\r\n").await;
    assert_eq!(client.answer().await.0, 200);
    let head = app.heads.recv().await.expect("seen");
    assert!(!head.headers().contains_key("upgrade") && !head.headers().contains_key("http2-settings"));
    rig.stop().await;
}
