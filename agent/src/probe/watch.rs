//! How often is asked: fast until the port opens, gently until healthy, then as the check says.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use domain::health::HealthCheck;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::{Answer, Ask, Kind, once, open};

/// Between two connects to a port that is not open yet. A refused one costs some 30 µs.
const CONNECT: Duration = Duration::from_millis(20);
/// The same in the first [`EARLY`]: most things that start fast are open by then, and nobody should wait for a pause.
const CONNECT_EARLY: Duration = Duration::from_millis(4);
const EARLY: Duration = Duration::from_secs(1);
/// Shortest pause between protocol probes of something not healthy yet.
const SHORTEST: Duration = Duration::from_millis(50);
/// Longest pause before the first healthy answer.
const LONGEST: Duration = Duration::from_secs(1);
/// A pause is at least so many times as long as the probe took: a database's login costs it more than it costs us.
const TIMES_OWN: u32 = 10;

/// Asks for the whole host, under one cap; clones share it.
#[derive(Clone, Debug)]
pub struct Prober {
    places: Arc<Semaphore>,
    next: Arc<Mutex<Option<Instant>>>,
    spacing: Duration,
}

impl Default for Prober {
    fn default() -> Self {
        Self::new(32, 200)
    }
}

impl Prober {
    /// At most `concurrent` questions at once (at least 1), and `per_second` protocol probes begun (1–1000000).
    #[must_use]
    pub fn new(concurrent: usize, per_second: u32) -> Self {
        Self {
            places: Arc::new(Semaphore::new(concurrent.max(1))),
            next: Arc::new(Mutex::new(None)),
            spacing: Duration::from_secs(1) / per_second.clamp(1, 1_000_000),
        }
    }

    /// Asks once, under the cap.
    pub async fn once(&self, ask: &Ask, address: IpAddr, timeout: Duration) -> Answer {
        self.turn().await;
        // The semaphore is never closed.
        let _place = self.places.acquire().await.ok();
        once(ask, address, timeout).await
    }

    /// Asks again and again until the receiver is dropped.
    ///
    /// While the port is closed an answer is delivered once per interval, not for each of the many connects.
    #[must_use]
    pub fn watch(&self, ask: Ask, check: &HealthCheck, address: IpAddr) -> Watch {
        let (sender, answers) = mpsc::channel(16);
        let task = Asking { prober: self.clone(), ask, check: check.clone(), address, sender };
        let handle = tokio::spawn(task.run()).abort_handle();
        Watch { answers, handle }
    }

    async fn connect(&self, address: SocketAddr, timeout: Duration) -> Answer {
        let _place = self.places.acquire().await.ok();
        open(address, timeout).await
    }

    /// Waits for this caller's place in the host's rate.
    async fn turn(&self) {
        let at = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            let at = next.map_or_else(Instant::now, |next| next.max(Instant::now()));
            *next = Some(at + self.spacing);
            at
        };
        tokio::time::sleep_until(at).await;
    }
}

/// Answers as they come; asking stops when this is dropped.
#[derive(Debug)]
pub struct Watch {
    answers: mpsc::Receiver<Answer>,
    handle: AbortHandle,
}

impl Watch {
    /// The next answer. Cancel safe. `None` only when the runtime ends.
    pub async fn next(&mut self) -> Option<Answer> {
        self.answers.recv().await
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.handle.abort();
    }
}

struct Asking {
    prober: Prober,
    ask: Ask,
    check: HealthCheck,
    address: IpAddr,
    sender: mpsc::Sender<Answer>,
}

impl Asking {
    async fn run(self) {
        if self.until_healthy().await.is_some() {
            self.steadily().await;
        }
    }

    /// `None`: nobody listens any more.
    async fn until_healthy(&self) -> Option<()> {
        let mut pause = SHORTEST;
        loop {
            self.until_open().await?;
            let answer = self.prober.once(&self.ask, self.address, self.check.timeout).await;
            let (healthy, kind, took) = (answer.healthy, answer.kind, answer.took);
            self.sender.send(answer).await.ok()?;
            if healthy {
                return Some(());
            }
            match kind {
                // It listened for a moment only, as databases do while they set themselves up.
                Kind::Refused => tokio::time::sleep(CONNECT).await,
                // The pause was made over there, where its end is seen at once.
                Kind::Waited if took >= SHORTEST => {}
                Kind::Waited | Kind::Answered | Kind::TimedOut | Kind::Broken => {
                    tokio::time::sleep(pause.max(took * TIMES_OWN).min(LONGEST)).await;
                    pause = (pause * 2).min(LONGEST);
                }
            }
        }
    }

    async fn until_open(&self) -> Option<()> {
        let address = SocketAddr::new(self.address, self.ask.port());
        let mut told: Option<Instant> = None;
        let first = Instant::now();
        loop {
            let began = Instant::now();
            let answer = self.prober.connect(address, self.check.timeout).await;
            if answer.healthy {
                return Some(());
            }
            if told.is_none_or(|told| told.elapsed() >= self.check.interval) {
                told = Some(Instant::now());
                self.sender.send(answer).await.ok()?;
            }
            let pause = if first.elapsed() < EARLY { CONNECT_EARLY } else { CONNECT };
            tokio::time::sleep_until(began + pause).await;
        }
    }

    async fn steadily(&self) {
        loop {
            tokio::time::sleep(self.check.interval).await;
            let answer = self.prober.once(&self.ask, self.address, self.check.timeout).await;
            if self.sender.send(answer).await.is_err() {
                return;
            }
        }
    }
}
