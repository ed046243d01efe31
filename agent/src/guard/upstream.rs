//! From which upstream hosts this agent may pull: any public address; loopback, link-local, private and other
//! special ones only where the agent's own file lists the host or the network. Otherwise whoever commands the
//! coordinator could read what listens inside the agent's network. Pure but for [`resolve`].

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::time::Duration;

use rsync::Host;

/// Longest wait for the name servers.
pub const RESOLVE_WAIT_MAX: Duration = Duration::from_secs(10);
/// Most addresses of one host that are looked at.
const ADDRESSES_MAX: usize = 64;

/// One entry of `allow_upstreams`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Allowed {
    /// A host name; whatever its addresses are.
    Name(String),
    /// All addresses that begin as this one does.
    Network {
        /// The address.
        address: IpAddr,
        /// How many bits count.
        bits: u8,
    },
}

/// The text is neither a host name nor an address or network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("wanted is a host name, an address or a network such as 10.1.0.0/16 or fd00::/8")]
pub struct BadAllowed;

impl FromStr for Allowed {
    type Err = BadAllowed;

    fn from_str(text: &str) -> Result<Self, BadAllowed> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse::<u8>().map_err(|_| BadAllowed)?)),
            None => (text, None),
        };
        match address.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            Ok(address) => {
                let all = if address.is_ipv4() { 32 } else { 128 };
                let bits = bits.unwrap_or(all);
                if bits > all { Err(BadAllowed) } else { Ok(Self::Network { address, bits }) }
            }
            Err(_) if bits.is_none() && rsync::uri::valid_host(text) => {
                Ok(Self::Name(text.to_ascii_lowercase()))
            }
            Err(_) => Err(BadAllowed),
        }
    }
}

/// As it is typed.
impl fmt::Display for Allowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Network { address, bits } => write!(f, "{address}/{bits}"),
        }
    }
}

impl Allowed {
    fn covers(&self, candidate: IpAddr) -> bool {
        let Self::Network { address, bits } = self else { return false };
        let left_bits = |address: IpAddr| match address {
            IpAddr::V4(v4) => u128::from(v4.to_bits()) << 96,
            IpAddr::V6(v6) => v6.to_bits(),
        };
        let mask = u128::MAX.checked_shl(128 - u32::from(*bits)).unwrap_or(0);
        address.is_ipv4() == candidate.is_ipv4() && (left_bits(*address) ^ left_bits(candidate)) & mask == 0
    }
}

/// The rules.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UpstreamRules {
    /// What is allowed besides public addresses.
    pub allowed: Vec<Allowed>,
    /// Public addresses count only if they are listed as well.
    pub only_listed: bool,
}

/// This agent may not pull from there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpstreamRefusal {
    /// The address is of a special kind.
    Special {
        /// The host as assigned.
        host: String,
        /// Its address.
        address: IpAddr,
        /// Which kind.
        kind: &'static str,
    },
    /// Only listed hosts are allowed, and this one is not.
    NotListed(String),
}

impl fmt::Display for UpstreamRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Special { host, address, kind } => write!(
                f,
                "upstream host \"{host}\" has the {kind} address {address}; list it under allow_upstreams in the agent's \
                 own file if that is meant"
            ),
            Self::NotListed(host) => write!(
                f,
                "upstream host \"{host}\" is not under allow_upstreams in the agent's own file, and nothing else is allowed \
                 (only_allowed_upstreams)"
            ),
        }
    }
}

impl UpstreamRules {
    /// Whether the agent may pull from a host that has these addresses: all of them must be allowed, as rsync
    /// takes whichever answers.
    ///
    /// # Errors
    /// The first address that is not.
    pub fn judge(&self, host: &Host, addresses: &[IpAddr]) -> Result<(), UpstreamRefusal> {
        let text = host.to_string();
        if self.allowed.iter().any(|allowed| *allowed == Allowed::Name(text.clone())) {
            return Ok(());
        }
        for address in addresses.iter().map(|address| unwrapped(*address)) {
            if self.allowed.iter().any(|allowed| allowed.covers(address)) {
                continue;
            }
            if let Some(kind) = special(address) {
                return Err(UpstreamRefusal::Special { host: text, address, kind });
            }
            if self.only_listed {
                return Err(UpstreamRefusal::NotListed(text));
            }
        }
        Ok(())
    }
}

/// The addresses of a host. They may be others when rsync asks: the name servers of the upstream decide that.
///
/// # Errors
/// When the name servers know none, or do not answer in [`RESOLVE_WAIT_MAX`].
pub async fn resolve(host: &Host, port: u16) -> io::Result<Vec<IpAddr>> {
    match host {
        Host::V4(address) => Ok(vec![IpAddr::V4(*address)]),
        Host::V6(address) => Ok(vec![IpAddr::V6(*address)]),
        Host::Name(name) => {
            let found =
                tokio::time::timeout(RESOLVE_WAIT_MAX, tokio::net::lookup_host((name.as_str(), port)))
                    .await
                    .map_err(|_| {
                        io::Error::new(io::ErrorKind::TimedOut, "the name servers do not answer")
                    })??;
            Ok(found.take(ADDRESSES_MAX).map(|address| address.ip()).collect())
        }
    }
}

/// An IPv4 address in the clothes of IPv6 reaches the IPv4 host: mapped, NAT64 (RFC 6052), 6to4 (RFC 3056).
fn unwrapped(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    let [a, b, c, d, e, f, g, h] = v6.segments();
    let embedded =
        |high: u16, low: u16| IpAddr::V4(Ipv4Addr::from_bits((u32::from(high) << 16) | u32::from(low)));
    match [a, b, c, d, e, f] {
        [0, 0, 0, 0, 0, 0xffff] | [0x64, 0xff9b, 0, 0, 0, 0] => embedded(g, h),
        [0x2002, high, low, ..] => embedded(high, low),
        _ => address,
    }
}

/// The kind of an address that is not a public one. Ranges: the IANA special-purpose registries.
fn special(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(v4) => special_v4(v4),
        IpAddr::V6(v6) => special_v6(v6),
    }
}

fn special_v4(address: Ipv4Addr) -> Option<&'static str> {
    let [a, b, c, _] = address.octets();
    match (a, b, c) {
        (127, ..) => Some("loopback"),
        (10, ..) | (172, 16..=31, _) | (192, 168, _) => Some("private"),
        (169, 254, _) => Some("link-local"),
        (100, 64..=127, _) => Some("carrier's private"),
        (224..=239, ..) => Some("multicast"),
        (0 | 240..=255, ..) | (192, 0, 0) | (198, 18..=19, _) => Some("reserved"),
        _ => None,
    }
}

fn special_v6(address: Ipv6Addr) -> Option<&'static str> {
    let first = address.segments()[0];
    match first {
        _ if address.is_loopback() => Some("loopback"),
        0xfc00..=0xfdff => Some("private"),
        0xfe80..=0xfebf => Some("link-local"),
        0xfec0..=0xfeff => Some("site-local"),
        0xff00..=0xffff => Some("multicast"),
        // Global unicast is 2000::/3; all else is reserved, the unspecified address and ::/96 included.
        0x2000..=0x3fff => None,
        _ => Some("reserved"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(allowed: &[&str], only_listed: bool) -> UpstreamRules {
        UpstreamRules { allowed: allowed.iter().map(|text| text.parse().unwrap()).collect(), only_listed }
    }

    fn judge(rules: &UpstreamRules, host: &str, addresses: &[&str]) -> bool {
        let addresses: Vec<IpAddr> = addresses.iter().map(|text| text.parse().unwrap()).collect();
        rules.judge(&Host::parse(host).unwrap(), &addresses).is_ok()
    }

    #[test]
    fn public_is_allowed_and_everything_special_is_not() {
        let none = UpstreamRules::default();
        for public in ["151.101.2.132", "2a04:4e42::644", "172.32.0.1", "100.128.0.1", "64:ff9b::9765:284"] {
            assert!(judge(&none, "ftp.example.org", &[public]), "{public}");
        }
        for special in [
            "127.0.0.1",
            "127.9.9.9",
            "10.0.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "198.18.0.1",
            "::1",
            "::",
            "fe80::1",
            "fd00::1",
            "fec0::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:10.1.1.1",
            "64:ff9b::a00:1",
            "2002:7f00:1::",
            "::7f00:1",
        ] {
            assert!(!judge(&none, "ftp.example.org", &[special]), "{special}");
        }
        assert!(
            !judge(&none, "ftp.example.org", &["151.101.2.132", "127.0.0.1"]),
            "one bad address is enough"
        );
    }

    #[test]
    fn the_agents_file_lists_names_and_networks() {
        let listed = rules(&["Mirror.Internal", "10.1.0.0/16", "::1", "[fd00::]/8"], false);
        assert!(judge(&listed, "mirror.internal", &["192.168.0.1"]));
        assert!(judge(&listed, "x.example.org", &["10.1.255.255", "::1", "fdff::1", "::ffff:10.1.2.3"]));
        for other in ["10.2.0.0", "127.0.0.1", "fe80::1"] {
            assert!(!judge(&listed, "x.example.org", &[other]), "{other}");
        }
        assert!(judge(&rules(&["0.0.0.0/0"], true), "h", &["127.0.0.1"]));
        let strict = rules(&["ftp.example.org", "192.0.2.0/24"], true);
        assert!(judge(&strict, "ftp.example.org", &["151.101.2.132"]));
        assert!(judge(&strict, "other.example.org", &["192.0.2.7"]));
        assert!(!judge(&strict, "other.example.org", &["151.101.2.132"]));
    }

    #[test]
    fn bad_entries_are_refused() {
        for bad in ["", "10.0.0.0/33", "::/129", "10.0.0/8", "a b", "-e", "host/8", "10.0.0.0/", "1.2.3.4.5"]
        {
            assert_eq!(bad.parse::<Allowed>(), Err(BadAllowed), "{bad}");
        }
    }
}
