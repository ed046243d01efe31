//! The load generator as a user: `mirrorctl`'s own client over mutual TLS, the stamps of stubs, and the pieces
//! that floors are made of.

use std::{
    fs::File,
    io::{self, Write as _},
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use fleet_tests::{Fleet, program};
use mirror_proto::v1;
use mirrorctl::{
    client::Client,
    config::{self, Overrides},
};
use tokio::{io::AsyncReadExt as _, net::TcpListener, sync::mpsc, time::timeout};

/// Longest answer of anything here.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// Stamps that may wait.
const STAMPS_LEN: usize = 1_024;
/// Requests at once when many projects are declared.
const DECLARERS: usize = 64;
/// Bytes that a floor makes durable: about a record.
const RECORD: [u8; 512] = [b'r'; 512];

/// A connection as the fleet's first admin.
pub(crate) async fn connect(fleet: &Fleet) -> Result<Client> {
    let overrides =
        Overrides { config: Some(fleet.admin_dir().join("mirrorctl.toml")), ..Overrides::default() };
    let config = config::load(&overrides).map_err(|fault| anyhow!("{fault}"))?;
    let (_, context) = config::choose(&config, &overrides).map_err(|fault| anyhow!("{fault}"))?;
    Client::connect(&context, PATIENCE, None).await.map_err(|fault| anyhow!("{fault}"))
}

/// A project that this agent pulls from this URI to `a1:NAME`.
pub(crate) fn project(name: &str, uri: &str, agent: &str) -> v1::Project {
    let origin = v1::PlacementTarget { agent: format!("agents/{agent}"), ..Default::default() };
    v1::Project {
        name: format!("projects/{name}"),
        upstreams: vec![v1::Upstream { uri: uri.to_owned(), ..v1::Upstream::default() }],
        destination: format!("a1:{name}"),
        placement: Some(v1::PlacementSettings { origins: vec![origin], ..Default::default() }),
        ..v1::Project::default()
    }
}

/// Declares projects, [`DECLARERS`] at a time over one connection.
pub(crate) async fn declare(client: &Client, projects: Vec<v1::Project>) -> Result<()> {
    let mut tasks = tokio::task::JoinSet::new();
    let chunk = projects.len().div_ceil(DECLARERS).max(1);
    for projects in projects.chunks(chunk).map(<[_]>::to_vec) {
        let mut service = client.projects();
        tasks.spawn(async move {
            for project in projects {
                let request = v1::CreateProjectRequest { project: Some(project), ..Default::default() };
                service.create_project(request).await?;
            }
            Ok::<_, tonic::Status>(())
        });
    }
    while let Some(declared) = tasks.join_next().await {
        declared?.context("declaring a project")?;
    }
    Ok(())
}

/// Starts a run and returns its name.
pub(crate) async fn run(client: &Client, project: &str) -> Result<String> {
    let name = format!("projects/{project}");
    let request = v1::RunProjectRequest { name, ..Default::default() };
    let answer = client.projects().run_project(request).await.context("RunProject")?.into_inner();
    Ok(answer.run.context("RunProject answers with the run")?.name)
}

/// Follows a run (`projects/P/runs/-`: the newest) until it closes; it must have succeeded.
pub(crate) async fn ended(client: &Client, run: &str) -> Result<v1::Run> {
    let mut last = None;
    let follow = async {
        let request = v1::WatchRunRequest { name: run.to_owned() };
        let mut updates = client.runs().watch_run(request).await?.into_inner();
        while let Some(update) = updates.message().await? {
            last = update.run.or_else(|| last.take());
            if last.as_ref().is_some_and(|run| run.end_time.is_some()) {
                break;
            }
        }
        Ok::<_, tonic::Status>(())
    };
    let followed = timeout(PATIENCE, follow).await;
    followed.with_context(|| format!("{run} does not end: {last:?}"))?.context("WatchRun")?;
    let last = last.context("WatchRun shows the run")?;
    ensure!(last.state() == v1::run::State::Succeeded, "{} ended as {:?}", last.name, last.origin_attempt);
    Ok(last)
}

/// The machine's clock, nanoseconds since 1970: what stubs send.
pub(crate) fn now_nanos() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// From one time to a later one of the same clock.
pub(crate) fn between(from: u64, to: u64) -> Duration {
    Duration::from_nanos(to.saturating_sub(from))
}

/// Where stubs tell that they exist.
#[derive(Debug)]
pub(crate) struct Stamps {
    address: SocketAddr,
    stamps: mpsc::Receiver<u64>,
}

impl Stamps {
    /// Listens on a port of this address.
    pub(crate) async fn listen(address: Ipv4Addr) -> Result<Self> {
        let listener = TcpListener::bind((address, 0)).await?;
        let address = listener.local_addr()?;
        let (sender, stamps) = mpsc::channel(STAMPS_LEN);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let Ok(stamp) = stream.read_u64().await else { continue };
                if sender.send(stamp).await.is_err() {
                    return;
                }
            }
        });
        Ok(Self { address, stamps })
    }

    /// The upstream to name in a project.
    pub(crate) fn uri(&self) -> String {
        format!("rsync://{}/mod/", self.address)
    }

    /// When the next stub began to exist.
    pub(crate) async fn next(&mut self) -> Result<u64> {
        let stamp = timeout(PATIENCE, self.stamps.recv()).await.context("no program was started")?;
        stamp.context("the listener has ended")
    }

    /// Starts two processes, one by the other, as agent and supervisor do.
    pub(crate) fn spawn_two(&self) -> io::Result<Child> {
        let mut stub = Command::new(program("fleet-stub"));
        stub.env_clear().arg("--twice").arg(self.address.to_string());
        stub.stdin(Stdio::null()).stdout(Stdio::null()).spawn()
    }
}

/// A file on the fleet's disk, to measure what making a record durable costs there.
#[derive(Debug)]
pub(crate) struct Disk(File);

impl Disk {
    /// A new file in this directory.
    pub(crate) fn create(dir: &Path) -> io::Result<Self> {
        File::create(dir.join("floor")).map(Self)
    }

    /// Appends a record and waits until it is on the disk.
    pub(crate) fn durable(&mut self) -> io::Result<()> {
        self.0.write_all(&RECORD)?;
        self.0.sync_data()
    }
}

/// Waits for a child that must end well.
pub(crate) fn reap(mut child: Child) -> Result<()> {
    let status = child.wait()?;
    if !status.success() {
        bail!("a process of the floor ended with {status}");
    }
    Ok(())
}
