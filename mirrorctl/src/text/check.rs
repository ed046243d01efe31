//! What a check found: one line for each thing that was looked at, and how many of them are bad.

use mirror_proto::v1;
use mirror_proto::v1::finding::{Kind, Severity};

use crate::term::{Color, Sign, View};
use crate::text::plural;
use crate::units;

/// Columns of the kinds, blanks included.
const KIND_WIDTH: usize = 11;

/// `mirrorctl project check`; `name` is the project's, short.
#[must_use]
pub fn check(view: &View, name: &str, response: &v1::CheckProjectResponse) -> String {
    let sign_width = if view.unicode { 1 } else { 2 };
    let mut text = String::new();
    for finding in &response.findings {
        let (sign, color) = sign(finding.severity());
        let sign = format!("{:sign_width$}", view.sign(sign));
        let head = format!("  {sign} {:KIND_WIDTH$}", kind_word(finding.kind()));
        let line = format!("{head}{}", units::clean(&finding.sentence));
        let folded = view.wrap_keeping(&line, head.chars().count());
        // Painted last: colours have no width.
        text.push_str(&folded.replacen(&sign, &view.paint(color, &sign), 1));
        text.push('\n');
    }
    let next = if response.faults > 0 {
        format!("mirrorctl project edit {name} --help")
    } else {
        format!("mirrorctl project run {name} --watch")
    };
    let (faults, warnings) = (
        plural(response.faults.into(), "fault", "faults"),
        plural(response.warnings.into(), "warning", "warnings"),
    );
    let last = format!("{faults}, {warnings}, nothing changed. Next: {next}");
    text.push_str(&view.wrap(&last, 2));
    text.push('\n');
    text
}

const fn sign(severity: Severity) -> (Sign, Option<Color>) {
    match severity {
        Severity::Ok => (Sign::Good, Some(Color::Green)),
        Severity::Warning | Severity::Unspecified => (Sign::Warning, Some(Color::Yellow)),
        Severity::Fault => (Sign::Bad, Some(Color::Red)),
    }
}

const fn kind_word(kind: Kind) -> &'static str {
    match kind {
        Kind::Unspecified => "-",
        Kind::Path => "path",
        Kind::Space => "space",
        Kind::Reachability => "upstream",
        Kind::Size => "size",
        Kind::Options => "options",
        Kind::Sentinels => "sentinels",
        Kind::Agent => "agent",
        Kind::Link => "link",
        Kind::Marker => "marker",
    }
}
