//! `mirrorctl project`.

use std::io::Read as _;
use std::path::Path;

use mirror_proto::v1;
use prost_types::FieldMask;
use tonic::{Code, Status};

use super::several::{self, Done, Words};
use super::{all_agents, delete, life, of_project, projects_by};
use crate::app::{App, quoted};
use crate::cli::{AddArgs, EditArgs, ListArgs, ProjectCommand, ProjectFlags, ProjectsArg};
use crate::client::Client;
use crate::confirm::secret;
use crate::exit::Exit;
use crate::fault::{Fault, Faults, Outcome};
use crate::request::Passwords;
use crate::text::time;
use crate::{clock, names, request, suggest, text, units, watch};

/// Longest password file that is read, in bytes; the API takes 512.
const PASSWORD_BYTES_MAX: u64 = 4_096;

pub(super) async fn run(app: &App, command: ProjectCommand) -> Outcome<Exit> {
    match command {
        ProjectCommand::Add(args) => add(app, *args).await,
        ProjectCommand::List(args) => list(app, &args).await,
        ProjectCommand::Show { project } => show(app, &project).await,
        ProjectCommand::Edit(args) => edit(app, *args).await,
        ProjectCommand::Rename { project, new_name } => life::rename(app, &project, &new_name).await,
        ProjectCommand::Archive { projects, reason } => life::archive(app, &projects, &reason).await,
        ProjectCommand::Unarchive(projects) => life::unarchive(app, &projects).await,
        ProjectCommand::Pause { projects, until, reason } => {
            pause(app, &projects, until.as_deref(), &reason).await
        }
        ProjectCommand::Resume(projects) => resume(app, &projects).await,
        ProjectCommand::Run { projects, watch, dry_run, reclaim, allow_deletes } => {
            let request = v1::RunProjectRequest { dry_run, reclaim, allow_deletes, ..Default::default() };
            start(app, &projects, &request, watch).await
        }
        ProjectCommand::Push { project } => push(app, &project).await,
        ProjectCommand::Promote { project, to, force } => promote(app, &project, &to, force).await,
        ProjectCommand::Reseed { project, agent, from, watch } => {
            let mut faults = Faults::default();
            let request = v1::ReseedPlacementRequest {
                name: names::noted_project("PROJECT", &project, &mut faults),
                agent: names::noted_agent("--agent", &agent, &mut faults),
                from: names::noted_agent("--from", &from, &mut faults),
                etag: String::new(),
            };
            faults.finish("project not reseeded", "mirrorctl project reseed --help")?;
            reseed(app, &project, request, watch).await
        }
        ProjectCommand::Move { project, agent, to, watch } => {
            let mut faults = Faults::default();
            let request = v1::MovePlacementRequest {
                name: names::noted_project("PROJECT", &project, &mut faults),
                agent: names::noted_agent("--agent", &agent, &mut faults),
                destination: to,
                etag: String::new(),
            };
            faults.finish("project not moved", "mirrorctl project move --help")?;
            relocate(app, &project, request, watch).await
        }
        ProjectCommand::Switch { project, to } => switch(app, &project, to).await,
        ProjectCommand::Check { project, size } => super::check::run(app, &project, size).await,
        ProjectCommand::Explain { project } => super::check::explain(app, &project).await,
        ProjectCommand::Preview { project, count } => preview(app, &project, count).await,
        ProjectCommand::Delete { project, cancel_running, tree_to_trash } => {
            delete::delete(app, &project, cancel_running, tree_to_trash).await
        }
    }
}

async fn add(app: &App, args: AddArgs) -> Outcome<Exit> {
    const FAILED: &str = "project not created";
    const NEXT: &str = "mirrorctl project add --help";
    let mut faults = Faults::default();
    names::check_name("NAME", &args.name, &mut faults);
    let mut project = v1::Project { name: names::project(&args.name), ..v1::Project::default() };
    let passwords = passwords(&args.flags, &mut faults)?;
    if args.flags.from.is_none() && !args.flags.local {
        faults.add("--from", "is missing; --local is for trees that people put on the origin themselves");
    }
    request::apply(&args.flags, passwords, &mut project, &mut faults);
    let client = app.connect().await?;
    let request = v1::CreateProjectRequest {
        project: Some(project),
        request_id: uuid::Uuid::new_v4().to_string(),
        // With faults of our own the coordinator only adds those that it sees in the rest.
        validate_only: args.dry_run || !faults.is_empty(),
        paused: args.paused,
    };
    let created = match client.projects().create_project(request).await {
        Ok(created) if faults.is_empty() => created.into_inner(),
        Ok(_) => return Err(faults.into_fault(FAILED).next(NEXT)),
        Err(status) if !faults.is_empty() => {
            let fault = faults.with_answer(FAILED, &status).next(NEXT);
            return Err(with_nearest_origin(&client, &args.flags, fault).await);
        }
        Err(status) => {
            return Err(not_written(app, &client, &args.name, &args.flags, FAILED, NEXT, &status).await);
        }
    };
    let name = names::last(&created.name);
    let (what, next) = if args.dry_run {
        (format!("{name} would be added; nothing changed."), String::new())
    } else {
        (format!("{name} added. {}", fires(&created)), format!("mirrorctl project run {name} --watch"))
    };
    app.changed(&created, "Project", &[name], &what, &next)?;
    notes(app, &created);
    Ok(Exit::Done)
}

async fn edit(app: &App, args: EditArgs) -> Outcome<Exit> {
    const FAILED: &str = "project not changed";
    const NEXT: &str = "mirrorctl project edit --help";
    let mut faults = Faults::default();
    let name = names::noted_project("NAME", &args.name, &mut faults);
    if !faults.is_empty() {
        // There is nothing to change, and the flags' own faults are told all the same. Nobody is asked for a password.
        let flags = ProjectFlags { user: None, ..args.flags };
        passwords(&flags, &mut faults)?;
        request::apply(&flags, Passwords::default(), &mut v1::Project::default(), &mut faults);
        return Err(faults.into_fault(FAILED).next(NEXT));
    }
    let passwords = passwords(&args.flags, &mut faults)?;
    let client = app.connect().await?;
    let found = client.projects().get_project(v1::GetProjectRequest { name }).await;
    let mut project = match found {
        Ok(project) => project.into_inner(),
        Err(status) => return Err(of_project(app, &client, &args.name, FAILED, &status).await),
    };
    // The etag that was read goes back with the change, so that nobody else's is lost between the two.
    let mask = request::apply(&args.flags, passwords, &mut project, &mut faults);
    if mask.is_empty() {
        return Err(Fault::new(Exit::BadInput, format!("{FAILED}: nothing to change was given")).next(NEXT));
    }
    let request = v1::UpdateProjectRequest {
        project: Some(project),
        update_mask: Some(FieldMask { paths: mask.iter().map(|path| (*path).to_owned()).collect() }),
        validate_only: args.dry_run || !faults.is_empty(),
    };
    let updated = match client.projects().update_project(request).await {
        Ok(updated) if faults.is_empty() => updated.into_inner(),
        Ok(_) => return Err(faults.into_fault(FAILED).next(NEXT)),
        Err(status) if !faults.is_empty() => {
            let fault = faults.with_answer(FAILED, &status).next(NEXT);
            return Err(with_nearest_origin(&client, &args.flags, fault).await);
        }
        Err(status) => {
            return Err(not_written(app, &client, &args.name, &args.flags, FAILED, NEXT, &status).await);
        }
    };
    let name = names::last(&updated.name);
    let what = if args.dry_run {
        format!("{name} would be changed ({}); nothing changed.", mask.join(", "))
    } else {
        format!("{name} changed ({}). {}", mask.join(", "), fires(&updated))
    };
    app.changed(&updated, "Project", &[name], &what, &format!("mirrorctl project show {name}"))?;
    notes(app, &updated);
    Ok(Exit::Done)
}

/// Why a project was not written: most often a fault of a flag.
async fn not_written(
    app: &App,
    client: &Client,
    typed: &str,
    flags: &ProjectFlags,
    failed: &str,
    next: &str,
    status: &Status,
) -> Fault {
    if status.code() == Code::NotFound {
        return of_project(app, client, typed, failed, status).await;
    }
    let fault = with_nearest_origin(client, flags, Fault::from_status(failed, status)).await;
    if status.code() == Code::AlreadyExists {
        return fault.next(format!("mirrorctl project show {}", names::last(typed)));
    }
    if fault.exit == Exit::BadInput && fault.next.is_none() { fault.next(next) } else { fault }
}

/// Adds the nearest name to the fault of an origin that does not exist.
async fn with_nearest_origin(client: &Client, flags: &ProjectFlags, mut fault: Fault) -> Fault {
    let unknown =
        |(label, text): &&mut (String, String)| label == "--origin" && text.contains("no such agent");
    if let (Some((_, text)), Some(origin)) = (fault.details.iter_mut().find(unknown), &flags.origin) {
        let known = all_agents(client, "").await.unwrap_or_default();
        let nearest = suggest::nearest(origin, known.iter().map(|agent| names::last(&agent.name)));
        if let Some(nearest) = nearest {
            text.push_str(&format!("; the nearest name is {nearest}"));
        }
    }
    fault
}

/// The passwords to send; faults of files are noted.
fn passwords(flags: &ProjectFlags, faults: &mut Faults) -> Outcome<Passwords> {
    const FLAG: &str = "--fallback-password-file";
    let mut fallbacks = Vec::new();
    for text in &flags.fallback_password_file {
        let Some((host, path)) = text.split_once('=').filter(|(host, _)| !host.is_empty()) else {
            faults.add(FLAG, format_args!("{text:?}: write HOST=FILE"));
            continue;
        };
        let read = read_password(Path::new(path)).map_err(|error| format!("{path}: {error}"));
        fallbacks.extend(faults.check(FLAG, read).map(|password| (host.to_owned(), password)));
    }
    Ok(Passwords { first: password(flags, faults)?, fallbacks })
}

/// The password to send: from the file, or asked for on a terminal when a user was given. `None`: none is sent, and
/// on edit the stored one stays.
fn password(flags: &ProjectFlags, faults: &mut Faults) -> Outcome<Option<String>> {
    if let Some(path) = &flags.password_file {
        let read = read_password(path).map_err(|error| format!("{}: {error}", path.display()));
        return Ok(faults.check("--password-file", read));
    }
    let Some(user) = flags.user.as_deref().filter(|user| !user.is_empty()) else { return Ok(None) };
    let answer = secret(&format!("Password of {user} at the upstream (none: just Enter):"))?;
    Ok(answer.filter(|answer| !answer.is_empty()))
}

fn read_password(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    if path == Path::new("-") {
        std::io::stdin().take(PASSWORD_BYTES_MAX).read_to_string(&mut text)?;
    } else {
        std::fs::File::open(path)?.take(PASSWORD_BYTES_MAX).read_to_string(&mut text)?;
    }
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// `First fire 12:10 UTC (in 4h).`
pub(super) fn fires(project: &v1::Project) -> String {
    let status = project.status.clone().unwrap_or_default();
    match status.next_fire_times.first().and_then(|fire| time(Some(*fire))) {
        Some(fire) => format!("Next fire {}.", units::moment_and_distance(fire, clock::now())),
        None if project.paused.is_some() => "It is paused.".to_owned(),
        None if !project.after.is_empty() => format!("It runs after {}.", text::project::after(project)),
        None => "It runs when asked.".to_owned(),
    }
}

/// What the coordinator understood in a way worth saying.
fn notes(app: &App, project: &v1::Project) {
    for note in project.schedule.iter().flat_map(|schedule| &schedule.notes) {
        app.hint(&format!("Note: {}", units::clean(note)));
    }
}

async fn list(app: &App, args: &ListArgs) -> Outcome<Exit> {
    let mut faults = Faults::default();
    let (filter, selector) = request::project_filter(args, &mut faults);
    faults.finish("nothing listed", "mirrorctl project list --help")?;
    let order = if args.reverse { "name desc" } else { "" };
    let client = app.connect().await?;
    let mut projects = projects_by(&client, &filter, order)
        .await
        .map_err(|status| Fault::from_status("nothing listed", &status))?;
    projects.retain(|project| selector.fits(&project.labels));
    let response = v1::ListProjectsResponse { projects, next_page_token: String::new() };
    let names: Vec<&str> = response.projects.iter().map(|project| names::last(&project.name)).collect();
    app.answer(&response, "ListProjectsResponse", &names, |view| {
        match response.projects.is_empty() && !(filter.is_empty() && selector.is_empty()) {
            true => "No project is like that. Next: mirrorctl project list\n".to_owned(),
            false => text::project::list(view, &response.projects),
        }
    })?;
    Ok(Exit::Done)
}

async fn show(app: &App, typed: &str) -> Outcome<Exit> {
    const FAILED: &str = "nothing shown";
    let client = app.connect().await?;
    let name = names::checked_project(typed)?;
    let found = client.projects().get_project(v1::GetProjectRequest { name: name.clone() }).await;
    let project = match found {
        Ok(project) => project.into_inner(),
        Err(status) => return Err(of_project(app, &client, typed, FAILED, &status).await),
    };
    let (mut runs, mut why) = (Vec::new(), Vec::new());
    if !app.is_json() {
        let request = v1::ListRunsRequest {
            parent: name.clone(),
            page_size: text::project::LAST_RUNS,
            page_token: String::new(),
        };
        // These two only embellish: when they fail the project is still worth showing.
        runs = client.runs().list_runs(request).await.map(|page| page.into_inner().runs).unwrap_or_default();
        let answer = client.projects().why_project(v1::WhyProjectRequest { name }).await;
        why = answer.map(|why| why.into_inner().sentences).unwrap_or_default();
    }
    let short = [names::last(&project.name)];
    app.answer(&project, "Project", &short, |view| text::project::show(view, &project, &runs, &why))?;
    Ok(Exit::Done)
}

async fn pause(app: &App, projects: &ProjectsArg, until_text: Option<&str>, reason: &str) -> Outcome<Exit> {
    const WORDS: Words = Words { kind: "project", does: "pauses", failed: "not paused" };
    const FAILED: &str = "project not paused";
    let mut faults = Faults::default();
    let now = clock::now();
    for typed in &projects.names {
        names::check_name("PROJECT", names::last(typed), &mut faults);
    }
    let are_names = faults.is_empty();
    let until = until_text.and_then(|text| faults.check("--until", request::time_or_span(text, now)));
    if !are_names {
        return Err(faults.into_fault(FAILED).next("mirrorctl project pause --help"));
    }
    let client = app.connect().await?;
    if !faults.is_empty() {
        let fault = faults.into_fault(FAILED);
        return Err(match projects.names.as_slice() {
            [typed] => with_missing(app, &client, typed, until_text.unwrap_or_default(), fault).await,
            _ => fault.next("mirrorctl project pause --help"),
        });
    }
    let chosen = several::projects(app, &client, projects, FAILED).await?;
    several::each(app, &chosen, WORDS, async |typed| {
        let (name, reason) = (names::checked_project(typed)?, reason.to_owned());
        let request = v1::PauseProjectRequest { name, reason, until, etag: String::new() };
        let project = match client.projects().pause_project(request).await {
            Ok(project) => project.into_inner(),
            Err(status) => return Err(of_project(app, &client, typed, FAILED, &status).await),
        };
        let name = names::last(&project.name);
        let until = match project.paused.as_ref().and_then(|pause| time(pause.until)) {
            Some(until) => format!(" until {}", units::moment_and_distance(until, now)),
            None => String::new(),
        };
        let what = format!("{name} paused{until}; what runs goes on.");
        Done::new(&project, "Project", name, what, format!("mirrorctl project resume {name}"))
    })
    .await
}

/// A fault of `--until`, together with a name that does not exist.
async fn with_missing(app: &App, client: &Client, typed: &str, until: &str, fault: Fault) -> Fault {
    let name = names::project(typed);
    let found = client.projects().get_project(v1::GetProjectRequest { name }).await;
    let short = names::last(typed);
    match found {
        Err(status) if status.code() == Code::NotFound => {
            let mut missing = of_project(app, client, typed, "project not paused", &status).await;
            missing.details.extend(fault.details);
            // Both mended: the name as it was suggested, and a span.
            let typed = format!("--until {}", quoted(until));
            missing.next = missing.next.map(|next| next.replacen(&typed, "--until 3d", 1));
            missing
        }
        _ => fault.next(format!("mirrorctl project pause {short} --until 3d")),
    }
}

async fn resume(app: &App, projects: &ProjectsArg) -> Outcome<Exit> {
    const WORDS: Words = Words { kind: "project", does: "resumes", failed: "not resumed" };
    const FAILED: &str = "project not resumed";
    let client = app.connect().await?;
    let chosen = several::projects(app, &client, projects, FAILED).await?;
    several::each(app, &chosen, WORDS, async |typed| {
        let request = v1::ResumeProjectRequest { name: names::checked_project(typed)?, etag: String::new() };
        let project = match client.projects().resume_project(request).await {
            Ok(project) => project.into_inner(),
            Err(status) => return Err(of_project(app, &client, typed, FAILED, &status).await),
        };
        let name = names::last(&project.name);
        let what = format!("{name} resumed. {}", fires(&project));
        Done::new(&project, "Project", name, what, format!("mirrorctl project show {name}"))
    })
    .await
}

async fn start(
    app: &App,
    projects: &ProjectsArg,
    request: &v1::RunProjectRequest,
    follow: bool,
) -> Outcome<Exit> {
    const FAILED: &str = "no run started";
    let does = if request.dry_run { "starts a dry run of" } else { "starts a run of" };
    let words = Words { kind: "project", does, failed: "not started" };
    let client = app.connect().await?;
    let chosen = several::projects(app, &client, projects, FAILED).await?;
    if follow && chosen.several {
        let text = "follows one run: name one project, or leave it out and see mirrorctl status";
        let fault = Fault::of_input(FAILED, vec![("--watch".to_owned(), text.to_owned())]);
        return Err(fault.next("mirrorctl project run --help"));
    }
    let started = std::cell::RefCell::new(String::new());
    let exit = several::each(app, &chosen, words, async |typed| {
        let (name, request_id) = (names::checked_project(typed)?, uuid::Uuid::new_v4().to_string());
        let request = v1::RunProjectRequest { name, request_id, ..request.clone() };
        let kind = if request.dry_run { "Dry run" } else { "Run" };
        let response = match client.projects().run_project(request).await {
            Ok(response) => response.into_inner(),
            Err(status) => return Err(of_project(app, &client, typed, FAILED, &status).await),
        };
        let run = response.run.clone().unwrap_or_default();
        let (id, project) = (names::short_run(&run.name), names::project_of(&run.name));
        let what = match (response.coalesced, follow) {
            (true, _) => {
                format!("Queued as run {id} (coalesced): {project} has a run already; this one follows.")
            }
            (false, true) => format!("{kind} {id} of {project} started. Ctrl-C stops watching, not the run."),
            (false, false) => format!("{kind} {id} of {project} started."),
        };
        let next = if follow { String::new() } else { format!("mirrorctl run watch {project}") };
        started.replace(run.name.clone());
        let done = Done::new(&response, "RunProjectResponse", &run.name, what, next)?;
        Ok(Done { notes: response.notes, ..done })
    })
    .await?;
    if follow { watch::follow(app, client, started.into_inner()).await } else { Ok(exit) }
}

async fn push(app: &App, typed: &str) -> Outcome<Exit> {
    let request = v1::PushProjectRequest {
        name: names::checked_project(typed)?,
        request_id: uuid::Uuid::new_v4().to_string(),
    };
    let client = app.connect().await?;
    let response = match client.projects().push_project(request).await {
        Ok(response) => response.into_inner(),
        Err(status) => return Err(of_project(app, &client, typed, "not pushed", &status).await),
    };
    let (id, project) = (names::short_run(&response.run), names::project_of(&response.run));
    let what = if response.coalesced {
        format!("Pushed: run {id} of {project} waits (coalesced) and copies it too.")
    } else {
        format!("Pushed: run {id} of {project} is queued.")
    };
    for note in &response.notes {
        app.hint(&format!("Note: {}", units::clean(note)));
    }
    let next = format!("mirrorctl run watch {project}");
    app.changed(&response, "PushProjectResponse", &[&response.run], &what, &next)?;
    Ok(Exit::Done)
}

async fn promote(app: &App, typed: &str, to: &str, force: bool) -> Outcome<Exit> {
    const FAILED: &str = "origin not changed";
    let mut faults = Faults::default();
    let name = names::noted_project("PROJECT", typed, &mut faults);
    let agent = names::noted_agent("--to", to, &mut faults);
    faults.finish(FAILED, "mirrorctl project promote --help")?;
    let client = app.connect().await?;
    let request = v1::PromoteOriginRequest { name, agent, etag: String::new(), force };
    let project = match client.projects().promote_origin(request).await {
        Ok(project) => project.into_inner(),
        Err(status) => return Err(of_project(app, &client, typed, FAILED, &status).await),
    };
    let name = names::last(&project.name);
    let what = format!("{to} is the origin of {name}; the next run makes its tree there.");
    app.changed(&project, "Project", &[name], &what, &format!("mirrorctl project run {name} --watch"))?;
    Ok(Exit::Done)
}

async fn reseed(app: &App, typed: &str, request: v1::ReseedPlacementRequest, follow: bool) -> Outcome<Exit> {
    let client = app.connect().await?;
    let target = names::last(&request.agent).to_owned();
    let run = match client.projects().reseed_placement(request).await {
        Ok(run) => run.into_inner(),
        Err(status) => return Err(of_project(app, &client, typed, "nothing reseeded", &status).await),
    };
    let (id, project) = (names::short_run(&run.name), names::project_of(&run.name));
    let donor = names::last(&run.reseed_from);
    let what =
        format!("Run {id} copies {project} from {donor} to {target}; nothing is deleted, nobody else pulls.");
    let next = if follow { String::new() } else { format!("mirrorctl run watch {project}/{id}") };
    app.changed(&run, "Run", &[&run.name], &what, &next)?;
    if follow { watch::follow(app, client, run.name).await } else { Ok(Exit::Done) }
}

async fn relocate(app: &App, typed: &str, request: v1::MovePlacementRequest, follow: bool) -> Outcome<Exit> {
    const FAILED: &str = "nothing moved";
    let client = app.connect().await?;
    let (name, agent) = (request.name.clone(), names::last(&request.agent).to_owned());
    let run = match client.projects().move_placement(request).await {
        Ok(run) => run.into_inner(),
        Err(status) => return Err(of_project(app, &client, typed, FAILED, &status).await),
    };
    let project = match client.projects().get_project(v1::GetProjectRequest { name }).await {
        Ok(project) => project.into_inner(),
        Err(status) => return Err(of_project(app, &client, typed, FAILED, &status).await),
    };
    let next = if follow {
        String::new()
    } else {
        format!("mirrorctl run watch {}/{}", names::project_of(&run.name), names::short_run(&run.name))
    };
    app.changed(&run, "Run", &[&run.name], &text::run::move_begun(&run, &project, &agent), &next)?;
    if follow { watch::follow(app, client, run.name).await } else { Ok(Exit::Done) }
}

async fn switch(app: &App, typed: &str, to: String) -> Outcome<Exit> {
    const FAILED: &str = "upstream not switched";
    let client = app.connect().await?;
    let name = names::checked_project(typed)?;
    let request = v1::SwitchUpstreamRequest { name, upstream: to, etag: String::new() };
    let project = match client.projects().switch_upstream(request).await {
        Ok(project) => project.into_inner(),
        Err(status) => return Err(of_project(app, &client, typed, FAILED, &status).await),
    };
    let name = names::last(&project.name);
    let from = project.status.as_ref().map(|status| status.upstream.as_str()).unwrap_or_default();
    let what = format!("{name} pulls from {} from the next run on.", units::clean(from));
    app.changed(&project, "Project", &[name], &what, &format!("mirrorctl project run {name} --watch"))?;
    Ok(Exit::Done)
}

async fn preview(app: &App, typed: &str, count: i32) -> Outcome<Exit> {
    let client = app.connect().await?;
    let request = v1::PreviewScheduleRequest { name: names::checked_project(typed)?, schedule: None, count };
    let response = match client.projects().preview_schedule(request).await {
        Ok(response) => response.into_inner(),
        Err(status) => return Err(of_project(app, &client, typed, "nothing shown", &status).await),
    };
    let fires: Vec<&str> = response.fires.iter().map(|fire| fire.local_time.as_str()).collect();
    app.answer(&response, "PreviewScheduleResponse", &fires, |view| text::project::preview(view, &response))?;
    Ok(Exit::Done)
}
