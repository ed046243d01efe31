#![no_main]
//! See [`fleet_fuzz::convert_wire`].

libfuzzer_sys::fuzz_target!(|data: &[u8]| fleet_fuzz::convert_wire(data));
