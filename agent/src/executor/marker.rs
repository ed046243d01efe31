//! The project's marker: read at the upstream before anything is pulled, compared with the tree's own and with what the
//! coordinator knows, and read again in the tree once it is whole. What cannot be read is told, and ends nothing but an
//! attempt that takes another upstream's place. What a marker's bytes mean is in [`fleet::marker`].

use std::io;
use std::path::Path;

use fleet::marker::{self, MARKER_BYTES_MAX, MARKER_NOTE_CHARS_MAX, MarkerCheck, MarkerKind, MarkerSeen};
use fleet::time::Wall;
use fleet::words::instant;
use mirror_proto::convert::marker_seen_to_wire;
use mirror_proto::v1;
use mirror_proto::v1::evidence::Kind;
use mirror_proto::v1::outcome::Class;
use rsync::{Fault, Purpose};
use serde::{Deserialize, Serialize};

use super::attempt::{Early, Machine};
use super::guards::{Ended, Pass, Verdict, end, evidence};
use super::ledger::blocking;
use super::passes::{pass_dir, tries};
use crate::clock;
use crate::guard::tree_file::{TreeFile, read_beneath};
use crate::order::Order;
use crate::outcome::of_class;
use crate::rundir::RunDir;

/// Where a program puts what it fetches, below its run directory.
pub(super) const FETCHED_DIR: &str = "fetched";
/// What was seen at the upstream, below the run directory of the look: an agent that was killed reads it there.
const SEEN_FILE: &str = "seen.json";
/// rsync's exit code where it could not find or read what it was asked for.
const EXIT_PARTIAL: i32 = 23;

/// What was seen at the upstream.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Seen {
    /// Its time, milliseconds since 1970.
    time_ms: Option<i64>,
    /// Why there is none.
    fault: String,
}

/// How the upstream's marker is read: of one that tells by its own time nothing is fetched.
pub(super) fn purpose(order: &Order) -> Purpose {
    match &order.marker {
        Some(MarkerCheck { marker, .. }) if marker.kind != MarkerKind::Mtime => {
            Purpose::Fetch { name: marker.path.clone(), max_bytes: MARKER_BYTES_MAX }
        }
        Some(MarkerCheck { marker, .. }) => Purpose::List(vec![marker.path.clone()]),
        None => Purpose::List(Vec::new()),
    }
}

/// The file that a look at the marker has fetched.
pub(super) async fn fetched(run: &RunDir, order: &Order) -> Option<Vec<u8>> {
    let dir = run.path().join(FETCHED_DIR);
    let name = order.marker.as_ref()?.marker.path.rsplit('/').next()?.to_owned();
    blocking(move || Some(read_fetched(&dir, &name)?.content)).await
}

fn read_fetched(dir: &Path, name: &str) -> Option<TreeFile> {
    let dir = std::fs::File::open(dir).ok()?;
    read_beneath(dir, name, MARKER_BYTES_MAX + 1).ok()
}

/// What a look at the upstream's marker found; `Err`: why nothing could be asked, which the pull would meet too.
fn look(check: &MarkerCheck, ended: &Ended, now: Wall) -> Result<Seen, Box<v1::Outcome>> {
    let unread = |fault: String| Ok(Seen { time_ms: None, fault });
    let asked = match ended.outcome.class() {
        Class::Ok | Class::Partial => true,
        // Its own limits ended it: too much of it, or too slowly.
        Class::WallClock => false,
        _ if ended.outcome.exit_code == Some(EXIT_PARTIAL) => true,
        _ => return Err(Box::new(ended.outcome.clone())),
    };
    if !asked {
        return unread("it is too large, or comes too slowly".to_owned());
    }
    let changed = ended.findings.changed.map(Wall::of_seconds);
    match marker::of_file(check.marker.kind, changed, ended.fetched.as_deref(), now) {
        Ok(time) => Ok(Seen { time_ms: Some(time.0), fault: String::new() }),
        Err(fault) => unread(fault.to_string()),
    }
}

/// Judges what was seen against the newest marker that the tree is known to have had.
fn judge(order: &Order, check: &MarkerCheck, seen: &Seen, served: Option<Wall>, ended: &Ended) -> Verdict {
    let marker = &check.marker.path;
    let Some(time) = seen.time_ms.map(Wall) else {
        let unread = format!("{marker} at {} tells nothing: {}", order.source, seen.fault);
        if !check.required {
            return Verdict::GoOn(unread);
        }
        let sentence = format!("{unread}; so nobody knows whether it is older than what is served");
        return end(behind(sentence, 0, ended));
    };
    match served.filter(|served| time < *served && !order.waives(Kind::UpstreamBehind)) {
        Some(served) => {
            let late = served.since(time);
            let sentence = format!(
                "{marker} at {} is of {}, what is served is of {}: {} older",
                order.source,
                instant(time),
                instant(served),
                span(late.as_secs()),
            );
            end(behind(sentence, late.as_secs(), ended))
        }
        None => Verdict::GoOn(format!("{marker} is of {}", instant(time))),
    }
}

/// A span with one unit.
fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

fn behind(sentence: String, seconds: u64, ended: &Ended) -> v1::Outcome {
    let advice =
        "nothing to do: it is asked again in half an hour, and any other upstream that is declared at once";
    v1::Outcome {
        exit_code: ended.outcome.exit_code,
        evidence: Some(evidence(Kind::UpstreamBehind, (seconds, 0), Vec::new(), sentence.clone())),
        ..of_class(Class::UpstreamBehind, &sentence, Fault::Upstream, advice)
    }
}

impl Machine<'_> {
    /// Judges a look at the upstream's marker, and keeps what it saw.
    pub(super) async fn judge_marker(&self, ended: Ended) -> Early<Verdict> {
        let order = &self.attempt.order;
        let Some(check) = &order.marker else { return Ok(Verdict::GoOn(String::new())) };
        let now = Wall::from(clock::now());
        let seen = match look(check, &ended, now) {
            Ok(seen) => seen,
            Err(outcome) => return Ok(end(*outcome)),
        };
        self.keep_seen(&seen).await;
        let own = self.tree_marker(check, now).await.ok().flatten();
        Ok(judge(order, check, &seen, own.max(check.not_before), &ended))
    }

    /// Where it cannot be kept the outcome tells less; that is no reason to end the attempt.
    async fn keep_seen(&self, seen: &Seen) {
        let Some(dir) = self.marker_dir() else { return };
        let Ok(json) = serde_json::to_vec(seen) else { return };
        let written = blocking(move || std::fs::write(dir.join(SEEN_FILE), json)).await;
        if let Err(error) = written {
            tracing::warn!(%error, "what was seen of the marker is not kept for a restart");
        }
    }

    /// The run directory of the newest look at the marker.
    fn marker_dir(&self) -> Option<std::path::PathBuf> {
        let order = &self.attempt.order;
        let dirs = tries().rev().map(|number| pass_dir(self.shared, order, Pass::Marker, number));
        dirs.into_iter().find(|dir| dir.is_dir())
    }

    /// The marker of the tree that is there; `None`: there is no tree, or no such file in it.
    async fn tree_marker(&self, check: &MarkerCheck, now: Wall) -> Result<Option<Wall>, String> {
        let path = check.marker.path.clone();
        let read = self
            .at_root(move |root, order| {
                Ok(root.read_in_tree(&order.destination, &path, MARKER_BYTES_MAX + 1))
            })
            .await;
        let file = match read {
            Ok(Ok(file)) => file,
            Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Ok(Err(error)) => return Err(error.to_string()),
            Err(outcome) => return Err(outcome.cause),
        };
        let changed = Some(Wall::of_seconds(file.changed));
        let time = marker::of_file(check.marker.kind, changed, Some(&file.content), now);
        time.map(Some).map_err(|fault| fault.to_string())
    }

    /// The outcome, with what was seen of the marker where somebody looked.
    pub(super) async fn with_marker(&self, outcome: v1::Outcome) -> v1::Outcome {
        let Some(check) = &self.attempt.order.marker else { return outcome };
        let Some(dir) = self.marker_dir() else { return outcome };
        let kept = blocking(move || std::fs::read(dir.join(SEEN_FILE))).await;
        let upstream = kept.ok().and_then(|json| serde_json::from_slice::<Seen>(&json).ok());
        let Some(upstream) = upstream else { return outcome };
        let whole = matches!(outcome.class(), Class::Ok | Class::Partial) && outcome.stats.is_some();
        let tree = if whole { self.tree_marker(check, Wall::from(clock::now())).await } else { Ok(None) };
        let mut notes = Vec::new();
        notes.extend(
            Some(upstream.fault).filter(|fault| !fault.is_empty()).map(|why| format!("upstream: {why}")),
        );
        notes.extend(match &tree {
            Err(why) => Some(format!("tree: {why}")),
            Ok(None) if whole => Some("tree: there is no such file".to_owned()),
            Ok(_) => None,
        });
        let seen = MarkerSeen {
            marker: check.marker.clone(),
            upstream: upstream.time_ms.map(Wall),
            tree: tree.ok().flatten(),
            note: notes.join("; ").chars().take(MARKER_NOTE_CHARS_MAX).collect(),
        };
        v1::Outcome { marker: Some(marker_seen_to_wire(&seen)), ..outcome }
    }
}
