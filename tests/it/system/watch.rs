//! `muster env up --watch`.

use tests::harness::condition::{SOON, eventually};
use tests::harness::real;

use super::stand::Stand;

const STACK: &str = "
name: shop
services:
  built:
    build: .
    command: [sleep, \"1000\"]
    stop_grace_period: 0s
  started:
    image: python:3.11-slim
    command: [sh, -c, \"cat /srv/word > /tmp/seen; sleep 1000\"]
    stop_grace_period: 0s
    volumes: [\"./conf:/srv:ro\"]
    develop: { watch: [{ action: sync+restart, path: ./conf, target: /srv, ignore: [\"*.md\"] }] }
";

#[test]
fn services_are_built_and_started_again_when_their_sources_change() {
    let Some(_turn) = real::turn() else { return };
    let stand = Stand::open(STACK);
    std::fs::create_dir(stand.folder.join("conf")).expect("a folder");
    for (name, text) in [
        ("Dockerfile", "FROM python:3.11-slim\nCOPY version /version\nENTRYPOINT []\n"),
        ("version", "1"),
        ("conf/word", "one"),
        (".dockerignore", "conf\n"),
    ] {
        stand.file(name, text);
    }
    let inside = |service: &str, file: &str| {
        let done = stand.exec("shop", service, &["cat", file]);
        if done.code == 0 { done.stdout.trim().to_owned() } else { done.all() }
    };
    let mut watching = stand.muster(&["env", "up", "--watch", "--name", "shop"]).begin();
    watching.printed("watching for changes");
    assert_eq!((inside("built", "/version"), inside("started", "/tmp/seen")), ("1".to_owned(), "one".to_owned()));

    stand.file("conf/read.md", "does not matter");
    stand.file("conf/word", "two");
    watching.printed("started is restarted: conf/");
    watching.printed("started ready in");
    eventually(SOON, "it was started again", || {
        let now = inside("started", "/tmp/seen");
        if now == "two" { Ok(()) } else { Err(now) }
    });
    // A mistake is told, and mended by the next change.
    stand.file("Dockerfile", "FROM python:3.11-slim\nCOPY missing /version\n");
    watching.printed("E_BUILD");
    stand.file("version", "2");
    stand.file("Dockerfile", "FROM python:3.11-slim\nCOPY version /version\nENTRYPOINT []\n");
    eventually(SOON, "it was built again", || {
        let now = inside("built", "/version");
        if now == "2" { Ok(()) } else { Err(format!("{now}\n{}", watching.so_far())) }
    });
    watching.kill();
    assert_eq!(stand.show("shop")["state"], "ENVIRONMENT_STATE_READY");
}
