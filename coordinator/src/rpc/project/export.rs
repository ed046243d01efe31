//! `ExportProjects`: projects as `ApplyProjects` takes them. What only the coordinator writes is left out, and what is
//! secret is nowhere in it.

use ::fleet::{
    engine::Project,
    id::Name,
    refusal::{Refusal, RefusalCode, Violation},
};
use aws_lc_rs::digest::{SHA256, digest};
use mirror_proto::{convert, v1};
use tonic::Status;

use super::{PAGE_SIZE, Projects, filter::Filter, invalid, page, refused};

/// Most names of one request.
const NAMES_MAX: usize = page::PAGE_SIZE_MAX;

impl Projects {
    pub(super) fn exported(
        &self,
        request: &v1::ExportProjectsRequest,
    ) -> Result<v1::ExportProjectsResponse, Status> {
        let v1::ExportProjectsRequest { names, filter, page_size, page_token } = request;
        let names = read_names(names, filter);
        let list = format!("export {} {filter}", mark(names.as_deref().unwrap_or_default()));
        let page = page::read(&list, *page_size, page_token, PAGE_SIZE);
        let (page, filter, names) = match (page, Filter::read(filter), names) {
            (Ok(page), Ok(filter), Ok(names)) => (page, filter, names),
            (page, filter, names) => {
                let faults = page.err().into_iter().flatten().chain(filter.err().into_iter().flatten());
                let faults = faults.chain(names.err().into_iter().flatten());
                return Err(invalid("projects not exported", faults.collect()));
            }
        };
        // The writer waits for whoever holds the view: what is asked for is looked up, not looked for.
        let view = self.services.driver.view();
        let missing: Vec<Violation> = names
            .iter()
            .filter(|name| view.project_named(name).is_none())
            .map(|name| Violation::new("names", format!("no project \"{name}\"")))
            .collect();
        if let [first, ..] = missing.as_slice() {
            let refusal = Refusal::new(RefusalCode::NotFound, "NOT_FOUND", first.description.clone());
            return Err(refused(&Refusal { violations: missing, ..refusal }));
        }
        let after: Option<Name> = page.after.as_deref().and_then(|after| after.parse().ok());
        let filter = filter.on(&view);
        let key = |project: &&Project| project.record.name.to_string();
        let (projects, next_page_token) = if names.is_empty() {
            let rows = view.projects_after(after.as_ref()).filter(|project| filter.fits(project));
            page::cut(&list, &page, rows, key)
        } else {
            let left = names.iter().filter(|name| after.as_ref().is_none_or(|after| *name > after));
            page::cut(&list, &page, left.filter_map(|name| view.project_named(name)), key)
        };
        let declared = |project: &Project| {
            let record = &project.record;
            let (paused, archived) = (record.paused.as_ref(), record.archived.as_ref());
            let wire = convert::project_to_wire(record, &*view, Vec::new());
            let upstreams = wire.upstreams.into_iter();
            let upstreams = upstreams.map(|one| v1::Upstream { has_password: false, ..one }).collect();
            let schedule = wire.schedule.map(|schedule| v1::Schedule { phase: None, ..schedule });
            v1::DeclaredProject {
                project: Some(Box::new(v1::Project {
                    upstreams,
                    schedule,
                    paused: None,
                    archived: None,
                    etag: String::new(),
                    create_time: None,
                    update_time: None,
                    ..wire
                })),
                paused: paused.map(|_| true),
                pause_reason: paused.map(|pause| pause.reason.clone()).unwrap_or_default(),
                pause_until: paused.and_then(|pause| pause.until).map(convert::wall_to_wire),
                archived: archived.map(|_| true),
                archive_reason: archived.map(|archive| archive.reason.clone()).unwrap_or_default(),
            }
        };
        let projects = projects.into_iter().map(declared).collect();
        Ok(v1::ExportProjectsResponse { projects, next_page_token })
    }
}

/// Tells lists of names apart in a page's token.
fn mark(names: &[Name]) -> String {
    let names: Vec<String> = names.iter().map(|name| name.as_str().to_ascii_lowercase()).collect();
    if names.is_empty() { String::new() } else { hex::encode(digest(&SHA256, names.join(" ").as_bytes())) }
}

/// The names that are asked for, in order, each once.
fn read_names(names: &[String], filter: &str) -> Result<Vec<Name>, Vec<Violation>> {
    if names.len() > NAMES_MAX {
        return Err(vec![Violation::new(
            "names",
            format!("{} given; at most {NAMES_MAX} are possible", names.len()),
        )]);
    }
    if !names.is_empty() && !filter.is_empty() {
        return Err(vec![Violation::new("filter", "is given together with names; give one of them")]);
    }
    let mut read = Vec::with_capacity(names.len());
    let mut faults = Vec::new();
    for (index, name) in names.iter().enumerate() {
        match convert::parse_project(&format!("names[{index}]"), name) {
            Ok(name) => read.push(name),
            Err(fault) => faults.push(fault),
        }
    }
    read.sort_unstable();
    read.dedup();
    if faults.is_empty() { Ok(read) } else { Err(faults) }
}
