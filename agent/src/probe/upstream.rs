//! The way to the upstream: this host's own rules, the name servers, one listing of one directory, and, when asked for,
//! a count of all that is below it. One connection at a time.

use std::collections::BTreeSet;
use std::time::Duration;

use mirror_proto::v1;
use mirror_proto::v1::finding::{Kind, Severity};
use rsync::exit::{Class, Diagnosis, ExitCode, diagnose};
use rsync::{Deletion, Fault, Options, Password, Plan, Purpose, RsyncUri, listing};

use super::program::{self, Ran, Wanted};
use super::{Look, Place, finding};
use crate::guard::upstream::resolve;
use crate::rundir::Secret;
use fleet::words::{bytes, commas};

/// Longest wait for the upstream's port, whatever the project says: somebody waits for the answer.
pub(super) const CONNECT_TIMEOUT_MAX: Duration = Duration::from_secs(10);
/// Longest silence of the upstream.
pub(super) const IO_TIMEOUT: Duration = Duration::from_secs(15);
/// Longest listing.
pub(super) const LIST_TIME_MAX: Duration = Duration::from_secs(20);
/// Longest count.
const SIZE_TIME_MAX: Duration = Duration::from_secs(60);
/// A volume that would be fuller than this, in percent, is worth a warning.
const FULL_PERCENT: u64 = 95;

/// What was seen.
#[derive(Default)]
pub(super) struct Seen {
    /// What there is to say.
    pub(super) findings: Vec<v1::Finding>,
    /// Bytes that a first run would fetch, where they were counted.
    pub(super) growth_bytes: Option<u64>,
}

/// An upstream that is looked at.
pub(super) struct Upstream<'a> {
    pub(super) look: &'a Look<'a>,
    pub(super) source: RsyncUri,
    /// Options that hold; none: there are none that do.
    pub(super) options: Option<Options>,
    pub(super) place: Option<&'a Place>,
}

/// A password as rsync reads it.
pub(super) fn secret_of(secrets: Option<&v1::Secrets>) -> Result<Option<Secret>, String> {
    let password = secrets.map_or("", |secrets| secrets.password.as_str());
    if password.is_empty() {
        return Ok(None);
    }
    let unusable = || "the password cannot be used; set it again".to_owned();
    let password = Password::new(password.as_bytes().to_vec()).map_err(|_| unusable())?;
    let line = [password.expose(), b"\n"].concat();
    Secret::new(line).map(Some).ok_or_else(unusable)
}

/// What a listing showed.
#[derive(Default)]
struct Listed {
    /// The directory itself.
    itself: bool,
    /// Entries besides it and the sentinels.
    entries: u64,
    /// Names that are sentinels.
    found: BTreeSet<Vec<u8>>,
}

impl Upstream<'_> {
    pub(super) async fn look(&self) -> Seen {
        let mut seen = Seen::default();
        if let Some(refused) = self.judge_host().await {
            seen.findings.push(refused);
            return seen;
        }
        if self.look.probe.offline {
            return seen;
        }
        let listed = self.list(&mut seen.findings).await;
        // Without options that hold there is no telling what a run would fetch.
        if let Some(options) = self.options.as_ref().filter(|_| listed && self.look.probe.size) {
            let (size, growth_bytes) = self.size(options).await;
            seen.findings.push(size);
            seen.growth_bytes = growth_bytes;
        }
        seen
    }

    fn reachability(&self, severity: Severity, text: &str) -> v1::Finding {
        finding(Kind::Reachability, severity, self.look.say(text))
    }

    /// Why this host may not, or cannot, ask that one.
    async fn judge_host(&self) -> Option<v1::Finding> {
        let host = self.source.host();
        let addresses = match resolve(host, self.source.port()).await {
            Ok(addresses) => addresses,
            Err(error) => {
                let text = format!(
                    "finds no address of {host}: {error}; fault: open; check the name and this host's name servers"
                );
                return Some(self.reachability(Severity::Fault, &text));
            }
        };
        let judged = self.look.live.config.upstreams.judge(host, &addresses);
        let refusal = judged.err()?;
        Some(self.reachability(Severity::Fault, &format!("may not pull from there: {refusal}; fault: yours")))
    }

    /// Asks rsync; the first error is a sentence.
    async fn ask(&self, plan: Plan, time_max: Duration, line: impl FnMut(&[u8])) -> Result<Ran, String> {
        let command = plan
            .build()
            .map_err(|faults| faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))?;
        let read_paths = match self.place {
            Some(place) if place.exists => vec![place.path.clone()],
            Some(_) | None => Vec::new(),
        };
        let secret = secret_of(self.look.probe.secrets.as_ref())?;
        let (port, slug) = (self.source.port(), program::new_slug());
        let wanted = Wanted { command, port, read_paths, secret, time_max, slug, fetches: None };
        program::run(self.look.live, wanted, line).await
    }

    /// Lists the upstream's directory and the sentinels below it. True: the directory is there.
    async fn list(&self, findings: &mut Vec<v1::Finding>) -> bool {
        let sentinels = &self.look.probe.sentinels;
        let wanted: BTreeSet<&[u8]> = sentinels.iter().map(String::as_bytes).collect();
        let mut listed = Listed::default();
        let purpose = Purpose::List(sentinels.clone());
        // A listing takes none of the options but for the kind of address: what is wrong with them hides nothing here.
        let options = self.options.clone().unwrap_or_default();
        let plan = self.look.plan(self.source.clone(), options, purpose);
        let plan = Plan { delete: None::<Deletion>, acls_and_xattrs: true, ..plan };
        let ran = self
            .ask(plan, LIST_TIME_MAX, |line| match listing::parse_line(line) {
                Some(entry) if entry.name == listing::SELF => listed.itself = true,
                Some(entry) if wanted.contains(entry.name.as_slice()) => {
                    listed.found.insert(entry.name);
                }
                Some(_) => listed.entries += 1,
                None => {}
            })
            .await;
        let ran = match ran {
            Ok(ran) => ran,
            Err(why) => {
                findings.push(self.reachability(Severity::Fault, &format!("could not ask: {why}")));
                return false;
            }
        };
        let diagnosis = diagnose(ran.end, &ran.stderr, &ran.stats);
        // With 23 the directory is there, and only a sentinel is not.
        let there = listed.itself && matches!(ran.end, ExitCode::Code(0 | 23 | 24));
        if !there {
            findings.push(self.unreachable(ran.end, &diagnosis));
            return false;
        }
        findings.push(self.reached(&listed));
        findings.extend(self.judge_sentinels(&listed, ran.truncated));
        true
    }

    fn reached(&self, listed: &Listed) -> v1::Finding {
        let uri = self.uri();
        if listed.entries == 0 && listed.found.is_empty() {
            let text = format!("reaches {uri}, and it is empty: a run would be held");
            return self.reachability(Severity::Warning, &text);
        }
        self.reachability(Severity::Ok, &format!("reaches {uri}"))
    }

    /// The upstream as people typed it.
    fn uri(&self) -> String {
        rsync::text::printable(self.look.probe.source_uri.as_bytes(), 300)
    }

    fn unreachable(&self, end: ExitCode, diagnosis: &Diagnosis) -> v1::Finding {
        let (host, uri) = (self.source.host(), self.uri());
        if end == ExitCode::WallClock || end == ExitCode::Stalled {
            let text = format!(
                "got no listing of {uri} in {} s; fault: open; the upstream, or the way to it, is slow or hangs",
                LIST_TIME_MAX.as_secs()
            );
            return self.reachability(Severity::Fault, &text);
        }
        let fault = diagnosis.fault.unwrap_or(Fault::Open);
        let cause = if diagnosis.cause.is_empty() { "it lists nothing" } else { &diagnosis.cause };
        let (severity, what, advice) = match diagnosis.class {
            Class::Busy => {
                let text = format!(
                    "was asked to come back later by {host}: \"{cause}\"; a run waits and asks again"
                );
                return self.reachability(Severity::Warning, &text);
            }
            Class::Auth => (Severity::Fault, format!("is refused by {host}"), diagnosis.advice.as_str()),
            Class::NotFound => (Severity::Fault, format!("does not find {uri}"), diagnosis.advice.as_str()),
            Class::Refused => (Severity::Fault, format!("is refused by {host}"), diagnosis.advice.as_str()),
            Class::Network | Class::Timeout => (
                Severity::Fault,
                format!("cannot reach {host}"),
                "see whether it is up, and the way to it open",
            ),
            _ => (Severity::Fault, format!("gets no listing of {uri}"), "see whether rsync by hand gets one"),
        };
        self.reachability(severity, &format!("{what}: {cause}; fault: {fault}; {advice}"))
    }

    fn judge_sentinels(&self, listed: &Listed, truncated: bool) -> Option<v1::Finding> {
        let sentinels = &self.look.probe.sentinels;
        if sentinels.is_empty() {
            return None;
        }
        let missing: Vec<String> = sentinels
            .iter()
            .filter(|name| !listed.found.contains(name.as_bytes()))
            .map(|name| format!("\"{}\"", rsync::text::printable(name.as_bytes(), 100)))
            .collect();
        let (severity, text) = match (missing.len(), truncated) {
            (0, _) if sentinels.len() == 1 => (Severity::Ok, "the sentinel is at the upstream".to_owned()),
            (0, _) => (Severity::Ok, format!("all {} sentinels are at the upstream", sentinels.len())),
            (_, true) => (
                Severity::Warning,
                "the upstream's directory is too long to find the sentinels in".to_owned(),
            ),
            (_, false) => (
                Severity::Fault,
                format!("missing at the upstream: {}; a run would be held", missing.join(", ")),
            ),
        };
        Some(finding(Kind::Sentinels, severity, text))
    }

    /// Counts what is below the upstream's directory, and how much of it would be fetched.
    async fn size(&self, options: &Options) -> (v1::Finding, Option<u64>) {
        let said = |severity, text: String| finding(Kind::Size, severity, text);
        let plan = self.look.plan(self.source.clone(), options.clone(), Purpose::DryRun);
        // Only what comes is counted.
        let plan = Plan { delete: None::<Deletion>, ..plan };
        let plan = match self.place {
            Some(place) => Plan { destination: place.path.clone(), ..plan },
            None => plan,
        };
        let ran = match self.ask(plan, SIZE_TIME_MAX, |_| {}).await {
            Ok(ran) => ran,
            Err(why) => return (said(Severity::Warning, format!("could not count: {why}")), None),
        };
        if ran.end == ExitCode::WallClock || ran.end == ExitCode::Stalled {
            let text = format!("still counting after {} s; it is a large tree", SIZE_TIME_MAX.as_secs());
            return (said(Severity::Warning, text), None);
        }
        let (Some(files), Some(total)) = (ran.stats.files, ran.stats.total_size) else {
            let diagnosis = diagnose(ran.end, &ran.stderr, &ran.stats);
            return (said(Severity::Warning, format!("could not count: {}", diagnosis.cause)), None);
        };
        let growth = ran.stats.transferred_size;
        let (severity, fill) = self.fill(growth.unwrap_or(total));
        let text = format!("~{}, {} files{fill}", bytes(total), commas(files.total));
        let size = v1::Finding {
            files: Some(files.total),
            size_bytes: Some(total),
            ..finding(Kind::Size, severity, text)
        };
        (size, growth.or(Some(total)))
    }

    /// How full the volume would be.
    fn fill(&self, growth: u64) -> (Severity, String) {
        let space = self.place.and_then(|place| {
            let root = self.look.live.guard.root_of(&place.destination).ok()?;
            root.space().ok().filter(|space| space.total_bytes > 0).map(|space| (place, space))
        });
        let Some((place, space)) = space else { return (Severity::Ok, String::new()) };
        let used = (space.total_bytes - space.free_bytes.min(space.total_bytes)).saturating_add(growth);
        let percent = u128::from(used) * 100 / u128::from(space.total_bytes);
        let severity = if percent >= u128::from(FULL_PERCENT) { Severity::Warning } else { Severity::Ok };
        let volume = format!("{}:{}", self.look.live.config.name, place.destination.root());
        (severity, format!(": {volume} would be {percent} % full"))
    }
}
