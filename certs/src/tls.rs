//! rustls configurations for the one gRPC port and the HTTPS port beside it, and their reload while connections go on.
//!
//! Both ends of the gRPC port: TLS 1.3 only, HTTP/2 by ALPN, **no resumption** (a resumed session skips the certificate check, so a
//! revoked peer would come back in), aws-lc-rs named explicitly rather than installed for the process.
//!
//! Knows no sockets. An accept loop calls [`ServerTls::config`] for each connection and a connector calls
//! [`ClientTls::config`] for each dial; a reload takes effect with the next one and touches none that is open.
//! Revocation is not decided here: refusing in the handshake hides the reason from the peer.

use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::server::{NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier};
use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::bundle::{BundleError, CAS_MAX, CaBundle};
use crate::file::{self, FileError};

/// HTTP/2, the only protocol of the gRPC port: RFC 9113, section 3.1.
pub(crate) const ALPN_HTTP2: &[u8] = b"h2";

/// Protocol versions of both ends.
pub(crate) const VERSIONS: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS13];

/// The one protocol of the HTTPS port: RFC 9112.
const ALPN_HTTP1: &[u8] = b"http/1.1";

/// Protocol versions of the HTTPS port: webhooks come from programs that others made, some of them old.
const WEB_VERSIONS: &[&rustls::SupportedProtocolVersion] =
    &[&rustls::version::TLS13, &rustls::version::TLS12];

/// Why there is no (new) configuration. A running one is kept.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file could not be read.
    #[error("could not read the TLS files")]
    File(#[from] FileError),
    /// The CA bundle is unusable.
    #[error("the CA bundle is refused")]
    Bundle(#[from] BundleError),
    /// No certificate where one is wanted.
    #[error("no readable CERTIFICATE section where this end's own certificate is wanted")]
    NoCertificate,
    /// No key where one is wanted.
    #[error("no readable private key where this end's own key is wanted")]
    NoKey,
    /// The own certificate comes from a CA that is not in the bundle, so that no peer would accept it.
    #[error(
        "the coordinator's certificate was issued by none of the CAs in the bundle; issue it anew, or add its CA"
    )]
    ForeignCertificate,
    /// rustls refused key, certificate or roots.
    #[error("the TLS library refuses key, certificate or CA bundle; do key and certificate belong together?")]
    Rustls(#[from] rustls::Error),
    /// rustls refused the client certificate check.
    #[error("the TLS library refuses the CA bundle")]
    Verifier(#[from] VerifierBuilderError),
    /// No pins for a pinned connection.
    #[error("1 to {CAS_MAX} CA hashes are wanted, not {0}")]
    Pins(usize),
}

/// Where this end's certificate and key are. Both paths may name **one** file that holds both: then they are replaced in
/// one step, and no crash leaves a key without its certificate.
#[derive(Debug, Clone)]
pub struct IdentityFiles {
    /// The certificate, PEM; the first one in the file counts.
    pub certificate: PathBuf,
    /// Its private key, PEM, not accessible to other users.
    pub key: PathBuf,
}

/// The files of the coordinator's port.
#[derive(Debug, Clone)]
pub struct ServerFiles {
    /// Its certificate and key.
    pub identity: IdentityFiles,
    /// The fleet's CAs: clients are checked against them, and the one that issued the certificate is sent along.
    pub ca: PathBuf,
    /// Where the next CA is while one replaces another. It is trusted as well, as long as there is such a file.
    pub next_ca: Option<PathBuf>,
}

/// The files of a dialling end.
#[derive(Debug, Clone)]
pub struct ClientFiles {
    /// Its certificate and key; none for a user who logs in with a token.
    pub identity: Option<IdentityFiles>,
    /// The fleet's CAs.
    pub ca: PathBuf,
}

/// The coordinator's TLS configuration, reloadable.
#[derive(Debug)]
pub struct ServerTls {
    files: ServerFiles,
    current: ArcSwap<ServerConfig>,
}

impl ServerTls {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn load(files: ServerFiles) -> Result<Self, TlsError> {
        let current = ArcSwap::from_pointee(files.read()?);
        Ok(Self { files, current })
    }

    /// The configuration for the next connection.
    #[must_use]
    pub fn config(&self) -> Arc<ServerConfig> {
        self.current.load_full()
    }

    /// Reads the files again. Open connections go on with what they began with: after a change of CA, cut those that
    /// shall not.
    ///
    /// # Errors
    /// [`TlsError`]; the configuration before is kept.
    pub fn reload(&self) -> Result<(), TlsError> {
        self.current.store(Arc::new(self.files.read()?));
        Ok(())
    }
}

impl ServerFiles {
    fn read(&self) -> Result<ServerConfig, TlsError> {
        let certificate = file::read_pem(&self.identity.certificate)?;
        let key = file::read_private(&self.identity.key)?;
        server_config(&certificate, &key, &self.bundle()?)
    }

    /// The CAs that the files hold: one, or two while one replaces the other.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn bundle(&self) -> Result<CaBundle, TlsError> {
        let bundle = CaBundle::from_pem(&file::read_pem(&self.ca)?)?;
        match self.next_ca.as_ref().filter(|next| next.exists()) {
            Some(next) => Ok(bundle.union(&CaBundle::from_pem(&file::read_pem(next)?)?)?),
            None => Ok(bundle),
        }
    }
}

/// The TLS configuration of the HTTPS port, reloadable: for programs that are known by a token, or not at all. No client
/// certificate is asked for, so resumption skips no check.
#[derive(Debug)]
pub struct WebTls {
    files: IdentityFiles,
    current: ArcSwap<ServerConfig>,
}

impl WebTls {
    /// Reads the files. All certificates of the certificate's file are sent, in their order: the port's own comes first.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn load(files: IdentityFiles) -> Result<Self, TlsError> {
        let current = ArcSwap::from_pointee(read_web(&files)?);
        Ok(Self { files, current })
    }

    /// The configuration for the next connection.
    #[must_use]
    pub fn config(&self) -> Arc<ServerConfig> {
        self.current.load_full()
    }

    /// Reads the files again. Open connections go on with what they began with.
    ///
    /// # Errors
    /// [`TlsError`]; the configuration before is kept.
    pub fn reload(&self) -> Result<(), TlsError> {
        self.current.store(Arc::new(read_web(&self.files)?));
        Ok(())
    }
}

fn read_web(files: &IdentityFiles) -> Result<ServerConfig, TlsError> {
    let certificates = file::read_pem(&files.certificate)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificates.as_bytes()).collect();
    let chain = chain.ok().filter(|chain| !chain.is_empty()).ok_or(TlsError::NoCertificate)?;
    let key = file::read_private(&files.key)?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| TlsError::NoKey)?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(WEB_VERSIONS)?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![ALPN_HTTP1.to_vec()];
    Ok(config)
}

/// The TLS configuration of an agent or a user, reloadable: a renewed certificate is used by the next dial, before the
/// old connection is given up.
#[derive(Debug)]
pub struct ClientTls {
    files: ClientFiles,
    current: ArcSwap<ClientConfig>,
}

impl ClientTls {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn load(files: ClientFiles) -> Result<Self, TlsError> {
        let current = ArcSwap::from_pointee(files.read()?);
        Ok(Self { files, current })
    }

    /// The configuration for the next dial.
    #[must_use]
    pub fn config(&self) -> Arc<ClientConfig> {
        self.current.load_full()
    }

    /// Reads the files again.
    ///
    /// # Errors
    /// [`TlsError`]; the configuration before is kept.
    pub fn reload(&self) -> Result<(), TlsError> {
        self.current.store(Arc::new(self.files.read()?));
        Ok(())
    }
}

impl ClientFiles {
    fn read(&self) -> Result<ClientConfig, TlsError> {
        let bundle = CaBundle::from_pem(&file::read_pem(&self.ca)?)?;
        let Some(identity) = &self.identity else {
            return client_config(&bundle, None);
        };
        let certificate = file::read_pem(&identity.certificate)?;
        let key = file::read_private(&identity.key)?;
        client_config(&bundle, Some((&certificate, &key)))
    }
}

/// The coordinator's configuration from PEM texts. A client certificate is asked for and checked against the bundle,
/// but a client without one is let in: enrolment and login come without, and the layer above refuses the rest.
///
/// The server sends its certificate and the CA that issued it, so that a first contact can compare the CA with its pin.
///
/// # Errors
/// [`TlsError`].
pub fn server_config(cert_pem: &str, key_pem: &str, bundle: &CaBundle) -> Result<ServerConfig, TlsError> {
    let (certificate, key) = own_identity(cert_pem, key_pem)?;
    let issuer = bundle.issuer_of(&certificate).ok_or(TlsError::ForeignCertificate)?.clone();
    let verifier = WebPkiClientVerifier::builder_with_provider(bundle.roots()?, provider())
        .allow_unauthenticated()
        .build()?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(VERSIONS)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![certificate, issuer], key)?;
    config.alpn_protocols = vec![ALPN_HTTP2.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// A dialling end's configuration from PEM texts; `identity` is certificate and key. The server must show a certificate
/// of one of the bundle's CAs, made for servers, with the name that was dialled.
///
/// # Errors
/// [`TlsError`].
pub fn client_config(bundle: &CaBundle, identity: Option<(&str, &str)>) -> Result<ClientConfig, TlsError> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(VERSIONS)?
        .with_root_certificates(bundle.roots()?);
    let config = match identity {
        Some((cert_pem, key_pem)) => {
            let (certificate, key) = own_identity(cert_pem, key_pem)?;
            builder.with_client_auth_cert(vec![certificate], key)?
        }
        None => builder.with_no_client_auth(),
    };
    Ok(with_client_rules(config))
}

/// What a handshake that failed means for the people of the host that dialled, where it is one of the frequent causes: a
/// clock that runs wrong, a certificate that ended, a CA that this host does not know. `None`: the library's own words
/// are as good.
#[must_use]
pub fn handshake_trouble(error: &std::io::Error) -> Option<String> {
    use rustls::CertificateError as Bad;
    let rustls::Error::InvalidCertificate(bad) = error.get_ref()?.downcast_ref::<rustls::Error>()? else {
        return None;
    };
    let when = |time: &rustls_pki_types::UnixTime| {
        let seconds = i64::try_from(time.as_secs()).ok();
        let time = seconds.and_then(|seconds| chrono::DateTime::from_timestamp(seconds, 0));
        time.map_or_else(|| "?".to_owned(), |time| time.format("%Y-%m-%d %H:%M UTC").to_string())
    };
    Some(match bad {
        Bad::NotValidYetContext { time, not_before } => format!(
            "its certificate is valid from {} on, and this host's clock shows {}: this host's clock is behind, or the \
             coordinator's was ahead; set the clock",
            when(not_before),
            when(time)
        ),
        Bad::ExpiredContext { time, not_after } => format!(
            "its certificate ended at {}, and this host's clock shows {}: this host's clock is ahead, or the \
             coordinator was not started for long; set the clock",
            when(not_after),
            when(time)
        ),
        Bad::UnknownIssuer => {
            "its certificate comes from no CA that this host knows: another fleet, somebody in between, or the fleet's CA \
             was replaced while this host was away; then enrol it again with a new token and the new hash (mirror-agent \
             enroll … --force), or, for a person, get a new certificate"
                .to_owned()
        }
        _ => return None,
    })
}

/// What every dialling configuration has in common.
pub(crate) fn with_client_rules(mut config: ClientConfig) -> ClientConfig {
    config.alpn_protocols = vec![ALPN_HTTP2.to_vec()];
    config.resumption = Resumption::disabled();
    config
}

/// The one cryptography provider of the fleet.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// rustls itself checks that the two belong together.
fn own_identity(
    cert_pem: &str,
    key_pem: &str,
) -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>), TlsError> {
    let certificate =
        CertificateDer::from_pem_slice(cert_pem.as_bytes()).map_err(|_| TlsError::NoCertificate)?;
    let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).map_err(|_| TlsError::NoKey)?;
    Ok((certificate, key))
}
