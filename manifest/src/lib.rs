//! Reads the two files that users write, `muster.yaml` and `compose.yaml`, and the references in them.
//!
//! Text in, domain types out, no IO: the caller passes the texts, and a closure for files that a file names.
//! All problems of a file are told at once, each with its reason code, line and column.

pub mod app;
mod bytes;
mod distance;
pub mod dotenv;
pub mod duration;
pub mod git;
pub mod identity;
pub mod image_ref;
mod interpolate;
mod path;
pub mod problem;
mod reader;
pub mod stack;
mod words;
mod yaml;

pub use problem::{Code, Notice, Problem};
