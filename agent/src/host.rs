//! What everything on this host works with.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use crate::engine::Engine;
use crate::engine::watch::Watch;
use crate::environments::sizes::Sizes;
use crate::environments::warm::Warm;
use crate::failpoints::Failpoints;
use crate::firewall::Firewall;
use crate::freezer::Freezer;
use crate::isolation::Proofs;
use crate::owners::Owners;
use crate::parents::Parents;
use crate::policy::Policy;
use crate::pool::Pool;
use crate::probe::Prober;
use crate::routes::Routes;
use crate::session::outbox::Outbox;
use crate::state::State;
use crate::subnets::Subnets;

/// What everything on this host works with.
#[derive(Debug)]
pub struct Host {
    /// The host's id.
    pub id: String,
    /// The host's name.
    pub name: String,
    /// The kernel's id of this boot.
    pub boot_id: String,
    /// Another boot than that of the agent's last start.
    pub rebooted: bool,
    /// Where published ports listen.
    pub listen_address: IpAddr,
    /// Where networks get their addresses.
    pub subnets: Subnets,
    /// Where everything else that the agent keeps lies.
    pub state_dir: PathBuf,
    /// Where data of environments lies.
    pub pool: Arc<Pool>,
    /// Existing networks that containers of releases join too.
    pub release_networks: Vec<String>,
    /// The container engine.
    pub engine: Arc<dyn Engine>,
    /// Keeps environments apart.
    pub firewall: Firewall,
    /// Freezes and thaws containers.
    pub freezer: Arc<dyn Freezer>,
    /// What was found when keeping them apart was tried.
    pub isolation: Proofs,
    /// What containers of an environment have together.
    pub parents: Parents,
    /// Whose files are whose in developers' folders.
    pub owners: Arc<Owners>,
    /// How much disk environments take.
    pub sizes: Sizes,
    /// Slots that are kept for whoever comes next.
    pub warm: Warm,
    /// Tells when containers end.
    pub watch: Watch,
    /// Asks for health.
    pub prober: Prober,
    /// Published ports.
    pub routes: Arc<dyn Routes>,
    /// What a coordinator may ask.
    pub policy: Policy,
    /// What is remembered.
    pub state: State,
    /// What is to be told.
    pub outbox: Arc<Outbox>,
    /// Where fault tests end this process.
    pub failpoints: Failpoints,
}

impl Host {
    /// The last 12 hexadecimal digits of the host's id, for names.
    #[must_use]
    pub fn short(&self) -> String {
        short(&self.id)
    }
}

/// The last 12 hexadecimal digits of an id, for names.
#[must_use]
pub fn short(id: &str) -> String {
    let digits: String = id.chars().filter(char::is_ascii_hexdigit).collect();
    digits[digits.len().saturating_sub(12)..].to_owned()
}

#[cfg(test)]
pub(crate) mod tests {
    use std::path::Path;

    use super::*;
    use crate::engine::fake::Fake;
    use crate::firewall::tables::Memory;
    use crate::routes::Table;

    /// A host over a fake engine and a table of routes; `allowed` may be mounted.
    pub(crate) async fn host(fake: Arc<Fake>, allowed: &Path) -> (Arc<Host>, tempfile::TempDir) {
        let folder = tempfile::tempdir().expect("a folder");
        let host =
            at(fake, Arc::new(Table::default()), folder.path(), allowed, "0189abcd-0000-7000-8000-0000000000aa").await;
        (host, folder)
    }

    /// The same over given routes and a given state folder: another start of the same agent.
    pub(crate) async fn at(
        fake: Arc<Fake>,
        routes: Arc<dyn Routes>,
        folder: &Path,
        allowed: &Path,
        id: &str,
    ) -> Arc<Host> {
        let policy = folder.join("policy.toml");
        let text = format!("mounts = [{:?}]\nregistries = [\"docker.io\"]\nwarm = 1\n", allowed.display().to_string());
        std::fs::write(&policy, text).expect("written");
        let engine: Arc<dyn Engine> = fake;
        Arc::new(Host {
            id: id.to_owned(),
            name: "box".to_owned(),
            boot_id: "7d1c3ba6-67a9-4a0f-8c6d-0c0f4f6a6f01".to_owned(),
            rebooted: false,
            listen_address: IpAddr::from([127, 0, 0, 1]),
            subnets: "198.18.0.0/15".parse().expect("a block"),
            state_dir: folder.to_owned(),
            pool: Pool::plain(&folder.join("pool")).expect("a pool"),
            release_networks: Vec::new(),
            firewall: Firewall::new(
                short(id),
                "198.18.0.0/15".parse().expect("a block"),
                Vec::new(),
                Arc::new(Memory::default()),
            ),
            isolation: Proofs::default(),
            sizes: Sizes::default(),
            warm: Warm::default(),
            watch: Watch::begin(Arc::clone(&engine), id.to_owned()),
            engine,
            freezer: Arc::new(crate::freezer::Memory::default()),
            parents: Parents::at(&folder.join("cgroup")),
            owners: Arc::new(Owners::at(folder.join("folders"))),
            prober: Prober::default(),
            routes,
            policy: Policy::read(&policy).expect("a policy"),
            state: State::open(folder, false).await.expect("a state"),
            outbox: Arc::new(Outbox::default()),
            failpoints: Failpoints::read(folder),
        })
    }
}
