//! Artifacts of the coordinator: inputs of seeds, archives of images. A fetch that breaks goes on where it was as soon
//! as the coordinator is there again, however often; only its refusal ends it.

use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, Stream, StreamExt as _};
use proto::v1;
use tokio::sync::watch;
use tonic::Status;
use tonic::transport::Channel;

/// First and longest pause before it goes on.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// The coordinator does not give it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {text}")]
pub struct Refused {
    /// Stable.
    pub code: String,
    /// What it said.
    pub text: String,
}

impl Refused {
    /// A refusal has a reason code; none: the way broke.
    #[must_use]
    pub fn read(status: &Status) -> Option<Self> {
        let code = status.metadata().get("muster-reason")?.to_str().ok()?;
        let text = status.message();
        let text = text.strip_prefix(code).and_then(|text| text.strip_prefix(": ")).unwrap_or(text);
        (status.code() != tonic::Code::Unavailable).then(|| Self { code: code.to_owned(), text: text.to_owned() })
    }
}

/// How a fetch stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// It begins, or goes on.
    Open,
    /// The coordinator is away.
    Broken,
}

/// What `request` asks for, from its offset on. `told` hears of breaks.
pub fn fetch(
    ways: watch::Receiver<Option<Channel>>,
    request: v1::FetchRequest,
    told: impl FnMut(Way) + Send + 'static,
) -> impl Stream<Item = Result<Bytes, Refused>> + Send {
    let open = move |offset| {
        let (mut ways, request) = (ways.clone(), v1::FetchRequest { offset, ..request.clone() });
        async move {
            let channel = ways.wait_for(Option::is_some).await.map(|channel| channel.clone());
            let channel = channel.ok().flatten().ok_or_else(|| Status::unavailable("the agent ends"))?;
            Ok(crate::session::client(channel).fetch(request).await?.into_inner())
        }
    };
    resumed(open, told)
}

/// One stream out of several that follow each other.
fn resumed<O, F, S, T>(open: O, told: T) -> impl Stream<Item = Result<Bytes, Refused>> + Send
where
    O: FnMut(u64) -> F + Send,
    F: Future<Output = Result<S, Status>> + Send,
    S: Stream<Item = Result<v1::FetchChunk, Status>> + Unpin + Send,
    T: FnMut(Way) + Send,
{
    let begin = Fetch { open, told, now: None, offset: 0, pause: PAUSES.0 };
    stream::try_unfold(begin, |mut fetch| async move { Ok(fetch.next().await?.map(|data| (data, fetch))) })
}

struct Fetch<O, S, T> {
    open: O,
    told: T,
    now: Option<S>,
    /// Bytes that have come.
    offset: u64,
    pause: Duration,
}

impl<O, F, S, T> Fetch<O, S, T>
where
    O: FnMut(u64) -> F,
    F: Future<Output = Result<S, Status>>,
    S: Stream<Item = Result<v1::FetchChunk, Status>> + Unpin,
    T: FnMut(Way),
{
    async fn next(&mut self) -> Result<Option<Bytes>, Refused> {
        loop {
            let broken = match self.step().await {
                Ok(Some(data)) => {
                    self.offset += data.len() as u64;
                    self.pause = PAUSES.0;
                    return Ok(Some(data));
                }
                Ok(None) => return Ok(None),
                Err(status) => status,
            };
            if let Some(refused) = Refused::read(&broken) {
                return Err(refused);
            }
            tracing::info!(why = broken.message(), came = self.offset, "a fetch was interrupted and goes on");
            self.now = None;
            (self.told)(Way::Broken);
            tokio::time::sleep(crate::clock::jitter(self.pause)).await;
            self.pause = (self.pause * 2).min(PAUSES.1);
        }
    }

    async fn step(&mut self) -> Result<Option<Bytes>, Status> {
        let now = match &mut self.now {
            Some(now) => now,
            None => {
                let opened = (self.open)(self.offset).await?;
                (self.told)(Way::Open);
                self.now.insert(opened)
            }
        };
        Ok(now.next().await.transpose()?.map(|chunk| chunk.data))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::{Arc, Mutex};

    use futures::TryStreamExt as _;

    use super::*;

    fn chunk(text: &'static str) -> Result<v1::FetchChunk, Status> {
        Ok(v1::FetchChunk { data: text.into() })
    }

    fn refusal() -> Status {
        let mut status = Status::failed_precondition("E_ARTIFACT_NOT_FOUND: there is none");
        status.metadata_mut().insert("muster-reason", "E_ARTIFACT_NOT_FOUND".parse().expect("a value"));
        status
    }

    type Script = Vec<Result<Vec<Result<v1::FetchChunk, Status>>, Status>>;

    /// What came, at which offsets it was asked, and what was told.
    async fn play(script: Script) -> (Result<String, Refused>, Vec<u64>, Vec<Way>) {
        let (asked, told) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
        let mut script = VecDeque::from(script);
        let (asks, tells) = (Arc::clone(&asked), Arc::clone(&told));
        let open = move |offset| {
            asks.lock().expect("whole").push(offset);
            let next = script.pop_front().expect("no more is asked for");
            async move { next.map(stream::iter) }
        };
        let came: Result<Vec<Bytes>, Refused> =
            resumed(open, move |way| tells.lock().expect("whole").push(way)).try_collect().await;
        let came = came.map(|parts| String::from_utf8(parts.concat()).expect("a text"));
        let (asked, told) = (asked.lock().expect("whole").clone(), told.lock().expect("whole").clone());
        (came, asked, told)
    }

    #[tokio::test(start_paused = true)]
    async fn it_goes_on_behind_what_came_however_often_it_breaks() {
        let broken = || Err(Status::unknown("h2 broke"));
        let (came, asked, told) = play(vec![
            Ok(vec![chunk("CREATE "), chunk("TABLE"), broken(), chunk("never")]),
            Err(Status::unavailable("gone")),
            Ok(vec![broken()]),
            Ok(vec![chunk(" t;")]),
        ])
        .await;
        assert_eq!(came.as_deref(), Ok("CREATE TABLE t;"));
        assert_eq!(asked, [0, 12, 12, 12]);
        use Way::{Broken, Open};
        assert_eq!(told, [Open, Broken, Broken, Open, Broken, Open]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_ends_it_and_keeps_its_code() {
        let (came, asked, _) = play(vec![Ok(vec![chunk("a"), Err(Status::unavailable("gone"))]), Err(refusal())]).await;
        let refused = came.expect_err("refused");
        assert_eq!((refused.code.as_str(), refused.text.as_str()), ("E_ARTIFACT_NOT_FOUND", "there is none"));
        assert_eq!(asked, [0, 1]);
    }
}
