//! Machines with systemd and sshd, as an operator's Ansible finds them; containers of this machine's engine.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::clean::{self, LABEL};
use super::condition::eventually;
use super::docker::Engine;
use super::{binaries, ranges};

/// What they are made from, see `scripts/images.sh`.
const IMAGE: &str = "muster-host:bookworm";
/// Where the engine of this machine is seen in them.
pub const ENGINE: &str = "/run/engine.sock";

/// Some machines, and the key that opens them. Removed when dropped.
#[derive(Debug)]
pub struct Machines {
    folder: PathBuf,
    engine: Engine,
}

impl Machines {
    /// Starts one of each name, and waits until its systemd calls it running.
    ///
    /// # Panics
    /// One does not start.
    #[must_use]
    pub fn start(names: &[&str]) -> Self {
        clean::sweep();
        mount_systemd();
        let folder = clean::folder(ranges::next_cluster());
        std::fs::create_dir_all(&folder).expect("a folder");
        let machines = Self { folder, engine: Engine::default() };
        let key = machines.key();
        let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f", &key]).output();
        assert!(made.as_ref().is_ok_and(|out| out.status.success()), "ssh-keygen: {made:?}");
        let public = std::fs::read_to_string(format!("{key}.pub")).expect("a public key");
        let open = format!("mkdir -m 700 /root/.ssh; echo '{}' > /root/.ssh/authorized_keys", public.trim());
        for name in names {
            machines.boot(name);
            machines.run(name, &["sh", "-c", &open]).expect("it takes a key");
        }
        for name in names {
            machines.is_up(name);
        }
        machines
    }

    fn boot(&self, name: &str) {
        let label = format!("{LABEL}={}", clean::name(&self.folder));
        let socket = format!("/var/run/docker.sock:{ENGINE}");
        let container = self.container(name);
        let mut words = vec!["run", "-d", "--name", &container, "--hostname", name, "--label", &label];
        words.extend(["--cap-add", "SYS_ADMIN", "--cap-add", "NET_ADMIN"]);
        words.extend(["--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined"]);
        words.extend(["--tmpfs", "/run", "--tmpfs", "/run/lock", "-v", "/sys/fs/cgroup:/sys/fs/cgroup:rw"]);
        // sshd gives up without keys of its own, which the image has none of.
        words.extend(["-v", &socket, IMAGE, "sh", "-c", "ssh-keygen -A && exec /sbin/init"]);
        self.engine.run(&words);
    }

    fn is_up(&self, name: &str) {
        eventually(Duration::from_secs(60), &format!("{name} is up"), || {
            let told = "systemctl is-system-running || { systemctl --failed; systemctl list-jobs; exit 1; }";
            self.run(name, &["sh", "-c", &format!("{{ {told}; }} >&2")]).map(drop)
        });
    }

    /// Everything in it ends and begins again.
    pub fn reboot(&self, name: &str) {
        self.engine.run(&["restart", "--time", "30", &self.container(name)]);
        self.is_up(name);
    }

    fn container(&self, name: &str) -> String {
        format!("{}-{name}", clean::name(&self.folder))
    }

    fn key(&self) -> String {
        self.folder.join("key").to_string_lossy().into_owned()
    }

    /// A file or folder of the test's own.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Its address.
    #[must_use]
    pub fn address(&self, name: &str) -> String {
        self.engine.run(&["inspect", "--format", "{{.NetworkSettings.IPAddress}}", &self.container(name)])
    }

    /// Standard output of a command of root on it.
    ///
    /// # Errors
    /// Its standard error, when it fails.
    pub fn run(&self, name: &str, words: &[&str]) -> Result<String, String> {
        let container = self.container(name);
        self.engine.try_run(&[&["exec", container.as_str()], words].concat())
    }

    /// What `ansible-playbook ansible/site.yaml` prints with these groups of hosts and these further words.
    ///
    /// # Panics
    /// It fails.
    pub fn ansible(&self, groups: &serde_json::Value, more: &[&str]) -> String {
        let inventory = self.path("inventory.json");
        let key = self.key();
        let options = format!(
            "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o ControlPath={}/%C",
            self.folder.display()
        );
        let all = serde_json::json!({ "all": {
            "vars": {
                "ansible_user": "root",
                "ansible_ssh_private_key_file": key,
                "ansible_ssh_common_args": options,
                "muster_coordinator_binary": binaries::muster(),
                "muster_agent_binary": binaries::agent(),
            },
            "children": groups,
        }});
        std::fs::write(&inventory, all.to_string()).expect("an inventory");
        let out = Command::new("ansible-playbook")
            .arg("-i")
            .arg(&inventory)
            .arg("site.yaml")
            .args(more)
            .current_dir(binaries::root().join("ansible"))
            // It refuses to run without an encoding.
            .env("LC_ALL", "C.UTF-8")
            .env("ANSIBLE_HOME", self.path("ansible"))
            .env("ANSIBLE_LOCAL_TEMP", self.path("ansible"))
            .output()
            .expect("ansible-playbook runs");
        let printed = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(out.status.success(), "{printed}\n{}", String::from_utf8_lossy(&out.stderr));
        printed
    }
}

/// With version 1 of control groups systemd needs a tree of its own, which a machine without systemd has not.
fn mount_systemd() {
    let tree = Path::new("/sys/fs/cgroup/systemd");
    let mounted = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() || mounted.contains("name=systemd") {
        return;
    }
    std::fs::create_dir_all(tree).expect("a folder for the tree");
    let mount = Command::new("mount").args(["-t", "cgroup", "-o", "none,name=systemd", "cgroup"]).arg(tree).output();
    assert!(mount.as_ref().is_ok_and(|out| out.status.success()), "mount {}: {mount:?}", tree.display());
}

impl Drop for Machines {
    fn drop(&mut self) {
        clean::cluster(&self.folder);
    }
}
