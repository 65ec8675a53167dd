use std::sync::atomic::{AtomicU64, Ordering};

use super::{Stats, run};

/// Scenarios of every `./test`; `cargo run -p tests --release --bin simulate` runs as many as one likes.
const SCENARIOS: u64 = 400;

/// Runs scenarios on all cores; the first broken invariant ends the test with its seed.
fn many(scenarios: u64) -> Stats {
    let next = AtomicU64::new(1);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let work = || {
            let mut stats = Stats::default();
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed > scenarios {
                    return stats;
                }
                match run(seed, false) {
                    Ok((part, _)) => stats.add(&part),
                    Err(broken) => panic!(
                        "{} broken by seed {seed}: {}; again: cargo run -p tests --release --bin simulate -- --seed {seed} --trace",
                        broken.violation.invariant, broken.violation.text
                    ),
                }
            }
        };
        let handles: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let mut all = Stats::default();
        for handle in handles {
            match handle.join() {
                Ok(part) => all.add(&part),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        all
    })
}

#[test]
fn no_invariant_breaks_and_everything_that_can_happen_does() {
    let stats = many(SCENARIOS);
    assert_eq!(stats.missing(), Vec::<String>::new(), "{stats}");
    assert!(stats.rollouts > SCENARIOS && stats.faults_per_rollout() >= 5.0, "{stats}");
}

#[test]
fn one_seed_is_one_history() {
    for seed in [3, 17, 41, 77, 733] {
        let trace = |seed| run(seed, true).map(|(_, trace)| trace).map_err(|broken| broken.violation);
        let first = trace(seed);
        assert!(first.as_ref().is_ok_and(|lines| lines.len() > 50), "{first:?}");
        assert_eq!(first, trace(seed), "seed {seed}");
    }
}
