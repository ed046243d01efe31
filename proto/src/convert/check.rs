//! What agents find when they are asked to look at what a project needs: bounded, printable, and nothing of it the
//! agent's word for who it is.

use fleet::refusal::Violation;
use rsync::text::printable;

use super::cut;
use crate::v1::{
    self,
    finding::{Kind, Severity},
};

/// Most findings of one probe.
pub const FINDINGS_MAX: usize = 16;
/// Longest sentence of a finding, in bytes.
pub const SENTENCE_BYTES_MAX: usize = 1 << 10;

/// Most arguments of a command line: rsync has about that many options.
pub const ARGUMENTS_MAX: usize = 256;
/// Longest argument that is shown, in bytes.
pub const ARGUMENT_BYTES_MAX: usize = 4 << 10;

/// What an agent answers to a probe, read.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Probed {
    /// What it found.
    pub findings: Vec<v1::Finding>,
    /// What it would call rsync with, where that was asked.
    pub command_line: Option<v1::CommandLine>,
}

/// Reads a probe's result for the agent of this name (`agents/{agent}`): the probe's id, and what was found.
///
/// # Errors
/// Too many findings or arguments. A finding of a kind or severity that this version does not know is left as it is: clients print its
/// sentence.
pub fn probe_result_from_wire(agent: &str, wire: v1::ProbeResult) -> Result<(u64, Probed), Violation> {
    if wire.findings.len() > FINDINGS_MAX {
        let text = format!("{} findings; at most {FINDINGS_MAX}", wire.findings.len());
        return Err(Violation::new("probe_result.findings", text));
    }
    let read = |finding: v1::Finding| {
        let sentence = printable(finding.sentence.as_bytes(), SENTENCE_BYTES_MAX);
        v1::Finding {
            agent: agent.to_owned(),
            sentence: cut(&sentence, SENTENCE_BYTES_MAX).to_owned(),
            ..finding
        }
    };
    let arguments = |line: &v1::CommandLine| line.arguments.len().max(line.limits.len());
    if let Some(count) = wire.command_line.as_ref().map(arguments).filter(|count| *count > ARGUMENTS_MAX) {
        let text = format!("{count} arguments; at most {ARGUMENTS_MAX}");
        return Err(Violation::new("probe_result.command_line", text));
    }
    let command_line = wire.command_line.map(|line| command_line(agent, line));
    Ok((wire.id, Probed { findings: wire.findings.into_iter().map(read).collect(), command_line }))
}

fn command_line(agent: &str, line: v1::CommandLine) -> v1::CommandLine {
    let text = |text: &str, max: usize| cut(&printable(text.as_bytes(), max), max).to_owned();
    let argument = |one: v1::Argument| v1::Argument {
        text: text(&one.text, ARGUMENT_BYTES_MAX),
        source: text(&one.source, SENTENCE_BYTES_MAX),
        ..one
    };
    v1::CommandLine {
        agent: agent.to_owned(),
        program: text(&line.program, ARGUMENT_BYTES_MAX),
        rsync_version: text(&line.rsync_version, SENTENCE_BYTES_MAX),
        arguments: line.arguments.into_iter().map(argument).collect(),
        limits: line.limits.into_iter().map(argument).collect(),
        fault: text(&line.fault, SENTENCE_BYTES_MAX),
        ..line
    }
}

/// A finding of the coordinator's own about an agent (`agents/{agent}`).
#[must_use]
pub fn finding_to_wire(agent: String, kind: Kind, severity: Severity, sentence: String) -> v1::Finding {
    v1::Finding { agent, kind: kind.into(), severity: severity.into(), sentence, ..v1::Finding::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_bounded_and_the_agents_name_is_the_certificates() {
        let finding = v1::Finding {
            agent: "agents/other".to_owned(),
            sentence: format!("\u{1b}[31m{}", "ä".repeat(2_000)),
            ..v1::Finding::default()
        };
        let result =
            |count| v1::ProbeResult { id: 7, findings: vec![finding.clone(); count], command_line: None };
        let (id, probed) = probe_result_from_wire("agents/ftp1", result(FINDINGS_MAX)).unwrap();
        let findings = probed.findings;
        assert_eq!((id, findings.len(), findings[0].agent.as_str()), (7, FINDINGS_MAX, "agents/ftp1"));
        assert!(
            findings[0].sentence.len() <= SENTENCE_BYTES_MAX && findings[0].sentence.starts_with("\\x1b")
        );
        assert!(probe_result_from_wire("agents/ftp1", result(FINDINGS_MAX + 1)).is_err());
        let argument = v1::Argument { text: "\u{1b}".repeat(3_000), ..v1::Argument::default() };
        let line = |count| v1::CommandLine {
            agent: "agents/other".to_owned(),
            arguments: vec![argument.clone(); count],
            ..v1::CommandLine::default()
        };
        let told = |count| v1::ProbeResult { command_line: Some(line(count)), ..result(0) };
        let (_, probed) = probe_result_from_wire("agents/ftp1", told(ARGUMENTS_MAX)).unwrap();
        let line = probed.command_line.unwrap();
        assert_eq!((line.agent.as_str(), line.arguments.len()), ("agents/ftp1", ARGUMENTS_MAX));
        assert!(line.arguments.iter().all(|one| one.text.len() <= ARGUMENT_BYTES_MAX));
        assert!(probe_result_from_wire("agents/ftp1", told(ARGUMENTS_MAX + 1)).is_err());
    }
}
