//! TLS on both sides: connector that trusts one pinned CA, acceptor that knows expired certificates from valid ones.
