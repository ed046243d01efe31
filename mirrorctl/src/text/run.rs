//! Runs: the list, and one with its attempts.

use mirror_proto::v1;
use mirror_proto::v1::attempt::State as AttemptState;
use mirror_proto::v1::evidence::Kind;
use mirror_proto::v1::outcome::Class;
use mirror_proto::v1::run::State as RunState;
use mirror_proto::v1::trigger::Kind as TriggerKind;

use crate::names;
use crate::table::{Cell, Table};
use crate::term::View;
use crate::text::{
    attempt_word, block, class_word, hold, host, plural, role_word, run_color, run_word, since, time,
};
use crate::{units, watch};

/// `mirrorctl run list`.
#[must_use]
pub fn list(view: &View, project: &str, runs: &[v1::Run]) -> String {
    if runs.is_empty() {
        return format!("No runs of {project} yet. Next: mirrorctl project run {project} --watch\n");
    }
    table(view, runs, false)
}

/// `mirrorctl run list` of several projects.
#[must_use]
pub fn list_of_several(view: &View, runs: &[v1::Run]) -> String {
    if runs.is_empty() { "No runs of these projects yet.\n".to_owned() } else { table(view, runs, true) }
}

fn table(view: &View, runs: &[v1::Run], names_projects: bool) -> String {
    let mut heads = if names_projects { vec!["PROJECT"] } else { Vec::new() };
    heads.extend(["RUN", "STARTED", "BY", "STATE", "TOOK", "RECEIVED"]);
    if view.wide {
        heads.extend(["ATTEMPTS", "ENDED", "CAUSE"]);
    }
    let mut table = Table::new(heads);
    for run in runs {
        let received = stats(run).map_or_else(|| "-".to_owned(), |stats| units::bytes(stats.received_bytes));
        let mut row = if names_projects { vec![names::project_of(&run.name).into()] } else { Vec::new() };
        row.extend([
            Cell::from(names::short_run(&run.name)),
            since(view, run.start_time.or(run.create_time)).into(),
            by(run).into(),
            Cell::colored(run_word(run.state()), run_color(run.state())),
            took(view, run).into(),
            received.into(),
        ]);
        if view.wide {
            let cause = outcome(run).map(|outcome| outcome.cause.as_str()).unwrap_or_default();
            row.extend([
                run.attempt_count.to_string().into(),
                since(view, run.end_time).into(),
                cause.into(),
            ]);
        }
        table.row(row);
    }
    table.render(view)
}

/// What asked for the run: `schedule`, a person's name, `push`.
#[must_use]
pub fn by(run: &v1::Run) -> String {
    let Some(trigger) = &run.trigger else { return "-".to_owned() };
    match trigger.kind() {
        TriggerKind::Unspecified => "-".to_owned(),
        TriggerKind::Schedule if trigger.autonomous => "schedule (agent alone)".to_owned(),
        TriggerKind::Schedule => "schedule".to_owned(),
        TriggerKind::User if trigger.by.is_empty() => "a user".to_owned(),
        TriggerKind::User => names::last(&trigger.by).to_owned(),
        TriggerKind::Push => "push".to_owned(),
        TriggerKind::UpstreamChange => "upstream".to_owned(),
        TriggerKind::Project => format!("after {}", names::last(&trigger.by)),
    }
}

fn outcome(run: &v1::Run) -> Option<&v1::Outcome> {
    run.origin_attempt.as_ref()?.outcome.as_ref()
}

fn stats(run: &v1::Run) -> Option<&v1::Stats> {
    outcome(run)?.stats.as_ref()
}

/// From the first offer to the end, or until now.
fn took(view: &View, run: &v1::Run) -> String {
    match (time(run.start_time), time(run.end_time)) {
        (Some(start), end) => units::duration(end.unwrap_or(view.now) - start),
        (None, _) => "-".to_owned(),
    }
}

/// `mirrorctl run show`.
#[must_use]
pub fn show(view: &View, run: &v1::Run, attempts: &[v1::Attempt]) -> String {
    let project = names::project_of(&run.name);
    let mut text = headline(view, run);
    let mut lines: Vec<(&str, String)> = vec![("by", asked(view, run))];
    lines.extend(time(run.end_time).map(|end| ("ended", units::rfc3339(end))));
    if !run.reseed_from.is_empty() {
        lines.push(("from", format!("{}; nothing is deleted", names::last(&run.reseed_from))));
    }
    lines.extend(move_lines(run));
    let newest = attempts.iter().rev().find(|attempt| attempt.role() == v1::Role::Origin);
    let newest = newest.or(run.origin_attempt.as_ref());
    if let Some(attempt) = newest.filter(|attempt| !attempt.fell_back.is_empty()) {
        lines.push(("upstream", fell_back(attempt)));
    }
    if let Some(outcome) = newest.and_then(|attempt| attempt.outcome.as_ref()) {
        lines.extend(outcome_lines(outcome));
        lines.extend(outcome.marker.as_ref().map(|seen| ("marker", marker_seen(view, seen))));
    }
    if let Some(progress) = newest.and_then(|attempt| attempt.progress.as_ref()) {
        lines.push(("progress", progress_line(progress)));
    }
    if let Some(retry) = newest.and_then(|attempt| time(attempt.retry_time)) {
        lines.push(("retry", format!("once more at {}", units::moment_and_distance(retry, view.now))));
    }
    if let Some(then) = newest.and_then(|attempt| then(run, attempt)) {
        lines.push(("then", then.to_owned()));
    }
    lines.extend(attempts.iter().map(|attempt| ("tries", try_line(view, attempt))));
    // The newest end of each replica that failed; the origin's stands above.
    let failed = watch::lines::newest(attempts).into_iter();
    let failed = failed.filter(|attempt| attempt.role() == v1::Role::Replica);
    lines.extend(failed.filter_map(|attempt| Some((names::last(&attempt.agent), diagnosis(attempt)?))));
    lines.extend(run.caught_up.iter().map(|one| ("caught up", caught_up(view, run, one))));
    if !run.missed.is_empty() {
        let missed: Vec<&str> = run.missed.iter().map(|agent| names::last(agent)).collect();
        lines.push(("missed", format!("{} (will catch up)", missed.join(", "))));
    }
    if let Some(advice) = newest.and_then(|attempt| attempt.outcome.as_ref()).map(|outcome| &outcome.advice)
        && !advice.is_empty()
    {
        lines.push(("advice", advice.clone()));
    }
    text.push_str(&block(view, &lines));
    let held = newest.is_some_and(|attempt| attempt.state() == AttemptState::Held);
    if run.state() == RunState::Held && held {
        text.push_str(&format!(
            "Leave it: the next fire checks again. Allow it: mirrorctl run approve {project}\n"
        ));
    } else if matches!(run.state(), RunState::Failed | RunState::Held) {
        text.push_str(&format!("Next: mirrorctl run log {project}/{}\n", names::short_run(&run.name)));
    }
    text
}

/// `edge3, 26h after the run`.
fn caught_up(view: &View, run: &v1::Run, replica: &v1::CaughtUp) -> String {
    let agent = names::last(&replica.agent);
    match (time(replica.time), time(run.end_time)) {
        (Some(at), Some(end)) => format!("{agent}, {} after the run ended", units::age(at - end)),
        (Some(at), None) => format!("{agent}, {} ago", units::age(view.now - at)),
        (None, _) => agent.to_owned(),
    }
}

fn headline(view: &View, run: &v1::Run) -> String {
    let state = run.state();
    let mut word = view.paint(run_color(state), &run_word(state).to_uppercase());
    if let Some(outcome) = outcome(run)
        && state == RunState::Failed
    {
        word.push_str(&format!(" ({})", class_word(outcome.class())));
    }
    let on = run.origin_attempt.as_ref().map(|attempt| format!(" on {}", names::last(&attempt.agent)));
    let when = match (time(run.end_time), time(run.start_time)) {
        (Some(end), _) => format!(", {} ago", units::age(view.now - end)),
        (None, Some(start)) => format!(", for {}", units::duration(view.now - start)),
        (None, None) => String::new(),
    };
    let name = names::short_run(&run.name);
    let kind = match (run.dry_run, run.reseed_from.is_empty()) {
        (true, _) => "Dry run",
        (false, _) if !run.move_to.is_empty() => "Move",
        (false, true) => "Run",
        (false, false) => "Reseed",
    };
    let line =
        format!("{kind} {name} of {}: {word}{}{when}", names::project_of(&run.name), on.unwrap_or_default());
    format!("{line}\n")
}

fn asked(view: &View, run: &v1::Run) -> String {
    let mut text = by(run);
    if let Some(created) = time(run.create_time) {
        text.push_str(&format!(", {}", units::moment_and_distance(created, view.now)));
    }
    if run.coalesced_triggers > 0 {
        text.push_str(&format!("; {} more joined it", units::count(run.coalesced_triggers)));
    }
    text
}

/// `fell back to mirror2.example.org: mirror1.example.org: connection refused`.
fn fell_back(attempt: &v1::Attempt) -> String {
    format!("fell back to {}: {}", host(&attempt.upstream), units::clean(&attempt.fell_back))
}

/// `project/trace/ftp.example.net: the tree's is of 04:12 UTC (3h ago), the upstream's of 10:00 UTC (2h ago)`.
fn marker_seen(view: &View, seen: &v1::MarkerSeen) -> String {
    let told = |of| time(of).map(|at| units::moment_and_distance(at, view.now));
    let path = seen.marker.as_ref().map_or("", |marker| marker.path.as_str());
    let mut parts = Vec::new();
    match (told(seen.tree_time), told(seen.upstream_time)) {
        (Some(tree), Some(_)) if seen.tree_time == seen.upstream_time => {
            parts.push(format!("{tree}, here and at the upstream"));
        }
        (tree, upstream) => {
            parts.extend(tree.map(|tree| format!("{tree} in the tree")));
            parts.extend(upstream.map(|upstream| format!("{upstream} at the upstream")));
        }
    }
    parts.extend(Some(&seen.note).filter(|note| !note.is_empty()).map(|note| units::clean(note).to_string()));
    format!("{}: {}", units::clean(path), parts.join("; "))
}

/// What was said to whoever asked for a move.
#[must_use]
pub fn move_begun(run: &v1::Run, project: &v1::Project, agent: &str) -> String {
    let (id, name) = (names::short_run(&run.name), names::project_of(&run.name));
    let (from, to) = (&run.move_from, &run.move_to);
    let link = project.publish.as_ref().map(|publish| publish.link.as_str()).unwrap_or_default();
    let readers = match link {
        "" => {
            format!("then {name} is pulled there; it has no public link, so lead your readers there yourself")
        }
        link => format!("then {link} leads there"),
    };
    let writers = if project.upstreams.is_empty() {
        format!(" Nobody may write to {from} until it has ended.")
    } else {
        String::new()
    };
    format!(
        "Run {id} moves {name} on {agent} from {from} to {to}: it is copied and compared, {readers}. The tree at {from} \
         serves until then, and stays.{writers}"
    )
}

/// Where the trees of a move are, by how far it is.
fn move_lines(run: &v1::Run) -> Vec<(&'static str, String)> {
    if run.move_to.is_empty() {
        return Vec::new();
    }
    let (from, to) = (&run.move_from, &run.move_to);
    let lines = match run.state() {
        RunState::Succeeded => {
            (format!("{from}; it stays there and nobody uses it: remove it when you like"), to.clone())
        }
        RunState::Failed | RunState::Cancelled | RunState::Held => (
            format!("{from}; it serves as before"),
            format!("{to}; what was copied stays for another move, or remove it"),
        ),
        RunState::Unspecified | RunState::Queued | RunState::Running | RunState::Propagating => {
            (format!("{from}; it serves until the copy is proven"), to.clone())
        }
    };
    vec![("from", lines.0), ("to", lines.1)]
}

/// The last line about a move: what is where, and what may go.
#[must_use]
pub fn move_over(run: &v1::Run) -> String {
    let (from, to) = (&run.move_from, &run.move_to);
    match run.state() {
        RunState::Succeeded => {
            format!("The old tree at {from} stays and nobody uses it any more: remove it when you like.")
        }
        _ => format!(
            "The tree is where it was, at {from}. What was copied to {to} stays for another move, or remove it."
        ),
    }
}

/// What a hold means for the trees, until it closes.
fn then(run: &v1::Run, attempt: &v1::Attempt) -> Option<&'static str> {
    let aside = !run.reseed_from.is_empty() || !run.move_to.is_empty();
    if attempt.state() != AttemptState::Held || run.dry_run || aside {
        return None;
    }
    let evidence = attempt.outcome.as_ref()?.evidence.as_ref()?;
    Some(match evidence.kind() {
        Kind::Deletes => {
            "replicas serve the tree before; while held, fires copy and count but delete nothing"
        }
        Kind::Shrink => "replicas serve the tree before; the origin's own has changed already",
        Kind::EmptyUpstream | Kind::SentinelMissing | Kind::Adoption => "nothing was changed",
        Kind::UpstreamBehind if attempt.outcome.as_ref()?.stats.is_none() => "nothing was changed",
        Kind::UpstreamBehind => "replicas serve the tree before; the origin's own has changed already",
        Kind::Quota | Kind::Unspecified => "replicas serve the tree before",
    })
}

/// Why an attempt did not succeed, whose fault that is, and what to do, in one line; `None`: it did, or goes on.
#[must_use]
pub fn diagnosis(attempt: &v1::Attempt) -> Option<String> {
    let outcome = attempt.outcome.as_ref().filter(|outcome| outcome.class() != Class::Ok)?;
    let mut parts = vec![class_word(outcome.class()).to_owned()];
    if let Some(evidence) = &outcome.evidence {
        parts = hold::lines(evidence).into_iter().map(|(_, text)| text).collect();
    } else if !outcome.cause.is_empty() {
        parts = vec![format!("\"{}\"", outcome.cause.replace('"', "\\\""))];
    }
    if !outcome.fault.is_empty() {
        parts.push(format!("fault: {}", fault(&outcome.fault)));
    }
    if !outcome.advice.is_empty() {
        parts.push(outcome.advice.clone());
    }
    Some(parts.join("; "))
}

/// What, why and whose fault.
fn outcome_lines(outcome: &v1::Outcome) -> Vec<(&'static str, String)> {
    // What comes with a success is a dry run's.
    let told = if outcome.class() == Class::Ok { hold::foreseen } else { hold::lines };
    let mut lines = outcome.evidence.as_ref().map(told).unwrap_or_default();
    if let Some(stats) = &outcome.stats {
        let mut what = done(stats);
        if let Some(skipped) = outcome.deletes_skipped.filter(|_| outcome.evidence.is_none()) {
            what.push_str(&format!("; {} more deletes wanted", units::count(skipped)));
        }
        lines.push((if outcome.evidence.is_some() { "did" } else { "what" }, what));
    }
    if outcome.class() != Class::Ok {
        let how = match (outcome.exit_code, outcome.signal) {
            (Some(code), _) => format!("rsync exit {code}"),
            (None, Some(signal)) => format!("rsync ended by signal {signal}"),
            (None, None) => class_word(outcome.class()).to_owned(),
        };
        let why = if outcome.cause.is_empty() {
            how
        } else {
            format!("{how}: \"{}\"", outcome.cause.replace('"', "\\\""))
        };
        lines.push(("why", why));
        if !outcome.fault.is_empty() {
            lines.push(("fault", fault(&outcome.fault)));
        }
    }
    lines
}

/// What was transferred, in one line.
fn done(stats: &v1::Stats) -> String {
    format!(
        "{} transferred, {} deleted, {} received; the tree has {}, {}",
        plural(stats.transferred, "file", "files"),
        units::count(stats.deleted),
        units::bytes(stats.received_bytes),
        plural(stats.files, "file", "files"),
        units::bytes(stats.total_bytes),
    )
}

/// Whose fault it is, in words.
fn fault(whose: &str) -> String {
    match whose {
        "upstream" => "the upstream's".to_owned(),
        "fleet" => "this fleet's".to_owned(),
        "network" => "the network's".to_owned(),
        "open" => "open: the upstream may have meant it, or be broken".to_owned(),
        other => other.to_owned(),
    }
}

fn progress_line(progress: &v1::Progress) -> String {
    if progress.phase() == v1::progress::Phase::Verify {
        return watch::lines::comparing(progress);
    }
    let mut parts: Vec<String> = progress.percent.map(|percent| format!("{percent}%")).into_iter().collect();
    parts.push(format!(
        "{} of {} files",
        units::count(progress.files_done),
        units::count(progress.files_total)
    ));
    parts.push(units::bytes(progress.bytes_done));
    parts.push(units::rate(progress.rate_bytes));
    parts.join(", ")
}

/// One attempt: `ftp1 origin 52m 10s, 3.11 GiB, 1,204 files, exit 23`.
fn try_line(view: &View, attempt: &v1::Attempt) -> String {
    let mut head = format!("{} {}", names::last(&attempt.agent), role_word(attempt.role()));
    if let Some(start) = time(attempt.start_time) {
        head.push_str(&format!(" {}", units::duration(time(attempt.end_time).unwrap_or(view.now) - start)));
    }
    if !attempt.source_agent.is_empty() {
        head.push_str(&format!(" from {}", names::last(&attempt.source_agent)));
    }
    if !attempt.fell_back.is_empty() {
        head.push_str(&format!(" from {}", host(&attempt.upstream)));
    }
    let mut parts = vec![head];
    if let Some(stats) = attempt.outcome.as_ref().and_then(|outcome| outcome.stats.as_ref()) {
        parts.push(units::bytes(stats.received_bytes));
        parts.push(plural(stats.transferred, "file", "files"));
    }
    parts.push(match attempt.outcome.as_ref().and_then(|outcome| outcome.exit_code) {
        Some(code) => format!("exit {code}"),
        None => attempt_word(attempt.state()).to_owned(),
    });
    if attempt.mixed {
        parts.push("mixed: its source changed meanwhile, it is pulled again".to_owned());
    }
    parts.join(", ")
}

/// How a closed attempt reads in a watch: `✓ succeeded in 8m 31s    138 GiB   2,914 files   1,106 deleted`.
#[must_use]
pub fn ended(attempt: &v1::Attempt) -> String {
    let outcome = attempt.outcome.clone().unwrap_or_default();
    let took = match (time(attempt.start_time), time(attempt.end_time).or_else(|| time(outcome.end_time))) {
        (Some(start), Some(end)) => units::duration(end - start),
        _ => "?".to_owned(),
    };
    let word = attempt_word(attempt.state());
    if attempt.state() == AttemptState::Succeeded {
        let Some(stats) = outcome.stats else { return format!("{word} in {took}") };
        return format!(
            "{word} in {took}    {}   {}   {} deleted",
            units::bytes(stats.received_bytes),
            plural(stats.transferred, "file", "files"),
            units::count(stats.deleted)
        );
    }
    let mut text = match outcome.class() {
        Class::Unspecified | Class::Cancelled => format!("{word} after {took}"),
        class => format!("{word} ({}) after {took}", class_word(class)),
    };
    if !outcome.cause.is_empty() {
        text.push_str(&format!(": {}", units::clean(&outcome.cause)));
    }
    text
}
