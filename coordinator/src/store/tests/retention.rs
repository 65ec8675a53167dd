//! What is old goes; what is still needed stays, whatever its age.

use std::time::Duration;

use domain::authorize::{Grant, Role, Scope};
use domain::ids::{ApiTokenId, EnvironmentId, RunId, SeedId};
use domain::rollout::progress::{Progress, RolloutState, StepState};
use domain::run::RunState;

use super::super::event::EventFilter;
use super::super::idempotency::IdempotencyRow;
use super::super::log::LogSegmentRow;
use super::super::retention::{Keep, Removed};
use super::super::rollout::RolloutRow;
use super::super::secret::SecretRow;
use super::super::token::ApiTokenRow;
use super::super::{Error, PROJECT, Store};
use super::bed::Bed;
use super::samples::{asha, at, digest, environment, event, failure, rollout, run, seed, uuid};

const OLD: i64 = 100;
const NOW: i64 = 10_000;

/// An hour for everything, and nothing kept for its place alone.
fn keep() -> Keep {
    let hour = Duration::from_secs(3600);
    Keep {
        events: hour,
        runs: hour,
        rollouts: hour,
        rollouts_per_target: 0,
        environments: hour,
        seeds: hour,
        idempotency: hour,
        tokens: hour,
        batch: 100,
    }
}

async fn clean(store: &Store, keep: Keep) -> Removed {
    store.write(|tx| Box::pin(async move { tx.retention_run(at(NOW), &keep).await })).await.unwrap()
}

fn ended(number: u128, seconds: i64) -> RolloutRow {
    let mut row = rollout(number, seconds, RolloutState::Reverted);
    row.finished_at = Some(at(seconds));
    row.progress.steps[0].failure = Some(Box::new(failure()));
    row
}

async fn fill(store: &Store) -> Result<(), Error> {
    store
        .write(|tx| {
            Box::pin(async move {
                for (number, seconds) in [(1, OLD), (2, NOW)] {
                    let mut happened = event(number, "");
                    happened.at = at(seconds);
                    tx.event_append(PROJECT, &happened).await?;
                    let mut ran = run(number, seconds);
                    ran.run.state = RunState::Finished;
                    ran.run.finished_at = Some(at(seconds));
                    tx.run_put(&ran).await?;
                    let log = format!("run:{}", ran.run.id);
                    tx.log_segment_append(&segment(log.clone(), 0, seconds)).await?;
                    tx.log_segment_append(&segment(log, 5, seconds)).await?;
                    let mut gone = environment(number, "bot");
                    gone.gone_at = Some(at(seconds));
                    tx.environment_put(&gone).await?;
                    tx.secret_put(&sealed(gone.environment.id)).await?;
                    let mut failed = seed(number, "staging", "1");
                    failed.seed.ended_at = Some(at(seconds));
                    tx.seed_put(&failed).await?;
                    tx.secret_put(&SecretRow { kind: "seed".to_owned(), ..sealed(EnvironmentId::new(uuid(number))) })
                        .await?;
                    tx.idempotency_insert(&key(&number.to_string(), seconds)).await?;
                    tx.api_token_insert(&token(number, seconds)).await?;
                    tx.rollout_insert(&ended(number, seconds)).await?;
                }
                tx.run_put(&run(3, OLD)).await?;
                tx.seed_put(&seed(3, "staging", "1")).await?;
                tx.environment_put(&environment(3, "bot")).await?;
                tx.rollout_insert(&rollout(3, OLD, RolloutState::Running)).await?;
                let mut parked = ended(4, OLD);
                parked.progress.steps[1].state = StepState::Parked;
                tx.rollout_insert(&parked).await
            })
        })
        .await
}

fn segment(key: String, start: u64, seconds: i64) -> LogSegmentRow {
    let path = format!("{seconds}/{start}");
    LogSegmentRow { project: PROJECT.to_owned(), key, start, bytes: 5, path, created_at: at(seconds) }
}

fn sealed(id: EnvironmentId) -> SecretRow {
    let kind = "environment".to_owned();
    SecretRow { project: PROJECT.to_owned(), kind, id: id.to_string(), sealed: vec![1], created_at: at(1) }
}

fn key(key: &str, seconds: i64) -> IdempotencyRow {
    IdempotencyRow {
        project: PROJECT.to_owned(),
        principal: asha(),
        method: "m".to_owned(),
        key: key.to_owned(),
        body: digest('1'),
        created: String::new(),
        at: at(seconds),
    }
}

fn token(number: u128, seconds: i64) -> ApiTokenRow {
    ApiTokenRow {
        id: ApiTokenId::new(uuid(number)),
        project: PROJECT.to_owned(),
        principal: asha(),
        created_by: None,
        secret: digest('1'),
        grant: Grant { role: Role::Viewer, scope: Scope::Project },
        created_at: at(1),
        expires_at: at(seconds),
        revoked_at: None,
    }
}

pub(super) async fn what_is_old_goes_and_what_is_not_stays(bed: &Bed) {
    let store = bed.open().await;
    fill(&store).await.unwrap();
    let removed = clean(&store, keep()).await;
    let wanted = Removed {
        events: 1,
        runs: 1,
        rollouts: 1,
        environments: 1,
        seeds: 1,
        idempotency: 1,
        tokens: 1,
        log_paths: vec!["100/0".to_owned(), "100/5".to_owned()],
        more: false,
    };
    assert_eq!(removed, wanted);
    let left = store.read(|tx| {
        Box::pin(async move {
            let events = tx.event_list_after(&EventFilter::of(PROJECT)).await?;
            assert_eq!(events.iter().map(|row| row.seq).collect::<Vec<_>>(), [2]);
            assert_eq!(tx.event_seq().await?, 2, "numbers are never given out again");
            assert_eq!(tx.run_list(PROJECT, None, 9).await?.len(), 2);
            assert_eq!(tx.log_end(&format!("run:{}", RunId::new(uuid(1)))).await?, 0);
            assert_eq!(tx.log_end(&format!("run:{}", RunId::new(uuid(2)))).await?, 10);
            let environment = |number| EnvironmentId::new(uuid(number));
            assert_eq!(tx.environment_get(environment(1)).await?, None);
            assert_eq!(tx.secret_get("environment", &environment(1).to_string()).await?, None);
            assert!(tx.environment_get(environment(2)).await?.is_some());
            assert!(tx.secret_get("environment", &environment(2).to_string()).await?.is_some());
            assert!(tx.environment_get(environment(3)).await?.is_some());
            assert_eq!(tx.seed_get(SeedId::new(uuid(1))).await?, None);
            assert_eq!(tx.secret_get("seed", &uuid(1).to_string()).await?, None);
            assert_eq!(tx.seed_list(PROJECT).await?.len(), 2);
            assert!(tx.secret_get("seed", &uuid(2).to_string()).await?.is_some());
            assert_eq!(tx.idempotency_get(asha(), "m", "1").await?, None);
            assert_eq!(tx.api_token_list(PROJECT).await?.len(), 1);
            tx.rollout_list(PROJECT, None, 9).await
        })
    });
    let rollouts = left.await.unwrap();
    let ids: Vec<u128> = rollouts.iter().map(|row| row.plan.rollout.uuid().as_u128()).collect();
    assert_eq!(ids, [2, 4, 3], "one that has not ended, or has a parked member, is never old");
    assert_eq!(clean(&store, keep()).await, Removed::default());
    store.close().await;
}

pub(super) async fn the_newest_rollouts_keep_their_evidence(bed: &Bed) {
    let store = bed.open().await;
    let insert = store.write(|tx| {
        Box::pin(async move {
            for number in 1..=5 {
                tx.rollout_insert(&ended(number, i64::try_from(number).unwrap())).await?;
            }
            Ok::<_, Error>(())
        })
    });
    insert.await.unwrap();
    let removed = clean(&store, Keep { rollouts_per_target: 2, ..keep() }).await;
    assert_eq!(removed.rollouts, 3);
    let left = store.read(|tx| Box::pin(async move { tx.rollout_list(PROJECT, None, 9).await })).await.unwrap();
    assert_eq!(left, [ended(5, 5), ended(4, 4)], "with every step and its evidence");
    let plain = Progress::queued(3);
    assert_ne!(left[0].progress.steps, plain.steps);
    store.close().await;
}

pub(super) async fn a_batch_is_not_exceeded(bed: &Bed) {
    let store = bed.open().await;
    let insert = store.write(|tx| {
        Box::pin(async move {
            for number in 1..=5 {
                let mut happened = event(number, "");
                happened.at = at(OLD);
                tx.event_append(PROJECT, &happened).await?;
            }
            Ok::<_, Error>(())
        })
    });
    insert.await.unwrap();
    let small = Keep { batch: 2, ..keep() };
    let mut rounds = Vec::new();
    loop {
        let removed = clean(&store, small).await;
        rounds.push(removed.events);
        if !removed.more {
            break;
        }
    }
    assert_eq!(rounds, [2, 2, 1]);
    store.close().await;
}
