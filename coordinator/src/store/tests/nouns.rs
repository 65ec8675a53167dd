//! Every noun comes back as it was stored, and two parties cannot overwrite each other.

use std::collections::BTreeMap;

use domain::authorize::{Grant, Role, Scope};
use domain::environment::Source;
use domain::ids::{ApiTokenId, Generation, HostId, JoinTokenId, PrincipalId};
use domain::label::parse_labels;
use domain::rollout::reports::Lock;
use domain::run::{RunState, Subject};

use super::super::artifact::ArtifactRow;
use super::super::config::ConfigRow;
use super::super::idempotency::IdempotencyRow;
use super::super::log::LogSegmentRow;
use super::super::secret::SecretRow;
use super::super::target::{LockRow, TargetRow};
use super::super::token::{ApiTokenRow, JoinTokenRow, PrincipalRow};
use super::super::{Error, PROJECT, Result, Store, Tx};
use super::bed::Bed;
use super::samples::{
    app, asha, at, build, commit, digest, environment, host, name, release, report, run, target, uuid,
};

pub(super) const CONFLICT: &str = "E_STORE_CONFLICT";
pub(super) const EXISTS: &str = "E_STORE_EXISTS";

/// Runs one write whose body is the block, and unwraps it.
macro_rules! write {
    ($store:expr, |$tx:ident| $body:block) => {
        $store.write(|$tx| Box::pin(async move { Ok::<_, Error>($body) })).await.unwrap()
    };
}

pub(super) fn code<T: std::fmt::Debug>(result: Result<T>) -> &'static str {
    result.map_err(|error| error.code()).expect_err("it must be refused")
}

async fn done(store: Store) {
    store.close().await;
}

pub(super) async fn hosts(bed: &Bed) {
    let store = bed.open().await;
    let row = host(1, "web-1");
    let mut bare = host(2, "web-2");
    (bare.certificate, bare.principal, bare.host.seen_at) = (None, None, None);
    write!(store, |tx| {
        assert_eq!(tx.host_put(&row).await?, 1);
        assert_eq!(tx.host_put(&bare).await?, 1);
        let (row, bare) = (with_version(row, 1), with_version(bare, 1));
        assert_eq!(tx.host_get(row.host.id).await?.as_ref(), Some(&row));
        assert_eq!(tx.host_by_name(PROJECT, &name("web-2")).await?.as_ref(), Some(&bare));
        assert_eq!(tx.host_by_name("other", &name("web-2")).await?, None);
        assert_eq!(tx.host_list(PROJECT).await?, [row.clone(), bare]);
        let mut changed = row.clone();
        changed.host.draining = false;
        assert_eq!(tx.host_put(&changed).await?, 2);
        assert_eq!(code(tx.host_put(&row).await), CONFLICT);
        assert_eq!(code(tx.host_put(&with_version(row.clone(), 0)).await), EXISTS);
        assert_eq!(tx.host_get(row.host.id).await?, Some(with_version(changed, 2)));
        assert!(tx.host_delete(row.host.id).await?);
        assert!(!tx.host_delete(row.host.id).await?);
        assert_eq!(code(tx.host_put(&row).await), CONFLICT);
    });
    done(store).await;
}

fn with_version(row: super::super::host::HostRow, version: u64) -> super::super::host::HostRow {
    super::super::host::HostRow { version, ..row }
}

pub(super) async fn principals_and_tokens(bed: &Bed) {
    let store = bed.open().await;
    let principal = PrincipalRow {
        id: asha(),
        project: PROJECT.to_owned(),
        principal: None,
        name: name("asha"),
        created_at: at(1),
    };
    let token = |number, scope| ApiTokenRow {
        id: ApiTokenId::new(uuid(number)),
        project: PROJECT.to_owned(),
        principal: asha(),
        created_by: Some(asha()),
        secret: digest('5'),
        grant: Grant { role: Role::Deployer, scope },
        created_at: at(2),
        expires_at: at(3),
        revoked_at: None,
    };
    let tokens = [
        token(1, Scope::Project),
        token(2, Scope::App(name("bot"))),
        token(3, Scope::Target(target("bot/production"))),
    ];
    write!(store, |tx| {
        tx.principal_insert(&principal).await?;
        let same = PrincipalRow { id: PrincipalId::new(uuid(9)), ..principal.clone() };
        assert_eq!(code(tx.principal_insert(&same).await), EXISTS);
        assert_eq!(tx.principal_get(asha()).await?.as_ref(), Some(&principal));
        assert_eq!(tx.principal_by_name(PROJECT, &name("asha")).await?.as_ref(), Some(&principal));
        assert_eq!(tx.principal_list(PROJECT).await?, [principal]);
        for token in &tokens {
            tx.api_token_insert(token).await?;
        }
        assert_eq!(tx.api_token_list(PROJECT).await?, tokens);
        assert!(tx.api_token_revoke(tokens[1].id, at(4)).await?);
        assert!(!tx.api_token_revoke(tokens[1].id, at(5)).await?);
        let revoked = tx.api_token_get(tokens[1].id).await?.unwrap();
        assert_eq!(revoked.revoked_at, Some(at(4)));
    });
    done(store).await;
}

fn join_token(number: u128) -> JoinTokenRow {
    JoinTokenRow {
        id: JoinTokenId::new(uuid(number)),
        project: PROJECT.to_owned(),
        principal: asha(),
        host: name("web-1"),
        labels: parse_labels("env=dev").unwrap(),
        secret: digest('6'),
        created_at: at(1),
        expires_at: at(2),
        used: None,
        revoked_at: None,
    }
}

pub(super) async fn one_of_two_uses_of_a_join_token_wins(bed: &Bed) {
    let store = bed.open().await;
    let row = join_token(1);
    let id = row.id;
    write!(store, |tx| {
        tx.join_token_insert(&row).await?;
        assert_eq!(tx.join_token_list(PROJECT).await?, [row]);
    });
    let mut tasks = tokio::task::JoinSet::new();
    for number in 1..=2 {
        let store = store.clone();
        tasks.spawn(async move {
            let host = HostId::new(uuid(number));
            write!(store, |tx| { tx.join_token_use(id, host, at(1)).await? })
        });
    }
    let wins = tasks.join_all().await;
    assert_eq!(wins.iter().filter(|won| **won).count(), 1, "{wins:?}");
    write!(store, |tx| {
        assert!(tx.join_token_get(id).await?.unwrap().used.is_some());
        assert!(!tx.join_token_revoke(id, at(1)).await?);
        tx.join_token_insert(&join_token(2)).await?;
        let other = JoinTokenId::new(uuid(2));
        assert!(tx.join_token_revoke(other, at(1)).await?);
        assert!(!tx.join_token_use(other, HostId::new(uuid(1)), at(1)).await?);
    });
    done(store).await;
}

pub(super) async fn apps(bed: &Bed) {
    let store = bed.open().await;
    write!(store, |tx| {
        let row = app("bot");
        assert_eq!(tx.app_put(&row).await?, 1);
        tx.app_put(&app("api")).await?;
        assert_eq!(code(tx.app_put(&row).await), EXISTS);
        let mut stored = tx.app_get(PROJECT, &name("bot")).await?.unwrap();
        assert_eq!(stored, super::super::app::AppRow { version: 1, ..row });
        stored.manifest.push_str("# changed\n");
        assert_eq!(tx.app_put(&stored).await?, 2);
        assert_eq!(code(tx.app_put(&stored).await), CONFLICT);
        let names: Vec<_> = tx.app_list(PROJECT).await?.into_iter().map(|row| row.app.name).collect();
        assert_eq!(names, [name("api"), name("bot")]);
    });
    done(store).await;
}

pub(super) async fn targets_and_locks(bed: &Bed) {
    let store = bed.open().await;
    let of = target("bot/production");
    let row = TargetRow { project: PROJECT.to_owned(), target: of.clone(), release: None, since: at(1) };
    let lock = LockRow {
        project: PROJECT.to_owned(),
        target: of.clone(),
        principal: Some(asha()),
        lock: Lock { holder: "asha".to_owned(), reason: "freeze".to_owned(), until: at(9) },
        created_at: at(2),
    };
    write!(store, |tx| {
        tx.target_put(&row).await?;
        let newer = TargetRow { release: Some(release(1, '1').release.id), since: at(3), ..row };
        tx.target_put(&newer).await?;
        assert_eq!(tx.target_get(PROJECT, &of).await?.as_ref(), Some(&newer));
        assert_eq!(tx.target_list(PROJECT).await?, [newer]);
        assert_eq!(tx.lock_get(PROJECT, &of).await?, None);
        tx.lock_put(&lock).await?;
        let other = LockRow { principal: None, ..lock };
        tx.lock_put(&other).await?;
        assert_eq!(tx.lock_get(PROJECT, &of).await?, Some(other));
        assert!(tx.lock_delete(PROJECT, &of).await?);
        assert!(!tx.lock_delete(PROJECT, &of).await?);
    });
    done(store).await;
}

pub(super) async fn members(bed: &Bed) {
    let store = bed.open().await;
    let (of, id) = (target("bot/production"), HostId::new(uuid(1)));
    write!(store, |tx| {
        tx.host_put(&host(1, "web-1")).await?;
        tx.member_report_put(PROJECT, &of, id, Some(&report()), at(1)).await?;
        tx.member_generation_put(PROJECT, &of, id, Generation(5)).await?;
        let equal = tx.member_generation_put(PROJECT, &of, id, Generation(5)).await;
        assert_eq!(code(equal), CONFLICT);
        let row = tx.member_get(PROJECT, &of, id).await?.unwrap();
        assert_eq!((row.generation, row.report.as_ref()), (Generation(5), Some(&report())));
        assert_eq!(row.reported_at, Some(at(1)));
        tx.member_report_put(PROJECT, &of, id, None, at(2)).await?;
        let row = tx.member_get(PROJECT, &of, id).await?.unwrap();
        assert_eq!((row.generation, row.report.as_ref()), (Generation(5), None));
        tx.member_generation_put(PROJECT, &of, HostId::new(uuid(2)), Generation(1)).await?;
        assert_eq!(tx.member_list(PROJECT, &of).await?.len(), 2);
        assert_eq!(tx.member_list_of_host(id).await?, [row]);
        tx.host_delete(id).await?;
        assert_eq!(tx.member_get(PROJECT, &of, id).await?, None);
    });
    done(store).await;
}

pub(super) async fn configs(bed: &Bed) {
    let store = bed.open().await;
    let of = target("bot/production");
    write!(store, |tx| {
        assert_eq!(tx.config_newest(PROJECT, &of).await?, None);
        for revision in 1..=11 {
            let values = BTreeMap::from([("LIMIT".to_owned(), revision.to_string())]);
            let target = of.clone();
            let project = PROJECT.to_owned();
            let row = ConfigRow { project, principal: asha(), target, revision, values, created_at: at(1) };
            tx.config_insert(&row).await?;
            assert_eq!(code(tx.config_insert(&row).await), EXISTS);
            assert_eq!(tx.config_newest(PROJECT, &of).await?, Some(row));
        }
        assert_eq!(tx.config_get(PROJECT, &of, 3).await?.unwrap().values["LIMIT"], "3");
        let last: Vec<u64> = tx.config_list(PROJECT, &of, 2).await?.into_iter().map(|row| row.revision).collect();
        assert_eq!(last, [11, 10]);
    });
    done(store).await;
}

pub(super) async fn builds(bed: &Bed) {
    let store = bed.open().await;
    write!(store, |tx| {
        let (first, mut second) = (build(1, 10), build(2, 11));
        second.build.image.archive = None;
        second.build.image.reference = None;
        second.build.image.config_digest = None;
        second.build.commit = commit('9');
        tx.build_insert(&first).await?;
        tx.build_insert(&second).await?;
        assert_eq!(code(tx.build_insert(&first).await), EXISTS);
        assert_eq!(tx.build_get(first.build.id).await?.as_ref(), Some(&first));
        assert_eq!(tx.build_newest(PROJECT, &name("bot")).await?.as_ref(), Some(&second));
        assert_eq!(tx.build_list_at(PROJECT, &name("bot"), &commit('1')).await?, std::slice::from_ref(&first));
        assert_eq!(tx.build_list(PROJECT, None, 9).await?, [second.clone(), first]);
        assert_eq!(tx.build_list(PROJECT, Some(&name("bot")), 1).await?, [second]);
        assert_eq!(tx.build_newest(PROJECT, &name("api")).await?, None);
    });
    done(store).await;
}

pub(super) async fn releases(bed: &Bed) {
    let store = bed.open().await;
    write!(store, |tx| {
        let of = target("bot/production");
        let (first, second) = (release(1, '1'), release(2, '2'));
        tx.release_insert(&first).await?;
        tx.release_insert(&second).await?;
        assert_eq!(code(tx.release_insert(&release(2, '3')).await), EXISTS, "its number is taken");
        assert_eq!(code(tx.release_insert(&release(3, '1')).await), EXISTS, "its digest is taken");
        assert_eq!(tx.release_get(first.release.id).await?.as_ref(), Some(&first));
        assert_eq!(tx.release_by_number(PROJECT, &of, 2).await?.as_ref(), Some(&second));
        assert_eq!(tx.release_by_digest(PROJECT, &of, &digest('1')).await?.as_ref(), Some(&first));
        assert_eq!(tx.release_newest(PROJECT, &of).await?.as_ref(), Some(&second));
        assert_eq!(tx.release_list(PROJECT, &of, 9).await?, [second, first]);
        assert_eq!(tx.release_newest(PROJECT, &target("bot/staging")).await?, None);
    });
    done(store).await;
}

pub(super) async fn environments(bed: &Bed) {
    let store = bed.open().await;
    write!(store, |tx| {
        let mut row = environment(1, "bot");
        let id = row.environment.id;
        row.version = tx.environment_put(&row).await?;
        assert_eq!(tx.environment_get(id).await?.as_ref(), Some(&row));
        assert_eq!(tx.environment_by_name(PROJECT, asha(), &name("bot")).await?.as_ref(), Some(&row));
        assert_eq!(code(tx.environment_put(&environment(2, "bot")).await), EXISTS);
        assert_eq!(tx.environment_list(PROJECT, Some(asha())).await?, [row.clone()]);
        assert_eq!(tx.environment_list(PROJECT, Some(PrincipalId::new(uuid(9)))).await?, []);
        let mut gone = row.clone();
        gone.gone_at = Some(at(9));
        gone.environment.source = Source::Checkout;
        gone.environment.observed.reason = None;
        gone.version = tx.environment_put(&gone).await?;
        assert_eq!(code(tx.environment_put(&row).await), CONFLICT);
        assert_eq!(tx.environment_get(id).await?, Some(gone));
        assert_eq!(tx.environment_list(PROJECT, None).await?, []);
        let mut next = environment(2, "bot");
        next.environment.source = Source::None;
        (next.environment.app, next.environment.run) = (None, None);
        next.version = tx.environment_put(&next).await?;
        assert_eq!(tx.environment_list_of_host(next.environment.host).await?, [next]);
    });
    done(store).await;
}

pub(super) async fn environments_never_hold_credentials(bed: &Bed) {
    let store = bed.open().await;
    write!(store, |tx| {
        let mut row = environment(1, "bot");
        let variables = &mut row.environment.observed.services[0].variables;
        variables.insert("POSTGRES_PASSWORD".to_owned(), "hunter2".to_owned());
        tx.environment_put(&row).await?;
        let stored = tx.environment_get(row.environment.id).await?.unwrap();
        assert!(stored.environment.observed.services[0].variables.is_empty());
    });
    done(store).await;
}

pub(super) async fn runs(bed: &Bed) {
    let store = bed.open().await;
    write!(store, |tx| {
        let (mut first, mut second) = (run(1, 10), run(2, 11));
        first.version = tx.run_put(&first).await?;
        (second.run.subject, second.run.host, second.run.report) = (Subject::Tree, None, None);
        (second.run.state, second.run.took) = (RunState::Queued, None);
        second.version = tx.run_put(&second).await?;
        assert_eq!(tx.run_get(first.run.id).await?.as_ref(), Some(&first));
        assert_eq!(tx.run_list(PROJECT, Some(&name("bot")), 9).await?, [second.clone(), first.clone()]);
        assert_eq!(tx.run_list(PROJECT, Some(&name("api")), 9).await?, []);
        assert_eq!(tx.run_list_open().await?, [first.clone(), second]);
        assert_eq!(tx.run_list_of_host(first.run.host.unwrap()).await?, [first.clone()]);
        let mut ended = first.clone();
        (ended.run.state, ended.run.finished_at) = (RunState::Finished, Some(at(12)));
        assert_eq!(tx.run_put(&ended).await?, 2);
        assert_eq!(code(tx.run_put(&first).await), CONFLICT);
        assert_eq!(tx.run_list_of_host(first.run.host.unwrap()).await?, []);
    });
    done(store).await;
}

pub(super) async fn artifacts(bed: &Bed) {
    let store = bed.open().await;
    let row = |digit, seconds| ArtifactRow {
        project: PROJECT.to_owned(),
        principal: Some(asha()),
        digest: digest(digit),
        bytes: 1 << 40,
        created_at: at(seconds),
    };
    let rows = [row('1', 1), row('2', 2), row('3', 3)];
    write!(store, |tx| {
        for row in &rows {
            assert!(tx.artifact_insert(row).await?);
            assert!(!tx.artifact_insert(row).await?);
        }
        assert_eq!(tx.artifact_get(&digest('1')).await?.as_ref(), Some(&rows[0]));
        tx.artifact_ref_put(&digest('1'), "build", "b1").await?;
        tx.artifact_ref_put(&digest('1'), "build", "b1").await?;
        assert_eq!(tx.artifact_list_unused(at(3), 9).await?, [rows[1].clone()]);
        assert!(!tx.artifact_delete(&digest('1')).await?);
        tx.artifact_ref_delete("build", "b1").await?;
        assert!(tx.artifact_delete(&digest('1')).await?);
        assert_eq!(tx.artifact_get(&digest('1')).await?, None);
    });
    done(store).await;
}

fn segment(start: u64, bytes: u64) -> LogSegmentRow {
    LogSegmentRow {
        project: PROJECT.to_owned(),
        key: "run:1".to_owned(),
        start,
        bytes,
        path: format!("logs/{start}"),
        created_at: at(1),
    }
}

pub(super) async fn logs(bed: &Bed) {
    let store = bed.open().await;
    write!(store, |tx| {
        assert_eq!(tx.log_end("run:1").await?, 0);
        tx.log_segment_append(&segment(0, 10)).await?;
        tx.log_segment_append(&segment(10, 5)).await?;
        assert_eq!(code(tx.log_segment_append(&segment(10, 5)).await), CONFLICT);
        assert_eq!(code(tx.log_segment_append(&segment(16, 5)).await), CONFLICT);
        assert_eq!(tx.log_end("run:1").await?, 15);
        assert_eq!(tx.log_segment_list("run:1", 9, 9).await?, [segment(0, 10), segment(10, 5)]);
        assert_eq!(tx.log_segment_list("run:1", 10, 9).await?, [segment(10, 5)]);
        assert_eq!(tx.log_segment_list("run:1", 0, 1).await?, [segment(0, 10)]);
        assert_eq!(tx.log_end("run:2").await?, 0);
    });
    let empty = store.write(|tx| Box::pin(async move { tx.log_segment_append(&segment(15, 0)).await })).await;
    assert_eq!(code(empty), "E_STORE_VALUE");
    done(store).await;
}

pub(super) async fn idempotency_keys(bed: &Bed) {
    let store = bed.open().await;
    let row = IdempotencyRow {
        project: PROJECT.to_owned(),
        principal: asha(),
        method: "Rollouts.Start".to_owned(),
        key: "build-7".to_owned(),
        body: digest('7'),
        created: "r1".to_owned(),
        at: at(1),
    };
    write!(store, |tx| {
        assert_eq!(tx.idempotency_get(asha(), &row.method, &row.key).await?, None);
        tx.idempotency_insert(&row).await?;
        let other = IdempotencyRow { body: digest('8'), created: "r2".to_owned(), ..row.clone() };
        assert_eq!(code(tx.idempotency_insert(&other).await), EXISTS);
        assert_eq!(tx.idempotency_get(asha(), &row.method, &row.key).await?.as_ref(), Some(&row));
        assert_eq!(tx.idempotency_get(asha(), "Runs.Start", &row.key).await?, None);
        assert_eq!(tx.idempotency_get(PrincipalId::new(uuid(9)), &row.method, &row.key).await?, None);
    });
    done(store).await;
}

pub(super) async fn secrets_and_facts(bed: &Bed) {
    let store = bed.open().await;
    let sealed: Vec<u8> = (0..=255).collect();
    let (project, kind, id) = (PROJECT.to_owned(), "ca".to_owned(), "1".to_owned());
    let row = SecretRow { project, kind, id, sealed, created_at: at(1) };
    assert!(!format!("{row:?}").contains("254"), "sealed bytes are not shown");
    write!(store, |tx| {
        tx.secret_put(&row).await?;
        assert_eq!(tx.secret_get("ca", "1").await?.as_ref(), Some(&row));
        let empty = SecretRow { sealed: Vec::new(), ..row };
        tx.secret_put(&empty).await?;
        assert_eq!(tx.secret_get("ca", "1").await?, Some(empty));
        assert!(tx.secret_delete("ca", "1").await?);
        assert!(!tx.secret_delete("ca", "1").await?);
        tx.meta_put("k", "1").await?;
        tx.meta_put("k", "2").await?;
        assert_eq!(tx.meta_get("k").await?.as_deref(), Some("2"));
        assert_eq!(tx.meta_get("other").await?, None);
    });
    done(store).await;
}

pub(super) async fn text_with_a_nul_is_stored(bed: &Bed) {
    let store = bed.open().await;
    async fn put(tx: &mut dyn Tx) -> Result<()> {
        let mut row = run(1, 1);
        row.detail = "a\0b".to_owned();
        row.run.report.as_mut().unwrap().warnings.push("c\0d".to_owned());
        tx.run_put(&row).await?;
        let stored = tx.run_get(row.run.id).await?.unwrap();
        assert!(stored.detail.starts_with('a') && stored.detail.ends_with('b'));
        assert_eq!(stored.run.report, row.run.report);
        Ok(())
    }
    store.write(|tx| Box::pin(put(tx))).await.unwrap();
    done(store).await;
}
