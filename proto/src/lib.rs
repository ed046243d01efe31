//! The contract of the fleet: `mirror.v1` as generated code, and the one mapping between it and the model.
//!
//! ```text
//!   people, agents ── v1 ──▶ convert ──▶ fleet::{ProjectSpec, AgentFacts, Outcome, ...} ──▶ engine
//!   people, agents ◀─ v1 ─── convert, status ◀── fleet::{records, Offer, Refusal} ◀──────── engine
//!                                store ◀── stored ──▶ fleet::record::Record
//! ```
//!
//! What comes in is judged here, with rsync's grammar and the model's types, and all its faults are told at
//! once; what is stored is read back strictly. The crate knows neither connections nor the store's keys and
//! envelopes, and decides nothing.

pub mod convert;
mod redact;
pub mod status;
pub mod stored;

/// The contract.
#[allow(missing_docs, clippy::all, clippy::pedantic, reason = "generated; documented in the .proto files")]
pub mod v1 {
    tonic::include_proto!("mirror.v1");
}

/// What the store holds. Private: [`stored`] is its only reader and writer.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    reason = "generated; documented in the .proto file"
)]
mod store {
    tonic::include_proto!("mirror.store.v1");
}

/// The encoded descriptor set of the contract, comments included: for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
