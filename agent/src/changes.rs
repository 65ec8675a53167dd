//! What changed in an environment's data since it began: its stores, compared with those of the same seed, started beside
//! it for that and removed afterwards.
//!
//! Both sides are only read, each as of one instant where the store can. Memory is bounded by streams, time by a deadline:
//! what is not compared is named.

mod beside;
mod elastic;
mod mysql;
mod postgres;
mod redis;
mod resp;
mod tables;
mod tally;
mod teller;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use domain::environment::EnvironmentState;
use domain::stack::{Service, Stack, StoreKind};
use proto::v1;
use tokio::sync::{Semaphore, mpsc};

use crate::environments::failure::Failure;
use crate::environments::{Environments, View};
use crate::host::Host;
use beside::Beside;
use teller::Teller;

/// What the `run` of an environment begins with that is made to compare another one with.
const MARK: &str = "diff:";
/// Comparisons of a host at a time; the others wait.
static PLACES: Semaphore = Semaphore::const_new(2);
/// Longest wait for a sleeping environment.
const WAKE: Duration = Duration::from_secs(120);
/// How long a comparison takes at most, unless it is said otherwise.
const WITHIN: Duration = Duration::from_secs(300);
/// What can be said.
const MOST_WITHIN: Duration = Duration::from_secs(3600);
/// Examples of one kind.
const MOST_ROWS: u32 = 100;

/// Whether an environment's `run` says that another one is compared with it.
#[must_use]
pub fn is_one(run: &str) -> bool {
    run.starts_with(MARK)
}

/// Removes what comparisons of a killed agent left. Must be called before orders are taken.
pub async fn sweep(environments: &Environments) {
    for id in environments.of_runs(is_one) {
        if let Err(why) = environments.drop(&id).await {
            tracing::warn!(environment = %id, %why, "the copy of a seed of an earlier comparison stays");
        }
    }
}

/// A store of one side.
#[derive(Debug)]
struct Place<'a> {
    service: &'a Service,
    address: IpAddr,
}

/// Compares an environment's data with its seed, and tells what differs, with an end last.
///
/// # Errors
/// `E_DIFF_STATE`, `E_DIFF_SEED`, or why the seed's stores do not start.
pub async fn run(
    host: &Host,
    environments: &Arc<Environments>,
    environment: &str,
    order: &v1::DiffOrder,
    up: &mpsc::Sender<v1::TunnelFrame>,
) -> Result<(), Failure> {
    let missing = || Failure::lasting("E_ENV_NOT_FOUND", "this host does not have the environment (any more)");
    let rows = order.rows.min(MOST_ROWS);
    let order = v1::DiffOrder { rows, ..order.clone() };
    let asked = proto::convert::duration(order.within_micros);
    let within = if asked.is_zero() { WITHIN } else { asked.min(MOST_WITHIN) };
    let teller = Teller::new(up.clone(), &order, within);
    teller.progress("waiting for other comparisons".to_owned()).await;
    let _place = PLACES.acquire().await.ok();
    // It stays awake until the end, and that is no use of it.
    let guest = environments.quiet_guest(environment).ok_or_else(missing)?;
    teller.progress("waking the environment".to_owned()).await;
    environments.poke(environment);
    if tokio::time::timeout(WAKE, guest.awake()).await.is_err() {
        return Err(Failure::lasting("E_WAKE_FAILED", format!("it did not wake within {} s", WAKE.as_secs())));
    }
    let own = environments.watch(environment).ok_or_else(missing)?.borrow().clone();
    if own.observed.state == EnvironmentState::Gone {
        return Err(missing());
    }
    let wanted = environments.wanted(environment).ok_or_else(missing)?;
    let stack = environments.stack(environment)?;
    let images: BTreeMap<String, String> =
        stores(&stack).filter_map(|(name, _)| Some((name.clone(), own.specs.get(name)?.image.clone()))).collect();
    if images.is_empty() {
        let text = "none of its services is a database, a cache or a search engine that runs";
        return Err(Failure::lasting("E_DIFF_STATE", text));
    }
    teller.progress(format!("starting a copy of {}", order.seed)).await;
    let (beside, view) = Beside::start(environments, &wanted, &order.digest, images).await?;
    let original = environments.stack(&beside.id)?;
    let mut teller = Teller::new(up.clone(), &order, within);
    for (name, service) in stores(&stack) {
        teller.service.clone_from(name);
        let Some(kind) = service.store else { continue };
        teller.kind = crate::seeds::kind_name(kind);
        let before = original.services.get(name).zip(address(host, &view, name).await?);
        let after = address(host, &own, name).await?;
        match (before, after) {
            (Some((service_before, at_before)), Some(at)) => {
                let seed = Place { service: service_before, address: at_before };
                one(kind, &seed, &Place { service, address: at }, &mut teller).await;
            }
            (_, None) => teller.left_out("everything", "it does not run in the environment").await,
            (None, _) => teller.left_out("everything", "the seed has no data of it").await,
        }
    }
    teller.end(&order.seed).await;
    Ok(())
}

/// One store, each kind in its own way.
async fn one(kind: StoreKind, seed: &Place<'_>, own: &Place<'_>, teller: &mut Teller) {
    match kind {
        StoreKind::Postgres => postgres::compare(seed, own, teller).await,
        StoreKind::Mysql => mysql::compare(seed, own, teller).await,
        StoreKind::Redis => redis::compare(seed, own, teller).await,
        StoreKind::Elasticsearch => elastic::compare(seed, own, teller).await,
    }
}

fn stores(stack: &Stack) -> impl Iterator<Item = (&String, &Service)> {
    stack.services.iter().filter(|(_, service)| service.store.is_some())
}

async fn address(host: &Host, view: &View, service: &str) -> Result<Option<IpAddr>, Failure> {
    let Some(spec) = view.specs.get(service) else { return Ok(None) };
    let found = host.engine.inspect(&spec.name).await?;
    Ok(found.and_then(|found| found.addresses.get(&spec.network).copied()))
}
