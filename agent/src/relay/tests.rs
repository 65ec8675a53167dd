//! The relay over real sockets.

mod control;
mod forwarding;
mod holding;
mod process;
mod refusing;
mod rig;
mod switching;
mod tcp;
mod tunnels;
