//! Housekeeping jobs.

use mirror_proto::v1;

use crate::names;
use crate::table::{Cell, Table};
use crate::term::{Color, View};
use crate::text::{since, span, time};
use crate::units;

/// `mirrorctl housekeeping list`.
#[must_use]
pub fn list(view: &View, jobs: &[v1::HousekeepingJob]) -> String {
    let mut heads = vec!["JOB", "LAST", "TOOK", "NEXT", "SCHEDULE (UTC)"];
    if view.wide {
        heads.push("WHAT");
    }
    heads.push("OUTCOME");
    let mut table = Table::new(heads);
    for job in jobs {
        let next = match time(job.next_time) {
            Some(next) if view.absolute => units::rfc3339(next),
            Some(next) => format!("in {}", units::ahead(next - view.now)),
            None => "?".to_owned(),
        };
        let mut row = vec![
            Cell::from(names::last(&job.name)),
            since(view, job.last_start_time).into(),
            span(job.last_duration).map_or_else(|| "-".to_owned(), units::span).into(),
            next.into(),
            job.schedule.as_str().into(),
        ];
        if view.wide {
            row.push(job.description.as_str().into());
        }
        row.push(outcome(job));
        table.row(row);
    }
    table.render(view)
}

fn outcome(job: &v1::HousekeepingJob) -> Cell {
    match (job.running, job.last_failed, job.last_outcome.as_str()) {
        (true, ..) => Cell::colored("running", Some(Color::Green)),
        (false, true, why) => Cell::colored(format!("failed: {why}"), Some(Color::Red)),
        (false, false, "") => "-".into(),
        (false, false, done) => done.into(),
    }
}

/// How a run that was asked for went, in one line.
#[must_use]
pub fn told(job: &v1::HousekeepingJob) -> String {
    let name = names::last(&job.name);
    let took = span(job.last_duration).map(|took| format!(" in {}", units::span(took))).unwrap_or_default();
    let outcome = units::clean(&job.last_outcome);
    match (job.running, job.last_failed, outcome.as_str()) {
        (true, ..) => format!("{name} goes on."),
        (false, true, why) => format!("{name} failed{took}: {why}."),
        (false, false, "") => format!("{name} is done{took}."),
        (false, false, done) => format!("{name} is done{took}: {done}."),
    }
}
