//! A rollout through the real server, with agents that answer as told.

use std::time::Duration;

use domain::ids::{Generation, ReleaseId};
use domain::step::evidence::{Cause, Failure};
use domain::step::journal::{Settled, StepPhase, Verdict};
use domain::step::order::OrderKind;
use domain::step::report::{Durations, HealthNow, Report, StageOutcome, StageReport, Stamp, StepReport};
use proto::convert::step::{Ordered, report};
use proto::v1;
use proto::v1::agent_message::Message as Up;
use proto::v1::coordinator_message::Message as Down;

use crate::support::{COMMIT, MUSTER_YAML, Server, Session, as_, until};

/// An agent that does at once what it is ordered; releases of one number fail on it.
async fn agent(server: &Server, name: &'static str, bad: u64) -> tokio::task::JoinHandle<()> {
    let host = server.host(name, "app=bot,env=production").await;
    play(host.ready(server).await, bad, None)
}

/// Of a host on which nothing runs yet.
fn nothing() -> Report {
    Report {
        stamp: Stamp { run: 1, number: 0 },
        generation: Generation(0),
        current: None,
        routed: None,
        stage: None,
        step: None,
        health: HealthNow::Unknown,
        serving: true,
        quiet: true,
    }
}

/// The same in a session that is open, beginning with an order that has come already.
pub fn play(mut session: Session, bad: u64, mut came: Option<v1::StepOrder>) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        let mut state = nothing();
        loop {
            let order = match came.take() {
                Some(order) => order,
                None => match session.try_next().await {
                    Ok(Some(v1::CoordinatorMessage { message: Some(Down::Step(order)), .. })) => order,
                    Ok(Some(_)) => continue,
                    Ok(None) | Err(_) => return,
                },
            };
            let ordered = Ordered::try_from(order).unwrap();
            obey(&mut state, &ordered, bad);
            state.stamp.number += 1;
            let told = report(&ordered.order.target, &state, "");
            session.send(Up::Step(told)).await;
        }
    })
}

fn obey(state: &mut Report, ordered: &Ordered, bad: u64) {
    let (generation, number) = (ordered.order.generation, ordered.work.as_ref().map(|work| work.release.number));
    state.generation = generation;
    match &ordered.order.kind {
        OrderKind::Stage { release } => {
            state.stage =
                Some(StageReport { generation, release: *release, outcome: Some(StageOutcome::Ready), took: None });
        }
        OrderKind::Go(go) => {
            let failure = Failure {
                log: vec!["no such table".to_owned()],
                ..Failure::bare(Cause::HealthFailing, "HTTP 500 three times")
            };
            let verdict = if number == Some(bad) { Verdict::Failed(Box::new(failure)) } else { Verdict::Healthy };
            let healthy = verdict.is_healthy();
            // Without an undo the agent settles by itself.
            let settled = (!go.undo && healthy).then_some(Settled::Confirmed);
            state.routed = Some(go.release);
            state.step = Some(step(generation, go.release, verdict, settled));
            if settled.is_some() {
                state.current = Some(go.release);
            }
            state.health = HealthNow::Passing;
        }
        OrderKind::Confirm => {
            if let Some(step) = &mut state.step {
                step.settled = Some(Settled::Confirmed);
                step.phase = StepPhase::Settled;
                state.current = Some(step.to);
            }
        }
        OrderKind::Remove => (state.current, state.routed) = (None, None),
    }
}

fn step(generation: Generation, to: ReleaseId, verdict: Verdict, settled: Option<Settled>) -> StepReport {
    StepReport {
        generation,
        to,
        phase: if settled.is_some() { StepPhase::Settled } else { StepPhase::Decided },
        warm: true,
        verdict: Some(verdict),
        settled,
        healthy_for: Some(Duration::from_secs(1)),
        durations: Durations::default(),
    }
}

pub async fn start(server: &Server, target: &str, key: &str) -> v1::Rollout {
    let mut rollouts = v1::rollouts_client::RolloutsClient::new(server.channel().await);
    let start = v1::StartRolloutRequest {
        target: target.to_owned(),
        reason: "a test".to_owned(),
        idempotency_key: key.to_owned(),
        ..v1::StartRolloutRequest::default()
    };
    rollouts.start(as_(&server.admin, start)).await.unwrap().into_inner()
}

pub async fn ended(server: &Server, id: &str) -> v1::Rollout {
    let mut rollouts = v1::rollouts_client::RolloutsClient::new(server.channel().await);
    let ask = v1::RolloutRequest { rollout: id.to_owned() };
    let mut watch = rollouts.watch(as_(&server.admin, ask)).await.unwrap().into_inner();
    let mut last = None;
    while let Some(state) =
        tokio::time::timeout(Duration::from_secs(20), watch.message()).await.expect("it does not end").unwrap()
    {
        last = Some(state);
    }
    last.unwrap()
}

#[tokio::test]
async fn a_good_release_goes_to_every_member_and_a_bad_one_comes_back_with_its_evidence() {
    let server = Server::start().await;
    server.bot().await;
    let agents = [agent(&server, "web-1", 2).await, agent(&server, "web-2", 2).await];
    let first = start(&server, "bot/production", "one").await;
    assert_eq!(start(&server, "bot/production", "one").await.id, first.id);
    let first = ended(&server, &first.id).await;
    assert_eq!((first.state(), first.release), (v1::RolloutState::Succeeded, 1), "{first:?}");
    let mut releases = v1::releases_client::ReleasesClient::new(server.channel().await);
    let ask = v1::ShowReleaseRequest { target: "bot/production".to_owned(), number: 1 };
    let shown = releases.show(as_(&server.admin, ask)).await.unwrap().into_inner();
    assert_eq!((shown.commit.as_str(), shown.members), (COMMIT, vec!["web-1".to_owned(), "web-2".to_owned()]));

    server.build(&"b".repeat(40), MUSTER_YAML).await.unwrap();
    let second = ended(&server, &start(&server, "bot/production", "two").await.id).await;
    assert_eq!((second.state(), second.from_release), (v1::RolloutState::Reverted, 1), "{second:?}");
    let touched: Vec<&v1::Step> = second.steps.iter().filter(|step| step.touched).collect();
    assert_eq!(touched.len(), 1);
    let failure = touched[0].failure.as_ref().unwrap();
    assert_eq!((failure.code.as_str(), failure.log[0].as_str()), ("E_HEALTH_FAILING", "no such table"));
    assert!(second.lock.is_some());
    let locked = v1::rollouts_client::RolloutsClient::new(server.channel().await)
        .start(as_(
            &server.admin,
            v1::StartRolloutRequest { target: "bot/production".to_owned(), ..Default::default() },
        ))
        .await
        .unwrap_err();
    assert_eq!(crate::support::reason(&locked), "E_TARGET_LOCKED");
    agents.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn a_rollout_waits_for_a_host_that_went_away_and_says_so() {
    let server = Server::start().await;
    server.bot().await;
    let host = server.host("web-1", "app=bot,env=production").await;
    let session = host.ready(&server).await;
    let rollout = start(&server, "bot/production", "").await;
    drop(session);
    let mut rollouts = v1::rollouts_client::RolloutsClient::new(server.channel().await);
    let waiting = until("it says what it waits for", async || {
        let ask = v1::RolloutRequest { rollout: rollout.id.clone() };
        let shown = rollouts.status(as_(&server.admin, ask)).await.unwrap().into_inner();
        shown.waiting.contains("web-1").then_some(shown.waiting)
    })
    .await;
    assert!(waiting.starts_with("waiting for: "), "{waiting}");
}

#[tokio::test]
async fn a_release_that_fails_at_rest_is_told_once_and_once_more_when_it_is_over() {
    let server = Server::start().await;
    server.bot().await;
    let host = server.host("web-1", "app=bot,env=production").await;
    let playing = play(host.ready(&server).await, 0, None);
    ended(&server, &start(&server, "bot/production", "one").await.id).await;
    playing.abort();
    let ask = v1::ShowReleaseRequest { target: "bot/production".to_owned(), number: 1 };
    let mut releases = v1::releases_client::ReleasesClient::new(server.channel().await);
    let release = releases.show(as_(&server.admin, ask)).await.unwrap().into_inner().id;

    let session = host.ready(&server).await;
    let failing = || HealthNow::Failing(Box::new(Failure::bare(Cause::CrashLoop, "it ended 3 times")));
    let mut state = Report { current: Some(release.parse().unwrap()), ..nothing() };
    state.stamp.run = 2;
    let target = domain::name::TargetRef::parse("bot/production").unwrap();
    // A process that is started again has not answered yet, which ends nothing.
    let told = [failing(), HealthNow::Unknown, failing(), HealthNow::Passing, HealthNow::Passing, failing()];
    for health in told {
        state.stamp.number += 1;
        state.health = health;
        session.send(Up::Step(report(&target, &state, ""))).await;
    }
    let mut events = v1::events_client::EventsClient::new(server.channel().await);
    let kinds = until("all of it is told", async || {
        let ask = v1::ListEventsRequest { scope: "bot/production".to_owned(), ..Default::default() };
        let all = events.list(as_(&server.admin, ask)).await.unwrap().into_inner().events;
        let found =
            all.into_iter().filter(|event| ["release.failing", "release.recovered"].contains(&event.kind.as_str()));
        let found: Vec<_> = found.map(|event| (event.kind, event.reason, event.text)).collect();
        (found.len() >= 3).then_some(found)
    })
    .await;
    let failed = ("release.failing", "E_CRASH_LOOP", "release 1: it ended 3 times");
    let expected = [failed, ("release.recovered", "", "release 1 passes its checks again"), failed];
    assert_eq!(kinds, expected.map(|(kind, reason, text)| (kind.to_owned(), reason.to_owned(), text.to_owned())));
    let mut hosts = v1::hosts_client::HostsClient::new(server.channel().await);
    let shown = hosts.show(as_(&server.admin, v1::ShowHostRequest { host: "web-1".to_owned() })).await.unwrap();
    assert_eq!(shown.into_inner().releases[0].failing, "E_CRASH_LOOP: it ended 3 times");
}
