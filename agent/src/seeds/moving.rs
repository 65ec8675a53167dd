//! What pushing and pulling seeds have in common: the way to the coordinator, and going on after a break.

use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use flate2::Compression;
use proto::v1;
use proto::v1::chunks_client::ChunksClient;
use tonic::transport::Channel;

use super::Setup;
use super::index::{Hash, hash};
use crate::environments::failure::Failure;
use crate::environments::lay::size;
use crate::fetch::Refused;

/// The coordinator is away: what is under way goes on when it is there again.
pub const AWAY: &str = "E_SEED_FETCH";
/// Longest pause before another attempt.
const PAUSE: Duration = Duration::from_secs(5);
/// How often it is told how far it is.
const TELL: Duration = Duration::from_millis(500);
/// How often an index is refused as lacking chunks before that is given up.
const TRIES: u32 = 3;

/// Attempts that were interrupted.
#[derive(Debug)]
pub(super) struct Breaks<'a> {
    setup: &'a Setup,
    work: v1::SeedWork,
    id: &'a str,
    pause: Duration,
    lacked: u32,
}

impl<'a> Breaks<'a> {
    /// None so far.
    pub fn none(setup: &'a Setup, work: v1::SeedWork, id: &'a str) -> Self {
        Self { setup, work, id, pause: Duration::from_millis(200), lacked: 0 }
    }

    /// How an attempt ended; none, after a pause and once the coordinator is there: it was interrupted, and is to be
    /// made again.
    pub async fn over<T>(&mut self, outcome: Result<T, Failure>) -> Option<Result<T, Failure>> {
        let failure = match outcome {
            Err(failure) if failure.code == AWAY => failure,
            // The store has lost chunks since it was asked for them.
            Err(failure) if failure.code == "E_SEED_INDEX" && self.lacked < TRIES => {
                self.lacked += 1;
                failure
            }
            other => return Some(other),
        };
        tracing::info!(seed = %self.id, why = %failure, "moving a seed was interrupted and goes on");
        self.setup.tell_of(self.work, self.id, "interrupted; waits for the coordinator");
        tokio::time::sleep(crate::clock::jitter(self.pause)).await;
        self.pause = (self.pause * 2).min(PAUSE);
        self.setup.channel.clone().wait_for(Option::is_some).await.ok();
        None
    }
}

/// The coordinator's client.
pub(super) fn client(setup: &Setup) -> Result<ChunksClient<Channel>, Failure> {
    let channel = setup.channel.borrow().clone();
    let channel = channel.ok_or_else(|| Failure::passing(AWAY, "the coordinator is away"))?;
    Ok(ChunksClient::new(channel)
        .max_decoding_message_size(proto::MAX_MESSAGE)
        .max_encoding_message_size(proto::MAX_MESSAGE))
}

/// A refusal has a reason code; everything else is a break.
pub(super) fn refused(status: &tonic::Status) -> Failure {
    match Refused::read(status) {
        Some(refused) => Failure::lasting(&refused.code, refused.text),
        None => Failure::passing(AWAY, status.message()),
    }
}

/// A chunk as it travels: compressed, if that is shorter.
pub(super) fn pack(hash: Hash, plain: Vec<u8>) -> v1::Chunk {
    let mut packed = flate2::write::DeflateEncoder::new(Vec::with_capacity(plain.len() / 2), Compression::fast());
    let done = packed.write_all(&plain).and_then(|()| packed.finish());
    let shorter = done.ok().filter(|packed| packed.len() < plain.len());
    let is_packed = shorter.is_some();
    v1::Chunk { hash: hash.to_vec(), data: shorter.unwrap_or(plain).into(), packed: is_packed }
}

/// The plain bytes of a chunk that came; none: they are not what was asked for.
pub(super) fn unpack(wanted: &Hash, length: usize, chunk: &v1::Chunk) -> Option<Vec<u8>> {
    let plain = if chunk.packed {
        let mut plain = Vec::with_capacity(length);
        let limit = length as u64 + 1;
        flate2::read::DeflateDecoder::new(&chunk.data[..]).take(limit).read_to_end(&mut plain).ok()?;
        plain
    } else {
        chunk.data.to_vec()
    };
    (plain.len() == length && hash(&plain) == *wanted).then_some(plain)
}

/// How far it is.
#[derive(Debug)]
pub(super) struct Progress<'a> {
    setup: &'a Setup,
    work: v1::SeedWork,
    id: &'a str,
    all: u64,
    done: u64,
    told: Option<Instant>,
}

impl<'a> Progress<'a> {
    /// Of `all` bytes, none yet.
    pub fn new(setup: &'a Setup, (work, id): (v1::SeedWork, &'a str), all: u64) -> Self {
        Self { setup, work, id, all, done: 0, told: None }
    }

    /// So many more.
    pub fn add(&mut self, bytes: usize) {
        self.done += bytes as u64;
        if self.told.is_some_and(|at| at.elapsed() < TELL) {
            return;
        }
        self.told = Some(Instant::now());
        let what = if self.work == v1::SeedWork::Push { "sending" } else { "fetching" };
        self.setup.tell_of(self.work, self.id, &format!("{what}, {} of {}", size(self.done), size(self.all)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_comes_back_as_it_went_and_nothing_else_is_taken_for_it() {
        for plain in [vec![7; 100_000], b"short".to_vec(), (0..=255).collect::<Vec<u8>>()] {
            let hash = hash(&plain);
            let chunk = pack(hash, plain.clone());
            assert!(chunk.data.len() <= plain.len());
            assert!(unpack(&hash, plain.len(), &chunk).is_some_and(|came| came == plain));
            assert!(unpack(&hash, plain.len() + 1, &chunk).is_none());
            let cut = v1::Chunk { data: chunk.data.slice(1..), ..chunk };
            assert!(unpack(&hash, plain.len(), &cut).is_none());
        }
    }

    #[test]
    fn what_unpacks_to_more_than_it_should_is_not_unpacked() {
        let bomb = pack(hash(b"x"), vec![0; 200 << 10]);
        assert!(bomb.packed && bomb.data.len() < 2000);
        assert_eq!(unpack(&hash(&vec![0; 200 << 10]), 10, &bomb), None);
    }

    #[test]
    fn a_refusal_keeps_its_code_and_a_break_is_one() {
        let mut status = tonic::Status::failed_precondition("E_SEED_CHUNK: damaged");
        status.metadata_mut().insert("muster-reason", "E_SEED_CHUNK".parse().expect("a value"));
        let failure = refused(&status);
        assert_eq!((failure.code.as_str(), failure.text.as_str(), failure.passes), ("E_SEED_CHUNK", "damaged", false));
        assert_eq!(refused(&tonic::Status::unavailable("gone")).code, AWAY);
        assert_eq!(refused(&tonic::Status::unknown("h2 broke")).code, AWAY);
    }
}
