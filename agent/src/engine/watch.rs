//! One event stream per agent tells everybody whose container began or ended.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use tokio::sync::broadcast;

use super::{Ended, Engine, Error, Event, Result, Run};

/// Tells when containers begin and end.
#[derive(Debug, Clone)]
pub struct Watch {
    engine: Arc<dyn Engine>,
    told: Arc<Told>,
}

/// How a container ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct End {
    /// Its exit status; none: it is gone.
    pub code: Option<i32>,
    /// The engine was away while it ran: it may have been ended with the engine, and not by itself.
    pub engine_was_away: bool,
}

#[derive(Debug)]
struct Told {
    started: broadcast::Sender<Ended>,
    ended: broadcast::Sender<Ended>,
    /// When the engine was last found to be away.
    away: Mutex<Option<Instant>>,
}

impl Watch {
    /// Begins to listen for containers of `host`. Ends with the returned value's last clone.
    #[must_use]
    pub fn begin(engine: Arc<dyn Engine>, host: String) -> Self {
        let (started, ended) = (broadcast::Sender::new(256), broadcast::Sender::new(256));
        let told = Arc::new(Told { started, ended, away: Mutex::default() });
        tokio::spawn(listen(Arc::clone(&engine), host, Arc::downgrade(&told)));
        Self { engine, told }
    }

    /// All starts from now on; `None` means that some may have been missed.
    #[must_use]
    pub fn starts(&self) -> broadcast::Receiver<Ended> {
        self.told.started.subscribe()
    }

    /// All endings from now on; `None` means that some may have been missed.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<Ended> {
        self.told.ended.subscribe()
    }

    /// Whether the engine was away after `begun`: what ran since then may have ended with it.
    #[must_use]
    pub fn was_away(&self, begun: Instant) -> bool {
        let away = *self.told.away.lock().unwrap_or_else(PoisonError::into_inner);
        away.is_some_and(|at| at > begun)
    }

    /// Waits until the container does not run. While the engine is away it waits on: nothing is known.
    pub async fn end(&self, id: &str) -> End {
        let mut endings = self.subscribe();
        let mut engine_was_away = false;
        loop {
            match self.look(id).await {
                Ok(Some(Run::Exited(code))) => return End { code: Some(code), engine_was_away },
                Ok(None) => return End { code: None, engine_was_away },
                Ok(Some(_)) => {}
                Err(_) => {
                    engine_was_away = true;
                    tokio::time::sleep(Duration::from_millis(500)).await;
                    continue;
                }
            }
            loop {
                match endings.recv().await {
                    Ok(Some(other)) if other != id => {}
                    Err(broadcast::error::RecvError::Closed) => return std::future::pending().await,
                    Ok(None) => {
                        engine_was_away = true;
                        break;
                    }
                    Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => break,
                }
            }
        }
    }

    /// Waits until the container does not run, and answers its exit status; none when it is gone.
    pub async fn exit(&self, id: &str) -> Option<i32> {
        self.end(id).await.code
    }

    async fn look(&self, id: &str) -> Result<Option<Run>> {
        match self.engine.inspect(id).await {
            Ok(found) => Ok(found.map(|container| container.run)),
            Err(Error::NotFound(_)) => Ok(None),
            Err(why) => Err(why),
        }
    }
}

async fn listen(engine: Arc<dyn Engine>, host: String, told: Weak<Told>) {
    let mut pause = Duration::from_millis(100);
    loop {
        if let Ok(mut stream) = engine.events(&host).await {
            pause = Duration::from_millis(100);
            if !tell(&told, None) {
                return;
            }
            while let Some(event) = stream.next().await {
                if !tell(&told, Some(event)) {
                    return;
                }
            }
        }
        let Some(told) = told.upgrade() else { return };
        *told.away.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        drop(told);
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(2));
    }
}

/// Whether anybody can still listen; nobody doing so right now is fine.
fn tell(told: &Weak<Told>, what: Option<Event>) -> bool {
    let Some(told) = told.upgrade() else { return false };
    let (started, ended) = match what {
        None => (Some(None), Some(None)),
        Some(Event::Started(id)) => (Some(Some(id)), None),
        Some(Event::Ended(id)) => (None, Some(Some(id))),
    };
    let _ = started.map(|what| told.started.send(what));
    let _ = ended.map(|what| told.ended.send(what));
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::fake::Fake;
    use crate::engine::{ContainerSpec, adopt};

    /// The container `c`, which runs and is watched; its id.
    async fn running() -> (Arc<Fake>, Watch, String) {
        let fake = Arc::new(Fake::new());
        let watch = Watch::begin(fake.clone(), "h".to_owned());
        let spec = ContainerSpec { name: "c".to_owned(), host: "h".to_owned(), ..ContainerSpec::default() };
        let made = adopt::container(fake.as_ref(), &spec).await.expect("made");
        fake.start(&made.id).await.expect("started");
        (fake, watch, made.id)
    }

    #[tokio::test]
    async fn an_exit_is_told_before_during_and_after_the_wait() {
        let (fake, watch, id) = running().await;
        let waiting = tokio::spawn({
            let (watch, id) = (watch.clone(), id.clone());
            async move { watch.exit(&id).await }
        });
        fake.subscribed("h").await;
        fake.exit("c", 3);
        assert_eq!(waiting.await.expect("not cancelled"), Some(3));
        assert_eq!(watch.exit(&id).await, Some(3));
        fake.remove(&id).await.expect("removed");
        assert_eq!(watch.exit(&id).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn an_end_while_the_engine_was_away_is_told_as_such() {
        let (fake, watch, id) = running().await;
        let mut waiting = Box::pin(watch.end(&id));
        fake.away(true);
        fake.exit("c", 137);
        assert!(futures::poll!(&mut waiting).is_pending(), "nothing is known");
        fake.away(false);
        assert_eq!(waiting.await, End { code: Some(137), engine_was_away: true });
        assert_eq!(watch.end(&id).await, End { code: Some(137), engine_was_away: false });
    }
}
