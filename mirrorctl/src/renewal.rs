//! One's own certificate, renewed by the way: from a third of its life on, the first command that reaches the coordinator
//! gets the next one. It is made for the same key, so that only one file is replaced, at once.
//!
//! Says nothing when it goes well, one warning when it does not; the command goes on either way.

use std::path::Path;
use std::time::Duration;

use mirror_certs::{Existing, KeyPair, Peer, read_pem, renewal_time, write_public};
use mirror_proto::v1;

use crate::app::note;
use crate::client::{Client, chain};
use crate::config::Context;
use crate::{clock, units};

/// How long a command waits for it.
const RENEWAL_SECONDS_MAX: u64 = 5;

/// Renews the context's certificate where that is due.
pub(crate) async fn renew(client: &Client, context: &Context, own: &Peer) {
    let now = clock::now();
    if now < renewal_time(own.not_before, own.not_after) || now >= own.not_after {
        return;
    }
    let renewed = tokio::time::timeout(Duration::from_secs(RENEWAL_SECONDS_MAX), ask(client, context)).await;
    if let Err(why) = renewed.unwrap_or_else(|_| Err("no answer in time".to_owned())) {
        let left = units::ahead(own.not_after - now);
        note(&format!("warning: your certificate ends in {left} and is not renewed: {why}"));
    }
}

async fn ask(client: &Client, context: &Context) -> Result<(), String> {
    let Some((certificate, key)) = context.certificate.as_ref().zip(context.key.as_ref()) else {
        return Ok(());
    };
    let key = KeyPair::load(key).map_err(|error| chain(&error))?;
    let request = v1::IssueCertificateRequest {
        name: String::new(),
        certificate_request: key.csr_pem().map_err(|error| chain(&error))?,
    };
    let issued = client.users().issue_certificate(request).await;
    let issued = issued.map_err(|status| units::clean(status.message()))?.into_inner();
    write_public(certificate, &issued.certificate, Existing::Replace).map_err(|error| chain(&error))?;
    keep_cas(&context.ca, &issued.ca_certificates).map_err(|error| chain(&error))
}

/// Keeps the fleet's CAs as the coordinator has them now, so that a new one is known before the old one goes.
///
/// # Errors
/// A file that cannot be written.
pub(crate) fn keep_cas(path: &Path, bundle: &str) -> Result<(), mirror_certs::FileError> {
    let same = read_pem(path).is_ok_and(|present| present.trim() == bundle.trim());
    if bundle.is_empty() || same { Ok(()) } else { write_public(path, bundle, Existing::Replace) }
}
