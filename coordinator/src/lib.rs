//! The coordinator of Muster: `muster serve`, and in `cli` the clients of it.
//!
//! `grpc/`, `http/` and `tasks/` call `app/`, which makes every write; `app/` calls `store/`, which has the only SQL.

pub mod app;
pub mod artifacts;
pub mod auth;
pub mod ca;
pub mod cli;
pub mod clock;
pub mod config;
pub mod error;
pub mod failpoint;
pub mod grpc;
pub mod http;
pub mod serve;
pub mod sessions;
pub mod store;
pub mod tasks;
pub mod vault;

pub use serve::{Listeners, Running, serve, start};
