//! First contact: a host that holds no CA certificate yet, only the hash of the CA's key that somebody typed.
//!
//! The server sends its certificate together with its CA's. The connection stands only if that CA has a pinned hash
//! **and** the server's certificate verifies against that CA, for the name dialled, by the same webpki check as ever.
//! There is no trust on first use. Nothing of the caller's is sent before the check.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, OtherError, RootCertStore, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::bundle::CAS_MAX;
use crate::spki::SpkiHash;
use crate::tls::{TlsError, VERSIONS, provider, with_client_rules};
use crate::{pem, x509};

/// Certificates after the server's own that are looked at. Our servers send one.
const CHAIN_MAX: usize = 8;

/// The server's CA is none of the pinned ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinMismatch {
    /// The hash of the CA key that the server showed; `None` when it showed no CA certificate.
    pub shown: Option<SpkiHash>,
    /// What was typed.
    pub pinned: Vec<SpkiHash>,
}

impl fmt::Display for PinMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pinned = self.pinned.iter().map(SpkiHash::to_string).collect::<Vec<_>>().join(" or ");
        match &self.shown {
            Some(shown) => write!(
                f,
                "the server shows {shown}, you typed {pinned}; nothing was sent; fault: a mistyped hash, or somebody in between"
            ),
            None => write!(
                f,
                "the server shows no CA certificate, you typed {pinned}; nothing was sent; fault: this is not a coordinator, or somebody in between"
            ),
        }
    }
}

impl std::error::Error for PinMismatch {}

/// What the last handshake saw.
#[derive(Debug, Clone)]
enum Sighting {
    Nothing,
    Mismatch(PinMismatch),
    Accepted(CertificateDer<'static>),
}

/// A client configuration for enrolment, and what its last handshake saw. Use one per dial.
#[derive(Debug, Clone)]
pub struct PinnedBootstrap {
    config: Arc<ClientConfig>,
    sighting: Arc<Mutex<Sighting>>,
}

impl PinnedBootstrap {
    /// A configuration that accepts servers of a CA with one of these key hashes; several while a CA replaces another.
    ///
    /// # Errors
    /// [`TlsError::Pins`] for none or more than [`CAS_MAX`].
    pub fn new(pins: &[SpkiHash]) -> Result<Self, TlsError> {
        if pins.is_empty() || pins.len() > CAS_MAX {
            return Err(TlsError::Pins(pins.len()));
        }
        let sighting = Arc::new(Mutex::new(Sighting::Nothing));
        let verifier =
            PinnedVerifier { pins: pins.to_vec(), sighting: sighting.clone(), provider: provider() };
        let config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(VERSIONS)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        Ok(Self { config: Arc::new(with_client_rules(config)), sighting })
    }

    /// The configuration to dial with.
    #[must_use]
    pub fn config(&self) -> Arc<ClientConfig> {
        self.config.clone()
    }

    /// Why the last handshake was refused, when it was for the hash. Its `Display` is the sentence for people.
    #[must_use]
    pub fn mismatch(&self) -> Option<PinMismatch> {
        match self.last() {
            Sighting::Mismatch(mismatch) => Some(mismatch),
            Sighting::Nothing | Sighting::Accepted(_) => None,
        }
    }

    /// The pinned CA's certificate, PEM, once a server of it was accepted: from now on the host's CA bundle.
    #[must_use]
    pub fn ca_pem(&self) -> Option<String> {
        match self.last() {
            Sighting::Accepted(ca) => Some(pem::certificate(&ca)),
            Sighting::Nothing | Sighting::Mismatch(_) => None,
        }
    }

    fn last(&self) -> Sighting {
        self.sighting.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[derive(Debug)]
struct PinnedVerifier {
    pins: Vec<SpkiHash>,
    sighting: Arc<Mutex<Sighting>>,
    provider: Arc<CryptoProvider>,
}

impl PinnedVerifier {
    fn note(&self, sighting: Sighting) {
        *self.sighting.lock().unwrap_or_else(PoisonError::into_inner) = sighting;
    }

    /// The pinned CA in the chain, or what was there instead.
    fn pinned_ca(&self, chain: &[CertificateDer<'_>]) -> Result<CertificateDer<'static>, PinMismatch> {
        let mut shown = None;
        for der in chain.iter().take(CHAIN_MAX) {
            let Ok(certificate) = x509::parse(der) else { continue };
            if !certificate.is_ca() {
                continue;
            }
            let hash = SpkiHash::of_spki(certificate.public_key().raw);
            if self.pins.contains(&hash) {
                return Ok(der.clone().into_owned());
            }
            shown = Some(hash);
        }
        Err(PinMismatch { shown, pinned: self.pins.clone() })
    }
}

impl ServerCertVerifier for PinnedVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.note(Sighting::Nothing);
        let ca = self.pinned_ca(intermediates).map_err(|mismatch| {
            self.note(Sighting::Mismatch(mismatch.clone()));
            rustls::Error::from(CertificateError::Other(OtherError(Arc::new(mismatch))))
        })?;
        // Showing the right CA proves nothing, it is public: the server's own certificate must come from it. Our CAs
        // sign end-entity certificates only, so no intermediate is handed on.
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone())?;
        let verified = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone())
            .build()
            .map_err(|e| rustls::Error::General(e.to_string()))?
            .verify_server_cert(end_entity, &[], server_name, ocsp_response, now)?;
        self.note(Sighting::Accepted(ca));
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 is not offered".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_are_bounded() {
        let pin = SpkiHash::of_spki(b"");
        assert!(matches!(PinnedBootstrap::new(&[]), Err(TlsError::Pins(0))));
        assert!(PinnedBootstrap::new(&[pin; CAS_MAX]).is_ok());
        assert!(matches!(PinnedBootstrap::new(&[pin; CAS_MAX + 1]), Err(TlsError::Pins(_))));
    }

    #[test]
    fn a_mismatch_says_whose_fault_and_what_was_sent() {
        let (shown, pinned) = (SpkiHash::of_spki(b"a"), SpkiHash::of_spki(b"b"));
        let text = PinMismatch { shown: Some(shown), pinned: vec![pinned] }.to_string();
        assert_eq!(
            text,
            format!(
                "the server shows {shown}, you typed {pinned}; nothing was sent; fault: a mistyped hash, or somebody in between"
            )
        );
    }
}
