//! The main job on real Docker, through the command line.

mod compose;
mod database;
mod diff;
mod disk;
mod elasticsearch;
mod environments;
mod install;
mod isolation;
mod life;
mod logs;
mod migrations;
mod moving;
mod owners;
pub mod production;
mod quotas;
mod rollouts;
mod runs;
mod seeded;
mod seeds;
pub use runs::no_traces;
mod sharing;
pub mod stand;
mod starting;
mod stores;
mod sync;
mod warm;
mod watch;
