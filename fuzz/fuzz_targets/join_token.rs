#![no_main]
//! See [`fleet_fuzz::join_token`].

libfuzzer_sys::fuzz_target!(|data: &[u8]| fleet_fuzz::join_token(data));
