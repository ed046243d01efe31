//! The engine told step by step, with a world of agents and projects in one hand: what people ask, what agents say, and
//! what the engine sends.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod alone;
mod catch_up;
mod declared;
mod fallback;
mod fallback_markers;
mod holds;
mod life;
mod moves;
mod plans;
mod promote;
mod pushes;
mod replace;
mod replace_refused;
mod reseed;
mod returns;
mod selected;
mod trash;
mod trio;
mod world;
