//! What the fake answers with: projects, their faults, and runs as they go.

use mirror_proto::v1;
use mirror_proto::v1::attempt::State as AttemptState;
use mirror_proto::v1::run::State as RunState;
use prost_types::Timestamp;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// The id of every run.
pub(super) const RUN: &str = "01a1f7e0-6a99-7c02-9d1f-8a3b6f20c1de";

pub(super) fn project(name: &str) -> v1::Project {
    v1::Project {
        name: name.to_owned(),
        destination: "a1:x".to_owned(),
        etag: "7".to_owned(),
        ..v1::Project::default()
    }
}

/// The project with an open hold of its delete limit.
pub(super) fn held(project: v1::Project) -> v1::Project {
    let attempt = "projects/debian/runs/01a1f797-47f1-7c02-9d1f-8a3b6f20c1de/attempts/1".to_owned();
    let evidence = v1::Evidence {
        kind: v1::evidence::Kind::Deletes.into(),
        wanted: 21_204,
        allowed: 40_000,
        ..v1::Evidence::default()
    };
    let hold = v1::Hold {
        first_attempt: attempt.clone(),
        newest_attempt: attempt,
        evidence: Some(evidence),
        ..v1::Hold::default()
    };
    let placement = v1::PlacementStatus {
        agent: "agents/edge1".to_owned(),
        role: v1::Role::Origin.into(),
        hold: Some(hold),
        ..v1::PlacementStatus::default()
    };
    let status = v1::ProjectStatus { placements: vec![placement], ..v1::ProjectStatus::default() };
    v1::Project { status: Some(status), ..project }
}

/// Faults as the coordinator finds them.
pub(super) fn check(project: &v1::Project) -> Result<(), Status> {
    let mut details = ErrorDetails::new();
    for (index, upstream) in project.upstreams.iter().enumerate() {
        if !upstream.uri.starts_with("rsync://") {
            let text = format!("{:?}: unknown scheme; rsync:// or rsync+ssh://", upstream.uri);
            details.add_bad_request_violation(format!("upstreams[{index}].uri"), text);
        }
    }
    for origin in project.placement.iter().flat_map(|placement| &placement.origins) {
        if origin.agent != "agents/edge1" {
            let text = format!("{:?}: there is no such agent", origin.agent);
            details.add_bad_request_violation("placement.origins[0].agent", text);
        }
    }
    if !project.destination.contains(':') {
        let text = format!("{:?}: needs a root, as in a1:debian", project.destination);
        details.add_bad_request_violation("destination", text);
    }
    match details.bad_request() {
        None => Ok(()),
        Some(_) => Err(Status::with_error_details(Code::InvalidArgument, "project: faults", details)),
    }
}

/// The run of a project as it goes: queued, running, ended as the project's name says.
pub(super) fn course(project: &str) -> Vec<v1::WatchRunResponse> {
    let step = |run: RunState, attempt: AttemptState, percent: Option<u32>| {
        let time = |seconds: i64| Some(Timestamp { seconds: 1_795_160_530 + seconds, nanos: 0 });
        let name = format!("projects/{project}/runs/{RUN}");
        let attempt = v1::Attempt {
            name: format!("{name}/attempts/1"),
            agent: "agents/edge1".to_owned(),
            role: v1::Role::Origin.into(),
            state: attempt.into(),
            start_time: time(0),
            end_time: time(9),
            progress: percent
                .map(|percent| v1::Progress { percent: Some(percent), ..v1::Progress::default() }),
            ..v1::Attempt::default()
        };
        let run =
            v1::Run { name, state: run.into(), start_time: time(0), end_time: time(9), ..v1::Run::default() };
        v1::WatchRunResponse { run: Some(run), attempts: vec![attempt] }
    };
    let (run, attempt) = match project {
        "failing" => (RunState::Failed, AttemptState::Failed),
        "held" => (RunState::Held, AttemptState::Held),
        "cancelled" => (RunState::Cancelled, AttemptState::Cancelled),
        "replica-failing" => (RunState::Failed, AttemptState::Succeeded),
        _ => (RunState::Succeeded, AttemptState::Succeeded),
    };
    vec![
        step(RunState::Queued, AttemptState::Pending, None),
        step(RunState::Running, AttemptState::Running, Some(63)),
        step(run, attempt, None),
    ]
}
