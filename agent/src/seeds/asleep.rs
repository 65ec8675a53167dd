//! A snapshot of an environment that is stopped: its files are taken as they lie, and nothing of it is started.

use std::time::Duration;

use futures::future::try_join_all;
use proto::v1;
use tokio::sync::watch;

use super::sealed::volume;
use super::{Made, Setup, seal, snapshot, stack};
use crate::environments::failure::Failure;
use crate::environments::{self, View};

/// Takes it. None: it was woken meanwhile, and what was taken is thrown away. `views` has seen `view`.
pub(super) async fn run(
    setup: &Setup,
    order: &v1::SeedOrder,
    environment: &str,
    view: &View,
    views: &watch::Receiver<View>,
) -> Result<Option<Made>, Failure> {
    let host = &setup.host;
    let stack = setup.environments.stack(environment)?;
    let writers = snapshot::writers(setup, view, &stack, environment).await?;
    let stores = stack::of(stack);
    setup.tell(&order.id, "taking the data of the stopped environment");
    let from = host.pool.environment(environment);
    host.pool.sync(from.clone()).await?;
    let aside = snapshot::aside(host, order).await?;
    let names = seal::volumes(&from);
    let clones = names.iter().map(|name| host.pool.clone_tree(volume(&from, name), volume(&aside, name)));
    let taken = try_join_all(clones).await;
    // It tells that it wakes before anything of it is started.
    let slept = views.has_changed().is_ok_and(|changed| !changed)
        && !environments::containers(host, environment).await?.iter().any(|one| one.running);
    let made = match taken {
        Err(why) => Err(why.into()),
        Ok(_) if slept => {
            snapshot::seal_aside(setup, order, writers, &stores, (&aside, Duration::ZERO)).await.map(Some)
        }
        Ok(_) => Ok(None),
    };
    host.pool.remove(aside).await?;
    host.sizes.ask(environment);
    made
}
