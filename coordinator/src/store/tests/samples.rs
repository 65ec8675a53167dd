//! Rows to store: every field with a value of its own, so that one that gets lost is seen.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use domain::app::{App, Driver, Expose, Gate, Mode, Process, TargetSpec, TestSpec};
use domain::environment::{
    Activity, Environment, EnvironmentState, Isolation, Observed, ServiceObserved, ServiceState, Source, Wanted,
};
use domain::event::{Actor, NewEvent};
use domain::health::{HealthCheck, Probe};
use domain::host::{Facts, Host, Liveness};
use domain::ids::{
    BuildId, EnvironmentId, EventId, Generation, HostId, PrincipalId, ReleaseId, RolloutId, RunId, SeedId,
};
use domain::label::{Selector, parse_labels};
use domain::name::{Name, TargetRef};
use domain::policy::{Amount, OnNewer, Policy};
use domain::release::{Build, Commit, Digest, Image, Release};
use domain::rollout::plan::{Kind, Member, Plan};
use domain::rollout::progress::{Deadline, Holder, Ordered, Previous, Progress, RolloutState, Step, StepState};
use domain::rollout::reason::{Reason, ReasonCode};
use domain::run::{
    CaseOutcome, Report as TestReport, Run, RunSeed, RunState, Subject, TestCase, Verdict as RunVerdict,
};
use domain::seed::{Begin, Data, DataObserved, Seed, SeedFormat, SeedInput, SeedPart, SeedState};
use domain::step::evidence::{Answer, Cause, Failure};
use domain::step::journal::{Settled, StepPhase, Verdict};
use domain::step::report::{
    Durations, HealthNow, Report, StageCheck, StageOutcome, StageRefusal, StageReport, Stamp, StepReport,
};
use domain::time::Timestamp;
use uuid::Uuid;

use super::super::PROJECT;
use super::super::app::AppRow;
use super::super::build::BuildRow;
use super::super::environment::{EnvironmentRow, Life};
use super::super::host::{Certificate, HostRow};
use super::super::release::ReleaseRow;
use super::super::rollout::RolloutRow;
use super::super::run::RunRow;
use super::super::seed::SeedRow;

pub(super) const S: i64 = 1_000_000;

pub(super) fn uuid(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

pub(super) fn at(seconds: i64) -> Timestamp {
    Timestamp(seconds * S)
}

pub(super) fn name(text: &str) -> Name {
    Name::new("name", text).unwrap()
}

pub(super) fn target(text: &str) -> TargetRef {
    TargetRef::parse(text).unwrap()
}

pub(super) fn digest(digit: char) -> Digest {
    Digest::parse(&digit.to_string().repeat(64)).unwrap()
}

pub(super) fn commit(digit: char) -> Commit {
    Commit::parse(&digit.to_string().repeat(40)).unwrap()
}

pub(super) fn asha() -> PrincipalId {
    PrincipalId::new(uuid(0xa5a))
}

fn strings(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

pub(super) fn event(number: u128, scope: &str) -> NewEvent {
    NewEvent {
        id: EventId::new(uuid(number)),
        at: at(i64::try_from(number).unwrap()),
        actor: Actor::Principal(asha(), "asha".to_owned()),
        kind: "host.drained",
        subject: ("host", "web-1".to_owned()),
        scope: scope.to_owned(),
        text: format!("event {number}"),
        reason: "E_TEST".to_owned(),
    }
}

pub(super) fn host(number: u128, called: &str) -> HostRow {
    let facts = Facts {
        agent_version: "1".to_owned(),
        boot_id: "b".to_owned(),
        platform: "linux/amd64".to_owned(),
        os: "debian 12".to_owned(),
        cpus: 2,
        memory_bytes: 3,
        memory_available_bytes: 4,
        disk_bytes: 5,
        disk_available_bytes: 6,
        engine_version: "7".to_owned(),
        address: "127.0.0.11".to_owned(),
        pool_backend: "reflink".to_owned(),
        pool_why: "so".to_owned(),
        pool_total_bytes: 8,
        pool_available_bytes: 9,
        pool_own_bytes: 10,
        pool_shared_bytes: 11,
        max_environments: 12,
        max_environment_bytes: 13,
    };
    HostRow {
        project: PROJECT.to_owned(),
        principal: Some(asha()),
        host: Host {
            id: HostId::new(uuid(number)),
            name: name(called),
            labels: parse_labels("app=bot,env=production").unwrap(),
            draining: true,
            facts,
            joined_at: at(1),
            seen_at: Some(at(2)),
            liveness: Liveness::Unreachable,
        },
        since: at(3),
        certificate: Some(Certificate {
            serial: "0f".to_owned(),
            fingerprint: digest('c'),
            not_after: at(4),
            revoked: true,
        }),
        version: 0,
    }
}

fn process(probe: Probe) -> Process {
    Process {
        command: vec!["python".to_owned(), "-m".to_owned(), "bot".to_owned()],
        ports: vec![8080, 8081],
        health: Some(HealthCheck { start_period: Duration::from_millis(7), ..HealthCheck::new(probe) }),
        overlap: false,
        on: Some(Selector::parse("role=leader").unwrap()),
        environment: strings(&[("A", "1")]),
    }
}

fn processes() -> BTreeMap<Name, Process> {
    let probes = [
        ("web", Probe::Http { path: "/health".to_owned(), port: Some(8080) }),
        ("tcp", Probe::Tcp { port: None }),
        ("postgres", Probe::Postgres { port: 5432 }),
        ("redis", Probe::Redis { port: 6379 }),
        ("plain", Probe::Container),
        ("command", Probe::Command { argv: vec!["true".to_owned()] }),
    ];
    probes.into_iter().map(|(called, probe)| (name(called), process(probe))).collect()
}

fn expose() -> Vec<Expose> {
    let expose = |port, mode, address| Expose { process: name("web"), port, mode, address };
    vec![expose(80, Mode::Http, Some("0.0.0.0".to_owned())), expose(81, Mode::Tcp, None)]
}

fn policy() -> Policy {
    Policy {
        max_parallel: Amount::Percent(10),
        auto_promote: false,
        minimum_healthy_hosts: Some(Amount::Count(2)),
        on_newer: OnNewer::Supersede,
        auto_revert: false,
        ..Policy::default()
    }
}

pub(super) fn app(called: &str) -> AppRow {
    let tests = TestSpec {
        command: vec!["pytest".to_owned()],
        service: Some(name("bot")),
        junit: Some("out/*.xml".to_owned()),
        timeout: Duration::from_secs(60),
        no_output: Duration::from_secs(5),
    };
    let spec = TargetSpec {
        members: Selector::parse("app=bot,env=production").unwrap(),
        driver: Driver::Container,
        expose: expose(),
        policy: policy(),
        gates: vec![Gate::Health],
    };
    AppRow {
        project: PROJECT.to_owned(),
        principal: asha(),
        app: App {
            name: name(called),
            processes: processes(),
            stack: Some("compose.yaml".to_owned()),
            tests: BTreeMap::from([(name("unit"), tests)]),
            targets: BTreeMap::from([(name("production"), spec)]),
        },
        manifest: "app: bot\n".to_owned(),
        repository: "https://git.example/bot".to_owned(),
        applied_at: at(5),
        version: 0,
    }
}

fn image() -> Image {
    Image {
        reference: Some("registry.example/bot@sha256:00".to_owned()),
        archive: Some(digest('a')),
        archive_bytes: 17,
        config_digest: Some(digest('b')),
        platform: "linux/amd64".to_owned(),
    }
}

pub(super) fn build(number: u128, seconds: i64) -> BuildRow {
    BuildRow {
        project: PROJECT.to_owned(),
        principal: asha(),
        build: Build {
            id: BuildId::new(uuid(number)),
            app: name("bot"),
            commit: commit('1'),
            processes: processes(),
            image: image(),
            manifest: "app: bot\n".to_owned(),
            created_at: at(seconds),
        },
    }
}

pub(super) fn release(number: u64, digit: char) -> ReleaseRow {
    ReleaseRow {
        project: PROJECT.to_owned(),
        principal: asha(),
        release: Release {
            id: ReleaseId::new(uuid(u128::from(number) + 100)),
            target: target("bot/production"),
            number,
            build: BuildId::new(uuid(1)),
            commit: commit('2'),
            image: image(),
            processes: processes(),
            expose: expose(),
            config_revision: 3,
            config: strings(&[("HISTORY_LIMIT", "50")]),
            digest: digest(digit),
            created_at: at(6),
        },
    }
}

pub(super) fn environment(number: u128, called: &str) -> EnvironmentRow {
    let service = ServiceObserved {
        name: "postgres".to_owned(),
        state: ServiceState::CrashLoop,
        detail: "exit 1".to_owned(),
        ready_after_micros: Some(9),
        addresses: BTreeMap::from([(5432, "127.0.0.1:20410".to_owned())]),
        variables: BTreeMap::new(),
        last_lines: vec!["FATAL".to_owned()],
        isolation: Some(Isolation {
            at: at(5),
            tried: 84,
            reached: vec!["198.18.0.2:5432 (muster-x-db)".to_owned()],
            problem: String::new(),
        }),
    };
    EnvironmentRow {
        project: PROJECT.to_owned(),
        environment: Environment {
            id: EnvironmentId::new(uuid(number)),
            name: name(called),
            owner: asha(),
            app: Some(name("bot")),
            host: HostId::new(uuid(1)),
            run: Some(RunId::new(uuid(2))),
            stack_file: "services: {}\n".to_owned(),
            variables: strings(&[("TAG", "x")]),
            source: Source::Grant { grant: "g".to_owned() },
            generation: Generation(4),
            wanted: Wanted::Down,
            observed: Observed {
                generation: Generation(3),
                state: EnvironmentState::Failed,
                reason: Some(("E_SERVICE".to_owned(), "postgres ended".to_owned())),
                services: vec![service],
                notices: vec!["copied".to_owned()],
                activity: Some(Activity { last_used: at(8), why: "used".to_owned(), memory_bytes: 5 }),
            },
            created_at: at(7),
        },
        file: "compose.yaml".to_owned(),
        env_files: strings(&[(".env", "A=1\n")]),
        data: Data {
            seed: Some(SeedId::new(uuid(31))),
            address: "staging@1".to_owned(),
            digest: Some(digest('5')),
            from: Begin::Epoch(3),
            epoch: 4,
            observed: DataObserved { line: "cloned".to_owned(), own_bytes: 11, shared_bytes: 12, kept: vec![2, 3] },
        },
        gone_at: None,
        life: Life {
            ttl: Some(Duration::from_secs(9)),
            keep_until: Some(at(9)),
            warned: Some((at(10), at(11))),
            restarts: BTreeMap::from([("web".to_owned(), 3)]),
            rebuilds: BTreeMap::from([("web".to_owned(), 2)]),
        },
        version: 0,
    }
}

pub(super) fn seed(number: u128, called: &str, version: &str) -> SeedRow {
    let input = SeedInput {
        service: "postgres".to_owned(),
        format: SeedFormat::PgCustom,
        name: "staging.dump".to_owned(),
        bytes: 21,
        artifact: digest('6'),
    };
    let part = SeedPart {
        volume: "data".to_owned(),
        service: "postgres".to_owned(),
        kind: "postgres".to_owned(),
        image: "sha256:1".to_owned(),
        version: "15.8".to_owned(),
        collation: "2.36".to_owned(),
        bytes: 22,
        files: 23,
    };
    SeedRow {
        project: PROJECT.to_owned(),
        seed: Seed {
            id: SeedId::new(uuid(number)),
            name: name(called),
            version: version.to_owned(),
            snapshot: false,
            owner: asha(),
            app: Some(name("bot")),
            environment: Some(EnvironmentId::new(uuid(1))),
            host: HostId::new(uuid(1)),
            inputs: vec![input],
            state: SeedState::Making,
            reason: Some(("E_SEED".to_owned(), "why".to_owned())),
            detail: "restores".to_owned(),
            digest: Some(digest('7')),
            parts: vec![part],
            bytes: 24,
            canaries: 25,
            masked: true,
            created_at: at(8),
            ended_at: None,
            took: Some(Duration::from_micros(26)),
            freeze: Some(Duration::from_micros(27)),
        },
        version: 0,
    }
}

pub(super) fn run(number: u128, seconds: i64) -> RunRow {
    let case =
        TestCase { name: "a::b".to_owned(), outcome: CaseOutcome::Failed, micros: 5, message: "assert".to_owned() };
    RunRow {
        project: PROJECT.to_owned(),
        run: Run {
            id: RunId::new(uuid(number)),
            app: name("bot"),
            tests: name("unit"),
            subject: Subject::Build(BuildId::new(uuid(1))),
            commit: commit('3'),
            repository: "https://git.example/bot".to_owned(),
            manifest: "app: bot\n".to_owned(),
            owner: asha(),
            host: Some(HostId::new(uuid(1))),
            environment: Some(EnvironmentId::new(uuid(2))),
            seed: Some(RunSeed {
                id: SeedId::new(uuid(5)),
                address: "staging@2026-11-23".to_owned(),
                digest: digest('e'),
            }),
            state: RunState::Running,
            cancel: true,
            verdict: Some(RunVerdict::Failed),
            reason: Some(("E_RUN_X".to_owned(), "why".to_owned())),
            exit_code: Some(-1),
            report: Some(TestReport {
                total: 2,
                failed: 1,
                errored: 3,
                skipped: 4,
                failures: vec![case],
                warnings: vec!["odd".to_owned()],
            }),
            created_at: at(seconds),
            assigned_at: Some(at(9)),
            first_line_at: Some(at(10)),
            finished_at: None,
            took: Some(Duration::from_millis(1500)),
        },
        detail: "runs pytest".to_owned(),
        version: 0,
    }
}

pub(super) fn failure() -> Failure {
    Failure {
        cause: Cause::HealthFailing,
        process: Some(name("web")),
        text: "GET /health".to_owned(),
        answers: vec![Answer { before: Duration::from_secs(1), ok: false, text: "HTTP 500".to_owned() }],
        exit_code: Some(3),
        restarts: 2,
        log: vec!["Traceback".to_owned()],
    }
}

pub(super) fn report() -> Report {
    let durations = Durations {
        staged: Some(Duration::from_micros(1)),
        warm: Some(Duration::from_micros(2)),
        switched: Some(Duration::from_micros(3)),
        checked: Some(Duration::from_micros(4)),
        confirmed: None,
    };
    Report {
        stamp: Stamp { run: 1, number: 2 },
        generation: Generation(3),
        current: Some(ReleaseId::new(uuid(101))),
        routed: Some(ReleaseId::new(uuid(102))),
        stage: Some(StageReport {
            generation: Generation(2),
            release: ReleaseId::new(uuid(102)),
            outcome: Some(StageOutcome::Refused(StageRefusal { check: StageCheck::Disk, text: "full".to_owned() })),
            took: Some(Duration::from_secs(1)),
        }),
        step: Some(StepReport {
            generation: Generation(3),
            to: ReleaseId::new(uuid(102)),
            phase: StepPhase::Settled,
            warm: true,
            verdict: Some(Verdict::Failed(Box::new(failure()))),
            settled: Some(Settled::Undone),
            healthy_for: Some(Duration::from_secs(2)),
            durations,
        }),
        health: HealthNow::Failing(Box::new(failure())),
        serving: true,
        quiet: false,
    }
}

fn member(ordinal: u32) -> Member {
    Member {
        ordinal,
        member: HostId::new(uuid(u128::from(ordinal) + 1)),
        executor: HostId::new(uuid(u128::from(ordinal) + 50)),
        name: name(&format!("host-{ordinal}")),
        wave: ordinal,
        processes: vec![name("web"), name("scheduler")],
    }
}

pub(super) fn rollout(number: u128, seconds: i64, state: RolloutState) -> RolloutRow {
    let plan = Plan {
        rollout: RolloutId::new(uuid(number)),
        target: target("bot/production"),
        kind: Kind::Forward,
        release: ReleaseId::new(uuid(102)),
        number: 2,
        policy: policy(),
        members: (0..3).map(member).collect(),
    };
    RolloutRow {
        project: PROJECT.to_owned(),
        principal: asha(),
        progress: Progress { state, ..Progress::queued(plan.members.len()) },
        plan: Arc::new(plan),
        from: Some(ReleaseId::new(uuid(101))),
        message: "because".to_owned(),
        unlocked: true,
        created_at: at(seconds),
        finished_at: None,
        version: 1,
    }
}

/// A progress with a value in every column.
pub(super) fn far() -> Progress {
    let step = Step {
        state: StepState::Checking,
        since: at(11),
        unknown_since: Some(at(12)),
        generation: Generation(13),
        ordered: Ordered::Revert(ReleaseId::new(uuid(101))),
        attempt: 14,
        previous: Previous::Release(ReleaseId::new(uuid(101))),
        failed: true,
        undone: 15,
        converging: true,
        failure: Some(Box::new(failure())),
        durations: Durations {
            staged: Some(Duration::from_micros(16)),
            warm: Some(Duration::from_micros(17)),
            switched: Some(Duration::from_micros(18)),
            checked: Some(Duration::from_micros(19)),
            confirmed: Some(Duration::from_micros(20)),
        },
        reverted_in: Some(Duration::from_micros(21)),
        healthy_since: Some(at(22)),
        touched_at: Some(at(23)),
    };
    let converge = Ordered::Converge(ReleaseId::new(uuid(101)));
    let removed = Step { ordered: converge, previous: Previous::Nothing, ..step.clone() };
    Progress {
        state: RolloutState::Paused,
        reason: Some(Reason {
            code: ReasonCode::MaxFail,
            detail: "E_HEALTH_FAILING".to_owned(),
            text: "one failed".to_owned(),
        }),
        interrupted: Some(RolloutState::Running),
        holders: BTreeSet::from(Holder::ALL),
        cancel_asked: true,
        supersede_asked: true,
        asked_by: "asha".to_owned(),
        wave: 2,
        progress_by: Deadline::Left(Duration::from_secs(24)),
        bake_until: Some(at(25)),
        steps: vec![Step::default(), step, removed],
    }
}
