//! What a host is sent, derived from rows each time: nothing is remembered but what this session has sent already.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use domain::environment::{Source, Wanted};
use domain::ids::Generation;
use domain::seed::{Place, SeedCopy, SeedState};
use domain::step::order::OrderKind;
use domain::time::Timestamp;
use proto::v1::{self, coordinator_message::Message, seed_order::Work};

use super::Sessions;
use crate::app::run_seeds::Told;
use crate::app::{App, environments, runs, seed_copies, seeds};
use crate::auth::Agent;
use crate::error::{Error, Result};
use crate::store::environment::EnvironmentRow;

/// A step order that stands is sent again after so long without a sign that it arrived.
pub const STEP_AGAIN: Duration = Duration::from_secs(5);

/// What this session has sent.
#[derive(Debug, Default)]
pub struct Sent {
    environments: BTreeMap<String, Generation>,
    runs: BTreeMap<String, (bool, Option<v1::RunSeed>)>,
    seeds: BTreeMap<String, SeedState>,
    steps: BTreeMap<String, (Generation, bool, Timestamp)>,
}

/// What a host should have now.
#[derive(Debug)]
pub struct Desired {
    environments: Vec<(EnvironmentRow, String)>,
    /// Those of them that wait for their seed.
    waiting: BTreeSet<String>,
    runs: Vec<runs::Ordered>,
    seeds: Vec<seeds::Ordered>,
    copies: Vec<SeedCopy>,
    /// The ledger's place at the time of looking.
    pub ledger_seq: u64,
    /// The host is still one of ours.
    pub known: bool,
}

/// Looks at everything a host should have.
///
/// # Errors
/// What the store says.
pub async fn desired(app: &App, agent: &Agent) -> Result<Desired> {
    let host = agent.id;
    app.store
        .read(|view| {
            Box::pin(async move {
                let environments = environments::of_host(view, host).await?;
                let mut waiting = BTreeSet::new();
                for (row, _) in &environments {
                    if seed_copies::waits(view, row).await?.is_some() {
                        waiting.insert(row.environment.id.to_string());
                    }
                }
                Ok::<_, Error>(Desired {
                    environments,
                    waiting,
                    runs: runs::of_host(view, host).await?,
                    seeds: seeds::of_host(app, view, host).await?,
                    copies: seed_copies::of_host(view, host).await?,
                    ledger_seq: view.event_seq().await?,
                    known: view.host_get(host).await?.is_some(),
                })
            })
        })
        .await
}

impl Desired {
    /// Ids for the Welcome: what a host has beyond these is to be removed.
    #[must_use]
    pub fn ids(&self) -> (Vec<String>, Vec<String>) {
        let environments = self.environments.iter().map(|(row, _)| row.environment.id.to_string()).collect();
        let runs = self.runs.iter().map(|run| run.row.run.id.to_string()).collect();
        (environments, runs)
    }
}

impl Sent {
    /// The orders of environments, runs and seeds that this session has not sent yet.
    pub fn missing(&mut self, desired: &Desired) -> Vec<Message> {
        let mut messages = Vec::new();
        for (row, owner) in &desired.environments {
            let (id, generation) = (row.environment.id.to_string(), row.environment.generation);
            if desired.waiting.contains(&id) {
                continue;
            }
            if self.environments.insert(id, generation) != Some(generation) {
                messages.push(Message::Environment(environment(row, owner)));
            }
        }
        for copy in &desired.copies {
            let order = copy_order(copy);
            if self.seeds.insert(work(copy).key(&order.id), copy.state) != Some(copy.state) {
                messages.push(Message::Seed(order));
            }
        }
        for run in &desired.runs {
            let order = run_order(run);
            let said = (order.cancel, order.seed.clone());
            if self.runs.insert(order.id.clone(), said.clone()) != Some(said) {
                messages.push(Message::Run(order));
            }
        }
        for ordered in &desired.seeds {
            let (id, state) = (ordered.row.seed.id.to_string(), ordered.row.seed.state);
            if self.seeds.insert(id, state) != Some(state)
                && let Some(order) = seed_order(ordered)
            {
                messages.push(Message::Seed(order));
            }
        }
        messages
    }

    /// The host has told the end of what was ordered of a seed: the next order of it is another one.
    pub fn seed_ended(&mut self, id: &str) {
        self.seeds.remove(id);
    }

    /// The step orders that this session has not sent yet, or has to send again.
    pub fn steps(&mut self, sessions: &Sessions, agent: &Agent, now: Timestamp) -> Vec<v1::StepOrder> {
        let mut orders = Vec::new();
        for ordered in sessions.orders_of(agent.id) {
            let confirm = matches!(ordered.order.kind, OrderKind::Confirm);
            let (target, generation) = (ordered.order.target.to_string(), ordered.order.generation);
            let sent = self.steps.get(&target);
            let fresh = sent.is_some_and(|(before, was_confirm, at)| {
                *before == generation && *was_confirm == confirm && now.since(*at) < STEP_AGAIN
            });
            if !fresh {
                self.steps.insert(target, (generation, confirm, now));
                orders.push(v1::StepOrder::from(&*ordered));
            }
        }
        orders
    }
}

fn environment(row: &EnvironmentRow, owner: &str) -> v1::EnvironmentOrder {
    let environment = &row.environment;
    v1::EnvironmentOrder {
        id: environment.id.to_string(),
        generation: environment.generation.0,
        up: environment.wanted == Wanted::Up,
        name: environment.name.to_string(),
        owner: owner.to_owned(),
        app: environment.app.as_ref().map(ToString::to_string).unwrap_or_default(),
        stack_file: environment.stack_file.clone(),
        file: row.file.clone(),
        variables: environment.variables.clone(),
        env_files: row.env_files.clone(),
        grant: match &environment.source {
            Source::Grant { grant } => grant.clone(),
            Source::None | Source::Checkout | Source::Upload => String::new(),
        },
        upload: environment.source == Source::Upload,
        run: environment.run.map(|run| run.to_string()).unwrap_or_default(),
        restarts: row.life.restarts.clone(),
        rebuilds: row.life.rebuilds.clone(),
        data_from: row.data.from.to_string(),
        data_epoch: row.data.epoch,
        seed: row.data.address.clone(),
        only_services: Vec::new(),
    }
}

fn run_order(ordered: &runs::Ordered) -> v1::RunOrder {
    let run = &ordered.row.run;
    v1::RunOrder {
        id: run.id.to_string(),
        cancel: run.cancel,
        app: run.app.to_string(),
        tests: run.tests.to_string(),
        commit: run.commit.to_string(),
        repository: run.repository.clone(),
        image: ordered.image.as_ref().map(Into::into),
        owner: ordered.owner.clone(),
        seed: ordered.seed.as_ref().map(run_seed),
    }
}

fn run_seed(told: &Told) -> v1::RunSeed {
    match told {
        Told::Begins { address, from } => {
            v1::RunSeed { address: address.clone(), data_from: from.clone(), refused: None }
        }
        Told::Refused(code, why) => {
            let refused = v1::Reason { code: code.clone(), text: why.clone() };
            v1::RunSeed { refused: Some(refused), ..v1::RunSeed::default() }
        }
    }
}

/// Which order stands for a copy.
fn work(copy: &SeedCopy) -> v1::SeedWork {
    match (copy.state, copy.place) {
        (SeedState::Removing, _) => v1::SeedWork::Unspecified,
        (_, Place::Store) => v1::SeedWork::Push,
        (_, Place::Host(_)) => v1::SeedWork::Pull,
    }
}

fn copy_order(copy: &SeedCopy) -> v1::SeedOrder {
    let digest = copy.digest.hex().to_owned();
    let work = match work(copy) {
        v1::SeedWork::Unspecified => Work::Remove(digest),
        v1::SeedWork::Push => Work::Push(digest),
        v1::SeedWork::Pull => Work::Pull(digest),
    };
    v1::SeedOrder { id: copy.seed.to_string(), work: Some(work), ..v1::SeedOrder::default() }
}

/// None for what cannot be ordered: the stack of an import is lost.
fn seed_order(ordered: &seeds::Ordered) -> Option<v1::SeedOrder> {
    let seed = &ordered.row.seed;
    let work = match (seed.state, seed.environment, &ordered.stack) {
        (SeedState::Removing, _, _) => {
            Work::Remove(seed.digest.as_ref().map(|digest| digest.hex().to_owned()).unwrap_or_default())
        }
        (_, Some(environment), _) if seed.snapshot => Work::Snapshot(environment.to_string()),
        (_, _, Some(stack)) => Work::Import(v1::ImportSeedHead {
            name: seed.name.to_string(),
            version: seed.version.clone(),
            stack_file: stack.stack_file.clone(),
            file: stack.file.clone(),
            variables: stack.variables.clone(),
            env_files: stack.env_files.clone(),
            inputs: seed.inputs.iter().map(Into::into).collect(),
            canaries: stack.canaries.clone(),
            host: String::new(),
            idempotency_key: String::new(),
            app: seed.app.as_ref().map(ToString::to_string).unwrap_or_default(),
        }),
        (_, _, None) => {
            tracing::error!(seed = %seed.id, "the sealed stack of an import is not in the store");
            return None;
        }
    };
    Some(v1::SeedOrder {
        id: seed.id.to_string(),
        name: seed.name.to_string(),
        version: seed.version.clone(),
        owner: ordered.owner.clone(),
        work: Some(work),
    })
}
