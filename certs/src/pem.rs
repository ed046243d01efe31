//! Writing PEM (RFC 7468). Reading it is done by rustls-pki-types, which keeps to the section asked for.
//!
//! Our own few lines rather than a library's because private keys pass through here: the text is made in one buffer of
//! the right size that is wiped on drop, so no stray copy of a key stays in freed memory.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::CertificateDer;
use zeroize::Zeroizing;

/// Characters in one line of base64: RFC 7468, section 2.
const LINE_CHARS: usize = 64;

/// The label of a certificate's section.
const CERTIFICATE: &str = "CERTIFICATE";

/// `der` as one PEM section with this label.
pub(crate) fn encode(label: &str, der: &[u8]) -> Zeroizing<String> {
    let body = Zeroizing::new(STANDARD.encode(der));
    let capacity = body.len() + body.len() / LINE_CHARS + 2 * label.len() + 64;
    let mut text = Zeroizing::new(String::with_capacity(capacity));
    let mut rest = body.as_str();
    text.push_str("-----BEGIN ");
    text.push_str(label);
    text.push_str("-----\n");
    while !rest.is_empty() {
        // Base64 is ASCII, so any index is a character boundary.
        let (line, tail) = rest.split_at(rest.len().min(LINE_CHARS));
        text.push_str(line);
        text.push('\n');
        rest = tail;
    }
    text.push_str("-----END ");
    text.push_str(label);
    text.push_str("-----\n");
    text
}

/// A certificate as PEM text.
pub(crate) fn certificate(der: &CertificateDer<'_>) -> String {
    encode(CERTIFICATE, der).as_str().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rustls_pki_types::pem::PemObject as _;

    proptest! {
        #[test]
        fn what_is_written_is_read_back(der in proptest::collection::vec(any::<u8>(), 1..400)) {
            let text = encode(CERTIFICATE, &der);
            prop_assert!(text.lines().all(|line| line.len() <= LINE_CHARS));
            let read = CertificateDer::from_pem_slice(text.as_bytes()).unwrap();
            prop_assert_eq!(read.as_ref(), der.as_slice());
        }
    }
}
