//! The CA certificates a fleet trusts: one as a rule, two while one replaces the other.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use crate::identity::{IdentityError, Peer, TrustDomain};
use crate::spki::SpkiHash;
use crate::x509::{self, MalformedCertificate};

/// Most CAs in a bundle. A rotation needs two; more than a few is somebody else's trust store.
pub const CAS_MAX: usize = 8;

/// Why a text is not a CA bundle.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// A PEM section could not be decoded.
    #[error("the CA bundle is not readable PEM")]
    Pem,
    /// No certificate at all.
    #[error("the CA bundle holds no certificate")]
    Empty,
    /// More than [`CAS_MAX`].
    #[error("the CA bundle holds more than {CAS_MAX} certificates; wanted are the fleet's own CAs only")]
    TooMany,
    /// One certificate could not be decoded.
    #[error("certificate {position} of the CA bundle is damaged")]
    Malformed {
        /// Counted from 1.
        position: usize,
        /// What is wrong with it.
        source: MalformedCertificate,
    },
    /// One certificate is not a CA's.
    #[error(
        "certificate {position} of the CA bundle is no CA certificate; was a host's own certificate put there?"
    )]
    NotCa {
        /// Counted from 1.
        position: usize,
    },
    /// Two CAs of one name cannot be told apart: a wrong one shows as a bad signature, not as an unknown issuer.
    #[error(
        "certificate {position} of the CA bundle has the name of another one; a fleet's CAs have distinct names"
    )]
    SameName {
        /// Counted from 1.
        position: usize,
    },
}

/// One to [`CAS_MAX`] CA certificates, each a trust anchor.
#[derive(Debug, Clone)]
pub struct CaBundle(Vec<CertificateDer<'static>>);

impl CaBundle {
    /// Reads the certificates of a PEM text; other sections in it are passed over.
    ///
    /// # Errors
    /// [`BundleError`].
    pub fn from_pem(text: &str) -> Result<Self, BundleError> {
        // One more than allowed is enough to know that there are too many.
        let certificates = CertificateDer::pem_slice_iter(text.as_bytes())
            .take(CAS_MAX + 1)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| BundleError::Pem)?;
        Self::from_certificates(certificates)
    }

    /// Both bundles in one, each CA once: what is handed out while one CA replaces the other.
    ///
    /// # Errors
    /// [`BundleError`].
    pub fn union(&self, other: &Self) -> Result<Self, BundleError> {
        let new = other.0.iter().filter(|certificate| !self.0.contains(certificate));
        Self::from_certificates(self.0.iter().chain(new).cloned().collect())
    }

    /// The bundle as PEM text.
    #[must_use]
    pub fn to_pem(&self) -> String {
        self.0.iter().map(crate::pem::certificate).collect()
    }

    /// The hashes of the CAs' keys, in the bundle's order.
    #[must_use]
    pub fn hashes(&self) -> Vec<SpkiHash> {
        self.0.iter().filter_map(|certificate| SpkiHash::of_certificate(certificate).ok()).collect()
    }

    /// The trust domain that the first CA stands for.
    ///
    /// # Errors
    /// [`IdentityError`] when it is not a CA that this crate makes.
    pub fn trust_domain(&self) -> Result<TrustDomain, IdentityError> {
        TrustDomain::from_ca_der(&self.0[0])
    }

    /// Whether one of these CAs signed the first certificate of this PEM text. **Says nothing about its validity**: it
    /// is for a renewal, which an expired certificate may ask for, and for nothing else.
    #[must_use]
    pub fn signed(&self, cert_pem: &str) -> bool {
        CertificateDer::from_pem_slice(cert_pem.as_bytes()).is_ok_and(|der| self.issuer_of(&der).is_some())
    }

    /// The key hash of the CA that issued this certificate; `None`: it is not in the bundle. By the CA's name alone, which
    /// no two CAs of a fleet share: for a certificate that a handshake, or [`CaBundle::signed`], has verified.
    #[must_use]
    pub fn issuer_hash(&self, peer: &Peer) -> Option<SpkiHash> {
        self.names().into_iter().find(|(name, _)| *name == peer.issuer).map(|(_, hash)| hash)
    }

    /// Name (DER) and key hash of each CA: what [`CaBundle::issuer_hash`] compares, for those who ask often.
    #[must_use]
    pub fn names(&self) -> Vec<(Vec<u8>, SpkiHash)> {
        let parsed = self.0.iter().filter_map(|ca| x509::parse(ca).ok());
        parsed.map(|ca| (ca.subject().as_raw().to_vec(), SpkiHash::of_spki(ca.public_key().raw))).collect()
    }

    fn from_certificates(certificates: Vec<CertificateDer<'static>>) -> Result<Self, BundleError> {
        if certificates.is_empty() {
            return Err(BundleError::Empty);
        }
        if certificates.len() > CAS_MAX {
            return Err(BundleError::TooMany);
        }
        let mut names: Vec<&[u8]> = Vec::with_capacity(certificates.len());
        for (index, der) in certificates.iter().enumerate() {
            let position = index + 1;
            let certificate =
                x509::parse(der).map_err(|source| BundleError::Malformed { position, source })?;
            if !certificate.is_ca() {
                return Err(BundleError::NotCa { position });
            }
            let name = certificate.tbs_certificate.subject.as_raw();
            if names.contains(&name) {
                return Err(BundleError::SameName { position });
            }
            names.push(name);
        }
        Ok(Self(certificates))
    }

    /// As rustls wants them.
    pub(crate) fn roots(&self) -> Result<Arc<RootCertStore>, rustls::Error> {
        let mut roots = RootCertStore::empty();
        for certificate in &self.0 {
            roots.add(certificate.clone())?;
        }
        Ok(Arc::new(roots))
    }

    /// The CA that signed this certificate, if it is in the bundle.
    pub(crate) fn issuer_of(&self, der: &CertificateDer<'_>) -> Option<&CertificateDer<'static>> {
        let leaf = x509::parse(der).ok()?;
        self.0.iter().find(|ca| {
            x509::parse(ca).is_ok_and(|ca| {
                leaf.issuer().as_raw() == ca.subject().as_raw()
                    && leaf.verify_signature(Some(ca.public_key())).is_ok()
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ca::CertificateAuthority;
    use crate::key::KeyPair;
    use chrono::DateTime;

    fn authority() -> CertificateAuthority {
        let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        CertificateAuthority::create("example.org".parse().unwrap(), now).unwrap()
    }

    #[test]
    fn two_cas_and_a_union() {
        let (old, new) = (authority(), authority());
        let both = old.bundle().union(&new.bundle()).unwrap();
        assert_eq!(both.hashes(), [old.ca_hash(), new.ca_hash()]);
        assert_eq!(both.union(&new.bundle()).unwrap().hashes().len(), 2);
        let read = CaBundle::from_pem(&both.to_pem()).unwrap();
        assert_eq!(read.hashes(), both.hashes());
    }

    #[test]
    fn other_sections_are_passed_over() {
        let ca = authority();
        let text = format!("{}{}", KeyPair::generate().unwrap().pem().as_str(), ca.cert_pem());
        assert_eq!(CaBundle::from_pem(&text).unwrap().hashes(), [ca.ca_hash()]);
    }

    #[test]
    fn an_issuer_has_the_name_and_the_key() {
        let ca = authority();
        let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let leaf = ca.issue_server(&["localhost"], now).unwrap().issued.cert_pem;
        assert!(ca.bundle().signed(&leaf) && !authority().bundle().signed(&leaf));
        assert!(!ca.bundle().signed("no certificate"));
        assert_eq!(ca.bundle().trust_domain().unwrap().as_str(), "example.org");
        let leaf = CertificateDer::from_pem_slice(leaf.as_bytes()).unwrap();
        assert!(ca.bundle().issuer_of(&leaf).is_some());
        let peer = crate::Identity::from_der(&leaf, ca.trust_domain()).unwrap();
        assert_eq!(authority().bundle().union(&ca.bundle()).unwrap().issuer_hash(&peer), Some(ca.ca_hash()));
        assert_eq!(authority().bundle().issuer_hash(&peer), None);

        let mut forged = leaf.to_vec();
        *forged.last_mut().unwrap() ^= 1;
        assert!(ca.bundle().issuer_of(&forged.into()).is_none());

        let mut renamed = rcgen::CertificateParams::default();
        renamed.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let renamed = renamed.self_signed(&KeyPair::from_pem(&ca.key_pem()).unwrap()).unwrap();
        assert!(CaBundle::from_pem(&renamed.pem()).unwrap().issuer_of(&leaf).is_none());
    }

    #[test]
    fn refusals() {
        let ca = authority();
        let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let server = ca.issue_server(&["localhost"], now).unwrap();
        let mixed = format!("{}{}", ca.cert_pem(), server.issued.cert_pem);
        assert!(matches!(CaBundle::from_pem(&mixed), Err(BundleError::NotCa { position: 2 })));
        let twice = format!("{0}{0}", ca.cert_pem());
        assert!(matches!(CaBundle::from_pem(&twice), Err(BundleError::SameName { position: 2 })));
        assert!(matches!(CaBundle::from_pem("nothing here"), Err(BundleError::Empty)));
        let damaged = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(matches!(CaBundle::from_pem(damaged), Err(BundleError::Malformed { position: 1, .. })));
        assert!(matches!(CaBundle::from_pem("-----BEGIN CERTIFICATE-----\n!!"), Err(BundleError::Pem)));
        let many: String = (0..=CAS_MAX).map(|_| authority().cert_pem()).collect();
        assert!(matches!(CaBundle::from_pem(&many), Err(BundleError::TooMany)));
    }
}
