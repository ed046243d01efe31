//! The programs of one attempt, one after the other under one lock. Each has a run directory of its own, from which an
//! agent that was killed takes it up again: what ended is judged anew and alike, what runs is followed, what never began
//! is begun. Once the last one has begun, nothing before it is asked again: it may have changed the tree.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use fleet::marker::MarkerKind;
use mirror_proto::v1;
use mirror_proto::v1::outcome::Class;
use rsync::{LocalPass, Purpose};

use super::Shared;
use super::attempt::{Early, LOCK_PACE, Machine, early, not_started, rejected};
use super::findings::Findings;
use super::guards::{self, Ended, Facts, Pass, Verdict};
use super::ledger::blocking;
use super::{marker, moving};
use crate::guard::{DestinationFault, LockFault, ProjectLock, Root};
use crate::journal::Step;
use crate::order::Order;
use crate::outcome::{cancelled, of_local_error};
use crate::rundir::{ProgramStatus, RunDir, Secret};

/// Tries of a program that meets "max connections" directly behind another one of the same attempt: a daemon frees the
/// place of a connection a moment after its end.
const BUSY_TRIES: u32 = 5;
/// Pause before the second try; each later one is longer by as much: 2 s in all.
const BUSY_PAUSE: Duration = Duration::from_millis(200);

/// What is kept from one program of an attempt to the next.
#[derive(Debug)]
pub(super) struct Hands {
    /// The project's lock, once it was got. Every program has a copy.
    lock: Option<Arc<ProjectLock>>,
    /// Another agent may have begun what is to be done.
    resumed: bool,
    /// The upstream's addresses were checked.
    checked: bool,
    /// A program of this attempt has ended before.
    ran: bool,
}

impl Hands {
    pub(super) fn new(begun: Step, lock: Option<ProjectLock>) -> Self {
        Self { lock: lock.map(Arc::new), resumed: begun != Step::Accepted, checked: false, ran: false }
    }
}

/// The numbers of the tries of one pass.
pub(super) fn tries() -> std::ops::RangeInclusive<u32> {
    1..=BUSY_TRIES
}

/// Where a pass of an attempt runs: its first try, or a later one.
pub(super) fn pass_dir(shared: &Shared, order: &Order, pass: Pass, number: u32) -> PathBuf {
    shared.runs_dir().join(order.key.slug()).join(format!("{}-{number}", pass.name()))
}

impl Machine<'_> {
    /// A pull, whose outcome says what was seen of the marker; and after a success the public link.
    pub(super) async fn pulls(&self, begun: Step, lock: Option<ProjectLock>) -> Early<v1::Outcome> {
        let ended = self.passes(begun, lock).await;
        let outcome = self.with_marker(ended.unwrap_or_else(|outcome| *outcome)).await;
        let good = outcome.class() == Class::Ok && !self.attempt.order.dry_run;
        if good { self.link(outcome, None).await } else { Ok(outcome) }
    }

    /// Takes an attempt through its programs.
    async fn passes(&self, begun: Step, lock: Option<ProjectLock>) -> Early<v1::Outcome> {
        let order = &self.attempt.order;
        let mut hands = Hands::new(begun, lock);
        if matches!(begun, Step::Pull | Step::Finish)
            && let Some(run) = self.take_up(Pass::Pull, 1, &mut hands).await?
        {
            let before = |pass: &Pass| self.was_started(*pass);
            hands.ran = [Pass::Marker, Pass::Probe, Pass::Adoption, Pass::Reclaim].iter().any(before);
            let pull = self.pass_from(Pass::Pull, Some(run), &mut hands).await?;
            return Ok(guards::judge_pull(order, self.counted(pull, &mut hands).await));
        }
        self.step(Step::Preflight).await?;
        for pass in guards::before_pull(order, self.facts().await?) {
            let ended = self.pass_from(pass, None, &mut hands).await?;
            let ended = self.counted(ended, &mut hands).await;
            match self.judge(pass, ended).await? {
                Verdict::GoOn(found) => self.attempt.line(&format!("{}: {found}", pass.name())),
                Verdict::End(outcome) => return Ok(*outcome),
            }
        }
        let pull = self.pass_from(Pass::Pull, None, &mut hands).await?;
        Ok(guards::judge_pull(order, self.counted(pull, &mut hands).await))
    }

    /// A program's end, with all that its delete limit stopped. Where that cannot be counted rsync's own number stands:
    /// that the limit stopped it is to be told in any case.
    async fn counted(&self, ended: Ended, hands: &mut Hands) -> Ended {
        if ended.outcome.class() != Class::MaxDelete {
            return ended;
        }
        match self.pass_from(Pass::Count, None, hands).await {
            Ok(dry) => guards::counted(ended, dry),
            Err(outcome) => {
                self.attempt.line(&format!("not counted: {}", outcome.cause));
                ended
            }
        }
    }

    async fn judge(&self, pass: Pass, ended: Ended) -> Early<Verdict> {
        let order = &self.attempt.order;
        Ok(match pass {
            Pass::Marker => self.judge_marker(ended).await?,
            Pass::Probe => guards::judge_probe(order, ended),
            Pass::Adoption => guards::judge_adoption(ended),
            Pass::Reclaim => {
                let space = self.at_root(|root, _| root.space()).await?;
                guards::judge_reclaim(order, ended, space)
            }
            Pass::Pull | Pass::Count | Pass::Copy | Pass::Verify => {
                Verdict::End(Box::new(guards::judge_pull(order, ended)))
            }
        })
    }

    async fn facts(&self) -> Early<Facts> {
        let look = |root: &Root, order: &Order| {
            let filled = root.is_filled(&order.destination)?;
            Ok(Facts { filled, begun: root.has_begun(order.project, &order.destination)? })
        };
        self.at_root(look).await
    }

    /// Asks the destination's root something, where waiting for its disk holds up nobody.
    pub(super) async fn at_root<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&Root, &Order) -> std::io::Result<T> + Send + 'static,
    ) -> Early<T> {
        let (live, attempt) = (self.shared.live(), self.attempt.clone());
        blocking(move || {
            let root =
                live.guard.root_of(&attempt.order.destination).or_else(|fault| early(rejected(&fault)))?;
            ask(root, &attempt.order)
                .or_else(|error| early(of_local_error("cannot examine the destination", &error)))
        })
        .await
    }

    fn was_started(&self, pass: Pass) -> bool {
        RunDir::was_started(&pass_dir(self.shared, &self.attempt.order, pass, 1)).unwrap_or(true)
    }

    /// One pass to its end; a busy upstream is asked again where its one connection may just have been ours.
    async fn pass_from(&self, pass: Pass, mut first: Option<RunDir>, hands: &mut Hands) -> Early<Ended> {
        let mut number = 1;
        loop {
            let run = match first.take() {
                Some(run) => Some(run),
                None if hands.resumed => self.take_up(pass, number, hands).await?,
                None => None,
            };
            let run = match run {
                Some(run) => run,
                None => self.start(pass, number, hands).await?,
            };
            let ended = self.follow(run, pass).await;
            let own_place = hands.ran && ended.outcome.class() == Class::Busy && self.has_secret();
            if !own_place || number == BUSY_TRIES {
                hands.ran = true;
                return Ok(ended);
            }
            self.attempt.line("the upstream is full: perhaps by our own connection, so it is asked again");
            tokio::select! {
                () = tokio::time::sleep(BUSY_PAUSE * number) => {}
                outcome = self.stopped() => return early(outcome),
            }
            number += 1;
        }
    }

    /// One program of a move to its end. `number` is the round that it belongs to.
    pub(super) async fn local_pass(&self, pass: Pass, number: u32, hands: &mut Hands) -> Early<Ended> {
        let run = if hands.resumed { self.take_up(pass, number, hands).await? } else { None };
        let run = match run {
            Some(run) => run,
            None => self.start(pass, number, hands).await?,
        };
        Ok(self.follow(run, pass).await)
    }

    /// What an earlier agent began; `None`: nothing.
    async fn take_up(&self, pass: Pass, number: u32, hands: &mut Hands) -> Early<Option<RunDir>> {
        let path = pass_dir(self.shared, &self.attempt.order, pass, number);
        match RunDir::open(&path) {
            Ok(run) => {
                if self.never_begun(&run, hands).await {
                    return Ok(None);
                }
                tracing::info!(pass = pass.name(), "adopted: its program was begun before this agent");
                self.attempt.line("goes on after a restart of the agent");
                Ok(Some(run))
            }
            // Not made yet, or a power cut came before it was on disk.
            Err(_) if matches!(RunDir::was_started(&path), Ok(false)) => Ok(None),
            Err(error) => early(of_local_error("cannot read what its program left", &error)),
        }
    }

    /// Whether a program was prepared and never begun; then the lock is had. A supervisor holds it from before it says
    /// that it is there, and to its end: who has it, and still sees no supervisor, is the first.
    async fn never_begun(&self, run: &RunDir, hands: &mut Hands) -> bool {
        while matches!(run.status(), Ok(ProgramStatus::Starting)) {
            if hands.lock.is_some() {
                return true;
            }
            match self.try_lock().await {
                Ok(Ok(lock)) => hands.lock = Some(Arc::new(lock)),
                Ok(Err(LockFault::Held(_))) => tokio::time::sleep(LOCK_PACE).await,
                Ok(Err(LockFault::Io { .. })) | Err(_) => return false,
            }
        }
        false
    }

    /// Prepares and starts a program, where waiting for disks holds up nobody.
    async fn start(&self, pass: Pass, number: u32, hands: &mut Hands) -> Early<RunDir> {
        let secret = self.secret().await?;
        let lock = match hands.lock.take() {
            Some(lock) => lock,
            None => Arc::new(self.lock().await?),
        };
        hands.lock = Some(lock.clone());
        if !hands.checked {
            self.check_upstream().await?;
            hands.checked = true;
        }
        if let Some(heading) = pass.heading(&self.attempt.order) {
            self.attempt.line(heading);
        }
        let (shared, attempt) = (self.shared.clone(), self.attempt.clone());
        blocking(move || {
            // Nothing is noted of what shall not be begun; a wish from here on ends the program.
            if let Some(reason) = attempt.stop.borrow().clone() {
                return early(cancelled(&reason));
            }
            let run = prepare(&shared, &attempt.order, pass, number, &lock)?;
            start(&shared, &run, secret.as_ref(), &lock).or_else(|error| early(not_started(&error)))?;
            Ok(run)
        })
        .await
    }
}

fn start(
    shared: &Shared,
    run: &RunDir,
    secret: Option<&Secret>,
    lock: &ProjectLock,
) -> Result<(), crate::rundir::RunDirError> {
    run.start_with(&shared.live().program.executable(), secret, &lock.file)
}

/// Makes the run directory, and the destination where the program writes to it.
fn prepare(shared: &Shared, order: &Order, pass: Pass, number: u32, lock: &ProjectLock) -> Early<RunDir> {
    let live = shared.live();
    let root = live.guard.root_of(&order.destination).or_else(|fault| early(rejected(&fault)))?;
    if pass.needs_room(order) {
        let space =
            root.space().or_else(|error| early(of_local_error("cannot examine the volume", &error)))?;
        if let Some(lack) = space.below_floor() {
            return early(guards::no_room(order, root.path(), &lack));
        }
    }
    let writes = pass.writes(order);
    let path =
        if writes { live.guard.make(&order.destination) } else { live.guard.look_at(&order.destination) };
    let path = path.or_else(|fault| early(no_place(&fault)))?;
    let name = format!("{}-{number}", pass.name());
    // What is fetched stays beside its program, and goes with it.
    let fetches = matches!(purpose(pass, order), Purpose::Fetch { .. });
    let fetched = shared.runs_dir().join(order.key.slug()).join(&name).join(marker::FETCHED_DIR);
    let path = if fetches { fetched.clone() } else { path };
    let mut spec = match order.moves_from() {
        Some(from) => {
            let old_root = live.guard.root_of(from).or_else(|fault| early(no_place(&fault)))?;
            let from = live.guard.look_at(from).or_else(|fault| early(no_place(&fault)))?;
            let (pass, roots) = (local_pass(pass, number), (old_root.path(), root.path()));
            order.local_program(pass, &live.config, &live.version, (&from, &path), roots, &lock.path)
        }
        None => {
            let purpose = purpose(pass, order);
            order.program(purpose, &live.config, &live.version, root.path(), &path, &lock.path)
        }
    }
    .or_else(|faults| early(rejected(&faults.join("; "))))?;
    // A jail knows only what is there.
    spec.jail.read_paths.retain(|path| path.is_dir());
    if writes {
        match order.moves_from() {
            Some(_) => moving::claim(root, order)?,
            None => root
                .mark_begun(order.project, &order.destination)
                .or_else(|error| early(of_local_error("cannot note that the tree is begun", &error)))?,
        }
    }
    if pass == Pass::Pull {
        let journaled = shared.journal.write_here(|journal| journal.step(order.key, Step::Pull));
        journaled.or_else(|error| early(of_local_error("cannot begin a step", &error)))?;
    }
    let run = RunDir::create(&shared.runs_dir(), &order.key.slug(), &name, &spec)
        .or_else(|error| early(not_started(&error)))?;
    if fetches {
        let made = std::fs::create_dir(&fetched);
        made.or_else(|error| early(of_local_error("cannot make room for the marker", &error)))?;
    }
    Ok(run)
}

pub(super) fn no_place(fault: &DestinationFault) -> v1::Outcome {
    match fault {
        DestinationFault::Io { .. } => of_local_error("cannot begin", fault),
        fault => rejected(fault),
    }
}

/// The first copy of a move trusts sizes and times. What the comparison then found to differ nevertheless is copied by
/// content.
fn local_pass(pass: Pass, round: u32) -> LocalPass {
    match pass {
        Pass::Copy if round == 1 => LocalPass::Copy,
        Pass::Copy => LocalPass::Repair,
        _ => LocalPass::Verify,
    }
}

fn purpose(pass: Pass, order: &Order) -> Purpose {
    match pass {
        Pass::Marker => marker::purpose(order),
        Pass::Probe => Purpose::List(order.sentinels.clone()),
        Pass::Adoption | Pass::Count => Purpose::DryRun,
        Pass::Reclaim => Purpose::Reclaim,
        Pass::Pull | Pass::Copy | Pass::Verify => order.purpose(),
    }
}

/// What is to be found in a pass's output.
pub(super) fn findings(pass: Pass, order: &Order) -> Findings {
    match (pass, &order.marker) {
        (Pass::Probe, _) => Findings::of_listing(&order.sentinels),
        (Pass::Marker, Some(check)) if check.marker.kind == MarkerKind::Mtime => {
            Findings::of_marker(&check.marker.path)
        }
        _ => Findings::default(),
    }
}

/// What the destination's volume lacks, where it can be told; a program that runs is not ended for a look that failed.
pub(super) fn lack_of_space(shared: &Shared, order: &Order) -> Option<String> {
    let live = shared.live();
    let root = live.guard.root_of(&order.destination).ok()?;
    root.space().ok()?.below_floor()
}
