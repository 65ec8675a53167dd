//! Tests of the whole: the repository's rules, and the shipping binaries on real parts.

mod faults;
mod system;
mod tidy;
