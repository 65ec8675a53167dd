//! The main job on real Docker, through the command line.

mod compose;
mod environments;
mod isolation;
pub mod production;
mod rollouts;
mod runs;
pub use runs::no_traces;
mod sharing;
mod starting;
