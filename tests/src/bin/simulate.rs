//! Runs simulated rollouts: `simulate --count 20000`, or one of them again: `simulate --seed 17 --trace`.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use tests::simulation::{Broken, Stats, run};

struct Asked {
    seed: Option<u64>,
    first: u64,
    count: u64,
    rollouts: u64,
    trace: bool,
    complete: bool,
}

fn main() -> ExitCode {
    let asked = match read(std::env::args().skip(1)) {
        Ok(asked) => asked,
        Err(problem) => {
            eprintln!("{problem}");
            eprintln!(
                "usage: simulate [--seed N [--trace]] | [--first N] [--count SCENARIOS | --rollouts N] [--complete]"
            );
            return ExitCode::from(2);
        }
    };
    match asked.seed {
        Some(seed) => one(seed, asked.trace),
        None => many(&asked),
    }
}

fn read(arguments: impl Iterator<Item = String>) -> Result<Asked, String> {
    let mut asked = Asked { seed: None, first: 1, count: 1000, rollouts: 0, trace: false, complete: false };
    let mut arguments = arguments;
    while let Some(argument) = arguments.next() {
        let mut number = || {
            let text = arguments.next().ok_or_else(|| format!("{argument} needs a number"))?;
            text.parse::<u64>().map_err(|_| format!("{text:?} is not a number"))
        };
        match argument.as_str() {
            "--seed" => asked.seed = Some(number()?),
            "--first" => asked.first = number()?,
            "--count" => asked.count = number()?,
            "--rollouts" => asked.rollouts = number()?,
            "--trace" => asked.trace = true,
            "--complete" => asked.complete = true,
            other => return Err(format!("unknown argument {other:?}")),
        }
    }
    Ok(asked)
}

fn one(seed: u64, trace: bool) -> ExitCode {
    match run(seed, trace) {
        Ok((stats, lines)) => {
            for line in lines {
                println!("{line}");
            }
            println!("{stats}");
            ExitCode::SUCCESS
        }
        Err(broken) => {
            for line in &broken.trace {
                println!("{line}");
            }
            complain(&broken);
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn complain(broken: &Broken) {
    eprintln!(
        "BROKEN {} at {:.3} s of seed {}: {}",
        broken.violation.invariant,
        broken.at as f64 / 1e6,
        broken.seed,
        broken.violation.text
    );
    eprintln!("again: cargo run -p tests --release --bin simulate -- --seed {} --trace", broken.seed);
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn many(asked: &Asked) -> ExitCode {
    let begun = Instant::now();
    let next = AtomicU64::new(asked.first);
    let rollouts = AtomicU64::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let results: Vec<(Stats, Option<Box<Broken>>)> = std::thread::scope(|scope| {
        let work = || worker(asked, &next, &rollouts);
        let handles: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        handles.into_iter().filter_map(|handle| handle.join().ok()).collect()
    });
    if results.len() < threads {
        eprintln!("a worker panicked");
        return ExitCode::FAILURE;
    }
    let mut stats = Stats::default();
    for (part, _) in &results {
        stats.add(part);
    }
    let first = results.iter().filter_map(|(_, broken)| broken.as_ref()).min_by_key(|broken| broken.seed);
    if let Some(broken) = first {
        complain(broken);
        return ExitCode::FAILURE;
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!("{stats}");
    println!("{seconds:.1} s, {:.0} rollouts/s", stats.rollouts as f64 / seconds);
    let missing = stats.missing();
    if asked.complete && !missing.is_empty() {
        eprintln!("never happened: {}", missing.join(", "));
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn worker(asked: &Asked, next: &AtomicU64, rollouts: &AtomicU64) -> (Stats, Option<Box<Broken>>) {
    let mut stats = Stats::default();
    loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        let enough = if asked.rollouts > 0 {
            rollouts.load(Ordering::Relaxed) >= asked.rollouts
        } else {
            seed >= asked.first + asked.count
        };
        if enough {
            return (stats, None);
        }
        match run(seed, false) {
            Ok((part, _)) => {
                rollouts.fetch_add(part.rollouts, Ordering::Relaxed);
                stats.add(&part);
            }
            Err(broken) => {
                // The others stop, too.
                rollouts.store(u64::MAX, Ordering::Relaxed);
                next.store(u64::MAX / 2, Ordering::Relaxed);
                return (stats, Some(broken));
            }
        }
    }
}
