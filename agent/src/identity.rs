//! The agent's certificate as the agent itself reads it: whose it is and until when. Verifies nothing: the
//! coordinator does.

use std::path::Path;

use chrono::{DateTime, Utc};
use mirror_certs::{Identity, TrustDomain};

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

/// Whose certificate a file holds, and when it expires.
///
/// # Errors
/// [`OwnIdentityError`].
pub fn read(path: &Path, trust_domain: &TrustDomain) -> Result<(String, DateTime<Utc>), OwnIdentityError> {
    let pem = mirror_certs::read_private(path)?;
    let peer = Identity::from_pem(&pem, trust_domain)?;
    match peer.identity {
        Identity::Agent(name) => Ok((name.as_str().to_owned(), peer.not_after)),
        other => Err(OwnIdentityError::NotAnAgent(other)),
    }
}
