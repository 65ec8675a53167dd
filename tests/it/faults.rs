//! Processes are killed at the worst instants, a host is cut off: each ends right without an operator, nothing
//! doubled, nothing lost, and the client that asked gets the outcome. Whoever is killed is started again, as an
//! installed service would be.

mod agent;
mod bad_input;
mod coordinator;
mod cut;
mod engine;
mod full;
mod kills;
mod relay;
mod released;
mod standstill;
