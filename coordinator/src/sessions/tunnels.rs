//! Tunnels: a client waits with an id, the agent that was ordered dials with the same id, and the two streams are joined.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use domain::ids::{EnvironmentId, HostId, PrincipalId};
use domain::time::Timestamp;
use proto::v1;
use tokio::sync::{mpsc, oneshot};
use tonic::{Status, Streaming};

/// Tunnels of the whole coordinator at once.
const MOST: usize = 1024;
/// The same person's connections to the same environment are one entry of the ledger for so long.
const ONE_EVENT: Duration = Duration::from_secs(600);

/// The agent's end of a tunnel.
#[derive(Debug)]
pub struct Far {
    /// What the agent sends.
    pub incoming: Streaming<v1::TunnelFrame>,
    /// What it is sent.
    pub outgoing: mpsc::Sender<Result<v1::TunnelFrame, Status>>,
}

type Joins = HashMap<String, (HostId, oneshot::Sender<Far>)>;

/// All tunnels that wait for their agent.
#[derive(Default)]
pub struct Tunnels {
    joins: Mutex<Joins>,
    told: Mutex<BTreeMap<(PrincipalId, EnvironmentId), Timestamp>>,
}

impl fmt::Debug for Tunnels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tunnels({} wait)", self.joins().len())
    }
}

/// A client that waits; dropping it ends the wait.
#[derive(Debug)]
pub struct Waiting {
    tunnels: Arc<Tunnels>,
    id: String,
    far: oneshot::Receiver<Far>,
}

impl Tunnels {
    fn joins(&self) -> std::sync::MutexGuard<'_, Joins> {
        self.joins.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for `host` under this id; none: too many wait.
    pub fn open(self: &Arc<Self>, id: &str, host: HostId) -> Option<Waiting> {
        let (sender, far) = oneshot::channel();
        let mut joins = self.joins();
        if joins.len() >= MOST {
            return None;
        }
        joins.insert(id.to_owned(), (host, sender));
        Some(Waiting { tunnels: Arc::clone(self), id: id.to_owned(), far })
    }

    /// A host dials. False: nobody waits for it under this id.
    pub fn join(&self, id: &str, host: HostId, far: Far) -> bool {
        let mut joins = self.joins();
        if joins.get(id).is_none_or(|(of, _)| *of != host) {
            return false;
        }
        let Some((_, sender)) = joins.remove(id) else { return false };
        sender.send(far).is_ok()
    }

    /// Whether a connection is to be told in the ledger: the first of this person for a while.
    pub fn tells(&self, who: PrincipalId, environment: EnvironmentId, now: Timestamp) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.retain(|_, at| now.since(*at) < ONE_EVENT);
        told.insert((who, environment), now).is_none()
    }
}

impl Waiting {
    /// The agent's end; none if it does not come within `time`.
    pub async fn far(mut self, time: Duration) -> Option<Far> {
        tokio::time::timeout(time, &mut self.far).await.ok()?.ok()
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.tunnels.joins().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn a_persons_connections_to_one_environment_are_told_once_in_a_while() {
        let tunnels = Tunnels::default();
        let (who, environment) = (PrincipalId::new(Uuid::from_u128(1)), EnvironmentId::new(Uuid::from_u128(2)));
        let at = |seconds| Timestamp(0).plus(Duration::from_secs(seconds));
        assert!(tunnels.tells(who, environment, at(0)));
        assert!(!tunnels.tells(who, environment, at(1)));
        assert!(tunnels.tells(PrincipalId::new(Uuid::from_u128(3)), environment, at(1)));
        assert!(tunnels.tells(who, environment, at(700)));
    }

    #[tokio::test]
    async fn who_waits_no_longer_is_forgotten() {
        let tunnels = Arc::new(Tunnels::default());
        let waiting = tunnels.open("a", HostId::new(Uuid::from_u128(1))).unwrap();
        assert!(waiting.far(Duration::ZERO).await.is_none());
        assert_eq!(format!("{tunnels:?}"), "Tunnels(0 wait)");
    }
}
