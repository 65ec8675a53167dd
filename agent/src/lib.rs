//! The agent of one host: it dials its coordinator, makes what is ordered so on the container engine, and keeps it so.

pub mod agent;
pub mod changes;
pub mod clock;
pub mod config;
pub mod engine;
pub mod environments;
pub mod facts;
pub mod failpoints;
pub mod files;
pub mod firewall;
pub mod freezer;
pub mod host;
pub mod identity;
pub mod image;
pub mod isolation;
pub mod job;
pub mod junit;
pub mod logs;
pub mod mirror;
pub mod policy;
pub mod pool;
pub mod probe;
pub mod reconcile;
pub mod relay;
pub mod routes;
pub mod runs;
pub mod seeds;
pub mod session;
pub mod socket;
pub mod spool;
pub mod state;
pub mod steps;
pub mod subnets;
pub mod tunnel;
pub mod upload;
#[cfg(test)]
mod waiting;
