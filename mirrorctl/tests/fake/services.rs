//! The fake's answers. `debian` exists; runs end as their project is called: `failing`, `held`, `cancelled`,
//! `endless`, otherwise well; `flaky` loses its first stream.

use std::pin::Pin;
use std::sync::{Arc, Mutex};

use mirror_certs::{CertificateAuthority, Identity, USER_LIFE};
use mirror_proto::v1;
use mirror_proto::v1::agent_service_server::AgentService;
use mirror_proto::v1::fleet_service_server::FleetService;
use mirror_proto::v1::project_service_server::ProjectService;
use mirror_proto::v1::run::State as RunState;
use mirror_proto::v1::run_service_server::RunService;
use mirror_proto::v1::user_service_server::UserService;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::Script;
use super::answers::{RUN, check, course, held, project};

/// What a terminal would obey: it clears, names its window, speaks in eight bits and turns the direction of writing.
pub(crate) const HOSTILE: &str = "x\u{1b}[2J\u{1b}]0;t\u{7}\u{9b}31m\u{202e}\r\u{8}y";

#[derive(Clone)]
pub(crate) struct Services {
    pub(crate) script: Arc<Mutex<Script>>,
    pub(crate) ca: Arc<CertificateAuthority>,
}

type Answer<T> = Result<Response<T>, Status>;
type Items<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn unserved<T>() -> Answer<T> {
    Err(Status::unimplemented("not in this script"))
}

#[tonic::async_trait]
impl ProjectService for Services {
    async fn create_project(&self, request: Request<v1::CreateProjectRequest>) -> Answer<v1::Project> {
        let mut script = self.script.lock().unwrap();
        script
            .traceparents
            .extend(request.metadata().get("traceparent").map(|text| text.to_str().unwrap().to_owned()));
        let request = request.into_inner();
        let project = request.project.clone().unwrap();
        script.created.push(request);
        check(&project)?;
        Ok(Response::new(project))
    }

    /// All of it is new.
    async fn plan_projects(
        &self,
        request: Request<v1::PlanProjectsRequest>,
    ) -> Answer<v1::PlanProjectsResponse> {
        let projects = request.into_inner().projects.into_iter();
        let created = |one: v1::DeclaredProject| v1::ProjectChange {
            project: one.project.unwrap_or_default().name,
            action: v1::project_change::Action::Create.into(),
            ..v1::ProjectChange::default()
        };
        let changes = projects.map(created).collect();
        Ok(Response::new(v1::PlanProjectsResponse { changes, ..v1::PlanProjectsResponse::default() }))
    }

    /// The fleet changed meanwhile.
    async fn apply_projects(
        &self,
        _: Request<v1::ApplyProjectsRequest>,
    ) -> Answer<v1::ApplyProjectsResponse> {
        let left_out = vec!["debian not created: there is no agent \"edge1\" any more".to_owned()];
        Ok(Response::new(v1::ApplyProjectsResponse { left_out, ..v1::ApplyProjectsResponse::default() }))
    }

    async fn export_projects(
        &self,
        _: Request<v1::ExportProjectsRequest>,
    ) -> Answer<v1::ExportProjectsResponse> {
        unserved()
    }

    async fn get_project(&self, request: Request<v1::GetProjectRequest>) -> Answer<v1::Project> {
        match request.into_inner().name.as_str() {
            "projects/debian" => Ok(Response::new(held(project("projects/debian")))),
            "projects/hostile" => {
                let status = v1::ProjectStatus { unplaced: vec![HOSTILE.to_owned()], ..Default::default() };
                let labels = [(HOSTILE.to_owned(), HOSTILE.to_owned())].into();
                let hostile = project(HOSTILE);
                let display_name = HOSTILE.to_owned();
                Ok(Response::new(v1::Project { display_name, labels, status: Some(status), ..hostile }))
            }
            "projects/unknown" => Err(Status::failed_precondition(HOSTILE)),
            "projects/broken" => Err(Status::internal("the store is broken")),
            other => Err(Status::not_found(format!("no project {other:?}"))),
        }
    }

    async fn list_projects(&self, _: Request<v1::ListProjectsRequest>) -> Answer<v1::ListProjectsResponse> {
        let labelled = |name: &str, tier: &str| {
            let labels = [("tier".to_owned(), tier.to_owned()), ("site".to_owned(), "a b".to_owned())];
            v1::Project { labels: labels.into(), ..project(name) }
        };
        let projects = vec![labelled("projects/debian", "1"), labelled("projects/fedora", "2")];
        Ok(Response::new(v1::ListProjectsResponse { projects, next_page_token: String::new() }))
    }

    async fn update_project(&self, request: Request<v1::UpdateProjectRequest>) -> Answer<v1::Project> {
        let request = request.into_inner();
        let project = request.project.clone().unwrap();
        self.script.lock().unwrap().updated.push(request);
        check(&project)?;
        Ok(Response::new(project))
    }

    async fn delete_project(&self, request: Request<v1::DeleteProjectRequest>) -> Answer<()> {
        self.script.lock().unwrap().deleted.push(request.into_inner());
        Ok(Response::new(()))
    }

    async fn explain_project(
        &self,
        request: Request<v1::ExplainProjectRequest>,
    ) -> Answer<v1::ExplainProjectResponse> {
        let fault = match request.into_inner().name.as_str() {
            "projects/debian" => String::new(),
            "projects/away" => "it is not connected, and only it knows its own file and rsync".to_owned(),
            name => return Err(Status::not_found(format!("no project {name:?}"))),
        };
        let line = v1::CommandLine { agent: "agents/edge1".to_owned(), fault, ..v1::CommandLine::default() };
        Ok(Response::new(v1::ExplainProjectResponse { command_lines: vec![line] }))
    }

    async fn rename_project(&self, request: Request<v1::RenameProjectRequest>) -> Answer<v1::Project> {
        let request = request.into_inner();
        match (request.name.as_str(), request.new_name.as_str()) {
            ("projects/debian", "projects/taken") => {
                Err(Status::already_exists("a project \"taken\" exists; names are unique ignoring case"))
            }
            ("projects/debian", new) => Ok(Response::new(project(new))),
            (name, _) => Err(Status::not_found(format!("no project {name:?}"))),
        }
    }

    async fn archive_project(&self, request: Request<v1::ArchiveProjectRequest>) -> Answer<v1::Project> {
        let archived =
            Some(v1::Archive { reason: request.get_ref().reason.clone(), ..v1::Archive::default() });
        Ok(Response::new(v1::Project { archived, ..project(&request.get_ref().name) }))
    }

    async fn unarchive_project(&self, request: Request<v1::UnarchiveProjectRequest>) -> Answer<v1::Project> {
        Ok(Response::new(project(&request.get_ref().name)))
    }

    async fn pause_project(&self, request: Request<v1::PauseProjectRequest>) -> Answer<v1::Project> {
        let name = request.into_inner().name;
        if name == "projects/debian" {
            return Ok(Response::new(project(&name)));
        }
        Err(Status::not_found(format!("no project {name:?}")))
    }

    async fn resume_project(&self, _: Request<v1::ResumeProjectRequest>) -> Answer<v1::Project> {
        Err(Status::permission_denied("you may not resume fedora: you own debian, gnu"))
    }

    async fn run_project(&self, request: Request<v1::RunProjectRequest>) -> Answer<v1::RunProjectResponse> {
        let request = request.into_inner();
        let name = request.name.clone();
        self.script.lock().unwrap().started.push(request);
        let run = v1::Run { name: format!("{name}/runs/{RUN}"), ..v1::Run::default() };
        Ok(Response::new(v1::RunProjectResponse { run: Some(run), coalesced: false, notes: Vec::new() }))
    }

    async fn push_project(
        &self,
        request: Request<v1::PushProjectRequest>,
    ) -> Answer<v1::PushProjectResponse> {
        let v1::PushProjectRequest { name, request_id } = request.into_inner();
        if request_id.is_empty() {
            return Err(Status::invalid_argument("a push without a request id"));
        }
        let notes = vec!["the project is paused by maria; the run waits for the resume".to_owned()];
        let run = format!("{name}/runs/{RUN}");
        Ok(Response::new(v1::PushProjectResponse { run, coalesced: name == "projects/debian", notes }))
    }

    async fn promote_origin(&self, _request: Request<v1::PromoteOriginRequest>) -> Answer<v1::Project> {
        unserved()
    }

    async fn reseed_placement(&self, request: Request<v1::ReseedPlacementRequest>) -> Answer<v1::Run> {
        let v1::ReseedPlacementRequest { name, agent, from, .. } = request.into_inner();
        if from == agent {
            let text =
                "\"ftp1\" not reseeded with \"debian\": it cannot copy from itself; name another agent";
            return Err(Status::failed_precondition(text));
        }
        let run = v1::Run { name: format!("{name}/runs/{RUN}"), reseed_from: from, ..v1::Run::default() };
        Ok(Response::new(run))
    }

    async fn move_placement(&self, request: Request<v1::MovePlacementRequest>) -> Answer<v1::Run> {
        let v1::MovePlacementRequest { name, destination, .. } = request.into_inner();
        if destination == "a1:debian" {
            let text = "\"debian\" on \"ftp1\" not moved to a1:debian: its tree is there already";
            return Err(Status::failed_precondition(text));
        }
        let (move_from, move_to) = ("a1:debian".to_owned(), destination);
        Ok(Response::new(v1::Run {
            name: format!("{name}/runs/{RUN}"),
            move_from,
            move_to,
            ..v1::Run::default()
        }))
    }

    async fn switch_upstream(&self, _request: Request<v1::SwitchUpstreamRequest>) -> Answer<v1::Project> {
        unserved()
    }

    async fn why_project(&self, _: Request<v1::WhyProjectRequest>) -> Answer<v1::WhyProjectResponse> {
        let sentences = vec!["debian is queued.".to_owned(), "the fleet is frozen.".to_owned()];
        Ok(Response::new(v1::WhyProjectResponse { waits: Vec::new(), sentences }))
    }

    async fn check_project(
        &self,
        request: Request<v1::CheckProjectRequest>,
    ) -> Answer<v1::CheckProjectResponse> {
        let v1::CheckProjectRequest { name, size, .. } = request.into_inner();
        if name != "projects/debian" {
            return Err(Status::not_found(format!("no project {name:?}")));
        }
        let finding = v1::Finding {
            agent: "agents/edge1".to_owned(),
            kind: v1::finding::Kind::Space.into(),
            severity: v1::finding::Severity::Fault.into(),
            sentence: "edge1 a1:x lacks ~12.0 GiB above its reserve of 160 GiB".to_owned(),
            ..v1::Finding::default()
        };
        // Without the size there is nothing to lack.
        let findings = if size { vec![finding] } else { Vec::new() };
        let faults = u32::from(size);
        Ok(Response::new(v1::CheckProjectResponse { findings, faults, warnings: 0 }))
    }

    async fn preview_schedule(
        &self,
        _: Request<v1::PreviewScheduleRequest>,
    ) -> Answer<v1::PreviewScheduleResponse> {
        unserved()
    }
}

#[tonic::async_trait]
impl RunService for Services {
    type WatchRunStream = Items<v1::WatchRunResponse>;
    type TailRunLogStream = Items<v1::TailRunLogResponse>;

    async fn watch_run(&self, request: Request<v1::WatchRunRequest>) -> Answer<Self::WatchRunStream> {
        let name = request.into_inner().name;
        let watches = {
            let mut script = self.script.lock().unwrap();
            script.watches += 1;
            script.watches
        };
        let project = name.split('/').nth(1).unwrap().to_owned();
        let mut messages = course(&project);
        if project == "endless" {
            messages.truncate(2);
            return Ok(Response::new(Box::pin(
                tokio_stream::iter(messages.into_iter().map(Ok)).chain(tokio_stream::pending()),
            )));
        }
        let mut messages: Vec<Result<_, Status>> = messages.into_iter().map(Ok).collect();
        if project == "flaky" && watches == 1 {
            messages.truncate(2);
            messages.push(Err(Status::unavailable("the coordinator stops")));
        }
        Ok(Response::new(Box::pin(tokio_stream::iter(messages))))
    }

    async fn tail_run_log(&self, _: Request<v1::TailRunLogRequest>) -> Answer<Self::TailRunLogStream> {
        let chunks = ["receiving file list\n", "pool/a\npool/b\n", "total size is 7\n"];
        let chunks = chunks.map(|text| Ok(v1::TailRunLogResponse { data: text.as_bytes().to_vec() }));
        Ok(Response::new(Box::pin(tokio_stream::iter(chunks))))
    }

    async fn get_run(&self, request: Request<v1::GetRunRequest>) -> Answer<v1::Run> {
        Err(Status::not_found(format!("no run {:?}", request.into_inner().name)))
    }

    async fn list_runs(&self, request: Request<v1::ListRunsRequest>) -> Answer<v1::ListRunsResponse> {
        let run =
            v1::Run { name: format!("{}/runs/{RUN}", request.into_inner().parent), ..v1::Run::default() };
        Ok(Response::new(v1::ListRunsResponse { runs: vec![run], next_page_token: String::new() }))
    }

    async fn list_attempts(&self, _: Request<v1::ListAttemptsRequest>) -> Answer<v1::ListAttemptsResponse> {
        unserved()
    }

    async fn cancel_run(&self, request: Request<v1::CancelRunRequest>) -> Answer<v1::Run> {
        let run = v1::Run { name: request.into_inner().name, ..v1::Run::default() };
        Ok(Response::new(run))
    }

    async fn approve_run(&self, request: Request<v1::ApproveRunRequest>) -> Answer<v1::Run> {
        let request = request.into_inner();
        let project = request.name.split('/').nth(1).unwrap().to_owned();
        self.script.lock().unwrap().approved.push(request);
        let name = format!("projects/{project}/runs/{RUN}");
        Ok(Response::new(v1::Run { name, state: RunState::Queued.into(), ..v1::Run::default() }))
    }
}

#[tonic::async_trait]
impl AgentService for Services {
    async fn get_agent(&self, request: Request<v1::GetAgentRequest>) -> Answer<v1::Agent> {
        if request.into_inner().name == "agents/hostile" {
            let hostile = || HOSTILE.to_owned();
            let root = v1::Root { name: hostile(), path: hostile(), ..v1::Root::default() };
            return Ok(Response::new(v1::Agent {
                name: hostile(),
                labels: [(hostile(), hostile())].into(),
                version: hostile(),
                rsync_version: hostile(),
                roots: vec![root],
                jail_gaps: vec![hostile()],
                trash: vec![v1::TrashedTree {
                    project: hostile(),
                    destination: hostile(),
                    state: v1::trashed_tree::State::Stays.into(),
                    reason: hostile(),
                    ..v1::TrashedTree::default()
                }],
                ..v1::Agent::default()
            }));
        }
        Ok(Response::new(v1::Agent { name: "agents/edge1".to_owned(), ..v1::Agent::default() }))
    }

    /// Every agent but `edge1` can be declared.
    async fn create_agent(&self, request: Request<v1::CreateAgentRequest>) -> Answer<v1::Agent> {
        let agent = request.into_inner().agent.unwrap();
        if agent.name == "agents/edge1" {
            return Err(Status::already_exists("an agent \"edge1\" exists; names are unique ignoring case"));
        }
        Ok(Response::new(v1::Agent { declared_only: true, ..agent }))
    }

    /// Only `edge1` is there, and it may run 64 attempts at most.
    async fn update_agent(&self, request: Request<v1::UpdateAgentRequest>) -> Answer<v1::Agent> {
        let request = request.into_inner();
        let agent = request.agent.clone().unwrap();
        if agent.name != "agents/edge1" {
            return Err(Status::not_found("no such agent"));
        }
        if agent.max_running > 64 {
            let mut details = ErrorDetails::new();
            details
                .add_bad_request_violation("agent.max_running", "\"65\": must be 1 to 64, or 0 for no cap");
            return Err(Status::with_error_details(Code::InvalidArgument, "agent not changed", details));
        }
        self.script.lock().unwrap().updated_agents.push(request);
        Ok(Response::new(agent))
    }

    /// One is called so that a shell would run it.
    async fn list_agents(&self, request: Request<v1::ListAgentsRequest>) -> Answer<v1::ListAgentsResponse> {
        self.script.lock().unwrap().listed_agents.push(request.into_inner());
        let named = |name: &str| v1::Agent { name: format!("agents/{name}"), ..v1::Agent::default() };
        let agents = vec![named("edge1"), named("e$(touch${IFS}x)"), named(HOSTILE)];
        Ok(Response::new(v1::ListAgentsResponse { agents, next_page_token: String::new() }))
    }

    async fn drain_agent(&self, request: Request<v1::DrainAgentRequest>) -> Answer<v1::Agent> {
        Ok(Response::new(v1::Agent { name: request.into_inner().name, ..v1::Agent::default() }))
    }

    async fn undrain_agent(&self, _: Request<v1::UndrainAgentRequest>) -> Answer<v1::Agent> {
        unserved()
    }

    async fn revoke_agent(&self, _: Request<v1::RevokeAgentRequest>) -> Answer<v1::Agent> {
        unserved()
    }

    /// `ftp1` can be replaced by `edge1`, and by nobody else.
    async fn replace_agent(
        &self,
        request: Request<v1::ReplaceAgentRequest>,
    ) -> Answer<v1::ReplaceAgentResponse> {
        let request = request.into_inner();
        if (request.name.as_str(), request.replacement.as_str()) != ("agents/ftp1", "agents/edge1") {
            let mut details = ErrorDetails::new();
            details.add_bad_request_violation("name", "there is no such agent");
            details.add_bad_request_violation("replacement", "there is no such agent");
            return Err(Status::with_error_details(Code::InvalidArgument, "agent not replaced", details));
        }
        let copied = v1::ReplacedPlacement {
            project: "projects/debian".to_owned(),
            role: v1::Role::Origin.into(),
            destination: "a1:debian".to_owned(),
            refill: v1::replaced_placement::Refill::Copied.into(),
            copied_from: "agents/edge2".to_owned(),
            run: if request.validate_only { String::new() } else { format!("projects/debian/runs/{RUN}") },
            ..v1::ReplacedPlacement::default()
        };
        self.script.lock().unwrap().replaced.push(request);
        let placements = vec![copied];
        Ok(Response::new(v1::ReplaceAgentResponse { placements, ..v1::ReplaceAgentResponse::default() }))
    }

    async fn delete_agent(&self, _: Request<v1::DeleteAgentRequest>) -> Answer<()> {
        unserved()
    }

    async fn create_join_token(&self, request: Request<v1::CreateJoinTokenRequest>) -> Answer<v1::JoinToken> {
        let request = request.into_inner();
        let token = v1::JoinToken {
            name: "joinTokens/7f3a".to_owned(),
            token: "mjt_secret".to_owned(),
            agent: request.agent,
            uses_left: 1,
            cidrs: request.cidrs,
            ca_hash: "sha256:9b1e".to_owned(),
            ..v1::JoinToken::default()
        };
        Ok(Response::new(token))
    }

    async fn list_join_tokens(
        &self,
        _: Request<v1::ListJoinTokensRequest>,
    ) -> Answer<v1::ListJoinTokensResponse> {
        unserved()
    }

    async fn delete_join_token(&self, _: Request<v1::DeleteJoinTokenRequest>) -> Answer<()> {
        unserved()
    }
}

#[tonic::async_trait]
impl FleetService for Services {
    async fn get_status(&self, _: Request<v1::GetStatusRequest>) -> Answer<v1::FleetStatus> {
        Ok(Response::new(v1::FleetStatus {
            projects: vec![project("projects/debian")],
            ..v1::FleetStatus::default()
        }))
    }

    async fn list_housekeeping_jobs(
        &self,
        _: Request<v1::ListHousekeepingJobsRequest>,
    ) -> Answer<v1::ListHousekeepingJobsResponse> {
        unserved()
    }

    /// `prune` fails, `backup` is done, and there is no other.
    async fn run_housekeeping_job(
        &self,
        request: Request<v1::RunHousekeepingJobRequest>,
    ) -> Answer<v1::HousekeepingJob> {
        let name = request.into_inner().name;
        let (last_failed, outcome) = match name.as_str() {
            "housekeepingJobs/prune" => (true, "the disk is full"),
            "housekeepingJobs/backup" => (false, "4 entries"),
            _ => return Err(Status::not_found("no housekeeping job \"fly\"")),
        };
        let last_duration = Some(prost_types::Duration { seconds: 3, nanos: 0 });
        let last_outcome = outcome.to_owned();
        let job =
            v1::HousekeepingJob { name, last_duration, last_failed, last_outcome, ..Default::default() };
        Ok(Response::new(job))
    }

    async fn freeze(&self, _: Request<v1::FreezeRequest>) -> Answer<v1::FleetStatus> {
        unserved()
    }

    async fn thaw(&self, _: Request<v1::ThawRequest>) -> Answer<v1::FleetStatus> {
        unserved()
    }

    async fn list_audit_events(
        &self,
        request: Request<v1::ListAuditEventsRequest>,
    ) -> Answer<v1::ListAuditEventsResponse> {
        let request = request.into_inner();
        if request.filter.contains("who=users/nobody") {
            return Err(Status::permission_denied("it needs the role admin"));
        }
        let event = |n: u32| v1::AuditEvent {
            id: format!("{n:020x}"),
            who: "users/maria".to_owned(),
            action: "ProjectService.PauseProject".to_owned(),
            message: request.filter.clone(),
            count: 1,
            ..v1::AuditEvent::default()
        };
        // Three events, two on a page.
        let (events, next) = match request.page_token.as_str() {
            "" => (vec![event(3), event(2)], "more"),
            _ => (vec![event(1)], ""),
        };
        let (next_page_token, newest_id) = (next.to_owned(), format!("{:020x}", 3));
        Ok(Response::new(v1::ListAuditEventsResponse { events, next_page_token, newest_id }))
    }

    type WatchAuditEventsStream = Items<v1::WatchAuditEventsResponse>;

    async fn watch_audit_events(
        &self,
        request: Request<v1::WatchAuditEventsRequest>,
    ) -> Answer<Self::WatchAuditEventsStream> {
        let v1::WatchAuditEventsRequest { after, filter } = request.into_inner();
        let event = v1::AuditEvent {
            id: format!("{:020x}", 4),
            message: format!("after {after} {filter}"),
            ..v1::AuditEvent::default()
        };
        let events = vec![Ok(v1::WatchAuditEventsResponse { events: vec![event] })];
        let slow = Err(Status::resource_exhausted("the follower has not read for 30 s"));
        Ok(Response::new(Box::pin(tokio_stream::iter(events.into_iter().chain([slow])))))
    }

    type BackupStream = tokio_stream::Empty<Result<v1::BackupResponse, Status>>;

    async fn backup(&self, _: Request<v1::BackupRequest>) -> Answer<Self::BackupStream> {
        unserved()
    }
}

#[tonic::async_trait]
impl UserService for Services {
    async fn create_user(&self, request: Request<v1::CreateUserRequest>) -> Answer<v1::User> {
        let v1::CreateUserRequest { user, password } = request.into_inner();
        let has_password = !password.is_empty();
        let ca_hash = self.ca.ca_hash().to_string();
        Ok(Response::new(v1::User { has_password, ca_hash, ..user.unwrap_or_default() }))
    }

    async fn get_user(&self, _: Request<v1::GetUserRequest>) -> Answer<v1::User> {
        unserved()
    }

    async fn create_push_token(&self, request: Request<v1::CreatePushTokenRequest>) -> Answer<v1::PushToken> {
        let request = request.into_inner();
        let asked = &mut self.script.lock().unwrap().push_tokens;
        let again = asked.iter().any(|before| *before == request);
        asked.push(request.clone());
        let v1::CreatePushTokenRequest { project, note, .. } = request;
        if note == "lost" && !again {
            return Err(Status::unavailable("it was made, and nobody is told"));
        }
        let name = "pushTokens/7f3a".to_owned();
        let token = if again { String::new() } else { "mpt_secret".to_owned() };
        Ok(Response::new(v1::PushToken { name, token, project, note, ..v1::PushToken::default() }))
    }

    async fn list_push_tokens(
        &self,
        request: Request<v1::ListPushTokensRequest>,
    ) -> Answer<v1::ListPushTokensResponse> {
        let v1::ListPushTokensRequest { project, page_token, .. } = request.into_inner();
        let (id, next) = if page_token.is_empty() { ("7f3a", "more") } else { ("80bb", "") };
        let token = v1::PushToken { name: format!("pushTokens/{id}"), project, ..v1::PushToken::default() };
        let (push_tokens, next_page_token) = (vec![token], next.to_owned());
        Ok(Response::new(v1::ListPushTokensResponse { push_tokens, next_page_token }))
    }

    async fn delete_push_token(&self, request: Request<v1::DeletePushTokenRequest>) -> Answer<()> {
        self.script.lock().unwrap().deleted_push_tokens.push(request.into_inner().name);
        Ok(Response::new(()))
    }

    async fn list_users(&self, _: Request<v1::ListUsersRequest>) -> Answer<v1::ListUsersResponse> {
        unserved()
    }

    async fn update_user(&self, _: Request<v1::UpdateUserRequest>) -> Answer<v1::User> {
        unserved()
    }

    async fn set_password(&self, _: Request<v1::SetPasswordRequest>) -> Answer<v1::User> {
        unserved()
    }

    async fn delete_user(&self, _: Request<v1::DeleteUserRequest>) -> Answer<()> {
        unserved()
    }

    async fn login(&self, request: Request<v1::LoginRequest>) -> Answer<v1::LoginResponse> {
        let user = request.into_inner().user;
        Ok(Response::new(v1::LoginResponse {
            token: "mut_secret".to_owned(),
            name: format!("{user}/tokens/1"),
            role: v1::UserRole::Viewer.into(),
            ca_certificates: self.ca.cert_pem(),
            ..v1::LoginResponse::default()
        }))
    }

    async fn logout(&self, _: Request<v1::LogoutRequest>) -> Answer<()> {
        unserved()
    }

    async fn list_tokens(&self, _: Request<v1::ListTokensRequest>) -> Answer<v1::ListTokensResponse> {
        unserved()
    }

    async fn revoke_token(&self, _: Request<v1::RevokeTokenRequest>) -> Answer<()> {
        unserved()
    }

    async fn who_am_i(&self, _: Request<v1::WhoAmIRequest>) -> Answer<v1::WhoAmIResponse> {
        unserved()
    }

    async fn issue_certificate(
        &self,
        request: Request<v1::IssueCertificateRequest>,
    ) -> Answer<v1::IssueCertificateResponse> {
        if self.script.lock().unwrap().no_certificates {
            return Err(Status::permission_denied("users/admin is on the deny list"));
        }
        let request = request.into_inner().certificate_request;
        let admin = Identity::User("admin".parse().unwrap());
        let issued = self.ca.issue_from_csr(&request, &admin, mirrorctl::clock::now(), USER_LIFE).unwrap();
        let bundle = format!("# as of now\n{}", self.ca.cert_pem());
        Ok(Response::new(v1::IssueCertificateResponse {
            certificate: issued.cert_pem,
            ca_certificates: bundle,
            expire_time: None,
            name: "users/admin".to_owned(),
        }))
    }
}
