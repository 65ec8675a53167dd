use std::os::unix::fs::PermissionsExt;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, UnixStream};

use super::rig::{App, KEY, LOOPBACK, Rig, config, get, route};
use crate::relay::client::ClientError;
use crate::relay::protocol::{Code, MAX_REQUEST_BYTES, Mode, PortRange, RouteSpec};
use crate::relay::{Error, run};

fn code<T: std::fmt::Debug>(result: Result<T, ClientError>) -> Code {
    match result {
        Err(ClientError::Refused(refusal)) => refusal.code,
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn refused_orders_change_nothing() {
    let (_dir, rig) = Rig::fresh().await;
    let app = App::start("app").await;
    let port = rig.port().await;
    rig.lead(port, Mode::Http, 5, app.address).await;
    let before = rig.client.table().await.expect("an answer");
    let good = route(port, Mode::Http, 5, app.address);
    let cases = [
        (RouteSpec { generation: 4, ..good.clone() }, Code::StaleGeneration),
        (RouteSpec { release: "other".to_owned(), ..good.clone() }, Code::GenerationConflict),
        (RouteSpec { key: "other".to_owned(), generation: 9, ..good.clone() }, Code::PortTaken),
        (RouteSpec { endpoint: None, generation: 9, ..good.clone() }, Code::Invalid),
        (RouteSpec { bind: [203, 0, 113, 1].into(), generation: 9, ..good.clone() }, Code::Listen),
    ];
    for (bad, expected) in cases {
        assert_eq!(code(rig.client.set_route(bad).await), expected);
    }
    assert_eq!(code(rig.client.remove_route(port, KEY, 4).await), Code::StaleGeneration);
    assert_eq!(code(rig.client.remove_route(port, "other", 9).await), Code::PortTaken);
    assert_eq!(code(rig.client.drain(1, "r", std::time::Duration::ZERO).await), Code::RouteUnknown);
    assert_eq!(code(rig.client.confirm("another boot", Vec::new()).await), Code::BootId);
    let after = rig.client.table().await.expect("an answer");
    assert_eq!(before.reservations, after.reservations);
    assert_eq!(before.entries[0].route, after.entries[0].route);
    assert_eq!(get(port).await.1, "app 0", "it listens where it did");
    rig.client.set_route(good).await.expect("the same order again is fine");
    rig.client.remove_route(1, KEY, 1).await.expect("removing nothing is fine");
    rig.stop().await;
}

#[tokio::test]
async fn a_port_of_another_process_names_it() {
    let (_dir, rig) = Rig::fresh().await;
    let other = TcpListener::bind((LOOPBACK, 0)).await.expect("a port");
    let port = other.local_addr().expect("bound").port();
    match rig.client.set_route(route(port, Mode::Tcp, 1, ([127, 0, 0, 2], 9).into())).await {
        Err(ClientError::Refused(refusal)) => {
            assert_eq!(refusal.code, Code::PortTaken);
            assert!(refusal.message.contains(&std::process::id().to_string()), "{refusal}");
        }
        other => panic!("{other:?}"),
    }
    assert!(rig.client.table().await.expect("an answer").entries.is_empty());
    rig.stop().await;
}

#[tokio::test]
async fn automatic_ports_are_stable_exclusive_and_given_back() {
    let (_dir, rig) = Rig::fresh().await;
    let (_other_dir, other) = Rig::fresh().await;
    let first = rig.client.allocate_port("env:1:postgres", LOOPBACK, None).await.expect("a port");
    let second = rig.client.allocate_port("env:1:redis", LOOPBACK, None).await.expect("a port");
    let third = other.client.allocate_port("env:1:postgres", LOOPBACK, None).await.expect("a port");
    assert!(first != second && third != first && third != second, "{first} {second} {third}");
    assert!(PortRange::DEFAULT.contains(first));
    assert_eq!(rig.client.allocate_port("env:1:postgres", LOOPBACK, None).await.expect("a port"), first);
    let stolen = other.client.set_route(route(first, Mode::Tcp, 1, ([127, 0, 0, 2], 9).into())).await;
    assert_eq!(code(stolen), Code::PortTaken);

    let one = PortRange { first, last: first };
    assert_eq!(code(rig.client.allocate_port("env:2:web", LOOPBACK, Some(one)).await), Code::NoFreePort);
    rig.client.release_port(first, "env:2:web").await.expect("not its own, nothing happens");
    assert_eq!(code(rig.client.allocate_port("env:2:web", LOOPBACK, Some(one)).await), Code::NoFreePort);
    rig.client.release_port(first, "env:1:postgres").await.expect("given back");
    assert_eq!(rig.client.allocate_port("env:2:web", LOOPBACK, Some(one)).await.expect("free"), first);
    let empty = PortRange { first: 5, last: 4 };
    assert_eq!(code(rig.client.allocate_port("env:3:web", LOOPBACK, Some(empty)).await), Code::Invalid);
    rig.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn a_restarted_relay_serves_its_table_without_anybody() {
    let dir = tempfile::tempdir().expect("a folder");
    let app = App::start("app").await;
    let rig = Rig::start(config(dir.path())).await;
    let port = rig.port().await;
    rig.lead(port, Mode::Http, 1, app.address).await;
    let before = rig.client.table().await.expect("an answer");
    rig.stop().await;
    let rig = Rig::start(config(dir.path())).await;
    assert_eq!(get(port).await.1, "app 0");
    let after = rig.client.table().await.expect("an answer");
    assert_eq!(after.entries[0].route, before.entries[0].route);
    assert_eq!((after.starts, after.table_lost), (before.starts + 1, None));
    assert_eq!(rig.port().await, port);
    rig.stop().await;
}

#[tokio::test]
async fn an_unreadable_table_is_reported_and_the_relay_runs() {
    let dir = tempfile::tempdir().expect("a folder");
    let config = config(dir.path());
    let table = config.state_dir.join("table.json");
    std::fs::create_dir_all(&config.state_dir).expect("a folder");
    std::fs::write(&table, "not a table").expect("written");
    let rig = Rig::start(config).await;
    let view = rig.client.table().await.expect("an answer");
    assert!(view.table_lost.expect("reported").contains("unreadable-1"));
    assert!(view.entries.is_empty());
    rig.stop().await;
}

#[tokio::test]
async fn a_second_relay_on_one_folder_refuses_to_start() {
    let (dir, rig) = Rig::fresh().await;
    let second = run(config(dir.path()), std::future::pending()).await;
    assert!(matches!(second, Err(Error::Running(_))), "{second:?}");
    rig.client.table().await.expect("the first one still answers");
    rig.stop().await;
}

#[tokio::test]
async fn the_control_socket_is_private_and_survives_nonsense() {
    let (dir, rig) = Rig::fresh().await;
    let socket = dir.path().join("relay.sock");
    let mode = std::fs::metadata(&socket).expect("it exists").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut stream = BufReader::new(UnixStream::connect(&socket).await.expect("it listens"));
    for nonsense in ["{}\n", "\n", "{\"do\":\"format_disk\"}\n", "[[[[[[\n", "{\"do\":\"ping\"\n"] {
        stream.write_all(nonsense.as_bytes()).await.expect("it reads");
        let mut line = String::new();
        stream.read_line(&mut line).await.expect("it answers");
        assert!(line.contains("E_INVALID"), "{nonsense:?} gave {line:?}");
    }
    let mut huge = UnixStream::connect(&socket).await.expect("it listens");
    // The relay may close before it has taken all of it.
    let _ = huge.write_all(&vec![b'x'; MAX_REQUEST_BYTES + 2]).await;
    let mut answer = Vec::new();
    let _ = huge.read_to_end(&mut answer).await;
    assert!(answer.is_empty() || String::from_utf8_lossy(&answer).contains("E_INVALID"));
    rig.client.table().await.expect("it still answers");
    rig.stop().await;
}
