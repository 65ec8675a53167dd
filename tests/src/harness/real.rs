//! Whether tests with real Docker run here, and how many at a time.

use std::sync::{Condvar, Mutex, OnceLock, PoisonError};

/// Tests with real parts at one time; more would only make each other slow on two cores.
const AT_ONCE: usize = 5;

static RUNNING: Mutex<usize> = Mutex::new(0);
static ENDED: Condvar = Condvar::new();

/// A turn with the real parts; ends when dropped.
#[derive(Debug)]
pub struct Turn {
    counts: bool,
}

/// Waits for a turn. None, with a notice, where there is no Docker or `MUSTER_TEST_REAL=0`.
///
/// # Panics
/// `MUSTER_TEST_REAL=1` and no engine answers: then these tests must not be left out in silence.
pub fn turn() -> Option<Turn> {
    aside()?;
    let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    while *running >= AT_ONCE {
        running = ENDED.wait(running).unwrap_or_else(PoisonError::into_inner);
    }
    *running += 1;
    Some(Turn { counts: true })
}

/// A turn beside the others: for a test that waits for deadlines most of its time.
///
/// # Panics
/// As [`turn`].
pub fn aside() -> Option<Turn> {
    if !wanted() {
        eprintln!("left out: this test needs Docker (MUSTER_TEST_REAL)");
        return None;
    }
    Some(Turn { counts: false })
}

impl Drop for Turn {
    fn drop(&mut self) {
        if !self.counts {
            return;
        }
        *RUNNING.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        ENDED.notify_one();
    }
}

fn wanted() -> bool {
    static WANTED: OnceLock<bool> = OnceLock::new();
    *WANTED.get_or_init(|| match std::env::var("MUSTER_TEST_REAL").as_deref() {
        Ok("0") => false,
        Ok("1") => {
            assert!(
                super::docker::answers(),
                "MUSTER_TEST_REAL=1, and no Docker Engine answers; scripts/engine.sh up starts one"
            );
            true
        }
        _ => super::docker::answers(),
    })
}
