//! One trace leads from `mirrorctl` through the coordinator and the agent to rsync's exit. Off it costs nothing, and a
//! collector that is dead harms nothing.

use std::{
    io::{BufRead as _, BufReader},
    net::Ipv4Addr,
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use fleet_tests::{Fleet, FleetOptions, address, eventually};
use serde_json::Value;

use crate::clients::tool;

const PORT: u16 = 4317;

/// A collector in Python: somebody else's reading of the protocol.
pub(crate) struct Collector {
    child: Child,
    stdin: Option<ChildStdin>,
    spans: Arc<Mutex<Vec<Value>>>,
    address: Ipv4Addr,
}

impl Collector {
    pub(crate) fn start() -> Self {
        let address = address::unique();
        let script = crate::tidy::root().join("tests/it/clients/otlp_receiver.py");
        let mut child = Command::new(tool("python"))
            .arg(script)
            .arg(format!("{address}:{PORT}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the collector starts");
        let stdin = child.stdin.take();
        let mut lines = BufReader::new(child.stdout.take().expect("its output is a pipe")).lines();
        let ready = lines.next().and_then(Result::ok);
        assert_eq!(ready.as_deref(), Some("ready"), "the collector listens");
        let spans = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&spans);
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let span = serde_json::from_str(&line).expect("one JSON object a line");
                seen.lock().expect("no reader panicked").push(span);
            }
        });
        Self { child, stdin, spans, address }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}:{PORT}", self.address)
    }

    pub(crate) fn spans(&self) -> Vec<Value> {
        self.spans.lock().expect("no writer panicked").clone()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}

pub(crate) fn environment(endpoint: &str) -> Vec<(String, String)> {
    let names = ["MIRROR_COORDINATOR_OTLP_ENDPOINT", "MIRROR_AGENT_OTLP_ENDPOINT", "MIRRORCTL_OTLP_ENDPOINT"];
    names.into_iter().map(|name| (name.to_owned(), endpoint.to_owned())).collect()
}

#[test]
fn one_trace_leads_from_mirrorctl_to_rsyncs_exit() {
    let collector = Collector::start();
    let environment = environment(&collector.endpoint());
    let fleet =
        Fleet::start(FleetOptions { environment, ..FleetOptions::default() }).expect("a fleet starts");
    fleet.add_project("debian", &[]).ok();
    fleet.mirrorctl(&["project", "run", "debian", "--watch"]).ok();
    fleet.await_run("debian", "SUCCEEDED");

    let spans = eventually("the agent's span arrives", || {
        let spans = collector.spans();
        spans.iter().any(|span| span["service"] == "agent" && span["name"] == "attempt").then_some(spans)
    });
    let attempt =
        spans.iter().find(|span| span["service"] == "agent" && span["name"] == "attempt").expect("found");
    let of_trace: Vec<&Value> = spans.iter().filter(|span| span["trace"] == attempt["trace"]).collect();
    for service in ["mirrorctl", "coordinator", "agent"] {
        assert!(
            of_trace.iter().any(|span| span["service"] == service),
            "{service} has no span in it: {of_trace:#?}"
        );
    }
    for field in ["project", "run", "attempt", "epoch", "agent"] {
        assert!(!attempt["attributes"][field].is_null(), "{field} is missing: {attempt}");
    }
    // Every span but the first hangs on another of the same trace.
    let root = of_trace.iter().filter(|span| span["parent"] == "").count();
    assert_eq!(root, 1, "one root: {of_trace:#?}");
}

#[test]
fn a_dead_collector_harms_nothing() {
    let environment = environment(&format!("http://{}:{PORT}", address::unique()));
    let fleet =
        Fleet::start(FleetOptions { environment, ..FleetOptions::default() }).expect("a fleet starts");
    fleet.add_project("debian", &[]).ok();
    fleet.mirrorctl(&["project", "run", "debian", "--watch"]).ok();
    fleet.await_run("debian", "SUCCEEDED");
}
