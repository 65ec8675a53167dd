//! Moving the members of a target from their release to another: plan first, then execute.
//!
//! [`plan::plan`] makes every choice that can be made before; [`decide::decide`] is the only place where a rollout
//! moves. Both are pure. See `decide` for the rules and `waiting` for what `rollout status --why` prints.

pub mod ask;
pub mod decide;
pub mod decision;
pub mod plan;
pub mod progress;
pub mod reason;
pub mod reports;
pub mod waiting;
