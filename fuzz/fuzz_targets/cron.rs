#![no_main]
//! See [`fleet_fuzz::cron`].

libfuzzer_sys::fuzz_target!(|data: &[u8]| fleet_fuzz::cron(data));
