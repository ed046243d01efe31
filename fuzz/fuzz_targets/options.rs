#![no_main]
//! See [`fleet_fuzz::options`].

libfuzzer_sys::fuzz_target!(|data: &[u8]| fleet_fuzz::options(data));
