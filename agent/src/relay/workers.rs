//! The threads that carry connections. Each has a runtime of its own, and a connection stays with one of them together
//! with its connections to endpoints: what belongs together never wakes or waits for another thread. With one runtime of
//! two threads, a small request takes a tenth to a quarter more of the processor.

use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread::{self, JoinHandle};

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// Most threads: the one that runs the relay, and one more.
pub(super) const MOST: usize = 2;

thread_local! {
    static NUMBER: Cell<usize> = const { Cell::new(0) };
}

/// The number of the worker whose thread asks, below [`MOST`].
pub(super) fn here() -> usize {
    NUMBER.get()
}

/// Where connections can be carried.
#[derive(Debug, Clone)]
pub(super) struct Workers(Arc<[Worker]>);

#[derive(Debug)]
struct Worker {
    runtime: Handle,
    carried: AtomicU64,
}

impl Workers {
    /// The worker with the fewest connections; among equals the first, which accepted the connection.
    pub fn choose(&self) -> Place {
        let all = self.0.iter().map(|worker| worker.carried.load(Relaxed)).enumerate();
        let number = all.min_by_key(|(_, carried)| *carried).map_or(0, |(number, _)| number);
        if let Some(worker) = self.0.get(number) {
            worker.carried.fetch_add(1, Relaxed);
        }
        Place { workers: self.clone(), number }
    }
}

/// A connection's place with a worker, until dropped.
#[derive(Debug)]
pub(super) struct Place {
    workers: Workers,
    number: usize,
}

impl Place {
    /// The worker's runtime; `None` when it is the caller's own.
    pub fn elsewhere(&self) -> Option<Handle> {
        let worker = self.workers.0.get(self.number).filter(|_| self.number != here())?;
        Some(worker.runtime.clone())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(worker) = self.workers.0.get(self.number) {
            worker.carried.fetch_sub(1, Relaxed);
        }
    }
}

/// The threads beside the caller's; they end when this is dropped, and with them whatever they carry.
#[derive(Debug)]
pub(super) struct Threads(Vec<(oneshot::Sender<()>, JoinHandle<()>)>);

impl Threads {
    /// Starts a thread per further core; the runtime that this is called in is the first worker.
    ///
    /// # Errors
    /// When the system gives no thread or no runtime.
    pub fn start() -> io::Result<(Self, Workers)> {
        let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let mut threads = Vec::new();
        let mut workers = vec![Handle::current()];
        for number in 1..cores.min(MOST) {
            let runtime = Builder::new_current_thread().max_blocking_threads(1).enable_all().build()?;
            workers.push(runtime.handle().clone());
            let (stop, stopped) = oneshot::channel();
            let work = move || {
                NUMBER.set(number);
                // An error is the same sign: the other end was dropped.
                let _ = runtime.block_on(stopped);
            };
            let thread = thread::Builder::new().name(format!("relay-{number}")).spawn(work)?;
            threads.push((stop, thread));
        }
        let workers = workers.into_iter().map(|runtime| Worker { runtime, carried: AtomicU64::new(0) }).collect();
        Ok((Self(threads), Workers(workers)))
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        for (stop, thread) in self.0.drain(..) {
            drop(stop);
            if thread.join().is_err() {
                tracing::error!("a thread of the relay failed");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn connections_go_to_the_worker_with_the_fewest() {
        let runtimes = [Handle::current(), Handle::current()];
        let workers =
            Workers(runtimes.into_iter().map(|runtime| Worker { runtime, carried: AtomicU64::new(0) }).collect());
        let (one, two, three) = (workers.choose(), workers.choose(), workers.choose());
        assert_eq!((one.number, two.number, three.number), (0, 1, 0));
        assert!(one.elsewhere().is_none() && two.elsewhere().is_some());
        drop(one);
        drop(three);
        assert_eq!(workers.choose().number, 0);
    }

    #[tokio::test]
    async fn a_worker_ends_with_what_it_carries() {
        let (threads, workers) = Threads::start().expect("threads");
        let (kept, ended) = oneshot::channel::<()>();
        let (told, number) = oneshot::channel();
        if let Some(worker) = workers.0.get(1) {
            worker.runtime.spawn(async move {
                told.send(here()).expect("awaited");
                std::future::pending::<()>().await;
                drop(kept);
            });
            assert_eq!(number.await, Ok(1));
        } else {
            drop(kept);
        }
        drop(threads);
        assert!(ended.await.is_err());
    }
}
