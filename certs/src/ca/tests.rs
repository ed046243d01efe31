use super::*;
use crate::life::{AGENT_LIFE, USER_LIFE};
use std::collections::HashSet;
use x509_parser::extensions::GeneralName;

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000, 0).unwrap()
}

fn authority() -> CertificateAuthority {
    CertificateAuthority::create("example.org".parse().unwrap(), now()).unwrap()
}

fn agent() -> Identity {
    Identity::Agent("ftp1".parse().unwrap())
}

fn csr() -> String {
    KeyPair::generate().unwrap().csr_pem().unwrap()
}

fn der(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

#[test]
fn a_ca_says_what_it_may() {
    let ca = authority();
    let der = der(&ca.cert_pem());
    let parsed = x509::parse(&der).unwrap();
    let constraints = parsed.basic_constraints().unwrap().unwrap();
    assert!(constraints.critical && constraints.value.ca);
    assert_eq!(constraints.value.path_len_constraint, Some(0));
    assert_eq!(parsed.validity().not_before.timestamp(), (now() - BACKDATE).timestamp());
    assert_eq!(parsed.validity().not_after.timestamp(), (now() + CA_LIFE).timestamp());
    assert!(parsed.subject().to_string().starts_with("CN=Mirror fleet CA "));
    assert_ne!(authority().cert_pem(), ca.cert_pem());
    assert_eq!(ca.ca_hash().to_string().len(), "sha256:".len() + 64);
}

#[test]
fn a_loaded_ca_is_the_same_ca() {
    let ca = authority();
    let loaded = CertificateAuthority::load(&ca.cert_pem(), &ca.key_pem()).unwrap();
    assert_eq!(loaded.ca_hash(), ca.ca_hash());
    assert_eq!(loaded.trust_domain().as_str(), "example.org");
    let issued = loaded.issue_from_csr(&csr(), &agent(), now(), AGENT_LIFE).unwrap();
    assert!(ca.bundle().issuer_of(&der(&issued.cert_pem)).is_some());
    assert!(authority().bundle().issuer_of(&der(&issued.cert_pem)).is_none());
}

#[test]
fn a_mixed_up_or_damaged_ca_is_refused() {
    let (ca, other) = (authority(), authority());
    let load = CertificateAuthority::load;
    assert!(matches!(load(&ca.cert_pem(), &other.key_pem()), Err(CaError::KeyMismatch { .. })));
    let two = format!("{}{}", ca.cert_pem(), other.cert_pem());
    assert!(matches!(load(&two, &ca.key_pem()), Err(CaError::NotOne(2))));
    assert!(matches!(load("garbage", &ca.key_pem()), Err(CaError::Certificate(_))));
    assert!(matches!(load(&ca.cert_pem(), "garbage"), Err(CaError::Key(_))));
    let server = ca.issue_server(&["localhost"], now()).unwrap();
    assert!(load(&server.issued.cert_pem, &server.key.pem()).is_err());
    let mut flipped = der(&ca.cert_pem()).to_vec();
    *flipped.last_mut().unwrap() ^= 1;
    assert!(load(&pem::certificate(&flipped.into()), &ca.key_pem()).is_err());
}

#[test]
fn an_applicant_gets_our_names_not_his() {
    let key = KeyPair::generate().unwrap();
    let mut evil = CertificateParams::default();
    evil.distinguished_name.push(DnType::CommonName, "evil");
    evil.subject_alt_names = vec![
        SanType::DnsName("coordinator.example.org".try_into().unwrap()),
        SanType::URI("spiffe://example.org/user/admin".try_into().unwrap()),
    ];
    evil.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    evil.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    evil.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let csr = evil.serialize_request(&key).unwrap().pem().unwrap();

    let issued = authority().issue_from_csr(&csr, &agent(), now(), AGENT_LIFE).unwrap();
    let der = der(&issued.cert_pem);
    let parsed = x509::parse(&der).unwrap();
    assert_eq!(parsed.subject().to_string(), "OU=agent, CN=ftp1");
    let names = parsed.subject_alternative_name().unwrap().unwrap();
    assert_eq!(names.value.general_names, [GeneralName::URI("spiffe://example.org/agent/ftp1")]);
    assert!(!parsed.is_ca());
    assert_eq!(parsed.key_usage().unwrap().unwrap().value.flags, 1, "digitalSignature only");
    let usage = parsed.extended_key_usage().unwrap().unwrap();
    assert!(usage.value.client_auth && !usage.value.server_auth && !usage.value.any);
    assert_eq!(issued.spki_hash, key.spki_hash());
}

#[test]
fn validity_is_ours_and_ends_with_the_ca() {
    let ca = authority();
    let issued = ca.issue_from_csr(&csr(), &agent(), now(), USER_LIFE).unwrap();
    assert_eq!(issued.not_after, now() + USER_LIFE);
    let peer = Identity::from_pem(&issued.cert_pem, ca.trust_domain()).unwrap();
    assert_eq!(peer.not_before, now() - BACKDATE);
    assert_eq!(peer.serial, issued.serial);

    let late = ca.not_after() - TimeDelta::days(1);
    assert_eq!(ca.issue_from_csr(&csr(), &agent(), late, AGENT_LIFE).unwrap().not_after, ca.not_after());
    let endless = ca.issue_from_csr(&csr(), &agent(), now(), TimeDelta::MAX).unwrap();
    assert_eq!(endless.not_after, ca.not_after());
}

#[test]
fn times_out_of_range_are_refused() {
    let ca = authority();
    for life in [TimeDelta::zero(), TimeDelta::seconds(-1)] {
        let refused = ca.issue_from_csr(&csr(), &agent(), now(), life);
        assert!(matches!(refused, Err(CaError::Validity)));
    }
    for time in [ca.not_after(), now() - BACKDATE - TimeDelta::seconds(1)] {
        let refused = ca.issue_from_csr(&csr(), &agent(), time, AGENT_LIFE);
        assert!(matches!(refused, Err(CaError::NotValidNow { .. })));
    }
    for seconds in [-1, 0, TIMESTAMP_MAX] {
        let time = DateTime::from_timestamp(seconds, 0).unwrap();
        let refused = CertificateAuthority::create("example.org".parse().unwrap(), time);
        assert!(matches!(refused, Err(CaError::Validity)), "{time}");
    }
}

#[test]
fn serials_are_long_and_never_the_same() {
    let ca = authority();
    let server = || ca.issue_server(&["localhost"], now()).unwrap().issued.serial.to_string();
    let serials: HashSet<String> = (0..50).map(|_| server()).collect();
    assert_eq!(serials.len(), 50);
    assert!(serials.iter().all(|serial| serial.len() == 2 * SERIAL_BYTES));
}

#[test]
fn the_coordinator_gets_its_names() {
    let server =
        authority().issue_server(&["mirror.example.org", "192.0.2.7", "2001:db8::7"], now()).unwrap();
    let der = der(&server.issued.cert_pem);
    let parsed = x509::parse(&der).unwrap();
    let names = parsed.subject_alternative_name().unwrap().unwrap();
    assert_eq!(names.value.general_names.len(), 4);
    let usage = parsed.extended_key_usage().unwrap().unwrap();
    assert!(usage.value.server_auth && !usage.value.client_auth);
    assert_eq!(server.issued.not_after, now() + SERVER_LIFE);
    assert_eq!(server.issued.spki_hash, server.key.spki_hash());
    let combined = server.combined_pem();
    assert_eq!(KeyPair::from_pem(&combined).unwrap().spki_hash(), server.key.spki_hash());
    assert_eq!(CertificateDer::from_pem_slice(combined.as_bytes()).unwrap(), der);
}

#[test]
fn all_bad_server_names_are_told_at_once() {
    let ca = authority();
    let refused = ca.issue_server(&["good.example.org", "bad name", "*", ""], now()).unwrap_err();
    let CaError::ServerNames(faults) = refused else { panic!("{refused}") };
    assert_eq!(faults.len(), 3, "{faults:?}");
    let none: [&str; 0] = [];
    assert!(matches!(ca.issue_server(&none, now()), Err(CaError::ServerNames(_))));
    let many = vec!["a.example.org"; SERVER_NAMES_MAX + 1];
    assert!(matches!(ca.issue_server(&many, now()), Err(CaError::ServerNames(_))));
}

#[test]
fn nobody_becomes_the_coordinator_by_request() {
    let refused = authority().issue_from_csr(&csr(), &Identity::Server, now(), AGENT_LIFE);
    assert!(matches!(refused, Err(CaError::ServerFromRequest)));
}

#[test]
fn the_longest_name_fits() {
    let name = "n".repeat(crate::NAME_BYTES_MAX);
    let identity = Identity::User(name.parse().unwrap());
    assert!(authority().issue_from_csr(&csr(), &identity, now(), USER_LIFE).is_ok());
}

#[test]
fn debug_shows_no_key() {
    let ca = authority();
    let shown = format!("{ca:?} {:?}", ca.issue_server(&["localhost"], now()).unwrap());
    assert!(!shown.contains("PRIVATE KEY") && !shown.contains("serialized_der"), "{shown}");
}
