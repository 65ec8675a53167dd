//! Which host is given which image's archive.

use std::io::Cursor;

use domain::ids::Generation;
use domain::name::TargetRef;
use domain::step::report::{HealthNow, Report, Stamp};
use proto::convert::step::report;
use proto::v1;
use proto::v1::agent_message::Message as Up;
use proto::v1::agents_client::AgentsClient;
use proto::v1::coordinator_message::Message as Down;
use proto::v1::register_build_request::Part;
use sha2::{Digest as _, Sha256};

use crate::rollouts::{ended, play, start};
use crate::support::{COMMIT, Host, MUSTER_YAML, Server, as_, reason, until};

fn sha(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// An archive as `docker save` writes it, with one layer of this content.
fn archive(layer: &[u8]) -> Vec<u8> {
    let config = format!(
        r#"{{"os":"linux","architecture":"amd64","rootfs":{{"type":"layers","diff_ids":["sha256:{}"]}}}}"#,
        sha(layer)
    );
    let config_path = format!("{}.json", sha(config.as_bytes()));
    let manifest = format!(r#"[{{"Config":"{config_path}","RepoTags":["bot:v1"],"Layers":["a/layer.tar"]}}]"#);
    let files = [
        ("a/layer.tar", layer.to_vec()),
        (&config_path, config.into_bytes()),
        ("manifest.json", manifest.into_bytes()),
    ];
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, Cursor::new(content)).unwrap();
    }
    builder.into_inner().unwrap()
}

/// Registers a build of an image with this layer. Answers it with its archive.
async fn built(server: &Server, commit: &str, layer: &[u8]) -> (v1::Build, Vec<u8>) {
    let head = v1::RegisterBuildHead {
        app: "bot".to_owned(),
        commit: commit.to_owned(),
        manifest: MUSTER_YAML.to_owned(),
        ..v1::RegisterBuildHead::default()
    };
    let archive = archive(layer);
    let build = server.register(vec![Part::Head(head), Part::Data(archive.clone().into())]).await.unwrap();
    (build, archive)
}

/// What a host is given of an archive, or the reason why it is not.
async fn fetch(server: &Server, host: &Host, archive: &[u8], head_only: bool) -> Result<Vec<u8>, String> {
    let mut client = AgentsClient::new(server.connect(Some(&host.identity)).await);
    let ask = v1::FetchRequest { digest: sha(archive), head_only, ..v1::FetchRequest::default() };
    let mut chunks = client.fetch(ask).await.map_err(|status| reason(&status))?.into_inner();
    let mut all = Vec::new();
    while let Some(chunk) = chunks.message().await.map_err(|status| reason(&status))? {
        all.extend_from_slice(&chunk.data);
    }
    Ok(all)
}

async fn refused(server: &Server, host: &Host, archive: &[u8]) {
    for head_only in [false, true] {
        let refusal = fetch(server, host, archive, head_only).await.unwrap_err();
        assert_eq!(refusal, "E_ARTIFACT_NOT_FOUND");
    }
}

async fn served(server: &Server, host: &Host, bytes: &[u8]) {
    assert_eq!(fetch(server, host, bytes, false).await.as_deref(), Ok(bytes));
    assert!(!fetch(server, host, bytes, true).await.unwrap().is_empty());
}

#[tokio::test]
async fn only_members_of_a_rollout_are_given_the_image_of_its_release() {
    let server = Server::start().await;
    server.bot().await;
    let (_, first) = built(&server, COMMIT, b"first").await;
    let member = server.host("web-1", "app=bot,env=production").await;
    let stranger = server.host("box", "role=dev").await;
    let _idle = stranger.ready(&server).await;
    refused(&server, &member, &first).await;

    let mut session = member.ready(&server).await;
    let rollout = start(&server, "bot/production", "one").await;
    let order = loop {
        if let Some(Down::Step(order)) = session.next().await.message {
            break order;
        }
    };
    served(&server, &member, &first).await;
    refused(&server, &stranger, &first).await;

    let agent = play(session, 2, Some(order));
    assert_eq!(ended(&server, &rollout.id).await.state(), v1::RolloutState::Succeeded);
    served(&server, &member, &first).await;

    // The next one fails and goes back to what is still on the host.
    let (_, second) = built(&server, &"b".repeat(40), b"second").await;
    refused(&server, &member, &second).await;
    let rollout = start(&server, "bot/production", "two").await;
    assert_eq!(ended(&server, &rollout.id).await.state(), v1::RolloutState::Reverted);
    served(&server, &member, &first).await;
    refused(&server, &stranger, &first).await;
    refused(&server, &stranger, &second).await;
    agent.abort();
}

#[tokio::test]
async fn a_host_that_claims_to_have_a_release_of_another_target_is_not_believed_and_not_given_its_image() {
    let server = Server::start().await;
    let staging = "  staging:\n    members: app=bot,env=staging\n    expose: { web: 8081, mode: http }\n    \
                   rollout: { min_healthy_time: 1s, bake_time: 0s, final_bake_time: 0s, waves: [100%] }\n";
    let apply = v1::ApplyAppRequest { manifest: format!("{MUSTER_YAML}{staging}"), ..v1::ApplyAppRequest::default() };
    v1::apps_client::AppsClient::new(server.channel().await).apply(as_(&server.admin, apply)).await.unwrap();
    let (_, image) = built(&server, COMMIT, b"layer").await;
    let member = server.host("web-1", "app=bot,env=production").await;
    let agent = play(member.ready(&server).await, 9, None);
    ended(&server, &start(&server, "bot/production", "one").await.id).await;
    let (_, other) = built(&server, &"b".repeat(40), b"other").await;
    let liar = server.host("stage-1", "app=bot,env=staging").await;
    let stage = play(liar.ready(&server).await, 9, None);
    ended(&server, &start(&server, "bot/staging", "two").await.id).await;
    served(&server, &liar, &other).await;
    stage.abort();

    let store = &server.running.api.app.store;
    let production = TargetRef::parse("bot/production").unwrap();
    let release = store
        .read(|view| Box::pin(async { view.release_newest("default", &production).await }))
        .await
        .unwrap()
        .unwrap();
    let id = release.release.id;
    let claim = Report {
        stamp: Stamp { run: 9, number: 1 },
        generation: Generation(9),
        current: Some(id),
        routed: Some(id),
        stage: None,
        step: None,
        health: HealthNow::Unknown,
        serving: true,
        quiet: true,
    };
    let session = liar.ready(&server).await;
    let host = liar.id.parse().unwrap();
    for target in ["bot/staging", "bot/production"] {
        session.send(Up::Step(report(&TargetRef::parse(target).unwrap(), &claim, ""))).await;
    }
    // Of its own target it is believed.
    let own = TargetRef::parse("bot/staging").unwrap();
    let honest = Report { stamp: Stamp { run: 9, number: 2 }, current: None, routed: None, ..claim };
    session.send(Up::Step(report(&own, &honest, ""))).await;
    let members = until("what it tells next is stored", async || {
        let members = store.read(|view| Box::pin(async move { view.member_list_of_host(host).await })).await.unwrap();
        let told = members.iter().any(|row| row.report.as_ref().is_some_and(|report| report.stamp == honest.stamp));
        told.then_some(members)
    })
    .await;
    assert!(members.iter().all(|row| row.report.as_ref().is_none_or(|report| report.releases().all(|it| it != id))));
    refused(&server, &liar, &image).await;
    served(&server, &member, &image).await;
    agent.abort();
}

#[tokio::test]
async fn the_host_of_a_run_is_given_the_image_of_its_build_until_it_has_ended() {
    let server = Server::start().await;
    server.bot().await;
    let (build, image) = built(&server, COMMIT, b"layer").await;
    let tester = server.host("tester", "role=test").await;
    let mut session = tester.ready(&server).await;
    let stranger = server.host("box", "role=dev").await;
    let mut runs = v1::runs_client::RunsClient::new(server.channel().await);
    let ask = v1::StartRunRequest {
        app: "bot".to_owned(),
        tests: "unit".to_owned(),
        build: build.id.clone(),
        ..v1::StartRunRequest::default()
    };
    refused(&server, &tester, &image).await;
    let run = runs.start(as_(&server.admin, ask)).await.unwrap().into_inner();
    let order = loop {
        if let Some(Down::Run(order)) = session.next().await.message {
            break order;
        }
    };
    assert_eq!(order.id, run.id);
    served(&server, &tester, &image).await;
    refused(&server, &stranger, &image).await;
    let report = v1::RunReport {
        id: order.id,
        state: v1::RunState::Finished.into(),
        verdict: v1::Verdict::Passed.into(),
        result: "ended".to_owned(),
        ..v1::RunReport::default()
    };
    session.send(Up::Run(report)).await;
    while session.next().await.message != Some(Down::Ack("ended".to_owned())) {}
    refused(&server, &tester, &image).await;
}
