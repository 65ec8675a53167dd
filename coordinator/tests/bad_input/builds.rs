//! Apps, settings, builds.

use proto::v1;
use proto::v1::register_build_request::Part;
use tonic::{Code, Status};

use super::{World, head, map};
use crate::support::{MUSTER_YAML, as_, reason};

#[tokio::test]
async fn malformed_apps_builds_and_settings_are_refused_and_change_nothing() {
    let world = World::new().await;
    let w = &world;
    let mut seen = Vec::new();

    // muster.yaml: the finer code of its first problem.
    let apply = |manifest: &str, repository: &str| v1::ApplyAppRequest {
        manifest: manifest.into(),
        repository: repository.into(),
        ..Default::default()
    };
    case!(w, seen, "E_MANIFEST_SYNTAX", refused!(w, apps_client::AppsClient.apply(apply("app: [", ""))));
    case!(
        w,
        seen,
        "E_MANIFEST_UNKNOWN_KEY",
        refused!(
            w,
            apps_client::AppsClient.apply(apply(&MUSTER_YAML.replace("min_healthy_time", "min_healty_time"), ""))
        )
    );
    case!(
        w,
        seen,
        "E_MANIFEST_DURATION",
        refused!(
            w,
            apps_client::AppsClient
                .apply(apply(&MUSTER_YAML.replace("min_healthy_time: 1s", "min_healthy_time: soon"), ""))
        )
    );
    case!(
        w,
        seen,
        "E_MANIFEST_SELECTOR",
        refused!(
            w,
            apps_client::AppsClient.apply(apply(&MUSTER_YAML.replace("app=bot,env=production", "everything"), ""))
        )
    );
    case!(
        w,
        seen,
        "E_MANIFEST_TOO_LARGE",
        refused!(w, apps_client::AppsClient.apply(apply(&format!("{MUSTER_YAML}# {}", "x".repeat(2 << 20)), "")))
    );
    case!(w, seen, "E_GIT_URL", refused!(w, apps_client::AppsClient.apply(apply(MUSTER_YAML, "ext::sh -c id"))));

    // Settings.
    let set = |pairs: &[(&str, &str)], unset: &[&str]| v1::SetConfigRequest {
        target: "bot/production".into(),
        set: map(pairs),
        unset: unset.iter().map(ToString::to_string).collect(),
        ..Default::default()
    };
    case!(w, seen, "E_CONFIG_KEY", refused!(w, config_client::ConfigClient.set(set(&[("LD PRELOAD", "x")], &[]))));
    case!(w, seen, "E_CONFIG_EMPTY", refused!(w, config_client::ConfigClient.set(set(&[], &[]))));
    case!(w, seen, "E_CONFIG_UNKNOWN", refused!(w, config_client::ConfigClient.set(set(&[], &["NEVER_SET"]))));
    case!(w, seen, "E_AMBIGUOUS", refused!(w, config_client::ConfigClient.set(set(&[("A", "1")], &["A"]))));
    case!(
        w,
        seen,
        "E_TOO_LARGE",
        refused!(w, config_client::ConfigClient.set(set(&[("A", &"x".repeat(40_000))], &[])))
    );

    // Builds.
    let register = async |parts: Vec<Part>| w.server.register(parts).await.unwrap_err();
    case!(w, seen, "E_STREAM", register(vec![Part::Data(vec![1].into())]).await);
    case!(w, seen, "E_GIT_COMMIT", register(vec![head(|head| head.commit = "4f1c2e0".into())]).await);
    case!(
        w,
        seen,
        "E_MANIFEST_APP",
        register(vec![head(|head| head.manifest = MUSTER_YAML.replace("app: bot", "app: other"))]).await
    );
    case!(
        w,
        seen,
        "E_IMAGE_NOT_PINNED",
        register(vec![head(|head| head.image = "registry.example/bot:latest".into())]).await
    );
    case!(w, seen, "E_IMAGE_REF", register(vec![head(|head| head.image = "Not An Image".into())]).await);
    case!(w, seen, "E_PLATFORM", register(vec![head(|head| head.platform = "Linux on amd64".into())]).await);
    case!(w, seen, "E_ARCHIVE", register(vec![head(|_| ()), Part::Data(b"no archive".to_vec().into())]).await);
    case!(
        w,
        seen,
        "E_ARCHIVE_TOO_LARGE",
        register(vec![head(|_| ()), Part::Data(vec![0; (1 << 20) + 1].into())]).await
    );
    case!(w, seen, "E_STREAM", register(vec![head(|_| ()), head(|_| ())]).await);

    // A message beyond the limit never reaches a handler.
    let before = w.state().await;
    let huge = refused!(w, apps_client::AppsClient.apply(apply(&"x".repeat(5 << 20), "")));
    assert_eq!(huge.code(), Code::OutOfRange);
    assert_eq!(w.state().await, before);
    assert_eq!(seen.len(), 20);
}
