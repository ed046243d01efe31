//! The agent's certificate as the agent itself reads it: whose it is and until when. Verifies nothing: the
//! coordinator does.

use std::path::Path;

use chrono::{DateTime, Utc};
use mirror_certs::{CaBundle, Identity, TrustDomain};

/// What the own certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Own {
    /// The agent's name.
    pub name: String,
    /// Start of its validity.
    pub not_before: DateTime<Utc>,
    /// End of its validity.
    pub not_after: DateTime<Utc>,
}

/// Why the certificate tells nothing.
#[derive(Debug, thiserror::Error)]
pub enum OwnIdentityError {
    /// The file.
    #[error("the agent's certificate cannot be read")]
    File(#[from] mirror_certs::FileError),
    /// What stands in it.
    #[error("the agent's certificate is not one of this fleet's")]
    Content(#[from] mirror_certs::IdentityError),
    /// It is somebody else's.
    #[error("the certificate is {0}'s, and no agent's")]
    NotAnAgent(Identity),
}

/// What the certificate in a file of key and certificate says.
///
/// # Errors
/// [`OwnIdentityError`].
pub fn read(path: &Path, trust_domain: &TrustDomain) -> Result<Own, OwnIdentityError> {
    from_pem(&mirror_certs::read_private(path)?, trust_domain)
}

/// [`read`] on the text.
///
/// # Errors
/// [`OwnIdentityError`].
pub fn from_pem(pem: &str, trust_domain: &TrustDomain) -> Result<Own, OwnIdentityError> {
    let peer = Identity::from_pem(pem, trust_domain)?;
    match peer.identity {
        Identity::Agent(name) => {
            Ok(Own { name: name.as_str().to_owned(), not_before: peer.not_before, not_after: peer.not_after })
        }
        other => Err(OwnIdentityError::NotAnAgent(other)),
    }
}

/// The trust domain of the CAs in a file, for a configuration that names none.
#[must_use]
pub fn trust_domain_of(ca: &Path) -> Option<TrustDomain> {
    let bundle = CaBundle::from_pem(&mirror_certs::read_pem(ca).ok()?).ok()?;
    bundle.trust_domain().ok()
}
