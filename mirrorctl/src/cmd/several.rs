//! What acts on several projects or agents at once: which ones, the question before, the outcome of each, and how the
//! whole ends.
//!
//! One that was named alone is done as ever, without a question. Several are looked up before anything is done, so that a
//! wrong name changes nothing; what the coordinator refuses for one of them stops none of the others.

use mirror_proto::v1;
use prost::Message;
use serde_json::{Value as Json, json};

use super::{all_agents, all_projects, no_such};
use crate::app::App;
use crate::cli::{AgentsArg, Format, ProjectsArg, SelectorArg};
use crate::client::Client;
use crate::confirm::{Wanted, confirm};
use crate::exit::Exit;
use crate::fault::{Fault, Faults, Outcome};
use crate::request::Selector;
use crate::{names, suggest};

/// Names that a question shows.
const NAMES_SHOWN_MAX: usize = 8;

/// How a command speaks of what it does.
#[derive(Debug, Clone, Copy)]
pub(super) struct Words {
    /// Of what: `project`.
    pub kind: &'static str,
    /// What it does, in the question: `pauses`.
    pub does: &'static str,
    /// What did not happen, in the end: `not paused`.
    pub failed: &'static str,
}

/// What was chosen.
#[derive(Debug)]
pub(super) struct Chosen {
    /// As they were typed, or as they are called.
    pub names: Vec<String>,
    /// Whether several could have been chosen: by a selector, or by more than one name. Programs then read outcomes,
    /// however many there are.
    pub several: bool,
}

/// What was done with one.
#[derive(Debug)]
pub(super) struct Done {
    /// What `-o name` prints.
    pub name: String,
    /// The coordinator's answer.
    pub json: Json,
    /// What happened, as a line.
    pub what: String,
    /// What to type next; empty: nothing.
    pub next: String,
    /// What the coordinator has to say about it.
    pub notes: Vec<String>,
}

impl Done {
    /// Of a message of the contract, by its name there.
    pub(super) fn new(
        message: &impl Message,
        kind: &str,
        name: &str,
        what: String,
        next: String,
    ) -> Outcome<Self> {
        let json = crate::json::value(message, kind)?;
        Ok(Self { name: name.to_owned(), json, what, next, notes: Vec::new() })
    }
}

/// The selector that was typed.
///
/// # Errors
/// Its faults.
pub(super) fn selector(arg: &SelectorArg, failed: &str, help: &str) -> Outcome<Selector> {
    let mut faults = Faults::default();
    let selector = Selector::read(&arg.terms, &mut faults);
    faults.finish(failed, help)?;
    Ok(selector)
}

/// The projects that were chosen. One name alone is not looked up: its rpc does that.
///
/// # Errors
/// Faults of what was typed, names that are not there, a selector that nothing fits.
pub(super) async fn projects(app: &App, client: &Client, arg: &ProjectsArg, failed: &str) -> Outcome<Chosen> {
    let selector = selector(&arg.selector, failed, "mirrorctl project list --help")?;
    if let [one] = arg.names.as_slice() {
        return Ok(Chosen { names: vec![one.clone()], several: false });
    }
    let listed = all_projects(client, &selector.filter()).await;
    let known = listed.map_err(|status| Fault::from_status(failed, &status))?;
    let fitting = known.iter().filter(|project| selector.fits(&project.labels));
    let fitting: Vec<&str> = fitting.map(|project| names::last(&project.name)).collect();
    chosen(app, "project", &arg.names, &arg.selector, &fitting, failed)
}

/// The agents that were chosen, likewise.
///
/// # Errors
/// As [`projects`].
pub(super) async fn agents(app: &App, client: &Client, arg: &AgentsArg, failed: &str) -> Outcome<Chosen> {
    let selector = selector(&arg.selector, failed, "mirrorctl agent list --help")?;
    if let [one] = arg.names.as_slice() {
        return Ok(Chosen { names: vec![one.clone()], several: false });
    }
    let listed = all_agents(client, &selector.filter()).await;
    let known = listed.map_err(|status| Fault::from_status(failed, &status))?;
    let fitting = known.iter().filter(|agent| selector.fits(&agent.labels));
    let fitting: Vec<&str> = fitting.map(|agent| names::last(&agent.name)).collect();
    chosen(app, "agent", &arg.names, &arg.selector, &fitting, failed)
}

/// Those that fit; or, where names were typed, these, all of which must be there.
fn chosen(
    app: &App,
    kind: &str,
    typed: &[String],
    selector: &SelectorArg,
    fitting: &[&str],
    failed: &str,
) -> Outcome<Chosen> {
    let mut names: Vec<String> = Vec::new();
    if typed.is_empty() {
        if fitting.is_empty() {
            return Err(nothing_fits(kind, selector, failed));
        }
        names = fitting.iter().map(|name| (*name).to_owned()).collect();
    }
    let mut missing = Vec::new();
    for one in typed {
        match fitting.iter().find(|name| name.eq_ignore_ascii_case(names::last(one))) {
            Some(name) if names.iter().any(|known| known == name) => {}
            Some(name) => names.push((*name).to_owned()),
            None => missing.push(one),
        }
    }
    match missing.as_slice() {
        [] => Ok(Chosen { names, several: true }),
        [one] => Err(no_such(app, kind, one, fitting, &format!("mirrorctl {kind} list"))),
        many => {
            let what = format!("{failed}: {} {kind}s are not there; nothing was done", many.len());
            let fault = Fault::new(Exit::NotFound, what).next(format!("mirrorctl {kind} list"));
            Err(many.iter().fold(fault, |fault, one| {
                let near = suggest::nearest(one, fitting.iter().copied());
                let near = near
                    .map_or_else(|| "no such name".to_owned(), |near| format!("the nearest name is {near}"));
                fault.detail(one.as_str(), near)
            }))
        }
    }
}

/// A selector that nothing fits is no empty success: it is most often mistyped.
pub(super) fn nothing_fits(kind: &str, selector: &SelectorArg, failed: &str) -> Fault {
    let typed = selector.terms.join(",");
    Fault::new(Exit::NotFound, format!("{failed}: no {kind} fits {typed:?}"))
        .next(format!("mirrorctl {kind} list"))
}

/// Does it with each of them, after a question where they are more than one.
///
/// # Errors
/// What went wrong with the only one; [`Exit::SomeFailed`] with all outcomes of several.
pub(super) async fn each(
    app: &App,
    chosen: &Chosen,
    words: Words,
    act: impl AsyncFn(&str) -> Outcome<Done>,
) -> Outcome<Exit> {
    if let ([name], false) = (chosen.names.as_slice(), chosen.several) {
        let done = act(name).await?;
        tell_notes(app, &done);
        match app.global.output {
            Format::Json | Format::Yaml => app.answer_json(&done.json)?,
            Format::Name => app.print(&format!("{}\n", done.name))?,
            Format::Table | Format::Wide => app.said(&done.what, &done.next)?,
        }
        return Ok(Exit::Done);
    }
    if chosen.names.len() > 1 {
        confirm(&question(words, &chosen.names), Wanted::Yes, app.global.yes)?;
    }
    let (mut outcomes, mut failed) = (Vec::new(), Vec::new());
    let mut is_away = false;
    for name in &chosen.names {
        let outcome = if is_away { Err(not_tried()) } else { act(name).await };
        outcomes.push(match &outcome {
            Ok(done) => json!({"name": name, "exit": 0, "error": null, "answer": done.json}),
            Err(fault) => {
                json!({"name": name, "exit": fault.exit.code(), "error": fault.what, "answer": null})
            }
        });
        match outcome {
            Ok(done) => tell(app, &done)?,
            Err(fault) => {
                is_away |= fault.exit == Exit::Unreachable;
                failed.push((name.clone(), in_a_line(&fault)));
            }
        }
    }
    if app.is_json() {
        app.answer_json(&json!({"outcomes": outcomes}))?;
    }
    let Some((first, _)) = failed.first() else { return Ok(Exit::Done) };
    let Words { kind, failed: not_done, .. } = words;
    let what = format!("{} of {} {kind}s {not_done}", failed.len(), chosen.names.len());
    let next = format!("mirrorctl {kind} show {first}");
    Err(Fault { details: failed, ..Fault::new(Exit::SomeFailed, what) }.next(next))
}

/// `This pauses 3 projects: debian, epel, fedora. Go on?`
fn question(Words { kind, does, .. }: Words, names: &[String]) -> String {
    let shown = names.iter().take(NAMES_SHOWN_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
    let more = match names.len().saturating_sub(NAMES_SHOWN_MAX) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("This {does} {} {kind}s: {shown}{more}. Go on?", names.len())
}

/// Each as it is done; programs get all at the end.
fn tell(app: &App, done: &Done) -> Outcome<()> {
    tell_notes(app, done);
    match app.global.output {
        Format::Json | Format::Yaml => Ok(()),
        Format::Name => app.print(&format!("{}\n", done.name)),
        Format::Table | Format::Wide => app.said(&done.what, ""),
    }
}

fn tell_notes(app: &App, done: &Done) {
    for note in &done.notes {
        app.hint(&format!("Note: {}", crate::units::clean(note)));
    }
}

/// Each would wait for its answer in vain.
fn not_tried() -> Fault {
    Fault::new(Exit::Unreachable, "not tried: the coordinator was away or busy for one before")
}

fn in_a_line(fault: &Fault) -> String {
    let details = fault.details.iter().filter(|(label, _)| label != "fault");
    std::iter::once(fault.what.clone())
        .chain(details.map(|(label, text)| format!("{label} {text}")))
        .collect::<Vec<_>>()
        .join("; ")
}

/// The fleet with these projects alone: what runs and waits is theirs, agents are all there.
pub(super) fn only(mut status: v1::FleetStatus, selector: &Selector) -> v1::FleetStatus {
    use v1::attempt::State;
    status.projects.retain(|project| selector.fits(&project.labels));
    let (mut running, mut queued) = (0, 0);
    for project in status.projects.iter().filter_map(|project| project.status.as_ref()) {
        queued += u32::from(!project.queued_run.is_empty());
        for placement in &project.placements {
            match placement.attempt_state() {
                State::Offered | State::Running | State::Cancelling => running += 1,
                State::Pending => queued += 1,
                _ => {}
            }
        }
    }
    v1::FleetStatus { running, queued, ..status }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_shows_some_names_and_counts_all() {
        let words = Words { kind: "project", does: "pauses", failed: "not paused" };
        let names = |count: usize| (0..count).map(|number| format!("p{number}")).collect::<Vec<_>>();
        assert_eq!(question(words, &names(2)), "This pauses 2 projects: p0, p1. Go on?");
        let many = question(words, &names(11));
        assert_eq!(many, "This pauses 11 projects: p0, p1, p2, p3, p4, p5, p6, p7 and 3 more. Go on?");
    }
}
