#![no_main]
//! See [`fleet_fuzz::stats`].

libfuzzer_sys::fuzz_target!(|data: &[u8]| fleet_fuzz::stats(data));
