//! The main job on real Docker, through the command line.

mod compose;
mod diff;
mod elasticsearch;
mod disk;
mod environments;
mod isolation;
mod life;
mod moving;
pub mod production;
mod rollouts;
mod runs;
mod seeds;
pub use runs::no_traces;
mod sharing;
mod stand;
mod starting;
mod stores;
mod warm;
