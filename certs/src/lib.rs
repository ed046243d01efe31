//! The private PKI of a mirror fleet.
//!
//! ```text
//!  CertificateAuthority ──issue_server──▶ ServerTls   ◀── ClientTls       mutual TLS 1.3, HTTP/2
//!        ▲      │                            │   ▲
//!        │      └─issue_from_csr─▶ Issued    │   └────── PinnedBootstrap  first contact, CA pinned by hash
//!   CertificateRequest                       ▼
//!        ▲                             Identity::from_der ──▶ Peer ──▶ DenyList::is_denied
//!   KeyPair (made where it is used, never travels)
//! ```
//!
//! A tour, in the order in which a fleet meets the parts:
//!
//! 1. [`CertificateAuthority::create`] makes the fleet's CA; [`CertificateAuthority::ca_hash`] is what people type as
//!    `--ca-hash`.
//! 2. [`CertificateAuthority::issue_server`] makes the coordinator's certificate; [`ServerTls`] serves it and reloads it.
//! 3. [`JoinToken`] lets one host ask for its first certificate: it makes a [`KeyPair`], dials with
//!    [`PinnedBootstrap`], and sends the token with a certificate request.
//! 4. [`CertificateAuthority::issue_from_csr`] answers it. Of the request only the public key is used.
//! 5. [`ClientTls`] dials with that certificate; the coordinator reads who calls with [`Identity::from_der`].
//! 6. [`DenyList`] refuses who was revoked, also after a restore of the store.
//!
//! What this crate does **not** know: no network and no runtime (its configurations are handed to an accept loop or a
//! connector elsewhere), no clock (`now` is handed in; only rustls itself reads the time during a handshake), no store,
//! no roles. It holds no join tokens: it makes them, hashes them and compares them.
//!
//! The life of a certificate, from its making to its end, is told in this folder's README.

mod bundle;
mod ca;
mod csr;
mod file;
mod identity;
mod key;
mod life;
mod memory;
mod pem;
mod pinned;
mod revocation;
mod serial;
mod spki;
mod tls;
mod token;
mod x509;

pub use bundle::{BundleError, CAS_MAX, CaBundle};
pub use ca::{CaError, CertificateAuthority, Issued, IssuedServer, SERVER_NAMES_MAX};
pub use csr::{CSR_BYTES_MAX, CertificateRequest, CsrError};
pub use file::{Existing, FileError, PEM_BYTES_MAX, read_pem, read_private, write_private, write_public};
pub use identity::{
    Identity, IdentityError, NAME_BYTES_MAX, Name, Peer, TRUST_DOMAIN_BYTES_MAX, TrustDomain,
};
pub use key::{KeyError, KeyPair};
pub use life::{AGENT_LIFE, BACKDATE, CA_LIFE, RENEW_GRACE, SERVER_LIFE, USER_LIFE, renewal_time};
pub use memory::make_undumpable;
pub use pinned::{PinMismatch, PinnedBootstrap};
pub use revocation::{DENIALS_MAX, Denial, Denied, DenyList, DenyListError, OpenedDenyList, TornLine};
pub use serial::{Serial, SerialError};
pub use spki::{SpkiHash, SpkiHashError};
pub use tls::{
    ClientFiles, ClientTls, IdentityFiles, ServerFiles, ServerTls, TlsError, WebTls, client_config,
    handshake_trouble, server_config,
};
pub use token::{JoinToken, PushToken, Token, TokenError, TokenKind, UserToken};
pub use x509::MalformedCertificate;
