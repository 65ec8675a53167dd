use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use domain::health::{HealthCheck, Probe};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::*;

const HOME: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const LIMIT: Duration = Duration::from_secs(10);

/// Answers every connection with `reply`, after `wait` bytes were read.
async fn server(wait: usize, reply: &'static [u8]) -> u16 {
    let listener = TcpListener::bind((HOME, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut question = vec![0; wait];
            if stream.read_exact(&mut question).await.is_ok() {
                stream.write_all(reply).await.ok();
                // Read the rest, so that closing does not reset the connection.
                tokio::spawn(async move {
                    stream.shutdown().await.ok();
                    stream.read_to_end(&mut question).await.ok()
                });
            }
        }
    });
    port
}

async fn closed_port() -> u16 {
    TcpListener::bind((HOME, 0)).await.unwrap().local_addr().unwrap().port()
}

#[tokio::test]
async fn http_is_healthy_on_2xx_and_3xx_only() {
    let cases: [(&'static [u8], bool, u16, &str); 4] = [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", true, 200, "ok"),
        (b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n", true, 302, ""),
        (b"HTTP/1.1 500 Oh\r\ncontent-length: 10\r\n\r\nno\x1b[31mtab", false, 500, "no [31mtab"),
        (b"HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n", false, 404, ""),
    ];
    for (reply, healthy, status, text) in cases {
        let port = server(16, reply).await;
        let answer = once(&Ask::Http { path: "/health".into(), port }, HOME, LIMIT).await;
        assert_eq!((answer.healthy, answer.status, answer.text.as_str()), (healthy, Some(status), text));
        assert_eq!(answer.kind, Kind::Answered);
    }
}

#[tokio::test]
async fn an_answer_is_cut_and_a_body_cut_short_is_not_healthy() {
    let long: &'static [u8] = Box::leak(
        [b"HTTP/1.1 200 OK\r\ncontent-length: 200000\r\n\r\n".as_slice(), &[b'x'; 100_000]].concat().into_boxed_slice(),
    );
    let port = server(16, long).await;
    let answer = once(&Ask::Http { path: "/".into(), port }, HOME, LIMIT).await;
    assert_eq!((answer.healthy, answer.text.len()), (true, 200), "64 KiB are enough to know");
    let port = server(16, b"HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\nx").await;
    let answer = once(&Ask::Http { path: "/".into(), port }, HOME, LIMIT).await;
    assert_eq!((answer.healthy, answer.kind), (false, Kind::Broken));
}

#[tokio::test]
async fn what_is_not_the_protocol_is_broken_and_never_healthy() {
    let garbage = b"\x00\x01\x02 garbage\n";
    for ask in [
        Ask::Http { path: "/".into(), port: 0 },
        Ask::Postgres { port: 0 },
        Ask::Redis { port: 0 },
        Ask::Mysql { port: 0 },
    ] {
        let port = server(0, garbage).await;
        let ask = with_port(ask, port);
        let answer = once(&ask, HOME, LIMIT).await;
        assert_eq!((answer.healthy, answer.kind), (false, Kind::Broken), "{ask:?} {answer:?}");
    }
}

fn with_port(ask: Ask, port: u16) -> Ask {
    match ask {
        Ask::Http { path, .. } => Ask::Http { path, port },
        Ask::Tcp { .. } => Ask::Tcp { port },
        Ask::Postgres { .. } => Ask::Postgres { port },
        Ask::Redis { .. } => Ask::Redis { port },
        Ask::Mysql { .. } => Ask::Mysql { port },
        Ask::Elasticsearch { .. } => Ask::Elasticsearch { port },
    }
}

#[tokio::test]
async fn stores_are_ready_when_they_answer_and_not_while_they_start() {
    let starting = b"E\0\0\0\x2fSFATAL\0C57P03\0Mthe database system is starting\0\0";
    let auth = b"E\0\0\0\x1eSFATAL\0C28P01\0Mno password\0\0";
    let cases: [(Ask, usize, &'static [u8], bool); 11] = [
        (Ask::Postgres { port: 0 }, 8, b"R\0\0\0\x08\0\0\0\x0a", true),
        (Ask::Postgres { port: 0 }, 8, starting, false),
        (Ask::Postgres { port: 0 }, 8, auth, true),
        (Ask::Redis { port: 0 }, 14, b"+PONG\r\n", true),
        (Ask::Redis { port: 0 }, 14, b"-NOAUTH Authentication required.\r\n", true),
        (Ask::Redis { port: 0 }, 14, b"-LOADING Redis is loading the dataset in memory\r\n", false),
        (Ask::Mysql { port: 0 }, 0, b"\x08\0\0\0\x0a8.4.3\0\0", true),
        (Ask::Mysql { port: 0 }, 0, b"\x05\0\0\0\xff\x1d\x04no", false),
        (Ask::Mysql { port: 0 }, 0, b"\x05\0\0\0\xff\x6a\x04no", true),
        (
            Ask::Elasticsearch { port: 0 },
            16,
            b"HTTP/1.1 200 OK\r\ncontent-length: 16\r\n\r\n{\"status\":\"red\"}",
            false,
        ),
        (Ask::Elasticsearch { port: 0 }, 16, b"HTTP/1.1 401 No\r\ncontent-length: 0\r\n\r\n", true),
    ];
    for (ask, wait, reply, healthy) in cases {
        let port = server(wait, reply).await;
        let answer = once(&with_port(ask.clone(), port), HOME, LIMIT).await;
        assert_eq!((answer.healthy, answer.kind), (healthy, Kind::Answered), "{ask:?} {answer:?}");
    }
}

#[tokio::test]
async fn elasticsearch_waits_itself_until_it_is_not_red_and_says_when_it_waited_in_vain() {
    let listener = TcpListener::bind((HOME, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut question = vec![0; 1024];
        let length = stream.read(&mut question).await.unwrap();
        let body = "{\"status\":\"red\",\"timed_out\":true}";
        let reply = format!("HTTP/1.1 408 Late\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        stream.write_all(reply.as_bytes()).await.unwrap();
        String::from_utf8_lossy(&question[..length]).into_owned()
    });
    let answer = once(&Ask::Elasticsearch { port }, HOME, LIMIT).await;
    assert_eq!((answer.healthy, answer.status, answer.kind), (false, Some(408), Kind::Waited));
    assert_eq!(answer.text, "the cluster's status is red");
    let question = asked.await.unwrap();
    assert!(
        question.starts_with("GET /_cluster/health?local=true&wait_for_status=yellow&timeout=2500ms "),
        "{question}"
    );
}

#[tokio::test]
async fn a_closed_port_is_refused_and_silence_times_out() {
    let answer = once(&Ask::Tcp { port: closed_port().await }, HOME, LIMIT).await;
    assert_eq!((answer.healthy, answer.kind, answer.text.as_str()), (false, Kind::Refused, "connection refused"));
    let port = server(1_000, b"").await;
    let answer = once(&Ask::Redis { port }, HOME, Duration::from_millis(5)).await;
    assert_eq!((answer.healthy, answer.kind), (false, Kind::TimedOut));
}

#[test]
fn the_declared_port_wins_over_the_first_and_the_engine_answers_the_rest() {
    let http = Probe::Http { path: "/".into(), port: None };
    assert_eq!(Ask::of(&http, Some(8000)), Some(Ask::Http { path: "/".into(), port: 8000 }));
    assert_eq!(Ask::of(&Probe::Tcp { port: Some(1) }, Some(2)), Some(Ask::Tcp { port: 1 }));
    assert_eq!(Ask::of(&http, None), None);
    assert_eq!(Ask::of(&Probe::Container, Some(1)), None);
}

fn check(port: u16) -> HealthCheck {
    HealthCheck { interval: Duration::from_millis(60), timeout: LIMIT, ..HealthCheck::new(Probe::Redis { port }) }
}

#[tokio::test]
async fn a_watch_sees_the_port_open_and_goes_on_at_the_interval() {
    let port = closed_port().await;
    let mut watch = Prober::default().watch(Ask::Redis { port }, &check(port), HOME);
    let first = watch.next().await.unwrap();
    assert_eq!(first.kind, Kind::Refused);
    let listener = TcpListener::bind(SocketAddr::new(HOME, port)).await.unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut question = [0; 14];
                if stream.read_exact(&mut question).await.is_ok() {
                    stream.write_all(b"+PONG\r\n").await.ok();
                }
            });
        }
    });
    let mut answers = Vec::new();
    while answers.len() < 3 {
        let answer = watch.next().await.unwrap();
        if answer.healthy {
            answers.push(answer.at_micros);
        }
    }
    assert!(answers[1] - answers[0] >= 60_000 && answers[2] - answers[1] >= 60_000, "{answers:?}");
}

#[tokio::test]
async fn dropping_a_watch_ends_the_asking() {
    let listener = TcpListener::bind((HOME, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, ended) = oneshot::channel();
    let watch = Prober::default().watch(Ask::Redis { port }, &check(port), HOME);
    let (bare, _) = listener.accept().await.unwrap();
    drop(bare);
    let (mut asked, _) = listener.accept().await.unwrap();
    tokio::spawn(async move {
        let mut all = Vec::new();
        asked.read_to_end(&mut all).await.ok();
        sender.send(all).ok();
    });
    drop(watch);
    let said = ended.await.unwrap();
    assert!(said.is_empty() || said == b"*1\r\n$4\r\nPING\r\n", "the connection was closed by the prober");
}

#[tokio::test]
async fn the_hosts_rate_spaces_probes() {
    let prober = Prober::new(4, 100);
    let port = server(14, b"+PONG\r\n").await;
    let began = tokio::time::Instant::now();
    for _ in 0..5 {
        prober.once(&Ask::Redis { port }, HOME, LIMIT).await;
    }
    assert!(began.elapsed() >= Duration::from_millis(40), "{:?}", began.elapsed());
}
