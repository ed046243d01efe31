//! The fleet's certificate authority: makes itself, the coordinator's certificate, and the certificates of agents and
//! users. It decides everything that stands in a certificate; an applicant brings nothing but a public key.
//!
//! Knows no policy: whether somebody may have a certificate is decided before it is asked.

use std::fmt;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyUsagePurpose, PublicKeyData, SanType,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use zeroize::Zeroizing;

use crate::bundle::{BundleError, CaBundle};
use crate::csr::{CertificateRequest, CsrError};
use crate::identity::{Identity, IdentityError, TrustDomain};
use crate::key::{KeyError, KeyPair};
use crate::life::{BACKDATE, CA_LIFE, SERVER_LIFE};
use crate::serial::Serial;
use crate::spki::SpkiHash;
use crate::{pem, x509};

/// Most names in the coordinator's certificate.
pub const SERVER_NAMES_MAX: usize = 64;

/// Bytes of a serial number: the most that RFC 5280, section 4.1.2.2, allows; 158 of the 160 bits are random.
const SERIAL_BYTES: usize = 20;

/// Random bytes in a CA's name, so that two CAs of one fleet never share it.
const CA_ID_BYTES: usize = 8;

/// The last second of the year 9999, the end of what X.509 can say.
const TIMESTAMP_MAX: i64 = 253_402_300_799;

/// Why nothing was issued, or no CA was loaded.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// The applicant's request is refused.
    #[error("the certificate request is refused")]
    Request(#[from] CsrError),
    /// The coordinator's certificate is made by `issue_server`, with a key of its own.
    #[error("a coordinator's certificate is not issued from a request; fault: the caller")]
    ServerFromRequest,
    /// Names for the coordinator's certificate: all faults at once.
    #[error("names for the coordinator's certificate are refused: {}", .0.join("; "))]
    ServerNames(Vec<String>),
    /// The CA's own certificate has ended, or not begun.
    #[error(
        "the CA is valid from {not_before} to {not_after}, and it is {now}; check the clock, or make a new CA and rotate to it"
    )]
    NotValidNow {
        /// Start of the CA's validity.
        not_before: DateTime<Utc>,
        /// End of the CA's validity.
        not_after: DateTime<Utc>,
        /// The time handed in.
        now: DateTime<Utc>,
    },
    /// A lifetime of nothing, or a time that X.509 cannot say.
    #[error(
        "the validity asked for is empty or outside the years 1970 to 9999; fault: the caller or the clock"
    )]
    Validity,
    /// The PEM text of the CA's certificate.
    #[error("the CA's certificate is refused")]
    Certificate(#[from] BundleError),
    /// More than one certificate where the CA's own is wanted.
    #[error("the CA's certificate file holds {0} certificates; wanted is the CA's own only")]
    NotOne(usize),
    /// The CA certificate is not one that this crate makes.
    #[error("the CA's certificate is not a self-signed CA certificate for signing certificates")]
    NotSelfSigned,
    /// Key and certificate of two CAs were mixed up.
    #[error(
        "the CA's key does not belong to its certificate: the key is {key}, the certificate is for {certificate}"
    )]
    KeyMismatch {
        /// Hash of the key's public half.
        key: SpkiHash,
        /// Hash of the certificate's key.
        certificate: SpkiHash,
    },
    /// A key could not be read or made.
    #[error("the key is refused")]
    Key(#[from] KeyError),
    /// What stands in a certificate could not be read.
    #[error("the certificate names nobody in this fleet")]
    Identity(#[from] IdentityError),
    /// Encoding or signing failed.
    #[error("could not make the certificate; fault: this host's cryptography library")]
    Crypto(#[source] rcgen::Error),
    /// No random numbers.
    #[error("this host has no random numbers")]
    Random,
}

/// A certificate that was just issued, with what the store remembers of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// The certificate alone, PEM.
    pub cert_pem: String,
    /// Serial number: what a revocation names.
    pub serial: Serial,
    /// End of validity; earlier than asked for when the CA ends first.
    pub not_after: DateTime<Utc>,
    /// Hash of the public key: what a renewal must come with.
    pub spki_hash: SpkiHash,
}

/// The coordinator's certificate with its key.
#[derive(Debug)]
pub struct IssuedServer {
    /// The certificate.
    pub issued: Issued,
    /// Its key.
    pub key: KeyPair,
}

impl IssuedServer {
    /// Key and certificate in one text. Written to one file they are replaced in one step, so that a crash between two
    /// files can leave no mismatched pair; see [`crate::IdentityFiles`].
    #[must_use]
    pub fn combined_pem(&self) -> Zeroizing<String> {
        let key = self.key.pem();
        let mut text = Zeroizing::new(String::with_capacity(key.len() + self.issued.cert_pem.len()));
        text.push_str(&key);
        text.push_str(&self.issued.cert_pem);
        text
    }
}

/// A CA with its private key.
pub struct CertificateAuthority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    bundle: CaBundle,
    trust_domain: TrustDomain,
    not_before: DateTime<Utc>,
    not_after: DateTime<Utc>,
}

impl CertificateAuthority {
    /// Makes a new CA for a trust domain: ECDSA P-256, valid for [`CA_LIFE`], a name of its own, may sign end-entity
    /// certificates only.
    ///
    /// # Errors
    /// [`CaError`] when `now` is out of range or the host has no random numbers.
    pub fn create(trust_domain: TrustDomain, now: DateTime<Utc>) -> Result<Self, CaError> {
        let key = KeyPair::generate()?;
        let id = hex::encode(random::<CA_ID_BYTES>()?);
        let mut params = blank_params()?;
        params.distinguished_name.push(DnType::CommonName, format!("Mirror fleet CA {id}"));
        params.subject_alt_names = vec![uri_name(trust_domain.uri())?];
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        set_validity(&mut params, now - BACKDATE, now + CA_LIFE)?;
        let certificate = params.self_signed(&key).map_err(CaError::Crypto)?;
        Self::from_parts(certificate.der().clone(), key)
    }

    /// Loads a CA from the texts of [`CertificateAuthority::cert_pem`] and [`CertificateAuthority::key_pem`]. The trust
    /// domain stands in the certificate.
    ///
    /// # Errors
    /// [`CaError`] when either is damaged, is not a CA's, or the two do not belong together.
    pub fn load(cert_pem: &str, key_pem: &str) -> Result<Self, CaError> {
        let count = CaBundle::from_pem(cert_pem)?.hashes().len();
        if count != 1 {
            return Err(CaError::NotOne(count));
        }
        let der = CertificateDer::from_pem_slice(cert_pem.as_bytes()).map_err(|_| BundleError::Pem)?;
        Self::from_parts(der, KeyPair::from_pem(key_pem)?)
    }

    fn from_parts(der: CertificateDer<'static>, key: KeyPair) -> Result<Self, CaError> {
        let bundle = CaBundle::from_pem(&pem::certificate(&der))?;
        let trust_domain = TrustDomain::from_ca_der(&der)?;
        let parsed = x509::parse(&der).map_err(IdentityError::from)?;
        let may_sign = matches!(parsed.key_usage(), Ok(Some(usage)) if usage.value.key_cert_sign());
        if !may_sign || parsed.verify_signature(None).is_err() {
            return Err(CaError::NotSelfSigned);
        }
        let certificate = SpkiHash::of_spki(parsed.public_key().raw);
        if key.spki_hash() != certificate {
            return Err(CaError::KeyMismatch { key: key.spki_hash(), certificate });
        }
        let instant = |t: i64| DateTime::from_timestamp(t, 0).ok_or(CaError::Validity);
        let not_before = instant(parsed.validity().not_before.timestamp())?;
        let not_after = instant(parsed.validity().not_after.timestamp())?;
        let issuer = Issuer::from_ca_cert_der(&der, key).map_err(CaError::Crypto)?;
        Ok(Self { issuer, bundle, trust_domain, not_before, not_after, certificate: der })
    }

    /// Issues a certificate for an agent or a user from a PEM certificate request. Subject, names, usages and validity
    /// are ours, whatever the request says.
    ///
    /// # Errors
    /// [`CaError`]; [`CaError::Request`] is the applicant's fault.
    pub fn issue_from_csr(
        &self,
        csr_pem: &str,
        identity: &Identity,
        now: DateTime<Utc>,
        life: TimeDelta,
    ) -> Result<Issued, CaError> {
        self.issue(&CertificateRequest::from_pem(csr_pem)?, identity, now, life)
    }

    /// [`CertificateAuthority::issue_from_csr`] for a request already read, when the caller compares its
    /// [`CertificateRequest::spki_hash`] first, as a renewal must.
    ///
    /// # Errors
    /// [`CaError`].
    pub fn issue(
        &self,
        request: &CertificateRequest,
        identity: &Identity,
        now: DateTime<Utc>,
        life: TimeDelta,
    ) -> Result<Issued, CaError> {
        if *identity == Identity::Server {
            return Err(CaError::ServerFromRequest);
        }
        let mut params = self.leaf_params(identity, now, life)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(&params, request.public_key())
    }

    /// Makes a key and a certificate for the coordinator, valid for [`SERVER_LIFE`]. `names` are the DNS names and IP
    /// addresses under which it is dialled.
    ///
    /// # Errors
    /// [`CaError::ServerNames`] lists every unusable name; see [`CaError`].
    pub fn issue_server(
        &self,
        names: &[impl AsRef<str>],
        now: DateTime<Utc>,
    ) -> Result<IssuedServer, CaError> {
        let key = KeyPair::generate()?;
        let mut params = self.leaf_params(&Identity::Server, now, SERVER_LIFE)?;
        params.subject_alt_names.extend(server_names(names)?);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        Ok(IssuedServer { issued: self.sign(&params, &key)?, key })
    }

    /// The hash of the CA's public key: what people type as `--ca-hash`, text form `sha256:<hex>`.
    #[must_use]
    pub fn ca_hash(&self) -> SpkiHash {
        self.issuer.key().spki_hash()
    }

    /// The CA's own certificate, PEM. Public.
    #[must_use]
    pub fn cert_pem(&self) -> String {
        pem::certificate(&self.certificate)
    }

    /// The CA's private key, PEM. Whoever has it is the fleet: write it with [`crate::write_private`], keep it out of
    /// backups of the store.
    #[must_use]
    pub fn key_pem(&self) -> Zeroizing<String> {
        self.issuer.key().pem()
    }

    /// Key and certificate in one text; [`CertificateAuthority::load`] takes it for both. For a file that is put in place
    /// in one step, so that no crash leaves a key without its certificate.
    #[must_use]
    pub fn combined_pem(&self) -> Zeroizing<String> {
        let (key, certificate) = (self.key_pem(), self.cert_pem());
        let mut text = Zeroizing::new(String::with_capacity(key.len() + certificate.len()));
        text.push_str(&key);
        text.push_str(&certificate);
        text
    }

    /// This CA as a bundle of one.
    #[must_use]
    pub fn bundle(&self) -> CaBundle {
        self.bundle.clone()
    }

    /// The trust domain of every identity it issues.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// When it was made: the start of its validity is set back by [`BACKDATE`].
    #[must_use]
    pub fn made(&self) -> DateTime<Utc> {
        self.not_before + BACKDATE
    }

    /// End of the CA's own validity; nothing it issues lives longer.
    #[must_use]
    pub fn not_after(&self) -> DateTime<Utc> {
        self.not_after
    }

    /// All that an end-entity certificate says, but for its usage and further names.
    fn leaf_params(
        &self,
        identity: &Identity,
        now: DateTime<Utc>,
        life: TimeDelta,
    ) -> Result<CertificateParams, CaError> {
        if now < self.not_before || now >= self.not_after {
            let (not_before, not_after) = (self.not_before, self.not_after);
            return Err(CaError::NotValidNow { not_before, not_after, now });
        }
        if life <= TimeDelta::zero() {
            return Err(CaError::Validity);
        }
        let end = now.checked_add_signed(life).map_or(self.not_after, |end| end.min(self.not_after));
        let (kind, name) = match identity {
            Identity::Agent(name) => ("agent", name.as_str()),
            Identity::User(name) => ("user", name.as_str()),
            Identity::Server => ("coordinator", "coordinator"),
        };
        let mut params = blank_params()?;
        // For people who read certificates; the fleet itself reads the URI only.
        params.distinguished_name.push(DnType::OrganizationalUnitName, kind);
        params.distinguished_name.push(DnType::CommonName, name);
        params.subject_alt_names = vec![uri_name(identity.uri(&self.trust_domain))?];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        set_validity(&mut params, now - BACKDATE, end)?;
        Ok(params)
    }

    /// Signs, and reads back what was signed: what we issue is by construction what our own peers accept.
    fn sign(&self, params: &CertificateParams, key: &impl PublicKeyData) -> Result<Issued, CaError> {
        let certificate = params.signed_by(key, &self.issuer).map_err(CaError::Crypto)?;
        let peer = Identity::from_der(certificate.der(), &self.trust_domain)?;
        Ok(Issued {
            cert_pem: pem::certificate(certificate.der()),
            serial: peer.serial,
            not_after: peer.not_after,
            spki_hash: peer.spki_hash,
        })
    }
}

impl fmt::Debug for CertificateAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateAuthority")
            .field("trust_domain", &self.trust_domain)
            .field("ca_hash", &self.ca_hash())
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// Parameters that say nothing yet but have a serial number. rcgen's own defaults name a subject.
fn blank_params() -> Result<CertificateParams, CaError> {
    let mut serial = random::<SERIAL_BYTES>()?;
    // Positive, and always of full length: DER would drop leading zeros.
    serial[0] = (serial[0] & 0x7f) | 0x40;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.serial_number = Some(serial.to_vec().into());
    Ok(params)
}

fn random<const N: usize>() -> Result<[u8; N], CaError> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| CaError::Random)?;
    Ok(bytes)
}

/// Always set: rcgen's default validity is the years 1975 to 4096.
fn set_validity(
    params: &mut CertificateParams,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
) -> Result<(), CaError> {
    let since_1970 = |instant: DateTime<Utc>| {
        let seconds = Some(instant.timestamp()).filter(|&t| t <= TIMESTAMP_MAX);
        let seconds = seconds.and_then(|t| u64::try_from(t).ok()).ok_or(CaError::Validity)?;
        Ok::<_, CaError>(rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds))
    };
    params.not_before = since_1970(from)?;
    params.not_after = since_1970(to)?;
    Ok(())
}

fn uri_name(uri: String) -> Result<SanType, CaError> {
    uri.try_into().map(SanType::URI).map_err(CaError::Crypto)
}

/// DNS names and IP addresses as certificate names; every fault is reported.
fn server_names(names: &[impl AsRef<str>]) -> Result<Vec<SanType>, CaError> {
    if names.is_empty() || names.len() > SERVER_NAMES_MAX {
        let fault = format!("1 to {SERVER_NAMES_MAX} names are wanted, not {}", names.len());
        return Err(CaError::ServerNames(vec![fault]));
    }
    let mut good = Vec::with_capacity(names.len());
    let mut faults = Vec::new();
    for name in names {
        let name = name.as_ref();
        let san = match ServerName::try_from(name) {
            Ok(ServerName::IpAddress(address)) => Some(SanType::IpAddress(address.into())),
            Ok(ServerName::DnsName(dns)) => dns.as_ref().try_into().ok().map(SanType::DnsName),
            Ok(_) | Err(_) => None,
        };
        match san {
            Some(san) => good.push(san),
            None => faults.push(format!("`{name}` is neither a DNS name nor an IP address")),
        }
    }
    if faults.is_empty() { Ok(good) } else { Err(CaError::ServerNames(faults)) }
}

#[cfg(test)]
mod tests;
