//! Work that makes more work, done by a few threads until none is left.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Most threads: more gain nothing, the file system's own locks are the limit.
const MOST: usize = 4;

/// What waits to be done.
#[derive(Debug)]
pub struct Queue<T> {
    inner: Mutex<Inner<T>>,
    changed: Condvar,
}

#[derive(Debug)]
struct Inner<T> {
    tasks: Vec<T>,
    /// Threads that may still add something.
    busy: usize,
    failed: bool,
}

impl<T> Queue<T> {
    /// Adds something. The last one added is done first, so that few folders are open at a time.
    pub fn push(&self, task: T) {
        self.lock().tasks.push(task);
        self.changed.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next task; none: everything is done, or something failed.
    fn take(&self) -> Option<T> {
        let mut inner = self.lock();
        loop {
            if inner.failed {
                return None;
            }
            if let Some(task) = inner.tasks.pop() {
                inner.busy += 1;
                return Some(task);
            }
            if inner.busy == 0 {
                return None;
            }
            inner = self.changed.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn done(&self, failed: bool) {
        let mut inner = self.lock();
        inner.busy -= 1;
        inner.failed |= failed;
        if inner.failed || (inner.busy == 0 && inner.tasks.is_empty()) {
            drop(inner);
            self.changed.notify_all();
        }
    }
}

/// Does `first` and all that comes of it. The first failure ends everything.
///
/// # Errors
/// What `work` answers first.
pub fn run<T: Send, E: Send>(first: T, work: impl Fn(T, &Queue<T>) -> Result<(), E> + Sync) -> Result<(), E> {
    let queue =
        Queue { inner: Mutex::new(Inner { tasks: vec![first], busy: 0, failed: false }), changed: Condvar::new() };
    let failure = Mutex::new(None);
    let thread = || {
        while let Some(task) = queue.take() {
            let done = work(task, &queue);
            let failed = done.is_err();
            if let Err(why) = done {
                failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
            }
            queue.done(failed);
        }
    };
    let count = std::thread::available_parallelism().map_or(1, usize::from).min(MOST);
    std::thread::scope(|scope| {
        for _ in 1..count {
            scope.spawn(thread);
        }
        thread();
    });
    failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}
