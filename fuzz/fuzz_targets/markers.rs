#![no_main]
//! See [`fleet_fuzz::markers`].

libfuzzer_sys::fuzz_target!(|data: &[u8]| fleet_fuzz::markers(data));
