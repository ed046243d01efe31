//! Break-glass: a fresh client certificate for a user whose own has ended, or whose key is lost. It is made on the
//! coordinator's host, by whoever may read the CA's key, which is the right to be anybody; no network has part in it.
//!
//! The coordinator must not run: the store says who is a user, and one program at a time has it. What agents run goes
//! on meanwhile.

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use fleet::{agent::UserRecord, id::Name, record::Record, time::Now};
use mirror_certs::{Identity, IdentityError};
use mirror_proto::convert;

use crate::{
    STORE, audit,
    clock::Clock,
    config::Config,
    context::{self, Context, ContextError},
    identity::{Who, WhoError, names},
    offline::{OfflineError, options},
    store::Store,
};

/// Users that an error lists.
const USERS_SHOWN_MAX: usize = 20;
/// Only its owner reads the folder of a key.
const FOLDER_MODE: u32 = 0o700;
/// Names of the key and of the certificate, without their endings.
const STEM: &str = "user";

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum UserCertificateError {
    /// The store has no such user.
    #[error("the fleet has no user {user:?}; its users are: {known}")]
    Unknown {
        /// Who was asked for.
        user: String,
        /// Those it has.
        known: String,
    },
    /// The user is refused for ever.
    #[error("users/{0} is on the deny list; a certificate would be refused")]
    Denied(Name),
    /// The folder is there.
    #[error("{0} is there already; nothing is overwritten: name a folder that is not there")]
    Exists(PathBuf),
    /// The folder.
    #[error("could not make the folder {0}")]
    Folder(PathBuf, #[source] io::Error),
    /// The store.
    #[error("could not look up the user, or record that a certificate is made")]
    Store(#[from] OfflineError),
    /// The coordinator's own files.
    #[error("could not use the fleet's CA")]
    Who(#[from] WhoError),
    /// A name that no certificate can bear.
    #[error("could not name the user in a certificate")]
    Identity(#[from] IdentityError),
    /// Key, certificate or files.
    #[error("no certificate was made")]
    Context(#[from] ContextError),
}

/// Issues a certificate for a user of the fleet and writes it, with its key and a context for `mirrorctl`, to the new
/// folder `out`. The user's other certificates stay as good as they were.
///
/// # Errors
/// [`UserCertificateError`]; then there is no folder `out`.
pub fn user_certificate(config: &Config, user: &str, out: &Path) -> Result<Context, UserCertificateError> {
    let user = find(config, user)?;
    let clock = Clock::start().now();
    let now = clock.wall.to_utc();
    let who = Who::load(config, now)?;
    let identity = Identity::User(user.name.as_str().parse()?);
    if who.deny.is_identity_denied(&identity) {
        return Err(UserCertificateError::Denied(user.name));
    }
    let made = fs::DirBuilder::new().mode(FOLDER_MODE).create(out);
    made.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => UserCertificateError::Exists(out.to_owned()),
        _ => UserCertificateError::Folder(out.to_owned(), error),
    })?;
    let server = context::server(&names(config), config.grpc_listen);
    let bundle = who.bundle_pem.load();
    // The event first: there is no certificate that the log does not know of.
    let written = record(config, clock, &user)
        .map_err(UserCertificateError::from)
        .and_then(|()| Ok(context::write(out, STEM, &server, &bundle, (&who.ca, now), &identity)?));
    if written.is_err()
        && let Err(error) = fs::remove_dir_all(out)
    {
        tracing::warn!(%error, folder = %out.display(), "what was begun is not removed");
    }
    written
}

/// Tells the audit log.
fn record(config: &Config, now: Now, user: &UserRecord) -> Result<(), OfflineError> {
    let store = Store::open(&config.file(STORE), &options(config))?.store;
    let name = convert::user_name(user.name.as_str());
    let text = "a certificate is made on the coordinator's host, by somebody who has its files".to_owned();
    let event = audit::happened(audit::BROKE_GLASS, audit::COORDINATOR, "", &name, text);
    let recorded = audit::record_offline(&store, now, event);
    store.close()?;
    Ok(recorded?)
}

/// The user as the store has it.
fn find(config: &Config, user: &str) -> Result<UserRecord, UserCertificateError> {
    let store = Store::open(&config.file(STORE), &options(config)).map_err(OfflineError::from)?.store;
    let live = store.live();
    store.close().map_err(OfflineError::from)?;
    let users = live.map_err(OfflineError::from)?.into_iter().filter_map(|record| match record {
        Record::User(user) => Some(user),
        _ => None,
    });
    let users: Vec<UserRecord> = users.collect();
    let name = user.parse::<Name>().ok();
    let found = users.iter().find(|record| Some(&record.name) == name.as_ref());
    found.cloned().ok_or_else(|| {
        let names = users.iter().take(USERS_SHOWN_MAX).map(|user| user.name.to_string());
        UserCertificateError::Unknown { user: user.to_owned(), known: names.collect::<Vec<_>>().join(", ") }
    })
}
