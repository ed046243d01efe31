//! Projects that run after others: `debian-security` whenever `debian` has a new version of its tree. The trigger is in
//! the commit that makes the version, so no crash comes between the two; a trigger during a run joins the next one, as any.
//!
//! The version counts, not the end of the run: replicas may take long, or fail, and hold up nobody else. So what an origin
//! failed to pull, a dry run, a reseed and a move begin nothing.

use std::collections::BTreeSet;

use super::{
    effects::Effects,
    state::{Engine, Project},
};
use crate::{
    id::ProjectUid,
    project::{FOLLOWERS_MAX, ProjectSpec},
    refusal::{Refusal, Violation},
    run::{Trigger, TriggerKind, Wish},
    time::Now,
};

/// Most followers that a refusal names.
const NAMED_MAX: usize = 3;

impl Engine {
    /// This project runs after these from now on.
    pub(super) fn after_changed(&mut self, uid: ProjectUid, after: &[ProjectUid]) {
        if let Some(old) = self.projects.get(&uid) {
            for before in &old.record.spec.after {
                self.followers.remove(&(*before, uid));
            }
        }
        self.followers.extend(after.iter().map(|before| (*before, uid)));
    }

    /// A new version of this project's tree is there: what runs after it is triggered. An archived project takes no
    /// trigger but a person's.
    pub(super) fn begin_followers(
        &self,
        now: Now,
        project: &Project,
        traceparent: &str,
        effects: &mut Effects<'_>,
    ) {
        for follower in self.followers(project.record.uid).filter(|one| one.record.archived.is_none()) {
            let by = project.record.name.to_string();
            let trigger = Trigger { kind: TriggerKind::Project, by, time: now.wall, autonomous: false };
            self.trigger(now, follower, trigger, Wish::default(), traceparent.to_owned(), effects);
        }
    }

    /// What is wrong with the projects after which one is to run.
    pub(super) fn after_faults(&self, own: Option<ProjectUid>, spec: &ProjectSpec) -> Vec<Violation> {
        let mut faults = Vec::new();
        for (index, before) in spec.after.iter().enumerate() {
            let fault = |text: String| Violation::new(format!("after[{index}]"), text);
            let Some(project) = self.projects.get(before) else {
                faults.push(fault("no such project".to_owned()));
                continue;
            };
            let name = &project.record.name;
            if own == Some(*before) {
                faults.push(fault(format!("\"{name}\": nothing runs after itself")));
                continue;
            }
            if let Some(way) = own.and_then(|own| self.way_after(*before, own)) {
                let way = own.into_iter().chain(way).map(|uid| self.name_of(uid)).collect::<Vec<_>>();
                faults.push(fault(format!("\"{name}\": a circle, {}", way.join(" after "))));
            }
            let others = self.followers(*before).filter(|other| Some(other.record.uid) != own).count();
            if others >= FOLLOWERS_MAX {
                faults.push(fault(format!("\"{name}\": {others} projects run after it already")));
            }
        }
        faults
    }

    fn name_of(&self, uid: ProjectUid) -> String {
        self.projects.get(&uid).map_or_else(String::new, |project| project.record.name.to_string())
    }

    /// The way by which `from` runs after `to`, both included; `None`: it does not.
    fn way_after(&self, from: ProjectUid, to: ProjectUid) -> Option<Vec<ProjectUid>> {
        let mut seen = BTreeSet::from([from]);
        let mut ways = vec![vec![from]];
        while let Some(way) = ways.pop() {
            let last = *way.last()?;
            if last == to {
                return Some(way);
            }
            let before = self.projects.get(&last).map_or(&[][..], |project| &project.record.spec.after);
            for next in before {
                if seen.insert(*next) {
                    ways.push(way.iter().copied().chain([*next]).collect());
                }
            }
        }
        None
    }

    /// A project that others run after is not deleted: they would never run again, and nobody would notice.
    pub(super) fn check_followed_by_none(&self, project: &Project) -> Result<(), Refusal> {
        let names: Vec<&str> =
            self.followers(project.record.uid).map(|one| one.record.name.as_str()).collect();
        let Some(first) = names.first() else { return Ok(()) };
        let more = names.len().saturating_sub(NAMED_MAX);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let shown = names.iter().take(NAMED_MAX).copied().collect::<Vec<_>>().join(", ");
        let text = format!(
            "project \"{}\" not deleted: {shown}{more} would never run again, for after it they run; change that first \
             (mirrorctl project edit {first} --after '')",
            project.record.name
        );
        Err(Refusal::precondition("PROJECT_FOLLOWED", text))
    }
}
