//! The life of a coordinator: made, started, probed, reloaded, stopped; and what housekeeping does meanwhile.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod wire_common;

use std::{io, os::unix::fs::PermissionsExt as _, time::Duration};

use fleet::time::Now;
use mirror_certs::{Existing, write_private};
use mirror_coordinator::{
    Coordinator, StartError, StartOptions,
    config::{self, Config, Overrides},
    init::{InitError, NewFleet, init},
    offline::{self, OfflineError},
    store::OpenError,
    ticker::{JobReport, NotRun},
};
use mirror_proto::v1::{self, project_service_client::ProjectServiceClient, schedule::Cadence};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use wire_common::{Fleet, PATIENCE};

fn wish(folder: std::path::PathBuf) -> NewFleet {
    NewFleet {
        data_dir: folder,
        trust_domain: "mirror.test".to_owned(),
        server_names: Vec::new(),
        grpc_listen: "127.0.0.1:7443".to_owned(),
        http_listen: ":7480".to_owned(),
        admin: "root".to_owned(),
        agent_roots: vec!["a1=/srv/mirror".to_owned()],
    }
}

#[tokio::test]
async fn a_new_fleet_is_complete_private_and_never_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("a").join("fleet");
    let made = init(&wish(folder.clone())).await.unwrap();
    let mode = |name: &str| std::fs::metadata(folder.join(name)).unwrap().permissions().mode() & 0o777;
    for private in ["ca.key", "server.pem", "seal.key", "denied.txt", "admin/admin.key", "agent/identity.pem"]
    {
        assert_eq!(mode(private), 0o600, "{private}");
    }
    assert_eq!((mode(""), mode("admin"), mode("agent"), mode("store")), (0o700, 0o700, 0o700, 0o700));
    let config = config::load(Some(&made.config), &Overrides::default()).unwrap();
    assert_eq!(config.data_dir, folder);
    assert!(config.server_names.contains(&"127.0.0.1".to_owned()), "{:?}", config.server_names);
    assert_eq!(config.http_listen.to_string(), "0.0.0.0:7480");
    let context: toml::Table = std::fs::read_to_string(&made.context).unwrap().parse().unwrap();
    assert_eq!(context["contexts"]["default"]["server"].as_str(), Some("127.0.0.1:7443"));
    let ca = std::fs::read_to_string(folder.join("ca.pem")).unwrap();
    assert_eq!(mirror_certs::CaBundle::from_pem(&ca).unwrap().hashes(), [made.ca_hash]);
    assert!(made.agent.is_some());

    let before = std::fs::read(folder.join("ca.key")).unwrap();
    assert!(matches!(init(&wish(folder.clone())).await, Err(InitError::NotEmpty(..))));
    assert_eq!(std::fs::read(folder.join("ca.key")).unwrap(), before);
}

#[tokio::test]
async fn every_fault_of_a_wish_is_told_and_nothing_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("fleet");
    let bad = NewFleet {
        trust_domain: "Mirror".to_owned(),
        server_names: vec!["a b".to_owned()],
        grpc_listen: "x".to_owned(),
        admin: "-".to_owned(),
        agent_roots: vec!["a1".to_owned()],
        ..wish(folder.clone())
    };
    let Err(InitError::Refused(error)) = init(&bad).await else { panic!("not refused") };
    let at: Vec<_> = error.faults.iter().map(|fault| fault.at.as_str()).collect();
    assert_eq!(at, ["--trust-domain", "--server-names", "--grpc-listen", "--admin", "--root"]);
    assert!(!folder.exists());
    let anywhere = NewFleet { grpc_listen: "127.0.0.1:0".to_owned(), ..wish(folder.clone()) };
    assert!(matches!(init(&anywhere).await, Err(InitError::Refused(_))));
}

#[tokio::test]
async fn the_agent_made_with_the_fleet_is_of_the_fleet() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("fleet");
    let made = init(&wish(folder.clone())).await.unwrap();
    let agent: toml::Table = std::fs::read_to_string(made.agent.unwrap()).unwrap().parse().unwrap();
    let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let config = Config { data_dir: folder, grpc_listen: any, http_listen: any, ..Config::default() };
    let handle = Coordinator::start(config).await.unwrap();
    let name = agent["name"].as_str().unwrap().parse().unwrap();
    assert!(handle.services().driver.view().agent_named(&name).is_some());
    assert_eq!(handle.services().driver.view().join_tokens().count(), 0);
    handle.drain().await;
}

#[tokio::test]
async fn one_coordinator_at_a_time_and_none_without_its_files() {
    let fleet = Fleet::start().await;
    let second = Coordinator::start(fleet.config.clone()).await.err().unwrap();
    assert!(matches!(second, StartError::Open(OpenError::Running(_))), "{second:?}");
    let refused = offline::backup(&fleet.config, &fleet.file("x.backup")).err().unwrap();
    assert!(matches!(refused, OfflineError::Open(OpenError::Running(_))), "{refused:?}");
    let config = fleet.config.clone();
    let taken = Config { grpc_listen: fleet.handle.http_address(), ..config.clone() };
    let other = Fleet::start().await;
    let other = other.restart(|_| {}).await;
    let refused = {
        let config = Config { data_dir: other.config.data_dir.clone(), ..taken };
        let dir = other.dir;
        other.handle.drain().await;
        let refused = Coordinator::start(config.clone()).await.err().unwrap();
        assert!(matches!(refused, StartError::Listen { key: "grpc_listen", .. }), "{refused:?}");
        // The failed start has left the store in order.
        let again =
            Coordinator::start(Config { grpc_listen: fleet.config.grpc_listen, ..config }).await.unwrap();
        again.drain().await;
        drop(dir);
        refused
    };
    assert!(refused.to_string().contains("grpc_listen"));
    fleet.end().await;
    let empty = tempfile::tempdir().unwrap();
    let lost = Config { data_dir: empty.path().to_owned(), ..config };
    assert!(matches!(Coordinator::start(lost).await, Err(StartError::Who(_))));
}

async fn probe(fleet: &Fleet, path: &str) -> String {
    let mut stream = TcpStream::connect(fleet.handle.http_address()).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: probe\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    answer
}

#[tokio::test]
async fn probes_are_answered_in_plaintext() {
    let fleet = Fleet::start().await;
    assert!(probe(&fleet, "/healthz").await.starts_with("HTTP/1.1 200 "));
    let ready = probe(&fleet, "/readyz").await;
    assert!(ready.starts_with("HTTP/1.1 200 ") && ready.ends_with("ready\n"), "{ready}");
    assert!(probe(&fleet, "/version").await.contains(env!("CARGO_PKG_VERSION")));
    assert!(probe(&fleet, "/status").await.starts_with("HTTP/1.1 404 "));
    fleet.end().await;
}

#[tokio::test]
async fn a_stop_ends_what_goes_on_for_ever_and_closes_the_ports() {
    let fleet = Fleet::start().await;
    let (grpc, http) = (fleet.handle.grpc_address(), fleet.handle.http_address());
    let mut health = tonic_health::pb::health_client::HealthClient::new(fleet.dial(None).await);
    let mut watch = health.watch(tonic_health::pb::HealthCheckRequest::default()).await.unwrap().into_inner();
    watch.message().await.unwrap().unwrap();
    let began = std::time::Instant::now();
    let config = fleet.config.clone();
    let Fleet { handle, dir, .. } = fleet;
    let ended = async { while let Ok(Some(_)) = watch.message().await {} };
    let (_, ended) = tokio::join!(handle.drain(), timeout(PATIENCE, ended));
    ended.expect("the watch ends");
    assert!(began.elapsed() < mirror_coordinator::DRAIN_TIME_MAX, "nothing had to be cut");
    for address in [grpc, http] {
        let refused = TcpStream::connect(address).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }
    let store = mirror_coordinator::store::Store::open(&config.file("store"), &Default::default()).unwrap();
    assert!(store.clean, "{:?}", store.report);
    drop(dir);
}

#[tokio::test]
async fn a_reload_serves_the_new_certificate_to_the_next_connection_only() {
    let fleet = Fleet::start().await;
    let mut before = fleet.fleet(Some(&fleet.root())).await;
    let services = fleet.handle.services();
    let now = services.driver.now().wall.to_utc();
    let fresh = services.ca.issue_server(&["localhost", "127.0.0.1"], now).unwrap();
    write_private(&fleet.file("server.pem"), &fresh.combined_pem(), Existing::Replace).unwrap();
    let changed = Config { history_runs: 7, ..fleet.config.clone() };
    assert_eq!(fleet.handle.reload(&changed).unwrap(), ["history.runs"]);
    assert_eq!(shown_serial(&fleet).await, fresh.issued.serial.to_string());
    before.get_status(v1::GetStatusRequest {}).await.unwrap();

    std::fs::write(fleet.file("server.pem"), "garbage").unwrap();
    assert!(fleet.handle.reload(&changed).is_err());
    assert_eq!(shown_serial(&fleet).await, fresh.issued.serial.to_string(), "the good one stays in force");
    fleet.end().await;
}

/// The serial number of the certificate that the port shows.
async fn shown_serial(fleet: &Fleet) -> String {
    let bundle = mirror_certs::CaBundle::from_pem(&fleet.read("ca.pem")).unwrap();
    let config = mirror_certs::client_config(&bundle, None).unwrap();
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
    let address = fleet.handle.grpc_address();
    let stream = TcpStream::connect(address).await.unwrap();
    let name = rustls::pki_types::ServerName::IpAddress(address.ip().into());
    let stream = connector.connect(name, stream).await.unwrap();
    let certificate = &stream.get_ref().1.peer_certificates().unwrap()[0];
    let domain = "mirror.test".parse().unwrap();
    mirror_certs::Identity::from_der(certificate, &domain).unwrap().serial.to_string()
}

/// Declares a project that fires every second, and waits until it has fired.
async fn fires(fleet: &Fleet) {
    fleet.enroll("ftp1").await;
    let every_second = v1::Cron { second: "*".to_owned(), ..Default::default() };
    let project = v1::Project {
        name: "projects/debian".to_owned(),
        upstreams: vec![v1::Upstream { uri: "rsync://example.net/debian/".to_owned(), ..Default::default() }],
        destination: "a1:debian".to_owned(),
        schedule: Some(v1::Schedule { cadence: Some(Cadence::Cron(every_second)), ..Default::default() }),
        placement: Some(v1::PlacementSettings {
            origins: vec![v1::PlacementTarget { agent: "agents/ftp1".to_owned(), ..Default::default() }],
            ..Default::default()
        }),
        ..Default::default()
    };
    let request = v1::CreateProjectRequest { project: Some(project), ..Default::default() };
    let mut projects = ProjectServiceClient::new(fleet.dial(Some(&fleet.root())).await);
    projects.create_project(request).await.unwrap();
    let driver = &fleet.handle.services().driver;
    let mut changes = driver.changes();
    let fired = async {
        while driver.view().projects_by_name().all(|project| project.state.wanted == 0) {
            changes.changed().await.unwrap();
        }
    };
    timeout(PATIENCE, fired).await.expect("the project fires");
}

#[tokio::test]
async fn syncs_start_by_the_watchdog_when_the_clocks_task_is_dead() {
    let dead = StartOptions { clock: false };
    let fleet =
        Fleet::start_with(dead, |config| config.housekeeping.watchdog = "*/5 * * * * *".to_owned()).await;
    fires(&fleet).await;
    let watchdog = &fleet.handle.services().watchdog;
    let mut ended = fleet.handle.jobs_ended();
    let overdue = async {
        while watchdog.overdue() == 0 {
            ended.changed().await.unwrap();
        }
    };
    timeout(PATIENCE, overdue).await.expect("the watchdog counts what was overdue");
    fleet.end().await;
}

#[tokio::test]
async fn with_the_clocks_task_alive_the_watchdog_finds_nothing() {
    let fleet = Fleet::start_with(StartOptions::default(), |config| {
        config.housekeeping.watchdog = "* * * * * *".to_owned();
    })
    .await;
    fires(&fleet).await;
    until_done(&fleet, "watchdog").await.unwrap();
    assert_eq!(fleet.handle.services().watchdog.overdue(), 0);
    fleet.end().await;
}

/// Waits until a job has run, and says how.
async fn until_done(fleet: &Fleet, name: &str) -> Result<String, String> {
    let mut ended = fleet.handle.jobs_ended();
    let done = async {
        loop {
            ended.mark_unchanged();
            let job = fleet.handle.jobs().await.into_iter().find(|job| job.name == name).unwrap();
            if let Some((_, result)) = job.last {
                assert!(job.next.is_some(), "{name} has a next time");
                return result;
            }
            ended.changed().await.unwrap();
        }
    };
    timeout(PATIENCE, done).await.unwrap_or_else(|_| panic!("{name} did not run"))
}

#[tokio::test]
async fn housekeeping_sweeps_backs_up_prunes_and_looks_at_the_certificate() {
    let always = || "* * * * * *".to_owned();
    let fleet = Fleet::start_with(StartOptions::default(), |config| {
        let jobs = &mut config.housekeeping;
        (jobs.sweep, jobs.backup, jobs.prune, jobs.certificate) = (always(), always(), always(), always());
        config.backups = 2;
    })
    .await;
    for job in ["sweep", "backup", "prune", "certificate"] {
        let done = until_done(&fleet, job).await;
        assert!(done.is_ok(), "{job}: {done:?}");
    }
    let config = fleet.config.clone();
    let Fleet { handle, dir, .. } = fleet;
    handle.drain().await;
    let backups: Vec<_> =
        std::fs::read_dir(config.file("backups")).unwrap().map(|e| e.unwrap().path()).collect();
    assert!((1..=2).contains(&backups.len()), "{backups:?}");
    for backup in backups {
        assert!(mirror_coordinator::store::verify_backup(&backup).unwrap().entries > 0);
    }
    drop(dir);
}

#[tokio::test]
async fn a_job_is_run_now_once_at_a_time_and_says_how_it_went() {
    let fleet = Fleet::start().await;
    let ticker = fleet.handle.services().housekeeping.get().expect("it has begun").clone();
    assert_eq!(ticker.begin("fly").unwrap_err(), NotRun::Unknown);
    // Both ask at once: one runs it, the other is told so, however often somebody looks meanwhile.
    let begun = ticker.begin("backup").unwrap();
    assert_eq!(ticker.begin("backup").unwrap_err(), NotRun::Running);
    let running = |jobs: Vec<JobReport>| jobs.into_iter().filter(|job| job.running).map(|job| job.name);
    assert!(running(ticker.report().await).any(|name| name == "backup"));
    begun.ended(PATIENCE).await;
    let backup = fleet.handle.jobs().await.into_iter().find(|job| job.name == "backup").unwrap();
    let (ended, result) = backup.last.expect("it has ended");
    assert!(result.is_ok() && backup.started.is_some_and(|started| started <= ended), "{result:?}");
    assert!(!backup.running && backup.took.is_some());
    ticker.begin("backup").expect("and then once more").ended(PATIENCE).await;
    fleet.end().await;
    assert_eq!(
        ticker.begin("backup").unwrap_err(),
        NotRun::Stopping,
        "an answer, and not that of the last run"
    );
}

/// Whoever begins a job is in the audit log before it ends: he may be gone by then.
#[test]
fn who_begins_a_job_and_hangs_up_is_in_the_audit_log() {
    // Half of what the call waits for the job: without a record before the wait there is none yet.
    const SOON: Duration = Duration::from_secs(5);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(1).build();
    runtime.unwrap().block_on(async {
        let fleet = Fleet::start().await;
        let mut client = fleet.fleet(Some(&fleet.root())).await;
        // The job works on the one thread for such work, which is taken.
        let (release, held) = std::sync::mpsc::sync_channel::<()>(1);
        let holding = tokio::task::spawn_blocking(move || held.recv().is_err());
        let mut audited = fleet.handle.services().driver.audited();
        audited.mark_unchanged();
        let mut ended = fleet.handle.jobs_ended();
        let request = v1::RunHousekeepingJobRequest { name: "housekeepingJobs/certificate".to_owned() };
        let mut caller = client.clone();
        let call = tokio::spawn(async move { caller.run_housekeeping_job(request).await });
        timeout(SOON, audited.changed()).await.expect("recorded while the job goes on").unwrap();
        call.abort();
        ended.mark_unchanged();
        drop(release);
        assert!(holding.await.unwrap());
        let done = async {
            while fleet.handle.jobs().await.iter().any(|job| job.name == "certificate" && job.running) {
                ended.changed().await.unwrap();
            }
        };
        timeout(PATIENCE, done).await.expect("the job goes on to its end");
        let filter = "action=FleetService.RunHousekeepingJob".to_owned();
        let request = v1::ListAuditEventsRequest { filter, ..Default::default() };
        let events = client.list_audit_events(request).await.unwrap().into_inner().events;
        assert_eq!(events.len(), 1, "{events:?}");
        assert_eq!(
            (events[0].who.as_str(), events[0].resource.as_str()),
            ("users/root", "housekeepingJobs/certificate")
        );
        fleet.end().await;
    });
}

#[tokio::test]
async fn the_backup_before_an_upgrade_is_tried_at_each_start_until_there_is_one() {
    let fleet = Fleet::start().await;
    let version = |config: &Config| std::fs::read_to_string(config.file("store/version")).unwrap();
    let ours = version(&fleet.config);
    let last = "mirror-coordinator 0.0.9\n";
    // Where it is written first there is something in the way.
    let name = "before-upgrade-from-mirror-coordinator-0.0.9.backup";
    let fleet = fleet.restart(|config| {
        std::fs::write(config.file("store/version"), last).unwrap();
        std::fs::create_dir_all(config.file("backups").join(format!(".{name}.partial"))).unwrap();
        std::fs::set_permissions(config.file("backups"), std::fs::Permissions::from_mode(0o700)).unwrap();
    });
    let fleet = fleet.await;
    assert_eq!(version(&fleet.config), last);
    let made = fleet.config.file("backups").join(name);
    assert!(!made.exists());
    let fleet = fleet.restart(|config| {
        std::fs::remove_dir(config.file("backups").join(format!(".{name}.partial"))).unwrap();
    });
    let fleet = fleet.await;
    assert_eq!(version(&fleet.config), ours);
    assert!(mirror_coordinator::store::verify_backup(&made).unwrap().entries > 0);
    let fleet = fleet.restart(|_| std::fs::remove_file(&made).unwrap()).await;
    assert!(!made.exists(), "once");
    fleet.end().await;
}

#[tokio::test]
async fn what_is_left_of_backups_goes_at_a_start_and_no_night_takes_one_that_is_being_sent() {
    let fleet = Fleet::start().await;
    let sent = "0190c0de-0000-7000-8000-000000000001.sending";
    let names = [sent.to_owned(), format!(".{sent}.partial")];
    let path = |config: &Config, name: &str| config.file("backups").join(name);
    let fleet = fleet.restart(|config| {
        std::fs::create_dir_all(config.file("backups")).unwrap();
        names.iter().for_each(|name| std::fs::write(path(config, name), "x").unwrap());
    });
    let mut fleet = fleet.await;
    assert!(names.iter().all(|name| !path(&fleet.config, name).exists()));

    fleet.config.housekeeping.backup = "* * * * * *".to_owned();
    let fleet = fleet.restart(|_| {}).await;
    names.iter().for_each(|name| std::fs::write(path(&fleet.config, name), "x").unwrap());
    let mut ended = fleet.handle.jobs_ended();
    // The first one may have begun before.
    for _ in 0..2 {
        ended.mark_unchanged();
        timeout(PATIENCE, ended.changed()).await.expect("a backup is made").unwrap();
    }
    until_done(&fleet, "backup").await.unwrap();
    assert!(names.iter().all(|name| path(&fleet.config, name).exists()));
    fleet.end().await;
}

#[tokio::test]
async fn pruning_after_a_restore_costs_what_is_there_and_not_what_may_have_been() {
    let fleet = Fleet::start().await;
    let backup = fleet.file("moved.backup");
    fleet.handle.services().driver.store().backup_to(&backup).unwrap();
    let Fleet { handle, mut config, dir } = fleet;
    handle.drain().await;
    offline::restore(&config, &backup).unwrap();
    config.housekeeping.prune = "* * * * * *".to_owned();
    let handle = Coordinator::start(config.clone()).await.unwrap();
    let fleet = Fleet { handle, config, dir };
    // The uids that may have been given since the backup are skipped: so many that nobody may count through them.
    assert!(fleet.handle.services().driver.view().fleet().next_uid > 1_000_000_000);
    until_done(&fleet, "prune").await.unwrap();
    fleet.end().await;
}

#[tokio::test]
async fn the_server_renews_its_certificate_from_a_third_of_its_life_on() {
    let fleet = Fleet::start().await;
    let who = fleet.handle.services().who.clone();
    let Now { wall, .. } = fleet.handle.services().driver.now();
    let days = |days: i64| wall.to_utc() + chrono::TimeDelta::days(days);
    let serial = shown_serial(&fleet).await;
    assert!(!who.renew_server(days(29)).unwrap());
    assert_eq!(shown_serial(&fleet).await, serial);
    // One that is due is replaced on disk and in force at once. Its validity begins in the future of this test's
    // clock, so it is compared on disk.
    let before = fleet.read("server.pem");
    assert!(who.renew_server(days(31)).unwrap());
    assert_ne!(fleet.read("server.pem"), before);
    assert!(!who.renew_server(days(31)).unwrap());
    fleet.end().await;
}
