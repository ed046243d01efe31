//! Command lines, argument by argument, each with where it comes from.

use mirror_proto::v1::{self, argument::Origin};

use crate::names;
use crate::term::View;
use crate::text::role_word;
use crate::units;

/// Columns of the arguments; what they come from stands behind.
const WIDTH: usize = 42;

/// `mirrorctl project explain`.
#[must_use]
pub fn explain(view: &View, response: &v1::ExplainProjectResponse) -> String {
    let parts: Vec<String> = response.command_lines.iter().map(|line| command_line(view, line)).collect();
    match parts.is_empty() {
        true => "No agent holds the tree yet. Next: mirrorctl project list\n".to_owned(),
        false => parts.join("\n"),
    }
}

fn command_line(view: &View, line: &v1::CommandLine) -> String {
    let agent = names::last(&line.agent);
    let role = role_word(line.role());
    if !line.fault.is_empty() {
        return format!("{}\n", view.wrap_keeping(&format!("rsync on {agent} ({role}): {}", line.fault), 2));
    }
    let head = format!("rsync on {agent} ({}), {role}", units::clean(&line.rsync_version));
    let mut text = row(&head, "where it comes from");
    text.push_str(&row(&format!("  {}", units::clean(&line.program)), "agent's file"));
    for (words, from) in grouped(&line.arguments) {
        for (index, words) in lines(&words).into_iter().enumerate() {
            text.push_str(&row(&format!("  {words}"), if index == 0 { &from } else { "" }));
        }
    }
    for limit in &line.limits {
        text.push_str(&row(&format!("  ({})", units::clean(&limit.text)), &from(limit)));
    }
    text
}

fn row(left: &str, right: &str) -> String {
    let row = format!("{left:WIDTH$}  {right}");
    format!("{}\n", row.trim_end())
}

/// Arguments that follow each other and come from the same.
fn grouped(arguments: &[v1::Argument]) -> Vec<(Vec<String>, String)> {
    let mut groups: Vec<(Vec<String>, String)> = Vec::new();
    for argument in arguments {
        let (word, from) = (quoted(&argument.text), from(argument));
        match groups.last_mut().filter(|(_, last)| *last == from) {
            Some((words, _)) => words.push(word),
            None => groups.push((vec![word], from)),
        }
    }
    groups
}

/// As many words on a line as fit.
fn lines(words: &[String]) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in words {
        match lines.last_mut().filter(|line| line.chars().count() + 1 + word.chars().count() <= WIDTH - 2) {
            Some(line) => {
                line.push(' ');
                line.push_str(word);
            }
            None => lines.push(word.clone()),
        }
    }
    lines
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    crate::app::quoted(&units::clean(word))
}

fn from(argument: &v1::Argument) -> String {
    let source = units::clean(&argument.source);
    let with = |word: &str| if source.is_empty() { word.to_owned() } else { format!("{word}: {source}") };
    match argument.origin() {
        Origin::Unspecified => with("?"),
        Origin::Default => with("default"),
        Origin::Project => with("project"),
        Origin::Always => with("always"),
        Origin::Agent => with("agent's file"),
        Origin::Guard => with("delete guard"),
        Origin::Secret => "secret, sent on a pipe".to_owned(),
        // An agent's own cap, or who serves the tree.
        Origin::Fleet => match source.split_once(' ') {
            Some((agent, _)) => format!("fleet: cap of {}", names::last(agent)),
            None => format!("fleet: {} serves it", names::last(&source)),
        },
    }
}
