//! Rules for what agents do by themselves: nothing by orders that are too old, no fire twice, and every success is
//! recorded once.

use fleet::{
    attempt::AttemptRecord,
    defaults,
    id::ProjectUid,
    input::{Message, Send},
    standing::StandingOrder,
    time::Wall,
};

use super::Checks;
use crate::{
    store::{Store, Unit},
    world::World,
};

impl super::Checks {
    /// Which fires an agent has run it does not know any more.
    pub(crate) fn forget_begun_alone(&mut self, host: usize) {
        self.begun_alone.retain(|(other, ..)| *other != host);
    }
}

impl World {
    /// An agent begins a fire by itself.
    pub(crate) fn check_begun_alone(
        &mut self,
        host: usize,
        order: &StandingOrder,
        scheduled: Wall,
        age: u64,
        now: Wall,
    ) {
        if !order.schedule.is_open(now.to_utc()) {
            self.fail(format!("host {host} began alone outside of its windows: {order:?} at {now:?}"));
        }
        if age > self.config.alone_valid {
            self.fail(format!("host {host} followed orders that are {age} ms old"));
        }
        let project = order.template.project;
        let fire = (host, project, format!("{:?}", order.schedule), scheduled);
        if !self.checks.begun_alone.insert(fire) && self.checks.clocks_are_true() {
            self.fail(format!("host {host} ran the fire of {project:?} at {scheduled:?} twice"));
        }
    }

    /// What an agent did by itself is only told to be for nothing where its placement is somewhere else by now, or
    /// where it is recorded already.
    pub(crate) fn check_fenced(&mut self, send: &Send) {
        let Message::Acknowledge { attempt, epoch, fenced: true } = send.message else { return };
        let work = (attempt, epoch);
        let Some(kept) = self.checks.kept.get(&work).filter(|_| epoch.is_autonomous()) else { return };
        let (host, project) = (kept.host, kept.project);
        let store = &self.coordinator.store;
        if store.attempt(project, attempt).is_some() {
            return;
        }
        // After a restore its agent told of a later try of the same run, which is the one that goes on.
        let goes_on = |later: &AttemptRecord| later.id.run == attempt.run && later.id.number > attempt.number;
        if self.checks.restored && store.live_attempts(project).any(goes_on) {
            return;
        }
        let destination = self.offer_of(host, work).map(|offer| &offer.destination);
        let home = store.placement(project, send.agent).filter(|home| Some(&home.destination) == destination);
        // Where people put the tree by now, what was pulled is for nothing.
        let local = store.project(project).is_some_and(|project| project.spec.upstreams.is_empty());
        if let Some(home) = home.filter(|home| home.role == fleet::attempt::Role::Origin && !local) {
            let text = format!("{attempt}, which host {host} ran alone, was for nothing, and {home:?}");
            self.fail(text);
        }
        self.checks.kept.remove(&work);
    }
}

impl Checks {
    /// Whether every fire has one time only: a restore or a clock that steps may bring a fire once more.
    fn clocks_are_true(&self) -> bool {
        !self.restored && !self.clock_stepped
    }

    /// A unit enters what an agent ran alone: the fires up to then are over.
    pub(super) fn note_alone(&mut self, store: &Store, unit: &Unit) {
        for run in unit.runs().filter(|run| run.trigger.autonomous) {
            if store.run(run.project, run.id).is_some() {
                continue;
            }
            let ahead = unit.now.wall.plus(defaults::FIRE_STRAYED);
            let scheduled = run.trigger.time.min(ahead);
            let over = run.start_time.map_or(scheduled, |start| start.max(scheduled));
            let generation = self.schedules.get(&run.project).copied().unwrap_or(0);
            let known = self.over_alone.entry(run.project).or_insert((generation, over));
            *known = if known.0 == generation { (generation, over.max(known.1)) } else { (generation, over) };
        }
    }

    /// Whether an agent had run this fire of the same schedule by itself.
    pub(super) fn ran_alone(&self, project: ProjectUid, scheduled: Wall) -> bool {
        let generation = self.schedules.get(&project).copied().unwrap_or(0);
        let over = self.over_alone.get(&project).filter(|(of, _)| *of == generation);
        over.is_some_and(|(_, over)| scheduled <= *over) && self.clocks_are_true()
    }
}
