//! Rules for who pulls from whom: what an agent said that it serves, in this session, to this replica; and where
//! trees must be in the end.

use std::collections::{BTreeMap, BTreeSet};

use fleet::{
    Engine,
    attempt::{AttemptRecord, Role},
    id::{AgentUid, Epoch, ProjectUid},
    input::{AgentInput, Input, Message, Offer, Pair, Send},
    project::Pick,
    record::{Key, Record},
};

use super::{Checks, told};
use crate::{store::Store, world::World};

/// What was said in one session of what its agent serves.
#[derive(Debug, Clone, Default)]
pub(super) struct Serving {
    told: BTreeMap<ProjectUid, (u64, Vec<Pair>)>,
    in_place: u64,
    refused: Vec<ProjectUid>,
    /// What its agent may do alone.
    orders: BTreeSet<ProjectUid>,
}

impl Checks {
    /// What an agent says of its daemon, before anybody can bend it.
    pub(crate) fn exporting(&mut self, input: &Input) {
        if let Input::Agent(AgentInput::Exporting { session, serial, not_served, .. }) = input {
            let serving = self.serving.entry(*session).or_default();
            (serving.in_place, serving.refused) = (*serial, not_served.clone());
        }
    }

    /// What was decided to be said: offers to replicas must name what is in place.
    pub(crate) fn sent(&mut self, engine: &Engine, sends: &[Send]) -> Result<(), String> {
        for send in sends {
            check_bandwidth(engine, send)?;
            match &send.message {
                Message::Exports { serial, complete, exports, withdrawn } => {
                    let serving = self.serving.entry(send.session).or_default();
                    if *complete {
                        serving.told.clear();
                    }
                    for export in exports {
                        serving.told.insert(export.project, (*serial, export.pairs.clone()));
                    }
                    serving.told.retain(|project, _| !withdrawn.contains(project));
                }
                Message::Autonomy { complete, orders, withdrawn, .. } => {
                    let known = &mut self.serving.entry(send.session).or_default().orders;
                    if *complete {
                        known.clear();
                    }
                    known.extend(orders.iter().map(|order| order.template.project));
                    known.retain(|project| !withdrawn.contains(project));
                }
                Message::Offer(offer) if offer.keep_extra => {
                    if offer.max_delete > 0 || offer.dry_run || offer.reclaim {
                        return Err(told(
                            offer.attempt,
                            &format!("copies a lost tree, or moves one, and may delete: {offer:?}"),
                        ));
                    }
                    if offer.move_from.is_none() {
                        self.served(engine, offer)?;
                    } else if !offer.source_uri.is_empty() || offer.pair.is_some() {
                        return Err(told(offer.attempt, &format!("moves a tree, and pulls: {offer:?}")));
                    }
                }
                Message::Offer(offer) if offer.role == Role::Replica => self.served(engine, offer)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// A tree that is to be copied from elsewhere is served to nobody, and its agent does nothing about it alone.
    pub(super) fn check_lost_trees(&self, engine: &Engine) -> Result<(), String> {
        let reseeds = |attempt: &&AttemptRecord| {
            engine.run(attempt.id.run).is_some_and(|run| run.wish.reseed_from.is_some())
        };
        for attempt in engine.attempts().filter(reseeds) {
            let session = engine.session(attempt.agent).map(|session| session.epoch);
            let Some(serving) = session.and_then(|session| self.serving.get(&session)) else { continue };
            let project = attempt.project;
            if serving.told.contains_key(&project) || serving.orders.contains(&project) {
                return Err(told(
                    attempt.id,
                    &format!("copies a lost tree, and its agent knows {serving:?}"),
                ));
            }
        }
        Ok(())
    }

    /// What agents were told to serve is theirs, and for who holds the project.
    pub(super) fn check_told_exports(&self, engine: &Engine) -> Result<(), String> {
        for agent in engine.agents_by_name() {
            let session = engine.session(agent.uid).map(|session| session.epoch);
            let Some(serving) = session.and_then(|session| self.serving.get(&session)) else { continue };
            for (uid, (_, pairs)) in &serving.told {
                let placed =
                    |agent| engine.project(*uid).is_some_and(|one| one.placements.contains_key(&agent));
                if !placed(agent.uid) || !pairs.iter().all(|pair| placed(pair.replica)) {
                    return Err(format!("agent {} keeps the export of {uid:?}: {pairs:?}", agent.name));
                }
            }
        }
        Ok(())
    }

    fn served(&self, engine: &Engine, offer: &Offer) -> Result<(), String> {
        let wrong = |what: &str| Err(told(offer.attempt, &format!("{what}: {offer:?}")));
        let Some(pair) = offer.pair else {
            return if offer.source_uri.contains("/ext/") { Ok(()) } else { wrong("sent without a secret") };
        };
        let session: Option<Epoch> = engine.session(pair.origin).map(|session| session.epoch);
        let serving = session.and_then(|session| self.serving.get(&session));
        let in_place = serving.is_some_and(|serving| {
            let named = serving.told.get(&offer.project).filter(|(_, pairs)| pairs.contains(&pair));
            named.is_some_and(|(serial, _)| *serial <= serving.in_place)
                && !serving.refused.contains(&offer.project)
        });
        if in_place { Ok(()) } else { wrong("sent to where nobody said that it is served") }
    }

    /// An offer to a replica is put on disk.
    pub(super) fn check_source(&self, store: &Store, new: &AttemptRecord) -> Result<(), String> {
        let donor = store.run(new.project, new.id.run).and_then(|run| run.wish.reseed_from);
        if store.way_of(new).is_some() || (new.role == Role::Origin && donor.is_none()) {
            return Ok(());
        }
        let from = new.source.and_then(|source| store.placement(new.project, source));
        let good = from.is_some_and(|from| {
            let serves = match donor {
                Some(donor) => from.agent == donor,
                None => from.role == Role::Origin || from.standby,
            };
            serves && from.agent != new.agent && from.have_tree == Some(new.tree)
        });
        let changing = store.live_attempts(new.project).any(|other| {
            Some(other.agent) == new.source && other.state.is_out() && store.way_of(other).is_none()
        });
        if good && !changing {
            return Ok(());
        }
        Err(told(new.id, &format!("pulls from {from:?}, changing: {changing}: {new:?}")))
    }
}

/// What an agent is offered, or may do by itself, takes no more than people allow it, nor than its project.
fn check_bandwidth(engine: &Engine, send: &Send) -> Result<(), String> {
    let cap = engine.agent(send.agent).and_then(|agent| agent.caps.bandwidth_limit_kib).unwrap_or(0);
    let fits = |offer: &Offer| {
        let own = engine.project(offer.project).map_or(0, |one| one.record.spec.rsync.bandwidth_limit_kib);
        let strictest = if own == 0 || cap == 0 { own.max(cap) } else { own.min(cap) };
        offer.bandwidth_limit_kib == strictest
    };
    let wrong = match &send.message {
        Message::Offer(offer) => Some(&**offer).filter(|offer| !fits(offer)),
        Message::Autonomy { orders, .. } => {
            orders.iter().map(|order| &order.template).find(|template| !fits(template))
        }
        _ => None,
    };
    wrong.map_or(Ok(()), |offer| Err(format!("agent {} may take {cap} KiB/s: {offer:?}", send.agent.0)))
}

/// The end of a simulation.
impl World {
    /// Every agent that is named or selected holds the tree, and no other.
    pub(super) fn placed_as_declared(&self, uid: ProjectUid) -> Result<(), String> {
        let store = &self.coordinator.store;
        let Some(project) = store.project(uid) else { return Ok(()) };
        let settings = &project.spec.placement;
        let mut wanted: BTreeSet<AgentUid> = settings.origins.iter().map(|target| target.agent).collect();
        for replicas in &settings.replicas {
            let picked = store.live.values().filter_map(|record| match (record, &replicas.pick) {
                (Record::Agent(agent), Pick::Labels(labels)) if agent.revoked.is_none() => {
                    let fits = labels.iter().all(|(key, value)| agent.labels.get(key) == Some(value));
                    fits.then_some(agent.uid)
                }
                (Record::Agent(agent), Pick::Agent(named)) => (agent.uid == *named).then_some(*named),
                _ => None,
            });
            wanted.extend(picked);
        }
        let range =
            store.live.range(Key::Placement(uid, AgentUid(0))..=Key::Placement(uid, AgentUid(u64::MAX)));
        let placed = range.filter_map(|(key, _)| match key {
            Key::Placement(_, agent) => Some(*agent),
            _ => None,
        });
        let placed: BTreeSet<AgentUid> = placed.collect();
        if placed == wanted {
            return Ok(());
        }
        Err(format!("project {uid:?} is on {placed:?}, and should be on {wanted:?}: {settings:?}"))
    }

    /// No daemon serves a tree to somebody who does not hold it any more.
    pub(super) fn served_to_nobody_else(&self) -> Result<(), String> {
        let store = &self.coordinator.store;
        for host in self.hosts.iter().filter(|host| host.up && !host.retired && host.stream.is_some()) {
            for pair in host.daemon.exports.values().flat_map(|export| &export.pairs) {
                let placed = store.placement(pair.project, pair.replica);
                if placed.is_none_or(|placed| placed.role == Role::Origin) || Some(pair.origin) != host.uid {
                    return Err(format!("{} serves {pair:?}, whose placement is {placed:?}", host.name));
                }
            }
        }
        Ok(())
    }
}
