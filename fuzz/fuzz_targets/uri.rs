#![no_main]
//! See [`fleet_fuzz::uri`].

libfuzzer_sys::fuzz_target!(|data: &[u8]| fleet_fuzz::uri(data));
