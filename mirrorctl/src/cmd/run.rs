//! `mirrorctl run`.

use std::collections::VecDeque;
use std::io::IsTerminal as _;

use mirror_proto::v1;
use tokio_stream::StreamExt as _;
use tonic::{Code, Status};

use super::{PAGE_SIZE_MAX, all_projects, of_project, several};
use crate::app::{App, quoted};
use crate::cli::{ProjectsArg, RunCommand};
use crate::client::Client;
use crate::confirm::{Wanted, confirm};
use crate::exit::Exit;
use crate::fault::{Fault, Outcome};
use crate::names::{self, RunArg};
use crate::{json, status, text, units, watch};

/// Most bytes that are kept while the last lines of a log are looked for; the coordinator keeps 64 KiB itself.
const LOG_TAIL_BYTES_MAX: usize = 8 * 1024 * 1024;

pub(super) async fn run(app: &App, command: RunCommand) -> Outcome<Exit> {
    match command {
        RunCommand::List { projects, page_size, page_token } => {
            list(app, &projects, page_size, page_token).await
        }
        RunCommand::Show { run } => show(app, &run).await,
        RunCommand::Watch { run } => {
            let client = app.connect().await?;
            let name = resolve(app, &client, &run).await?;
            watch::follow(app, client, name).await
        }
        RunCommand::Log { run, follow, lines, attempt } => log(app, &run, follow, lines, attempt).await,
        RunCommand::Approve { run, reason } => approve(app, &run, reason).await,
        RunCommand::Cancel { run } => cancel(app, &run).await,
    }
}

/// The whole name of a RUN argument. A project's newest run stays `projects/{project}/runs/-`, which the coordinator
/// resolves.
async fn resolve(app: &App, client: &Client, typed: &str) -> Outcome<String> {
    let newest = |project: &str| format!("projects/{project}/runs/-");
    let (projects, id) = match names::run_arg(typed) {
        RunArg::Name(name) => return Ok(name.to_owned()),
        RunArg::Newest(project) => return Ok(newest(project)),
        RunArg::Within(project, "-") => return Ok(newest(project)),
        RunArg::Within(project, id) => (vec![names::project(project)], id),
        RunArg::NewestOrId(text) => {
            let all = all_projects(client, "")
                .await
                .map_err(|status| Fault::from_status("no run found", &status))?;
            if let Some(project) =
                all.iter().find(|project| names::last(&project.name).eq_ignore_ascii_case(text))
            {
                return Ok(format!("{}/runs/-", project.name));
            }
            (all.into_iter().map(|project| project.name).collect(), text)
        }
    };
    let mut found = Vec::new();
    for parent in projects {
        let short = names::last(&parent).to_owned();
        match runs_beginning(client, parent, id).await {
            Ok(runs) => found.extend(runs),
            Err(status) => return Err(of_project(app, client, &short, "no run found", &status).await),
        }
    }
    match found.as_slice() {
        [one] => Ok(one.clone()),
        [] => Err(Fault::new(Exit::NotFound, format!("no run {typed:?}"))
            .next(format!("mirrorctl run list {}", typed.split('/').next().unwrap_or("PROJECT")))),
        many => Err(many.iter().fold(
            Fault::new(Exit::BadInput, format!("{typed:?} is the beginning of {} runs", many.len())),
            |fault, name| fault.detail("run", name),
        )),
    }
}

/// The runs of a project whose id begins like this.
async fn runs_beginning(client: &Client, parent: String, id: &str) -> Result<Vec<String>, Status> {
    let id = id.to_ascii_lowercase();
    let mut page_token = String::new();
    loop {
        let request = v1::ListRunsRequest { parent: parent.clone(), page_size: PAGE_SIZE_MAX, page_token };
        let page = client.runs().list_runs(request).await?.into_inner();
        let matching =
            page.runs.into_iter().map(|run| run.name).filter(|name| names::last(name).starts_with(&id));
        let found: Vec<String> = matching.collect();
        page_token = page.next_page_token;
        if !found.is_empty() || page_token.is_empty() {
            return Ok(found);
        }
    }
}

/// An answer's fault about a RUN argument.
async fn of_run(app: &App, client: &Client, typed: &str, failed: &str, status: &Status) -> Fault {
    match (status.code(), names::run_arg(typed)) {
        (Code::NotFound, RunArg::Newest(project) | RunArg::NewestOrId(project)) => {
            let mut fault = of_project(app, client, project, failed, status).await;
            if fault.what == format!("no project {project:?}") {
                fault.what =
                    format!("{project:?} is neither a project nor the first 8 figures or more of a run's id");
            }
            fault
        }
        (Code::FailedPrecondition, _) => {
            Fault::from_status(failed, status).next(format!("mirrorctl run show {}", quoted(typed)))
        }
        _ => Fault::from_status(failed, status),
    }
}

async fn list(app: &App, projects: &ProjectsArg, page_size: i32, page_token: String) -> Outcome<Exit> {
    let client = app.connect().await?;
    let chosen = several::projects(app, &client, projects, "nothing listed").await?;
    let typed = match chosen.names.as_slice() {
        [one] if !chosen.several => one.as_str(),
        many => return list_of_several(app, &client, many, page_size, &page_token).await,
    };
    let request = v1::ListRunsRequest { parent: names::checked_project(typed)?, page_size, page_token };
    let page = match client.runs().list_runs(request).await {
        Ok(page) => page.into_inner(),
        Err(status) => {
            let fault = of_project(app, &client, typed, "nothing listed", &status).await;
            let list = format!("mirrorctl run list {}", quoted(typed));
            return Err(if fault.next.is_none() { fault.next(list) } else { fault });
        }
    };
    let runs: Vec<&str> = page.runs.iter().map(|run| run.name.as_str()).collect();
    let project = names::last(typed);
    app.answer(&page, "ListRunsResponse", &runs, |view| text::run::list(view, project, &page.runs))?;
    if !page.next_page_token.is_empty() {
        app.hint(&format!("More: mirrorctl run list {project} --page-token {}", page.next_page_token));
    }
    Ok(Exit::Done)
}

/// The newest runs of several projects together. There is no page behind them: each project has its own.
async fn list_of_several(
    app: &App,
    client: &Client,
    projects: &[String],
    page_size: i32,
    page_token: &str,
) -> Outcome<Exit> {
    const FAILED: &str = "nothing listed";
    if !page_token.is_empty() {
        let text = "goes on with the runs of one project: name it alone";
        let fault = Fault::of_input(FAILED, vec![("--page-token".to_owned(), text.to_owned())]);
        return Err(fault.next("mirrorctl run list --help"));
    }
    let mut runs = Vec::new();
    for name in projects {
        let request =
            v1::ListRunsRequest { parent: names::project(name), page_size, page_token: String::new() };
        match client.runs().list_runs(request).await {
            Ok(page) => runs.extend(page.into_inner().runs),
            Err(status) => return Err(of_project(app, client, name, FAILED, &status).await),
        }
    }
    runs.sort_by_key(|run| std::cmp::Reverse(run.create_time.map(|time| (time.seconds, time.nanos))));
    runs.truncate(usize::try_from(page_size).unwrap_or(0));
    let page = v1::ListRunsResponse { runs, next_page_token: String::new() };
    let names: Vec<&str> = page.runs.iter().map(|run| run.name.as_str()).collect();
    app.answer(&page, "ListRunsResponse", &names, |view| text::run::list_of_several(view, &page.runs))?;
    Ok(Exit::Done)
}

async fn show(app: &App, typed: &str) -> Outcome<Exit> {
    const FAILED: &str = "nothing shown";
    let client = app.connect().await?;
    let name = resolve(app, &client, typed).await?;
    let run = match client.runs().get_run(v1::GetRunRequest { name }).await {
        Ok(run) => run.into_inner(),
        Err(status) => return Err(of_run(app, &client, typed, FAILED, &status).await),
    };
    let request = v1::ListAttemptsRequest { parent: run.name.clone() };
    let attempts = client.runs().list_attempts(request).await;
    let attempts = attempts.map_err(|status| Fault::from_status(FAILED, &status))?.into_inner();
    if app.is_json() {
        let mut object = json::value(&run, "Run")?;
        object["attempts"] = json::value(&attempts, "ListAttemptsResponse")?["attempts"].take();
        app.answer_json(&object)?;
    } else {
        app.answer(&run, "Run", &[&run.name], |view| text::run::show(view, &run, &attempts.attempts))?;
    }
    Ok(Exit::Done)
}

async fn approve(app: &App, typed: &str, reason: String) -> Outcome<Exit> {
    const FAILED: &str = "run not approved";
    let client = app.connect().await?;
    let name = resolve(app, &client, typed).await?;
    let project = names::project_of(&name).to_owned();
    let request = v1::GetProjectRequest { name: names::project(&project) };
    let found = match client.projects().get_project(request).await {
        Ok(found) => found.into_inner(),
        Err(status) => return Err(of_project(app, &client, &project, FAILED, &status).await),
    };
    // The run whose figures are shown is the one that is named: what is found meanwhile is not approved.
    let newest = status::newest_hold(&found);
    let held = newest.and_then(|(_, hold)| hold.newest_attempt.split_once("/attempts/")).map(|(run, _)| run);
    let name = if name.ends_with("/runs/-") { held.unwrap_or(&name).to_owned() } else { name };
    if let Some((placement, hold)) = newest.filter(|_| held == Some(name.as_str())) {
        confirm(&text::hold::question(&project, placement, hold), Wanted::Yes, app.global.yes)?;
    }
    let run = match client.runs().approve_run(v1::ApproveRunRequest { name: name.clone(), reason }).await {
        Ok(run) => run.into_inner(),
        Err(status) => return Err(of_run(app, &client, typed, FAILED, &status).await),
    };
    let id = names::short_run(&run.name);
    let what = if run.name == name {
        format!("Approved: the next attempt of run {id} may do it.")
    } else {
        format!("Approved: run {id} of {project} is queued for it.")
    };
    app.changed(&run, "Run", &[&run.name], &what, &format!("mirrorctl run watch {project}"))?;
    Ok(Exit::Done)
}

async fn cancel(app: &App, typed: &str) -> Outcome<Exit> {
    let client = app.connect().await?;
    let name = resolve(app, &client, typed).await?;
    let run = match client.runs().cancel_run(v1::CancelRunRequest { name }).await {
        Ok(run) => run.into_inner(),
        Err(status) => return Err(of_run(app, &client, typed, "run not cancelled", &status).await),
    };
    let (id, project) = (names::short_run(&run.name), names::project_of(&run.name));
    let what = match run.state() {
        v1::run::State::Cancelled => format!("Run {id} of {project} is cancelled."),
        _ => format!("Run {id} of {project} is being cancelled; its agent stops rsync now."),
    };
    app.changed(&run, "Run", &[&run.name], &what, &format!("mirrorctl run show {project}"))?;
    Ok(Exit::Done)
}

async fn log(
    app: &App,
    typed: &str,
    follow: bool,
    lines: Option<usize>,
    attempt: Option<u32>,
) -> Outcome<Exit> {
    const FAILED: &str = "no log shown";
    let client = app.connect().await?;
    let mut name = resolve(app, &client, typed).await?;
    if let Some(attempt) = attempt {
        name.push_str(&format!("/attempts/{attempt}"));
    }
    let opened = client.runs().tail_run_log(v1::TailRunLogRequest { name: name.clone(), follow }).await;
    let mut stream = match opened {
        Ok(stream) => stream.into_inner(),
        Err(status) => {
            let mut fault = of_run(app, &client, typed, FAILED, &status).await;
            if let (Some(attempt), Code::NotFound, None) = (attempt, status.code(), &fault.next) {
                fault.what = format!("no attempt {attempt} of run {typed:?}");
                fault = fault.next(format!("mirrorctl run show {}", quoted(typed)));
            }
            return Err(fault);
        }
    };
    // Followed, the first message is what was there before; unfollowed, all of them are.
    let mut tail = lines.map(Tail::new);
    loop {
        let message = tokio::select! {
            message = stream.next() => message,
            () = watch::interrupted() => return Ok(Exit::Interrupted),
        };
        let data = match message {
            None => break,
            Some(Ok(message)) => message.data,
            Some(Err(status)) => return Err(Fault::from_status("the log ended early", &status)),
        };
        match &mut tail {
            Some(tail) if !follow => tail.push(&data),
            Some(first) => {
                first.push(&data);
                print_log(app, &first.take())?;
                tail = None;
            }
            None => print_log(app, &data)?,
        }
    }
    if let Some(mut tail) = tail {
        print_log(app, &tail.take())?;
    }
    Ok(Exit::Done)
}

/// A person's terminal gets text that cannot harm it; a file gets rsync's bytes; a program gets an object a line.
fn print_log(app: &App, data: &[u8]) -> Outcome<()> {
    if data.is_empty() {
        Ok(())
    } else if app.is_json() {
        app.answer_json(&json::value(&v1::TailRunLogResponse { data: data.to_vec() }, "TailRunLogResponse")?)
    } else if std::io::stdout().is_terminal() {
        app.print(&units::clean_log(data))
    } else {
        app.print_bytes(data)
    }
}

/// The last lines of what was pushed.
struct Tail {
    lines: usize,
    data: VecDeque<u8>,
}

impl Tail {
    fn new(lines: usize) -> Self {
        Self { lines, data: VecDeque::new() }
    }

    fn push(&mut self, data: &[u8]) {
        self.data.extend(data);
        let excess = self.data.len().saturating_sub(LOG_TAIL_BYTES_MAX);
        self.data.drain(..excess);
    }

    fn take(&mut self) -> Vec<u8> {
        let data: Vec<u8> = std::mem::take(&mut self.data).into();
        let body = data.strip_suffix(b"\n").unwrap_or(&data);
        let mut ends =
            body.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n').map(|(index, _)| index + 1);
        match self.lines {
            0 => Vec::new(),
            lines => data[ends.nth(lines - 1).unwrap_or(0)..].to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines() {
        for (lines, expect) in [(0, ""), (1, "three\n"), (2, "two\nthree\n"), (9, "one\ntwo\nthree\n")] {
            let mut tail = Tail::new(lines);
            tail.push(b"one\ntw");
            tail.push(b"o\nthree\n");
            assert_eq!(tail.take(), expect.as_bytes(), "{lines}");
        }
        let mut unfinished = Tail::new(1);
        unfinished.push(b"one\ntwo");
        assert_eq!(unfinished.take(), b"two");
    }
}
