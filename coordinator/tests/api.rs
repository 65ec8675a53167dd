//! Tests of the coordinator as its callers see it: the real server over TLS, on a store in memory.

mod authz;
mod bad_input;
mod certificates;
mod environments;
mod fetch;
mod logs;
mod rollouts;
mod sealed;
mod seeds;
mod sessions;
mod stack_check;
mod support;
