//! Nouns and decisions of Muster.
//!
//! Nothing here does IO, reads a clock or makes a random number: time and ids are made at the edge
//! and passed in. That is what lets the simulator run the shipping decisions.

pub mod app;
pub mod authorize;
pub mod environment;
pub mod event;
pub mod health;
pub mod hello;
pub mod host;
pub mod ids;
pub mod label;
pub mod log;
pub mod name;
pub mod path;
pub mod placement;
pub mod policy;
pub mod quota;
pub mod release;
pub mod rollout;
pub mod run;
pub mod seed;
pub mod stack;
pub mod step;
pub mod time;
