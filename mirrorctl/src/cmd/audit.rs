//! `mirrorctl audit`: who changed what, and who was refused; newest last, as in a log.

use mirror_proto::v1;
use tokio_stream::StreamExt as _;
use tonic::Code;

use super::PAGE_SIZE_MAX;
use crate::app::App;
use crate::cli::{AuditArgs, Format};
use crate::client::Client;
use crate::exit::Exit;
use crate::fault::{Fault, Faults, Outcome};
use crate::watch::interrupted;
use crate::{clock, json, names, request, text};

const FAILED: &str = "audit log not shown";
const HELP: &str = "mirrorctl audit --help";
/// Events shown where neither a time nor a number is given.
const LINES_DEFAULT: usize = 50;
/// Events that are held at most; older ones are left out, and that is said.
const LINES_MAX: usize = 100_000;

pub(super) async fn run(app: &App, args: AuditArgs) -> Outcome<Exit> {
    let now = clock::now();
    let mut faults = Faults::default();
    let mut time = |flag: &str, typed: Option<&str>| {
        typed.and_then(|typed| faults.check(flag, request::time_or_ago(typed, now)))
    };
    let (since, until) = (time("--since", args.since.as_deref()), time("--until", args.until.as_deref()));
    for (flag, typed) in [("--user", &args.user), ("--agent", &args.agent)] {
        if let Some(typed) = typed {
            names::check_name(flag, names::last(typed), &mut faults);
        }
    }
    let filter = filter(&args, &mut faults);
    faults.finish(FAILED, HELP)?;
    let client = app.connect().await?;
    let lines = match (args.lines, since) {
        (Some(lines), _) => lines,
        (None, Some(_)) => LINES_MAX,
        (None, None) => LINES_DEFAULT,
    };
    let request = v1::ListAuditEventsRequest { filter: filter.clone(), since, until, ..Default::default() };
    let (events, newest, more) = newest(&client, request, lines).await?;
    show(app, &events, true)?;
    if more {
        app.hint(&format!("Only the newest {}; others: --lines N, or --since 30d", events.len()));
    }
    if args.follow { follow(app, &client, newest, filter).await } else { Ok(Exit::Done) }
}

/// The filter as the API reads it. A word with a blank in it would be read as two.
fn filter(args: &AuditArgs, faults: &mut Faults) -> String {
    let user = args.user.as_ref().map(|user| format!("users/{}", names::last(user)));
    let agent = args.agent.as_ref().map(|agent| names::last(agent).to_owned());
    let mut words = Vec::new();
    let wanted = [
        ("who", "--user", user),
        ("agent", "--agent", agent),
        ("action", "--action", args.action.clone()),
        ("resource", "--resource", args.resource.clone()),
    ];
    for (key, flag, value) in wanted {
        match value {
            Some(value) if value.is_empty() || value.contains(char::is_whitespace) => {
                faults.add(flag, format!("{value:?}: must not be empty or hold a blank"));
            }
            Some(value) => words.push(format!("{key}={value}")),
            None => {}
        }
    }
    if args.refused {
        words.push("outcome=refused".to_owned());
    }
    words.join(" ")
}

fn fault(status: &tonic::Status) -> Fault {
    let fault = Fault::from_status(FAILED, status);
    match status.code() {
        Code::PermissionDenied => fault.next("mirrorctl --context CONTEXT_OF_AN_ADMIN audit"),
        Code::InvalidArgument => fault.next(HELP),
        _ => fault,
    }
}

/// The newest events that fit, oldest first; the newest event of all; and whether there are more.
async fn newest(
    client: &Client,
    mut request: v1::ListAuditEventsRequest,
    lines: usize,
) -> Outcome<(Vec<v1::AuditEvent>, String, bool)> {
    let lines = lines.clamp(1, LINES_MAX);
    let (mut events, mut newest) = (Vec::new(), None);
    loop {
        // One more than is wanted tells whether there are more.
        let wanted = i32::try_from(lines + 1 - events.len()).unwrap_or(PAGE_SIZE_MAX);
        request.page_size = wanted.min(PAGE_SIZE_MAX);
        let answer = client.fleet().list_audit_events(request.clone()).await;
        let page = answer.map_err(|status| fault(&status))?.into_inner();
        newest.get_or_insert(page.newest_id);
        events.extend(page.events);
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() || events.len() > lines {
            break;
        }
    }
    let more = events.len() > lines;
    events.truncate(lines);
    events.reverse();
    Ok((events, newest.unwrap_or_default(), more))
}

fn show(app: &App, events: &[v1::AuditEvent], whole: bool) -> Outcome<()> {
    match app.global.output {
        Format::Json | Format::Yaml => {
            events.iter().try_for_each(|event| app.answer_json(&json::value(event, "AuditEvent")?))
        }
        Format::Name => app.print(&events.iter().map(|event| format!("{}\n", event.id)).collect::<String>()),
        Format::Table | Format::Wide if whole => app.print(&text::audit::list(&app.view(), events)),
        Format::Table | Format::Wide => app.print(&text::audit::lines(&app.view(), events)),
    }
}

/// Goes on with what comes, until Ctrl-C. After a lost coordinator it goes on where it was: nothing is left out.
async fn follow(app: &App, client: &Client, after: String, filter: String) -> Outcome<Exit> {
    let followed = async {
        let request = v1::WatchAuditEventsRequest { after, filter };
        let answer = client.fleet().watch_audit_events(request).await;
        let mut stream = answer.map_err(|status| fault(&status))?.into_inner();
        while let Some(next) = stream.next().await {
            show(app, &next.map_err(|status| fault(&status))?.events, false)?;
        }
        Ok(Exit::Done)
    };
    tokio::select! {
        done = followed => done,
        () = interrupted() => Ok(Exit::Interrupted),
    }
}
