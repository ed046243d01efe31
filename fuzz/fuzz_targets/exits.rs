#![no_main]
//! See [`fleet_fuzz::exits`].

libfuzzer_sys::fuzz_target!(|data: &[u8]| fleet_fuzz::exits(data));
