//! What tests share: a harness of real processes, and the simulator.

pub mod harness;

pub mod simulation;
