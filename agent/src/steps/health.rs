//! Samples of a process's health: over the network by the agent, by a fresh container for commands, or only by the
//! fact that it runs.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::health::{HealthCheck, Probe};
use domain::step::event::Outcome;

use crate::clock;
use crate::engine::{ContainerSpec, adopt, last_lines};
use crate::host::Host;
use crate::probe::{Answer, Ask, Kind};

/// One answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// When the question was sent, on the boot clock.
    pub taken: Duration,
    /// What came.
    pub outcome: Outcome,
    /// In words.
    pub text: String,
}

/// How one process is asked.
#[derive(Debug, Clone)]
pub struct Asker {
    host: Arc<Host>,
    check: HealthCheck,
    address: Option<IpAddr>,
    first_port: Option<u16>,
    spec: ContainerSpec,
    /// When it was started or found.
    begun: Instant,
}

impl Asker {
    /// For a running process at an address.
    #[must_use]
    pub fn new(host: Arc<Host>, check: HealthCheck, address: Option<IpAddr>, spec: ContainerSpec) -> Self {
        Self { host, check, address, first_port: spec.ports.first().copied(), spec, begun: Instant::now() }
    }

    /// Not the release is to blame when its process ended with the engine: whoever asks why is told.
    fn explained(&self, mut sample: Sample) -> Sample {
        if sample.outcome != Outcome::Pass && self.host.watch.was_away(self.begun) {
            sample.text.push_str("; the container engine was away meanwhile");
        }
        sample
    }

    /// Asks in the check's cadence until the task is dropped.
    pub async fn follow(self, mut told: impl FnMut(Sample)) {
        match (Ask::of(&self.check.probe, self.first_port), self.address) {
            (Some(ask), Some(address)) => {
                let mut answers = self.host.prober.watch(ask, &self.check, address);
                while let Some(answer) = answers.next().await {
                    told(self.explained(sample(&answer)));
                }
            }
            _ => loop {
                let sample = self.once().await;
                told(sample);
                tokio::time::sleep(self.check.interval).await;
            },
        }
    }

    /// Asks now.
    pub async fn once(&self) -> Sample {
        self.explained(self.asked().await)
    }

    async fn asked(&self) -> Sample {
        let taken = clock::boot_time();
        match (&self.check.probe, Ask::of(&self.check.probe, self.first_port), self.address) {
            (_, Some(ask), Some(address)) => sample(&self.host.prober.once(&ask, address, self.check.timeout).await),
            (Probe::Command { argv }, _, _) => {
                let (outcome, text) = self.command(argv).await;
                Sample { taken, outcome, text }
            }
            // That it ended is told by the engine.
            (Probe::Container, _, _) => Sample { taken, outcome: Outcome::Pass, text: "running".to_owned() },
            _ => Sample { taken, outcome: Outcome::Fail, text: "the process has no port or address to ask".to_owned() },
        }
    }

    /// Runs the command in a fresh container of the same release.
    async fn command(&self, argv: &[String]) -> (Outcome, String) {
        let mut spec = self.spec.clone();
        spec.name.push_str("-check");
        spec.part.push_str(".check");
        spec.command = Some(argv.to_vec());
        spec.entrypoint = Some(Vec::new());
        let engine = self.host.engine.as_ref();
        let ran = async {
            let made = adopt::container(engine, &spec).await?;
            engine.start(&made.id).await?;
            Ok::<_, crate::engine::Error>(made.id)
        };
        let id = match ran.await {
            Ok(id) => id,
            Err(why) => return (Outcome::Fail, why.to_string()),
        };
        let ended = tokio::time::timeout(self.check.timeout, self.host.watch.exit(&id)).await;
        let said = last_lines(engine, &id, 3).await.join(" | ");
        let _ = engine.remove(&id).await;
        match ended {
            Ok(Some(0)) => (Outcome::Pass, "the command ended with 0".to_owned()),
            Ok(code) => (Outcome::Fail, format!("the command ended with {}: {said}", code.unwrap_or(-1))),
            Err(_) => (Outcome::Fail, format!("the command did not end within {:?}", self.check.timeout)),
        }
    }
}

fn sample(answer: &Answer) -> Sample {
    let outcome = match (answer.healthy, answer.kind) {
        (true, _) => Outcome::Pass,
        (false, Kind::Refused) => Outcome::Refused,
        (false, _) => Outcome::Fail,
    };
    let status = answer.status.map(|status| format!("HTTP {status} ")).unwrap_or_default();
    let text = if answer.text.starts_with("HTTP") { answer.text.clone() } else { format!("{status}{}", answer.text) };
    Sample { taken: Duration::from_micros(answer.at_micros).saturating_sub(answer.took), outcome, text }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::path::Path;

    use super::*;
    use crate::engine::fake::Fake;
    use crate::waiting::until;

    #[tokio::test]
    async fn a_failing_answer_says_that_the_engine_was_away_since_its_process_was_started() {
        let fake = Arc::new(Fake::new());
        fake.away(true);
        let (host, _folder) = crate::host::tests::host(Arc::clone(&fake), Path::new("/nowhere")).await;
        let asker = || {
            let check = HealthCheck::new(Probe::Tcp { port: Some(1) });
            Asker::new(Arc::clone(&host), check, Some(Ipv4Addr::LOCALHOST.into()), ContainerSpec::default())
        };
        let before = asker();
        until("the engine is missed", async || host.watch.was_away(before.begun)).await;
        fake.away(false);
        fake.subscribed(&host.id).await;
        assert_eq!(before.once().await.text, "connection refused; the container engine was away meanwhile");
        assert_eq!(asker().once().await.text, "connection refused");
    }
}
