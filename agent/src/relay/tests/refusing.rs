use super::rig::{App, Raw, Rig};
use crate::relay::protocol::Mode;

#[tokio::test]
async fn requests_that_can_be_read_in_two_ways_are_refused_and_the_connection_ends() {
    let (_dir, rig) = Rig::fresh().await;
    let app = App::start("app").await;
    let port = rig.port().await;
    rig.lead(port, Mode::Http, 1, app.address).await;
    let smuggled = "0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    let cases = [
        "Host: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked",
        "Host: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5",
        "Host: a\r\nContent-Length: 5\r\nContent-Length: 6",
        "Host: a\r\nContent-Length: 5, 6",
        "Host: a\r\nContent-Length: +5",
        "Host: a\r\nContent-Length: 99999999999999999999",
        "Host: a\r\nTransfer-Encoding: identity",
        "Host: a\r\nTransfer-Encoding: gzip, chunked",
        "Host: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Host: a\r\nTransfer-Encoding : chunked",
        "Host: a\r\nX: 1\r\n Content-Length: 5",
        "Host: a\r\nHost: b",
        "X-No-Host: 1",
        "Host: a\r\nContent-Length: 5\r\nX: \0",
    ];
    for case in cases {
        let mut client = Raw::open(port).await;
        client.send(format!("POST / HTTP/1.1\r\n{case}\r\n\r\n{smuggled}")).await;
        let (status, head) = client.head().await;
        assert_eq!(status, 400, "{case}: {head}");
        let rest = client.0;
        drop(rest);
    }
    let count = u64::try_from(cases.len()).expect("few");
    let stats = rig.client.stats().await.expect("an answer");
    assert_eq!((app.count(), stats.ports[&port].bad_requests), (0, count));
    rig.stop().await;
}

#[tokio::test]
async fn a_bad_request_behind_good_ones_does_not_harm_them() {
    let (_dir, rig) = Rig::fresh().await;
    let app = App::start("app").await;
    let port = rig.port().await;
    rig.lead(port, Mode::Http, 1, app.address).await;
    let mut client = Raw::open(port).await;
    let good = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc";
    let bad = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n";
    client.send(format!("{good}{good}{bad}{good}")).await;
    assert_eq!(client.answer().await.0, 200);
    assert_eq!(client.answer().await.0, 200);
    assert_eq!(client.answer().await.0, 400);
    assert_eq!(app.count(), 2);
    rig.stop().await;
}

#[tokio::test]
async fn what_is_too_large_or_not_supported_has_its_own_status() {
    let (_dir, rig) = Rig::fresh().await;
    let app = App::start("app").await;
    let port = rig.port().await;
    rig.lead(port, Mode::Http, 1, app.address).await;
    let long = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(100_000));
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: 1\r\n".repeat(200));
    let cases = [
        (long.as_str(), 431),
        (many.as_str(), 431),
        ("CONNECT other:80 HTTP/1.1\r\nHost: other:80\r\n\r\n", 501),
        ("GET / HTTP/3.0\r\nHost: a\r\n\r\n", 400),
        ("\x16\x03\x01\x02\0\x01\0\x01", 400),
    ];
    for (request, expected) in cases {
        let mut client = Raw::open(port).await;
        // The relay may answer before it has taken all of it.
        let _ = tokio::io::AsyncWriteExt::write_all(&mut client.0, request.as_bytes()).await;
        assert_eq!(client.head().await.0, expected, "{request:.30}");
    }
    assert_eq!(app.count(), 0);
    rig.stop().await;
}
