//! coordinator

pub mod store;
