//! Rules of this repository that no compiler checks.

mod dependencies;
mod documents;
mod sources;
mod tree;
mod versions;
