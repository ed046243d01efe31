//! Reading one X.509 certificate, whole and nothing after it. Knows the encoding, not what the fleet makes of it.

use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

/// The bytes are not exactly one DER certificate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a readable X.509 certificate: {reason}; fault: whoever sent or stored it")]
pub struct MalformedCertificate {
    /// What the decoder stumbled over.
    reason: String,
}

/// Decodes one certificate. Bytes after it are refused: two readers could disagree on what they mean.
pub(crate) fn parse(der: &[u8]) -> Result<X509Certificate<'_>, MalformedCertificate> {
    let (rest, certificate) =
        X509Certificate::from_der(der).map_err(|e| MalformedCertificate { reason: e.to_string() })?;
    if !rest.is_empty() {
        return Err(MalformedCertificate { reason: format!("{} bytes follow it", rest.len()) });
    }
    Ok(certificate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_garbage_and_trailing_bytes() {
        assert!(parse(b"").is_err());
        assert!(parse(b"\x30\x03\x02\x01\x01").is_err());

        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::default().self_signed(&key).unwrap();
        let mut der = certificate.der().to_vec();
        assert!(parse(&der).is_ok());
        der.push(0);
        assert!(parse(&der).unwrap_err().to_string().contains("1 bytes follow it"));
    }
}
