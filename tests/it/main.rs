//! One binary of end-to-end tests: whole fleets of the real programs, as people use them. Each test has a
//! fleet, a directory and an address of its own.

#![allow(clippy::disallowed_methods, reason = "a harness starts programs")]

mod clients;
mod edges;
mod refuse;
mod road;
mod survive;
mod tidy;
