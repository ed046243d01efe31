//! Who this coordinator is: the fleet's CA, its own certificate, the deny list, the key of sealed passwords. All in
//! files of `data_dir`, none in the store, so that a backup of the store gives nobody a key.
//!
//! Makes nothing but its own server certificate, which it renews by itself; the rest is made once, by `init.rs`.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwap;
use chrono::{DateTime, Utc};
use mirror_certs::{
    CaError, DenyList, DenyListError, Existing, FileError, Identity, IdentityError, IdentityFiles,
    ServerFiles, ServerTls, SpkiHash, TlsError, WebTls, read_private, renewal_time, write_private,
};

pub use crate::authority::{CA_CERTIFICATE, CA_KEY, CA_NEXT};
use crate::{
    authority::{Authority, AuthorityError, Change},
    config::Config,
    seal::{SealError, Sealer},
};

/// The server's certificate and its key, in one file.
pub const SERVER: &str = "server.pem";
/// The key of sealed passwords.
pub const SEAL_KEY: &str = "seal.key";
/// Who is refused for ever.
pub const DENIED: &str = "denied.txt";

/// Why a coordinator does not know who it is.
#[derive(Debug, thiserror::Error)]
pub enum WhoError {
    /// A file could not be read or written.
    #[error("could not use the coordinator's own files")]
    File(#[from] FileError),
    /// The CA is unusable.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// It issues nothing for the coordinator itself.
    #[error("could not issue the server's certificate by the fleet's CA in {0}")]
    Ca(PathBuf, #[source] CaError),
    /// The CA is of another fleet.
    #[error(
        "the CA in {dir} is of the trust domain {found}, the configuration says {wanted}; correct `trust_domain`, or data_dir"
    )]
    OtherFleet {
        /// Where the CA is.
        dir: PathBuf,
        /// Its trust domain.
        found: String,
        /// The configured one.
        wanted: String,
    },
    /// The server's certificate names nobody.
    #[error("could not use the server's certificate; remove {0} and a new one is made")]
    Server(PathBuf, #[source] IdentityError),
    /// TLS does not take the files.
    #[error("could not set TLS up")]
    Tls(#[from] TlsError),
    /// The HTTPS port's own files are unusable.
    #[error("could not use {0} as certificate and key of the HTTPS port (https_certificate, https_key)")]
    Web(PathBuf, #[source] TlsError),
    /// The deny list is unusable.
    #[error("could not use the deny list")]
    DenyList(#[from] DenyListError),
    /// The key of sealed passwords is unusable.
    #[error("could not use the key of sealed passwords")]
    Seal(#[from] SealError),
}

/// Everything by which the coordinator proves and decides identities.
#[derive(Debug, Clone)]
pub struct Who {
    /// Signs certificates.
    pub ca: Arc<Authority>,
    /// The port's TLS, reloadable.
    pub tls: Arc<ServerTls>,
    /// The HTTPS port's TLS, reloadable; `None`: there is no such port.
    pub web: Option<Arc<WebTls>>,
    /// The CAs that are handed to those who enrol, PEM.
    pub bundle_pem: Arc<ArcSwap<String>>,
    /// Who is refused for ever.
    pub deny: Arc<DenyList>,
    /// Seals and unseals passwords.
    pub sealer: Arc<Sealer>,
    server: PathBuf,
    server_names: Vec<String>,
}

impl Who {
    /// Reads the files, and renews the server's certificate where it is due.
    ///
    /// # Errors
    /// [`WhoError`].
    pub fn load(config: &Config, now: DateTime<Utc>) -> Result<Self, WhoError> {
        let ca = load_ca(config)?;
        let opened = DenyList::open(&config.file(DENIED))?;
        if let Some(torn) = opened.torn {
            tracing::warn!("{torn}");
        }
        let sealer = Sealer::open(&config.file(SEAL_KEY))?;
        let (server, server_names) = (config.file(SERVER), names(config));
        renew(&ca, &server, &server_names, now)?;
        let identity = IdentityFiles { certificate: server.clone(), key: server.clone() };
        let (ca_file, next_ca) = (config.file(CA_CERTIFICATE), Some(config.file(CA_NEXT)));
        let tls = ServerTls::load(ServerFiles { identity, ca: ca_file, next_ca })?;
        let web = config.https_listen.map(|_| load_web(config)).transpose()?.map(Arc::new);
        Ok(Self {
            web,
            bundle_pem: Arc::new(ArcSwap::from_pointee(ca.bundle().to_pem())),
            ca: Arc::new(ca),
            tls: Arc::new(tls),
            deny: Arc::new(opened.list),
            sealer: Arc::new(sealer),
            server,
            server_names,
        })
    }

    /// Reads the CA and the server's certificate anew, and makes the latter where it is due, or where another CA issues it
    /// now; the next connection gets them. `adopted`: the CAs of the last time that this and all that follows from it was
    /// done ([`Authority::adopting`]). The caller cuts what was begun under a CA that is [`Change::Removed`].
    ///
    /// # Errors
    /// [`WhoError`]; what could be read of the CA is in force, the rest is as it was, and the change is one still.
    pub fn reload(&self, adopted: &[SpkiHash], now: DateTime<Utc>) -> Result<Change, WhoError> {
        let change = self.ca.reload(adopted)?;
        if change != Change::None {
            renew(&self.ca, &self.server, &self.server_names, now)?;
        }
        self.tls.reload()?;
        self.reload_web();
        self.bundle_pem.store(Arc::new(self.ca.bundle().to_pem()));
        if change != Change::None {
            self.ca.note_in_force(now);
            let trusted = self.ca.bundle().hashes().len();
            tracing::info!(trusted, issuing = %self.ca.trust().issuing, ?change, "the fleet's CAs have changed");
        }
        Ok(change)
    }

    /// Renews the server's certificate when a third of its life is over; true: it was renewed.
    ///
    /// # Errors
    /// [`WhoError`]; the old one stays in force.
    pub fn renew_server(&self, now: DateTime<Utc>) -> Result<bool, WhoError> {
        let renewed = renew(&self.ca, &self.server, &self.server_names, now)?;
        if renewed {
            self.tls.reload()?;
        }
        // Its files may be somebody else's, who renews them by himself.
        self.reload_web();
        Ok(renewed)
    }

    /// Reads the HTTPS port's files anew. What is wrong with them is told and keeps nobody from anything else: the port
    /// goes on with what it has.
    fn reload_web(&self) {
        if let Some(Err(error)) = self.web.as_ref().map(|web| web.reload()) {
            let error = crate::Chain(&error);
            tracing::error!(%error, "the HTTPS port's certificate or key cannot be read; it goes on with the old ones");
        }
    }
}

/// The HTTPS port's TLS: files of its own, else the server's certificate.
fn load_web(config: &Config) -> Result<WebTls, WhoError> {
    let own = config.https_certificate.clone().zip(config.https_key.clone());
    let (certificate, key) = own.unwrap_or_else(|| (config.file(SERVER), config.file(SERVER)));
    let shown = certificate.clone();
    WebTls::load(IdentityFiles { certificate, key }).map_err(|error| WhoError::Web(shown, error))
}

fn load_ca(config: &Config) -> Result<Authority, WhoError> {
    let ca = Authority::load(&config.data_dir)?;
    match &config.trust_domain {
        Some(wanted) if wanted != ca.trust_domain() => Err(WhoError::OtherFleet {
            dir: config.data_dir.clone(),
            found: ca.trust_domain().to_string(),
            wanted: wanted.to_string(),
        }),
        Some(_) | None => Ok(ca),
    }
}

/// The names for the server's certificate; without any, the host's own.
#[must_use]
pub fn names(config: &Config) -> Vec<String> {
    if config.server_names.is_empty() { vec![host_name()] } else { config.server_names.clone() }
}

/// The host's own name.
#[must_use]
pub fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Makes the certificate where there is none, it is due, or another CA issues it now; says whether it did.
fn renew(ca: &Authority, path: &Path, names: &[String], now: DateTime<Utc>) -> Result<bool, WhoError> {
    if path.exists() {
        let present = read_private(path)?;
        let present = Identity::from_pem(&present, ca.trust_domain())
            .map_err(|error| WhoError::Server(path.to_owned(), error))?;
        if now < renewal_time(present.not_before, present.not_after) && ca.issues_for_server(&present, now) {
            return Ok(false);
        }
    }
    let folder = || path.parent().unwrap_or(path).to_owned();
    let issued = ca.issue_server(names, now).map_err(|error| WhoError::Ca(folder(), error))?;
    write_private(path, &issued.combined_pem(), Existing::Replace)?;
    tracing::info!(until = %issued.issued.not_after, names = names.join(","), "the server has a new certificate");
    Ok(true)
}
