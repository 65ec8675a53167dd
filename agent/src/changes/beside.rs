//! A throw-away environment with the data that another one began with: walled in like all, published nowhere, removed
//! with this value, or at the agent's next start.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use domain::environment::EnvironmentState;
use proto::v1;
use uuid::Uuid;

use super::MARK;
use crate::environments::failure::Failure;
use crate::environments::{Environments, View, Wanted};

/// How long its stores may take to start.
const READY: Duration = Duration::from_secs(180);

/// The stores of a seed, running beside the environment that began with it.
#[derive(Debug)]
pub(super) struct Beside {
    environments: Arc<Environments>,
    /// Its id.
    pub id: String,
}

/// What the throw-away environment is ordered as.
fn ordered(of: &Wanted, id: &str, digest: &str, images: BTreeMap<String, String>) -> Wanted {
    let order = v1::EnvironmentOrder {
        id: id.to_owned(),
        generation: 1,
        up: true,
        name: format!("diff-{}", of.order.name),
        run: format!("{MARK}{}", of.order.id),
        data_from: format!("seed:{digest}"),
        data_epoch: 0,
        only_services: images.keys().cloned().collect(),
        grant: String::new(),
        // What its stores mount is there: it is the other one's folder.
        upload: false,
        restarts: Default::default(),
        rebuilds: Default::default(),
        ..of.order.clone()
    };
    Wanted { order, folder: of.folder.clone(), images, halted: false }
}

impl Beside {
    /// Starts the stores of `images` (with the very images that the environment runs) from the seed of that digest.
    ///
    /// # Errors
    /// Why they do not become ready.
    pub async fn start(
        environments: &Arc<Environments>,
        of: &Wanted,
        digest: &str,
        images: BTreeMap<String, String>,
    ) -> Result<(Self, View), Failure> {
        let id = Uuid::now_v7().to_string();
        let wanted = ordered(of, &id, digest, images);
        // From here on it is removed, whatever happens.
        let beside = Self { environments: Arc::clone(environments), id: id.clone() };
        environments.hold(wanted).await?;
        let gone = || Failure::lasting("E_DIFF_SEED", "the copy of the seed is gone while it was being started");
        let mut seen = environments.watch(&id).ok_or_else(gone)?;
        let ready = seen.wait_for(|view| {
            matches!(view.observed.state, EnvironmentState::Ready | EnvironmentState::Failed | EnvironmentState::Gone)
        });
        let late = |_| {
            Failure::lasting("E_DIFF_SEED", format!("the seed's stores were not ready within {} s", READY.as_secs()))
        };
        let view = tokio::time::timeout(READY, ready).await.map_err(late)?.map_err(|_| gone())?.clone();
        if view.observed.state == EnvironmentState::Ready {
            return Ok((beside, view));
        }
        let (code, text) = view.observed.reason.unwrap_or_default();
        let code = if code.is_empty() { "E_DIFF_SEED" } else { &code };
        Err(Failure::lasting(code, format!("the copy of the seed does not start: {text}")))
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        let (environments, id) = (Arc::clone(&self.environments), self.id.clone());
        tokio::spawn(async move {
            if let Err(why) = (*environments).drop(&id).await {
                tracing::warn!(environment = %id, %why, "the copy of a seed stays until the agent starts again");
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_copy_begins_with_the_seed_and_does_nothing_that_was_asked_of_the_other() {
        let order = v1::EnvironmentOrder {
            id: "one".to_owned(),
            generation: 9,
            name: "shop".to_owned(),
            data_from: "auto:3".to_owned(),
            data_epoch: 4,
            grant: "grant".to_owned(),
            restarts: [("db".to_owned(), 7)].into(),
            stack_file: "services: {}".to_owned(),
            ..Default::default()
        };
        let of = Wanted { order, folder: None, images: BTreeMap::new(), halted: false };
        let made = ordered(&of, "two", "abc", [("db".to_owned(), "postgres:15".to_owned())].into());
        assert_eq!(
            (made.order.id.as_str(), made.order.data_from.as_str(), made.order.data_epoch),
            ("two", "seed:abc", 0)
        );
        assert_eq!((made.order.generation, made.order.up), (1, true));
        assert!(made.order.restarts.is_empty() && made.order.grant.is_empty());
        assert_eq!(made.order.only_services, ["db"]);
        assert!(super::super::is_one(&made.order.run) && made.order.stack_file == of.order.stack_file);
    }
}
