//! What the engine knows and does not store: sessions, what they said, and how far it has looked. All of it is gone
//! after a restart, and may be.

use super::{
    state::{Engine, LINE_START},
    timers::Timer,
};
use crate::{
    agent::{Root, Session},
    id::AgentUid,
    record::Volatile,
    time::Now,
};

impl Engine {
    pub(super) fn remember(&mut self, now: Now, volatile: &Volatile) {
        match volatile {
            Volatile::SessionOpened(agent, session) => self.session_opened(*agent, session),
            Volatile::SessionClosed(agent, epoch) => {
                if self.sessions.get(agent).is_some_and(|session| session.epoch == *epoch) {
                    self.sessions.remove(agent);
                    self.exports.closed(*agent);
                    self.trash_untold(*agent);
                    self.autonomy.closed(*agent);
                    self.timers.set(now.mono.plus(self.limits.lost_after), Timer::Away(*agent));
                    self.agent_changed(*agent);
                }
            }
            Volatile::Inventory(agent, roots) => {
                let Some(session) = self.sessions.get_mut(agent) else { return };
                // Admission asks for their names and whether there is room; how full they are changes with each
                // inventory.
                let limits = &self.limits;
                let told = |root: &Root| (root.name.clone(), root.is_short(limits));
                let same = roots.iter().map(told).eq(session.facts.roots.iter().map(told));
                session.facts.roots.clone_from(roots);
                if !same {
                    self.rescan();
                }
            }
            Volatile::Exporting { agent, serial, serve_uri, fault, not_served } => {
                let Some(session) = self.sessions.get_mut(agent) else { return };
                session.facts.serve_uri.clone_from(serve_uri);
                self.exports.acknowledged(*agent, *serial, fault, not_served);
                self.trash.touch(*agent);
                self.rescan();
            }
            Volatile::Told { agent, serial, day, complete, told } => {
                self.exports.told(*agent, *serial, *day, *complete, told);
                self.trash.touch(*agent);
                // What is not in place yet sends replicas to the next source.
                self.rescan();
            }
            Volatile::TookTurn => self.plans.took_turn(),
            Volatile::TrashLooked(agent, project) => self.trash.looked_at(*agent, *project),
            Volatile::TrashTold(agent, project) => self.trash.told(*agent, *project),
            Volatile::HomeChecked(project, agent) => self.reindex_home(*project, *agent),
            Volatile::GivenUp(agent) => {
                self.given_up.insert(*agent);
                for attempt in self.attempts.values().filter(|a| a.agent == *agent && a.state.is_out()) {
                    self.usage.remove_remote(attempt);
                    self.hosts.free_probe(&attempt.upstream_host, attempt.id);
                }
                self.agent_changed(*agent);
            }
            Volatile::TimerDone(timer) => self.timers.end(*timer),
            Volatile::Scanned { next, wake, opening } => {
                // A look through the line is over when it reaches the end; a new one asks everybody again.
                if self.scan_from == Some(LINE_START) || self.scan_from.is_none() {
                    (self.scan_wake, self.openings) = (None, None);
                }
                self.scan_wake = [self.scan_wake, *wake].into_iter().flatten().min();
                let opening = opening.map(|opening| (now.wall, opening));
                self.openings = match (self.openings, opening) {
                    (Some((since, first)), Some((looked, opening))) => {
                        Some((since.max(looked), first.min(opening)))
                    }
                    (old, new) => old.or(new),
                };
                self.scan_from = *next;
            }
            Volatile::ToldAutonomy { agent, serial, complete, orders } => {
                self.autonomy.now_told(*agent, *serial, *complete, orders);
            }
            Volatile::CloseChecked(run) => {
                self.close_checks.remove(run);
            }
        }
    }

    fn session_opened(&mut self, agent: AgentUid, session: &Session) {
        if session.epoch.term == self.fleet.term {
            self.last_counter = self.last_counter.max(session.epoch.counter);
        }
        let newest = self.connections.entry(agent).or_default();
        *newest = session.connection.max(*newest);
        self.instances.insert(agent, session.facts.instance_id.clone());
        self.sessions.insert(agent, session.clone());
        self.exports.opened(agent);
        self.trash_untold(agent);
        self.autonomy.opened(agent);
        self.timers.end(Timer::Away(agent));
        if self.given_up.remove(&agent) {
            for attempt in self.attempts.values().filter(|a| a.agent == agent && a.state.is_out()) {
                self.usage.add_remote(attempt);
            }
        }
        self.agent_changed(agent);
    }
}
