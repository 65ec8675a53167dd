//! The roles of `ansible/`, on machines with systemd and sshd.

use std::fs::OpenOptions;
use std::io::Write;

use serde_json::{Value, json};
use tests::harness::condition::{SOON, eventually};
use tests::harness::machines::{ENGINE, Machines};
use tests::harness::{binaries, real};

/// A coordinator and one host with an agent.
struct Site(Machines);

impl Site {
    fn groups(&self, labels: &Value) -> Value {
        let coordinator = self.0.address("ops");
        json!({
            "muster_coordinator": {
                "hosts": { "ops": { "ansible_host": coordinator } },
                "vars": { "muster_coordinator_settings": { "names": ["ops.test"], "retention.events_days": 400 } },
            },
            "muster_agents": {
                "hosts": { "web-1": {
                    "ansible_host": self.0.address("web"),
                    "muster_agent_coordinator": format!("{coordinator}:7443"),
                    "muster_agent_packages": ["git", "iptables"],
                    "muster_agent_labels": labels,
                    "muster_agent_settings": { "engine": ENGINE, "pool": "copy" },
                    "muster_agent_policy": { "warm": 0 },
                }},
            },
        })
    }

    fn shown(&self) -> Result<Value, String> {
        let words = ["--server", "127.0.0.1:7443", "--ca", "/var/lib/muster/ca.pem"];
        let token = ["--token-file", "/var/lib/muster/admin.token"];
        let what = ["host", "show", "web-1", "--output", "json"];
        let shown = self.0.run("ops", &[["muster"].as_slice(), &words, &token, &what].concat())?;
        serde_json::from_str(&shown).map_err(|why| why.to_string())
    }

    fn is_ready(&self) -> Value {
        eventually(SOON, "web-1 is ready", || {
            let shown = self.shown()?;
            if shown["liveness"] == "LIVENESS_READY" { Ok(shown) } else { Err(shown.to_string()) }
        })
    }

    /// The main process of a unit of the host, once it runs.
    fn pid(&self, unit: &str) -> String {
        eventually(SOON, &format!("{unit} runs"), || {
            let pid = self.0.run("web", &["systemctl", "show", "--value", "--property", "MainPID", unit])?;
            if pid == "0" { Err("it does not".to_owned()) } else { Ok(pid) }
        })
    }

    fn killed(&self, unit: &str) {
        let before = self.pid(unit);
        self.0.run("web", &["systemctl", "kill", "--signal", "KILL", "--kill-who", "main", unit]).expect("killed");
        eventually(SOON, &format!("{unit} is back"), || {
            if self.pid(unit) == before { Err("the same".to_owned()) } else { Ok(()) }
        });
    }
}

/// How many tasks changed something on a host, as the recap says.
fn changed(printed: &str, host: &str) -> u32 {
    let recap = printed.split("PLAY RECAP").last().unwrap_or_default();
    let line = recap.lines().find(|line| line.starts_with(host)).unwrap_or_else(|| panic!("{printed}"));
    let count = line.split("changed=").nth(1).and_then(|rest| rest.split(' ').next());
    count.and_then(|count| count.parse().ok()).unwrap_or_else(|| panic!("{line}"))
}

#[test]
fn ansible_installs_a_coordinator_and_an_agent_once_and_brings_them_up_to_date() {
    let Some(_turn) = real::turn() else { return };
    let site = Site(Machines::start(&["ops", "web"]));
    let labels = json!({ "app": "bot", "env": "production" });
    site.0.ansible(&site.groups(&labels), &[]);
    let shown = site.is_ready();
    assert_eq!(shown["labels"], labels);
    assert!(site.0.run("web", &["test", "-e", "/etc/muster/join-token"]).is_err(), "the token is used up");
    let (relay, agent) = (site.pid("muster-relay"), site.pid("muster-agent"));

    // Another label, and another program: nothing but the agent begins again.
    let newer = site.0.path("muster-agent");
    std::fs::copy(binaries::agent(), &newer).expect("a copy");
    OpenOptions::new().append(true).open(&newer).and_then(|mut file| file.write_all(b"\n")).expect("it differs");
    let labels = json!({ "app": "bot", "zone": "a" });
    let given = format!("muster_agent_binary={}", newer.display());
    let printed = site.0.ansible(&site.groups(&labels), &["--extra-vars", &given]);
    assert_eq!((changed(&printed, "ops"), changed(&printed, "web-1")), (0, 3), "{printed}");
    let after = site.is_ready();
    assert_eq!((&after["labels"], &after["id"]), (&labels, &shown["id"]));
    assert_eq!(site.pid("muster-relay"), relay, "connections go on");
    assert_ne!(site.pid("muster-agent"), agent);

    site.killed("muster-relay");
    site.killed("muster-agent");
    site.is_ready();
    site.0.reboot("web");
    assert_eq!(site.is_ready()["id"], shown["id"]);
    site.pid("muster-relay");
}
