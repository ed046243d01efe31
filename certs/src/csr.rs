//! Reading a certificate request (PKCS #10). Of what an applicant sends only one thing is used: the public key, once
//! the request's own signature has proved that he holds the private one. Names, usages, extensions and lifetimes in it
//! are not even looked at.

use rcgen::SubjectPublicKeyInfo;
use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject as _;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::oid_registry::{OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_SIG_ED25519};
use x509_parser::prelude::FromDer as _;

use crate::spki::SpkiHash;

/// Largest certificate request, in bytes of PEM text. One with a P-384 key and no names is under 1 KiB.
pub const CSR_BYTES_MAX: usize = 8 * 1024;

/// The first byte of an uncompressed point on a curve: SEC 1, section 2.3.3.
const UNCOMPRESSED_POINT: u8 = 4;

/// Why a certificate request is refused. Always the applicant's fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CsrError {
    /// Larger than [`CSR_BYTES_MAX`].
    #[error("the certificate request has {0} bytes, at most {CSR_BYTES_MAX} are read")]
    TooLarge(usize),
    /// Not PKCS #10 in PEM.
    #[error("the certificate request is not readable; wanted is one CERTIFICATE REQUEST section in PEM")]
    Malformed,
    /// The applicant did not prove that he holds the private key.
    #[error("the certificate request is not signed by the key in it")]
    Signature,
    /// RSA, other curves, compressed points.
    #[error("the key type in the certificate request is not accepted; use ECDSA P-256, P-384 or Ed25519")]
    KeyType,
}

/// A certificate request whose self-signature was checked.
#[derive(Debug, Clone)]
pub struct CertificateRequest {
    /// The one thing taken from it.
    public_key: SubjectPublicKeyInfo,
    spki_hash: SpkiHash,
}

impl CertificateRequest {
    /// Reads a request and checks its size, its key type and its signature, in this order.
    ///
    /// # Errors
    /// [`CsrError`].
    pub fn from_pem(text: &str) -> Result<Self, CsrError> {
        if text.len() > CSR_BYTES_MAX {
            return Err(CsrError::TooLarge(text.len()));
        }
        let der =
            CertificateSigningRequestDer::from_pem_slice(text.as_bytes()).map_err(|_| CsrError::Malformed)?;
        let (rest, request) = X509CertificationRequest::from_der(&der).map_err(|_| CsrError::Malformed)?;
        if !rest.is_empty() {
            return Err(CsrError::Malformed);
        }
        let spki = &request.certification_request_info.subject_pki;
        if !key_type_accepted(spki) {
            return Err(CsrError::KeyType);
        }
        request.verify_signature().map_err(|_| CsrError::Signature)?;
        let public_key = SubjectPublicKeyInfo::from_der(spki.raw).map_err(|_| CsrError::KeyType)?;
        Ok(Self { public_key, spki_hash: SpkiHash::of_spki(spki.raw) })
    }

    /// The hash of the applicant's public key. `Renew` compares it with the one stored at enrolment: a request made
    /// with that key proves possession of it, and a replayed one yields a certificate only its owner can use.
    #[must_use]
    pub fn spki_hash(&self) -> SpkiHash {
        self.spki_hash
    }

    pub(crate) fn public_key(&self) -> &SubjectPublicKeyInfo {
        &self.public_key
    }
}

/// Judged by the key itself. The signature's algorithm says nothing about the curve: a P-384 key may sign with SHA-256.
fn key_type_accepted(spki: &x509_parser::x509::SubjectPublicKeyInfo<'_>) -> bool {
    let algorithm = &spki.algorithm.algorithm;
    if *algorithm == OID_SIG_ED25519 {
        return true;
    }
    let curve = spki.algorithm.parameters.as_ref().and_then(|p| p.as_oid().ok());
    *algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY
        && curve.is_some_and(|curve| curve == OID_EC_P256 || curve == OID_NIST_EC_P384)
        // A compressed point would give the same key a second hash.
        && spki.subject_public_key.data.first() == Some(&UNCOMPRESSED_POINT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair};

    fn request(algorithm: &'static rcgen::SignatureAlgorithm) -> String {
        let key = KeyPair::generate_for(algorithm).unwrap();
        CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap()
    }

    #[test]
    fn key_types() {
        for good in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519] {
            assert!(CertificateRequest::from_pem(&request(good)).is_ok(), "{good:?}");
        }
        for bad in [&rcgen::PKCS_RSA_SHA256, &rcgen::PKCS_ECDSA_P521_SHA512] {
            assert_eq!(
                CertificateRequest::from_pem(&request(bad)).unwrap_err(),
                CsrError::KeyType,
                "{bad:?}"
            );
        }
    }

    /// A P-256 key that writes its public point in the short form of SEC 1, section 2.3.3.
    struct Compressed {
        key: KeyPair,
        point: Vec<u8>,
    }

    impl rcgen::PublicKeyData for Compressed {
        fn der_bytes(&self) -> &[u8] {
            &self.point
        }

        fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
            self.key.algorithm()
        }
    }

    impl rcgen::SigningKey for Compressed {
        fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
            self.key.sign(message)
        }
    }

    #[test]
    fn a_key_has_one_spelling_only() {
        let key = KeyPair::generate().unwrap();
        let whole = key.public_key_raw();
        let mut point = vec![2 + (whole[64] & 1)];
        point.extend(&whole[1..33]);
        let request = CertificateParams::default().serialize_request(&Compressed { key, point }).unwrap();
        assert_eq!(CertificateRequest::from_pem(&request.pem().unwrap()).unwrap_err(), CsrError::KeyType);
    }

    #[test]
    fn a_changed_request_is_refused() {
        let pem = request(&rcgen::PKCS_ED25519);
        let der = CertificateSigningRequestDer::from_pem_slice(pem.as_bytes()).unwrap();
        let mut changed = der.to_vec();
        *changed.last_mut().unwrap() ^= 1;
        let text = crate::pem::encode("CERTIFICATE REQUEST", &changed);
        assert_eq!(CertificateRequest::from_pem(&text).unwrap_err(), CsrError::Signature);

        let mut longer = der.to_vec();
        longer.push(0);
        let text = crate::pem::encode("CERTIFICATE REQUEST", &longer);
        assert_eq!(CertificateRequest::from_pem(&text).unwrap_err(), CsrError::Malformed);
    }

    #[test]
    fn size_and_shape() {
        let huge = "x".repeat(CSR_BYTES_MAX + 1);
        assert_eq!(CertificateRequest::from_pem(&huge).unwrap_err(), CsrError::TooLarge(CSR_BYTES_MAX + 1));
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::default().self_signed(&key).unwrap().pem();
        for bad in ["", "garbage", certificate.as_str()] {
            assert_eq!(CertificateRequest::from_pem(bad).unwrap_err(), CsrError::Malformed);
        }
    }
}
