//! What one person needs for `mirrorctl`: a key, its certificate, the fleet's CAs and the file that names them. Made for
//! the first admin with the fleet, and later by [`user_certificate`](crate::user_certificate).
//!
//! Does not know whether the person may have it.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use chrono::{DateTime, Utc};
use mirror_certs::{CaError, Existing, FileError, Identity, KeyError, KeyPair, USER_LIFE, write_public};

use crate::authority::Authority;

/// The context itself, in its folder.
pub const CONTEXT_FILE: &str = "mirrorctl.toml";

/// Why there is no context.
#[derive(Debug, thiserror::Error)]
pub enum ContextError {
    /// The certificate.
    #[error("could not issue the certificate")]
    Ca(#[from] CaError),
    /// The key.
    #[error("could not make a key")]
    Key(#[from] KeyError),
    /// A file.
    #[error("could not write the context's files")]
    File(#[from] FileError),
}

/// A context that was made.
#[derive(Debug, Clone)]
pub struct Context {
    /// The file for `mirrorctl --config`.
    pub file: PathBuf,
    /// When its certificate ends.
    pub until: DateTime<Utc>,
}

/// Makes key, certificate and context in a folder that is there: `STEM.key`, `STEM.pem`, `ca.pem`, [`CONTEXT_FILE`].
/// `server` is where the coordinator is dialled, `ca_certificates` the fleet's CAs, PEM.
///
/// # Errors
/// [`ContextError`], also when one of the files is there: nothing is overwritten.
pub(crate) fn write(
    folder: &Path,
    stem: &str,
    server: &str,
    ca_certificates: &str,
    issuer: (&Authority, DateTime<Utc>),
    identity: &Identity,
) -> Result<Context, ContextError> {
    let (ca, now) = issuer;
    let key = KeyPair::generate()?;
    let issued = ca.issue_from_csr(&key.csr_pem()?, identity, now, USER_LIFE)?;
    key.write_private(&folder.join(format!("{stem}.key")), Existing::Refuse)?;
    write_public(&folder.join(format!("{stem}.pem")), &issued.cert_pem, Existing::Refuse)?;
    write_public(&folder.join("ca.pem"), ca_certificates, Existing::Refuse)?;
    let file = folder.join(CONTEXT_FILE);
    let text = format!(
        "# How mirrorctl reaches the fleet {}: mirrorctl --config {CONTEXT_FILE} status\n\
         # Paths count from this file's folder; copy the whole folder to work from elsewhere.\n\
         current = \"default\"\n\n\
         [contexts.default]\nserver = {}\nca = \"ca.pem\"\ncertificate = \"{stem}.pem\"\nkey = \"{stem}.key\"\n",
        ca.trust_domain(),
        toml::Value::String(server.to_owned())
    );
    write_public(&file, &text, Existing::Refuse)?;
    Ok(Context { file, until: issued.not_after })
}

/// Where people on the coordinator's own network dial: the address that it listens on needs no resolver; where it is
/// not one of the certificate's `names`, the first of them does.
pub(crate) fn server(names: &[String], address: SocketAddr) -> String {
    let ip = address.ip().to_string();
    let listens_on = Some(&ip).filter(|ip| !address.ip().is_unspecified() && names.contains(ip));
    let dialled = listens_on.or_else(|| names.first()).unwrap_or(&ip);
    if dialled.contains(':') {
        format!("[{dialled}]:{}", address.port())
    } else {
        format!("{dialled}:{}", address.port())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_dial_a_name_of_the_certificate() {
        let names = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        let dialled = |list: &[&str], address: &str| server(&names(list), address.parse().unwrap());
        assert_eq!(dialled(&["c.example.org", "192.0.2.1"], "192.0.2.1:7443"), "192.0.2.1:7443");
        assert_eq!(dialled(&["c.example.org"], "192.0.2.1:7443"), "c.example.org:7443");
        assert_eq!(dialled(&["c.example.org", "0.0.0.0"], "0.0.0.0:7443"), "c.example.org:7443");
        assert_eq!(dialled(&["::1"], "[::1]:7443"), "[::1]:7443");
    }
}
