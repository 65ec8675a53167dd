//! One host of asha's with the pool that the agent makes by itself, and a folder with a stack file.

use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tests::harness::call::Call;
use tests::harness::clean::LABEL;
use tests::harness::cluster::{Cluster, get};
use tests::harness::condition::closely;
use tests::harness::host::Host;

/// Whether sizes and rounds are small, only to see that every line works: `MUSTER_BENCH=small`.
pub fn small() -> bool {
    std::env::var_os("MUSTER_BENCH").is_some_and(|word| word == "small")
}

/// How often is measured: medians of 10 at least.
pub fn rounds() -> usize {
    if small() { 2 } else { 10 }
}

pub struct Place {
    pub cluster: Cluster,
    pub host: Host,
    pub folder: PathBuf,
}

impl Place {
    /// With this stack file; the stack's name is `big`.
    pub fn open(stack: &str) -> Self {
        Self::with(stack, 0)
    }

    /// The same with one slot of the warm pool for it.
    pub fn warm(stack: &str) -> Self {
        Self::with(stack, 1)
    }

    fn with(stack: &str, slots: u32) -> Self {
        let cluster = Cluster::start();
        let host = cluster.host("box-asha").label("owner", "asha").pool("auto").warm(slots).join();
        let folder = cluster.folder().join("big");
        std::fs::create_dir(&folder).expect("a folder");
        let place = Self { cluster, host, folder };
        place.file("compose.yaml", stack);
        place
    }

    pub fn file(&self, name: &str, content: &str) {
        std::fs::write(self.folder.join(name), content).expect("written");
    }

    pub fn muster(&self, words: &[&str]) -> Call {
        self.cluster.muster(words).by("asha").within(&self.folder).env("MUSTER_AGENT_SOCKET", self.host.socket())
    }

    pub fn show(&self, name: &str) -> Value {
        self.muster(&["env", "show", name]).json()
    }

    /// The URL of a service, as the environment tells it.
    pub fn url(&self, name: &str, service: &str) -> String {
        let shown = self.show(name);
        let services = shown["services"].as_array().expect("services");
        let found = services.iter().find(|one| one["name"] == service).expect("that service");
        found["variables"][format!("{}_URL", service.to_uppercase())].as_str().expect("a URL").to_owned()
    }

    /// Waits for a state of an environment.
    pub fn reaches(&self, name: &str, state: &str) {
        let wanted = format!("ENVIRONMENT_STATE_{state}");
        tests::harness::condition::until(Duration::from_secs(120), &wanted, || self.show(name)["state"] == wanted);
    }

    /// `--label` words for what is started beside Muster.
    pub fn label(&self) -> String {
        format!("{LABEL}={}", self.cluster.name())
    }

    pub fn pool(&self) -> String {
        let shown = self.cluster.muster(&["host", "show", "box-asha"]).json();
        shown["facts"]["pool_backend"].as_str().unwrap_or("unknown").to_owned()
    }
}

/// Milliseconds since then.
pub fn since(begun: Instant) -> f64 {
    begun.elapsed().as_secs_f64() * 1000.0
}

/// Milliseconds until psql has an answer; again and again until it has.
pub fn queried(url: &str, sql: &str, begun: Instant) -> f64 {
    let ask = || {
        let mut psql = Command::new("psql");
        psql.args([url, "-XAtc", sql]).stdout(Stdio::null()).stderr(Stdio::null());
        psql.status().is_ok_and(|status| status.success())
    };
    closely("an answer to the query", ask);
    since(begun)
}

/// Milliseconds until `GET PATH` is answered with 200 and this text in it.
pub fn fetched(address: &str, path: &str, text: &str, begun: Instant) -> f64 {
    // A connection first: what is not there costs nothing then.
    closely("an answer", || {
        TcpStream::connect(address).is_ok()
            && get(address, path).is_ok_and(|(status, body)| status == 200 && body.contains(text))
    });
    since(begun)
}

/// Bytes below a folder, as their files are long or as they are laid out.
pub fn bytes(folder: &std::path::Path, apparent: bool) -> f64 {
    let mut du = Command::new("du");
    du.args(["-s", "--block-size=1"]).args(apparent.then_some("--apparent-size")).arg(folder);
    let out = du.output().expect("du runs");
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    text.split_whitespace().next().and_then(|text| text.parse().ok()).unwrap_or(0.0)
}
