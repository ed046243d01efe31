//! `mirrorctl upstream`.

use mirror_proto::v1;
use tonic::Status;

use super::PAGE_SIZE_MAX;
use crate::app::App;
use crate::cli::UpstreamCommand;
use crate::client::Client;
use crate::exit::Exit;
use crate::fault::{Fault, Faults, Outcome};
use crate::{names, request, text};

pub(super) async fn run(app: &App, command: UpstreamCommand) -> Outcome<Exit> {
    match command {
        UpstreamCommand::List => list(app).await,
        UpstreamCommand::Set { host, slots, spacing } => set(app, &host, slots, spacing.as_deref()).await,
        UpstreamCommand::Replace { old, new, dry_run, drop_passwords } => {
            replace(
                app,
                v1::ReplaceUpstreamRequest { from: old, to: new, validate_only: dry_run, drop_passwords },
            )
            .await
        }
    }
}

async fn all_upstreams(client: &Client) -> Result<Vec<v1::UpstreamHost>, Status> {
    let mut upstreams = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = v1::ListUpstreamsRequest { page_size: PAGE_SIZE_MAX, page_token };
        let page = client.upstreams().list_upstreams(request).await?.into_inner();
        upstreams.extend(page.upstreams);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(upstreams);
        }
    }
}

async fn list(app: &App) -> Outcome<Exit> {
    let client = app.connect().await?;
    let upstreams =
        all_upstreams(&client).await.map_err(|status| Fault::from_status("nothing listed", &status))?;
    let response = v1::ListUpstreamsResponse { upstreams, next_page_token: String::new() };
    let names: Vec<&str> = response.upstreams.iter().map(|one| names::last(&one.name)).collect();
    app.answer(&response, "ListUpstreamsResponse", &names, |view| {
        text::upstream::list(view, &response.upstreams)
    })?;
    Ok(Exit::Done)
}

async fn set(app: &App, typed: &str, slots: Option<u32>, spacing: Option<&str>) -> Outcome<Exit> {
    let mut faults = Faults::default();
    // `default` gives the fleet's own limit back.
    let span = spacing
        .filter(|text| *text != "default")
        .and_then(|text| request::span(text, "--spacing", &mut faults));
    if slots.is_none() && spacing.is_none() {
        faults.add("--slots", "or --spacing is needed: what is to be set?");
    }
    faults.finish("upstream not changed", "mirrorctl upstream set --help")?;
    let paths = [("slots", slots.is_some()), ("spacing", spacing.is_some())];
    let paths = paths.into_iter().filter(|(_, given)| *given).map(|(path, _)| path.to_owned()).collect();
    let host = v1::UpstreamHost {
        name: names::upstream(typed),
        slots: slots.unwrap_or(0),
        spacing: span,
        ..v1::UpstreamHost::default()
    };
    let request = v1::UpdateUpstreamRequest {
        upstream: Some(host),
        update_mask: Some(prost_types::FieldMask { paths }),
    };
    let client = app.connect().await?;
    let set = client.upstreams().update_upstream(request).await;
    let set = set.map_err(|status| Fault::from_status("upstream not changed", &status))?.into_inner();
    let name = names::last(&set.name);
    app.changed(&set, "UpstreamHost", &[name], &text::upstream::told(&set), "mirrorctl upstream list")?;
    Ok(Exit::Done)
}

async fn replace(app: &App, request: v1::ReplaceUpstreamRequest) -> Outcome<Exit> {
    let client = app.connect().await?;
    let dry_run = request.validate_only;
    let old = request.from.clone();
    let replaced = client.upstreams().replace_upstream(request).await;
    let response =
        replaced.map_err(|status| Fault::from_status("upstream not replaced", &status))?.into_inner();
    let names: Vec<&str> = response.projects.iter().map(|one| names::last(&one.project)).collect();
    app.answer(&response, "ReplaceUpstreamResponse", &names, |view| {
        text::upstream::replaced(view, &old, &response.projects, dry_run)
    })?;
    if !response.projects.is_empty() {
        app.hint(if dry_run {
            "Nothing changed; without --dry-run it is done."
        } else {
            "Next: mirrorctl status"
        });
    }
    Ok(Exit::Done)
}
