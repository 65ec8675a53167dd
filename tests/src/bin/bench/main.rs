//! Measures what BENCHMARKS.md tells. `./bench [NAME…]` builds what it needs and calls this.

mod data;
mod elastic;
mod engine;
mod environment;
mod memory;
mod place;
mod reboot;
mod relay;
mod report;
mod run;
mod simulation;
mod sleep;
mod step;
mod stores;
mod sync;
mod transport;
mod warm;

use std::process::ExitCode;

/// A name, and what measures.
type Measurement = (&'static str, fn() -> String);

/// In the order of BENCHMARKS.md.
const ALL: [Measurement; 14] = [
    ("step", step::measure),
    ("env/example", environment::measure),
    ("env/data", data::measure),
    ("env/stores", stores::measure),
    ("env/elasticsearch", elastic::measure),
    ("env/warm", warm::measure),
    ("env/sleep", sleep::measure),
    ("env/reboot", reboot::measure),
    ("env/relay", relay::measure),
    ("env/sync", sync::measure),
    ("env/transport", transport::measure),
    ("run", run::measure),
    ("memory", memory::measure),
    ("simulation", simulation::measure),
];

fn main() -> ExitCode {
    let asked: Vec<String> = std::env::args().skip(1).collect();
    let known: Vec<&str> = ALL.iter().map(|(name, _)| *name).collect();
    // `env` is all of `env/…`.
    let asks = |wanted: &str, name: &str| name == wanted || name.split('/').next() == Some(wanted);
    if let Some(unknown) = asked.iter().find(|wanted| !known.iter().any(|name| asks(wanted, name))) {
        eprintln!("bench: there is no {unknown:?}; there are {}", known.join(", "));
        return ExitCode::from(2);
    }
    for (name, measure) in ALL {
        if asked.is_empty() || asked.iter().any(|wanted| asks(wanted, name)) {
            eprintln!("bench: {name}");
            println!("{}", measure());
        }
    }
    ExitCode::SUCCESS
}
