//! `mirrorctl status`, `why`, `freeze` and `thaw`.

use mirror_proto::v1;

use super::{of_project, several};
use crate::app::App;
use crate::cli::{Format, SelectorArg};
use crate::exit::Exit;
use crate::fault::{Fault, Outcome};
use crate::status::summarize;
use crate::term::View;
use crate::{clock, names, text};

pub(super) async fn status(app: &App, arg: &SelectorArg, all: bool, exit_code: bool) -> Outcome<Exit> {
    const FAILED: &str = "no status shown";
    let selector = several::selector(arg, FAILED, "mirrorctl status --help")?;
    let client = app.connect().await?;
    let answer = client.fleet().get_status(v1::GetStatusRequest {}).await;
    let mut status = answer.map_err(|status| Fault::from_status(FAILED, &status))?.into_inner();
    if !selector.is_empty() {
        status = several::only(status, &selector);
        if status.projects.is_empty() {
            return Err(several::nothing_fits("project", arg, FAILED));
        }
    }
    let now = clock::now();
    let summary = summarize(&status, now);
    match app.global.output {
        Format::Json | Format::Yaml => app.answer_json(&text::status::json(&summary, now))?,
        Format::Name => {
            app.print(
                &summary.projects.iter().map(|project| format!("{}\n", project.name)).collect::<String>(),
            )?;
        }
        Format::Table | Format::Wide => app.print(&text::status::page(&app.view(), &summary, all))?,
    }
    let counts = &summary.counts;
    let all_fresh = counts.fresh + counts.paused + counts.archived == counts.projects;
    Ok(if exit_code && !all_fresh { Exit::BadAnswer } else { Exit::Done })
}

pub(super) async fn why(app: &App, typed: &str) -> Outcome<Exit> {
    let client = app.connect().await?;
    let answer =
        client.projects().why_project(v1::WhyProjectRequest { name: names::checked_project(typed)? }).await;
    let why = match answer {
        Ok(why) => why.into_inner(),
        Err(status) => return Err(of_project(app, &client, typed, "nothing shown", &status).await),
    };
    app.answer(&why, "WhyProjectResponse", &[names::last(typed)], |view| sentences(view, &why.sentences))?;
    Ok(Exit::Done)
}

/// The reason that clears last, then the others.
fn sentences(view: &View, sentences: &[String]) -> String {
    let mut text = String::new();
    for (index, sentence) in sentences.iter().enumerate() {
        let also = if index == 0 { "" } else { "Also: " };
        text.push_str(&view.wrap(&format!("{also}{}", crate::units::clean(sentence)), 2));
        text.push('\n');
    }
    text
}

pub(super) async fn freeze(app: &App, reason: String) -> Outcome<Exit> {
    let client = app.connect().await?;
    let answer = client.fleet().freeze(v1::FreezeRequest { reason }).await;
    let status = answer.map_err(|status| Fault::from_status("fleet not frozen", &status))?.into_inner();
    let running = match status.running {
        0 => "nothing runs".to_owned(),
        1 => "1 running attempt goes on".to_owned(),
        running => format!("{running} running attempts go on"),
    };
    let what = format!("The fleet is frozen: nothing new starts; {running}.");
    app.changed(&status, "FleetStatus", &[], &what, "mirrorctl thaw")?;
    Ok(Exit::Done)
}

pub(super) async fn thaw(app: &App) -> Outcome<Exit> {
    let client = app.connect().await?;
    let answer = client.fleet().thaw(v1::ThawRequest {}).await;
    let status = answer.map_err(|status| Fault::from_status("fleet not thawed", &status))?.into_inner();
    let waited = match status.queued {
        0 => "no run waited".to_owned(),
        1 => "1 run waited".to_owned(),
        queued => format!("{queued} runs waited"),
    };
    let what = format!("The fleet is not frozen; {waited}.");
    app.changed(&status, "FleetStatus", &[], &what, "mirrorctl status")?;
    Ok(Exit::Done)
}
