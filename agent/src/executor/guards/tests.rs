//! Verdicts of the guards.
