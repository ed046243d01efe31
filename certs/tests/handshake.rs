//! Real rustls handshakes between this crate's configurations, over buffers in memory: who gets in, who does not, what
//! each end learns of the other, and what a reload changes.

#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking; clippy knows only functions marked #[test]"
)]

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use mirror_certs::{
    AGENT_LIFE, BACKDATE, CaBundle, CertificateAuthority, ClientFiles, ClientTls, Existing, Identity,
    IdentityFiles, IssuedServer, KeyPair, Peer, PinnedBootstrap, ServerFiles, ServerTls, SpkiHash, TlsError,
    client_config, server_config, write_private, write_public,
};
use rustls::pki_types::ServerName;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, ClientConnection, ServerConfig, ServerConnection,
};

const HOST: &str = "mirror.example.org";

/// Flights after which a handshake that still goes on has failed; TLS 1.3 needs three.
const FLIGHTS_MAX: usize = 10;

#[allow(
    clippy::disallowed_methods,
    reason = "rustls checks validity against the host's clock, so must these tests"
)]
fn now() -> DateTime<Utc> {
    Utc::now()
}

fn authority() -> CertificateAuthority {
    CertificateAuthority::create("example.org".parse().unwrap(), now() - TimeDelta::days(365)).unwrap()
}

fn agent(name: &str) -> Identity {
    Identity::Agent(name.parse().unwrap())
}

fn server_of(ca: &CertificateAuthority) -> ServerConfig {
    let server = ca.issue_server(&[HOST], now()).unwrap();
    server_config(&server.issued.cert_pem, &server.key.pem(), &ca.bundle()).unwrap()
}

/// An agent's configuration: certificate of `ca`, trusting `bundle`.
fn client_of(ca: &CertificateAuthority, bundle: &CaBundle) -> ClientConfig {
    client_issued_at(ca, bundle, now())
}

fn client_issued_at(ca: &CertificateAuthority, bundle: &CaBundle, at: DateTime<Utc>) -> ClientConfig {
    let key = KeyPair::generate().unwrap();
    let issued = ca.issue_from_csr(&key.csr_pem().unwrap(), &agent("ftp1"), at, AGENT_LIFE).unwrap();
    client_config(bundle, Some((&issued.cert_pem, &key.pem()))).unwrap()
}

/// Both ends after a handshake, each with what stopped it.
struct Met {
    client: ClientConnection,
    server: ServerConnection,
    client_error: Option<rustls::Error>,
    server_error: Option<rustls::Error>,
}

impl Met {
    fn stands(&self) -> bool {
        self.client_error.is_none() && self.server_error.is_none()
    }

    /// Who the server thinks the client is; `None` without a client certificate.
    fn peer(&self) -> Option<Peer> {
        let chain = self.server.peer_certificates()?;
        Some(Identity::from_der(&chain[0], &"example.org".parse().unwrap()).unwrap())
    }

    /// Sends bytes from client to server and returns what arrives.
    fn send(&mut self, text: &str) -> String {
        self.client.writer().write_all(text.as_bytes()).unwrap();
        let mut wire = Vec::new();
        self.client.write_tls(&mut wire).unwrap();
        self.server.read_tls(&mut wire.as_slice()).unwrap();
        self.server.process_new_packets().unwrap();
        let mut arrived = vec![0; text.len()];
        self.server.reader().read_exact(&mut arrived).unwrap();
        String::from_utf8(arrived).unwrap()
    }
}

fn meet(client: ClientConfig, server: ServerConfig) -> Met {
    meet_as(HOST, Arc::new(client), Arc::new(server))
}

fn meet_as(name: &'static str, client: Arc<ClientConfig>, server: Arc<ServerConfig>) -> Met {
    let name = ServerName::try_from(name).unwrap();
    let mut met = Met {
        client: ClientConnection::new(client, name).unwrap(),
        server: ServerConnection::new(server).unwrap(),
        client_error: None,
        server_error: None,
    };
    for _ in 0..FLIGHTS_MAX {
        let mut wire = Vec::new();
        while met.client.wants_write() {
            met.client.write_tls(&mut wire).unwrap();
        }
        met.server.read_tls(&mut wire.as_slice()).unwrap();
        met.server_error = met.server_error.or_else(|| met.server.process_new_packets().err());
        let mut wire = Vec::new();
        while met.server.wants_write() {
            met.server.write_tls(&mut wire).unwrap();
        }
        met.client.read_tls(&mut wire.as_slice()).unwrap();
        met.client_error = met.client_error.or_else(|| met.client.process_new_packets().err());
        if !met.client.wants_write() && !met.server.wants_write() {
            break;
        }
    }
    assert!(!met.stands() || !(met.client.is_handshaking() || met.server.is_handshaking()));
    met
}

#[test]
fn both_ends_know_each_other() {
    let ca = authority();
    let mut met = meet(client_of(&ca, &ca.bundle()), server_of(&ca));
    assert!(met.stands());
    assert_eq!(met.peer().unwrap().identity, agent("ftp1"));
    assert_eq!(met.client.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    assert_eq!(met.server.alpn_protocol(), Some(b"h2".as_slice()));
    let chain = met.client.peer_certificates().unwrap();
    let server = Identity::from_der(&chain[0], ca.trust_domain()).unwrap();
    assert_eq!(server.identity, Identity::Server);
    assert_eq!(SpkiHash::of_certificate(&chain[1]).unwrap(), ca.ca_hash());
    assert_eq!(met.send("hello"), "hello");
}

#[test]
fn the_key_exchange_is_post_quantum() {
    let ca = authority();
    let met = meet(client_of(&ca, &ca.bundle()), server_of(&ca));
    let group = met.server.negotiated_key_exchange_group().unwrap().name();
    assert_eq!(group, rustls::NamedGroup::X25519MLKEM768);
}

#[test]
fn without_a_client_certificate_one_is_let_in_as_nobody() {
    let ca = authority();
    let met = meet(client_config(&ca.bundle(), None).unwrap(), server_of(&ca));
    assert!(met.stands());
    assert_eq!(met.peer(), None);
}

#[test]
fn a_client_of_another_ca_is_refused() {
    let (ca, other) = (authority(), authority());
    let met = meet(client_of(&other, &ca.bundle()), server_of(&ca));
    // CAs of distinct names: the reason is the issuer, not a bad signature.
    assert_eq!(met.server_error, Some(CertificateError::UnknownIssuer.into()));
    assert_eq!(met.client_error, Some(rustls::Error::AlertReceived(AlertDescription::UnknownCA)));
}

#[test]
fn a_server_of_another_ca_is_refused() {
    let (ca, other) = (authority(), authority());
    let met = meet(client_of(&ca, &ca.bundle()), server_of(&other));
    assert_eq!(met.client_error, Some(CertificateError::UnknownIssuer.into()));
}

#[test]
fn an_expired_client_is_refused() {
    let ca = authority();
    let expired = client_issued_at(&ca, &ca.bundle(), now() - AGENT_LIFE - TimeDelta::minutes(1));
    let met = meet(expired, server_of(&ca));
    let error = met.server_error.unwrap().to_string();
    assert!(error.contains("certificate expired"), "{error}");
}

#[test]
fn an_expired_server_is_refused() {
    let ca = authority();
    let server = ca.issue_server(&[HOST], now() - TimeDelta::days(91)).unwrap();
    let server = server_config(&server.issued.cert_pem, &server.key.pem(), &ca.bundle()).unwrap();
    let met = meet(client_of(&ca, &ca.bundle()), server);
    let error = met.client_error.unwrap().to_string();
    assert!(error.contains("certificate expired"), "{error}");
}

#[test]
fn a_clock_a_little_late_is_forgiven() {
    let ca = authority();
    let fresh = |ahead| client_issued_at(&ca, &ca.bundle(), now() + ahead);
    assert!(meet(fresh(BACKDATE - TimeDelta::minutes(1)), server_of(&ca)).stands());
    let met = meet(fresh(BACKDATE + TimeDelta::minutes(1)), server_of(&ca));
    let error = met.server_error.unwrap().to_string();
    assert!(error.contains("not valid yet"), "{error}");
}

#[test]
fn a_server_under_another_name_is_refused() {
    let ca = authority();
    let client = client_config(&ca.bundle(), None).unwrap();
    let met = meet_as("other.example.org", Arc::new(client), Arc::new(server_of(&ca)));
    let error = met.client_error.unwrap().to_string();
    assert!(error.contains("not valid for name"), "{error}");
}

#[test]
fn a_server_is_found_by_its_address_too() {
    let ca = authority();
    let server = ca.issue_server(&["192.0.2.7", "2001:db8::7"], now()).unwrap();
    let server = Arc::new(server_config(&server.issued.cert_pem, &server.key.pem(), &ca.bundle()).unwrap());
    let client = Arc::new(client_config(&ca.bundle(), None).unwrap());
    for (address, good) in [("192.0.2.7", true), ("2001:db8::7", true), ("192.0.2.8", false)] {
        assert_eq!(meet_as(address, client.clone(), server.clone()).stands(), good, "{address}");
    }
}

#[test]
fn an_agent_cannot_pose_as_the_coordinator() {
    let ca = authority();
    let key = KeyPair::generate().unwrap();
    // The host's name is a good agent name; the usage in the certificate is what stops it.
    let issued = ca.issue_from_csr(&key.csr_pem().unwrap(), &agent(HOST), now(), AGENT_LIFE).unwrap();
    let posing = server_config(&issued.cert_pem, &key.pem(), &ca.bundle()).unwrap();
    assert!(!meet(client_of(&ca, &ca.bundle()), posing.clone()).stands());
    let pinned = PinnedBootstrap::new(&[ca.ca_hash()]).unwrap();
    assert!(meet_as(HOST, pinned.config(), Arc::new(posing)).client_error.is_some());
}

#[test]
fn the_coordinators_certificate_is_no_client() {
    let ca = authority();
    let server = ca.issue_server(&[HOST], now()).unwrap();
    let posing = client_config(&ca.bundle(), Some((&server.issued.cert_pem, &server.key.pem()))).unwrap();
    assert!(meet(posing, server_of(&ca)).server_error.is_some());
}

/// A TLS 1.2 ClientHello as RFC 5246, section 7.4.1.2, has it: no supported_versions extension, one ECDHE suite.
fn tls12_client_hello() -> Vec<u8> {
    let mut body = vec![0x03, 0x03];
    body.extend([0x5a; 32]); // random
    body.push(0); // no session id
    body.extend([0x00, 0x02, 0xc0, 0x2b]); // TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
    body.extend([0x01, 0x00]); // null compression
    let groups = [0x00, 0x0a, 0x00, 0x04, 0x00, 0x02, 0x00, 0x17]; // secp256r1
    let signatures = [0x00, 0x0d, 0x00, 0x04, 0x00, 0x02, 0x04, 0x03]; // ecdsa_secp256r1_sha256
    body.extend([0x00, 0x10]);
    body.extend(groups);
    body.extend(signatures);
    let length = u8::try_from(body.len()).unwrap();
    let mut hello = vec![0x16, 0x03, 0x01, 0x00, length + 4, 0x01, 0x00, 0x00, length];
    hello.extend(body);
    hello
}

#[test]
fn tls_1_2_is_refused() {
    let mut server = ServerConnection::new(Arc::new(server_of(&authority()))).unwrap();
    server.read_tls(&mut tls12_client_hello().as_slice()).unwrap();
    let refused = server.process_new_packets().unwrap_err();
    assert!(matches!(refused, rustls::Error::PeerIncompatible(_)), "{refused}");
    let mut wire = Vec::new();
    server.write_tls(&mut wire).unwrap();
    // An alert record: fatal, protocol_version.
    assert_eq!((wire[0], &wire[5..]), (0x15, [0x02, 0x46].as_slice()));
}

#[test]
fn other_protocols_are_refused() {
    let ca = authority();
    let mut client = client_of(&ca, &ca.bundle());
    client.alpn_protocols = vec![b"http/1.1".to_vec()];
    let met = meet(client, server_of(&ca));
    assert_eq!(met.server_error, Some(rustls::Error::NoApplicationProtocol));
}

#[test]
fn no_session_is_ever_resumed() {
    let ca = authority();
    // A client that would like to: the rustls default remembers sessions.
    let mut eager = client_of(&ca, &ca.bundle());
    eager.resumption = rustls::client::Resumption::in_memory_sessions(8);
    let (eager, server) = (Arc::new(eager), Arc::new(server_of(&ca)));
    // Either of the two would do; neither is left to the other.
    assert!(server.send_tls13_tickets == 0 && !server.session_storage.can_cache());
    for _ in 0..3 {
        let met = meet_as(HOST, eager.clone(), server.clone());
        assert_eq!(met.client.handshake_kind(), Some(rustls::HandshakeKind::Full));
        assert_eq!(met.client.tls13_tickets_received(), 0);
    }
}

#[test]
fn a_request_for_a_false_name_connects_under_the_true_one() {
    let ca = authority();
    let key = rcgen::KeyPair::generate().unwrap();
    let mut evil = rcgen::CertificateParams::new(vec![HOST.to_owned()]).unwrap();
    evil.distinguished_name.push(rcgen::DnType::CommonName, "evil");
    evil.subject_alt_names.push(rcgen::SanType::URI("spiffe://example.org/user/admin".try_into().unwrap()));
    let csr = evil.serialize_request(&key).unwrap().pem().unwrap();
    let issued = ca.issue_from_csr(&csr, &agent("ftp9"), now(), AGENT_LIFE).unwrap();
    let client = client_config(&ca.bundle(), Some((&issued.cert_pem, &key.serialize_pem()))).unwrap();
    assert_eq!(meet(client, server_of(&ca)).peer().unwrap().identity, agent("ftp9"));
}

#[test]
fn first_contact_with_the_right_hash() {
    let ca = authority();
    let pinned = PinnedBootstrap::new(&[authority().ca_hash(), ca.ca_hash()]).unwrap();
    assert_eq!((pinned.ca_pem(), pinned.mismatch()), (None, None));
    let mut met = meet_as(HOST, pinned.config(), Arc::new(server_of(&ca)));
    assert!(met.stands());
    assert_eq!(met.peer(), None);
    assert_eq!(pinned.ca_pem().unwrap(), ca.cert_pem());
    assert_eq!(met.send("token"), "token");
}

#[test]
fn first_contact_with_a_wrong_hash() {
    let (ca, other) = (authority(), authority());
    let pinned = PinnedBootstrap::new(&[other.ca_hash()]).unwrap();
    let met = meet_as(HOST, pinned.config(), Arc::new(server_of(&ca)));
    assert!(matches!(met.client_error, Some(rustls::Error::InvalidCertificate(CertificateError::Other(_)))));
    let mismatch = pinned.mismatch().unwrap();
    assert_eq!((mismatch.shown, mismatch.pinned), (Some(ca.ca_hash()), vec![other.ca_hash()]));
    assert_eq!(pinned.ca_pem(), None);
}

#[test]
fn first_contact_under_a_wrong_name() {
    let ca = authority();
    let pinned = PinnedBootstrap::new(&[ca.ca_hash()]).unwrap();
    let met = meet_as("other.example.org", pinned.config(), Arc::new(server_of(&ca)));
    assert!(met.client_error.unwrap().to_string().contains("not valid for name"));
    assert_eq!((pinned.ca_pem(), pinned.mismatch()), (None, None));
}

/// A server with a chain of its choice, as an attacker runs one.
fn server_showing(chain: &[&str], key: &KeyPair) -> Arc<ServerConfig> {
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};

    let chain = chain.iter().map(|pem| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).collect();
    let key = PrivateKeyDer::from_pem_slice(key.pem().as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

#[test]
fn somebody_in_between_is_found_out() {
    let (ca, evil) = (authority(), authority());
    let IssuedServer { issued, key } = evil.issue_server(&[HOST], now()).unwrap();
    let pinned = PinnedBootstrap::new(&[ca.ca_hash()]).unwrap();

    // His own CA: the hash differs, and the message shows it.
    let met = meet_as(HOST, pinned.config(), server_showing(&[&issued.cert_pem, &evil.cert_pem()], &key));
    assert!(met.client_error.is_some());
    assert_eq!(pinned.mismatch().unwrap().shown, Some(evil.ca_hash()));

    // A good handshake before does not speak for a bad one after it.
    assert!(meet_as(HOST, pinned.config(), Arc::new(server_of(&ca))).stands());
    assert!(pinned.ca_pem().is_some() && pinned.mismatch().is_none());

    // The true CA's certificate, which is public, behind his own leaf: it did not sign that.
    for chain in [
        vec![issued.cert_pem.as_str(), &ca.cert_pem()],
        vec![issued.cert_pem.as_str(), &evil.cert_pem(), &ca.cert_pem()],
    ] {
        let met = meet_as(HOST, pinned.config(), server_showing(&chain, &key));
        assert_eq!(met.client_error, Some(CertificateError::UnknownIssuer.into()));
        assert_eq!(pinned.ca_pem(), None);
    }

    // No CA at all.
    let met = meet_as(HOST, pinned.config(), server_showing(&[&issued.cert_pem], &key));
    assert!(met.client_error.is_some());
    assert_eq!(pinned.mismatch().unwrap().shown, None);
}

#[test]
fn a_stolen_certificate_without_its_key_opens_nothing() {
    let ca = authority();
    let key = KeyPair::generate().unwrap();
    let issued = ca.issue_from_csr(&key.csr_pem().unwrap(), &agent("ftp1"), now(), AGENT_LIFE).unwrap();
    let other = KeyPair::generate().unwrap();
    let refused = client_config(&ca.bundle(), Some((&issued.cert_pem, &other.pem()))).unwrap_err();
    assert!(matches!(refused, TlsError::Rustls(rustls::Error::InconsistentKeys(_))), "{refused}");
}

#[test]
fn two_cas_serve_side_by_side_during_a_rotation() {
    let (old, new) = (authority(), authority());
    let both = old.bundle().union(&new.bundle()).unwrap();
    for server_ca in [&old, &new] {
        let server = server_ca.issue_server(&[HOST], now()).unwrap();
        let server = Arc::new(server_config(&server.issued.cert_pem, &server.key.pem(), &both).unwrap());
        for client_ca in [&old, &new] {
            let met = meet_as(HOST, Arc::new(client_of(client_ca, &both)), server.clone());
            assert!(met.stands());
            assert_eq!(met.peer().unwrap().identity, agent("ftp1"));
        }
        // A first contact sees the CA that issued the server's certificate, not just any of the two.
        let pinned = PinnedBootstrap::new(&[server_ca.ca_hash()]).unwrap();
        assert!(meet_as(HOST, pinned.config(), server).stands());
    }
}

/// A coordinator's files in a directory: key and certificate in one file.
fn write_server(directory: &Path, ca: &CertificateAuthority, bundle: &CaBundle) -> ServerFiles {
    let files = ServerFiles {
        identity: IdentityFiles {
            certificate: directory.join("server.pem"),
            key: directory.join("server.pem"),
        },
        ca: directory.join("ca.pem"),
        next_ca: Some(directory.join("next.pem")),
    };
    let server = ca.issue_server(&[HOST], now()).unwrap();
    write_private(&files.identity.key, &server.combined_pem(), Existing::Replace).unwrap();
    write_public(&files.ca, &bundle.to_pem(), Existing::Replace).unwrap();
    files
}

#[test]
fn a_reload_of_the_server_takes_effect_with_the_next_connection() {
    let directory = tempfile::tempdir().unwrap();
    let (old, new) = (authority(), authority());
    let server = ServerTls::load(write_server(directory.path(), &old, &old.bundle())).unwrap();
    let of_old = Arc::new(client_of(&old, &old.bundle()));
    let of_new = Arc::new(client_of(&new, &new.bundle()));
    let mut open = meet_as(HOST, of_old.clone(), server.config());
    assert!(open.stands());
    assert!(!meet_as(HOST, of_new.clone(), server.config()).stands());

    write_server(directory.path(), &new, &new.bundle());
    assert!(!meet_as(HOST, of_new.clone(), server.config()).stands(), "before the reload nothing changes");
    server.reload().unwrap();
    assert!(meet_as(HOST, of_new, server.config()).stands());
    assert!(!meet_as(HOST, of_old, server.config()).stands());
    assert_eq!(open.send("still here"), "still here");
}

#[test]
fn a_next_ca_is_trusted_while_its_file_is_there() {
    let directory = tempfile::tempdir().unwrap();
    let (old, new) = (authority(), authority());
    let files = write_server(directory.path(), &old, &old.bundle());
    let next = files.next_ca.clone().unwrap();
    let server = ServerTls::load(files).unwrap();
    let of_new = Arc::new(client_of(&new, &old.bundle()));
    assert!(!meet_as(HOST, of_new.clone(), server.config()).stands());
    write_private(&next, &new.combined_pem(), Existing::Refuse).unwrap();
    server.reload().unwrap();
    assert!(meet_as(HOST, of_new.clone(), server.config()).stands());
    std::fs::remove_file(next).unwrap();
    server.reload().unwrap();
    assert!(!meet_as(HOST, of_new, server.config()).stands());
}

#[test]
fn a_bad_reload_keeps_the_old_configuration() {
    let directory = tempfile::tempdir().unwrap();
    let (ca, other) = (authority(), authority());
    let server = ServerTls::load(write_server(directory.path(), &ca, &ca.bundle())).unwrap();
    let before = server.config();
    let stranger = other.issue_server(&[HOST], now()).unwrap();
    let mixed =
        [stranger.key.pem().as_str(), &ca.issue_server(&[HOST], now()).unwrap().issued.cert_pem].concat();
    let key_only = stranger.key.pem();
    let cert_only = stranger.issued.cert_pem.as_str();
    for bad in ["", "garbage", key_only.as_str(), cert_only, &mixed, &stranger.combined_pem()] {
        write_private(&directory.path().join("server.pem"), bad, Existing::Replace).unwrap();
        assert!(server.reload().is_err(), "{bad}");
    }
    write_server(directory.path(), &ca, &ca.bundle());
    for bad in ["", "garbage", cert_only] {
        write_public(&directory.path().join("ca.pem"), bad, Existing::Replace).unwrap();
        assert!(matches!(server.reload(), Err(TlsError::Bundle(_))), "{bad}");
    }
    std::fs::remove_file(directory.path().join("ca.pem")).unwrap();
    assert!(matches!(server.reload(), Err(TlsError::File(_))));
    assert!(Arc::ptr_eq(&before, &server.config()));
    assert!(meet_as(HOST, Arc::new(client_of(&ca, &ca.bundle())), server.config()).stands());
}

#[test]
fn a_renewed_client_is_used_by_the_next_dial() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let ca = authority();
    let server = Arc::new(server_of(&ca));
    let key = KeyPair::generate().unwrap();
    let renew = || {
        let issued = ca.issue_from_csr(&key.csr_pem().unwrap(), &agent("ftp1"), now(), AGENT_LIFE).unwrap();
        write_public(&at("agent.crt"), &issued.cert_pem, Existing::Replace).unwrap();
        issued.serial
    };
    key.write_private(&at("agent.key"), Existing::Refuse).unwrap();
    write_public(&at("ca.pem"), &ca.cert_pem(), Existing::Refuse).unwrap();
    let first = renew();
    let identity = IdentityFiles { certificate: at("agent.crt"), key: at("agent.key") };
    let client = ClientTls::load(ClientFiles { identity: Some(identity), ca: at("ca.pem") }).unwrap();
    let serial = || meet_as(HOST, client.config(), server.clone()).peer().unwrap().serial;
    assert_eq!(serial(), first);

    let second = renew();
    client.reload().unwrap();
    assert_eq!(serial(), second);

    write_public(&at("agent.crt"), "garbage", Existing::Replace).unwrap();
    assert!(matches!(client.reload(), Err(TlsError::NoCertificate)));
    assert_eq!(serial(), second);
}

#[test]
fn a_user_without_a_certificate_needs_the_ca_file_only() {
    let directory = tempfile::tempdir().unwrap();
    let ca = authority();
    let path = directory.path().join("ca.pem");
    write_public(&path, &ca.cert_pem(), Existing::Refuse).unwrap();
    let client = ClientTls::load(ClientFiles { identity: None, ca: path }).unwrap();
    let met = meet_as(HOST, client.config(), Arc::new(server_of(&ca)));
    assert!(met.stands());
    assert_eq!(met.peer(), None);
}
