//! Why a project is not running now, in sentences for people: one per reason, each with what is in the way, until
//! when, and what to do next. Pure: computed from the view at one moment. Knows no request and no connection.

use std::collections::BTreeMap;

use fleet::{
    Engine,
    agent::AgentRecord,
    attempt::{AttemptRecord, AttemptState, Role},
    defaults,
    engine::{Blocker, Project, WaitReason, Why},
    id::{AgentUid, AttemptId, ProjectUid, RunId},
    outcome::{ExitClass, GuardKind},
    placement::{Hold, PlacementRecord},
    project::Destination,
    run::RunState,
    schedule::Cadence,
    time::{Now, Wall},
};

use super::{
    cause::{one_line, quoted_cause, told_cause},
    words::{bytes, commas, exact, moment, ordinal, relative, span},
};

/// What only the history knows.
#[derive(Debug, Default)]
pub(super) struct Past {
    /// By the attempt that waits: the one of the same placement that failed before it.
    pub(super) failed: BTreeMap<AttemptId, AttemptRecord>,
}

/// The reasons and their sentences, in the order of [`Engine::why`]; when nothing waits, no reason and one
/// sentence.
pub(super) fn explain(view: &Engine, now: Now, project: &Project, past: &Past) -> (Vec<Why>, Vec<String>) {
    let teller = Teller { view, now, project, past, name: project.record.name.as_str() };
    let reasons = view.why(now, project.record.uid);
    if reasons.is_empty() {
        return (reasons, vec![teller.nothing_waits()]);
    }
    let sentences = reasons.iter().map(|why| teller.reason(why)).collect();
    (reasons, sentences)
}

struct Teller<'a> {
    view: &'a Engine,
    now: Now,
    project: &'a Project,
    past: &'a Past,
    name: &'a str,
}

impl Teller<'_> {
    fn reason(&self, why: &Why) -> String {
        let Some(attempt) = self.view.attempt(why.attempt) else {
            return format!("{} is about to be looked at again.", self.name);
        };
        let subject = self.subject(attempt);
        let agent = self.agent(attempt.agent);
        let volume = format!("{agent}:{}", attempt.destination.root());
        match why.wait.reason {
            WaitReason::Paused => self.paused("; one run waits for the resume"),
            WaitReason::Archived => self.archived(),
            WaitReason::Frozen => self.frozen(),
            WaitReason::RunActive => self.run_active(attempt, &subject),
            WaitReason::AgentAway => {
                let role = match attempt.role {
                    Role::Origin => "origin",
                    Role::Replica => "replica",
                };
                self.away(&format!("{} waits for its {role}", self.name), attempt.agent)
            }
            WaitReason::AgentDraining => format!(
                "{subject} waits: {agent} takes no new attempts, it is drained. Next: mirrorctl agent undrain {agent}"
            ),
            WaitReason::AgentSlots => self.in_line(why, &subject, &agent),
            WaitReason::VolumeSlots => self.in_line(why, &subject, &volume),
            WaitReason::FirstSync => self.in_line(why, &subject, &format!("first copies on {volume}")),
            WaitReason::UpstreamSlots => self.in_line(why, &subject, &attempt.upstream_host),
            WaitReason::UpstreamSpacing => format!(
                "{subject} is {} in line for {}: starts there are {} apart; it may start {}.",
                ordinal(why.position),
                attempt.upstream_host,
                span(self.view.upstream_spacing(&attempt.upstream_host)),
                self.at_or_soon(why.until),
            ),
            WaitReason::Backoff => self.backoff(why, attempt, &subject),
            WaitReason::DestinationBusy => self.busy(attempt, &subject, &agent),
            WaitReason::OriginUplink => self.uplink(why, &subject),
            WaitReason::OriginAway if self.is_reseed(attempt) => match why.wait.blockers.first() {
                Some(Blocker::Agent(donor)) => self.away(&format!("{subject} waits for its donor"), *donor),
                _ => format!("{subject} waits for its donor."),
            },
            WaitReason::OriginAway => match self.project.origin() {
                Some(origin) => self.away(&format!("{subject} waits for the origin"), origin.agent),
                None => format!("{subject} waits: the project has no origin."),
            },
            WaitReason::OriginNotServing => self.not_serving(why, attempt, &subject),
            WaitReason::ReplicasPulling => format!(
                "{subject} waits for replicas that still pull the tree it is about to change, until {} at the latest.",
                self.until(why.until)
            ),
            WaitReason::MaxParallel => format!(
                "{subject} is {} in line: at most {} of the project's replicas pull at once ({}).",
                ordinal(why.position),
                self.project.record.spec.placement.max_parallel,
                self.takers(&why.wait.blockers)
            ),
            WaitReason::NoSuchRoot => self.no_such_root(attempt, &subject, &agent),
            WaitReason::UpstreamBreaker => self.breaker(why, &attempt.upstream_host, &subject),
            WaitReason::OutsideWindow => self.window(why, &subject),
            WaitReason::DiskSpace => self.disk_space(why, attempt, &subject, &volume),
        }
    }

    fn busy(&self, attempt: &AttemptRecord, subject: &str, agent: &str) -> String {
        if let Some(donor) = self.reseed_on(attempt) {
            let donor = self.agent(donor);
            return format!(
                "{subject} waits: its tree is first copied onto {agent} from {donor}. Next: mirrorctl run list {}",
                self.name
            );
        }
        match self.move_on(attempt) {
            Some(to) => format!(
                "{subject} waits: its tree on {agent} is being moved to {to}. Next: mirrorctl run list {}",
                self.name
            ),
            None => format!("{subject} waits: another attempt is on {agent}:{}.", attempt.destination),
        }
    }

    /// The source has another tree than the one that is wanted, or its daemon does not serve it to this replica.
    fn not_serving(&self, why: &Why, attempt: &AttemptRecord, subject: &str) -> String {
        let source = why.wait.blockers.iter().find_map(|blocker| match blocker {
            Blocker::Agent(agent) => Some(*agent),
            Blocker::Project(..) | Blocker::Host(_) | Blocker::Volume(..) => None,
        });
        let source = source.or_else(|| self.project.origin().map(|origin| origin.agent));
        let Some(source) = source else { return format!("{subject} waits: the project has no origin.") };
        let name = self.agent(source);
        let placement = self.project.placements.get(&source);
        if let Some(hold) = placement.and_then(|one| one.hold.as_ref()).filter(|hold| hold.has_shrunk()) {
            return format!(
                "{subject} waits: {name} is held since {}, its tree has shrunk. Next: mirrorctl why {}",
                self.ago(hold.since),
                self.name
            );
        }
        if let Some(donor) = self.view.donor_of(attempt.project, source) {
            return format!(
                "{subject} waits: {name}'s tree is being copied from {}, and goes to nobody before it is whole. Next: \
                 mirrorctl run list {}",
                self.agent(donor),
                self.name
            );
        }
        if placement.is_some_and(|placement| placement.half_changed) {
            return format!(
                "{subject} waits: {name}'s last sync ended in the middle, so what it has is no whole tree; the next \
                 success makes a new one. Next: mirrorctl project run {}",
                self.name
            );
        }
        if placement.is_some_and(|placement| placement.have_tree != Some(attempt.tree)) {
            return format!(
                "{subject} waits: {name} lacks the tree that it should copy; the next run makes a new one. Next: \
                 mirrorctl project run {}",
                self.name
            );
        }
        match self.view.export_fault(source) {
            "" => format!(
                "{subject} waits: {name} has not said yet that its rsync daemon serves it. Next: mirrorctl agent show \
                 {name}"
            ),
            fault => format!(
                "{subject} waits: {name} serves no replicas: \"{fault}\"; fault: the agent's own host {name}. Next: \
                 mirrorctl agent show {name}"
            ),
        }
    }

    /// The project, and where it is a replica that waits, which one.
    fn subject(&self, attempt: &AttemptRecord) -> String {
        if self.is_reseed(attempt) {
            return format!("the reseed of {} with {}", self.agent(attempt.agent), self.name);
        }
        if self.is_move(attempt) {
            return format!(
                "the move of {} on {} to {}",
                self.name,
                self.agent(attempt.agent),
                attempt.destination
            );
        }
        match attempt.role {
            Role::Origin if !attempt.fell_back.is_empty() => {
                format!("{} (fell back: {})", self.name, one_line(&attempt.fell_back))
            }
            Role::Origin => self.name.to_owned(),
            Role::Replica => format!("{} on {}", self.name, self.agent(attempt.agent)),
        }
    }

    /// Whether the attempt copies a lost tree.
    fn is_reseed(&self, attempt: &AttemptRecord) -> bool {
        self.view.run(attempt.id.run).is_some_and(|run| run.wish.reseed_from.is_some())
    }

    /// From whom a lost tree is first copied to where this ordinary attempt waits.
    fn reseed_on(&self, attempt: &AttemptRecord) -> Option<AgentUid> {
        self.view.donor_of(attempt.project, attempt.agent).filter(|_| !self.is_reseed(attempt))
    }

    /// Whether the attempt moves a tree.
    fn is_move(&self, attempt: &AttemptRecord) -> bool {
        self.view.run(attempt.id.run).is_some_and(|run| run.wish.moves.is_some())
    }

    /// Where the tree is being moved to for which this ordinary attempt waits.
    fn move_on(&self, attempt: &AttemptRecord) -> Option<&Destination> {
        self.view.moving_to(attempt.project, attempt.agent).filter(|_| !self.is_move(attempt))
    }

    fn agent(&self, uid: AgentUid) -> String {
        self.view.agent(uid).map_or_else(|| "?".to_owned(), |agent| agent.name.to_string())
    }

    fn project_of(&self, uid: ProjectUid) -> String {
        self.view.project(uid).map_or_else(|| "?".to_owned(), |project| project.record.name.to_string())
    }

    fn origin(&self) -> String {
        self.project.origin().map_or_else(|| "?".to_owned(), |origin| self.agent(origin.agent))
    }

    /// `12:10 UTC (in 4h)`.
    fn until(&self, until: Option<Wall>) -> String {
        until.map_or_else(
            || "some time".to_owned(),
            |until| format!("{} (in {})", moment(self.now.wall, until), relative(until.since(self.now.wall))),
        )
    }

    fn at_or_soon(&self, until: Option<Wall>) -> String {
        match until {
            Some(_) => format!("at {}", self.until(until)),
            None => "soon".to_owned(),
        }
    }

    /// `05:40 UTC (2h)`.
    fn since(&self, since: Wall) -> String {
        format!("{} ({})", moment(self.now.wall, since), self.ago(since))
    }

    fn ago(&self, since: Wall) -> String {
        relative(self.now.wall.since(since))
    }

    fn paused(&self, what_waits: &str) -> String {
        let Some(pause) = &self.project.record.paused else {
            return format!("{} was paused a moment ago.", self.name);
        };
        let until =
            pause.until.map_or_else(String::new, |until| format!(", until {}", self.until(Some(until))));
        format!(
            "{0} is paused since {1} by {2}{3}{until}{what_waits}. Next: mirrorctl project resume {0}",
            self.name,
            self.since(pause.time),
            pause.by,
            quoted_reason(&pause.reason)
        )
    }

    fn archived(&self) -> String {
        let Some(archive) = &self.project.record.archived else {
            return format!("{} was archived a moment ago.", self.name);
        };
        format!(
            "{0} is archived since {1} by {2}{3}: it is served as it is, and runs only when asked. Next: mirrorctl \
             project unarchive {0}",
            self.name,
            self.since(archive.time),
            archive.by,
            quoted_reason(&archive.reason)
        )
    }

    fn frozen(&self) -> String {
        let Some(freeze) = &self.view.fleet().frozen else {
            return "The whole fleet was frozen a moment ago.".to_owned();
        };
        let waiting = u64::try_from(self.view.waiting()).unwrap_or(u64::MAX);
        let waiting = match waiting {
            1 => "1 run waits".to_owned(),
            many => format!("{} runs wait", commas(many)),
        };
        let out = u64::try_from(self.view.out()).unwrap_or(u64::MAX);
        let out = match out {
            0 => "none is running".to_owned(),
            1 => "1 running one was left to end".to_owned(),
            many => format!("{} running ones were left to end", commas(many)),
        };
        format!(
            "The whole fleet is frozen since {} by {}{}; {waiting}, {out}. Next: mirrorctl thaw",
            self.since(freeze.time),
            freeze.by,
            quoted_reason(&freeze.reason)
        )
    }

    fn run_active(&self, attempt: &AttemptRecord, subject: &str) -> String {
        let next = format!("Next: mirrorctl run watch {}", self.name);
        match (attempt.role, self.project.origin().and_then(|origin| self.going(origin))) {
            (Role::Replica, _) => {
                format!("{subject} waits until the origin {} has ended its run. {next}", self.origin())
            }
            (Role::Origin, Some(going)) => {
                format!("{subject} is queued: the run before it is going ({going}). {next}")
            }
            (Role::Origin, None) => format!("{subject} is queued: the run before it has not ended. {next}"),
        }
    }

    /// `epel on ftp1 since 14m`.
    fn going(&self, placement: &PlacementRecord) -> Option<String> {
        let attempt = self.view.attempt_on(placement.project, placement.agent)?;
        out_since(&attempt.state)?;
        let taker = self.taker(placement.project, placement.agent);
        Some(match attempt.fell_back.as_str() {
            "" => taker,
            fell_back => {
                format!("{taker}, from {} (fell back: {})", attempt.upstream_host, one_line(fell_back))
            }
        })
    }

    fn taker(&self, project: ProjectUid, agent: AgentUid) -> String {
        let since = self.view.attempt_on(project, agent).and_then(|attempt| out_since(&attempt.state));
        let since = since.map_or_else(String::new, |since| format!(" since {}", self.ago(since)));
        format!("{} on {}{since}", self.project_of(project), self.agent(agent))
    }

    fn takers(&self, blockers: &[Blocker]) -> String {
        let takers = blockers.iter().filter_map(|blocker| match blocker {
            Blocker::Project(project, agent) => Some(self.taker(*project, *agent)),
            Blocker::Agent(_) | Blocker::Host(_) | Blocker::Volume(..) => None,
        });
        takers.collect::<Vec<_>>().join(", ")
    }

    /// `fedora is 1st in line for dl.fedoraproject.org: its 1 slot is taken (epel on ftp1 since 14m).`
    fn in_line(&self, why: &Why, subject: &str, what_for: &str) -> String {
        let taken =
            why.wait.blockers.iter().filter(|blocker| matches!(blocker, Blocker::Project(..))).count();
        let slots = match taken {
            0 | 1 => "its 1 slot is taken".to_owned(),
            many => format!("its {many} slots are taken"),
        };
        let place = ordinal(why.position);
        format!("{subject} is {place} in line for {what_for}: {slots} ({}).", self.takers(&why.wait.blockers))
    }

    /// `nongnu waits: ftp.gnu.org refused 5 connections in a row (last 11m ago); one probe goes out at ...`
    fn breaker(&self, why: &Why, host: &str, subject: &str) -> String {
        let known = self.view.upstream_host_state(host);
        let failures = known.map_or(0, |known| known.failures);
        let last = known.and_then(|known| known.last_failure.as_ref());
        let last = last.map_or_else(String::new, |last| format!(" (last {} ago)", self.ago(last.time)));
        let probe = why.wait.blockers.iter().any(|blocker| matches!(blocker, Blocker::Project(..)));
        let next = if probe {
            format!("the probe is going ({})", self.takers(&why.wait.blockers))
        } else {
            format!("one probe goes out at {}", self.until(why.until))
        };
        let others = match why.line {
            0 | 1 => "all projects of that host wait for it".to_owned(),
            line => {
                format!("all projects of that host wait for it, {subject} {}", place_in(why.position, line))
            }
        };
        format!(
            "{subject} waits: {host} could not be reached {} times in a row{last}; {next} and {others}. Next: mirrorctl \
             upstream list",
            commas(failures.into())
        )
    }

    /// `alpine may only run 22:00-06:00 Europe/Berlin; the window opens at 21:00 UTC (in 13h).`
    fn window(&self, why: &Why, subject: &str) -> String {
        let schedule = &self.project.record.spec.schedule;
        let windows: Vec<String> = schedule.windows.iter().map(ToString::to_string).collect();
        format!(
            "{subject} may only run {} {}; the window opens at {}.",
            windows.join(", "),
            schedule.time_zone.name(),
            self.until(why.until)
        )
    }

    /// `opensuse waits for room: ftp1:a2 has 12.1 GiB free and its reserve is 160 GiB; ...`
    fn disk_space(&self, why: &Why, attempt: &AttemptRecord, subject: &str, volume: &str) -> String {
        let roots = self.view.session(attempt.agent).map_or(&[][..], |session| &session.facts.roots);
        let limits = self.view.limits();
        let root = roots.iter().find(|root| root.name == attempt.destination.root());
        let figures = root.map_or_else(String::new, |root| {
            if root.free_bytes < root.reserve_bytes(limits) {
                let (free, reserve) = (bytes(root.free_bytes), bytes(root.reserve_bytes(limits)));
                return format!(": {volume} has {free} free and its reserve is {reserve}");
            }
            let (free, reserve) = (commas(root.free_inodes), commas(root.reserve_inodes(limits)));
            format!(": {volume} has {free} inodes free and its reserve is {reserve}")
        });
        let line = match why.line {
            0 | 1 => String::new(),
            line => format!(", {}", place_in(why.position, line)),
        };
        let next = match self.is_move(attempt) {
            true => format!("mirrorctl run cancel {}", self.name),
            false => format!("mirrorctl project run {} --reclaim", self.name),
        };
        format!(
            "{subject} waits for room{figures}; it starts by itself when there is room{line}. Next: {next}"
        )
    }

    fn uplink(&self, why: &Why, subject: &str) -> String {
        let limit = match why.wait.blockers.first() {
            Some(Blocker::Agent(source)) => self.view.serving_max(*source),
            _ => self.view.limits().origin_uplink,
        };
        let place = ordinal(why.position);
        format!("{subject} is {place} in line for {}'s uplink ({limit} of {limit} in use).", self.origin())
    }

    /// `cran waits for its origin edge3, unreachable since 26h (last seen ...).`
    fn away(&self, beginning: &str, agent: AgentUid) -> String {
        let name = self.agent(agent);
        let record = self.view.agent(agent);
        if record.is_some_and(AgentRecord::is_declared_only) {
            return format!(
                "{beginning} {name}, which is declared and has not joined yet. Next: mirrorctl join-token create --name {name}"
            );
        }
        let seen = record.and_then(|record| record.last_seen);
        let since = match seen {
            None => "which has never said hello".to_owned(),
            Some(seen) => {
                let gone = self.now.wall.since(seen);
                let word = if gone >= defaults::UNREACHABLE_AFTER { "unreachable" } else { "away" };
                format!("{word} since {} (last seen {})", relative(gone), moment(self.now.wall, seen))
            }
        };
        format!("{beginning} {name}, {since}. Next: mirrorctl agent show {name}")
    }

    fn backoff(&self, why: &Why, attempt: &AttemptRecord, subject: &str) -> String {
        let failed = self.past.failed.get(&attempt.id);
        let outcome = failed.and_then(|failed| failed.state.end()).and_then(|end| end.outcome());
        let ended = failed.and_then(|failed| ended_at(&failed.state));
        let (Some(outcome), Some(ended)) = (outcome, ended) else {
            return format!("{subject} is tried again at {}.", self.until(why.until));
        };
        let host = match attempt.role {
            Role::Origin => attempt.upstream_host.clone(),
            Role::Replica => self.origin(),
        };
        if outcome.class == ExitClass::Busy {
            return format!(
                "{subject} is queued: {host} answered {} {} ago; we ask again at {}. This is no failure.",
                quoted_cause(outcome, "that it is busy"),
                self.ago(ended),
                self.until(why.until)
            );
        }
        if outcome.class == ExitClass::UpstreamBehind {
            return format!(
                "{subject} waits for a newer upstream, and its tree stays as it is: {}; asked again at {}.",
                rsync::text::printable(outcome.cause.as_bytes(), BEHIND_CHARS_MAX),
                self.until(why.until)
            );
        }
        let tries = match outcome.class {
            ExitClass::Partial => 2,
            _ => self.project.record.spec.tries(),
        };
        format!(
            "{subject} failed at {} ({}); try {} of {tries} starts at {}.",
            moment(self.now.wall, ended),
            told_cause(outcome),
            attempt.attempt_try,
            self.until(why.until)
        )
    }

    fn no_such_root(&self, attempt: &AttemptRecord, subject: &str, agent: &str) -> String {
        let roots = self.view.session(attempt.agent).map_or(&[][..], |session| &session.facts.roots);
        let names: Vec<&str> = roots.iter().map(|root| root.name.as_str()).collect();
        let has = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        format!(
            "{subject} waits: {agent} has no root \"{}\" in its own file (it has: {has}). Next: mirrorctl agent show {agent}",
            attempt.destination.root()
        )
    }

    fn nothing_waits(&self) -> String {
        let placements = self.project.placements.values();
        let going: Vec<String> = placements.filter_map(|placement| self.going(placement)).collect();
        if !going.is_empty() {
            return format!("{} is running: {}. Next: mirrorctl run watch {0}", self.name, going.join(", "));
        }
        if self.project.record.archived.is_some() {
            return self.archived();
        }
        if self.project.record.paused.is_some() {
            return self.paused("; nothing waits for the resume");
        }
        let holds = || self.project.placements.values().filter_map(|one| Some((one, one.hold.as_ref()?)));
        // The origin's goes before those of replicas, which follow from its tree.
        match holds().min_by_key(|(placement, _)| (placement.role == Role::Replica, placement.agent)) {
            Some((placement, hold)) => self.held(placement, hold),
            None => self.not_due(),
        }
    }

    /// `debian is held since 25h: 61,204 deletes wanted, 40,000 allowed; ...`
    fn held(&self, placement: &PlacementRecord, hold: &Hold) -> String {
        let subject = match placement.role {
            Role::Origin => self.name.to_owned(),
            Role::Replica => format!("{} on {}", self.name, self.agent(placement.agent)),
        };
        let figures = match hold.evidence.kind {
            GuardKind::Shrink => format!("{}, so it goes to no replica", hold.figures()),
            GuardKind::Deletes
            | GuardKind::EmptyUpstream
            | GuardKind::SentinelMissing
            | GuardKind::Adoption
            | GuardKind::UpstreamBehind
            | GuardKind::Quota => hold.figures(),
        };
        let approved = hold.approved_until.filter(|until| *until > self.now.wall);
        let again = match (approved, placement.role, self.project.state.next_fire) {
            (Some(until), ..) => {
                format!("its next attempt may do that once, until {}", moment(self.now.wall, until))
            }
            (None, Role::Replica, _) => "the next tree is checked again by itself".to_owned(),
            (None, Role::Origin, Some(fire)) => {
                format!("the fire at {} checks again by itself", moment(self.now.wall, fire.at))
            }
            (None, Role::Origin, None) => "the next run checks again".to_owned(),
        };
        let id: String = hold.newest.run.to_string().chars().take(RUN_CHARS).collect();
        let newest = self.project.state.last_run.is_some_and(|last| last.run == hold.newest.run);
        let run = if newest { self.name.to_owned() } else { format!("{}/{id}", self.name) };
        format!(
            "{subject} is held since {}: {figures}; {again}. Next: mirrorctl run show {run}",
            self.ago(hold.since)
        )
    }

    /// The projects after which it runs, with when that may be: `debian (next fire 12:10 UTC (in 4h))`.
    fn before(&self) -> String {
        let before = self.project.record.spec.after.iter().filter_map(|uid| self.view.project(*uid));
        let told = before.map(|before| {
            let goes = |id: &RunId| {
                let run = self.view.run(*id);
                run.is_some_and(|run| matches!(run.state, RunState::Queued | RunState::Running))
            };
            let when = match before.state.next_fire {
                _ if before.record.archived.is_some() => "archived".to_owned(),
                _ if before.runs.iter().any(goes) => "a run of it is going or waits".to_owned(),
                _ if before.record.paused.is_some() => "paused".to_owned(),
                Some(fire) => format!("its next fire is {}", self.until(Some(fire.at))),
                None => "it has no fire".to_owned(),
            };
            format!("{} ({when})", before.record.name)
        });
        told.collect::<Vec<_>>().join(" and ")
    }

    fn not_due(&self) -> String {
        let state = &self.project.state;
        let last_ended = state.last_run.map(|last| (last.state, last.end));
        let tree = match (state.last_success, last_ended) {
            (Some(success), Some((RunState::Succeeded, _)) | None) => {
                format!("it is fresh ({})", self.ago(success))
            }
            (Some(success), Some((_, end))) => format!(
                "its last run did not succeed ({} ago), its tree is {} old",
                self.ago(end),
                self.ago(success)
            ),
            (None, Some((_, end))) => format!("its last run did not succeed ({} ago)", self.ago(end)),
            (None, None) => "it has never run".to_owned(),
        };
        let before = self.before();
        let next = match (state.next_fire, &self.project.record.spec.schedule.cadence) {
            (Some(fire), _) if before.is_empty() => {
                format!("its next fire is {}{}", self.until(Some(fire.at)), self.spread())
            }
            (Some(fire), _) => {
                let (at, spread) = (self.until(Some(fire.at)), self.spread());
                format!("its next fire is {at}{spread}, and it runs after {before}")
            }
            (None, _) if !before.is_empty() => format!("it runs after {before}"),
            (None, Cadence::Manual) => "it runs only when asked".to_owned(),
            (None, Cadence::Cron(_) | Cadence::Interval { .. }) => {
                "its schedule has no more fires".to_owned()
            }
        };
        let behind =
            self.project.origin().and_then(|origin| origin.behind).map_or_else(String::new, |behind| {
                format!(", no upstream has had anything newer since {}", self.ago(behind.since))
            });
        let tree = format!("{tree}{behind}");
        let run = match state.next_fire {
            None if before.is_empty() => format!(" Next: mirrorctl project run {}", self.name),
            Some(_) | None => String::new(),
        };
        format!("{} is not waiting: {tree} and {next}.{run}", self.name)
    }

    /// Why the next fire is not at the time that the schedule names.
    fn spread(&self) -> String {
        let schedule = &self.project.record.spec.schedule;
        match schedule.phase_seconds {
            0 => String::new(),
            phase => format!(", {} into its spread of {}", exact(phase), exact(schedule.spread_in_force())),
        }
    }
}

/// `2nd of 3`.
fn place_in(position: u32, line: u32) -> String {
    format!("{} of {line}", ordinal(position))
}

/// Since when an attempt may be on its agent.
fn out_since(state: &AttemptState) -> Option<Wall> {
    match state {
        AttemptState::Offered { at, .. } => Some(*at),
        AttemptState::Running { started, .. } => Some(*started),
        AttemptState::Cancelling { offered, started, .. } => Some(started.unwrap_or(*offered)),
        AttemptState::Pending { .. } | AttemptState::Ended { .. } => None,
    }
}

fn ended_at(state: &AttemptState) -> Option<Wall> {
    match state {
        AttemptState::Ended { at, .. } => Some(*at),
        AttemptState::Pending { .. }
        | AttemptState::Offered { .. }
        | AttemptState::Running { .. }
        | AttemptState::Cancelling { .. } => None,
    }
}

/// `: "moving to a2"`, or nothing.
fn quoted_reason(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(": \"{reason}\"") }
}

/// Characters of a run's id by which people know it.
const RUN_CHARS: usize = 13;
/// Longest part of our own words on an upstream that is behind: it names a file, a URI and two times.
const BEHIND_CHARS_MAX: usize = 400;

#[cfg(test)]
#[path = "why_tests.rs"]
mod tests;
