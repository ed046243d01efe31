//! Sessions, runs and their watchers, through real gRPC over plain TCP.

mod fleet_common;

use fleet_common::{Fleet, PATIENCE, ended, hello};
use mirror_proto::v1::{
    self, attempt, open_session_request::Message as Says, open_session_response::Message as Hears,
    outcome::Class, run, run_service_server::RunService as _,
};
use tokio::time::timeout;
use tokio_stream::StreamExt as _;
use tonic::{Code, Request};

#[tokio::test]
async fn a_hello_gets_a_welcome_and_a_lost_stream_is_noticed() {
    let fleet = Fleet::start().await;
    let agent = fleet.enrol("ftp1").await;
    let mut talk = fleet.connect("ftp1").await;
    let term = fleet.handle.services().driver.view().fleet().term;
    assert_eq!(talk.epoch.term, term);
    assert_eq!(fleet.handle.services().driver.view().session(agent).map(|s| s.epoch), Some(talk.epoch));
    talk.say = None;
    assert_eq!(talk.end().await.code(), Code::Ok, "the answer ends when the request has ended");
    fleet.until("the session is gone", |view| view.session(agent).is_none()).await;
    fleet.end().await;
}

#[tokio::test]
async fn only_agents_open_sessions_and_a_hello_comes_first_and_once() {
    let fleet = Fleet::start().await;
    fleet.enrol("ftp1").await;
    let refused = fleet.open("users/maria", vec![hello(&[])]).await.err().unwrap();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let early = Says::Accepted(v1::Accepted { key: None });
    let refused = fleet.open("agents/ftp1", vec![early]).await.err().unwrap();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let mut talk = fleet.connect("ftp1").await;
    talk.say(hello(&[])).await;
    assert_eq!(talk.end().await.code(), Code::InvalidArgument);
    fleet.end().await;
}

#[tokio::test]
async fn the_newest_session_wins_and_the_old_ones_end_does_not_touch_it() {
    let fleet = Fleet::start().await;
    let agent = fleet.enrol("ftp1").await;
    let mut old = fleet.connect("ftp1").await;
    let mut new = fleet.connect("ftp1").await;
    assert_eq!(old.end().await.code(), Code::Aborted);
    assert!(new.epoch > old.epoch);
    fleet.declare("debian", "ftp1").await;
    fleet.run("debian").await;
    assert_eq!(new.assignment().await.project, "debian");
    assert_eq!(fleet.handle.services().driver.view().session(agent).map(|s| s.epoch), Some(new.epoch));
    fleet.end().await;
}

#[tokio::test]
async fn a_revoked_agent_is_told_so() {
    use fleet::input::{Ask, Input, Person, Reply};
    let fleet = Fleet::start().await;
    let agent = fleet.enrol("ftp1").await;
    let mut talk = fleet.connect("ftp1").await;
    let ask = Ask::RevokeAgent { agent, reason: "stolen".to_owned() };
    let driver = &fleet.handle.services().driver;
    let reply = driver.ask(Input::Person(Person { by: "root".to_owned(), ask })).await.unwrap();
    assert_eq!(reply, Reply::Agent(agent));
    assert_eq!(talk.end().await.code(), Code::PermissionDenied);
    let again = fleet.open("agents/ftp1", vec![hello(&[])]).await.err().unwrap();
    assert_eq!(again.code(), Code::PermissionDenied);
    fleet.end().await;
}

#[tokio::test]
async fn one_run_from_the_wish_to_its_log() {
    let fleet = Fleet::start().await;
    fleet.enrol("ftp1").await;
    let mut talk = fleet.connect("ftp1").await;
    let declared = fleet.declare("debian", "ftp1").await;
    let upstream = &declared.upstreams[0];
    assert!(upstream.has_password && upstream.password.is_none());
    let run = fleet.run("debian").await.run.unwrap();
    let assignment = talk.assignment().await;
    assert_eq!(assignment.secrets.as_ref().unwrap().password, "hunter2");
    assert_eq!(assignment.user, "mirror");
    assert!(run.name.ends_with(&assignment.key.as_ref().unwrap().run));

    let mut watch =
        fleet.runs().watch_run(v1::WatchRunRequest { name: run.name.clone() }).await.unwrap().into_inner();
    let mut states = Vec::new();
    let key = assignment.key.clone().unwrap();
    let mut step = 0;
    while let Some(seen) = timeout(PATIENCE, watch.message()).await.unwrap().unwrap() {
        let attempt = seen.attempts.last().unwrap().state();
        states.push((seen.run.unwrap().state(), attempt));
        match (step, attempt) {
            (0, attempt::State::Offered) => talk.accept(&assignment).await,
            (1, attempt::State::Running) => talk.finish(&key, Class::Ok, b"sent 1 file\n").await,
            _ => continue,
        }
        step += 1;
    }
    assert_eq!(
        states,
        [
            (run::State::Running, attempt::State::Offered),
            (run::State::Running, attempt::State::Running),
            (run::State::Succeeded, attempt::State::Succeeded),
        ]
    );
    assert!(!talk.acknowledged().await);
    let newest = fleet.newest_run("debian").await;
    assert_eq!(newest.name, run.name);
    assert_eq!(newest.origin_attempt.unwrap().outcome.unwrap().class(), Class::Ok);

    let tail = v1::TailRunLogRequest { name: "projects/debian/runs/-".to_owned(), follow: true };
    let mut log = fleet.runs().tail_run_log(tail).await.unwrap().into_inner();
    assert_eq!(log.message().await.unwrap().unwrap().data, b"sent 1 file\n");
    assert!(log.message().await.unwrap().is_none());
    fleet.end().await;
}

#[tokio::test]
async fn stale_and_foreign_reports_change_nothing_and_are_acknowledged() {
    let fleet = Fleet::start().await;
    fleet.enrol("ftp1").await;
    fleet.enrol("edge1").await;
    let mut own = fleet.connect("ftp1").await;
    let mut other = fleet.connect("edge1").await;
    fleet.declare("debian", "ftp1").await;
    fleet.run("debian").await;
    let assignment = own.assignment().await;
    let key = assignment.key.clone().unwrap();
    own.accept(&assignment).await;
    fleet.until("it runs", |view| view.out() == 1).await;

    other.say(Says::Accepted(v1::Accepted { key: Some(key.clone()) })).await;
    other.finish(&key, Class::Ok, b"forged").await;
    assert!(other.acknowledged().await, "a foreign report is fenced");
    let mut stale = key.clone();
    stale.epoch = Some(v1::Epoch { term: 0, counter: 1 });
    own.finish(&stale, Class::Ok, b"stale").await;
    assert!(own.acknowledged().await, "a stale report is fenced");
    assert_eq!(fleet.newest_run("debian").await.state(), run::State::Running);

    own.finish(&key, Class::Auth, b"true").await;
    assert!(!own.acknowledged().await);
    own.finish(&key, Class::Ok, b"twice").await;
    assert!(own.acknowledged().await, "said again, it is fenced");
    assert_eq!(fleet.newest_run("debian").await.state(), run::State::Failed);
    let tail = v1::TailRunLogRequest { name: "projects/debian/runs/-".to_owned(), follow: false };
    let mut log = fleet.runs().tail_run_log(tail).await.unwrap().into_inner();
    assert_eq!(log.message().await.unwrap().unwrap().data, b"true");
    fleet.end().await;
}

#[tokio::test]
async fn live_lines_flow_only_while_somebody_follows() {
    let fleet = Fleet::start().await;
    fleet.enrol("ftp1").await;
    let mut talk = fleet.connect("ftp1").await;
    fleet.declare("debian", "ftp1").await;
    fleet.run("debian").await;
    let assignment = talk.assignment().await;
    let key = assignment.key.clone();
    talk.accept(&assignment).await;
    let tail = v1::TailRunLogRequest { name: "projects/debian/runs/-".to_owned(), follow: true };
    let mut one = fleet.runs().tail_run_log(tail.clone()).await.unwrap().into_inner();
    let Hears::LogSubscribe(subscribed) = talk.hear().await else { panic!("not asked for lines") };
    assert_eq!(subscribed.key, key);
    let chunk = |data: &[u8]| Says::LogChunk(v1::LogChunk { key: key.clone(), data: data.to_vec() });
    talk.say(chunk(b"first\n")).await;
    assert_eq!(one.message().await.unwrap().unwrap().data, b"first\n");
    // Who joins later sees what came before, and the agent is not asked again.
    let mut two = fleet.runs().tail_run_log(tail).await.unwrap().into_inner();
    assert_eq!(two.message().await.unwrap().unwrap().data, b"first\n");
    drop(one);
    talk.say(chunk(b"second\n")).await;
    assert_eq!(two.message().await.unwrap().unwrap().data, b"second\n");
    drop(two);
    let Hears::LogUnsubscribe(unsubscribed) = talk.hear().await else { panic!("not told to stop") };
    assert_eq!(unsubscribed.key, key);
    fleet.end().await;
}

#[tokio::test]
async fn progress_of_an_own_running_attempt_is_shown_until_its_end() {
    let fleet = Fleet::start().await;
    fleet.enrol("ftp1").await;
    fleet.enrol("edge1").await;
    let mut talk = fleet.connect("ftp1").await;
    let forger = fleet.connect("edge1").await;
    fleet.declare("debian", "ftp1").await;
    fleet.run("debian").await;
    let assignment = talk.assignment().await;
    talk.accept(&assignment).await;
    let report = |percent: u32| {
        let progress = v1::Progress { percent: Some(percent), ..Default::default() };
        let one = v1::AttemptProgress { key: assignment.key.clone(), progress: Some(progress) };
        Says::Progress(v1::ProgressReport { attempts: vec![one] })
    };
    let request = v1::WatchRunRequest { name: "projects/debian/runs/-".to_owned() };
    let mut watch = fleet.runs().watch_run(request).await.unwrap().into_inner();
    forger.say(report(99)).await;
    talk.say(report(142)).await;
    let seen = loop {
        let seen = timeout(PATIENCE, watch.message()).await.unwrap().unwrap().unwrap();
        if let Some(progress) = seen.attempts[0].progress {
            break progress;
        }
    };
    assert_eq!(seen.percent, Some(100), "what cannot be is bounded, and a forger is not heard");
    let request = v1::GetProjectRequest { name: "projects/debian".to_owned() };
    let status = fleet.projects().get_project(request).await.unwrap().into_inner().status.unwrap();
    assert_eq!(status.placements[0].progress.as_ref().and_then(|p| p.percent), Some(100));
    let key = assignment.key.clone().unwrap();
    talk.finish(&key, Class::Ok, b"").await;
    assert!(!talk.acknowledged().await);
    assert!(fleet.newest_run("debian").await.origin_attempt.unwrap().progress.is_none());
    fleet.end().await;
}

#[tokio::test]
async fn a_watcher_that_does_not_read_is_dropped_and_holds_up_nobody() {
    let fleet = Fleet::start().await;
    fleet.enrol("ftp1").await;
    fleet.declare("debian", "ftp1").await;
    // The agent is away, so the run waits, and each wish that joins it is a change.
    let run = fleet.run("debian").await.run.unwrap();
    let service = fleet.runs_service();
    let request = || Request::new(v1::WatchRunRequest { name: run.name.clone() });
    let mut slow = service.watch_run(request()).await.unwrap().into_inner();
    let mut quick = service.watch_run(request()).await.unwrap().into_inner();
    let mut wishes = 0;
    let mut joined = 0;
    for _ in 0..40 {
        assert!(fleet.run("debian").await.coalesced);
        wishes += 1;
        while joined < wishes {
            let seen = timeout(PATIENCE, quick.next()).await.unwrap().unwrap().unwrap();
            joined = seen.run.unwrap().coalesced_triggers;
        }
    }
    let first = timeout(PATIENCE, slow.next()).await.unwrap().unwrap();
    assert_eq!(first.unwrap_err().code(), Code::ResourceExhausted);
    assert!(slow.next().await.is_none());
    // The service holds a way to the writer, which ends when the last one is gone.
    drop(service);
    fleet.end().await;
}

#[tokio::test]
async fn what_an_agent_holds_is_settled_by_its_hello() {
    let fleet = Fleet::start().await;
    fleet.enrol("ftp1").await;
    let mut talk = fleet.connect("ftp1").await;
    fleet.declare("debian", "ftp1").await;
    fleet.run("debian").await;
    let assignment = talk.assignment().await;
    talk.accept(&assignment).await;
    fleet
        .until("it runs", |view| {
            view.attempts().any(|a| matches!(a.state, fleet::attempt::AttemptState::Running { .. }))
        })
        .await;
    let held = v1::AttemptDescriptor {
        key: assignment.key.clone(),
        project_uid: assignment.project_uid,
        role: assignment.role,
        destination: assignment.destination.clone(),
        spec_hash: assignment.spec_hash.clone(),
        ended: false,
        needs_secrets: true,
        dry_run: false,
        keep_extra: false,
        autonomous: None,
    };
    let mut again = fleet.open("agents/ftp1", vec![hello(std::slice::from_ref(&held))]).await.unwrap();
    assert!(matches!(again.hear().await, Hears::Welcome(_)), "the welcome comes first");
    let Hears::Continue(go_on) = again.hear().await else { panic!("not told to go on") };
    assert_eq!(go_on.key, assignment.key);
    assert_eq!(go_on.secrets.unwrap().password, "hunter2");
    // Its link was lost, and its memory was not: then nothing secret is said again.
    let kept = v1::AttemptDescriptor { needs_secrets: false, ..held };
    let mut again = fleet.open("agents/ftp1", vec![hello(&[kept])]).await.unwrap();
    assert!(matches!(again.hear().await, Hears::Welcome(_)), "the welcome comes first");
    let Hears::Continue(go_on) = again.hear().await else { panic!("not told to go on") };
    assert_eq!((go_on.key, go_on.secrets), (assignment.key.clone(), None));
    let key = assignment.key.clone().unwrap();
    again.say(Says::Ended(ended(&key, Class::Ok, b""))).await;
    assert!(!again.acknowledged().await);
    assert_eq!(fleet.newest_run("debian").await.state(), run::State::Succeeded);
    fleet.end().await;
}

/// A project without a password that fires every hour.
fn hourly(name: &str, agent: &str) -> v1::Project {
    let mut project = fleet_common::project(name, agent);
    for upstream in &mut project.upstreams {
        upstream.user = String::new();
        upstream.password = None;
    }
    let cadence = v1::schedule::Cadence::Crontab("0 * * * *".to_owned());
    project.schedule = Some(v1::Schedule { cadence: Some(cadence), ..Default::default() });
    project
}

#[tokio::test]
async fn what_an_agent_ran_alone_is_entered_once_and_from_its_own_agent_only() {
    let fleet = Fleet::start().await;
    fleet.enrol("ftp1").await;
    fleet.enrol("edge1").await;
    let mut talk = fleet.connect("ftp1").await;
    let mut stranger = fleet.connect("edge1").await;
    fleet.declare("debian", "ftp1").await;
    let request = v1::CreateProjectRequest { project: Some(hourly("alpine", "ftp1")), ..Default::default() };
    fleet.projects().create_project(request).await.unwrap();
    let order = loop {
        let orders = talk.orders().await.orders;
        let name = |order: &v1::StandingOrder| order.assignment.as_ref().map(|order| order.project.clone());
        assert!(!orders.iter().any(|order| name(order).as_deref() == Some("debian")), "it has a password");
        if let Some(order) = orders.into_iter().next() {
            break order;
        }
    };
    let assignment = order.assignment.unwrap();
    assert_eq!((assignment.project.as_str(), assignment.key, assignment.secrets), ("alpine", None, None));
    assert!(order.schedule.is_some() && order.next_fire_time.is_some());

    let now = fleet.handle.services().driver.now().wall.0 / 1_000;
    let time = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
    let key = v1::AttemptKey {
        run: uuid::Uuid::new_v4().to_string(),
        attempt: 1,
        epoch: Some(v1::Epoch { term: talk.epoch.term, counter: 1 << 63 }),
    };
    let fire = v1::AutonomousFire {
        scheduled_time: time(now - 3_600),
        start_time: time(now - 3_500),
        max_delete: 500,
    };
    let described = v1::AttemptDescriptor {
        key: Some(key.clone()),
        project_uid: assignment.project_uid,
        role: v1::Role::Origin.into(),
        destination: assignment.destination,
        ended: true,
        autonomous: Some(fire),
        ..Default::default()
    };
    let report = v1::Ended { autonomous: Some(described), ..ended(&key, Class::Ok, b"done\n") };
    stranger.say(Says::Ended(report.clone())).await;
    assert!(stranger.acknowledged().await, "another agent may not speak of this placement");
    talk.say(Says::Ended(report.clone())).await;
    assert!(!talk.acknowledged().await);
    let run = fleet.newest_run("alpine").await;
    assert_eq!(run.state(), run::State::Succeeded);
    let trigger = run.trigger.clone().unwrap();
    assert!(trigger.autonomous && trigger.kind() == v1::trigger::Kind::Schedule);
    assert_eq!(trigger.time, time(now - 3_600));
    talk.say(Says::Ended(report)).await;
    assert!(talk.acknowledged().await, "said twice, entered once");
    assert_eq!(fleet.newest_run("alpine").await, run);
    fleet.end().await;
}
