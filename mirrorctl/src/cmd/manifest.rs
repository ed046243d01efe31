//! `mirrorctl plan`, `apply`, `export` and `schema`.

use std::time::Duration;

use mirror_proto::v1::{self, project_change::Action};
use prost::Message as _;

use super::several::nothing_fits;
use super::{PAGE_SIZE_MAX, all_projects, no_such};
use crate::app::{App, quoted};
use crate::cli::{ExportArgs, Format, ManifestArgs, PlanArgs};
use crate::client::Client;
use crate::confirm::{Wanted, confirm};
use crate::exit::Exit;
use crate::fault::{Fault, Faults, Outcome};
use crate::manifest::Manifest;
use crate::request::Selector;
use crate::{names, text};

/// How long the coordinator may take by itself for thousands of projects.
const ANSWER_TIME: Duration = Duration::from_secs(180);
/// Largest request that the coordinator reads, in bytes.
const REQUEST_BYTES_MAX: usize = 4 * 1_024 * 1_024;
/// Names that a question shows.
const NAMES_SHOWN_MAX: usize = 8;

pub(super) async fn plan(app: &App, args: PlanArgs) -> Outcome<Exit> {
    let declared = Declared::read("nothing planned", args.manifest)?;
    let client = app.connect_for(ANSWER_TIME).await?;
    let planned = declared.plan(&client).await?;
    let names: Vec<&str> =
        planned.changes.iter().filter(|one| acts(one)).map(|one| names::last(&one.project)).collect();
    app.answer(&planned, "PlanProjectsResponse", &names, |view| {
        text::plan::plan(view, &planned, &declared.new_ones(), &declared.command("apply"))
    })?;
    Ok(if args.exit_code && !names.is_empty() { Exit::BadAnswer } else { Exit::Done })
}

pub(super) async fn apply(app: &App, args: ManifestArgs) -> Outcome<Exit> {
    let declared = Declared::read("nothing applied", args)?;
    let client = app.connect_for(ANSWER_TIME).await?;
    let planned = declared.plan(&client).await?;
    let gone: Vec<&str> = planned
        .changes
        .iter()
        .filter(|one| one.action() == Action::Delete)
        .map(|one| names::last(&one.project))
        .collect();
    if !gone.is_empty() {
        let shown = gone.iter().take(NAMES_SHOWN_MAX).copied().collect::<Vec<_>>().join(", ");
        let more = gone.len().saturating_sub(NAMES_SHOWN_MAX);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let question = format!(
            "{}: {shown}{more}; records and schedules go, trees stay. Apply?",
            text::plural(gone.len() as u64, "project is removed", "projects are removed")
        );
        confirm(&question, Wanted::Yes, app.global.yes)?;
    }
    let request = v1::ApplyProjectsRequest {
        projects: declared.wire(),
        prune: declared.args.prune,
        paused: declared.args.paused,
        etag: planned.etag.clone(),
        request_id: uuid::Uuid::new_v4().to_string(),
    };
    let applied = client.projects().apply_projects(request).await;
    let applied = applied.map_err(|status| declared.failed(&status))?.into_inner();
    for warning in planned.changes.iter().flat_map(|one| one.warnings.iter().map(move |text| (one, text))) {
        app.hint(&format!("! {}: {}", names::last(&warning.0.project), warning.1));
    }
    let names: Vec<&str> =
        planned.changes.iter().filter(|one| acts(one)).map(|one| names::last(&one.project)).collect();
    let what = text::plan::applied(&applied, planned.unchanged);
    app.changed(&applied, "ApplyProjectsResponse", &names, &what, "mirrorctl status")?;
    if applied.left_out.is_empty() {
        return Ok(Exit::Done);
    }
    let left_out = applied.left_out.iter().map(|text| ("left out".to_owned(), text.clone())).collect();
    let what = format!(
        "not all applied: {} left out",
        text::plural(applied.left_out.len() as u64, "step is", "steps are")
    );
    Err(Fault { details: left_out, ..Fault::new(Exit::Conflict, what) }.next(declared.command("plan")))
}

pub(super) async fn export(app: &App, args: ExportArgs) -> Outcome<Exit> {
    const FAILED: &str = "nothing exported";
    let mut faults = Faults::default();
    let selector = Selector::read(&args.selector.terms, &mut faults);
    let filter = selector.filter();
    for typed in &args.projects {
        names::check_name("PROJECT", names::last(typed), &mut faults);
    }
    faults.finish(FAILED, "mirrorctl export --help")?;
    let client = app.connect().await?;
    let mut manifest = Manifest::default();
    let mut page_token = String::new();
    loop {
        let names = args.projects.iter().map(|typed| names::project(typed)).collect();
        let request =
            v1::ExportProjectsRequest { names, filter: filter.clone(), page_size: PAGE_SIZE_MAX, page_token };
        let page = match client.projects().export_projects(request).await {
            Ok(page) => page.into_inner(),
            Err(status) if status.code() == tonic::Code::NotFound => {
                return Err(missing(app, &client, &args).await);
            }
            Err(status) => return Err(Fault::from_status(FAILED, &status)),
        };
        let fits = |one: &v1::DeclaredProject| {
            selector.is_empty() || one.project.as_ref().is_some_and(|project| selector.fits(&project.labels))
        };
        manifest.projects.extend(page.projects.into_iter().filter(fits).map(Into::into));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    if !selector.is_empty() && manifest.projects.is_empty() {
        return Err(nothing_fits("project", &args.selector, FAILED));
    }
    match app.global.output {
        Format::Json => app.print(&manifest.to_json())?,
        Format::Yaml => app.answer_json(&manifest.to_value())?,
        Format::Name => {
            let names = manifest.projects.iter().map(|one| format!("{}\n", names::last(&one.project.name)));
            app.print(&names.collect::<String>())?;
        }
        Format::Table | Format::Wide => app.print(&manifest.to_toml())?,
    }
    Ok(Exit::Done)
}

/// The first project that there is not, with the nearest name.
async fn missing(app: &App, client: &Client, args: &ExportArgs) -> Fault {
    let known = all_projects(client, "").await.unwrap_or_default();
    let known: Vec<&str> = known.iter().map(|project| names::last(&project.name)).collect();
    let there = |typed: &&String| known.iter().any(|name| name.eq_ignore_ascii_case(names::last(typed)));
    let typed = args.projects.iter().find(|typed| !there(typed)).map_or("", String::as_str);
    no_such(app, "project", typed, &known, "mirrorctl project list")
}

pub(super) fn schema(app: &App) -> Outcome<Exit> {
    app.print(&crate::manifest::json_schema())?;
    Ok(Exit::Done)
}

fn acts(change: &v1::ProjectChange) -> bool {
    matches!(change.action(), Action::Create | Action::Change | Action::Delete)
}

/// A manifest that was read, and how it was asked for.
struct Declared {
    manifest: Manifest,
    args: ManifestArgs,
    failed: &'static str,
}

impl Declared {
    fn read(failed: &'static str, args: ManifestArgs) -> Outcome<Self> {
        let whole = args.file.display().to_string();
        let manifest = Manifest::open(failed, &args.file)?;
        let declared = Self { manifest, args, failed };
        let bytes =
            v1::PlanProjectsRequest { projects: declared.wire(), prune: false, paused: false }.encoded_len();
        if bytes > REQUEST_BYTES_MAX {
            let text =
                format!("{whole}: {bytes} bytes on the wire, at most {REQUEST_BYTES_MAX}; apply it in parts");
            return Err(Fault::of_input(failed, vec![("-f".to_owned(), text)]));
        }
        Ok(declared)
    }

    fn wire(&self) -> Vec<v1::DeclaredProject> {
        self.manifest.projects.iter().map(Into::into).collect()
    }

    /// The projects by their names, for what the plan says nothing of.
    fn new_ones(&self) -> std::collections::BTreeMap<&str, &v1::Project> {
        self.manifest.projects.iter().map(|one| (names::last(&one.project.name), &one.project)).collect()
    }

    /// A command line with the same manifest. Of standard input nothing is left to read again.
    fn command(&self, verb: &str) -> String {
        let file = match self.args.file.as_os_str() == "-" {
            true => "FILE".to_owned(),
            false => quoted(&self.args.file.display().to_string()),
        };
        let mut command = format!("mirrorctl {verb} -f {file}");
        for (flag, given) in [(" --prune", self.args.prune), (" --paused", self.args.paused)] {
            command.push_str(if given { flag } else { "" });
        }
        command
    }

    async fn plan(&self, client: &Client) -> Outcome<v1::PlanProjectsResponse> {
        let ManifestArgs { prune, paused, .. } = self.args;
        let request = v1::PlanProjectsRequest { projects: self.wire(), prune, paused };
        let planned = client.projects().plan_projects(request).await;
        let planned = planned.map_err(|status| self.failed(&status))?.into_inner();
        if planned.faults.is_empty() {
            return Ok(planned);
        }
        let faults = planned.faults.into_iter().map(|fault| (fault.field, fault.description));
        Err(self.located(&faults.collect::<Vec<_>>()))
    }

    fn located(&self, faults: &[(String, String)]) -> Fault {
        let whole = self.args.file.display().to_string();
        self.manifest.located(self.failed, &whole, faults).next(self.command("plan"))
    }

    fn failed(&self, status: &tonic::Status) -> Fault {
        let answer = mirror_proto::status::Fault::from(status);
        if status.code() == tonic::Code::InvalidArgument && !answer.violations.is_empty() {
            let faults = answer.violations.into_iter().map(|fault| (fault.field, fault.description));
            return self.located(&faults.collect::<Vec<_>>());
        }
        let fault = Fault::from_status(self.failed, status);
        if status.code() == tonic::Code::Aborted { fault.next(self.command("plan")) } else { fault }
    }
}
