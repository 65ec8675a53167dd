//! Real processes on real parts, driven as a user would: one coordinator, agents, the command line, Docker.
//!
//! A test begins with [`real::turn`], starts a [`cluster::Cluster`], lets hosts join, and calls
//! [`cluster::Cluster::muster`]. Everything is waited for by a condition with a limit ([`condition`]), never by a
//! fixed time. What a test made is gone when its cluster is dropped; what a killed test left is swept by the next.

pub mod binaries;
pub mod call;
pub mod clean;
pub mod cluster;
pub mod condition;
pub mod daemon;
pub mod disk;
pub mod docker;
pub mod effects;
pub mod example;
pub mod fleet;
pub mod grpc;
pub mod host;
pub mod machines;
pub mod namespace;
pub mod ranges;
pub mod real;
pub mod sql;
mod template;
pub mod traffic;
