#![no_main]
//! See [`fleet_fuzz::listing_lines`].

libfuzzer_sys::fuzz_target!(|data: &[u8]| fleet_fuzz::listing_lines(data));
