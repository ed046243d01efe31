//! The model of a mirror fleet, and the engine that decides all that happens in it.
//!
//! Pure: no I/O, no clock, no randomness of its own, nothing of gRPC, sled or tokio. It does not know how
//! rsync is called (options are opaque words, exits are [`outcome::ExitClass`]es), how records are encoded,
//! or who is connected to what socket.
//!
//! ```text
//!   Input ──▶ Engine::decide(now, input) ──▶ Decision { changes, sends, reply }
//!                    ▲                              │ the shell commits the changes,
//!                    └── Engine::apply(now, changes) ◀┘ then says the sends and the reply
//! ```
//!
//! Three facts about work are kept apart and never folded into one word: is the project *paused*, is the agent
//! *connected*, where is the *attempt*. A project fires *runs*; a run has *attempts*, each one try on one
//! placement under one *epoch*. Triggers are a counter, trees have versions, and whoever has less than wanted
//! has work.

#![deny(clippy::wildcard_enum_match_arm)]

pub mod agent;
pub mod attempt;
pub mod decision;
pub mod defaults;
pub mod engine;
pub mod id;
pub mod input;
pub mod marker;
pub mod outcome;
pub mod placement;
pub mod plan;
pub mod project;
pub mod record;
pub mod refusal;
pub mod retry;
pub mod run;
pub mod schedule;
pub mod standing;
pub mod time;
pub mod trash;
pub mod upstream;
pub mod words;

pub use engine::Engine;
