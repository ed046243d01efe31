//! What a guard found, in words: as a line, as a block's lines, and as the question before it is approved.

use mirror_proto::convert;
use mirror_proto::v1::evidence::Kind;
use mirror_proto::v1::{self, Evidence};

use crate::names;
use crate::text::plural;
use crate::units;

/// `61,204 deletes wanted, 40,000 allowed`: the same words as everywhere in the fleet.
#[must_use]
pub fn figures(hold: &v1::Hold) -> String {
    let evidence = hold.evidence.as_ref().and_then(convert::evidence_from_wire);
    match evidence {
        // The first attempt had deleted up to the limit; what it found came on top.
        Some(evidence) => evidence.figures(hold.first_attempt == hold.newest_attempt),
        None => "a guard stopped it".to_owned(),
    }
}

/// `what`, `limit` and `where` of a block.
#[must_use]
pub fn lines(evidence: &Evidence) -> Vec<(&'static str, String)> {
    let (wanted, allowed) = (units::count(evidence.wanted), units::count(evidence.allowed));
    let (what, limit) = match evidence.kind() {
        Kind::Deletes => {
            ("stopped at the delete limit", Some(format!("{allowed} deletes; {wanted} more are wanted")))
        }
        Kind::EmptyUpstream => ("the upstream lists nothing", None),
        Kind::SentinelMissing => ("paths that must exist are missing at the upstream", None),
        Kind::Shrink => {
            ("the tree has shrunk", Some(format!("held from {allowed} % lost on; {wanted} % are lost")))
        }
        Kind::Adoption => ("the destination holds files that the fleet did not put there", None),
        Kind::Quota => ("the tree is larger than its quota", None),
        Kind::UpstreamBehind => ("the upstream is older than what is served", None),
        Kind::Unspecified => ("a guard stopped it", None),
    };
    let told = if evidence.sentence.is_empty() { what.to_owned() } else { evidence.sentence.clone() };
    let mut lines = vec![("what", told)];
    lines.extend(limit.map(|limit| ("limit", limit)));
    if !evidence.names.is_empty() {
        lines.push(("where", evidence.names.join(" · ")));
    }
    lines
}

/// `what`, `limit` and `where` of a dry run, which was not stopped by what it found.
#[must_use]
pub fn foreseen(evidence: &Evidence) -> Vec<(&'static str, String)> {
    let allowed = plural(evidence.allowed, "delete", "deletes");
    let held = if evidence.wanted > evidence.allowed { "; a run would be held" } else { "" };
    let mut lines = lines(evidence);
    for (_, text) in lines.iter_mut().filter(|(key, _)| *key == "limit") {
        *text = format!("{allowed}{held}");
    }
    lines
}

/// What an approval lets happen.
#[must_use]
pub fn question(project: &str, placement: &v1::PlacementStatus, hold: &v1::Hold) -> String {
    let on = names::last(&placement.agent);
    let evidence = hold.evidence.clone().unwrap_or_default();
    let what = match evidence.kind() {
        Kind::Deletes => {
            let more = plural(evidence.wanted, "more file", "more files");
            format!("This lets {on} delete up to {more} of {project}.")
        }
        Kind::EmptyUpstream => {
            format!(
                "This lets {on} follow an upstream of {project} that lists nothing, within the delete limit."
            )
        }
        Kind::SentinelMissing => format!("This lets {on} copy {project} without the paths that must exist."),
        Kind::Shrink => {
            format!(
                "This lets the tree of {project} on {on}, {} % smaller, go to all replicas.",
                evidence.wanted
            )
        }
        Kind::Adoption => format!("This lets {on} change the files of {project} that it found there."),
        Kind::Quota => format!("This lets {project} on {on} grow beyond its quota."),
        Kind::UpstreamBehind => {
            format!("This lets an older tree of {project} take the place of what is served.")
        }
        Kind::Unspecified => format!("This lets {on} pass over what stopped {project}."),
    };
    format!("{what} Approve?")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dry_run_is_not_said_to_want_more() {
        let found =
            |wanted| Evidence { kind: Kind::Deletes.into(), wanted, allowed: 500, ..Evidence::default() };
        let limit = |wanted| foreseen(&found(wanted))[1].1.clone();
        assert_eq!(limit(65), "500 deletes");
        assert_eq!(limit(501), "500 deletes; a run would be held");
    }

    #[test]
    fn a_question_says_what_will_happen() {
        let placement =
            v1::PlacementStatus { agent: "agents/ftp1".to_owned(), ..v1::PlacementStatus::default() };
        let hold = |kind: Kind, wanted| v1::Hold {
            evidence: Some(Evidence { kind: kind.into(), wanted, ..Evidence::default() }),
            ..v1::Hold::default()
        };
        assert_eq!(
            question("debian", &placement, &hold(Kind::Deletes, 21_204)),
            "This lets ftp1 delete up to 21,204 more files of debian. Approve?"
        );
        assert_eq!(
            question("debian", &placement, &hold(Kind::Shrink, 41)),
            "This lets the tree of debian on ftp1, 41 % smaller, go to all replicas. Approve?"
        );
    }
}
