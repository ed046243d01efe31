#![no_main]
//! See [`fleet_fuzz::store`].

libfuzzer_sys::fuzz_target!(|data: &[u8]| fleet_fuzz::store(data));
