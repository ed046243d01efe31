#![no_main]
//! See [`fleet_fuzz::progress`].

libfuzzer_sys::fuzz_target!(|data: &[u8]| fleet_fuzz::progress(data));
