//! One member's part of a rollout, as its agent carries it out: orders in, a journal, actions out.
//!
//! The machine is pure and level-triggered: it holds a small durable [`journal::Slot`] per target and what the
//! engine was last seen to run, and derives from both what to do next. The agent's driver performs the actions and
//! feeds results back; the simulator does the same with a made-up engine.
//!
//! ```text
//!  Go ─> Starting ─> Switching ─> Checking ─> Decided ─┬─ Confirm ──────────> Settled(confirmed)
//!          │ verdict failed ──────────────────> Decided └─ confirm_deadline ─> Settled(undone)
//! ```
//!
//! - Everything that has an effect is written to the journal before the effect.
//! - The journal of one generation takes exactly one of `confirmed` | `undone`; the first write wins.
//! - An order without undo settles `confirmed` by itself at a healthy verdict and holds at a failed one.
//! - A newer order (higher generation) replaces the step; what it started is stopped once the newer one is settled.

pub mod event;
pub mod evidence;
pub mod journal;
pub mod machine;
pub mod order;
mod process;
pub mod report;
