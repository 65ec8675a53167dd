//! Tests of the whole: the repository's rules, and the shipping binaries on real parts.

mod tidy;
