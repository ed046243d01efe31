//! Many projects due in one second: how long after that instant the last of them has been offered. The agents
//! are sessions of the load generator, over mutual TLS with enrolled identities, that take every offer, so that
//! the coordinator is measured and not the start of a thousand programs. Caps are raised out of the way.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use chrono::{DateTime, Datelike as _, TimeDelta, Timelike as _, Utc};
use fleet_tests::{Fleet, FleetOptions};
use mirror_agent::dial;
use mirror_certs::{ClientFiles, ClientTls, IdentityFiles};
use mirror_proto::v1::{
    self, open_session_request::Message as Says, open_session_response::Message as Hears,
    session_service_client::SessionServiceClient,
};
use tokio::{runtime::Runtime, sync::mpsc, task::JoinSet, time::timeout};
use tokio_stream::wrappers::ReceiverStream;

use crate::{
    Size,
    api::{self, PATIENCE, between, now_nanos},
    table::{Row, Samples, millis},
};

/// Projects of one agent: below what one hello may name.
const PROJECTS_PER_AGENT: usize = 50;
/// Messages that may wait to be sent by one agent.
const SAY_LEN: usize = 256;
/// Time to declare everything before it is due.
const LEAD: TimeDelta = TimeDelta::seconds(10);
/// Target of document 7.
const TARGET: Duration = Duration::from_secs(1);
/// Out of the way.
const LIMITS: &str = "agent_slots = 1000\nvolume_slots = 1000\nfirst_syncs = 1000\nupstream_slots = 10000\n\
                      upstream_spacing = \"0s\"\n";

/// The row.
pub(crate) fn rows(runtime: &Runtime, size: Size) -> Result<Vec<Row>> {
    let agents: Vec<String> = (0..size.pick(2, 20)).map(|number| format!("edge{number}")).collect();
    let count = agents.len() * PROJECTS_PER_AGENT;
    let options = FleetOptions {
        agents: agents.clone(),
        files: 1,
        limits: LIMITS.to_owned(),
        ..FleetOptions::default()
    };
    let mut fleet = Fleet::prepare(options)?;
    fleet.start_coordinator()?;
    for index in 0..agents.len() {
        fleet.enroll(index)?;
    }
    let late = runtime.block_on(burst(&fleet, &agents))?;
    ensure!(late.len() == count, "{} of {count} projects were offered", late.len());
    let mut samples = Samples::default();
    samples.extend(late);
    let last = samples.percentile(100);
    Ok(vec![
        Row::new(
            format!("{count} projects due in one second: first, median, last offered after"),
            format!(
                "{:.0}, {:.0}, {:.0} ms",
                millis(samples.percentile(0)),
                millis(samples.median()),
                millis(last)
            ),
        )
        .peer("83 min (one per 5 s)")
        .target("last ≤ 1 s", last <= TARGET),
    ])
}

/// How late each offer arrived.
async fn burst(fleet: &Fleet, agents: &[String]) -> Result<Vec<Duration>> {
    let client = api::connect(fleet).await?;
    let (offered, mut offers) = mpsc::channel(agents.len() * PROJECTS_PER_AGENT);
    let mut sessions = JoinSet::new();
    for (index, agent) in agents.iter().enumerate() {
        let session = Session::open(fleet, index).await.with_context(|| format!("{agent}'s session"))?;
        sessions.spawn(session.take_all(offered.clone()));
    }
    let due = Utc::now() + LEAD;
    let due = due.with_nanosecond(0).context("a whole second")?;
    let mut projects = Vec::new();
    for (number, agent) in agents.iter().flat_map(|agent| [agent; PROJECTS_PER_AGENT]).enumerate() {
        let name = format!("p{number}");
        let mut project = api::project(&name, &fleet.upstream.uri(), agent);
        project.schedule = Some(once(due));
        projects.push(project);
    }
    api::declare(&client, projects).await?;
    ensure!(Utc::now() < due, "declaring took longer than {LEAD}: nothing was measured");
    let due = u64::try_from(due.timestamp_nanos_opt().context("a time of this century")?)?;
    let mut late = Vec::new();
    while late.len() < agents.len() * PROJECTS_PER_AGENT {
        tokio::select! {
            offer = timeout(PATIENCE, offers.recv()) => {
                late.push(between(due, offer.context("an offer in time")?.context("a session")?));
            }
            Some(ended) = sessions.join_next() => ended??,
        }
    }
    Ok(late)
}

/// A schedule that fires at this instant and never again.
fn once(at: DateTime<Utc>) -> v1::Schedule {
    let cron = v1::Cron {
        year: at.year().to_string(),
        month: at.month().to_string(),
        day: at.day().to_string(),
        hour: at.hour().to_string(),
        minute: at.minute().to_string(),
        second: at.second().to_string(),
        ..v1::Cron::default()
    };
    v1::Schedule { cadence: Some(v1::schedule::Cadence::Cron(cron)), ..v1::Schedule::default() }
}

struct Session {
    say: mpsc::Sender<v1::OpenSessionRequest>,
    heard: tonic::Streaming<v1::OpenSessionResponse>,
}

impl Session {
    /// As the agent with this number, whose identity lies in its directory.
    async fn open(fleet: &Fleet, index: usize) -> Result<Self> {
        let dir = fleet.agent_dir(index);
        let identity = IdentityFiles { certificate: dir.join("identity.pem"), key: dir.join("identity.pem") };
        let tls = ClientTls::load(ClientFiles { identity: Some(identity), ca: dir.join("ca.pem") })?;
        let channel = dial::dial(&fleet.server().parse()?, tls.config()).await?.channel;
        let (say, said) = mpsc::channel(SAY_LEN);
        say.send(request(Says::Hello(hello(index)))).await?;
        let mut client = SessionServiceClient::new(channel);
        let mut heard = client.open_session(ReceiverStream::new(said)).await?.into_inner();
        match heard.message().await?.and_then(|response| response.message) {
            Some(Hears::Welcome(_)) => Ok(Self { say, heard }),
            other => bail!("no welcome but {other:?}"),
        }
    }

    /// Takes every offer and tells when it came, until the stream ends.
    async fn take_all(mut self, offered: mpsc::Sender<u64>) -> Result<()> {
        while let Some(response) = self.heard.message().await? {
            if let Some(Hears::Assignment(assignment)) = response.message {
                offered.send(now_nanos()).await?;
                self.say.send(request(Says::Accepted(v1::Accepted { key: assignment.key }))).await?;
            }
        }
        bail!("the coordinator ended a session")
    }
}

fn request(message: Says) -> v1::OpenSessionRequest {
    v1::OpenSessionRequest { message: Some(message) }
}

fn hello(index: usize) -> v1::Hello {
    let root = v1::Root {
        name: "a1".to_owned(),
        path: "/srv/mirror".to_owned(),
        total_bytes: 1 << 40,
        free_bytes: 1 << 39,
        ..v1::Root::default()
    };
    v1::Hello {
        instance_id: uuid::Uuid::new_v4().to_string(),
        state_id: uuid::Uuid::from_u128(index as u128 + 1).to_string(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        rsync_version: "3.5.0".to_owned(),
        inventory: Some(v1::Inventory { roots: vec![root], certificate_expire_time: None }),
        slots: 1_000,
        ..v1::Hello::default()
    }
}
