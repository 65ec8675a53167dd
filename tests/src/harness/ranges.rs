//! Addresses, ports and subnets that no two clusters of a test run share.

use std::sync::atomic::{AtomicU32, Ordering};

static CLUSTERS: AtomicU32 = AtomicU32::new(0);
static HOSTS: AtomicU32 = AtomicU32::new(0);

/// Number of a cluster in this process, from 1.
pub fn next_cluster() -> u32 {
    CLUSTERS.fetch_add(1, Ordering::Relaxed) + 1
}

/// Number of a host in this process, from 0.
pub fn next_host() -> u32 {
    HOSTS.fetch_add(1, Ordering::Relaxed)
}

/// An address of the loopback network, of this process alone as far as a process id tells.
#[must_use]
pub fn address(cluster: u32, last: u32) -> String {
    let ours = 16 + std::process::id() % 200;
    format!("127.{ours}.{}.{last}", cluster % 256)
}

/// 500 ports of a host's own.
#[must_use]
pub fn ports(host: u32) -> String {
    let first = 20_000 + (host % 20) * 500;
    format!("{first}-{}", first + 499)
}

/// A /22 (64 small bridges, or four large ones) of a host's own, in a part of 198.18.0.0/15 that the demo does not use.
#[must_use]
pub fn subnets(host: u32) -> String {
    let slice = (std::process::id().wrapping_mul(17) + host) % 64;
    format!("198.19.{}.0/22", slice * 4)
}
