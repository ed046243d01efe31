#![no_main]
//! See [`fleet_fuzz::dates`].

libfuzzer_sys::fuzz_target!(|data: &[u8]| fleet_fuzz::dates(data));
