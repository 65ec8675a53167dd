//! The one stream between agent and coordinator: desired state down, observed state up, both idempotent.

use std::sync::Arc;
use std::time::Duration;

use domain::host::HEARTBEAT;
use proto::v1;
use proto::v1::agent_message::Message as Up;
use proto::v1::agents_client::AgentsClient;
use proto::v1::coordinator_message::Message as Down;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::transport::Channel;
use transport::Options;

use crate::agent::Agent;
use crate::{clock, identity};

pub mod fence;
pub mod hello;
pub mod outbox;

/// First pause between attempts to connect; doubled with each, and drawn from zero up to itself.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// Cap of that pause until a coordinator says otherwise.
const DEFAULT_CAP: Duration = Duration::from_secs(2);
/// Largest cap that is believed.
const MOST_CAP: Duration = Duration::from_mins(10);
/// A session that lasted so long was a good one.
const GOOD: Duration = Duration::from_secs(10);

/// The coordinator's client with the limits of both sides.
#[must_use]
pub fn client(channel: Channel) -> AgentsClient<Channel> {
    AgentsClient::new(channel)
        .max_decoding_message_size(proto::MAX_MESSAGE)
        .max_encoding_message_size(proto::MAX_MESSAGE)
}

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("{0}")]
    Identity(#[from] identity::Error),
    #[error("{0}")]
    Status(#[from] tonic::Status),
    #[error("{0}")]
    State(#[from] crate::state::Error),
    #[error("{0}")]
    Fence(#[from] fence::Refusal),
    #[error("the coordinator orders nothing: {code}: {text}")]
    Refused { code: String, text: String },
    #[error("the coordinator closed the session")]
    Closed,
    #[error("the certificate is due for renewal")]
    RenewalDue,
}

/// Keeps a session open for as long as it is polled.
pub async fn keep(agent: Arc<Agent>) {
    let mut cap = DEFAULT_CAP;
    let mut pause = FIRST_PAUSE;
    let mut turn = 0_usize;
    loop {
        let coordinators = &agent.config.coordinators;
        let coordinator = coordinators[turn % coordinators.len()].clone();
        let began = Instant::now();
        let ended = once(&agent, &coordinator, &mut cap).await;
        agent.channel.send_replace(None);
        match ended {
            Err(Ended::RenewalDue) => continue,
            Ok(()) => {}
            Err(why) => tracing::warn!(%coordinator, %why, "the session ended"),
        }
        if began.elapsed() >= GOOD {
            pause = FIRST_PAUSE;
        } else {
            turn += 1;
        }
        tokio::time::sleep(clock::jitter(pause)).await;
        pause = (pause * 2).min(cap);
    }
}

async fn once(agent: &Arc<Agent>, coordinator: &str, cap: &mut Duration) -> Result<(), Ended> {
    let due = renew_if_due(agent, coordinator).await?;
    let identity = agent.identity();
    let credentials = identity.credentials()?;
    let channel = transport::connect(coordinator, &identity.trust()?, Some(&credentials), Options::default())
        .await
        .map_err(identity::Error::from)?;
    let (up, messages) = mpsc::channel(64);
    // Before the kept results are read: one that is made now may be sent twice, but never not at all.
    agent.outbox.begin();
    let mut results = agent.state.results().await?;
    // What targets came to while nobody listened counts as results: no orders before it is known.
    results.extend(agent.steps.reports().into_iter().map(|mut report| {
        report.result = format!("step:{}:{}", report.target, report.stamp_number);
        v1::AgentMessage { message: Some(Up::Step(report)) }
    }));
    let hello = hello::compose(agent, results.len()).await;
    let send = async |message: v1::AgentMessage| up.send(message).await.map_err(|_| Ended::Closed);
    send(v1::AgentMessage { message: Some(Up::Hello(hello)) }).await?;
    let stream = tokio_stream::wrappers::ReceiverStream::new(messages);
    let mut calls = client(channel.clone());
    let mut down = calls.session(stream).await?.into_inner();
    for result in results {
        send(result).await?;
    }
    let mut heartbeat = tokio::time::interval_at(Instant::now() + HEARTBEAT, HEARTBEAT);
    heartbeat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let renewal = tokio::time::sleep(due);
    tokio::pin!(renewal);
    let mut sequence = 0;
    let mut endings = agent.endings();
    loop {
        tokio::select! {
            message = down.message() => {
                let message = message?.ok_or(Ended::Closed)?;
                take(agent, message, cap, &mut heartbeat, &channel).await?;
            }
            message = agent.outbox.next() => send(message).await?,
            _ = heartbeat.tick() => {
                sequence += 1;
                // It matters little, and a full disk must not make a host unreachable.
                if let Err(why) = agent.fence.save_seq(&agent.state).await {
                    tracing::warn!(%why, "the place in the ledger is not remembered");
                }
                let facts = Some((&agent.facts().await).into());
                send(v1::AgentMessage { message: Some(Up::Heartbeat(v1::Heartbeat { sequence, facts })) }).await?;
            }
            ending = endings.recv() => {
                // The engine is back: nothing is placed here before the coordinator knows.
                if matches!(ending, Ok(None)) {
                    heartbeat.reset_immediately();
                }
            }
            () = &mut renewal => return Err(Ended::RenewalDue),
        }
    }
}

/// Renews the certificate when half of its life is over; how long until then otherwise.
async fn renew_if_due(agent: &Arc<Agent>, coordinator: &str) -> Result<Duration, Ended> {
    let identity = agent.identity();
    let due = identity.renew_in(clock::now());
    if !due.is_zero() {
        return Ok(due);
    }
    match identity::renew(&agent.config.state_dir, coordinator, &identity).await {
        Ok(fresh) => {
            tracing::info!("the certificate was renewed");
            let due = fresh.renew_in(clock::now());
            agent.set_identity(fresh);
            Ok(due)
        }
        // While the old one is good, a failed renewal is tried again later and stops nothing.
        Err(why) if !identity.expired(clock::now()) => {
            tracing::warn!(%why, "the certificate could not be renewed");
            Ok(Duration::from_mins(10))
        }
        Err(why) => Err(why.into()),
    }
}

async fn take(
    agent: &Arc<Agent>,
    message: v1::CoordinatorMessage,
    cap: &mut Duration,
    heartbeat: &mut tokio::time::Interval,
    channel: &Channel,
) -> Result<(), Ended> {
    agent.fence.admit(&agent.state, message.fence.as_ref(), message.ledger_seq).await?;
    match message.message {
        Some(Down::Welcome(welcome)) => {
            *cap = Duration::from_micros(welcome.reconnect_cap_micros).clamp(FIRST_PAUSE, MOST_CAP);
            let every = Duration::from_micros(welcome.heartbeat_micros);
            if (Duration::from_millis(100)..=HEARTBEAT).contains(&every) {
                *heartbeat = tokio::time::interval_at(Instant::now() + every, every);
            }
            tracing::info!(host = %agent.identity().host_name, "welcomed by the coordinator");
            agent.channel.send_replace(Some(channel.clone()));
            agent.welcomed(welcome).await;
        }
        Some(Down::Refused(reason)) => return Err(Ended::Refused { code: reason.code, text: reason.text }),
        Some(Down::Ack(id)) => {
            // It is told and acknowledged again in the next session.
            if let Err(why) = agent.acknowledged(&id).await {
                tracing::warn!(result = id, %why, "a result is not forgotten yet");
            }
        }
        Some(Down::Environment(order)) => agent.environment(order).await,
        Some(Down::Step(order)) => agent.step(order).await,
        Some(Down::Run(order)) => agent.run(order).await,
        Some(Down::Seed(order)) => agent.seed(order).await,
        Some(Down::Logs(order)) => agent.logs(order),
        Some(Down::Tunnel(order)) => agent.tunnel(channel.clone(), order),
        // A newer coordinator may say what this agent does not know.
        None => {}
    }
    Ok(())
}
