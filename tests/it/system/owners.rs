//! Whose files are whose in a developer's own folder.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use tests::harness::condition::{SOON, eventually};
use tests::harness::real;
use tests::harness::{binaries, clean};

use super::stand::Stand;

/// The developer, who is not root.
const ASHA: (u32, u32) = (4711, 4712);
const STACK: &str = "
name: shop
services:
  root:
    image: python:3.11-slim
    command: [sh, -c, \"touch /src/by-root; exec sleep 1000\"]
    stop_grace_period: 0s
    restart: always
    volumes: [\"./src:/src\"]
  user:
    image: python:3.11-slim
    user: \"4242:4243\"
    command: [sh, -c, \"cat /src/secret > /src/by-user; exec sleep 1000\"]
    stop_grace_period: 0s
    restart: always
    volumes: [\"./src:/src\", \"./src/secret:/etc/secret:ro\"]
";
/// Only the image knows who that is.
const NAMED: &str = "
  named:
    image: python:3.11-slim
    user: nobody
    command: [sleep, \"1000\"]
    stop_grace_period: 0s
    volumes: [\"./src:/src\"]
";

/// `muster env up` by the developer.
fn up(stand: &Stand) {
    let folder = stand.cluster.folder();
    // Where the developer may read them.
    let (program, ca) = (folder.join("muster"), folder.join("ca.pem"));
    if !program.exists() {
        std::fs::copy(binaries::muster(), &program).expect("copied");
        std::fs::copy(folder.join("coordinator/ca.pem"), &ca).expect("copied");
        std::fs::set_permissions(&ca, std::fs::Permissions::from_mode(0o644)).expect("set");
    }
    let token = std::fs::read_to_string(folder.join("asha.token")).expect("a token");
    let mut up = Command::new(&program);
    up.args(["env", "up", "--name", "shop"]).current_dir(&stand.folder).uid(ASHA.0).gid(ASHA.1);
    up.env("MUSTER_SERVER", stand.cluster.server()).env("MUSTER_CA", &ca).env("MUSTER_TOKEN", token.trim());
    let done = up.env("MUSTER_AGENT_SOCKET", stand.host.socket()).output().expect("muster runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(done.status.success(), "{}{}", text(&done.stdout), text(&done.stderr));
}

fn owner(path: &Path) -> Result<(u32, u32), String> {
    std::fs::metadata(path).map(|found| (found.uid(), found.gid())).map_err(|why| why.to_string())
}

/// Waits until the services have written their files, and takes them away.
fn writes_as_the_developer(src: &Path) {
    for name in ["by-root", "by-user"] {
        let path = src.join(name);
        let found = eventually(SOON, &format!("{name} is there"), || owner(&path));
        assert_eq!(found, ASHA, "{name} belongs to whose folder it is");
    }
    let copied = || std::fs::read_to_string(src.join("by-user")).map_err(|why| why.to_string());
    eventually(SOON, "what only the developer may read was read", || {
        let now = copied()?;
        if now == "tell nobody" { Ok(()) } else { Err(now) }
    });
    for name in ["by-root", "by-user"] {
        std::fs::remove_file(src.join(name)).expect("removed");
    }
}

#[test]
fn what_containers_make_in_a_developers_folder_is_the_developers() {
    let Some(_turn) = real::turn() else { return };
    let mut stand = Stand::open(STACK);
    let src = stand.folder.join("src");
    std::fs::create_dir(&src).expect("a folder");
    let secret = stand.file("src/secret", "tell nobody");
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).expect("set");
    for path in [&stand.folder, &stand.folder.join("compose.yaml"), &src, &secret] {
        chown(path, Some(ASHA.0), Some(ASHA.1)).expect("given away");
    }
    up(&stand);
    writes_as_the_developer(&src);
    let seen = stand.exec("shop", "user", &["stat", "-c", "%u %g", "/src", "/etc/secret"]);
    assert_eq!(seen.stdout.split_whitespace().collect::<Vec<_>>(), ["4242", "4243", "4242", "4243"], "{}", seen.all());
    assert_eq!(stand.show("shop")["notices"].to_string().matches("owner").count(), 0, "{}", stand.show("shop"));

    // As after a reboot: nothing runs, and nothing is mounted.
    stand.host.power_off();
    let views = clean::views(stand.host.id());
    let mounted = clean::mounted(&views);
    assert_eq!(mounted.len(), 2, "{mounted:?}");
    for view in &mounted {
        let done = Command::new("umount").arg(view).status().expect("umount runs");
        assert!(done.success());
    }
    stand.host.power_on();
    stand.cluster.wait_host(&stand.host.name, "READY", SOON);
    writes_as_the_developer(&src);

    // What cannot be had is told.
    stand.file("compose.yaml", format!("{STACK}{}", NAMED.trim_start_matches('\n')));
    up(&stand);
    stand.muster(&["env", "show", "shop"]).ok().says("the image's user \"nobody\" has no number");
    let seen = stand.exec("shop", "named", &["stat", "-c", "%u", "/src"]);
    assert_eq!(seen.stdout.trim(), ASHA.0.to_string(), "as it is: {}", seen.all());

    stand.muster(&["env", "down", "shop"]).ok();
    assert_eq!(clean::mounted(&views), Vec::<String>::new(), "nothing stays mounted");
    assert_eq!(std::fs::read_to_string(secret).expect("it is there"), "tell nobody");
}
