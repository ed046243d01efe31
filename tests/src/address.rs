//! Loopback addresses that nobody else uses. All of 127.0.0.0/8 is this machine, so each fleet gets an address
//! of its own instead of ports that might be taken between choosing and binding them.

use std::{
    net::Ipv4Addr,
    sync::atomic::{AtomicU32, Ordering},
};

static COUNT: AtomicU32 = AtomicU32::new(0);

/// An address for one fleet: by the process id and a count within the process. Never 127.0.x.x, which other
/// programs use.
#[must_use]
pub fn unique() -> Ipv4Addr {
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    // 22 bits of process id (the kernel's most), mixed with the count so that neighbours differ.
    let id =
        std::process::id().wrapping_mul(1_021).wrapping_add(count.wrapping_mul(7_919)) % (254 * 256 * 254);
    let [_, a, b, c] = id.to_be_bytes();
    Ipv4Addr::new(127, 1 + a % 254, b, 1 + c % 254)
}
