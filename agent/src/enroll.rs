//! `mirror-agent enroll`: makes this host an agent of a fleet. The key is made here and never leaves; the CA is
//! recognised by the hash that was typed, before anything is sent; the host is examined before the token is spent.

mod input;

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use mirror_certs::{
    CaBundle, Existing, FileError, KeyError, KeyPair, PinMismatch, PinnedBootstrap, SpkiHash, TlsError,
};
use mirror_proto::v1;
use mirror_proto::v1::enrollment_service_client::EnrollmentServiceClient;
use tonic::{Code, Status};
use zeroize::Zeroizing;

pub use self::input::{EnrollArgs, Input};
use crate::config::{Fault, Faults};
use crate::dial;
use crate::guard::{Guard, Space};

/// The files of an enrolment, in its data directory.
const CONFIG_FILE: &str = "agent.toml";
const IDENTITY_FILE: &str = "identity.pem";
const CA_FILE: &str = "ca.pem";
/// Mode of the data directory.
const DATA_DIR_MODE: u32 = 0o700;
/// Longest host name that is offered as a name.
const NAME_BYTES_MAX: usize = 63;

/// Why this host is not enrolled.
#[derive(Debug, thiserror::Error)]
pub enum EnrollError {
    /// What was typed, or what this host lacks.
    #[error(transparent)]
    Faults(#[from] Faults),
    /// It was enrolled before.
    #[error("{0} is there already: this host is enrolled; --force replaces its identity")]
    Exists(PathBuf),
    /// The server is of another fleet, or somebody is in between.
    #[error(transparent)]
    Mismatch(PinMismatch),
    /// No connection.
    #[error("not enrolled, nothing was sent")]
    Dial(#[from] dial::DialError),
    /// The coordinator said no.
    #[error("the coordinator refuses: {}", .0.message())]
    Refused(Status),
    /// The connection broke after the token was sent.
    #[error("the connection broke while the coordinator was asked ({}); the token may be spent", .0.message())]
    Broken(Status),
    /// What it sent is not usable.
    #[error("the coordinator's answer cannot be used: {0}; fault: the coordinator's")]
    Answer(String),
    /// Key.
    #[error("not enrolled: no key could be made")]
    Key(#[from] KeyError),
    /// TLS.
    #[error("not enrolled: TLS cannot be set up")]
    Tls(#[from] TlsError),
    /// Files.
    #[error("the enrolment cannot be written to disk")]
    File(#[from] FileError),
    /// The directory.
    #[error("the data directory {path} cannot be made")]
    DataDir {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

impl EnrollError {
    /// The exit code, as documented in the help.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Faults(_) => 2,
            Self::Mismatch(_) => 4,
            Self::Refused(status) => match status.code() {
                Code::InvalidArgument | Code::OutOfRange => 2,
                Code::NotFound => 3,
                Code::Unauthenticated | Code::PermissionDenied => 4,
                Code::AlreadyExists | Code::FailedPrecondition | Code::Aborted => 5,
                _ => 6,
            },
            Self::Exists(_) => 5,
            Self::Dial(_) | Self::Broken(_) => 6,
            Self::Answer(_) | Self::Key(_) | Self::Tls(_) | Self::File(_) | Self::DataDir { .. } => 1,
        }
    }

    /// The next step, as a command where there is one.
    #[must_use]
    pub fn next(&self) -> String {
        let token =
            || format!("mirrorctl join-token create --name {}", short_host_name().unwrap_or_default());
        match self {
            Self::Faults(_) => "mirror-agent enroll --help".to_owned(),
            Self::Exists(there) => {
                let config = there.with_file_name(CONFIG_FILE).display().to_string();
                format!("mirror-agent run --config {}", shell_word(&config))
            }
            Self::Mismatch(_) => {
                "take the hash that `mirror-coordinator init` and `mirrorctl join-token create` print"
                    .to_owned()
            }
            Self::Refused(_) | Self::Broken(_) => token(),
            Self::Dial(_) => {
                "check the address (grpc_listen in coordinator.toml), and that mirror-coordinator runs"
                    .to_owned()
            }
            // Before the token was sent: it is good still.
            Self::Key(_) | Self::Tls(_) | Self::DataDir { .. } => {
                "mend it, then the same command again; the token was not spent".to_owned()
            }
            Self::Answer(_) | Self::File(_) => {
                format!("mend it, then enrol again with a new token: {}", token())
            }
        }
    }
}

/// What an enrolment came to, for people.
#[derive(Debug)]
pub struct Enrolled {
    name: String,
    expires: String,
    rsync: String,
    roots: Vec<(String, Space)>,
    config: PathBuf,
}

impl Enrolled {
    /// The lines to print; `sign` stands in front of what was checked.
    #[must_use]
    pub fn lines(&self, sign: &str) -> String {
        let mut lines = format!(
            "{sign} CA matches the hash; key made here, stays here; certificate until {}\n{sign} rsync {}",
            self.expires, self.rsync
        );
        for (name, space) in &self.roots {
            let (free, total) =
                (fleet::words::bytes(space.free_bytes), fleet::words::bytes(space.total_bytes));
            lines += &format!("; root {name}: {free} free of {total}, writable, locks work");
        }
        let config = shell_word(&self.config.display().to_string());
        lines + &format!("\nEnrolled as {}. Next: mirror-agent run --config {config}", self.name)
    }
}

/// Enrols this host.
///
/// # Errors
/// [`EnrollError`]. Until the coordinator has answered nothing is written but directories.
pub async fn enroll(input: Input) -> Result<Enrolled, EnrollError> {
    let config = input.data_dir.join(CONFIG_FILE);
    let identity = input.data_dir.join(IDENTITY_FILE);
    if let Some(there) = [&config, &identity].into_iter().find(|path| path.exists())
        && !input.force
    {
        return Err(EnrollError::Exists(there.clone()));
    }
    let host = input.examine_host()?;
    DirBuilder::new()
        .recursive(true)
        .mode(DATA_DIR_MODE)
        .create(&input.data_dir)
        .map_err(|source| EnrollError::DataDir { path: input.data_dir.clone(), source })?;
    let key = KeyPair::generate()?;
    let (response, ca) = ask(&input, &key.csr_pem()?).await?;
    let answer = Answer::read(&response, &ca, &input.pins)?;

    // Key and certificate in one file: no crash leaves one without the other. Replacing is safe: --force was given,
    // or nothing was there.
    let both = Zeroizing::new(format!("{}{}", key.pem().as_str(), response.certificate));
    mirror_certs::write_private(&identity, &both, Existing::Replace)?;
    mirror_certs::write_public(&input.data_dir.join(CA_FILE), &answer.bundle.to_pem(), Existing::Replace)?;
    let file = input.config_file(&answer.name, &response.trust_domain);
    mirror_certs::write_private(&config, &file, Existing::Replace)?;
    Ok(Enrolled { name: answer.name, expires: answer.expires, rsync: host.rsync, roots: host.roots, config })
}

/// What was found out about this host.
struct Host {
    rsync: String,
    roots: Vec<(String, Space)>,
}

impl Input {
    /// Before the token is spent: everything that would keep the agent from running.
    fn examine_host(&self) -> Result<Host, Faults> {
        let mut faults = Vec::new();
        let rsync = rsync::process::probe_version(&self.rsync).map_err(|error| {
            let text = format!("\"{}\": {}", self.rsync.display(), crate::outcome::chain(&error));
            faults.push(Fault::new("--rsync", text));
        });
        let guard = Guard::open(&self.roots).map_err(|bad| {
            faults.extend(bad.iter().map(|(name, fault)| {
                let path = self.roots.get(name).map(|path| path.display().to_string()).unwrap_or_default();
                let text = format!("\"{name}={path}\": {}", crate::outcome::chain(fault));
                Fault::new("--root", text)
            }));
        });
        let mut roots = Vec::new();
        for (name, root) in guard.iter().flat_map(Guard::roots) {
            match root.space() {
                Ok(space) => roots.push((name.to_owned(), space)),
                Err(error) => faults.push(Fault::new("--root", format!("\"{name}\": {error}"))),
            }
        }
        match rsync {
            Ok(version) if faults.is_empty() => Ok(Host { rsync: version.to_string(), roots }),
            _ => Err(Faults::new("not enrolled", "this host", faults)),
        }
    }
}

/// Sends token and request over a connection whose CA has the typed hash; the answer, and that CA.
async fn ask(input: &Input, request: &str) -> Result<(v1::EnrollResponse, String), EnrollError> {
    let named = input.name.clone().unwrap_or_default();
    match ask_as(input, request, named).await {
        // A token for a pattern wants a name: then the host's own is offered.
        Err(EnrollError::Refused(status))
            if input.name.is_none()
                && matches!(status.code(), Code::Unauthenticated | Code::InvalidArgument) =>
        {
            match short_host_name() {
                Some(name) => ask_as(input, request, name).await,
                None => Err(EnrollError::Refused(status)),
            }
        }
        result => result,
    }
}

async fn ask_as(
    input: &Input,
    request: &str,
    agent: String,
) -> Result<(v1::EnrollResponse, String), EnrollError> {
    let bootstrap = PinnedBootstrap::new(&input.pins)?;
    let dialled = dial::dial(&input.coordinator, bootstrap.config()).await.map_err(|error| {
        bootstrap.mismatch().map_or_else(|| EnrollError::Dial(error), EnrollError::Mismatch)
    })?;
    let request = v1::EnrollRequest {
        join_token: input.token.reveal().to_owned(),
        agent,
        certificate_request: request.to_owned(),
        labels: input.labels.clone(),
    };
    let response =
        EnrollmentServiceClient::new(dialled.channel).enroll(request).await.map_err(|status| match status
            .code()
        {
            Code::Unavailable | Code::Unknown | Code::Cancelled | Code::DeadlineExceeded => {
                EnrollError::Broken(status)
            }
            _ => EnrollError::Refused(status),
        })?;
    let no_ca = || EnrollError::Answer("it showed no CA".to_owned());
    Ok((response.into_inner(), bootstrap.ca_pem().ok_or_else(no_ca)?))
}

/// What an answer says, checked.
struct Answer {
    name: String,
    expires: String,
    bundle: CaBundle,
}

impl Answer {
    fn read(response: &v1::EnrollResponse, ca: &str, pins: &[SpkiHash]) -> Result<Self, EnrollError> {
        let bad = |what: &str| EnrollError::Answer(what.to_owned());
        let name = response.agent.strip_prefix("agents/").ok_or_else(|| bad("it names no agent"))?;
        let bundle = CaBundle::from_pem(&response.ca_certificates)
            .map_err(|error| bad(&format!("its CAs: {error}")))?;
        if !bundle.hashes().iter().any(|hash| pins.contains(hash)) {
            return Err(bad("the CA of the typed hash is not among its CAs"));
        }
        // Whatever else the answer brings, the CA that was seen is one of ours.
        let shown = CaBundle::from_pem(ca).map_err(|error| bad(&error.to_string()))?;
        let bundle = bundle.union(&shown).map_err(|error| bad(&error.to_string()))?;
        let domain = response.trust_domain.trim_start_matches("spiffe://");
        let domain = domain.parse().map_err(|_| bad("its trust domain"))?;
        let peer = mirror_certs::Identity::from_pem(&response.certificate, &domain)
            .map_err(|error| bad(&format!("its certificate: {error}")))?;
        if peer.identity.to_string() != format!("agent/{name}") {
            return Err(bad("its certificate is another agent's"));
        }
        let expires = peer.not_after.format("%Y-%m-%d").to_string();
        Ok(Self { name: name.to_owned(), expires, bundle })
    }
}

fn short_host_name() -> Option<String> {
    let name = rustix::system::uname();
    let name = name.nodename().to_str().ok()?;
    let short = name.split('.').next()?;
    let usable = short.len() <= NAME_BYTES_MAX && short.parse::<fleet::id::Name>().is_ok();
    usable.then(|| short.to_owned())
}

/// A word that a shell takes as it is.
pub(crate) fn shell_word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./+=:,@%".contains(c);
    if text.chars().all(plain) { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

impl Input {
    /// The agent's file.
    fn config_file(&self, name: &str, trust_domain: &str) -> String {
        let mut table = toml::Table::new();
        let text = |path: &Path| toml::Value::String(path.display().to_string());
        let list = |texts: Vec<String>| texts.into_iter().map(toml::Value::String).collect::<Vec<_>>();
        table.insert("name".into(), name.into());
        table.insert("trust_domain".into(), trust_domain.trim_start_matches("spiffe://").into());
        table.insert("coordinators".into(), list(vec![self.coordinator.to_string()]).into());
        table.insert("rsync".into(), text(&self.rsync));
        if !self.allow_upstreams.is_empty() {
            table.insert("allow_upstreams".into(), list(self.allow_upstreams.clone()).into());
        }
        let roots = self.roots.iter().map(|(name, path)| (name.clone(), text(path)));
        table.insert("roots".into(), toml::Value::Table(roots.collect()));
        format!(
            "# What this host lets the fleet do; written by `mirror-agent enroll`. All keys and their defaults:\n\
             # mirror-agent run --help. After a change: mirror-agent run --check-config, then SIGHUP.\n{table}"
        )
    }
}
