//! One session of one agent: Hello, Welcome, then desired state down and observed state up.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use domain::hello::Fenced;
use domain::host::{Facts, HEARTBEAT, UNREACHABLE_AFTER};
use domain::ids::{EnvironmentId, RunId};
use domain::name::TargetRef;
use domain::seed::DataObserved;
use domain::time::Timestamp;
use futures::{Stream, StreamExt};
use prost::Message as _;
use proto::convert::seed::Reported as Told;
use proto::convert::step::Reported;
use proto::v1::{self, agent_message, coordinator_message::Message};
use tokio::sync::mpsc;
use tonic::Status;

use super::log_orders::LogOrders;
use super::orders::{self, Sent};
use super::{Entry, Sessions};
use crate::app::{App, WarmStack, reports, runs, seed_copies, seed_reports};
use crate::auth::Agent;
use crate::error::{Code, Error, Result};
use crate::grpc::error::status;

/// The largest Hello, in bytes: ids and hashes of some thousands of things.
pub const MAX_HELLO: usize = 1 << 20;
/// Messages that wait for a slow agent; one more ends its session.
const QUEUE: usize = 256;
const HELLO_WITHIN: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// Free memory and disk change all the time; they are written so often at most.
const FACTS_AT_MOST: Duration = Duration::from_secs(60);

/// Messages to the agent.
pub type Outgoing = mpsc::Receiver<std::result::Result<v1::CoordinatorMessage, Status>>;

/// What a session works with.
#[derive(Clone, Debug)]
pub struct Shared {
    /// The coordinator.
    pub app: App,
    /// All sessions.
    pub sessions: Arc<Sessions>,
    /// Logs that clients wait for.
    pub log_orders: Arc<LogOrders>,
}

/// Begins a session; it runs until the agent goes, is replaced, or the coordinator stops.
pub fn begin<S>(shared: Shared, agent: Agent, incoming: S) -> Outgoing
where
    S: Stream<Item = std::result::Result<v1::AgentMessage, Status>> + Send + Unpin + 'static,
{
    let (sender, receiver) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        let name = agent.name.clone();
        let end = sender.clone();
        if let Err(error) = run(shared, agent, incoming, sender).await {
            tracing::info!(host = %name, reason = error.reason(), why = %error.text, "session ended");
            // The agent may be gone.
            let _ = end.try_send(Err(status(error)));
        }
    });
    receiver
}

struct Session {
    shared: Shared,
    agent: Agent,
    entry: Entry,
    sender: mpsc::Sender<std::result::Result<v1::CoordinatorMessage, Status>>,
    sent: Sent,
    /// Results from before the session that are still to come.
    backlog: u32,
    synced: bool,
    /// Facts as last written, and when.
    facts: (Facts, Timestamp),
    /// When everything that this host should have was looked at last.
    looked_at: Timestamp,
}

async fn run<S>(
    shared: Shared,
    agent: Agent,
    mut incoming: S,
    sender: mpsc::Sender<std::result::Result<v1::CoordinatorMessage, Status>>,
) -> Result<()>
where
    S: Stream<Item = std::result::Result<v1::AgentMessage, Status>> + Send + Unpin,
{
    let protocol = |text: &str| Error::new(Code::SESSION_PROTOCOL, text);
    let first = tokio::time::timeout(HELLO_WITHIN, incoming.next()).await;
    let first = first.map_err(|_| protocol("no Hello within 10 s"))?;
    let Some(Ok(v1::AgentMessage { message: Some(agent_message::Message::Hello(hello)) })) = first else {
        return Err(protocol("a session begins with Hello"));
    };
    if hello.encoded_len() > MAX_HELLO {
        return Err(protocol("the Hello is larger than 1 MiB"));
    }
    let (asks, mut asked) = mpsc::channel(64);
    let entry = shared.sessions.open(agent.id, asks);
    let mut session = Session {
        backlog: hello.backlog,
        facts: (hello.facts.clone().unwrap_or_default().into(), shared.app.now()),
        looked_at: shared.app.now(),
        shared,
        agent,
        entry,
        sender,
        sent: Sent::default(),
        synced: false,
    };
    if let Err(error) = session.hello(hello).await {
        if error.code == Code::STALE_COORDINATOR {
            tracing::error!(host = %session.agent.name, why = %error.text, "this coordinator orders nothing");
            let reason = v1::Reason { code: error.reason().to_owned(), text: error.text.clone() };
            session.send(Message::Refused(reason), 0)?;
        }
        return Err(error);
    }
    tracing::info!(host = %session.agent.name, backlog = session.backlog, "session open");
    let result = session.live(&mut incoming, &mut asked).await;
    if let Some(heard_at) = session.entry.heard_at() {
        reports::session_ended(&session.shared.app, session.agent.id, heard_at).await?;
    }
    result
}

impl Session {
    async fn hello(&mut self, hello: v1::Hello) -> Result<()> {
        let fence = hello.fence.unwrap_or_default().try_into()?;
        let targets = hello.targets.iter().filter_map(|applied| TargetRef::parse(&applied.id).ok());
        let taken = reports::Hello {
            facts: self.facts.0.clone(),
            fenced: Fenced { fence, ledger_seq: hello.ledger_seq },
            targets: targets.collect::<BTreeSet<_>>(),
            runs: hello.runs.into_iter().collect(),
            backlog: hello.backlog,
            state_lost: hello.state_lost,
        };
        if let Some(why) = self.shared.sessions.stale() {
            return Err(Error::new(Code::STALE_COORDINATOR, why));
        }
        if let Some(stale) = reports::hello(&self.shared.app, &self.agent, taken).await? {
            if stale.everywhere {
                self.shared.sessions.set_stale(&stale.why);
            }
            return Err(Error::new(Code::STALE_COORDINATOR, stale.why));
        }
        let desired = orders::desired(&self.shared.app, &self.agent).await?;
        let (environments, runs) = desired.ids();
        let hosts = u64::try_from(self.shared.sessions.count()).unwrap_or(u64::MAX);
        let welcome = v1::Welcome {
            now: self.shared.app.now().0,
            // 400 hosts a second come back at most.
            reconnect_cap_micros: (hosts.saturating_mul(1_000_000) / 400).max(2_000_000),
            heartbeat_micros: proto::convert::micros(HEARTBEAT),
            environments,
            runs,
        };
        self.send(Message::Welcome(welcome), desired.ledger_seq)?;
        if self.backlog == 0 {
            self.synced().await?;
        }
        Ok(())
    }

    async fn live<S>(&mut self, incoming: &mut S, asked: &mut mpsc::Receiver<Message>) -> Result<()>
    where
        S: Stream<Item = std::result::Result<v1::AgentMessage, Status>> + Send + Unpin,
    {
        let stopping = self.shared.app.stopping.clone();
        let (wake, steps, end) = (Arc::clone(&self.entry.wake), Arc::clone(&self.entry.steps), self.entry.end.clone());
        let mut again = tokio::time::interval(orders::STEP_AGAIN);
        let silence = tokio::time::sleep(UNREACHABLE_AFTER);
        tokio::pin!(silence);
        loop {
            tokio::select! {
                () = stopping.cancelled() => return Err(Error::new(Code::STOPPING, "the coordinator stops; connect again")),
                () = end.cancelled() => return Err(Error::new(Code::SESSION_REPLACED, "a newer session of this host took over")),
                () = &mut silence => return Err(Error::new(Code::HOST_UNREACHABLE, "no heartbeat for 15 s")),
                message = incoming.next() => match message {
                    Some(Ok(message)) => {
                        silence.as_mut().reset(tokio::time::Instant::now() + UNREACHABLE_AFTER);
                        self.entry.heard();
                        self.take(message).await?;
                    }
                    Some(Err(_)) | None => return Ok(()),
                },
                order = asked.recv() => {
                    if let Some(order) = order {
                        let seq = *self.shared.app.store.seq().borrow();
                        self.send(order, seq)?;
                    }
                }
                () = wake.notified() => self.deliver().await?,
                () = steps.notified() => self.deliver_steps().await?,
                _ = again.tick() => self.deliver_again().await?,
            }
        }
    }

    /// Step orders that stand are sent again; everything else is only looked at now and then, in case a wake was lost.
    async fn deliver_again(&mut self) -> Result<()> {
        let idle = self.shared.sessions.orders_of(self.agent.id).is_empty();
        if idle && self.shared.app.now().since(self.looked_at) < LOOK_AGAIN {
            return Ok(());
        }
        self.deliver().await
    }

    /// Sends what this host should have and this session has not sent yet.
    async fn deliver(&mut self) -> Result<()> {
        if !self.synced {
            return Ok(());
        }
        if let Some(why) = self.shared.sessions.stale() {
            return Err(Error::new(Code::STALE_COORDINATOR, why));
        }
        let desired = orders::desired(&self.shared.app, &self.agent).await?;
        if !desired.known {
            return Err(Error::new(Code::HOST_NOT_FOUND, "this host was removed"));
        }
        self.looked_at = self.shared.app.now();
        for message in self.sent.missing(&desired) {
            self.send(message, desired.ledger_seq)?;
        }
        self.deliver_steps().await
    }

    /// Sends the step orders that stand, without a look at the store: they were stored before they stood.
    async fn deliver_steps(&mut self) -> Result<()> {
        if !self.synced {
            return Ok(());
        }
        if let Some(why) = self.shared.sessions.stale() {
            return Err(Error::new(Code::STALE_COORDINATOR, why));
        }
        let seq = *self.shared.app.store.seq().borrow();
        for order in self.sent.steps(&self.shared.sessions, &self.agent, self.shared.app.now()) {
            let first = order.kind() != v1::StepOrderKind::Stage;
            self.send(Message::Step(order), seq)?;
            if first {
                self.order_sent().await;
            }
        }
        Ok(())
    }

    /// A failpoint that is reached when the order is on its way, not when it is in a queue.
    async fn order_sent(&self) {
        let state = self.shared.app.state_dir.as_deref();
        #[cfg(feature = "failpoints")]
        if crate::failpoint::armed(state, "rollout.order.sent") {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        crate::failpoint::hit(state, "rollout.order.sent");
    }

    fn send(&self, message: Message, ledger_seq: u64) -> Result<()> {
        let fence = self.shared.app.store.fence().into();
        let message = v1::CoordinatorMessage { fence: Some(fence), ledger_seq, message: Some(message) };
        self.sender.try_send(Ok(message)).map_err(|_| Error::new(Code::SESSION_PROTOCOL, "the agent reads too slowly"))
    }

    async fn synced(&mut self) -> Result<()> {
        self.synced = true;
        self.entry.synced();
        reports::liveness(&self.shared.app).await?;
        self.shared.app.wake.rollouts();
        self.shared.app.wake.runs();
        self.deliver().await
    }

    /// Takes in a message. What wants an acknowledgement gets it after the commit.
    async fn take(&mut self, message: v1::AgentMessage) -> Result<()> {
        let result = match message.message {
            None => return Ok(()),
            Some(agent_message::Message::Hello(_)) => {
                return Err(Error::new(Code::SESSION_PROTOCOL, "a second Hello"));
            }
            Some(agent_message::Message::Heartbeat(heartbeat)) => {
                self.heartbeat(heartbeat).await?;
                String::new()
            }
            Some(agent_message::Message::Environment(report)) => self.environment(report).await?,
            Some(agent_message::Message::Run(report)) => self.run(report).await?,
            Some(agent_message::Message::Step(report)) => self.step(report).await?,
            Some(agent_message::Message::Seed(report)) => self.seed(report).await?,
            Some(agent_message::Message::Warm(mut warm)) => {
                let stacks = stacks(std::mem::take(&mut warm.stacks));
                self.entry.offers(slots(warm)?, stacks);
                String::new()
            }
            Some(agent_message::Message::LogsRefused(refused)) => {
                let reason = refused.reason.unwrap_or_default();
                self.shared.log_orders.refuse(&refused.order, &reason.text);
                String::new()
            }
        };
        if result.is_empty() {
            return Ok(());
        }
        let seq = *self.shared.app.store.seq().borrow();
        self.send(Message::Ack(result), seq)?;
        if !self.synced {
            self.backlog = self.backlog.saturating_sub(1);
            if self.backlog == 0 {
                self.synced().await?;
            }
        }
        Ok(())
    }

    async fn heartbeat(&mut self, heartbeat: v1::Heartbeat) -> Result<()> {
        let Some(facts) = heartbeat.facts else { return Ok(()) };
        let facts = Facts::from(facts);
        let now = self.shared.app.now();
        let (written, at) = &self.facts;
        let soon = now.since(*at) < FACTS_AT_MOST && !reports::another_machine(written, &facts);
        if !soon && reports::differ(written, &facts) {
            reports::facts(&self.shared.app, &self.agent, facts.clone()).await?;
            self.facts = (facts, now);
            self.shared.app.wake.runs();
        }
        Ok(())
    }

    async fn environment(&mut self, report: v1::EnvironmentReport) -> Result<String> {
        let result = report.result.clone();
        let id: EnvironmentId = proto::convert::id("environment.id", &report.id)?;
        let data = DataObserved::from(&report);
        reports::environment(&self.shared.app, &self.agent, id, report.try_into()?, data).await?;
        self.shared.sessions.changed();
        Ok(result)
    }

    async fn run(&mut self, report: v1::RunReport) -> Result<String> {
        let result = report.result.clone();
        let id: RunId = proto::convert::id("run.id", &report.id)?;
        let told = runs::Reported {
            id,
            state: report.state().try_into()?,
            verdict: proto::convert::run::verdict(report.verdict()),
            reason: report.reason.map(|reason| (reason.code, reason.text)),
            exit_code: report.exited.then_some(report.exit_code),
            report: report.report.map(TryInto::try_into).transpose()?,
            took: (report.took_micros > 0).then(|| proto::convert::duration(report.took_micros)),
            detail: report.detail,
            first_line: report.first_line,
            seed: report.seed,
        };
        let asked = !told.seed.is_empty();
        if let Some(seed) = runs::report(&self.shared.app, &self.agent, told).await? {
            seed_copies::wake(&self.shared.app, seed).await?;
        }
        if asked {
            self.shared.app.wake.host(self.agent.id);
        }
        self.shared.app.wake.runs();
        Ok(result)
    }

    async fn seed(&mut self, report: v1::SeedReport) -> Result<String> {
        let result = report.result.clone();
        let (id, told) = (report.work().key(&report.id), Told::try_from(report)?);
        let ended = !told.state.pending();
        seed_reports::report(&self.shared.app, &self.agent, told).await?;
        if ended {
            self.sent.seed_ended(&id);
        }
        self.shared.sessions.changed();
        Ok(result)
    }

    async fn step(&mut self, report: v1::StepReport) -> Result<String> {
        let result = report.result.clone();
        let told = Reported::try_from(report)?;
        if reports::step(&self.shared.app, &self.agent, told).await? {
            self.shared.app.wake.rollouts();
        }
        Ok(result)
    }
}

/// Most stacks of one host's warm pool, and longest texts of them, in characters.
const MOST_STACKS: usize = 16;
const MOST_TEXT: usize = 100;

fn stacks(told: Vec<v1::WarmStack>) -> Vec<WarmStack> {
    let text = |text: String| text.chars().filter(|c| !c.is_control()).take(MOST_TEXT).collect();
    let stack = |one: v1::WarmStack| WarmStack {
        stack: text(one.stack),
        seed: text(one.seed),
        ready: one.ready,
        making: one.making,
        wanted: one.wanted,
    };
    told.into_iter().take(MOST_STACKS).map(stack).collect()
}

/// Most slots of one host.
const MOST_SLOTS: usize = 64;

fn slots(warm: v1::Warm) -> Result<Vec<(EnvironmentId, String)>> {
    let slots = warm.slots.into_iter().take(MOST_SLOTS).map(|slot| {
        let id: EnvironmentId = proto::convert::id("warm.id", &slot.id)?;
        let is_key = slot.key.len() == manifest::identity::DIGITS && slot.key.bytes().all(|b| b.is_ascii_hexdigit());
        if is_key { Ok((id, slot.key)) } else { Err(Error::new(Code::FIELD, "warm.key is no SHA-256")) }
    });
    slots.collect()
}
