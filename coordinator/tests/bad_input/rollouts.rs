//! Environments, runs, rollouts.

use domain::ids::{EnvironmentId, RolloutId, RunId};
use proto::v1;
use tonic::Status;
use uuid::Uuid;

use super::{World, map};
use crate::support::{COMMIT, COMPOSE, as_, reason};

#[tokio::test]
async fn malformed_environments_runs_and_rollouts_are_refused_and_change_nothing() {
    let world = World::new().await;
    let w = &world;
    let mut seen = Vec::new();

    // Environments.
    let up = |name: &str, stack: &str, host: &str| v1::UpEnvironmentRequest {
        name: name.into(),
        stack_file: stack.into(),
        host: host.into(),
        ..Default::default()
    };
    case!(
        w,
        seen,
        "E_STACK_SYNTAX",
        refused!(w, environments_client::EnvironmentsClient.up(up("a", "services: {", "")))
    );
    case!(
        w,
        seen,
        "E_STACK_MISSING_KEY",
        refused!(w, environments_client::EnvironmentsClient.up(up("a", "services:\n  web: {}\n", "")))
    );
    case!(
        w,
        seen,
        "E_STACK_DEPENDENCY_UNKNOWN",
        refused!(
            w,
            environments_client::EnvironmentsClient.up(up(
                "a",
                "services:\n  web: { image: x, depends_on: [y] }\n",
                ""
            ))
        )
    );
    case!(w, seen, "E_FIELD", refused!(w, environments_client::EnvironmentsClient.up(up("", COMPOSE, ""))));
    case!(
        w,
        seen,
        "E_ENV_NOT_FOUND",
        refused!(
            w,
            environments_client::EnvironmentsClient
                .show(v1::ShowEnvironmentRequest { environment: "nobody/none".into() })
        )
    );
    case!(
        w,
        seen,
        "E_ENV_NOT_FOUND",
        refused!(
            w,
            environments_client::EnvironmentsClient
                .down(v1::DownEnvironmentRequest { environment: EnvironmentId::new(Uuid::nil()).to_string() })
        )
    );
    w.server.host("away", "").await;
    case!(w, seen, "E_ENV_NO_HOST", refused!(w, environments_client::EnvironmentsClient.up(up("a", COMPOSE, "away"))));

    // Runs.
    let run = |tests: &str, commit: &str, build: &str| v1::StartRunRequest {
        app: "bot".into(),
        tests: tests.into(),
        commit: commit.into(),
        build: build.into(),
        ..Default::default()
    };
    case!(w, seen, "E_TESTS_NOT_FOUND", refused!(w, runs_client::RunsClient.start(run("nightly", COMMIT, ""))));
    case!(w, seen, "E_GIT_COMMIT", refused!(w, runs_client::RunsClient.start(run("unit", "--upload-pack=id", ""))));
    case!(w, seen, "E_FIELD", refused!(w, runs_client::RunsClient.start(run("unit", "", ""))));
    case!(
        w,
        seen,
        "E_AMBIGUOUS",
        refused!(w, runs_client::RunsClient.start(run("unit", COMMIT, &Uuid::nil().to_string())))
    );
    case!(
        w,
        seen,
        "E_BUILD_NOT_FOUND",
        refused!(w, runs_client::RunsClient.start(run("unit", "", &Uuid::nil().to_string())))
    );
    case!(
        w,
        seen,
        "E_RUN_NOT_FOUND",
        refused!(w, runs_client::RunsClient.show(v1::ShowRunRequest { run: RunId::new(Uuid::nil()).to_string() }))
    );
    case!(
        w,
        seen,
        "E_RUN_ENDED",
        refused!(w, runs_client::RunsClient.cancel(v1::ShowRunRequest { run: w.finished_run.clone() }))
    );

    // Rollouts.
    let start = |change: &dyn Fn(&mut v1::StartRolloutRequest)| {
        let mut ask = v1::StartRolloutRequest { target: "bot/production".into(), ..Default::default() };
        change(&mut ask);
        ask
    };
    case!(
        w,
        seen,
        "E_BUILD_NOT_FOUND",
        refused!(w, rollouts_client::RolloutsClient.start(start(&|ask| ask.commit = "0".repeat(40))))
    );
    case!(
        w,
        seen,
        "E_RELEASE_NOT_FOUND",
        refused!(w, rollouts_client::RolloutsClient.start(start(&|ask| ask.release = 99)))
    );
    case!(
        w,
        seen,
        "E_OVERRIDE",
        refused!(
            w,
            rollouts_client::RolloutsClient.start(start(&|ask| ask.overrides = map(&[("max_parallel", "all")])))
        )
    );
    case!(
        w,
        seen,
        "E_MINIMUM_HEALTHY_IMPOSSIBLE",
        refused!(
            w,
            rollouts_client::RolloutsClient.start(start(&|ask| ask.overrides = map(&[("minimum_healthy_hosts", "5")])))
        )
    );
    case!(
        w,
        seen,
        "E_ROLLOUT_NOT_FOUND",
        refused!(
            w,
            rollouts_client::RolloutsClient
                .status(v1::RolloutRequest { rollout: RolloutId::new(Uuid::nil()).to_string() })
        )
    );
    case!(
        w,
        seen,
        "E_ROLLOUT_ENDED",
        refused!(
            w,
            rollouts_client::RolloutsClient
                .pause(v1::ChangeRolloutRequest { rollout: w.rollout.clone(), ..Default::default() })
        )
    );
    case!(
        w,
        seen,
        "E_NO_PREVIOUS",
        refused!(
            w,
            rollouts_client::RolloutsClient
                .revert(v1::ChangeRolloutRequest { rollout: w.rollout.clone(), ..Default::default() })
        )
    );
    assert_eq!(seen.len(), 21);
}
