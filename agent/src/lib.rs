//! The agent of one host: it dials its coordinator, makes what is ordered so on the container engine, and keeps it so.

pub mod clock;
pub mod config;
pub mod engine;
pub mod facts;
pub mod failpoints;
pub mod files;
pub mod job;
pub mod policy;
pub mod probe;
pub mod relay;
pub mod state;
pub mod subnets;
