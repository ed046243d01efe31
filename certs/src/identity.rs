//! Who a certificate speaks for: `spiffe://<trust-domain>/agent/<name>`, `/user/<name>` or `/coordinator`, as the one
//! URI in its subject alternative names.
//!
//! Knows names and certificates, not whether the chain was verified (rustls did that before) and not what an identity
//! may do (the coordinator's policy table says that).

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;

use crate::serial::{Serial, SerialError};
use crate::spki::SpkiHash;
use crate::x509::{self, MalformedCertificate};

/// Longest name of an agent or a user, in bytes: document 2.3 of the design.
pub const NAME_BYTES_MAX: usize = 63;

/// Longest trust domain, in bytes: SPIFFE-ID, section 2.3.
pub const TRUST_DOMAIN_BYTES_MAX: usize = 255;

const SCHEME: &str = "spiffe://";

/// Why a text or a certificate names nobody in this fleet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The name has forbidden characters, or is empty or too long.
    #[error(
        "name {0:?} is refused: 1 to {NAME_BYTES_MAX} characters, a letter or digit first, then letters, digits and . _ + -"
    )]
    Name(String),
    /// The trust domain has forbidden characters, or is empty or too long.
    #[error(
        "trust domain {0:?} is refused: 1 to {TRUST_DOMAIN_BYTES_MAX} characters, small letters, digits and . _ -, e.g. mirrors.example.org"
    )]
    TrustDomain(String),
    /// The URI is not one of the three forms, or of another trust domain.
    #[error(
        "{uri:?} is no identity of the trust domain {trust_domain}; fault: whoever issued the certificate"
    )]
    Uri {
        /// The URI found.
        uri: String,
        /// The trust domain asked for.
        trust_domain: TrustDomain,
    },
    /// A certificate speaks for exactly one identity.
    #[error("the certificate has {0} URI names, exactly one is wanted; fault: whoever issued it")]
    UriCount(usize),
    /// A CA certificate was presented as an identity, or the reverse.
    #[error("the certificate is {0}; fault: whoever chose it for this use")]
    WrongKind(&'static str),
    /// Not a certificate at all.
    #[error("could not read the certificate")]
    Malformed(#[from] MalformedCertificate),
    /// No certificate in a PEM text.
    #[error("no CERTIFICATE section in the PEM text")]
    NoCertificate,
    /// No serial number, or one longer than X.509 allows.
    #[error("the certificate's serial number is refused; fault: whoever issued it")]
    Serial(#[from] SerialError),
    /// A validity outside what can be represented.
    #[error("the certificate's validity is out of range; fault: whoever issued it")]
    Validity,
}

/// The name of an agent or a user: `[A-Za-z0-9][A-Za-z0-9._+-]{0,62}`, checked once, here.
///
/// `+` is allowed by the fleet and not by SPIFFE's path grammar; these URIs are read by nobody but us.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(String);

impl Name {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._+-".contains(&b);
        let good = text.len() <= NAME_BYTES_MAX
            && text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
            && text.bytes().all(allowed);
        if !good {
            // One character more than allowed is enough to show that it is too long.
            return Err(IdentityError::Name(text.chars().take(NAME_BYTES_MAX + 1).collect()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The fleet's name in every identity, e.g. `mirrors.example.org`. Characters by SPIFFE-ID, section 2.1.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TrustDomain(String);

impl TrustDomain {
    /// The trust domain as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The trust domain a CA certificate stands for: its one URI name, `spiffe://<trust-domain>` without a path
    /// (X509-SVID, section 3.2).
    ///
    /// # Errors
    /// When it is no CA certificate or has no such name.
    pub fn from_ca_der(der: &[u8]) -> Result<Self, IdentityError> {
        let certificate = x509::parse(der)?;
        if !certificate.is_ca() {
            return Err(IdentityError::WrongKind("no CA certificate"));
        }
        let uri = only_uri(&certificate)?;
        let domain = uri.strip_prefix(SCHEME).unwrap_or_default();
        domain.parse()
    }

    /// The URI that a CA certificate of this trust domain carries.
    pub(crate) fn uri(&self) -> String {
        format!("{SCHEME}{}", self.0)
    }
}

impl FromStr for TrustDomain {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
        if text.is_empty() || text.len() > TRUST_DOMAIN_BYTES_MAX || !text.bytes().all(allowed) {
            return Err(IdentityError::TrustDomain(text.chars().take(TRUST_DOMAIN_BYTES_MAX + 1).collect()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whom a certificate speaks for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Identity {
    /// One agent.
    Agent(Name),
    /// One user.
    User(Name),
    /// The coordinator.
    Server,
}

impl Identity {
    /// The SPIFFE ID of this identity in a trust domain.
    #[must_use]
    pub fn uri(&self, trust_domain: &TrustDomain) -> String {
        format!("{}/{self}", trust_domain.uri())
    }

    /// Reads a SPIFFE ID. Exact: case, no percent escapes, no query, no trailing slash.
    ///
    /// # Errors
    /// [`IdentityError::Uri`] for anything that [`Identity::uri`] does not write.
    pub fn from_uri(uri: &str, trust_domain: &TrustDomain) -> Result<Self, IdentityError> {
        let path = uri.strip_prefix(trust_domain.uri().as_str()).and_then(|rest| rest.strip_prefix('/'));
        let identity = match path.map(|path| path.split_once('/').unwrap_or((path, ""))) {
            Some(("agent", name)) => name.parse().ok().map(Self::Agent),
            Some(("user", name)) => name.parse().ok().map(Self::User),
            Some(_) | None => (path == Some("coordinator")).then_some(Self::Server),
        };
        identity.ok_or_else(|| IdentityError::Uri { uri: uri.to_owned(), trust_domain: trust_domain.clone() })
    }

    /// Reads who a verified end-entity certificate speaks for. Strict: exactly one URI name, of this trust domain, and
    /// no CA certificate. **Verifies no signature and no time**: call it on what rustls has accepted.
    ///
    /// # Errors
    /// See [`IdentityError`]; the connection then has no identity and must get no rights.
    pub fn from_der(der: &CertificateDer<'_>, trust_domain: &TrustDomain) -> Result<Peer, IdentityError> {
        let certificate = x509::parse(der)?;
        if certificate.is_ca() {
            return Err(IdentityError::WrongKind("a CA certificate"));
        }
        let identity = Self::from_uri(only_uri(&certificate)?, trust_domain)?;
        let validity = certificate.validity();
        Ok(Peer {
            identity,
            serial: Serial::from_bytes(certificate.raw_serial())?,
            not_before: time(validity.not_before.timestamp())?,
            not_after: time(validity.not_after.timestamp())?,
            spki_hash: SpkiHash::of_spki(certificate.public_key().raw),
            issuer: certificate.issuer().as_raw().to_vec(),
        })
    }

    /// [`Identity::from_der`] on the first certificate of a PEM text, for a host that reads its own.
    ///
    /// # Errors
    /// As [`Identity::from_der`], and when there is no certificate in the text.
    pub fn from_pem(pem: &str, trust_domain: &TrustDomain) -> Result<Peer, IdentityError> {
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| IdentityError::NoCertificate)?;
        Self::from_der(&der, trust_domain)
    }
}

/// The path part of the SPIFFE ID: `agent/ftp1`, `user/maria`, `coordinator`.
impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agent(name) => write!(f, "agent/{name}"),
            Self::User(name) => write!(f, "user/{name}"),
            Self::Server => f.write_str("coordinator"),
        }
    }
}

/// The other end of a connection, read once from its certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Whom it speaks for.
    pub identity: Identity,
    /// The certificate's serial number: what [`crate::DenyList`] holds.
    pub serial: Serial,
    /// Start of validity.
    pub not_before: DateTime<Utc>,
    /// End of validity.
    pub not_after: DateTime<Utc>,
    /// The hash of its public key, compared on renewal.
    pub spki_hash: SpkiHash,
    /// The name of the CA that issued it, DER; [`crate::CaBundle::issuer_hash`] says which CA that is.
    pub issuer: Vec<u8>,
}

/// The single URI among the subject alternative names.
fn only_uri<'a>(certificate: &'a X509Certificate<'_>) -> Result<&'a str, IdentityError> {
    // `Err` is a doubled extension: then nothing in it can be trusted to be *the* name.
    let names = certificate.subject_alternative_name().map_err(|_| IdentityError::UriCount(0))?;
    let uris: Vec<&str> = names
        .iter()
        .flat_map(|extension| &extension.value.general_names)
        .filter_map(|name| if let GeneralName::URI(uri) = name { Some(*uri) } else { None })
        .collect();
    match uris.as_slice() {
        [uri] => Ok(uri),
        other => Err(IdentityError::UriCount(other.len())),
    }
}

fn time(timestamp: i64) -> Result<DateTime<Utc>, IdentityError> {
    DateTime::from_timestamp(timestamp, 0).ok_or(IdentityError::Validity)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rcgen::{CertificateParams, SanType};

    fn domain() -> TrustDomain {
        "mirrors.example.org".parse().unwrap()
    }

    /// A self-signed certificate with these URI names.
    fn certificate(uris: &[&str], mut params: CertificateParams) -> CertificateDer<'static> {
        params.subject_alt_names = uris.iter().map(|&uri| SanType::URI(uri.try_into().unwrap())).collect();
        params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    #[test]
    fn names() {
        for good in ["a", "CPAN", "ftp1.example", "0+1_2-3", &"x".repeat(63)] {
            assert_eq!(good.parse::<Name>().unwrap().as_str(), good);
        }
        for bad in ["", ".a", "-a", "+a", "a/b", "a b", "ä", "a\n", "a%20", &"x".repeat(64)] {
            assert!(bad.parse::<Name>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn trust_domains() {
        assert!("mirrors.example.org".parse::<TrustDomain>().is_ok());
        for bad in ["", "Mirrors", "a/b", "a:1", "a b", &"x".repeat(256)] {
            assert!(bad.parse::<TrustDomain>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn only_the_three_forms_are_identities() {
        let agent = Identity::Agent("ftp1".parse().unwrap());
        assert_eq!(agent.uri(&domain()), "spiffe://mirrors.example.org/agent/ftp1");
        assert_eq!(Identity::Server.uri(&domain()), "spiffe://mirrors.example.org/coordinator");
        for bad in [
            "spiffe://mirrors.example.org",
            "spiffe://mirrors.example.org/",
            "spiffe://mirrors.example.org/agent",
            "spiffe://mirrors.example.org/agent/",
            "spiffe://mirrors.example.org/agent/a/b",
            "spiffe://mirrors.example.org/agent/a?x",
            "spiffe://mirrors.example.org/Agent/a",
            "spiffe://mirrors.example.org/coordinator/",
            "spiffe://mirrors.example.org/coordinator/x",
            "spiffe://mirrors.example.org.evil.test/agent/a",
            "spiffe://mirrors.example.orgagent/a",
            "spiffe://other.example.org/agent/a",
            "SPIFFE://mirrors.example.org/agent/a",
            "https://mirrors.example.org/agent/a",
            "",
        ] {
            assert!(Identity::from_uri(bad, &domain()).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn uris_round_trip(name in "[A-Za-z0-9][A-Za-z0-9._+-]{0,62}") {
            for identity in [Identity::Agent(name.parse().unwrap()), Identity::User(name.parse().unwrap())] {
                prop_assert_eq!(Identity::from_uri(&identity.uri(&domain()), &domain()).unwrap(), identity);
            }
        }

        #[test]
        fn no_text_panics(uri in "\\PC{0,80}") {
            if let Ok(identity) = Identity::from_uri(&uri, &domain()) {
                prop_assert_eq!(identity.uri(&domain()), uri);
            }
        }
    }

    #[test]
    fn a_certificate_needs_exactly_one_uri_of_ours() {
        let ours = "spiffe://mirrors.example.org/agent/ftp1";
        let read =
            |uris: &[&str]| Identity::from_der(&certificate(uris, CertificateParams::default()), &domain());
        assert_eq!(read(&[ours]).unwrap().identity.to_string(), "agent/ftp1");
        assert_eq!(read(&[]).unwrap_err(), IdentityError::UriCount(0));
        assert_eq!(read(&[ours, ours]).unwrap_err(), IdentityError::UriCount(2));
        assert_eq!(read(&[ours, "https://example.org"]).unwrap_err(), IdentityError::UriCount(2));
        assert!(matches!(read(&["spiffe://evil.test/agent/ftp1"]), Err(IdentityError::Uri { .. })));
    }

    #[test]
    fn a_ca_is_nobody_and_nobody_is_a_ca() {
        let mut params = CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
        let ca = certificate(&["spiffe://mirrors.example.org"], params);
        assert_eq!(TrustDomain::from_ca_der(&ca).unwrap(), domain());
        assert!(matches!(Identity::from_der(&ca, &domain()), Err(IdentityError::WrongKind(_))));

        let leaf = certificate(&["spiffe://mirrors.example.org"], CertificateParams::default());
        assert!(matches!(TrustDomain::from_ca_der(&leaf), Err(IdentityError::WrongKind(_))));
    }

    #[test]
    fn serials_are_hex_without_the_sign_byte() {
        let mut params = CertificateParams::default();
        params.serial_number = Some(vec![0x00, 0x9f, 0x00, 0x01].into());
        let der = certificate(&["spiffe://mirrors.example.org/user/maria"], params);
        let peer = Identity::from_der(&der, &domain()).unwrap();
        assert_eq!(peer.serial.as_str(), "9f0001");
        assert_eq!(peer.spki_hash, SpkiHash::of_certificate(&der).unwrap());
    }
}
