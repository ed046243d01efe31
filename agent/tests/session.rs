//! The agent's program against a coordinator that says what a test wants, and a real rsync daemon.

#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking; clippy knows only functions marked #[test]"
)]

mod support;

use mirror_proto::v1;
use mirror_proto::v1::open_session_request::Message as FromAgent;
use mirror_proto::v1::open_session_response::Message as ToAgent;
use mirror_proto::v1::outcome::Class;
use mirror_proto::v1::refused::Reason;
use support::upstream::{Upstream, tree_of};
use support::{Coordinator, Host, assignment, eventually, key};

const LOCAL: &[&str] = &["127.0.0.0/8"];

async fn fleet(allow: &[&str]) -> (Coordinator, Host, Upstream) {
    let coordinator = Coordinator::start().await;
    let host = Host::enrolled(&coordinator, allow).await;
    (coordinator, host, Upstream::start())
}

#[tokio::test]
async fn a_pull_from_the_offer_to_the_acknowledgement() {
    let (mut coordinator, mut host, upstream) = fleet(LOCAL).await;
    host.start();
    let mut session = coordinator.welcomed().await;
    let hello = &session.hello;
    assert!(hello.attempts.is_empty() && hello.highest_term == 0 && hello.slots == 8);
    assert!(hello.rsync_version.starts_with("3."));
    let inventory = hello.inventory.as_ref().unwrap();
    assert_eq!(inventory.roots[0].name, "a1");
    assert!(inventory.roots[0].total_bytes > 0 && inventory.certificate_expire_time.is_some());

    session.assign(&assignment(1, 1, &upstream.uri("m"))).await;
    assert_eq!(session.answer().await.unwrap(), key(1, 1));
    let ended = session.ended().await;
    let outcome = ended.outcome.unwrap();
    assert_eq!((outcome.class(), outcome.exit_code), (Class::Ok, Some(0)), "{}", outcome.cause);
    let stats = outcome.stats.unwrap();
    assert!(stats.transferred == 41 && stats.received_bytes > 0, "{stats:?}");
    let log = String::from_utf8(ended.log_tail).unwrap();
    assert!(log.contains("pool/main/package-7.deb") && !log.contains("to-chk"), "{log}");
    assert_eq!(tree_of(&host.root().join("debian")), tree_of(&upstream.tree()));

    // The same offer after its end, then after its acknowledgement.
    session.assign(&assignment(1, 1, &upstream.uri("m"))).await;
    assert_eq!(session.answer().await.unwrap(), key(1, 1));
    session.acknowledge(key(1, 1)).await;
    session.assign(&assignment(1, 1, &upstream.uri("m"))).await;
    assert_eq!(session.answer().await.unwrap_err().reason(), Reason::Stale);
    assert_eq!(upstream.connections(), 1, "it ran once");
    drop(session);
    let session = coordinator.session().await;
    assert!(session.hello.attempts.is_empty());
    assert_eq!(session.hello.highest_term, 5);
    eventually("the run's directory is removed", || host.runs().is_empty()).await;
}

#[tokio::test]
async fn an_outcome_is_said_until_it_is_acknowledged() {
    let (mut coordinator, mut host, upstream) = fleet(LOCAL).await;
    host.start();
    let mut session = coordinator.welcomed().await;
    session.assign(&assignment(1, 1, &upstream.uri("nonesuch"))).await;
    let first = session.ended().await;
    assert_eq!(first.outcome.as_ref().unwrap().class(), Class::NotFound);
    drop(session);

    let mut session = coordinator.welcomed().await;
    assert!(session.hello.attempts[0].ended);
    assert_eq!(session.ended().await, first);
    host.kill();
    host.start();
    let mut session = coordinator.welcomed().await;
    assert!(session.hello.attempts[0].ended);
    assert_eq!(session.ended().await, first, "over a restart too, the log included");
    session.acknowledge(key(1, 1)).await;
    session.assign(&assignment(2, 2, &upstream.uri("m"))).await;
    assert_eq!(session.answer().await.unwrap(), key(2, 2));
    assert_eq!(session.ended().await.outcome.unwrap().class(), Class::Ok);
}

#[tokio::test]
async fn hostile_assignments_are_refused_and_nothing_is_run() {
    let (mut coordinator, mut host, upstream) = fleet(LOCAL).await;
    let outside = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(outside.path(), host.root().join("out")).unwrap();
    host.start();
    let mut session = coordinator.welcomed().await;
    let good = assignment(1, 1, &upstream.uri("m"));
    let options = |words: &[&str]| v1::Assignment {
        options: words.iter().map(|word| (*word).to_owned()).collect(),
        ..good.clone()
    };
    let to = |text: &str| v1::Assignment { destination: text.into(), ..good.clone() };
    let from = |text: &str| v1::Assignment { source_uri: text.into(), ..good.clone() };
    let hostile = [
        options(&["-e", "touch /tmp/x"]),
        options(&["--rsync-path=touch"]),
        options(&["--acls"]),
        to("/etc"),
        to("a1:../etc"),
        to("a1:/etc"),
        to("a1:out"),
        to("a1:out/below"),
        to("a1:.mirror/locks"),
        to("a9:debian"),
        from("-e"),
        from("rsync://-e/m/"),
        from("rsync://h:abc/m/"),
        from("rsync://169.254.169.254/latest/"),
        from("rsync://[::1]/m/"),
        from("rsync://u:p@127.0.0.1/m/"),
    ];
    for (counter, bad) in (1..).zip(hostile) {
        let bad = v1::Assignment { key: Some(key(1, counter)), ..bad };
        session.assign(&bad).await;
        let refused = session.answer().await.expect_err("a hostile assignment was taken");
        assert_eq!(refused.reason(), Reason::NotAllowed, "{}", refused.detail);
        assert!(!refused.detail.is_empty() && refused.detail.len() <= 1024);
    }
    assert!(host.runs().is_empty());
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
    let left: Vec<String> = tree_of(&host.root()).into_iter().map(|(name, _)| name).collect();
    assert!(left.iter().all(|name| name.starts_with(".mirror/") || name.starts_with("out")), "{left:?}");
    assert_eq!(upstream.connections(), 0);
}

#[tokio::test]
async fn every_hostile_word_is_refused_whatever_the_coordinator_says() {
    let (mut coordinator, mut host, upstream) = fleet(LOCAL).await;
    host.start();
    let mut session = coordinator.welcomed().await;
    let good = assignment(1, 1, &upstream.uri("m"));
    let lines = include_str!("../../rsync/tests/hostile_words.jsonl").lines();
    let words: Vec<(String, String)> = lines.map(|line| serde_json::from_str(line).unwrap()).collect();
    for (counter, (word, reason)) in (1..).zip(&words) {
        // With the default flags and without, first and last among good ones.
        let other = "--exclude=*.iso".to_owned();
        let options = if counter % 2 == 0 { vec![word.clone(), other] } else { vec![other, word.clone()] };
        let no_defaults = counter % 3 == 0;
        let bad = v1::Assignment { key: Some(key(1, counter)), options, no_defaults, ..good.clone() };
        session.assign(&bad).await;
        let refused = session.answer().await.expect_err("a hostile word was taken");
        assert_eq!(refused.reason(), Reason::NotAllowed, "{word:?}: {}", refused.detail);
        assert!(refused.detail.contains(reason), "{word:?}: {}, expected {reason:?}", refused.detail);
        assert!(!refused.detail.chars().any(char::is_control), "{}", refused.detail.escape_debug());
    }
    assert!(words.len() >= 300 && host.runs().is_empty());
    assert_eq!(upstream.connections(), 0);
}

#[tokio::test]
async fn loopback_is_for_those_who_list_it() {
    let (mut coordinator, mut host, upstream) = fleet(&[]).await;
    host.start();
    let mut session = coordinator.welcomed().await;
    for (counter, host_text) in [(1, "127.0.0.1"), (2, "localhost")] {
        let source = upstream.uri("m").replace("127.0.0.1", host_text);
        session.assign(&assignment(1, counter, &source)).await;
        let refused = session.answer().await.unwrap_err();
        assert_eq!(refused.reason(), Reason::NotAllowed);
        assert!(refused.detail.contains("allow_upstreams"), "{}", refused.detail);
    }
    // The administrator lists it; a reload is enough.
    let config = host.data().join("agent.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("allow_upstreams = [\"localhost\"]\n{text}")).unwrap();
    host.hang_up();
    eventually("the reload", || host.said().contains("reloaded: ")).await;
    session.assign(&assignment(1, 3, &upstream.uri("m").replace("127.0.0.1", "localhost"))).await;
    assert_eq!(session.answer().await.unwrap(), key(1, 3));
    assert_eq!(session.ended().await.outcome.unwrap().class(), Class::Ok);
}

#[tokio::test]
async fn one_attempt_on_a_destination() {
    let (mut coordinator, mut host, upstream) = fleet(LOCAL).await;
    upstream.close();
    host.start();
    let mut session = coordinator.welcomed().await;
    session.assign(&assignment(1, 2, &upstream.uri("m"))).await;
    session.answer().await.unwrap();
    session.assign(&assignment(1, 2, &upstream.uri("m"))).await;
    assert_eq!(session.answer().await.unwrap(), key(1, 2), "the same offer, the same answer");
    session.assign(&assignment(1, 1, &upstream.uri("m"))).await;
    assert_eq!(session.answer().await.unwrap_err().reason(), Reason::Stale);
    let below = v1::Assignment {
        project_uid: 8,
        destination: "a1:debian/pool".into(),
        ..assignment(2, 3, &upstream.uri("m"))
    };
    session.assign(&below).await;
    assert_eq!(session.answer().await.unwrap_err().reason(), Reason::Busy);
    upstream.open();
    assert_eq!(session.ended().await.outcome.unwrap().class(), Class::Ok);
    assert_eq!(upstream.connections(), 1);
}

#[tokio::test]
async fn a_killed_agent_adopts_what_still_runs() {
    let (mut coordinator, mut host, upstream) = fleet(LOCAL).await;
    upstream.close();
    host.start();
    let mut session = coordinator.welcomed().await;
    session.assign(&assignment(1, 1, &upstream.uri("m"))).await;
    session.answer().await.unwrap();
    eventually("rsync runs", || upstream.connections() == 1).await;
    host.kill();
    host.start();
    let mut session = coordinator.welcomed().await;
    let held = session.hello.attempts.clone();
    assert_eq!(held.len(), 1);
    assert_eq!((held[0].key.clone().unwrap(), held[0].project_uid), (key(1, 1), 7));
    assert_eq!((held[0].destination.as_str(), held[0].spec_hash.as_str()), ("a1:debian", "0123456789abcdef"));
    assert!(!held[0].ended && !held[0].needs_secrets);
    session.send(ToAgent::Continue(v1::Continue { key: Some(key(1, 1)), secrets: None })).await;
    upstream.open();
    let outcome = session.ended().await.outcome.unwrap();
    assert_eq!(outcome.class(), Class::Ok, "{}", outcome.cause);
    assert_eq!(upstream.connections(), 1, "it ran once");
    assert_eq!(tree_of(&host.root().join("debian")), tree_of(&upstream.tree()));
}

#[tokio::test]
async fn work_that_ends_while_the_agent_is_stopped_is_told_by_the_next() {
    let (mut coordinator, mut host, upstream) = fleet(LOCAL).await;
    upstream.close();
    host.start();
    let mut session = coordinator.welcomed().await;
    session.assign(&assignment(1, 1, &upstream.uri("m"))).await;
    session.answer().await.unwrap();
    eventually("rsync runs", || upstream.connections() == 1).await;
    assert_eq!(host.terminate().code(), Some(0));
    upstream.open();
    let run = host.runs().remove(0);
    eventually("the supervisor tells the end", || run.join("exit.json").exists()).await;
    host.start();
    let mut session = coordinator.welcomed().await;
    let ended = session.ended().await;
    assert_eq!(ended.outcome.unwrap().class(), Class::Ok);
    assert!(String::from_utf8_lossy(&ended.log_tail).contains("package-7.deb"));
}

#[tokio::test]
async fn a_run_that_cannot_be_looked_at_for_a_while_is_not_given_up() {
    let (mut coordinator, mut host, upstream) = fleet(LOCAL).await;
    host.start();
    let mut session = coordinator.welcomed().await;
    upstream.close();
    session.assign(&assignment(1, 1, &upstream.uri("m"))).await;
    assert_eq!(session.answer().await.unwrap(), key(1, 1));
    eventually("rsync runs", || upstream.connections() == 1).await;
    // Reading it is refused, as when no descriptor is left; unlike a damaged file this may pass.
    let record = host.runs()[0].join("supervisor.json");
    let aside = record.with_extension("aside");
    std::fs::rename(&record, &aside).unwrap();
    std::fs::create_dir(&record).unwrap();
    eventually("the agent has tried and tried", || host.said().contains("cannot be looked at")).await;
    std::fs::remove_dir(&record).unwrap();
    std::fs::rename(&aside, &record).unwrap();
    upstream.open();
    let outcome = session.ended().await.outcome.unwrap();
    assert_eq!(outcome.class(), Class::Ok, "{}", outcome.cause);
}

#[tokio::test]
async fn a_lost_supervisor_is_an_interruption_and_leaves_nothing_behind() {
    let (mut coordinator, mut host, upstream) = fleet(LOCAL).await;
    upstream.close();
    host.start();
    let mut session = coordinator.welcomed().await;
    session.assign(&assignment(1, 1, &upstream.uri("m"))).await;
    session.answer().await.unwrap();
    eventually("rsync runs", || upstream.connections() == 1).await;
    let supervisor = host.supervisors()[0];
    host.kill();
    rustix::process::kill_process(supervisor, rustix::process::Signal::KILL).unwrap();
    host.start();
    let mut session = coordinator.welcomed().await;
    assert_eq!(session.ended().await.outcome.unwrap().class(), Class::Interrupted);
    session.acknowledge(key(1, 1)).await;
    upstream.open();
    session.assign(&assignment(1, 2, &upstream.uri("m"))).await;
    assert_eq!(session.answer().await.unwrap(), key(1, 2), "lock and slot are free");
    assert_eq!(session.ended().await.outcome.unwrap().class(), Class::Ok);
}

#[tokio::test]
async fn a_cancelled_attempt_ends_and_says_so() {
    let (mut coordinator, mut host, upstream) = fleet(LOCAL).await;
    upstream.close();
    host.start();
    let mut session = coordinator.welcomed().await;
    session.assign(&assignment(1, 1, &upstream.uri("m"))).await;
    session.answer().await.unwrap();
    eventually("rsync runs", || upstream.connections() == 1).await;
    let cancel = |key| ToAgent::Cancel(v1::Cancel { key: Some(key), reason: "maria wants it".into() });
    session.send(cancel(key(1, 1))).await;
    let outcome = session.ended().await.outcome.unwrap();
    assert_eq!((outcome.class(), outcome.cause.as_str()), (Class::Cancelled, "maria wants it"));
    session.send(cancel(key(9, 9))).await;
    let unknown = session.ended().await;
    assert_eq!((unknown.key, unknown.outcome.unwrap().class()), (Some(key(9, 9)), Class::Cancelled));
    session.assign(&assignment(9, 9, &upstream.uri("m"))).await;
    assert_eq!(session.answer().await.unwrap_err().reason(), Reason::Stale, "it is never taken after that");
}

#[tokio::test]
async fn a_disk_that_hangs_keeps_neither_a_sign_of_life_nor_an_outcome() {
    let (mut coordinator, mut host, upstream) = fleet(LOCAL).await;
    host.start();
    let mut session = coordinator.welcomed().await;
    // The certificate is looked at with the disks; whoever opens it waits until somebody writes to it.
    let own = host.data().join("identity.pem");
    let (aside, mode) = (own.with_extension("aside"), rustix::fs::Mode::from_raw_mode(0o600));
    std::fs::rename(&own, &aside).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, &own, mode).unwrap();
    session.assign(&assignment(1, 1, &upstream.uri("m"))).await;
    session.answer().await.unwrap();
    let waits = || {
        let flags = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::NONBLOCK;
        // Nobody has it open to read: then this is refused.
        rustix::fs::open(&own, flags, mode).ok().map(std::fs::File::from)
    };
    let mut fifo = None;
    eventually("the look at the disks hangs", || {
        fifo = waits();
        fifo.is_some()
    })
    .await;
    session.send(ToAgent::Ping(v1::Ping { id: 9 })).await;
    let seen = session
        .expect("a sign of life", |message| match message {
            FromAgent::Pong(pong) => Some(Some(pong.id)),
            FromAgent::Inventory(_) | FromAgent::Ended(_) => Some(None),
            _ => None,
        })
        .await;
    assert_eq!(seen, Some(9), "before the look is over");
    let first = session
        .expect("an outcome", |message| match message {
            FromAgent::Ended(ended) => Some(ended.outcome),
            FromAgent::Inventory(inventory) => panic!("the look is not over: {inventory:?}"),
            _ => None,
        })
        .await;
    assert_eq!(first.unwrap().class(), Class::Ok);
    session.acknowledge(key(1, 1)).await;
    // It hangs no more.
    std::io::Write::write_all(&mut fifo.unwrap(), &std::fs::read(&aside).unwrap()).unwrap();
    std::fs::rename(&aside, &own).unwrap();
    let inventory = session
        .expect("the look", |message| match message {
            FromAgent::Inventory(inventory) => Some(inventory),
            FromAgent::Ended(ended) => panic!("it was said before: {ended:?}"),
            _ => None,
        })
        .await;
    assert!(inventory.certificate_expire_time.is_some());
}

#[tokio::test]
async fn a_coordinator_of_a_lower_term_is_not_obeyed() {
    let (mut coordinator, mut host, upstream) = fleet(LOCAL).await;
    host.start();
    let session = coordinator.welcomed().await;
    drop(session);
    let mut session = coordinator.session().await;
    assert_eq!(session.hello.highest_term, 5);
    session.welcome(4).await;
    session.assign(&assignment(1, 1, &upstream.uri("m"))).await;
    assert_eq!(session.next().await, None, "the agent leaves without a word");
    eventually("it says why", || {
        host.said().contains("is not obeyed: the coordinator has term 4, this agent has seen 5")
    })
    .await;
    assert!(host.runs().is_empty());
}

#[tokio::test]
async fn what_a_power_cut_left_unwritten_is_begun_anew() {
    let (mut coordinator, mut host, upstream) = fleet(LOCAL).await;
    let runs = host.data().join("runs");
    {
        // Neither a step nor a run directory is synced: any of it may be lost, and the rest be there.
        let (mut journal, _) = mirror_agent::journal::Journal::open(&host.data()).unwrap();
        let supervisor = r#"{"pid":1,"start_ticks":1,"boot_id":"another","cgroup":null,"no_cgroup":"-"}"#;
        for (number, spec, step) in [(1_u64, "", true), (2, "blank", false), (3, "blank", true)] {
            let mut wanted = assignment(number.into(), number, &upstream.uri("m"));
            (wanted.project_uid, wanted.destination) = (70 + number, format!("a1:p{number}"));
            let held = mirror_agent::key::Key::from_wire(wanted.key.as_ref()).unwrap();
            journal.accept(held, wanted, false).unwrap();
            if step {
                journal.step(held, mirror_agent::journal::Step::Pull).unwrap();
            }
            let dir = runs.join(held.slug()).join("pull-1");
            std::fs::create_dir_all(&dir).unwrap();
            std::fs::write(dir.join("supervisor.json"), supervisor).unwrap();
            if spec == "blank" {
                std::fs::write(dir.join("spec.json"), [0; 64]).unwrap();
            }
        }
    }
    host.start();
    let mut session = coordinator.welcomed().await;
    for _ in 0..3 {
        let ended = session.ended().await;
        let outcome = ended.outcome.unwrap();
        assert_eq!(outcome.class(), Class::Ok, "{}", outcome.cause);
        session.acknowledge(ended.key.unwrap()).await;
    }
    eventually("no run directory is left", || host.runs().is_empty()).await;
}

#[tokio::test]
async fn a_password_is_asked_for_again_after_a_restart_and_is_never_on_disk() {
    let (mut coordinator, mut host, upstream) = fleet(LOCAL).await;
    let secret = v1::Assignment { user: "mirror".into(), ..assignment(1, 1, &upstream.uri("secret")) };
    {
        // As an agent leaves it that ends between the acceptance and the start of rsync.
        let (mut journal, _) = mirror_agent::journal::Journal::open(&host.data()).unwrap();
        let held = mirror_agent::key::Key::from_wire(Some(&key(1, 1))).unwrap();
        journal.accept(held, secret.clone(), true).unwrap();
    }
    host.start();
    let mut session = coordinator.welcomed().await;
    assert!(session.hello.attempts[0].needs_secrets);
    let secrets = Some(v1::Secrets { password: "hunter2".into() });
    session.send(ToAgent::Continue(v1::Continue { key: Some(key(1, 1)), secrets: secrets.clone() })).await;
    let outcome = session.ended().await.outcome.unwrap();
    assert_eq!(outcome.class(), Class::Ok, "{}", outcome.cause);
    session.acknowledge(key(1, 1)).await;

    let offered = v1::Assignment { key: Some(key(2, 2)), secrets, ..secret };
    session.assign(&offered).await;
    session.answer().await.unwrap();
    assert_eq!(session.ended().await.outcome.unwrap().class(), Class::Ok);
    for (name, bytes) in tree_of(&host.data()) {
        assert!(!bytes.windows(7).any(|window| window == b"hunter2"), "the password is in {name}");
    }
    assert!(!host.said().contains("hunter2"));
}

#[tokio::test]
async fn a_followed_log_comes_while_the_attempt_runs() {
    let (mut coordinator, mut host, upstream) = fleet(LOCAL).await;
    upstream.close();
    host.start();
    let mut session = coordinator.welcomed().await;
    session.assign(&assignment(1, 1, &upstream.uri("m"))).await;
    session.answer().await.unwrap();
    session.send(ToAgent::LogSubscribe(v1::LogSubscribe { key: Some(key(1, 1)) })).await;
    let chunk = session
        .expect("lines of the log", |message| match message {
            FromAgent::LogChunk(chunk) => Some(chunk),
            _ => None,
        })
        .await;
    assert_eq!(chunk.key, Some(key(1, 1)));
    let text = String::from_utf8(chunk.data).unwrap();
    assert!(text.contains("debian: rsync://127.0.0.1:") && text.ends_with('\n'), "{text}");
    let progress = session
        .expect("progress", |message| match message {
            FromAgent::Progress(report) => report.attempts.into_iter().next(),
            _ => None,
        })
        .await;
    assert_eq!(progress.key, Some(key(1, 1)));
    upstream.open();
    assert_eq!(session.ended().await.outcome.unwrap().class(), Class::Ok);
}

#[tokio::test]
async fn a_revoked_agent_says_so_and_does_not_hammer() {
    let (coordinator, mut host, _upstream) = fleet(LOCAL).await;
    *coordinator.refuse.lock().unwrap() =
        Some(tonic::Status::permission_denied("agent \"edge1\" is revoked"));
    host.start();
    eventually("it says why", || host.said().contains("refuses this agent: agent \"edge1\" is revoked"))
        .await;
    assert_eq!(host.said().matches("refuses this agent").count(), 1);
    assert_eq!(host.terminate().code(), Some(0), "a waiting link ends at once");
}

#[tokio::test]
async fn one_agent_for_each_data_directory() {
    let (mut coordinator, mut host, _upstream) = fleet(LOCAL).await;
    host.start();
    let _session = coordinator.welcomed().await;
    let mut second = support::agent_command();
    second.arg("run").arg("--config").arg(host.data().join("agent.toml"));
    let refused = support::output(second).await;
    assert_eq!(refused.status.code(), Some(5));
    let stderr = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(stderr.contains("another agent runs on the data directory"), "{stderr}");
}

#[tokio::test]
async fn the_report_continues_the_trace_and_a_dead_collector_harms_nothing() {
    let (mut coordinator, mut host, upstream) = fleet(LOCAL).await;
    let config = host.data().join("agent.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    std::fs::write(&config, format!("otlp_endpoint = \"http://{closed}\"\n{text}")).unwrap();
    host.start();
    let mut session = coordinator.welcomed().await;
    let asked = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let traced = v1::Assignment { traceparent: asked.into(), ..assignment(1, 1, &upstream.uri("m")) };
    session.assign(&traced).await;
    let ended = session.ended().await;
    assert_eq!(ended.outcome.unwrap().class(), Class::Ok);
    assert_eq!(ended.traceparent[..36], asked[..36], "the same trace");
    assert_ne!(ended.traceparent, asked, "a span of the agent's own");
    assert_eq!(host.terminate().code(), Some(0));
}

#[tokio::test]
async fn agents_that_fight_for_one_session_raise_the_alarm() {
    let (mut coordinator, mut host, _upstream) = fleet(LOCAL).await;
    host.start();
    for _ in 0..3 {
        let session = coordinator.welcomed().await;
        session.fail(tonic::Status::aborted("superseded by a newer session")).await;
    }
    eventually("the alarm", || host.said().contains("ALARM: this agent's sessions are taken over")).await;
}
