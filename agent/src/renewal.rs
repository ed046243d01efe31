//! Keeps the agent's certificate alive: from a third of its life on it asks for the next one, made for the key that it
//! has had since its enrolment, puts it in place of the old one, and tells the [`Link`], which moves its session over.
//! An expired certificate is renewed the same way: the question is put over a connection without a client certificate.
//!
//! Nothing else waits for it. What runs goes on, also where a renewal fails for weeks.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use mirror_certs::{
    CaBundle, ClientFiles, ClientTls, Existing, FileError, Identity, KeyError, KeyPair, RENEW_GRACE,
    TlsError, TrustDomain, renewal_time,
};
use mirror_proto::v1;
use mirror_proto::v1::enrollment_service_client::EnrollmentServiceClient;
use rand::Rng as _;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};
use zeroize::Zeroizing;

use crate::config::Config;
use crate::enroll::shell_word;
use crate::identity::{self, Own, OwnIdentityError};
use crate::link::Link;
use crate::{clock, dial, outcome};

/// Renewals of certificates that began together are spread over this part of their life: 1/30, a day of 30.
const SPREAD_PART: i32 = 30;
/// Longest sleep between two looks at the wall clock, so that suspends and clock steps are seen.
const LOOK_PAUSE_MAX: Duration = Duration::from_secs(5 * 60);
/// Least time between two certificates, whatever a clock says that runs wrong.
const RENEWALS_PAUSE_MIN: Duration = Duration::from_secs(60 * 60);
/// Upper bound of the first pause after a failure; each later one is twice as long.
const RETRY_FIRST: Duration = Duration::from_secs(2);
/// Upper bound of the pauses while the certificate is good still.
const RETRY_CAP: Duration = Duration::from_secs(60 * 60);
/// Upper bound of the pauses once it has expired and there can be no session.
const RETRY_CAP_EXPIRED: Duration = Duration::from_secs(5 * 60);
/// Renewals that a change of the fleet's CAs asks for are spread over this time: all of a fleet hear of it at once.
const CHANGE_SPREAD: Duration = Duration::from_secs(10);
/// Longest wait for an answer.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(30);

/// Why there is no new certificate.
#[derive(Debug, thiserror::Error)]
enum RenewError {
    /// The present one.
    #[error(transparent)]
    Own(#[from] OwnIdentityError),
    /// Its key.
    #[error("the agent's key cannot be used")]
    Key(#[from] KeyError),
    /// TLS.
    #[error("TLS cannot be set up")]
    Tls(#[from] TlsError),
    /// No connection.
    #[error(transparent)]
    Dial(#[from] dial::DialError),
    /// The coordinator cannot answer now.
    #[error("the coordinator does not answer ({})", .0.message())]
    Unanswered(Status),
    /// The coordinator says no.
    #[error("the coordinator refuses: {}", .0.message())]
    Refused(Status),
    /// What it sent is not usable.
    #[error("the coordinator's answer cannot be used: {0}; fault: the coordinator's")]
    Answer(String),
    /// Files.
    #[error("the new certificate cannot be written to disk")]
    File(#[from] FileError),
}

impl From<Status> for RenewError {
    fn from(status: Status) -> Self {
        match status.code() {
            Code::Unauthenticated | Code::PermissionDenied | Code::InvalidArgument | Code::Unimplemented => {
                Self::Refused(status)
            }
            _ => Self::Unanswered(status),
        }
    }
}

/// Where the certificate is, and for which fleet.
#[derive(Debug)]
pub struct Renewal {
    /// Key and certificate.
    pub identity: PathBuf,
    /// The fleet's CAs.
    pub ca: PathBuf,
    /// The fleet's name.
    pub trust_domain: TrustDomain,
}

impl Renewal {
    /// Renews the certificate whenever it is due, until `stop`.
    pub async fn run(self, link: Arc<Link>, stop: CancellationToken) {
        let mut failures = 0;
        // Of the whole spread: chosen anew for each certificate, and not at each look.
        let mut share = rand::rng().random_range(0.0..=1.0);
        let mut told = link.trust.subscribe();
        // What was told when the last certificate came: the same again is no reason for another one.
        let mut settled = None;
        loop {
            let trust = told.borrow_and_update().clone();
            let changed = trust.as_ref().filter(|trust| settled.as_ref() != Some(*trust));
            let changed = changed.is_some_and(|trust| self.lacks(trust));
            let pause = match identity::read(&self.identity, &self.trust_domain) {
                Err(error) => {
                    let error = outcome::chain(&error);
                    tracing::error!(error, "nobody knows when the certificate must be renewed");
                    LOOK_PAUSE_MAX
                }
                Ok(own) => match wait(clock::now(), &own, share) {
                    Some(wait) if !changed => wait.min(LOOK_PAUSE_MAX),
                    _ => match self.renew(&link, &own).await {
                        Ok(until) => {
                            tracing::info!(until = %day(until), "the certificate is renewed");
                            (failures, share) = (0, rand::rng().random_range(0.0..=1.0));
                            settled = trust;
                            RENEWALS_PAUSE_MIN
                        }
                        Err(error) => {
                            let pause = pause_after(failures, is_expired(&own));
                            failures += 1;
                            self.complain(&link, &own, &error, pause);
                            pause
                        }
                    },
                },
            };
            let news = async {
                if told.changed().await.is_err() {
                    // The link is gone, and with it whoever could tell.
                    std::future::pending::<()>().await;
                }
                let spread = rand::rng().random_range(Duration::ZERO..=CHANGE_SPREAD);
                tokio::time::sleep(spread).await;
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = news => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Whether the fleet trusts other CAs than this host, or issues certificates by another one than this host's.
    fn lacks(&self, trust: &v1::Trust) -> bool {
        let ours = mirror_certs::read_pem(&self.ca).ok().and_then(|text| CaBundle::from_pem(&text).ok());
        let own = mirror_certs::read_private(&self.identity).ok();
        let own = own.and_then(|text| Identity::from_pem(&text, &self.trust_domain).ok());
        // What cannot be read is told elsewhere, and not mended by another certificate.
        let (Some(ours), Some(own)) = (ours, own) else { return false };
        let mut hashes: Vec<String> = ours.hashes().iter().map(ToString::to_string).collect();
        let mut theirs = trust.ca_hashes.clone();
        hashes.sort();
        theirs.sort();
        let issuer = ours.issuer_hash(&own).map(|hash| hash.to_string());
        !theirs.is_empty() && (hashes != theirs || issuer.as_ref() != Some(&trust.issuing_ca_hash))
    }

    /// Asks for the next certificate and puts it in place; until when it is good.
    async fn renew(&self, link: &Link, own: &Own) -> Result<DateTime<Utc>, RenewError> {
        let text = mirror_certs::read_private(&self.identity).map_err(OwnIdentityError::from)?;
        let key = KeyPair::from_pem(&text)?;
        let request = v1::RenewRequest {
            certificate_request: key.csr_pem()?,
            certificate: certificate_of(&text).to_owned(),
        };
        let response = self.ask(&link.executor.live().config, request).await?;
        let (new, bundle) = self.check(&response, own, &key)?;

        // The CAs first: with those of the answer the old certificate is as good as before. Both files are replaced in one
        // step each, and the key never changes.
        let present = mirror_certs::read_pem(&self.ca)?;
        if CaBundle::from_pem(&present).ok().is_none_or(|present| present.to_pem() != bundle.to_pem()) {
            mirror_certs::write_public(&self.ca, &bundle.to_pem(), Existing::Replace)?;
            tracing::info!(cas = bundle.hashes().len(), "the fleet's CAs have changed");
        }
        let both = Zeroizing::new(format!("{}{}", key.pem().as_str(), response.certificate));
        mirror_certs::write_private(&self.identity, &both, Existing::Replace)?;
        link.tls.reload()?;
        link.renewed();
        Ok(new.not_after)
    }

    /// Puts the question to the coordinators in turn, until one answers.
    async fn ask(&self, config: &Config, request: v1::RenewRequest) -> Result<v1::RenewResponse, RenewError> {
        let tls = ClientTls::load(ClientFiles { identity: None, ca: self.ca.clone() })?;
        let mut last = None;
        for address in &config.coordinators {
            let asked = async {
                let channel = dial::dial(address, tls.config()).await?.channel;
                let mut client = EnrollmentServiceClient::new(channel);
                let answer = tokio::time::timeout(ANSWER_WAIT_MAX, client.renew(request.clone())).await;
                let late =
                    || Status::deadline_exceeded(format!("no word in {} s", ANSWER_WAIT_MAX.as_secs()));
                Ok(answer.unwrap_or_else(|_| Err(late()))?.into_inner())
            };
            match asked.await {
                Ok(response) => return Ok(response),
                Err(error) => last = Some(error),
            }
        }
        Err(last.expect("a configuration names at least one coordinator"))
    }

    /// What an answer says, checked: nothing that works is replaced by what does not.
    fn check(
        &self,
        response: &v1::RenewResponse,
        own: &Own,
        key: &KeyPair,
    ) -> Result<(Own, CaBundle), RenewError> {
        let bad = |what: String| RenewError::Answer(what);
        let bundle = CaBundle::from_pem(&response.ca_certificates)
            .map_err(|error| bad(format!("its CAs: {error}")))?;
        if !bundle.signed(&response.certificate) {
            return Err(bad("its certificate comes from none of its CAs".to_owned()));
        }
        let new = identity::from_pem(&response.certificate, &self.trust_domain)
            .map_err(|error| bad(outcome::chain(&error)))?;
        if new.name != own.name {
            return Err(bad(format!("its certificate is agent/{}'s", new.name)));
        }
        mirror_certs::client_config(&bundle, Some((&response.certificate, &key.pem())))
            .map_err(|error| bad(outcome::chain(&error)))?;
        Ok((new, bundle))
    }

    /// One line about what failed, what it means, and what comes next.
    fn complain(&self, link: &Link, own: &Own, error: &RenewError, pause: Duration) {
        let why = outcome::chain(error);
        let until = day(own.not_after);
        let again = format!("trying again in {} s at most", pause.as_secs() + 1);
        let next = || self.enrol_again(&link.executor.live().config, own);
        match (error, is_expired(own)) {
            (RenewError::Refused(_), true) if clock::now() > own.not_after + RENEW_GRACE => {
                let days = RENEW_GRACE.num_days();
                tracing::error!(
                    "the certificate expired on {until}; that is more than {days} days ago, and it is renewed no more. \
                     Next: {}",
                    next()
                );
            }
            (RenewError::Refused(_), _) => {
                tracing::error!(
                    "the certificate, good until {until}, is not renewed: {why}; {again}. Next: {}",
                    next()
                );
            }
            (_, true) => {
                tracing::error!(
                    "the certificate expired on {until}, and there is no session before it is renewed: {why}; {again}"
                );
            }
            (_, false) => {
                tracing::warn!(
                    "the certificate is not renewed yet: {why}; it is good until {until}; {again}"
                );
            }
        }
    }

    /// The one command by which this host enrols anew as what it is.
    fn enrol_again(&self, config: &Config, own: &Own) -> String {
        let path = |path: &Path| path.display().to_string();
        let server = config.coordinators.first().map(ToString::to_string).unwrap_or_default();
        let bundle = mirror_certs::read_pem(&self.ca).ok().and_then(|text| CaBundle::from_pem(&text).ok());
        let hashes = bundle.map(|bundle| bundle.hashes()).unwrap_or_default();
        let mut words = vec!["mirror-agent".to_owned(), "enroll".to_owned(), server];
        words.extend(["--token".to_owned(), "TOKEN".to_owned()]);
        words.extend(hashes.iter().flat_map(|hash| ["--ca-hash".to_owned(), hash.to_string()]));
        let roots = config.roots.iter().map(|(name, root)| format!("{name}={}", path(root)));
        words.extend(roots.flat_map(|root| ["--root".to_owned(), root]));
        let allowed = config.upstreams.allowed.iter().map(ToString::to_string);
        words.extend(allowed.flat_map(|allowed| ["--allow-upstream".to_owned(), allowed]));
        words.extend(["--rsync".to_owned(), path(&config.rsync)]);
        words.extend(["--data-dir".to_owned(), path(&config.data_dir), "--force".to_owned()]);
        let line = words.iter().map(|word| shell_word(word)).collect::<Vec<_>>().join(" ");
        format!("{line}   (TOKEN: mirrorctl join-token create --name {})", own.name)
    }
}

/// How long until the certificate is due for renewal; `None`: it is. `share` of the spread is 0 to 1.
fn wait(now: DateTime<Utc>, own: &Own, share: f64) -> Option<Duration> {
    let spread = (own.not_after - own.not_before).max(TimeDelta::zero()) / SPREAD_PART;
    let spread = spread.to_std().unwrap_or_default().mul_f64(share.clamp(0.0, 1.0));
    let due = renewal_time(own.not_before, own.not_after) + spread;
    (due - now).to_std().ok().filter(|wait| !wait.is_zero())
}

fn is_expired(own: &Own) -> bool {
    clock::now() >= own.not_after
}

/// The pause after so many failures in a row: half of it fixed, half of it chance.
fn pause_after(failures: u32, expired: bool) -> Duration {
    let cap = if expired { RETRY_CAP_EXPIRED } else { RETRY_CAP };
    let bound = RETRY_FIRST.saturating_mul(1_u32.checked_shl(failures).unwrap_or(u32::MAX)).min(cap);
    rand::rng().random_range(bound / 2..=bound)
}

fn day(time: DateTime<Utc>) -> impl std::fmt::Display {
    time.format("%Y-%m-%d")
}

/// The certificate alone, of a text that holds the key too: the key never leaves this host.
fn certificate_of(text: &str) -> &str {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    let from = text.find(BEGIN).unwrap_or(text.len());
    let rest = &text[from..];
    &rest[..rest.find(END).map_or(0, |at| at + END.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> Own {
        let not_before = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        Own { name: "edge1".to_owned(), not_before, not_after: not_before + TimeDelta::days(30) }
    }

    #[test]
    fn a_certificate_is_due_from_a_third_of_its_life_on_within_a_day() {
        let own = own();
        let at = |days: i64, hours: i64| own.not_before + TimeDelta::days(days) + TimeDelta::hours(hours);
        let hour = Duration::from_secs(3_600);
        assert_eq!(wait(at(0, 0), &own, 0.0), Some(hour * 240));
        assert_eq!(wait(at(9, 23), &own, 0.0), Some(hour));
        assert_eq!(wait(at(10, 0), &own, 0.0), None);
        assert_eq!(wait(at(10, 0), &own, 1.0), Some(hour * 24));
        for days in [11, 29, 30, 60, 500] {
            assert_eq!(wait(at(days, 0), &own, 1.0), None, "{days}");
        }
    }

    #[test]
    fn pauses_grow_to_their_cap_and_an_expired_certificate_has_a_shorter_one() {
        for (failures, expired, bound) in [
            (0, false, RETRY_FIRST),
            (3, false, RETRY_FIRST * 8),
            (60, false, RETRY_CAP),
            (60, true, RETRY_CAP_EXPIRED),
        ] {
            for _ in 0..50 {
                let pause = pause_after(failures, expired);
                assert!(pause >= bound / 2 && pause <= bound, "{failures}: {pause:?}");
            }
        }
    }

    #[test]
    fn the_key_is_no_part_of_what_is_sent() {
        let key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        let certificate = "-----BEGIN CERTIFICATE-----\nBBBB\n-----END CERTIFICATE-----";
        for text in [format!("{key}{certificate}\n"), format!("{certificate}\n{key}")] {
            assert_eq!(certificate_of(&text), certificate);
        }
        assert_eq!(certificate_of(key), "");
    }
}
