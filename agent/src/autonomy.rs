//! What this agent does when it has had no coordinator for long: it runs the last schedule it knows, by the standing
//! orders that its coordinator told it. They are on disk, without secrets, and are checked against the agent's own
//! file again whenever one is followed. What was run is held in the journal as everything is, and told in the next
//! hello. Knows when to begin; how an attempt runs is the executor's.
//!
//! Nothing is begun from the moment a hello is composed until that session has ended.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fleet::defaults;
use fleet::id::{AttemptId, Epoch, ProjectUid, RunId};
use fleet::project::NextFire;
use fleet::schedule::Schedule;
use fleet::standing::{AutonomousFire, Due, due};
use fleet::time::{Mono, Now, Wall};
use mirror_proto::convert::{autonomous_fire_to_wire, schedule_from_wire, wall_from_wire, wall_to_wire};
use mirror_proto::v1;
use mirror_proto::v1::refused::Reason;
use prost::Message as _;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::executor::Answer;
use crate::key::Key;
use crate::link::Link;
use crate::{clock, outcome};

/// Pause between two looks at what is due.
const LOOK_PACE: Duration = Duration::from_secs(1);
/// What changed is on disk after this at the latest: a coordinator may change many orders in a row.
const SAVE_AFTER: Duration = Duration::from_secs(2);
/// While a session stands, its orders are confirmed on disk this often.
const CONFIRM_PACE: Duration = Duration::from_secs(5 * 60);
/// What could not be begun for want of room is tried again after this.
const BUSY_PAUSE: Duration = Duration::from_secs(10);
/// Most orders: as many projects as one fleet is made for.
const ORDERS_MAX: usize = 10_000;
/// Largest file that is read, bytes.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// The file: all orders, and when a coordinator last stood by them.
#[derive(Clone, PartialEq, prost::Message)]
struct Stored {
    #[prost(int64, tag = "1")]
    confirmed_ms: i64,
    #[prost(message, repeated, tag = "2")]
    orders: Vec<v1::StandingOrder>,
}

/// One order, read.
#[derive(Debug, Clone)]
struct Standing {
    assignment: v1::Assignment,
    schedule: Schedule,
    next: Option<NextFire>,
    /// It could not be begun, and is not tried again before.
    not_before: Option<Instant>,
}

type Orders = BTreeMap<ProjectUid, Standing>;

/// What is known of orders.
#[derive(Debug, Default)]
struct Known {
    orders: Orders,
    /// A complete list that goes on in the next message.
    gathered: Option<Orders>,
    /// When a coordinator last stood by them, by this host's clock.
    confirmed: Option<Wall>,
    /// Since when the file is behind.
    changed: Option<Instant>,
}

/// Whether there is a coordinator.
#[derive(Debug, Clone, Copy)]
enum Presence {
    /// None, since then or since the start.
    Gone(Instant),
    /// A hello is on its way; if nothing comes of it, there was none since then.
    Greeted(Instant),
    /// A session stands.
    Here,
    /// There is one, and it does not want this agent: nothing is done for it.
    Refused,
}

/// What the absence of a coordinator comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Nothing: there is one, or it has not been away for long, or the agent's own file says so.
    Waits,
    /// The orders are followed.
    Alone,
    /// They are too old to be followed.
    Outdated,
}

/// The orders, and whether they are to be followed.
#[derive(Debug)]
pub struct Autonomy {
    path: PathBuf,
    known: Mutex<Known>,
    /// Locked while an attempt is begun: a hello is composed before that, or after it.
    presence: tokio::sync::Mutex<Presence>,
}

impl Autonomy {
    /// Reads the orders of a data directory. What cannot be read is no order: the next session tells all of them.
    #[must_use]
    pub fn open(data_dir: &Path) -> Self {
        let path = data_dir.join("standing-orders");
        let stored = read(&path).unwrap_or_else(|error| {
            tracing::warn!(path = %path.display(), %error, "the standing orders cannot be read; without them nothing is run \
                                                           while there is no coordinator");
            None
        });
        let mut known = Known::default();
        if let Some(stored) = stored {
            known.confirmed = Some(Wall(stored.confirmed_ms));
            known.orders = stored.orders.iter().take(ORDERS_MAX).filter_map(understood).collect();
        }
        Self {
            path,
            known: Mutex::new(known),
            presence: tokio::sync::Mutex::new(Presence::Gone(Instant::now())),
        }
    }

    /// A hello is about to be composed: from now on nothing is begun.
    pub async fn greeting(&self) {
        let mut presence = self.presence.lock().await;
        if let Presence::Gone(since) = *presence {
            *presence = Presence::Greeted(since);
        }
    }

    /// A coordinator has answered the hello.
    pub async fn welcomed(&self) {
        *self.presence.lock().await = Presence::Here;
        self.confirm();
    }

    /// There is no session any more, or none came about; `refused`: because the coordinator does not want this agent.
    pub async fn parted(&self, refused: bool) {
        let mut presence = self.presence.lock().await;
        match *presence {
            _ if refused => *presence = Presence::Refused,
            Presence::Gone(_) | Presence::Refused => {}
            Presence::Greeted(since) => *presence = Presence::Gone(since),
            Presence::Here => {
                *presence = Presence::Gone(Instant::now());
                self.confirm();
            }
        }
    }

    /// The coordinator says what to do without it.
    pub fn told(&self, message: &v1::Autonomy) {
        let mut known = self.known();
        let fresh: Vec<(ProjectUid, Standing)> = message.orders.iter().filter_map(understood).collect();
        if message.complete {
            known.gathered = Some(Orders::new());
        }
        let all_of_it = known.gathered.is_some();
        let orders = match &mut known.gathered {
            Some(gathered) => gathered,
            None => &mut known.orders,
        };
        let mut beyond = 0_usize;
        for (project, standing) in fresh {
            if orders.len() < ORDERS_MAX || orders.contains_key(&project) {
                orders.insert(project, standing);
            } else {
                beyond += 1;
            }
        }
        if beyond > 0 {
            tracing::warn!(
                beyond,
                "more than {ORDERS_MAX} projects: the rest waits whenever the coordinator is away"
            );
        }
        message.withdrawn.iter().for_each(|project| _ = orders.remove(&ProjectUid(*project)));
        if all_of_it && !message.more {
            known.orders = known.gathered.take().unwrap_or_default();
        }
        drop(known);
        self.confirm();
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A coordinator stands by the orders now.
    fn confirm(&self) {
        let mut known = self.known();
        known.confirmed = Some(Wall::from(clock::now()));
        known.changed.get_or_insert_with(Instant::now);
    }

    /// Follows the orders whenever there is no coordinator for long, until `stop`.
    pub async fn run(self: Arc<Self>, link: Arc<Link>, stop: CancellationToken) {
        let mut looks = tokio::time::interval(LOOK_PACE);
        let mut confirmed = Instant::now();
        let mut mode = Mode::Waits;
        loop {
            tokio::select! {
                _ = looks.tick() => {}
                () = stop.cancelled() => break,
            }
            let presence = *self.presence.lock().await;
            if matches!(presence, Presence::Here) && confirmed.elapsed() >= CONFIRM_PACE {
                confirmed = Instant::now();
                self.confirm();
            }
            let before = std::mem::replace(&mut mode, self.mode(&link, presence));
            if mode != before {
                self.tell(mode);
            }
            if mode == Mode::Alone {
                self.follow(&link).await;
            }
            if self.known().changed.is_some_and(|since| since.elapsed() >= SAVE_AFTER) {
                self.save().await;
            }
        }
        self.save().await;
    }

    /// Whether it is time to do without a coordinator, and the orders are not too old.
    fn mode(&self, link: &Link, presence: Presence) -> Mode {
        let live = link.executor.live();
        let rules = &live.config.autonomy;
        let Presence::Gone(since) = presence else { return Mode::Waits };
        if !rules.enabled || since.elapsed() < rules.after {
            return Mode::Waits;
        }
        let now = Wall::from(clock::now());
        let fresh = self.known().confirmed.is_some_and(|confirmed| now.since(confirmed) <= rules.valid);
        if fresh { Mode::Alone } else { Mode::Outdated }
    }

    fn tell(&self, mode: Mode) {
        let projects = self.known().orders.len();
        match mode {
            Mode::Waits => {}
            Mode::Alone => {
                tracing::warn!(
                    projects,
                    "no coordinator for long: the last known schedule is run without it"
                );
            }
            Mode::Outdated => {
                tracing::warn!(
                    projects,
                    "no coordinator for so long that the last known schedule is too old to be run"
                );
            }
        }
    }

    /// Begins what is due.
    async fn follow(&self, link: &Link) {
        let projects: Vec<ProjectUid> = self.known().orders.keys().copied().collect();
        for project in projects {
            let Some((fire, following)) = self.due(link, project) else { continue };
            let presence = self.presence.lock().await;
            if self.mode(link, *presence) != Mode::Alone {
                return;
            }
            self.begin(link, project, fire, following).await;
        }
    }

    /// The fire of a project that is to be run now, and the one after it.
    fn due(&self, link: &Link, project: ProjectUid) -> Option<(Wall, Option<NextFire>)> {
        let alone = link.executor.alone(project);
        let now =
            Now { wall: Wall::from(clock::now()), mono: Mono(0), entropy: Uuid::new_v4().as_u64_pair().0 };
        let mut known = self.known();
        let standing = known.orders.get_mut(&project)?;
        if standing.not_before.is_some_and(|at| Instant::now() < at) {
            return None;
        }
        // Begun before a crash, which came before its next fire was on disk.
        if let (Some(next), Some(begun)) = (standing.next, alone.begun)
            && next.scheduled <= begun
        {
            standing.next = standing.schedule.next_after(begun.to_utc()).map(|time| {
                let at = Wall::from(time);
                NextFire { scheduled: at, at, spread: false }
            });
        }
        match due(&standing.schedule, standing.next, alone.busy, defaults::CATCH_UP_SPREAD, now) {
            Due::Wait => None,
            Due::Later(next) => {
                standing.next = next;
                known.changed.get_or_insert_with(Instant::now);
                None
            }
            Due::Run(fire, following) => Some((fire, following)),
        }
    }

    async fn begin(&self, link: &Link, project: ProjectUid, fire: Wall, following: Option<NextFire>) {
        let Some(template) = self.known().orders.get(&project).map(|order| order.assignment.clone()) else {
            return;
        };
        if let Err(error) = link.executor.make_room().await {
            tracing::warn!(error = outcome::chain(&error), "an outcome that made room may be told once more");
        }
        let term = link.highest_term();
        let assignment = assigned(template, &link.executor.alone(project), fire, term);
        let name = assignment.project.clone();
        let answer = link.executor.offer(assignment, term).await;
        let mut known = self.known();
        let Some(standing) = known.orders.get_mut(&project) else { return };
        match answer {
            Ok(Answer::Accepted(key)) => {
                tracing::info!(%key, project = name, fire = %fire.to_utc(), "begun without a coordinator");
                standing.next = following;
            }
            // Its own file forbids it: it will until somebody changes one of the two.
            Ok(Answer::Refused(_, Reason::NotAllowed, _)) | Err(_) => standing.next = following,
            Ok(Answer::Refused(..)) => standing.not_before = Some(Instant::now() + BUSY_PAUSE),
        }
        known.changed.get_or_insert_with(Instant::now);
    }

    /// Writes the file anew, if it is behind.
    async fn save(&self) {
        let stored = {
            let mut known = self.known();
            if known.changed.take().is_none() {
                return;
            }
            Stored {
                confirmed_ms: known.confirmed.map_or(0, |confirmed| confirmed.0),
                orders: known.orders.values().map(Standing::to_wire).collect(),
            }
        };
        let path = self.path.clone();
        let written = tokio::task::spawn_blocking(move || write(&path, &stored.encode_to_vec())).await;
        if let Ok(Err(error)) = written {
            tracing::warn!(path = %self.path.display(), %error, "the standing orders are not on disk; trying again");
            self.known().changed.get_or_insert_with(Instant::now);
        }
    }
}

impl Standing {
    fn to_wire(&self) -> v1::StandingOrder {
        v1::StandingOrder {
            assignment: Some(self.assignment.clone()),
            schedule: Some(mirror_proto::convert::schedule_to_wire(&self.schedule, Vec::new())),
            next_scheduled_time: self.next.map(|next| wall_to_wire(next.scheduled)),
            next_fire_time: self.next.map(|next| wall_to_wire(next.at)),
        }
    }
}

/// An order that can be followed: an origin's, without secrets, with a schedule that this version understands.
fn understood(order: &v1::StandingOrder) -> Option<(ProjectUid, Standing)> {
    let assignment = order.assignment.clone().filter(|assignment| assignment.role() == v1::Role::Origin)?;
    let schedule = match schedule_from_wire(order.schedule.as_ref()) {
        Ok(read) => read.schedule,
        Err(_) => {
            tracing::warn!(
                project = assignment.project,
                "its schedule is not understood: it is not run alone"
            );
            return None;
        }
    };
    let time = |time: &Option<_>| wall_from_wire("next", time.as_ref()?).ok();
    let next = time(&order.next_scheduled_time).zip(time(&order.next_fire_time));
    let next = next.map(|(scheduled, at)| NextFire { scheduled, at, spread: false });
    let project = ProjectUid(assignment.project_uid);
    Some((project, Standing { assignment, schedule, next, not_before: None }))
}

/// The assignment of one fire. What this agent has run since the order was given counts.
fn assigned(
    template: v1::Assignment,
    alone: &crate::executor::Alone,
    scheduled: Wall,
    term: u64,
) -> v1::Assignment {
    let started = Wall::from(clock::now());
    let run = RunId::mint(started.0, Uuid::new_v4().as_u64_pair().0, RunId::NIL);
    let key = Key { id: AttemptId { run, number: 1 }, epoch: Epoch::autonomous(term) };
    // While nobody has looked at what a guard found, each fire would delete up to the limit again.
    let max_delete = if alone.stopped_by_guard { 0 } else { template.max_delete };
    let fire = AutonomousFire { scheduled, started, max_delete };
    let mut assignment = v1::Assignment {
        key: Some(key.to_wire()),
        secrets: None,
        tree_version: run.to_string(),
        max_delete,
        autonomous: Some(autonomous_fire_to_wire(&fire)),
        ..template
    };
    if let Some(stats) = alone.counted {
        assignment.first_sync = false;
        (assignment.known_files, assignment.known_bytes) = (stats.files, stats.total_bytes);
    }
    assignment
}

fn read(path: &Path) -> io::Result<Option<Stored>> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.len() > FILE_BYTES_MAX => Err(io::Error::other("the file is too large")),
        Ok(_) => Stored::decode(fs::read(path)?.as_slice()).map(Some).map_err(io::Error::other),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    let mut file = File::options().create(true).truncate(true).write(true).mode(0o600).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(path.parent().unwrap_or_else(|| Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(project: u64) -> v1::StandingOrder {
        let assignment = v1::Assignment {
            project_uid: project,
            role: v1::Role::Origin.into(),
            max_delete: 500,
            first_sync: true,
            ..v1::Assignment::default()
        };
        let cadence = v1::schedule::Cadence::Crontab("* * * * *".to_owned());
        let schedule = v1::Schedule { cadence: Some(cadence), ..v1::Schedule::default() };
        v1::StandingOrder {
            assignment: Some(assignment),
            schedule: Some(schedule),
            next_scheduled_time: Some(wall_to_wire(Wall(60_000))),
            next_fire_time: Some(wall_to_wire(Wall(61_000))),
        }
    }

    fn projects(autonomy: &Autonomy) -> Vec<u64> {
        autonomy.known().orders.keys().map(|project| project.0).collect()
    }

    #[test]
    fn a_list_counts_once_it_is_whole_and_changes_count_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let autonomy = Autonomy::open(dir.path());
        autonomy.told(&v1::Autonomy { complete: true, orders: vec![order(1)], ..Default::default() });
        assert_eq!(projects(&autonomy), [1]);
        let first = v1::Autonomy { complete: true, more: true, orders: vec![order(2)], ..Default::default() };
        autonomy.told(&first);
        assert_eq!(projects(&autonomy), [1]);
        autonomy.told(&v1::Autonomy { orders: vec![order(3)], ..Default::default() });
        assert_eq!(projects(&autonomy), [2, 3]);
        autonomy.told(&v1::Autonomy { orders: vec![order(4)], withdrawn: vec![2], ..Default::default() });
        assert_eq!(projects(&autonomy), [3, 4]);
    }

    #[tokio::test]
    async fn orders_survive_and_replicas_have_none() {
        let dir = tempfile::tempdir().unwrap();
        let autonomy = Autonomy::open(dir.path());
        let mut replica = order(2);
        replica.assignment.as_mut().unwrap().role = v1::Role::Replica.into();
        autonomy.told(&v1::Autonomy {
            complete: true,
            orders: vec![order(1), replica],
            ..Default::default()
        });
        autonomy.save().await;
        let again = Autonomy::open(dir.path());
        assert_eq!(projects(&again), [1]);
        let known = again.known();
        assert!(known.confirmed.is_some());
        let next = known.orders[&ProjectUid(1)].next.unwrap();
        assert_eq!((next.scheduled, next.at), (Wall(60_000), Wall(61_000)));
    }

    #[test]
    fn a_damaged_file_is_no_order() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("standing-orders"), [0xff; 9]).unwrap();
        assert!(projects(&Autonomy::open(dir.path())).is_empty());
    }

    #[test]
    fn after_a_guard_nothing_is_deleted_and_after_a_success_it_is_no_first_copy() {
        let template = order(1).assignment.unwrap();
        let fresh = assigned(template.clone(), &Default::default(), Wall(60_000), 3);
        assert!(fresh.first_sync && fresh.max_delete == 500);
        let key = Key::from_wire(fresh.key.as_ref()).unwrap();
        assert!(key.epoch.is_autonomous() && key.epoch.term == 3);
        let stats = v1::Stats { files: 7, total_bytes: 70, ..v1::Stats::default() };
        let alone =
            crate::executor::Alone { stopped_by_guard: true, counted: Some(stats), ..Default::default() };
        let later = assigned(template, &alone, Wall(120_000), 3);
        assert_eq!((later.max_delete, later.first_sync, later.known_files), (0, false, 7));
    }
}
