//! The wire under gRPC: TLS between coordinator, agents and clients.
//!
//! One internal CA signs everybody. Clients check the coordinator against that CA (or its pin) and the
//! name [`SERVER_NAME`], whatever address they dial. The server takes connections with and without a client
//! certificate; one that is good but expired is marked so, never taken for a good one.

pub mod client;
pub mod join;
pub mod peer;
pub mod pin;
pub mod server;
pub mod verify;

pub use client::{Error, Identity, Options, Trust, connect};
pub use peer::{Peer, PeerCertificate, Presented};

use std::time::Duration;

/// The name in every coordinator's certificate; clients verify it, whatever address they dial.
pub const SERVER_NAME: &str = "coordinator.muster.internal";
/// HTTP/2 pings go out this often, on both sides.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// A connection whose ping is not answered for so long is closed.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Streams that one connection may have open at once.
pub const MAX_STREAMS: u32 = 256;
/// Bytes of headers of one request, or of one answer.
pub const MAX_HEADERS: u32 = 16 << 10;

/// Makes ring the process's only crypto provider. Called once in `main`; later calls change nothing.
pub fn install_provider() {
    // An error says that one is installed already, which is what we want.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

pub(crate) fn provider() -> std::sync::Arc<rustls::crypto::CryptoProvider> {
    std::sync::Arc::new(rustls::crypto::ring::default_provider())
}
