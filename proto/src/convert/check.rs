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

/// Reads a probe's result for the agent of this name (`agents/{agent}`): the probe's id, and what was found.
///
/// # Errors
/// Too many findings. One of a kind or severity that this version does not know is left as it is: clients print its
/// sentence.
pub fn probe_result_from_wire(
    agent: &str,
    wire: v1::ProbeResult,
) -> Result<(u64, Vec<v1::Finding>), Violation> {
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
    Ok((wire.id, wire.findings.into_iter().map(read).collect()))
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
        let result = |count| v1::ProbeResult { id: 7, findings: vec![finding.clone(); count] };
        let (id, findings) = probe_result_from_wire("agents/ftp1", result(FINDINGS_MAX)).unwrap();
        assert_eq!((id, findings.len(), findings[0].agent.as_str()), (7, FINDINGS_MAX, "agents/ftp1"));
        assert!(
            findings[0].sentence.len() <= SENTENCE_BYTES_MAX && findings[0].sentence.starts_with("\\x1b")
        );
        assert!(probe_result_from_wire("agents/ftp1", result(FINDINGS_MAX + 1)).is_err());
    }
}
