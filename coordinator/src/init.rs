//! Makes a new fleet: CA, the server's certificate, keys, the store with its first user, and what that user needs for
//! `mirrorctl`. Everything is checked before anything is written, and nothing is ever overwritten.

mod agent;

use std::{
    fs, io,
    net::SocketAddr,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use chrono::{DateTime, Utc};
use fleet::{
    agent::UserRole,
    defaults::Limits,
    id::Name,
    input::{Ask, Input, Person, Reply, Send, UserAsk},
};
use mirror_certs::{
    CaError, CertificateAuthority, DenyList, DenyListError, Existing, FileError, Identity, IdentityError,
    KeyError, SpkiHash, TrustDomain, write_private, write_public,
};

use crate::{
    STORE,
    audit::{self, origin, origin::Origin},
    authority::{Authority, AuthorityError},
    clock::Clock,
    config::{self, ConfigError, Fault, Overrides},
    context::{self, ContextError},
    driver::{Begin, Driver, Outlet, Unavailable},
    identity::{CA_CERTIFICATE, CA_KEY, DENIED, SEAL_KEY, SERVER, host_name},
    seal::{SealError, Sealer},
    store::{OpenError, Store, StoreError, StoreOptions},
};

/// The configuration file, in the new folder.
pub const CONFIG_FILE: &str = "coordinator.toml";
/// Folder of the first admin's context, in the new folder; also the names of key and certificate in it.
pub const ADMIN: &str = "admin";
/// Only the coordinator's own user reads its folder.
const FOLDER_MODE: u32 = 0o700;

/// What a new fleet is made of.
#[derive(Debug, Clone)]
pub struct NewFleet {
    /// Folder to make; may exist if it is empty.
    pub data_dir: PathBuf,
    /// The fleet's name in every identity.
    pub trust_domain: String,
    /// Names and addresses under which the coordinator is dialled; empty: the host's name and the listen address.
    pub server_names: Vec<String>,
    /// The gRPC port.
    pub grpc_listen: String,
    /// The plaintext port for probes.
    pub http_listen: String,
    /// The first admin's name.
    pub admin: String,
    /// Make an agent for the same host too, with these roots (`a1=/srv/mirror`); empty: no agent.
    pub agent_roots: Vec<String>,
}

/// What was made.
#[derive(Debug, Clone)]
pub struct Made {
    /// The configuration file.
    pub config: PathBuf,
    /// The first admin's context.
    pub context: PathBuf,
    /// What agents recognise the fleet by.
    pub ca_hash: SpkiHash,
    /// When the CA ends.
    pub ca_until: DateTime<Utc>,
    /// The gRPC port.
    pub grpc_listen: SocketAddr,
    /// The plaintext port.
    pub http_listen: SocketAddr,
    /// The configuration of the agent on the same host, where one was wished for.
    pub agent: Option<PathBuf>,
}

/// Why no fleet was made.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// What was asked for: all faults at once.
    #[error(transparent)]
    Refused(#[from] ConfigError),
    /// There is something in the folder.
    #[error("{0} is not empty ({1}); nothing was made; a fleet is never overwritten: name another folder")]
    NotEmpty(PathBuf, String),
    /// The folder.
    #[error("could not make the folder {0}")]
    Folder(PathBuf, #[source] io::Error),
    /// The CA.
    #[error("could not make the certificates")]
    Ca(#[from] CaError),
    /// The CA's files.
    #[error("could not use the CA that was made")]
    Authority(#[from] AuthorityError),
    /// A name in a certificate.
    #[error("could not make the agent's certificate")]
    Identity(#[from] IdentityError),
    /// No random numbers.
    #[error("this host has no random numbers")]
    Random,
    /// A key.
    #[error("could not make a key")]
    Key(#[from] KeyError),
    /// The first admin's context.
    #[error("could not make the first admin's context")]
    Context(#[from] ContextError),
    /// A file.
    #[error("could not write the new fleet's files")]
    File(#[from] FileError),
    /// The key of sealed passwords.
    #[error("could not make the key of sealed passwords")]
    Seal(#[from] SealError),
    /// The deny list.
    #[error("could not make the deny list")]
    DenyList(#[from] DenyListError),
    /// The store.
    #[error("could not make the store")]
    Open(#[from] OpenError),
    /// The store.
    #[error("could not write to the new store")]
    Store(#[from] StoreError),
    /// The store.
    #[error("could not enter the first user")]
    Unavailable(#[from] Unavailable),
    /// The engine said no.
    #[error("the new fleet refuses its first entries: {0}")]
    Engine(String),
}

/// A [`NewFleet`] that was checked.
struct Plan {
    folder: PathBuf,
    trust_domain: TrustDomain,
    names: Vec<String>,
    /// Under which the first admin dials: one of `names`, and the port.
    server: String,
    admin: Name,
    identity: Identity,
    config: config::Config,
    roots: Vec<(Name, PathBuf)>,
}

/// Makes the fleet.
///
/// # Errors
/// [`InitError`]. After an error in writing, what was written so far is removed again.
pub async fn init(wish: &NewFleet) -> Result<Made, InitError> {
    let plan = check(wish)?;
    prepare(&plan.folder)?;
    let made = make(&plan).await;
    if made.is_err() {
        // The folder was empty before, so all that is in it is a half-made fleet.
        if let Err(error) = empty(&plan.folder) {
            tracing::warn!(%error, folder = %plan.folder.display(), "the half-made fleet was not removed");
        }
    }
    made
}

fn check(wish: &NewFleet) -> Result<Plan, ConfigError> {
    let names = wish.server_names.join(",");
    let overrides = Overrides::default()
        .with("trust_domain", &wish.trust_domain)
        .with("server_names", &names)
        .with("grpc_listen", &wish.grpc_listen)
        .with("http_listen", &wish.http_listen);
    let mut faults = Vec::new();
    let mut fault = |at: &str, text: String| faults.push(Fault { at: at.to_owned(), text });
    let checked = config::load(None, &overrides);
    let admin = wish.admin.parse::<Name>();
    if let Err(rule) = &admin {
        fault("--admin", format!("{:?}: {rule}", wish.admin));
    }
    if let Ok(config) = &checked {
        for (at, address) in [("--grpc-listen", config.grpc_listen), ("--http-listen", config.http_listen)] {
            if address.port() == 0 {
                fault(at, format!("\"{address}\": needs a fixed port, by which it is found again"));
            }
        }
    }
    let read = |text: &String| match root(text) {
        Ok(root) => Some(root),
        Err(rule) => {
            fault("--root", format!("{text:?}: {rule}"));
            None
        }
    };
    let roots: Vec<(Name, PathBuf)> = wish.agent_roots.iter().filter_map(read).collect();
    let folder = std::path::absolute(&wish.data_dir).unwrap_or_else(|_| wish.data_dir.clone());
    let identity = wish.admin.parse().map(Identity::User);
    match (checked, admin, identity) {
        (Ok(config), Ok(admin), Ok(identity)) if faults.is_empty() => {
            Ok(Plan { roots, ..plan(folder, wish, config, admin, identity)? })
        }
        (checked, ..) => {
            let mut all = checked.err().map(|error| error.faults).unwrap_or_default();
            all.extend(faults);
            Err(ConfigError { faults: all })
        }
    }
}

/// `a1=/srv/mirror`.
fn root(text: &str) -> Result<(Name, PathBuf), &'static str> {
    const RULE: &str = "wanted is NAME=FOLDER with an absolute folder, as in a1=/srv/mirror";
    let (name, folder) = text.split_once('=').ok_or(RULE)?;
    let folder = Some(PathBuf::from(folder)).filter(|folder| folder.is_absolute()).ok_or(RULE)?;
    Ok((name.parse().map_err(|_| RULE)?, folder))
}

fn plan(
    folder: PathBuf,
    wish: &NewFleet,
    config: config::Config,
    admin: Name,
    identity: Identity,
) -> Result<Plan, ConfigError> {
    let trust_domain = wish.trust_domain.parse().map_err(|error: IdentityError| {
        let fault = Fault { at: "--trust-domain".to_owned(), text: error.to_string() };
        ConfigError { faults: vec![fault] }
    })?;
    let address = config.grpc_listen;
    let listens_on = (!address.ip().is_unspecified()).then(|| address.ip().to_string());
    let mut names = config.server_names.clone();
    if names.is_empty() {
        names.push(host_name());
        names.extend(listens_on);
    }
    let server = context::server(&names, address);
    Ok(Plan { folder, trust_domain, names, server, admin, identity, config, roots: Vec::new() })
}

/// Makes the folder, or takes one that is empty.
fn prepare(folder: &Path) -> Result<(), InitError> {
    let failed = |error| InitError::Folder(folder.to_owned(), error);
    match fs::read_dir(folder) {
        Ok(mut entries) => match entries.next() {
            Some(entry) => {
                let found = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
                Err(InitError::NotEmpty(folder.to_owned(), found))
            }
            None => Ok(()),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder).map_err(failed)
        }
        Err(error) => Err(failed(error)),
    }
}

fn empty(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

async fn make(plan: &Plan) -> Result<Made, InitError> {
    let now = Clock::start().now().wall.to_utc();
    let file = |name: &str| plan.folder.join(name);
    let ca = CertificateAuthority::create(plan.trust_domain.clone(), now)?;
    write_private(&file(CA_KEY), &ca.key_pem(), Existing::Refuse)?;
    write_public(&file(CA_CERTIFICATE), &ca.cert_pem(), Existing::Refuse)?;
    let (ca, ca_until) = (Authority::load(&plan.folder)?, ca.not_after());
    let server = ca.issue_server(&plan.names, now)?;
    write_private(&file(SERVER), &server.combined_pem(), Existing::Refuse)?;
    Sealer::create(&file(SEAL_KEY))?;
    DenyList::open(&file(DENIED))?;
    let agent = enter_first(plan, &ca, now).await?;
    // The first admin was entered a moment ago; certificates of before are not his.
    let context = write_context(plan, &ca, Clock::start().now().wall.to_utc())?;
    // Last: with this file the fleet is whole.
    write_public(&file(CONFIG_FILE), &config_text(plan), Existing::Refuse)?;
    Ok(Made {
        config: file(CONFIG_FILE),
        context,
        ca_hash: ca.ca_hash(),
        ca_until,
        grpc_listen: plan.config.grpc_listen,
        http_listen: plan.config.http_listen,
        agent,
    })
}

/// Nobody is there yet to be told anything.
struct Nobody;

impl Outlet for Nobody {
    fn send(&self, _send: Send) {}

    fn reset(&self) {}
}

/// Makes the store and enters the first user (and agent) through the engine, as everything later is.
async fn enter_first(plan: &Plan, ca: &Authority, now: DateTime<Utc>) -> Result<Option<PathBuf>, InitError> {
    let store = Store::open(&plan.folder.join(STORE), &StoreOptions::default())?.store;
    let (driver, thread) = Driver::start(store.clone(), Limits::default(), Begin::Started, Arc::new(Nobody))?;
    let user = UserAsk::Create { name: plan.admin.clone(), role: UserRole::Admin, password: None };
    let entered = put(&driver, Input::Person(Person { by: "init".to_owned(), ask: Ask::User(user) })).await;
    let agent = match entered {
        Ok(_) if plan.roots.is_empty() => Ok(None),
        Ok(_) => agent::make(plan, &plan.roots, ca, &driver, now).await.map(Some),
        Err(error) => Err(error),
    };
    drop(driver);
    thread.join();
    store.close()?;
    agent
}

async fn put(driver: &Driver, input: Input) -> Result<Reply, InitError> {
    let origin = Arc::new(Origin::new(audit::COORDINATOR, "", audit::INITIALISED));
    match origin::scope(origin, driver.ask(input)).await? {
        Reply::Refused(refusal) => Err(InitError::Engine(refusal.to_string())),
        reply => Ok(reply),
    }
}

fn write_context(plan: &Plan, ca: &Authority, now: DateTime<Utc>) -> Result<PathBuf, InitError> {
    let folder = plan.folder.join(ADMIN);
    make_folder(&folder)?;
    let made =
        context::write(&folder, ADMIN, &plan.server, &ca.bundle().to_pem(), (ca, now), &plan.identity)?;
    Ok(made.file)
}

fn make_folder(folder: &Path) -> Result<(), InitError> {
    let made = fs::DirBuilder::new().mode(FOLDER_MODE).create(folder);
    made.map_err(|error| InitError::Folder(folder.to_owned(), error))
}

fn config_text(plan: &Plan) -> String {
    let text = |value: &str| toml::Value::String(value.to_owned());
    let names: Vec<String> = plan.names.iter().map(|name| text(name).to_string()).collect();
    format!(
        "# The coordinator of the fleet {}. All keys: mirror-coordinator run --help\n\
         # data_dir is this file's folder where it is not named here.\n\
         trust_domain = {}\nserver_names = [{}]\ngrpc_listen = {}\nhttp_listen = {}\n",
        plan.trust_domain,
        text(plan.trust_domain.as_str()),
        names.join(", "),
        text(&plan.config.grpc_listen.to_string()),
        text(&plan.config.http_listen.to_string()),
    )
}
