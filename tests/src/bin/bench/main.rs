//! Measures what BENCHMARKS.md tells. `./bench [NAME…]` builds what it needs and calls this.

mod data;
mod engine;
mod environment;
mod memory;
mod relay;
mod report;
mod run;
mod simulation;
mod step;

use std::process::ExitCode;

/// A name, and what measures.
type Measurement = (&'static str, fn() -> String);

/// In the order of BENCHMARKS.md.
const ALL: [Measurement; 7] = [
    ("step", step::measure),
    ("env", environment::measure),
    ("data", data::measure),
    ("run", run::measure),
    ("memory", memory::measure),
    ("relay", relay::measure),
    ("simulation", simulation::measure),
];

fn main() -> ExitCode {
    let asked: Vec<String> = std::env::args().skip(1).collect();
    let known: Vec<&str> = ALL.iter().map(|(name, _)| *name).collect();
    if let Some(unknown) = asked.iter().find(|name| !known.contains(&name.as_str())) {
        eprintln!("bench: there is no {unknown:?}; there are {}", known.join(", "));
        return ExitCode::from(2);
    }
    for (name, measure) in ALL {
        if asked.is_empty() || asked.iter().any(|wanted| wanted == name) {
            eprintln!("bench: {name}");
            println!("{}", measure());
        }
    }
    ExitCode::SUCCESS
}
