//! An agent that has had no coordinator for long: it follows its standing orders, and tells afterwards.

use std::time::Duration;

use fleet::{
    id::{AttemptId, Epoch, ProjectUid, RunId},
    input::Offer,
    outcome::ExitClass,
    standing::{AutonomousFire, Due, StandingOrder, due},
    time::{Mono, Now, Wall},
};

use super::{Entry, Work};
use crate::world::{Event, World};

/// What is missed starts at random within this.
const SPREAD: Duration = Duration::from_secs(60);
/// Shortest pause between two looks, in ms.
const LOOK_MS_MIN: u64 = 1_000;
/// Most attempts that are held, as in the agent.
const HELD_MAX: usize = 48;

impl World {
    pub(super) fn hear_autonomy(
        &mut self,
        host: usize,
        complete: bool,
        orders: Vec<StandingOrder>,
        withdrawn: &[ProjectUid],
    ) {
        let one = &mut self.hosts[host];
        one.confirmed = self.time;
        if complete {
            one.orders.clear();
        }
        one.orders.extend(orders.into_iter().map(|order| (order.template.project, order)));
        withdrawn.iter().for_each(|project| drop(one.orders.remove(project)));
    }

    /// The agent has no coordinator from now on.
    pub(crate) fn alone_soon(&mut self, host: usize) {
        self.hosts[host].gone += 1;
        let gone = self.hosts[host].gone;
        self.after(self.config.alone_after, Event::Alone(host, gone));
    }

    /// It has had none since then: it does what is due.
    pub(crate) fn alone(&mut self, host: usize, gone: u64) {
        let one = &self.hosts[host];
        if self.calm || !one.up || one.gone != gone || one.stream.is_some() || one.retired {
            return;
        }
        let valid = self.config.alone_valid;
        let too_old = self.time - one.confirmed > valid;
        if too_old && self.planted != Some(crate::planted::Planted::OrdersNeverExpire) {
            return;
        }
        let elapsed = i64::try_from(self.time).expect("a simulation is short");
        let wall = Wall(self.config.wall_start + elapsed + one.clock_shift);
        let projects: Vec<ProjectUid> = one.orders.keys().copied().collect();
        for project in projects {
            let now = Now { wall, mono: Mono(0), entropy: self.rng.next() };
            self.follow(host, project, now);
        }
        let next = self.hosts[host].orders.values().filter_map(|order| order.next_fire).map(|fire| fire.at);
        let Some(next) = next.min() else { return };
        let pause = u64::try_from(next.since(wall).as_millis()).unwrap_or(u64::MAX);
        self.after(pause.clamp(LOOK_MS_MIN, valid), Event::Alone(host, gone));
    }

    fn follow(&mut self, host: usize, project: ProjectUid, now: Now) {
        let one = &mut self.hosts[host];
        // The journal is written in order: what it knows as begun came after the ends that it knows.
        let going = |entry: &Entry| {
            let goes_on = !entry.ended_synced || entry.offer.move_from.is_some();
            entry.offer.project == project && !entry.offer.dry_run && goes_on
        };
        let busy = one.journal.values().any(going);
        let Some(order) = one.orders.get_mut(&project) else { return };
        match due(&order.schedule, order.next_fire, busy, SPREAD, now) {
            Due::Wait => {}
            Due::Later(next) => order.next_fire = next,
            Due::Run(fire, next) => {
                let template = order.template.clone();
                if one.busy(&template).is_none() && one.journal.len() < HELD_MAX {
                    let order = one.orders.get_mut(&project).expect("just seen");
                    order.next_fire = next;
                    let order = order.clone();
                    self.begin_alone(host, &order, fire, now);
                }
            }
        }
    }

    fn begin_alone(&mut self, host: usize, order: &StandingOrder, scheduled: Wall, now: Now) {
        let taken = self.next_id();
        let run = RunId::mint(now.wall.0, now.entropy, RunId::NIL);
        let one = &mut self.hosts[host];
        let project = order.template.project;
        let guarded = |entry: &Entry| {
            let stopped = |class| matches!(class, ExitClass::MaxDelete | ExitClass::Guard);
            entry.offer.project == project
                && !entry.offer.dry_run
                && entry.ended.as_ref().is_some_and(|outcome| stopped(outcome.class))
        };
        let max_delete = if one.journal.values().any(guarded) { 0 } else { order.template.max_delete };
        let offer = Offer {
            attempt: AttemptId { run, number: 1 },
            epoch: Epoch::autonomous(one.highest_term),
            tree: run,
            max_delete,
            ..order.template.clone()
        };
        let work: Work = (offer.attempt, offer.epoch);
        let fire = AutonomousFire { scheduled, started: now.wall, max_delete };
        let entry = Entry {
            taken,
            spec_hash: offer.spec_hash(),
            offer: Box::new(offer),
            accepted_synced: false,
            ended: None,
            ended_synced: false,
            has_secrets: true,
            cancelled: false,
            alone: Some(fire),
        };
        one.journal.insert(work, entry);
        let (boot, age) = (one.boot, self.time - one.confirmed);
        self.check_begun_alone(host, order, scheduled, age, now.wall);
        self.cover.alone += 1;
        let delay = self.rng.between(0, self.config.fsync);
        self.after(delay, Event::Synced(host, boot, work));
    }
}
