//! From drafts to a manifest: names that are valid and unique, destinations by the maps, trees that do not overlap,
//! passwords' files, and the contract's own check of each project, so that what is printed can be applied. Knows no
//! format.

use std::collections::{BTreeMap, BTreeSet};

use fleet::{
    defaults::{LABEL_CHARS_MAX, REASON_CHARS_MAX},
    id::{AgentUid, NAME_BYTES_MAX, Name, ProjectUid},
    project::Destination,
};
use mirror_proto::{
    convert::{Context, project_from_wire},
    v1,
};
use rsync::Password;

use super::{Draft, FAILED, Import, Imported, secrets};
use crate::{
    app::quoted,
    fault::{Fault, Outcome},
    manifest::{Declared, Manifest, Paused},
    text::plural,
    units,
};

/// Names of the last note that are shown.
const NAMES_SHOWN_MAX: usize = 20;
/// The name of a project whose own has no usable character.
const NAMELESS: &str = "project";

impl Import<'_> {
    /// Ends the import: all faults, or the manifest.
    pub(super) fn finish(mut self, whole: &str) -> Outcome<Imported> {
        self.name_all();
        self.place_all();
        self.origin_of_all();
        let secrets = self.secrets();
        let mut projects = Vec::with_capacity(self.drafts.len());
        for draft in std::mem::take(&mut self.drafts) {
            self.check(&draft);
            projects.push(draft);
        }
        self.roots.tell_missing(&mut self.faults);
        if !self.faults.is_empty() {
            let next = self.next(&projects);
            let fault = self.faults.into_fault(FAILED);
            let whole = if whole == "-" { "standard input" } else { whole };
            let what = fault.what.replace("in what you typed", &format!("in {whole} and its flags"));
            return Err(Fault { what, next, ..fault });
        }
        let notes = notes(&projects, &self.general, &self.left_out);
        let projects = projects.into_iter().map(declared).collect();
        Ok(Imported { manifest: Manifest { projects }, secrets, notes })
    }

    /// The command again with the flags that are missing; `None`: none is.
    fn next(&self, drafts: &[Draft]) -> Option<String> {
        let mut missing = self.roots.flags();
        if self.origin.is_none() {
            missing.push_str(" --origin AGENT");
        }
        if self.settings.secrets_dir.is_none() && drafts.iter().any(|one| one.password.is_some()) {
            missing.push_str(" --secrets-dir DIR");
        }
        if missing.is_empty() {
            return None;
        }
        let settings = self.settings;
        let maps = settings.map_roots.iter().map(|map| ("--map-root", map.clone()));
        let origin = settings.origin.iter().map(|agent| ("--origin", agent.clone()));
        let secrets = settings.secrets_dir.iter().map(|path| (secrets::FLAG, path.display().to_string()));
        let zone = settings.time_zone.iter().map(|zone| ("--time-zone", zone.clone()));
        let given = maps.chain(origin).chain(secrets).chain(zone);
        let given: String = given.map(|(flag, value)| format!(" {flag} {}", quoted(&value))).collect();
        Some(format!("mirrorctl {}{given}{missing}", self.command))
    }

    /// Names become valid and unique ignoring case; each change is told.
    fn name_all(&mut self) {
        let mut taken = BTreeSet::new();
        for draft in &mut self.drafts {
            let mut name = mended(&draft.name);
            let mut number = 2;
            let base = name.clone();
            while !taken.insert(name.to_ascii_lowercase()) {
                let end = format!("-{number}");
                name = format!("{}{end}", &base[..base.len().min(NAME_BYTES_MAX - end.len())]);
                number += 1;
            }
            if name != draft.name {
                draft.note(format!("its name was {:?}", shown(&draft.name)));
            }
            draft.project.name = format!("projects/{name}");
            draft.name = name;
        }
    }

    /// Destinations by the maps. Where two trees overlap, the first stays, paused, and the other is left out.
    fn place_all(&mut self) {
        let mut kept: Vec<(Draft, Option<Destination>)> = Vec::with_capacity(self.drafts.len());
        // Trees that overlap have the first component in common.
        let mut by_top: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for mut draft in std::mem::take(&mut self.drafts) {
            let destination = match self.roots.map(&draft.name, &draft.directory) {
                Ok(destination) => destination,
                Err(why) => {
                    let text = format!("{:?}: its directory {:?} {why}", draft.name, shown(&draft.directory));
                    self.faults.add(draft.place.clone(), text);
                    None
                }
            };
            if let Some(here) = &destination {
                let top = format!("{}:{}", here.root(), here.path().split('/').next().unwrap_or_default());
                let near = by_top.entry(top).or_default();
                let other = near.iter().copied().find(|index| {
                    kept.get(*index)
                        .is_some_and(|(_, there)| there.as_ref().is_some_and(|there| there.overlaps(here)))
                });
                if let Some((other, there)) = other.and_then(|index| kept.get_mut(index)) {
                    let at = there.as_ref().map(ToString::to_string).unwrap_or_default();
                    other.pause(format!(
                        "{} ({}) wrote into the same tree {here} and is left out",
                        draft.name, draft.place
                    ));
                    let why = format!(
                        "{:?} writes into {here}, which is inside or around {at} of {:?}",
                        draft.name, other.name
                    );
                    self.left_out.push((draft.place, why));
                    continue;
                }
                near.push(kept.len());
                draft.project.destination = here.to_string();
            }
            kept.push((draft, destination));
        }
        self.drafts = kept.into_iter().map(|(draft, _)| draft).collect();
    }

    fn origin_of_all(&mut self) {
        if self.origin.is_none() && !self.drafts.is_empty() {
            self.faults
                .add("--origin", "is missing; name the agent that pulls from the upstreams: --origin AGENT");
        }
        if let Some(origin) = &self.origin
            && let Err(bad) = origin.parse::<Name>()
        {
            self.faults.add("--origin", format_args!("{:?}: {bad}", shown(origin)));
            return;
        }
        let Some(origin) = &self.origin else { return };
        for draft in &mut self.drafts {
            let target =
                v1::PlacementTarget { agent: format!("agents/{origin}"), ..v1::PlacementTarget::default() };
            draft.project.placement.get_or_insert_default().origins = vec![target];
        }
    }

    /// Passwords with a place to go to.
    fn secrets(&mut self) -> Vec<secrets::Secret> {
        let mut found = Vec::new();
        for draft in &mut self.drafts {
            let user = draft.project.upstreams.first().map(|upstream| upstream.user.clone());
            if draft.password.is_none() && draft.password_file.is_none() {
                continue;
            }
            if user.is_none_or(|user| user.is_empty()) {
                draft.password = None;
                draft.password_file = None;
                draft.note("its password is left out: no user of an upstream goes with it");
                continue;
            }
            let Some(text) = draft.password.clone() else { continue };
            if Password::new(text.as_bytes().to_vec()).is_err() {
                let text = "its password is longer than rsync reads or not one line";
                self.faults.add(draft.place.clone(), format_args!("{:?}: {text}", draft.name));
                continue;
            }
            let Some(directory) = &self.settings.secrets_dir else { continue };
            let path = secrets::path(directory, &draft.name);
            draft.password_file = Some(path.clone());
            found.push(secrets::Secret { path, text });
        }
        let homeless = self.drafts.iter().filter(|one| one.password.is_some()).count();
        if homeless > 0 && self.settings.secrets_dir.is_none() {
            let count = plural(homeless as u64, "password needs", "passwords need");
            let text = format!("{count} a place: add --secrets-dir DIR; no manifest holds one");
            self.faults.add(secrets::FLAG, text);
        }
        found
    }

    /// The coordinator's own reading, as far as it needs no fleet.
    fn check(&mut self, draft: &Draft) {
        let mut project = draft.project.clone();
        // These two were told by their flags.
        let told = |field: &str| {
            field.starts_with("placement") || (field == "destination" && draft.project.destination.is_empty())
        };
        if let Some(upstream) = project.upstreams.first_mut() {
            upstream.password = None;
        }
        let (agent, before) = (&|_: &_| Some(AgentUid(1)), &|_: &_| Some(ProjectUid(1)));
        let context = Context { agent, project: before, seal: &|_| Vec::new(), current: None };
        for fault in project_from_wire(&project, context).err().into_iter().flatten() {
            if !told(&fault.field) {
                self.faults.add(
                    draft.place.clone(),
                    format_args!("{:?} {}: {}", draft.name, fault.field, fault.description),
                );
            }
        }
    }
}

/// What people should know, one line each, the summary last.
fn notes(drafts: &[Draft], general: &[String], left_out: &[(String, String)]) -> Vec<String> {
    let mut notes: Vec<String> = general.iter().map(|text| format!("Note: {text}")).collect();
    for draft in drafts {
        notes.extend(draft.notes.iter().map(|text| format!("{}: {}", draft.name, text)));
        notes.extend(draft.pauses.iter().map(|text| format!("{}: paused: {text}", draft.name)));
    }
    notes.extend(left_out.iter().map(|(place, why)| format!("left out, {place}: {why}")));
    let paused: Vec<&str> =
        drafts.iter().filter(|one| !one.pauses.is_empty()).map(|one| one.name.as_str()).collect();
    let mut summary = format!("{} imported", plural(drafts.len() as u64, "project", "projects"));
    if !paused.is_empty() {
        let more = paused.len().saturating_sub(NAMES_SHOWN_MAX);
        let names = paused.iter().take(NAMES_SHOWN_MAX).copied().collect::<Vec<_>>().join(", ");
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        summary.push_str(&format!(", {} of them paused: {names}{more}", paused.len()));
    }
    if !left_out.is_empty() {
        summary.push_str(&format!("; {} left out", left_out.len()));
    }
    notes.push(summary);
    notes.iter().map(|note| units::clean(note)).collect()
}

/// The manifest's form of a draft.
fn declared(draft: Draft) -> Declared {
    let mut declared = Declared { project: draft.project, ..Declared::default() };
    declared.remarks = draft.notes;
    if !draft.pauses.is_empty() {
        let whole = format!("imported: {}", draft.pauses.join("; "));
        let reason = cut(&whole, REASON_CHARS_MAX);
        if reason != whole {
            declared.remarks.extend(draft.pauses.iter().map(|text| format!("Paused: {text}")));
        }
        declared.paused = Some(Paused::Yes(reason));
    }
    if let Some(path) = draft.password_file {
        declared.password_files.insert(0, path);
    }
    declared
}

/// A text that the contract takes: printable, and no longer than this.
pub(super) fn cut(text: &str, chars: usize) -> String {
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().count() <= chars {
        return text;
    }
    text.chars().take(chars - 1).chain(['…']).collect()
}

/// A stranger's text in a message.
pub(super) fn shown(text: &str) -> String {
    cut(text, LABEL_CHARS_MAX)
}

/// The nearest valid name.
fn mended(name: &str) -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() || "._+-".contains(c) { c } else { '-' };
    let text: String = name.chars().map(allowed).collect();
    let text = text.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
    let text = &text[..text.len().min(NAME_BYTES_MAX)];
    if text.is_empty() { NAMELESS.to_owned() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_mended() {
        for (name, mended_name) in
            [("debian", "debian"), ("a b/ü", "a-b--"), ("-._x", "x"), ("", "project"), ("//", "project")]
        {
            assert_eq!(mended(name), mended_name, "{name}");
            mended(name).parse::<Name>().unwrap();
        }
        mended(&"x".repeat(200)).parse::<Name>().unwrap();
        assert_eq!(cut("a\nb", 9), "a b");
        assert_eq!(cut("abcdef", 3), "ab…");
    }
}
