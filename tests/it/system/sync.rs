//! `muster env up --sync` and `muster env sync`: from a machine without an agent.

use std::os::unix::fs::{PermissionsExt as _, symlink};

use tests::harness::call::Call;
use tests::harness::condition::{SOON, eventually};
use tests::harness::real;

use super::stand::Stand;

const STACK: &str = "
name: shop
services:
  web:
    image: python:3.11-slim
    command: [python, -m, http.server, \"8000\", --directory, /srv]
    stop_grace_period: 0s
    volumes: [\"./src:/srv\", \"./one.conf:/etc/one.conf:ro\"]
    ports: [\"8000:8000\"]
";
const MANY: usize = 1000;

/// A call from the folder, on a machine without an agent.
fn laptop(stand: &Stand, words: &[&str]) -> Call {
    stand.cluster.muster(words).by("asha").within(&stand.folder).env("MUSTER_AGENT_SOCKET", "/nowhere")
}

fn inside(stand: &Stand, command: &[&str]) -> String {
    let done = stand.exec("shop", "web", command);
    if done.code == 0 { done.stdout.trim().to_owned() } else { done.all() }
}

#[test]
fn an_uploaded_folder_is_mounted_and_kept_in_step() {
    let Some(_turn) = real::turn() else { return };
    let stand = Stand::open(STACK);
    let src = stand.folder.join("src");
    std::fs::create_dir_all(src.join("many")).expect("a folder");
    for number in 0..MANY {
        std::fs::write(src.join(format!("many/{number}")), number.to_string()).expect("written");
    }
    for (name, text) in [
        ("one.conf", "1"),
        (".gitignore", "*.log\n"),
        ("src/index.html", "one"),
        ("src/run.sh", "#"),
        ("src/x.log", ""),
    ] {
        stand.file(name, text);
    }
    std::fs::set_permissions(src.join("run.sh"), std::fs::Permissions::from_mode(0o750)).expect("a mode");
    std::os::unix::fs::chown(src.join("run.sh"), Some(4711), Some(4712)).expect("given away");
    symlink("index.html", src.join("in")).expect("a link");
    symlink("/etc/passwd", src.join("out")).expect("a link");

    laptop(&stand, &["env", "up"]).run().with_code(2).says("E_NO_LOCAL_AGENT").says("env up --sync");
    laptop(&stand, &["env", "up", "--sync", "--name", "shop"]).ok().says("src/out is left out");
    assert_eq!(inside(&stand, &["cat", "/srv/index.html", "/srv/in", "/etc/one.conf"]), "oneone1");
    assert_eq!(inside(&stand, &["stat", "-c", "%a %u %g", "/srv/run.sh"]), "750 4711 4712");
    let listed = inside(&stand, &["ls", "/srv"]);
    assert_eq!(listed.split_whitespace().collect::<Vec<_>>(), ["in", "index.html", "many", "run.sh"]);
    assert_eq!(inside(&stand, &["sh", "-c", "ls /srv/many | wc -l"]), MANY.to_string());

    // Only what differs is sent; what the container made stays.
    inside(&stand, &["touch", "/srv/made"]);
    laptop(&stand, &["env", "sync", "shop", "--once"]).ok().says("0 files");
    std::fs::write(src.join("index.html"), "two").expect("written");
    std::fs::remove_file(src.join("many/7")).expect("removed");
    laptop(&stand, &["env", "sync", "shop", "--once"]).ok().says("1 file ").says("1 removed");
    assert_eq!(inside(&stand, &["cat", "/srv/index.html"]), "two");
    assert_eq!(inside(&stand, &["sh", "-c", "ls /srv/many | wc -l; ls /srv/made"]), format!("{}\n/srv/made", MANY - 1));

    let mut watching = laptop(&stand, &["env", "sync", "shop"]).begin();
    watching.printed("watching");
    laptop(&stand, &["env", "sync", "shop", "--once"]).run().with_code(4).says("E_SYNC_BUSY");
    stand.file("one.conf", "2");
    stand.file("src/index.html", "three");
    std::fs::create_dir(src.join("new")).expect("a folder");
    stand.file("src/new/file", "new");
    std::fs::rename(src.join("many"), src.join("other")).expect("renamed");
    eventually(SOON, "everything is in step", || {
        let now = inside(
            &stand,
            &["sh", "-c", "cat /etc/one.conf /srv/index.html /srv/new/file; ls /srv /srv/other | wc -l"],
        );
        if now.starts_with("2threenew") && !now.contains("No such") && now.contains(&(MANY + 8).to_string()) {
            Ok(())
        } else {
            Err(now)
        }
    });
    watching.kill();

    // The folder outlives the container, and goes with the environment.
    let uploaded = stand.host.folder().join("state/pool/environments");
    stand.muster(&["env", "restart", "-e", "shop"]).ok();
    assert_eq!(inside(&stand, &["cat", "/srv/index.html"]), "three");
    stand.muster(&["env", "down", "shop"]).ok();
    assert_eq!(std::fs::read_dir(uploaded).map(|entries| entries.count()).unwrap_or(0), 0);
}
